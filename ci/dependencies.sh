#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that are missing here. Asks for nothing. Guest
# kernels, QEMU and compilers for the module are not among them: they are unpacked into a cache when needed.
set -euo pipefail

declare -A package_of=([cc]=gcc [make]=make [dpkg-deb]=dpkg [apt-get]=apt [chroot]=coreutils [unshare]=util-linux [c++]=g++ [mandoc]=mandoc [pkg-config]=pkgconf [valgrind]=valgrind)
missing=()
for command in "${!package_of[@]}"; do
	command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
# The guest's programs are linked with the static C library.
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || missing+=(libc6-dev)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}" >&2
if [ "$(id -u)" -eq 0 ]; then
	as_root=()
elif command -v sudo >/dev/null; then
	as_root=(sudo)
else
	echo "These Debian packages are missing: ${missing[*]}. Install them as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null

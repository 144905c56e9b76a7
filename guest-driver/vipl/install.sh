#!/usr/bin/env bash
# Installs VIPL, its manual, and the tools, as they were built before. Called by `make install`, with its variables:
#
#   BUILT       where cargo has put them
#   DESTDIR     put in front of every path here, but not in what is installed
#   PREFIX, BINDIR, LIBDIR, INCLUDEDIR, MANDIR
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=(vip-info vip-pingpong vip-bw vip-bench vip-memory vianic-device)
# What programs link with and load, by the names that providers have given it.
library_names=(libvipl.so vipl.so libgnivipl.so)

for file in libvipl.so libvipl.a "${programs[@]}"; do
	if [ ! -e "$BUILT/$file" ]; then
		echo "$BUILT/$file is missing: run make build" >&2
		exit 1
	fi
done
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)

install -d "$DESTDIR$BINDIR" "$DESTDIR$LIBDIR/pkgconfig" "$DESTDIR$INCLUDEDIR"
for program in "${programs[@]}"; do
	install -m 755 "$BUILT/$program" "$DESTDIR$BINDIR"
done
install -m 644 "$BUILT/libvipl.so" "$DESTDIR$LIBDIR/libvipl.so.1"
for name in "${library_names[@]}"; do
	ln -sfn libvipl.so.1 "$DESTDIR$LIBDIR/$name"
done
install -m 644 "$BUILT/libvipl.a" "$DESTDIR$LIBDIR"
install -m 644 guest-driver/vipl/include/vipl.h "$DESTDIR$INCLUDEDIR"
sed -e "s|@PREFIX@|$PREFIX|" -e "s|@LIBDIR@|$LIBDIR|" -e "s|@INCLUDEDIR@|$INCLUDEDIR|" -e "s|@VERSION@|$version|" \
	guest-driver/vipl/vipl.pc.in >"$DESTDIR$LIBDIR/pkgconfig/vipl.pc"
chmod 644 "$DESTDIR$LIBDIR/pkgconfig/vipl.pc"
shopt -s nullglob
for page in guest-driver/vipl/man/*.[1-8]; do
	section="$DESTDIR$MANDIR/man${page##*.}"
	install -d "$section"
	install -m 644 "$page" "$section"
done

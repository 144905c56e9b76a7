#!/usr/bin/env bash
# Runs the tests, step by step, and ends in one summary. `ci/test.sh quick` leaves out what needs QEMU or a kernel.
# Every step has a limit; the log of each is in artifacts/.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p artifacts
export CARGO_TERM_COLOR=never VIANIC_ARTIFACTS="$PWD/artifacts"

steps=() failed_steps=() passed=0 failed=0 skipped=0
start=$SECONDS

# step NAME MINUTES COMMAND...
step() {
	local name=$1 limit=$2 began=$SECONDS log
	shift 2
	log="artifacts/$(tr -cs 'a-zA-Z0-9\n' - <<<"$name").log"
	printf '== %s\n' "$name"
	timeout --kill-after=20 "${limit}m" "$@" >"$log" 2>&1
	local status=$?
	local counts
	counts=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' "$log")
	while read -r p f i; do
		passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${i:-0}))
	done <<<"$counts"
	if [ $status -eq 0 ]; then
		[ -n "$counts" ] || passed=$((passed + 1))
		steps+=("ok      $((SECONDS - began))s  $name")
	else
		[ -n "$counts" ] && grep -q 'test result: FAILED' "$log" || failed=$((failed + 1))
		[ $status -eq 124 ] && echo "(ended after its limit of $limit minutes)" >>"$log"
		tail -n 120 "$log"
		steps+=("FAILED  $((SECONDS - began))s  $name ($log)")
		failed_steps+=("$name")
	fi
}

# Ignored tests say why; the summary repeats it.
reasons() { grep -hoE '^test .* \.\.\. ignored, .*' artifacts/*.log | sed 's/^test /skipped: /'; }

rm -f artifacts/*.log
step "packages" 10 ci/dependencies.sh
step "format" 2 cargo fmt --all --check
step "lints" 20 cargo clippy --workspace --all-targets --locked -- -D warnings
# Cargo compiles a crate anew for every set of features that the chosen packages ask of it. Chosen are those of "build" or, for what is
# not optimised, all of the workspace: from both choices the same features follow wherever they are made.
step "build" 20 cargo build --release --locked -p vianic -p vianic-device -p vianic-tools -p vipl
step "instructions per message" 10 cargo test --release --locked -p vianic -p vianic-bench --test instructions -- --nocapture
step "build of the tests" 20 cargo build --workspace --locked --lib --bins --examples --tests
step "unit and component tests" 20 cargo test --workspace --exclude vianic-tests --locked
step "documentation" 10 env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
step "direct link" 10 cargo test --workspace --locked --test direct -- --test-threads=1
step "coverage of the conformance suite" 10 cargo test --workspace --locked --test coverage
step "installation" 10 cargo test --workspace --locked --test install
if [ "${1:-}" != quick ]; then
	step "kernel module on Debian 12, 13 and 13 backports" 15 cargo test --workspace --locked --test module
	for file in tests/tests/*.rs; do
		name=$(basename "$file" .rs)
		case $name in coverage | direct | install | module) continue ;; esac
		step "guests: $name" 20 cargo test --workspace --locked --test "$name" -- --test-threads=1
	done
fi

echo
printf '%s\n' "${steps[@]}"
reasons
echo "$((SECONDS - start)) s in all"
echo "$passed passed, $failed failed, $skipped skipped"
[ ${#failed_steps[@]} -eq 0 ]

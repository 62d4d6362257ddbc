#!/bin/sh
# Runs every fuzz target for SECONDS each, from the committed seeds and from what earlier runs left in corpus/.
#   run.sh SECONDS [TARGET..]
# Exit codes: 0 no crash, 1 a crash (its input lies in artifacts/TARGET/), 2 usage, 3 it does not build, 77 cannot run here.
set -eu
cd "$(dirname "$0")"

case ${1-} in
'' | *[!0-9]*) echo "usage: run.sh SECONDS [TARGET..]" >&2; exit 2 ;;
esac
seconds=$1
shift

cannot() {
    echo "run.sh: SKIPPED, NOTHING WAS FUZZED: $1" >&2
    exit 77
}
cargo +nightly --version >/dev/null 2>&1 || cannot "there is no nightly toolchain (rustup toolchain install nightly)"
cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked || cannot "cargo-fuzz cannot be installed"

# Nothing here is unsafe, so no sanitizer: overflows and assertions are on (Cargo.toml), and it runs several times faster.
cargo +nightly fuzz build --fuzz-dir . --sanitizer none || exit 3

all=$(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' Cargo.toml)
built=target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
failed=
# shellcheck disable=SC2086  # a list of names
for target in ${@:-$all}; do
    test -x "$built/$target" || { echo "run.sh: there is no target $target" >&2; exit 2; }
    mkdir -p "corpus/$target" "artifacts/$target"
    log=$(mktemp)
    if "$built/$target" "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
        -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 >"$log" 2>&1; then
        result=ok
    else
        result=CRASH failed="$failed $target"
        tail -n 40 "$log" >&2
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
    printf '%-14s %-6s %12s runs, %6s edges\n' "$target" "$result" "${runs:-?}" "${coverage:-?}"
    rm -f "$log"
done

if [ -n "$failed" ]; then
    echo "run.sh: crashes in:$failed" >&2
    echo "hint: replay one with: cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none TARGET tests/fuzz/artifacts/TARGET/FILE" >&2
    exit 1
fi

#!/bin/sh
# Builds the guests into wasm/<name>.wasm, which are committed.
#   build.sh          builds, and writes wasm/ anew
#   build.sh --check  builds elsewhere and compares: 0 the same bytes, 1 other bytes, 77 cannot be checked here
# wasm/built-with.txt names the toolchain: other compilers make other bytes, so they are no check.
set -eu

target=wasm32-unknown-unknown
cd "$(dirname "$0")"
here=$(pwd)

case ${1-} in
'' | --check) mode=${1-} ;;
*) echo "usage: build.sh [--check]" >&2; exit 2 ;;
esac

cannot() {
    echo "build.sh: SKIPPED, THE GUESTS WERE NOT REBUILT: $1" >&2
    echo "hint: run tests/guests/toolchain.sh as root on Debian 12" >&2
    exit 77
}

command -v rustup >/dev/null || cannot "there is no rustup"
rustc +guest -V >/dev/null 2>&1 || cannot "there is no toolchain called guest"
linkers=$(rustc +guest --print sysroot)/lib/rustlib/$(rustc +guest -vV | sed -n 's/^host: //p')/bin
test -x "$linkers/wasm-component-ld" || cannot "the guest toolchain has no wasm-component-ld"
built_by=/usr/lib/rustlib/$target/lib/built-by
test -e "$built_by" || cannot "there is no std for $target made by toolchain.sh"

toolchain() {
    cat "$built_by"
    "$linkers/wasm-component-ld" --version
    "$linkers/rust-lld" -flavor wasm --version
}

if [ -n "$mode" ]; then
    test -e wasm/built-with.txt || cannot "wasm/built-with.txt is missing"
    toolchain | cmp -s - wasm/built-with.txt ||
        cannot "this toolchain ($(toolchain | tr '\n' ';')) is not the one of wasm/built-with.txt ($(tr '\n' ';' <wasm/built-with.txt))"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    build_dir=$work/target out=$work/wasm
else
    # Cargo does not see that std was built anew: what was built with another one lies in another place.
    build_dir=$here/target/$(toolchain | cksum | cut -d' ' -f1) out=$here/wasm
fi

# Paths of this machine and the name of its registry must not be in the bytes. Of two prefixes that fit the later one counts.
cargo +guest fetch -q --locked --target "$target"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
root=$(cd ../.. && pwd)
separator=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo${separator}--remap-path-prefix=$root=/portcullis"
for registry in "$cargo_home"/registry/src/*/; do
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${separator}--remap-path-prefix=${registry%/}=/registry"
done
export CARGO_ENCODED_RUSTFLAGS
cargo +guest build -q --locked --release --target "$target" --target-dir "$build_dir"

mkdir -p "$out"
rm -f "$out"/*.wasm
for wasm in "$build_dir/$target/release/"*.wasm; do
    cp "$wasm" "$out/"
done

if [ -z "$mode" ]; then
    toolchain >wasm/built-with.txt
    exit 0
fi

if diff -rq --exclude built-with.txt "$out" wasm >"$work/differences"; then
    echo "build.sh: all $(ls wasm/*.wasm | wc -l) guests are the same bytes"
else
    sed "s|$out|rebuilt|g; s|^|build.sh: |" "$work/differences" >&2
    echo "hint: run tests/guests/build.sh and commit wasm/ together with the change of the sources" >&2
    exit 1
fi

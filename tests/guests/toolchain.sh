#!/bin/sh
# Installs the toolchain that builds the guests, on Debian 12 beside the Rust toolchain of this repository:
# rustc, cargo and the sources of std from Debian, the linkers (rust-lld, wasm-component-ld) from the Rust toolchain at
# hand, and std for wasm32-unknown-unknown, built once. Afterwards: cargo +guest build --release --target wasm32-unknown-unknown
# Running it again does nothing. Needs root (apt, /usr/lib/rustlib) and rustup.
set -eu

target=wasm32-unknown-unknown
cd "$(dirname "$0")"

missing=
for package in rustc-web cargo-web rust-web-src; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of package names
    apt-get install -y -qq --no-install-recommends $missing
fi

host=$(rustc -vV | sed -n 's/^host: //p')
linkers=$(rustc --print sysroot)/lib/rustlib/$host/bin
bin=/usr/lib/rustlib/$host/bin
mkdir -p "$bin/gcc-ld"
for linker in rust-lld wasm-component-ld gcc-ld/wasm-ld; do
    test -x "$linkers/$linker" || { echo "toolchain.sh: the Rust toolchain has no $linker in $linkers" >&2; exit 1; }
    ln -sf "$linkers/$linker" "$bin/$linker"
done

rustup toolchain list | grep -q '^guest\( \|$\)' || rustup toolchain link guest /usr

# std is bound to the exact compiler and to this recipe: the stamp beside it says which ones made it.
lib=/usr/lib/rustlib/$target/lib
stamp="$(rustc +guest -vV)
recipe 2"
if test -e "$lib/built-by" && test "$stamp" = "$(cat "$lib/built-by")"; then
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
: >src/lib.rs
printf '[package]\nname = "mkstd"\nversion = "0.0.0"\nedition = "2021"\n[profile.release]\npanic = "abort"\n' >Cargo.toml
export RUSTC_BOOTSTRAP=1
cargo +guest fetch -q -Z build-std=std,panic_abort --target "$target"
# The bitcode lets the guests be linked with lto; the remapping keeps the paths of this machine and the name of its registry
# out of their bytes. Of two prefixes that fit the later one counts.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
separator=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="-Cembed-bitcode=yes${separator}--remap-path-prefix=$cargo_home=/cargo"
for registry in "$cargo_home"/registry/src/*/; do
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${separator}--remap-path-prefix=${registry%/}=/registry"
done
export CARGO_ENCODED_RUSTFLAGS
CARGO_TARGET_DIR=$work/target \
    cargo +guest build -q --release -Z build-std=std,panic_abort --target "$target"
mkdir -p "$lib/self-contained"
rm -f "target/$target/release/deps/"libmkstd* "$lib/built-by" "$lib"/*.rlib
cp "target/$target/release/deps/"*.rlib "$lib/"
echo "$stamp" >"$lib/built-by"

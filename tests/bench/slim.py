#!/usr/bin/env python3
"""Builds the signing commands alone (--no-default-features, release), checks that there is no engine in them, and measures them.

    python3 tests/bench/slim.py [--target-dir DIR]

Fails where an engine or anything of Linux alone is linked, or the stripped binary has 12 MB or more. Times are printed, not judged.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MOST = 12_000_000
NEVER = ["wasmtime", "cranelift", "cedar-policy", "landlock", "seccompiler", "rcgen", "portcullis-identity", "aws-lc-rs", "openssl-sys"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--target-dir", default=os.path.join(ROOT, "target", "slim"))
    target = os.path.abspath(arguments.parse_args().target_dir)
    package = ["-p", "portcullis", "--no-default-features", "--locked"]
    tree = subprocess.run(["cargo", "tree", *package, "-e", "normal", "--prefix", "none"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    linked = {line.split(" ")[0] for line in tree.splitlines() if line}
    wrong = [name for name in linked if any(name == never or name.startswith(never + "-") for never in NEVER)]
    print(f"crates linked: {len(linked)}")
    if wrong:
        sys.exit(f"these must not be linked: {', '.join(sorted(wrong))}")
    subprocess.run(["cargo", "build", "--release", *package, "--target-dir", target], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.join(folder, "portcullis")
        shutil.copy(os.path.join(target, "release", "portcullis"), binary)
        subprocess.run(["strip", binary], check=True)
        size = os.path.getsize(binary)
        times = []
        for _ in range(51):
            began = time.perf_counter()
            subprocess.run([binary, "--help"], check=True, stdout=subprocess.DEVNULL)
            times.append((time.perf_counter() - began) * 1000)
    print(f"stripped: {size:,} bytes (wanted: under {MOST:,})")
    print(f"--help: median {statistics.median(times):.2f} ms, worst {max(times):.2f} ms, the start of the process included")
    if size >= MOST:
        sys.exit("the binary is too large")


if __name__ == "__main__":
    main()

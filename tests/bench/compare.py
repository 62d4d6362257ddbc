#!/usr/bin/env python3
"""Compares `portcullis host`, every check on, with `wasmtime serve` of the same version on the same guest and machine.

Needs wrk, wasmtime 48 (with `serve` and `compile`) and a release build of portcullis; python 3.9 or later, nothing else.
The rounds of all servers are interleaved (A B C .. C B A), each with a process of its own; medians are compared. Only the
ratios mean something. Where the reference itself varied too much between rounds, nothing is judged. Writes to standard
output and nowhere else.

Exit codes: 0 what is wanted was reached, 1 it was missed, 2 usage, 3 nothing could be judged, 4 nothing could be measured.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

from measure import hostile_round, load_round, spawn_round, start_in_host  # noqa: E402
from servers import BEST_FLAGS, Broken, Portcullis, Serve  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests/guests/wasm"
OURS, DEFAULT, BEST = "portcullis", "serve default", "serve best flags"

# A reference whose fastest round is further than this from its slowest shows the machine, not the servers.
STEADY = 1.6
LEAST_ROUNDS = 3
HOSTILE_CLIENTS = 4


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        try:
            report = measure_all(options, Path(folder))
        except Broken as error:
            print(f"compare.py: {error}", file=sys.stderr)
            return 4
    print(json.dumps(report, indent=2) if options.json else shown(report))
    verdicts = [wanted["verdict"] for wanted in report["wanted"]]
    if "missed" in verdicts:
        return 1
    return 3 if "not judged" in verdicts else 0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portcullis", default=str(ROOT / "target/release/portcullis"), help="the release binary")
    parser.add_argument("--wasmtime", default="wasmtime", help="the reference (from PATH if it is a name)")
    parser.add_argument("--wrk", default="wrk", help="the load generator (from PATH if it is a name)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each server (default 7)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each load (default 3)")
    parser.add_argument("--starts", type=int, default=15, help="starts of each server (default 15)")
    parser.add_argument("--only", action="append", choices=["load", "hostile", "start"], help="a part; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    for name in ("portcullis", "wasmtime", "wrk"):
        found = shutil.which(getattr(options, name))
        if found is None:
            parser.error(f"--{name}: there is no program {getattr(options, name)}")
        setattr(options, name, os.path.abspath(found))
    if min(options.rounds, options.seconds, options.starts) < 1:
        parser.error("--rounds, --seconds and --starts must be at least 1")
    options.parts = options.only or ["load", "hostile", "start"]
    return options


def measure_all(options, folder):
    hello, spin = GUESTS / "hello.wasm", GUESTS / "spin.wasm"
    report = {"machine": machine(), "versions": versions(options), "guests": digests(hello, spin),
              "loadavg_before": os.getloadavg(), "commands": {}, "parts": {}, "wanted": []}
    if "load" in options.parts:
        report["parts"]["load"] = load_part(options, folder, hello, report)
    if "hostile" in options.parts:
        report["parts"]["hostile"] = hostile_part(options, folder, spin, report)
    if "start" in options.parts:
        report["parts"]["start"] = start_part(options, folder, hello, report)
    report["loadavg_after"] = os.getloadavg()
    judge(report)
    return report


def load_part(options, folder, guest, report):
    servers = [
        Serve(DEFAULT, folder, options.wasmtime, guest),
        Portcullis(OURS, folder, options.portcullis, guest),
        Serve(BEST, folder, options.wasmtime, guest, BEST_FLAGS),
    ]
    return interleaved("load", servers, options.rounds, report,
                       lambda server: load_round(options.wrk, server, options.seconds))


def hostile_part(options, folder, guest, report):
    servers = [
        Serve(DEFAULT, folder, options.wasmtime, guest),
        Portcullis(OURS, folder, options.portcullis, guest),
        Serve("serve timeout=1s", folder, options.wasmtime, guest, ["-W", "timeout=1s"]),
    ]
    return interleaved("hostile", servers, options.rounds, report,
                       lambda server: hostile_round(options.wrk, server, options.seconds, HOSTILE_CLIENTS))


def start_part(options, folder, guest, report):
    compiled = folder / "hello.cwasm"
    done = subprocess.run([options.wasmtime, "compile", guest, "-o", compiled], capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"`wasmtime compile` ended with {done.returncode}: {done.stderr}")
    starts = folder / "starts"
    starts.mkdir()
    host = Portcullis(OURS, starts, options.portcullis, guest)
    nothing = lambda: None
    cases = [
        ("serve, cold", Serve("serve, cold", folder, options.wasmtime, guest, ["-C", "cache=n"]), nothing),
        ("portcullis, cold", host, host.forget),
        ("serve, precompiled", Serve("serve, precompiled", folder, options.wasmtime, compiled,
                                     ["--allow-precompiled"]), nothing),
        ("portcullis, warm", host, nothing),
    ]
    for name, server, _ in cases:
        report["commands"][f"start: {name}"] = server.shown_command()
    samples = {name: [] for name, _, _ in cases}
    for number in range(options.starts):
        # A warm start needs the cold one before it, so the order is turned only as far as that stays true.
        for name, server, before in cases if number % 2 == 0 else cases[2:] + cases[:2]:
            if name == "portcullis, warm" and not (host.folder / "state").exists():
                host.first_response()
                host.stop()
            samples[name].append(spawn_round(server, before))
            progress("start", name, number, options.starts)
    samples["portcullis, in a running host"] = start_in_host(host, options.starts)
    return summarised(samples)


def interleaved(part, servers, rounds, report, measure):
    for server in servers:
        report["commands"][f"{part}: {server.name}"] = server.shown_command()
    samples = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            samples[server.name].append(measure(server))
            progress(part, server.name, number, rounds)
    return summarised(samples)


def summarised(samples):
    summary = {}
    for name, rounds in samples.items():
        values = {metric: [one[metric] for one in rounds] for metric in rounds[0]}
        summary[name] = {
            metric: {"median": statistics.median(taken), "min": min(taken), "max": max(taken), "rounds": len(taken)}
            for metric, taken in values.items()
        }
    return summary


def judge(report):
    """Compares with what is wanted, wherever the reference held still."""
    parts = report["parts"]
    if "load" in parts:
        reference, ours = parts["load"][DEFAULT]["c64_rps"], parts["load"][OURS]["c64_rps"]
        want(report, "64 connections, requests/s, to serve default", ratio(ours, reference), ">=", 1.4, reference)
    if "hostile" in parts:
        ours = parts["hostile"][OURS]
        want(report, "requests/s kept beside 4 hostile clients", ours["kept"]["median"], ">=", 0.5, ours["alone_rps"])
    if "start" in parts:
        ours = parts["start"]["portcullis, in a running host"]
        want(report, "warm start of hello in a running host, ms", ours["start_ms"]["median"], "<", 10.0,
             parts["start"]["serve, precompiled"]["start_ms"])


def want(report, what, value, relation, bound, steady):
    spread = steady["max"] / steady["min"] if steady["min"] > 0 else float("inf")
    reached = value >= bound if relation == ">=" else value < bound
    doubt = None
    if steady["rounds"] < LEAST_ROUNDS:
        doubt = f"{steady['rounds']} rounds say too little, {LEAST_ROUNDS} are needed"
    elif spread > STEADY:
        doubt = f"the reference varied by {spread:.2f} between rounds, more than {STEADY}"
    verdict = "not judged" if doubt else "reached" if reached else "missed"
    report["wanted"].append({"what": what, "value": value, "wanted": f"{relation} {bound}", "verdict": verdict,
                             "doubt": doubt})


def ratio(ours, reference):
    return ours["median"] / reference["median"] if reference["median"] > 0 else float("inf")


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    swap = len(Path("/proc/swaps").read_text().splitlines()) > 1
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "memory_gib": round(memory, 1), "swap": swap, "python": platform.python_version()}


def versions(options):
    def first_line(program, flag):
        done = subprocess.run([program, flag], capture_output=True, text=True)
        return next(iter((done.stdout or done.stderr).splitlines()), "no answer").strip()

    return {"portcullis": first_line(options.portcullis, "--version"),
            "wasmtime": first_line(options.wasmtime, "--version"), "wrk": first_line(options.wrk, "-v"),
            "portcullis_sha256": hashlib.sha256(Path(options.portcullis).read_bytes()).hexdigest()}


def digests(*guests):
    return {guest.name: {"bytes": guest.stat().st_size, "sha256": hashlib.sha256(guest.read_bytes()).hexdigest()}
            for guest in guests}


def progress(part, name, number, rounds):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{part}: round {number + 1} of {rounds}, {name}", end="", file=sys.stderr, flush=True)
        if number + 1 == rounds:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def shown(report):
    lines = ["machine   " + ", ".join(f"{key} {value}" for key, value in report["machine"].items())]
    lines += ["versions  " + ", ".join(value for key, value in report["versions"].items() if "sha" not in key)]
    lines += [f"guest     {name}, {facts['bytes']} bytes, sha256 {facts['sha256'][:16]}"
              for name, facts in report["guests"].items()]
    lines += ["loadavg   before %.2f %.2f %.2f, after %.2f %.2f %.2f" % (*report["loadavg_before"], *report["loadavg_after"])]
    lines += ["command   " + f"{name}: {command}" for name, command in report["commands"].items()]
    references = {"load": DEFAULT, "hostile": DEFAULT}
    for part, servers in report["parts"].items():
        lines += ["", f"{part}: medians, and in brackets the ratio to {references[part]}" if part in references
                  else f"{part}: medians (least to most), in ms"]
        lines += table(servers, references.get(part))
    lines += ["", "wanted"]
    for row in report["wanted"]:
        doubt = f" ({row['doubt']})" if row["doubt"] else ""
        lines.append(f"  {row['verdict']:<11} {row['what']}: {row['value']:.2f}, wanted {row['wanted']}{doubt}")
    return "\n".join(lines)


def table(servers, reference):
    names = list(servers)
    rows = [["", *names]]
    metrics = list(dict.fromkeys(metric for values in servers.values() for metric in values))
    for metric in metrics:
        row = [metric]
        for name in names:
            taken = servers[name].get(metric)
            if taken is None:
                row.append("")
            elif reference is None:
                row.append(f"{taken['median']:.2f} ({taken['min']:.2f} to {taken['max']:.2f})")
            elif name == reference or servers[reference][metric]["median"] <= 0:
                row.append(f"{taken['median']:.2f}")
            else:
                row.append(f"{taken['median']:.2f} [{ratio(taken, servers[reference][metric]):.2f}]")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())

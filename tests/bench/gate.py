#!/usr/bin/env python3
"""What the whole gate costs: one build that can be told to ask policy nothing, with the gate on and with the gate off.

Needs wrk and a build of its own, which is good for nothing else (a host from it runs only where its configuration says how
the gate is to be, and on loopback only):

    cargo build --release --workspace --features portcullis/bench-ungated --target-dir target/bench-gate

Two hosts, one with the gate on and one with it off, run at the same time, and one is loaded at a time: on off off on, then off on
on off, so that what drifts meets both. After some rounds both are ended and another pair is started, the other one first, because
how a process happens to lie in memory is worth more than the gate. A pair's ratio is the median of its rounds'; what counts is the
median of the pairs, with the interval that holds the true one in 19 of 20 such runs (order statistics, so nothing is assumed of
how they lie). It is reached where the whole interval is, missed where none of it is, and not judged between. With `--noise` the
same is done with two hosts that both have the gate on, which shows what the machine alone makes of it.

Beside it stands the CPU time of the host's processes for a request, as a ratio the same way round: it varies less than the requests
a second of a machine that has the load generator on the same cores, and says what the gate costs where these do not.

Exit codes: 0 what is wanted was reached, 1 it was missed, 2 usage, 3 nothing could be judged, 4 nothing could be measured.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

from compare import GUESTS, ROOT, digests, machine  # noqa: E402
from measure import load, warm_up  # noqa: E402
from servers import Broken, Portcullis, answers  # noqa: E402

WANTED = 0.97
# Fewer have no interval that says anything.
LEAST_PAIRS = 9


class Gated(Portcullis):
    """A host of the bench build, its gate on or off."""

    def __init__(self, name, folder, portcullis, guest, gate):
        self.gate = gate
        folder = folder / name
        folder.mkdir()
        super().__init__(name, folder, portcullis, guest)

    def configuration(self, root):
        return super().configuration(root).replace(
            "version = 1\n", f'version = 1\ndanger_bench_gate = "{self.gate}"\n', 1)

    def start(self):
        super().start()
        status = json.loads(self.run("status", "--config", "portcullis.toml", "--json"))
        if "danger_bench_gate" not in status["dangers"]:
            raise Broken("this is not the bench build, or its status does not name the danger")
        self.check_gate()

    def check_gate(self):
        """Whether the gate is as it should be: nobody may call any more, and then again."""
        grants = self.folder / "grants.toml"
        granted = grants.read_text()
        grants.write_text(granted.replace('callers = ["anonymous"]\n', ""))
        self.run("reload", "--config", "portcullis.toml")
        found, wanted = answers(self.port), {"on": 403, "off": 200}[self.gate]
        if found != wanted:
            raise Broken(f"with the gate {self.gate} and nobody granted, a request is answered {found}, not {wanted}")
        grants.write_text(granted)
        self.run("reload", "--config", "portcullis.toml")


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="portcullis-gate-") as folder:
        try:
            report = measure_all(options, Path(folder))
        except Broken as error:
            print(f"gate.py: {error}", file=sys.stderr)
            return 4
    print(json.dumps(report, indent=2) if options.json else shown(report))
    verdicts = [one["verdict"] for one in report["connections"]]
    return 1 if "missed" in verdicts else 3 if "not judged" in verdicts else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portcullis", default=str(ROOT / "target/bench-gate/release/portcullis"), help="the bench build")
    parser.add_argument("--wrk", default="wrk", help="the load generator (from PATH if it is a name)")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of hosts, one after another (default 15)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each pair (default 4)")
    parser.add_argument("--seconds", type=int, default=1, help="seconds of each load, four in a round (default 1)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64], help="connections at once (default 1 64)")
    parser.add_argument("--noise", action="store_true", help="the gate on in both: what the machine makes of it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    for name in ("portcullis", "wrk"):
        found = shutil.which(getattr(options, name))
        if found is None:
            parser.error(f"--{name}: there is no program {getattr(options, name)}")
        setattr(options, name, os.path.abspath(found))
    if min(options.pairs, options.rounds, options.seconds, *options.connections) < 1:
        parser.error("--pairs, --rounds, --seconds and --connections must be at least 1")
    return options


def measure_all(options, folder):
    hello = GUESTS / "hello.wasm"
    gates = ["on", "on" if options.noise else "off"]
    report = {"machine": machine(), "guests": digests(hello), "gates": gates, "loadavg_before": os.getloadavg()}
    pairs = {connections: [] for connections in options.connections}
    for number in range(options.pairs):
        place = folder / str(number)
        place.mkdir()
        hosts = [Gated(name, place, options.portcullis, hello, gate) for name, gate in zip(("first", "second"), gates)]
        try:
            for host in hosts if number % 2 == 0 else reversed(hosts):
                host.start()
            for host in hosts:
                warm_up(options.wrk, host)
            for connections, measured in pairs.items():
                measured.append(one_pair([one_round(options, hosts, connections, n) for n in range(options.rounds)]))
        finally:
            for host in hosts:
                host.stop()
        if not options.json:
            so_far = ", ".join(f"{measured[-1]['ratio']:.3f} at {connections}" for connections, measured in pairs.items())
            print(f"pair {number + 1} of {options.pairs}: {so_far}", file=sys.stderr, flush=True)
    report["connections"] = [judged(connections, measured) for connections, measured in pairs.items()]
    report["loadavg_after"] = os.getloadavg()
    return report


def one_pair(rounds):
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def one_round(options, hosts, connections, number):
    """Requests a second of both, and their ratio."""
    order = [0, 1, 1, 0] if number % 2 == 0 else [1, 0, 0, 1]
    speeds, costs = [[], []], [[], []]
    for which in order:
        before = hosts[which].cpu_seconds()
        measured = load(options.wrk, hosts[which].port, connections, options.seconds)
        if measured["requests_per_second"] <= 0:
            raise Broken("nobody was answered")
        used = hosts[which].cpu_seconds() - before
        speeds[which].append(measured["requests_per_second"])
        costs[which].append(used / options.seconds / measured["requests_per_second"] * 1e6)
    first, second = (statistics.mean(taken) for taken in speeds)
    dear, cheap = (statistics.mean(taken) for taken in costs)
    return {"first": first, "second": second, "ratio": first / second,
            "first_cpu": dear, "second_cpu": cheap, "cpu": cheap / dear}


def judged(connections, pairs):
    ratios = sorted(one["ratio"] for one in pairs)
    low, high = interval(ratios)
    if len(pairs) < LEAST_PAIRS:
        verdict, doubt = "not judged", f"{len(pairs)} pairs say too little, {LEAST_PAIRS} are needed"
    elif low >= WANTED:
        verdict, doubt = "reached", None
    elif high < WANTED:
        verdict, doubt = "missed", None
    else:
        verdict, doubt = "not judged", "more pairs would tell"
    cpu_low, cpu_high = interval(sorted(one["cpu"] for one in pairs))
    middle = {key: statistics.median(one[key] for one in pairs) for key in pairs[0]}
    return middle | {
        "connections": connections, "low": low, "high": high, "least": ratios[0], "most": ratios[-1],
        "cpu_low": cpu_low, "cpu_high": cpu_high, "pairs": len(pairs), "verdict": verdict, "doubt": doubt}


def interval(ordered):
    """What holds the true median with a probability of 0.95 or more."""
    pairs, outside, chance = len(ordered), 0, 0.0
    while True:
        chance += math.comb(pairs, outside) / 2 ** pairs
        if 2 * chance > 0.05:
            break
        outside += 1
    first = max(outside - 1, 0)
    return ordered[first], ordered[pairs - 1 - first]


def shown(report):
    lines = ["machine   " + ", ".join(f"{key} {value}" for key, value in report["machine"].items())]
    lines += [f"guest     {name}, {facts['bytes']} bytes" for name, facts in report["guests"].items()]
    lines += ["loadavg   before %.2f %.2f %.2f, after %.2f %.2f %.2f" % (*report["loadavg_before"], *report["loadavg_after"])]
    on, second = report["gates"]
    for one in report["connections"]:
        doubt = f" ({one['doubt']})" if one["doubt"] else ""
        lines.append(
            f"{one['connections']:>3} connections: gate {on} {one['first']:.0f}/s, gate {second} {one['second']:.0f}/s, ratio "
            f"{one['ratio']:.3f} (95 %: {one['low']:.3f} to {one['high']:.3f}, all {one['pairs']} pairs: {one['least']:.3f} to "
            f"{one['most']:.3f}), wanted >= {WANTED}: {one['verdict']}{doubt}")
        lines.append(
            f"    CPU time of a request: gate {on} {one['first_cpu']:.1f} us, gate {second} {one['second_cpu']:.1f} us, ratio "
            f"{one['cpu']:.3f} (95 %: {one['cpu_low']:.3f} to {one['cpu_high']:.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""What is measured: load by wrk, load under clients whose requests never end, and starts."""

import http.client
import re
import subprocess
import threading
import time
from contextlib import contextmanager

from servers import Broken, answers

WARM_UP_SECONDS = 1
HOSTILE_PATH = "/spin"


def load(wrk, port, connections, seconds, may_fail=False):
    """One run of wrk: successful requests a second, p50 and p99 in microseconds.

    Answers that are no success, and connections that break, end the measurement; with `may_fail` they only do not count.
    Where nobody was answered, the latency is the whole run: it was at least that.
    """
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise Broken(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    text = done.stdout
    total = int(re.search(r"^\s+(\d+) requests in ", text, re.M)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    bad = int(bad[1]) if bad else 0
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout \d+", text)
    if not may_fail and bad:
        raise Broken(f"{bad} of {total} answers of port {port} were no success: their speed says nothing")
    if not may_fail and broken and any(map(int, broken.groups())):
        raise Broken(f"connections to port {port} broke: {broken[0]}")
    speed = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    return {
        "requests_per_second": speed * (total - bad) / max(total, 1),
        "p50_us": microseconds(text, "50%") if total else seconds * 1e6,
        "p99_us": microseconds(text, "99%") if total else seconds * 1e6,
    }


def microseconds(text, percentile):
    found = re.search(rf"^\s+{re.escape(percentile)}\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    if found is None:
        raise Broken(f"wrk printed no {percentile} latency:\n{text}")
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[found[2]]


def warm_up(wrk, server):
    load(wrk, server.port, 8, WARM_UP_SECONDS)


@contextmanager
def hostile(port, clients):
    """Clients that each hold a request that never ends, and send the next one as soon as it was taken from them."""
    over = threading.Event()
    open_connections = set()
    sent = threading.Semaphore(0)

    def client():
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            open_connections.add(connection)
            try:
                connection.request("GET", HOSTILE_PATH)
                sent.release()
                connection.getresponse().read()
            except (OSError, http.client.HTTPException, AttributeError):
                time.sleep(0.01)
            finally:
                open_connections.discard(connection)
                connection.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for _ in threads:
        if not sent.acquire(timeout=30):
            raise Broken("the hostile clients could not send their requests")
    time.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        for connection in list(open_connections):
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(2)
                except OSError:
                    pass


def load_round(wrk, server, seconds):
    """Start, idle memory, warm-up, load by one connection and by 64, memory again, stop."""
    server.start()
    try:
        idle = server.memory()
        warm_up(wrk, server)
        one = load(wrk, server.port, 1, seconds)
        many = load(wrk, server.port, 64, seconds)
        loaded = server.memory()
    finally:
        server.stop()
    return {
        "c1_rps": one["requests_per_second"], "c1_p50_us": one["p50_us"], "c1_p99_us": one["p99_us"],
        "c64_rps": many["requests_per_second"], "c64_p50_us": many["p50_us"], "c64_p99_us": many["p99_us"],
        "rss_idle_mib": idle[0], "pss_idle_mib": idle[1], "rss_mib": loaded[0], "pss_mib": loaded[1],
    }


def hostile_round(wrk, server, seconds, clients):
    """Honest load by 8 connections, alone and then beside the hostile clients."""
    server.start()
    try:
        warm_up(wrk, server)
        alone = load(wrk, server.port, 8, seconds)
        with hostile(server.port, clients):
            beside = load(wrk, server.port, 8, seconds, may_fail=True)
    finally:
        server.stop()
    return {
        "alone_rps": alone["requests_per_second"], "alone_p99_us": alone["p99_us"],
        "hostile_rps": beside["requests_per_second"], "hostile_p50_us": beside["p50_us"],
        "hostile_p99_us": beside["p99_us"],
        "kept": beside["requests_per_second"] / max(alone["requests_per_second"], 1e-9),
    }


def spawn_round(server, before):
    """From the spawn of the server to its first answer."""
    before()
    try:
        return {"start_ms": server.first_response() * 1e3}
    finally:
        server.stop()


def start_in_host(host, count):
    """A component with cached native code, in a host that runs: `start`, then the first answer.

    The commands' own time (a process, a connection to the control socket) is in it; `status` does the same and starts
    nothing, so its time is measured beside it and the difference is what the start costs.
    """
    name, wasm, config = f"bench:{host.component}", f"{host.component}.wasm", "portcullis.toml"
    rounds = []
    host.start()
    try:
        for _ in range(count):
            host.run("stop", name, "--config", config)
            if answers(host.port) == 200:
                raise Broken("a stopped component answered")
            began = time.perf_counter()
            host.run("status", "--config", config)
            asked = time.perf_counter()
            host.run("start", wasm, "--route", "/", "--config", config)
            status = answers(host.port)
            done = time.perf_counter()
            if status != 200:
                raise Broken(f"a component that was started answered {status}")
            command, start = (asked - began) * 1e3, (done - asked) * 1e3
            rounds.append({"command_ms": command, "start_command_ms": start, "start_ms": max(start - command, 0.0)})
    finally:
        host.stop()
    return rounds

"""The servers that are compared: how each is set up, started, found ready and stopped.

Every server is a process of its own on a free loopback port, with its output in a file of the working folder, which is
shown when it does not come up. Nothing is left behind: the folder goes, and what was started is stopped.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

READY_SECONDS = 60
STOP_SECONDS = 25

# facts of `wasmtime serve` 48: what makes it fastest with a fresh instance for each request.
BEST_FLAGS = [
    "-O", "pooling-memory-keep-resident=1310720",
    "-O", "pooling-table-keep-resident=65536",
    "-O", "pooling-async-stack-keep-resident=65536",
    "-O", "pooling-pagemap-scan=y",
]


class Broken(Exception):
    """A measurement that cannot be made, with the reason."""


def environment():
    """The environment of every server: a backtrace costs memory and time, and is no part of any comparison."""
    dropped = ("RUST_BACKTRACE", "RUST_LOG", "PORTCULLIS_LOG")
    return {key: value for key, value in os.environ.items() if key not in dropped}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port, path="/", timeout=READY_SECONDS):
    """The status of one GET, or None where nobody answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None


class Server:
    """A server to start and stop any number of times."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        self.log = folder / (re.sub(r"[^a-z0-9]+", "-", name) + ".log")
        self.port = None
        self.process = None

    def command(self):
        raise NotImplementedError

    def shown_command(self):
        """The command as a person would type it, without the folders of this machine."""
        program, *arguments = map(str, self.command())
        shown = (part if part.startswith("-") else part.rsplit("/", 1)[-1] for part in arguments)
        return " ".join([program.rsplit("/", 1)[-1], *shown])

    def spawn(self):
        """Starts the process and comes back at once."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), cwd=self.folder)

    def first_response(self):
        """Seconds from the spawn to the end of the first answer 200."""
        began = time.perf_counter()
        self.spawn()
        while time.perf_counter() - began < READY_SECONDS:
            if answers(self.port) == 200:
                return time.perf_counter() - began
            if self.process.poll() is not None:
                break
            time.sleep(0.0002)
        said = self.log.read_text(errors="replace")[-2000:]
        self.stop()
        raise Broken(f"{self.name} did not answer 200 at / (command: {self.shown_command()}); it said:\n{said}")

    def start(self):
        self.first_response()

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def memory(self):
        """Resident memory of the server and its children, in MiB: (sum of RSS, sum of PSS)."""
        rss = pss = 0
        for pid in tree_of(self.process.pid):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError as error:
                raise Broken(f"memory of {self.name} cannot be read: {error}") from error
            rss += int(re.search(r"^Rss:\s+(\d+)", text, re.M)[1])
            pss += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
        return rss / 1024, pss / 1024

    def cpu_seconds(self):
        """CPU time that the server and its children have taken so far."""
        nanoseconds = 0
        for pid in tree_of(self.process.pid):
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    nanoseconds += int(task.read_text().split()[0])
                except OSError as error:
                    raise Broken(f"the CPU time of {self.name} cannot be read: {error}") from error
        return nanoseconds / 1e9


def tree_of(root):
    """A process and all that descend from it."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


class Serve(Server):
    """`wasmtime serve`."""

    def __init__(self, name, folder, wasmtime, guest, flags=()):
        super().__init__(name, folder)
        self.wasmtime = wasmtime
        self.guest = guest
        self.flags = list(flags)
        self.port = free_port()

    def command(self):
        return [self.wasmtime, "serve", "--addr", f"127.0.0.1:{self.port}", *self.flags, self.guest]

    def stop(self):
        # It answers SIGTERM only when no request is under way, and here some never end.
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Portcullis(Server):
    """`portcullis host` with every check on, on a site made for it with the ordinary commands."""

    def __init__(self, name, folder, portcullis, guest):
        super().__init__(name, folder / f"site-{Path(guest).stem}")
        self.portcullis = portcullis
        self.component = Path(guest).stem
        self.port = free_port()
        self.folder.mkdir(mode=0o700)
        shutil.copy(guest, self.folder / f"{self.component}.wasm")
        self.make_site()

    def command(self):
        return [self.portcullis, "host", "--config", self.folder / "portcullis.toml"]

    def run(self, *arguments):
        """Runs a command of the CLI to its end and hands back what it printed."""
        command = [self.portcullis, *map(str, arguments)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), cwd=self.folder)
        if done.returncode != 0:
            raise Broken(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def make_site(self):
        """Keys, a signed trust policy, a grant, a signed component and the configuration."""
        name, wasm = self.component, f"{self.component}.wasm"
        root = self.key("root", "root.key")
        signer = self.key("signer", "signer.key")
        self.run("trust", "init", "--out", "trust.json", "--root", root, "--valid-for", "2d")
        self.run("trust", "add", "trust.json", "--signer", signer, "--name", "bench", "--names", "bench:*",
                 "--identity-paths", "ns/bench/sa/*", "--audiences", "bench", "--imports", "wasi:*")
        self.run("trust", "sign", "trust.json", "--key", "root.key", "--out", "trust.signed.json")
        self.run("claims", "init", wasm, "--name", f"bench:{name}", "--version", "1.0.0", "--revision", "1",
                 "--audience", "bench", "--identity-path", f"ns/bench/sa/{name}", "--valid-for", "24h",
                 "--out", "claims.json")
        self.run("sign", wasm, "--claims", "claims.json", "--key", "signer.key")
        self.write("grants.toml", f"""version = 1

[[grant]]
id = "{name}"
reason = "it is measured"
owner = "bench"
component = "bench:{name}"
load = true
callers = ["anonymous"]
""")
        self.write("portcullis.toml", self.configuration(root))

    def configuration(self, root):
        """The one configuration file: defaults everywhere, so that every check is on as shipped."""
        return f"""version = 1
trust_domain = "bench.portcullis.internal"
cluster = "bench"
state_dir = "state"

[listen]
http = "127.0.0.1:{self.port}"

[trust]
policy = "trust.signed.json"
roots = ["{root}"]

[policy]
grants = ["grants.toml"]

[[component]]
path = "{self.component}.wasm"

[[route]]
path = "/"
component = "bench:{self.component}"
"""

    def key(self, kind, file):
        self.run("keys", "generate", "--kind", kind, "--out", file)
        shown = re.search(r"\b[AO][A-Z2-7]{55}\b", self.run("keys", "show", file))
        if shown is None:
            raise Broken(f"`keys show {file}` printed no public key")
        return shown[0]

    def write(self, file, text):
        (self.folder / file).write_text(text)
        os.chmod(self.folder / file, 0o600)

    def forget(self):
        """Removes all state, and with it all native code."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)

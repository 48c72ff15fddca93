"""Programs: find, start on given CPUs, wait until they serve, stop."""

import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time

import machine

START_SECONDS = 30
STOP_SECONDS = 30
# Places of system programs that the path of a user may lack.
SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Failed(Exception):
    """A measurement that cannot go on. The others can."""


def find(name: str) -> pathlib.Path | None:
    """A program beside this Python interpreter or on the path."""
    folders = [str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", ""), *SYSTEM]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return pathlib.Path(found) if found else None


def version(command: list) -> str:
    """First line that a program prints about its version."""
    printed = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
    lines = [line.strip() for line in (printed.stdout + printed.stderr).splitlines() if line.strip()]
    return lines[0] if lines else "unknown"


_given: set[int] = set()


def free_port() -> int:
    """A free port below the ephemeral range, so that no client connection takes it in the meantime. Never the same one
    twice, because a program may bind it later."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first // 2, first)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


class Program:
    """A running program. Its output goes to a file of its directory."""

    def __init__(self, command: list, directory: pathlib.Path, cpus: set[int], environment: dict | None = None):
        self.output = directory / "output"
        with self.output.open("ab") as output, machine.pinned(cpus):
            self.process = subprocess.Popen(
                list(map(str, command)), cwd=directory, env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until(self, serving, pause: float = 0.01):
        """Polls until the program serves; fails when it has exited."""
        deadline = time.monotonic() + START_SECONDS
        while not serving():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{' '.join(map(str, self.process.args))} does not serve:\n{self.tail()}")
            time.sleep(pause)

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]

    def discard_output(self):
        """Empties the output, so that an access log does not fill the disk."""
        os.truncate(self.output, 0)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(machine.process_tree(self.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self.process.wait()


def accepts(port: int) -> bool:
    """Whether a server listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

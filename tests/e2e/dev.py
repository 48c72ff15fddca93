"""`claimgate dev` in a test: start, wait until ready, send requests, stop."""

import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

import httpx

START_SECONDS = 60
STOP_SECONDS = 60
RESPONSE_SECONDS = 30
ENV_FILE = ".claimgate-dev.env"
UVICORN = pathlib.Path(sys.executable).with_name("uvicorn")


class Dev:
    """One running `claimgate dev`, in its own directory."""

    # If true, the client uses HTTP/2 with prior knowledge.
    http2 = False

    def __init__(self, directory: pathlib.Path, command: list, secret: str | None, listen: str, config: str | None):
        self.env_file = directory / ENV_FILE
        self.config = config
        environment = {name: value for name, value in os.environ.items() if name != "BETTER_AUTH_SECRET"}
        if secret is not None:
            environment["BETTER_AUTH_SECRET"] = secret
        gate = [os.environ["CLAIMGATE"], "dev", "--listen", listen, "--"]
        if config is not None:
            (directory / "gate.toml").write_text(config)
            gate[2:2] = ["--config", "gate.toml"]
        self.process = subprocess.Popen(
            [*gate, *map(str, command)], cwd=directory, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,  # lets `clean_up` kill the whole group without killing pytest
        )
        self.lines_read: list[str] = []
        self.lines: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines_read.append(line)
            self.lines.put(line)

    def wait_until(self, what: str, condition, seconds: float):
        """Polls the condition at each line of output, and at least every 100 ms."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            ended = self.process.poll()
            assert ended is None, f"claimgate dev ended with {ended} before {what}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} within {seconds} s:\n{self.output()}"
            with contextlib.suppress(queue.Empty):
                self.lines.get(timeout=0.1)
        return found

    def output(self) -> str:
        return "".join(self.lines_read)

    def settings(self) -> dict | None:
        """Variables of the env file, or None while it is incomplete."""
        try:
            text = self.env_file.read_text()
        except FileNotFoundError:
            return None
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        complete = text.endswith("\n") and {"GATE", "USER_ID", "TOKEN", "EXPIRED"} <= found.keys()
        return found if complete else None

    def ready(self) -> "Dev":
        settings = self.wait_until("env file", self.settings, START_SECONDS)
        self.url, self.user = settings["GATE"], settings["USER_ID"]
        self.token, self.expired = settings["TOKEN"], settings["EXPIRED"]
        # Ignores proxy variables, so that all traffic stays on loopback.
        self.client = httpx.Client(
            base_url=self.url, timeout=RESPONSE_SECONDS, trust_env=False, http1=not self.http2, http2=self.http2)
        return self

    def get(self, path: str, token: str | None = None, headers=()) -> httpx.Response:
        return self.request("GET", path, token, headers)

    def request(self, method: str, path: str, token: str | None = None, headers=(), **options) -> httpx.Response:
        credential = [("Authorization", f"Bearer {token}")] if token is not None else []
        return self.client.request(method, path, headers=[*credential, *headers], **options)

    def stop(self, signal_number=signal.SIGTERM) -> int:
        self.process.send_signal(signal_number)
        return self.process.wait(STOP_SECONDS)

    def clean_up(self):
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def dev(directory: pathlib.Path, command: list, secret: str | None = None, listen: str = "127.0.0.1:0",
        config: str | None = None, http2: bool = False):
    running = Dev(directory, command, secret, listen, config)
    running.http2 = http2
    try:
        yield running.ready()
    finally:
        running.clean_up()

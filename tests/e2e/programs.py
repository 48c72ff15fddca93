"""Programs of a test: start, wait for output, send requests, stop. Each ends after `LIFETIME` seconds at the latest."""

import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import httpx

# Generous, because a busy machine is slow. A healthy program reaches none of these timeouts.
LIFETIME = 2400
START_SECONDS = 60
STOP_SECONDS = 30
RESPONSE_SECONDS = 30
BROWSER_MILLISECONDS = 120_000
NODE = pathlib.Path(sys.executable).with_name("node")
# Variables that the programs of a test do not inherit.
HIDDEN = {"BETTER_AUTH_SECRET", "DATABASE_URL", "PORT"}


def free_port() -> int:
    """A free port, for a program that needs a fixed one. It is below the ephemeral range, so that the system does not
    assign it to another socket in the meantime."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first // 2, first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition, seconds: float = START_SECONDS) -> float:
    """Polls the condition every 50 ms, and returns the seconds until it was true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def http_client(url: str) -> httpx.Client:
    """Client that ignores proxy variables, so that all traffic stays on loopback."""
    return httpx.Client(base_url=url, timeout=RESPONSE_SECONDS, trust_env=False)


class Program:
    """One running program. Its output goes to a file, so that a full pipe never blocks it."""

    def __init__(self, directory: pathlib.Path, command: list, environment: dict):
        self.log = directory / f"{pathlib.Path(command[0]).name}.log"
        inherited = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["timeout", "--kill-after=5", str(LIFETIME), *map(str, command)],
                cwd=directory, env=inherited | environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,  # lets `stop` kill the whole group without killing pytest
            )

    def output(self) -> str:
        """All complete lines."""
        text, end, _ = self.log.read_text(errors="replace").rpartition("\n")
        return text + end

    def wait_for(self, pattern: str) -> re.Match:
        """Waits for a line that matches the pattern."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            # Decided before the search, so that output written just before the exit is still found.
            over = self.process.poll() is not None or time.monotonic() > deadline
            if found := re.search(pattern, self.output(), re.MULTILINE):
                return found
            if over:
                self.stop()
                raise AssertionError(f"{self.log.stem} never wrote {pattern}:\n{self.output()}")
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Issuer:
    """A Better Auth server. Port, accounts, sessions and keys survive `stop` and `start`."""

    def __init__(self, directory: pathlib.Path, algorithm: str = "EdDSA", origin: str | None = None, **options):
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.origin = origin or self.url
        self.jwks_url = f"{self.url}/api/auth/jwks"
        self.environment = {
            "PORT": str(self.port), "ORIGIN": self.origin, "ALGORITHM": algorithm,
            "DATABASE": str(directory / "auth.sqlite3"),
            "BETTER_AUTH_SECRET": "mC0xq8Yw3kTfZ6uJr1LsVb9dNgHp5eAi",
        } | options
        self.client = http_client(self.url)
        self.start()

    def start(self):
        server = pathlib.Path(os.environ["BETTER_AUTH_SERVER"])
        self.program = Program(self.directory, [NODE, server], self.environment)
        self.program.wait_for("listening on port")

    def stop(self):
        self.program.stop()

    def rotate(self):
        """Expires every signing key, so that the next token creates a new one."""
        self.client.post("/rotate").raise_for_status()

    def key_set_fetches(self) -> int:
        """Number of key set requests since the start."""
        return int(self.client.get("/fetches").text)

    def sign_up(self, email: str = "ada@example.com") -> "User":
        return User(self, self.client, email)


class User:
    """A user with an account and a session. The client must reach the issuer, directly or through the gate."""

    def __init__(self, issuer: Issuer, client: httpx.Client, email: str):
        self.client = client
        # Browsers send it. Better Auth rejects a request with a cookie and no Origin.
        self.headers = {"Origin": issuer.origin}
        account = {"email": email, "password": "correct horse battery staple"}
        self._post("sign-up", account | {"name": "Ada Lovelace, žena"})
        signed_in = self._post("sign-in", account)
        self.id = signed_in.json()["user"]["id"]
        self.session = signed_in.json()["token"]
        # Removed from the cookie jar, because other users share the client.
        self.cookie = signed_in.headers["set-cookie"].split(";")[0]
        client.cookies.clear()

    def _post(self, action: str, body: dict) -> httpx.Response:
        response = self.client.post(f"/api/auth/{action}/email", json=body, headers=self.headers)
        assert response.status_code == 200, response.text
        return response

    def token(self) -> str:
        response = self.client.get("/api/auth/token", headers=self.headers | {"Cookie": self.cookie})
        assert response.status_code == 200, response.text
        return response.json()["token"]


class Gate:
    """`claimgate run` with a configuration."""

    def __init__(self, directory: pathlib.Path, configuration: str):
        (directory / "config.toml").write_text(configuration)
        self.program = Program(directory, [os.environ["CLAIMGATE"], "run", "--config", "config.toml"], {})
        serving = self.program.wait_for(r'"message":"serving".*')[0]
        self.url, self.admin_url = (
            "http://" + re.search(rf'"{name}":"([^" ]+)', serving)[1] for name in ("address", "admin")
        )
        self.client = http_client(self.url)
        self.admin = http_client(self.admin_url)

    def ready(self) -> bool:
        return self.admin.get("/readyz").status_code == 200

    def stop(self):
        # A stopping gate leaves its clients time to read the last response. Closing them first saves that time.
        self.client.close()
        self.admin.close()
        self.program.stop()

    def request(self, method: str, path: str, token: str | None = None, **options) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self.client.request(method, path, headers=headers, **options)

    def metric(self, series: str) -> float:
        exposition = self.admin.get("/metrics").text
        found = re.search(rf"^{re.escape(series)} (\S+)$", exposition, re.MULTILINE)
        assert found, f"no {series} in\n{exposition}"
        return float(found[1])

    def fetches(self, outcome: str) -> int:
        return int(self.metric(f'claimgate_key_fetches_total{{issuer="better-auth",outcome="{outcome}"}}'))


class TaskService:
    """The API behind the gate. It signs tokens with a different secret, which no test uses."""

    def __init__(self, directory: pathlib.Path):
        self.program = Program(directory, [os.environ["TASK_SERVICE"]], {
            "TASK_SERVICE_ADDRESS": "127.0.0.1:0", "DATABASE_URL": "sqlite::memory:",
            "BETTER_AUTH_SECRET": "the secret of the task service, and of no other program",
        })
        self.url = "http://" + self.program.wait_for(r"listening on (127\.0\.0\.1:\d+)")[1]

    def stop(self):
        self.program.stop()

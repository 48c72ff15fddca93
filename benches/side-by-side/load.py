"""Load generators: starts one for a workload, and reads its result."""

import json
import math
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import machine
import programs
from proxies import Environment, Setup
from workloads import Handshakes, Http2, Load, Paced, WebSocket

HERE = pathlib.Path(__file__).resolve().parent / "clients"
# Unique tokens per second of load: more than any proxy verifies on one core.
UNIQUE_PER_SECOND = 70_000
# Time above the duration of the load, for its preparation.
GRACE_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a load generator saw."""

    requests: int
    duration_us: float
    p50_us: float
    p99_us: float
    # Responses with a status of 400 or above, and requests without a response.
    rejected: int
    failed: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_us * 1e6


def required_program(load: Load) -> str | None:
    """Program of the load that this machine lacks."""
    if isinstance(load, (Paced, WebSocket)):
        return None
    name = "h2load" if isinstance(load, (Http2, Handshakes)) else "wrk"
    return None if programs.find(name) else name


class Generator:
    """Sends the load of one workload, from the load CPUs."""

    def __init__(self, load: Load, setup: Setup, environment: Environment, cpus: set[int], seconds: int):
        self.load, self.setup, self.environment, self.cpus = load, setup, environment, cpus
        users = [f"user-{number:05}" for number in range(load.tokens)] if load.tokens > 1 else ["alice"]
        self.requests = [(load.path.format(user=user), token) for user, token in self._tokens(users, seconds)]
        self.file, self.times = (environment.directory / f"{name}-{id(self)}" for name in ("requests", "times"))
        self.file.write_text("".join(f"{path} {token}\n" for path, token in self.requests))

    def _tokens(self, users: list[str], seconds: int):
        issuer = self.environment.issuer(self.setup.algorithm)
        match self.load.token:
            case "none":
                yield from ((user, "") for user in users)
            case "valid":
                yield from ((user, issuer.token(user)) for user in users)
            case "forged":
                yield from ((user, issuer.forged(user)) for user in users)
            case "foreign":
                yield from ((user, issuer.token("bob")) for user in users)
            case "unique":
                yield from ((users[0], issuer.token(users[0], jti=str(number)))
                            for number in range(UNIQUE_PER_SECOND * seconds))
            case other:
                raise ValueError(other)

    def expects_rejection(self) -> bool:
        return self.load.token in ("forged", "foreign")

    def run(self, port: int, seconds: int, at_peak) -> Outcome:
        """Runs the load. Calls `at_peak` shortly before its end."""
        command, parse = self._command(port, seconds)
        with machine.pinned(self.cpus):
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, cwd=HERE)
        try:
            try:
                output, _ = process.communicate(timeout=seconds * 0.8)
            except subprocess.TimeoutExpired:
                at_peak()
                output, _ = process.communicate(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise programs.Failed(f"{' '.join(map(str, command))} does not end") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            raise programs.Failed(f"{' '.join(map(str, command))} failed:\n{output[-2000:]}")
        return parse(output)

    def _command(self, port: int, seconds: int):
        load, (path, token) = self.load, self.requests[0]
        scheme = "https" if self.setup.listen == "tls" else "http"
        match load:
            case Http2() | Handshakes():
                self.times.unlink(missing_ok=True)
                if isinstance(load, Http2):
                    amount = ["-c", load.connections, "-m", load.streams, "-D", seconds]
                else:
                    total = load.rate * seconds
                    amount = ["--h1", "-m", 1, "-r", load.rate, "-n", total, "-c", total]
                return ["h2load", "-t", 1, *amount, "--log-file", self.times,
                        "-H", f"authorization: Bearer {token}", f"{scheme}://127.0.0.1:{port}{path}"], self._h2load
            case Paced():
                return [sys.executable, "paced.py", port, path, token, load.rate, seconds, load.connections], _json
            case WebSocket():
                return [sys.executable, "websocket.py", "load", port, path, token, seconds, load.connections], _json
            case _:
                return ["wrk", "-t", 1, "-c", load.connections, "-d", seconds, "--timeout", "10s", "-s", "requests.lua",
                        f"{scheme}://127.0.0.1:{port}", "--", self.file, load.method, load.body_bytes,
                        "close" if load.close else "keep"], _json

    def _h2load(self, _output: str) -> Outcome:
        # Start, status (-1 without a response) and time of each request, in microseconds.
        rows = [tuple(map(int, line.split("\t"))) for line in self.times.read_text().splitlines()]
        times = sorted(time for _, _, time in rows)
        return Outcome(
            requests=len(rows),
            duration_us=max(start + time for start, _, time in rows) - min(start for start, _, _ in rows),
            p50_us=percentile(times, 50), p99_us=percentile(times, 99),
            rejected=sum(status >= 400 for _, status, _ in rows), failed=sum(status < 100 for _, status, _ in rows),
        )


def _json(output: str) -> Outcome:
    return Outcome(**json.loads(output.strip().splitlines()[-1]))


def percentile(ascending: list[float], percent: int) -> float:
    """Nearest rank."""
    return ascending[math.ceil(len(ascending) * percent / 100) - 1] if ascending else math.nan

"""Load of users with sessions, while their issuer limits the rate and is away for a time.

Run by hand, after tests/e2e/run has created the environment:

    export BETTER_AUTH_17=target/e2e-better-auth-17 CLAIMGATE=target/release/claimgate
    target/e2e-venv/bin/python tests/e2e/session_load.py --seconds 300 --outage 60

Each user has one session, one connection and one address, which the gate learns from a trusted proxy. Prints the
responses of each phase, and the exchanges with the issuer. Exits with 1 if the gate rejected a session, or was away for
too long.
"""

import argparse
import asyncio
import collections
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from types import SimpleNamespace

from better_auth_17 import BetterAuth
from sessions import Guarded, issuer, tasks_of

# Longest time until the gate serves again after the return of the issuer, in seconds.
RETURN_SECONDS = 2
OUTCOMES = ("valid", "rejected", "limited", "failed")
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def address(number: int) -> str:
    return f"203.0.113.{number + 1}"


def serve(port):
    """A minimal API, in a process of its own."""
    async def respond(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(RESPONSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run():
        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


class User:
    """One connection with requests at a fixed rate. A late response delays the next request."""

    def __init__(self, gate, account, number: int, rate: float):
        self.port = int(gate.url.rpartition(":")[2])
        self.head = (
            f"GET {tasks_of(account)} HTTP/1.1\r\nHost: {gate.url.removeprefix('http://')}\r\n"
            f"X-Forwarded-For: {address(number)}\r\nCookie: {account.session_cookie}\r\n\r\n"
        ).encode()
        self.interval = 1 / rate
        # Begin, duration, status and `Retry-After` of each response.
        self.responses: list[tuple[float, float, int, int]] = []

    async def run(self, start: float, end: float):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due = start
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            began = time.monotonic()
            writer.write(self.head)
            status, fields = await self._response(reader)
            taken = time.monotonic() - began
            self.responses.append((began, taken, status, int(fields.get("retry-after", 0))))
            due = max(due + self.interval, time.monotonic() - self.interval)
        writer.close()

    @staticmethod
    async def _response(reader) -> tuple[int, dict[str, str]]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await reader.readexactly(int(fields.get("content-length", 0)))
        return int(line.split()[1]), fields


def report(name: str, responses: list, begin: float, end: float):
    chosen = [response for response in responses if begin <= response[0] < end]
    statuses = dict(sorted(collections.Counter(status for _, _, status, _ in chosen).items()))
    taken = sorted(taken for _, taken, _, _ in chosen)
    quantile = {q: taken[int(q * (len(taken) - 1))] * 1000 if taken else 0 for q in (0.5, 0.99, 1)}
    print(
        f"{name:34} {end - begin:6.1f} s {len(chosen):7} requests  {statuses}  "
        f"p50 {quantile[0.5]:.1f} ms, p99 {quantile[0.99]:.1f} ms, max {quantile[1]:.0f} ms", flush=True)
    return statuses


def sign_up(server, users: int) -> list:
    accounts = []
    for number in range(users):
        # Sign-ups have a rate limit, too.
        server.client.headers["X-Forwarded-For"] = address(number)
        accounts.append(server.sign_up(f"user-{number}@example.com"))
    return accounts


async def load(options, server, gate, accounts) -> bool:
    users = [User(gate, account, number, options.rate) for number, account in enumerate(accounts)]
    begin = time.monotonic() + 1
    end = begin + options.seconds
    # Users come at different times, as elsewhere.
    running = [user.run(begin + number * options.max_age / len(users) / 4, end) for number, user in enumerate(users)]
    running = [asyncio.create_task(run) for run in running]
    at_issuer, killed, returned = 0, end, end
    if options.outage:
        await asyncio.sleep(begin + (options.seconds - options.outage) / 2 - time.monotonic())
        at_issuer = await asyncio.to_thread(server.requests, "GET /api/auth/token")
        killed = time.monotonic()
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(killed + options.outage - time.monotonic())
        await asyncio.to_thread(server.start)
        returned = time.monotonic()
    await asyncio.gather(*running)
    at_issuer += server.requests("GET /api/auth/token")

    responses = sorted(response for user in users for response in user.responses)
    last = killed + options.max_age
    before = report("with the issuer", responses, begin, killed)
    phases = [before]
    if options.outage:
        phases.append(report("outage, sessions known or not", responses, killed, last))
        phases.append(report("outage, past the maximum age", responses, last, returned - 1))
        report("start of the issuer", responses, returned - 1, returned + RETURN_SECONDS)
        phases.append(report("with the issuer again", responses, returned + RETURN_SECONDS, end))
        served = [at for at, _, status, _ in responses if status == 200 and killed + options.max_age < at]
        recovered = [
            min(at for at, _, status, _ in user.responses if status == 200 and at > last) - returned for user in users]
        ended = max(at for at, _, status, _ in responses if status == 200 and at < returned - 1) - killed
        print(f"last 200 of the outage after {ended:.1f} s, of at most {options.max_age} s")
        print(f"first 200 after the return: {min(served) - returned:.2f} s, last user {max(recovered):.2f} s")
    retries = collections.Counter(retry for _, _, status, retry in responses if status == 503)
    print(f"Retry-After of 503: {dict(sorted(retries.items()))}")
    exchanges = {outcome: gate.exchanges(outcome) for outcome in OUTCOMES}
    hits = int(gate.gate.metric('claimgate_exchange_hits_total{issuer="app",kind="session"}'))
    seconds = options.seconds - options.outage
    print(f"exchanges of the gate: {exchanges}, and {hits} hits; at the issuer: {at_issuer} requests")
    print(
        f"per user: {exchanges['valid'] / len(users):.1f} exchanges in {seconds} s with the issuer, "
        f"{exchanges['limited']} of all were rate-limited (429)")
    total = sum((collections.Counter(phase) for phase in phases), collections.Counter())
    is_valid = not set(total) - {200, 503} and set(before) == {200} and exchanges["limited"] == 0
    if options.outage:
        is_valid &= set(phases[2]) == {503} and set(phases[3]) == {200} and max(recovered) <= RETURN_SECONDS
        is_valid &= 0 not in retries
    return is_valid


def main() -> int:
    parser = argparse.ArgumentParser(description="Load of users with sessions")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20, help="requests per second and user")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--outage", type=int, default=60, help="time without the issuer in the middle, in seconds")
    parser.add_argument("--max-age", type=int, default=30, help="`max_age` of the gate, in seconds")
    parser.add_argument("--rate-limit", default="10:100", help="rate limit of the issuer: SECONDS:REQUESTS")
    options = parser.parse_args()
    port = multiprocessing.Value("i", 0)
    api = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    api.start()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        server = BetterAuth(directory, "--rate-limit", options.rate_limit)
        try:
            accounts = sign_up(server, options.users)
            upstream = SimpleNamespace(url=f"http://127.0.0.1:{port.value}")
            sessions = f'{{ max_age = "{options.max_age}s" }}'
            listen = 'trusted_proxies = ["127.0.0.1/32"]'
            gate = Guarded(directory / "gate", upstream, issuer(server, sessions), listen=listen)
            try:
                print(
                    f"{options.users} users, {options.rate:g} requests/s each, rate limit {options.rate_limit}, "
                    f"max_age {options.max_age} s, {pathlib.Path(os.environ['CLAIMGATE']).resolve()}", flush=True)
                is_valid = asyncio.run(load(options, server, gate, accounts))
                faults = [line for line in gate.gate.program.output().splitlines() if "exchange" in line
                          and '"target":"claimgate::keys' in line]
                print(*faults, sep="\n")
            finally:
                gate.stop()
        finally:
            server.stop()
            api.terminate()
    print("as expected" if is_valid else "NOT as expected")
    return 0 if is_valid else 1


if __name__ == "__main__":
    sys.exit(main())

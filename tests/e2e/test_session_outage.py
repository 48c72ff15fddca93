"""An issuer of sessions that is away, silent or limits the rate. A session that cannot be checked is 503, never 401."""

import concurrent.futures
import threading
import time
from types import SimpleNamespace

import pytest

from programs import http_client, wait_until
from sessions import Upstream, outcome, running, tasks_of

# Longest use of an exchange, in seconds.
MAX_AGE = 3
SESSIONS = f'{{ max_age = "{MAX_AGE}s" }}'
UNAVAILABLE = (503, "exchange_unavailable")
TRUSTED = 'trusted_proxies = ["127.0.0.1/32"]'


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture
def app(tmp_path, upstream, request):
    flags = getattr(request, "param", [])
    with running(tmp_path, upstream, *flags, sessions=SESSIONS, listen=TRUSTED) as (server, gate):
        yield SimpleNamespace(server=server, gate=gate)


def sign_up(app, *names: str) -> list:
    return [app.server.sign_up(f"{name}@example.com") for name in names]


def address(last: int) -> list[tuple[str, str]]:
    """Header of the trusted proxy for a client."""
    return [("X-Forwarded-For", f"203.0.113.{last}")]


class Load:
    """Requests of each account, one after the other, until the end of the block."""

    def __init__(self, gate, accounts):
        self.gate, self.accounts = gate, accounts
        self.responses: list[tuple[float, int, str | None]] = []
        self.ended = threading.Event()

    def __enter__(self):
        self.threads = concurrent.futures.ThreadPoolExecutor(len(self.accounts))
        self.running = [self.threads.submit(self._run, *numbered) for numbered in enumerate(self.accounts)]
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.threads.shutdown()
        for running in self.running:
            running.result()

    def _run(self, number: int, account):
        headers = {"Cookie": account.session_cookie, "X-Forwarded-For": f"203.0.113.{number}"}
        with http_client(self.gate.url) as client:
            while not self.ended.is_set():
                response = client.get(tasks_of(account), headers=headers)
                self.responses.append((time.monotonic(), response.status_code, response.headers.get("retry-after")))
                # 20 requests per second at most.
                time.sleep(0.05)

    def statuses(self, start: float, end: float) -> set[int]:
        return {status for at, status, _ in self.responses if start <= at <= end}


def test_sessions_outlive_an_outage_for_their_maximum_age(app):
    with Load(app.gate, sign_up(app, "ada", "bob", "eve")) as load:
        wait_until(lambda: len(load.responses) > 30)
        exchanges = app.server.requests("GET /api/auth/token")
        killed = time.monotonic()
        app.server.kill()
        stopped = time.monotonic()
        time.sleep(max(0.0, killed + 10 - time.monotonic()))
        [stranger] = [app.gate.outcome(cookie="better-auth.session_token=" + "a" * 32 + "." + "A" * 43 + "%3D")]
        app.server.start()
        started = time.monotonic()
        time.sleep(3)
        ended = time.monotonic()
    assert load.statuses(0, killed) == {200}
    # An exchange lasts for two to three seconds: the gate counts whole seconds. Each one here began before the outage.
    assert load.statuses(killed, ended) == {200, 503}
    assert load.statuses(stopped + MAX_AGE, killed + 10) == {503}
    assert stranger == UNAVAILABLE
    assert all(retry and 1 <= int(retry) <= 10 for _, status, retry in load.responses if status == 503)
    assert load.statuses(started + 2, ended) == {200}
    # Three accounts, once in two or three seconds.
    assert exchanges <= 3 * (1 + (killed - load.responses[0][0]) / (MAX_AGE - 1))
    app.gate.wait_for_log("failed to exchange a credential: connect")
    app.gate.wait_for_log("exchanges with the issuer succeed again")


def test_known_sessions_are_served_at_the_start_of_an_outage(app):
    ada, bob = sign_up(app, "ada", "bob")
    for account in (ada, bob):
        assert app.gate.outcome(cookie=account.session_cookie) == (200, None)
    known = time.monotonic()
    app.server.kill()
    # On a slow machine, the sessions end meanwhile.
    statuses = [app.gate.send(cookie=account.session_cookie).status_code for account in (ada, bob)]
    assert set(statuses) == {200} or time.monotonic() > known + MAX_AGE - 1


def test_a_silent_issuer_delays_a_request_for_seconds_only(app):
    [ada] = sign_up(app, "ada")
    app.server.pause()
    try:
        began = time.monotonic()
        response = app.gate.send(cookie=ada.session_cookie)
        assert outcome(response) == UNAVAILABLE and int(response.headers["retry-after"]) >= 1
        assert time.monotonic() - began < 8
        # Requests without a credential that needs the issuer wait for nothing.
        began = time.monotonic()
        assert app.gate.outcome() == (401, "token_missing")
        assert app.gate.outcome("/health") == (200, None)
        assert time.monotonic() - began < 2
    finally:
        app.server.resume()
    assert wait_until(lambda: app.gate.outcome(cookie=ada.session_cookie) == (200, None)) < 10


@pytest.mark.parametrize("app", [["--rate-limit", "6:4"]], indirect=True)
def test_a_rate_limit_of_the_issuer_delays_one_client_only(app):
    accounts = []
    for number in range(6):
        # Sign-ups have a limit of their own.
        app.server.client.headers["X-Forwarded-For"] = f"198.51.100.{number}"
        accounts += sign_up(app, f"user-{number}")
    statuses = []
    for account in accounts:
        response = app.gate.send(cookie=account.session_cookie, headers=address(7))
        statuses.append(outcome(response))
    assert statuses[:4] == [(200, None)] * 4
    assert statuses[4:] == [UNAVAILABLE] * 2
    retry = int(response.headers["retry-after"])
    assert 1 <= retry <= 6
    # The issuer was asked once more, and then left alone for the delay that it named.
    assert app.server.requests("GET /api/auth/token") == 5
    # The server counts each client by the address that the gate passes.
    assert app.gate.outcome(cookie=accounts[-1].session_cookie, headers=address(8)) == (200, None)
    # The session that another client has exchanged is known.
    assert app.gate.outcome(cookie=accounts[-1].session_cookie, headers=address(7)) == (200, None)
    waited = wait_until(
        lambda: app.gate.outcome(cookie=accounts[-2].session_cookie, headers=address(7)) == (200, None))
    assert waited < 6 + 3


def test_guessed_sessions_delay_their_client_only(app):
    [ada] = sign_up(app, "ada")
    name = ada.session_cookie.partition("=")[0]
    outcomes = []
    began = time.monotonic()
    for number in range(60):
        guessed = f"{name}={number:032d}.{'A' * 43}%3D"
        outcomes.append(app.gate.outcome(cookie=guessed, headers=address(66)))
    assert set(outcomes) == {(401, "session_invalid"), UNAVAILABLE}
    # A burst of 20, and two per second.
    assert app.server.requests("GET /api/auth/token") <= 21 + 2 * (time.monotonic() - began)
    assert app.gate.outcome(cookie=ada.session_cookie, headers=address(1)) == (200, None)

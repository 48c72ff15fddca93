"""A long watch: steady load while configuration, secret, certificate and upstream change. Every response must be the one of
a policy that was in force between its request and itself.

`WATCH_SECONDS=60 tests/e2e/run -k test_reload -s` watches for a minute, and prints what it has seen.
"""

import collections
import http.client
import json
import os
import pathlib
import random
import signal
import ssl
import threading
import time

import pytest

from authority import Authority
from gate import SECRET, sign_token
from programs import Gate, Program, free_port

SECONDS = int(os.environ.get("WATCH_SECONDS", "10"))
# Those that are good, those that are broken, and those of the secret.
GOOD, BROKEN, ROTATION = 16, 2, 2
CLIENTS = 6
TIMEOUT = 60
NEW_SECRET = "another secret of the end-to-end tests, of sixty-four bytes or more"

CONFIGURATION = """
[listen]
address = "127.0.0.1:0"
workers = 2
max_body_bytes = {number}

[[listeners]]
address = "127.0.0.1:{tls_port}"
tls = {{ certificate = "gate.crt", key = "gate.key" }}

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:{port}"
connect_timeout = "20s"

[issuers.better-auth]
keys = {{ secret_file = "secret", encoding = "utf8" }}

[[routes]]
path = "/api/{{user_id}}/{{*rest}}"
access = {{ owner = "user_id" }}
response_headers = {{ set = {{ "X-Number" = "{number}" }} }}
"""
EVEN = '[[routes]]\npath = "/health"\naccess = "public"\n'

# What may be true of one moment.
Policy = collections.namedtuple("Policy", "number secrets")
# A request, and the secret that signed its token.
Kind = collections.namedtuple("Kind", "path secret")
KINDS = [
    Kind("/api/alice/tasks", SECRET), Kind("/api/alice/tasks", NEW_SECRET), Kind("/api/bob/tasks", SECRET),
    Kind("/health", None), Kind("/nothing", None),
]


def expected(policy: Policy, kind: Kind) -> tuple:
    """Status, reason and number of the response to a request."""
    if kind.secret is None:
        served = kind.path == "/health" and policy.number % 2 == 0
        return (200, "", "") if served else (404, "no_route", "")
    if kind.secret not in policy.secrets:
        return 401, "token_signature", ""
    if "bob" in kind.path:
        return 403, "subject_mismatch", ""
    return 200, "", str(policy.number)


class Moments:
    """What may be true now, and what may have been at any time since a request was sent."""

    def __init__(self, policy: Policy):
        self.lock = threading.Lock()
        self.history = [(policy, False)]
        self.possible = {policy}
        self.is_down = False

    def may_be(self, *policies: Policy, down: bool = False):
        with self.lock:
            self.possible, self.is_down = set(policies), down
            self.history.extend((policy, down) for policy in policies)

    def now(self) -> int:
        """A mark; what is possible at it comes from `since`."""
        with self.lock:
            return len(self.history) - len(self.possible)

    def since(self, mark: int) -> list:
        with self.lock:
            return self.history[mark:]


class Watch:
    """Clients that ask, and what was wrong."""

    def __init__(self, gate: Gate, tls_port: int, ca: pathlib.Path, moments: Moments):
        self.plain = int(gate.url.rsplit(":", 1)[1])
        self.tls_port, self.moments = tls_port, moments
        self.context = ssl.create_default_context(cafile=str(ca))
        self.stopping = threading.Event()
        self.seen, self.wrong = collections.Counter(), []
        self.tokens = {secret: sign_token("alice", 3600, secret) for secret in (SECRET, NEW_SECRET)}
        self.connections = 0
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(CLIENTS)]

    def connect(self, encrypted: bool):
        self.connections += 1
        if encrypted:
            connection = http.client.HTTPSConnection("localhost", self.tls_port, context=self.context, timeout=TIMEOUT)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=TIMEOUT)
        connection.connect()
        return connection

    def ask(self, number: int):
        """Every third client speaks TLS, with a handshake now and then; the others keep their one connection."""
        encrypted, connection, asked = number % 3 == 2, None, 0
        try:
            while not self.stopping.is_set():
                if connection is None or (encrypted and asked % 20 == 0):
                    connection = self.connect(encrypted)
                asked += 1
                self.ask_once(connection, random.choice(KINDS))
                time.sleep(0.002)
        except Exception as error:  # noqa: BLE001: whatever it is, it is no response
            self.wrong.append((f"client {number}", repr(error)))

    def ask_once(self, connection, kind: Kind):
        headers = {"Authorization": f"Bearer {self.tokens[kind.secret]}"} if kind.secret else {}
        mark = self.moments.now()
        connection.request("GET", kind.path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        is_refusal = response.headers["Content-Type"] == "application/problem+json"
        reason = json.loads(body)["reason"] if is_refusal else ""
        found = response.status, reason, response.headers["X-Number"] or ""
        allowed = set()
        for policy, down in self.moments.since(mark):
            right = expected(policy, kind)
            allowed.add(right)
            if down and right[0] == 200:
                allowed |= {(502, "upstream_unreachable", ""), (502, "upstream_invalid_response", "")}
        self.seen[f"{found[0]} {found[1]}".strip()] += 1
        if found not in allowed:
            self.wrong.append((kind.path, found, sorted(allowed)))


class Conductor:
    """Changes one thing after the other, and knows what is in force."""

    def __init__(self, directory: pathlib.Path):
        self.directory, self.port, self.tls_port = directory, free_port(), free_port()
        self.authority = Authority(directory)
        self.authority.issue("gate", "localhost")
        self.policy = Policy(1, (SECRET,))
        self.upstream = self.start_upstream()
        self.put("secret", SECRET)
        self.gate = Gate(directory, self.text(1))
        self.moments = Moments(self.policy)
        self.failures = 0

    def start_upstream(self) -> Program:
        program = Program(self.directory, [os.environ["TASK_SERVICE"]], {
            "TASK_SERVICE_ADDRESS": f"127.0.0.1:{self.port}", "DATABASE_URL": "sqlite::memory:",
            "BETTER_AUTH_SECRET": "the secret of the task service, and of nobody else",
        })
        program.wait_for("listening on")
        return program

    def text(self, number: int) -> str:
        text = CONFIGURATION.format(number=number, port=self.port, tls_port=self.tls_port)
        return text + (EVEN if number % 2 == 0 else "")

    def put(self, name: str, text: str):
        """Another file comes to its place, and there is no moment in which it is half there."""
        new = self.directory / f"{name}.new"
        new.write_text(text)
        new.chmod(0o600)
        new.rename(self.directory / name)

    def hurry(self):
        """A short watch does not wait until the change is found."""
        if SECONDS < 60:
            [child] = pathlib.Path(f"/proc/{self.gate.program.process.pid}/task").glob("*/children")
            os.kill(int(child.read_text().split()[0]), signal.SIGHUP)

    def change(self, policy: Policy, name: str, text: str):
        before = self.gate.metric("claimgate_config_generation")
        self.moments.may_be(self.policy, policy)
        self.put(name, text)
        self.hurry()
        self.wait(lambda: self.gate.metric("claimgate_config_generation") == before + 1)
        self.policy = policy
        self.moments.may_be(policy)

    def wait(self, is_so):
        deadline = time.monotonic() + TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline, self.gate.program.output()[-2000:]
            time.sleep(0.02)

    def renumber(self, number: int):
        self.change(self.policy._replace(number=number), "config.toml", self.text(number))

    def rotate(self, *secrets: str):
        self.change(self.policy._replace(secrets=secrets), "secret", "\n".join(secrets) + "\n")

    def break_it(self, text: str):
        self.put("config.toml", text)
        self.hurry()
        self.failures += 1
        self.wait(lambda: self.gate.metric('claimgate_config_reloads_total{outcome="failure"}') == self.failures)
        assert self.gate.metric("claimgate_config_last_reload_success") == 0

    def renew(self):
        before = self.gate.metric('claimgate_tls_reloads_total{outcome="success"}')
        self.authority.issue("gate", "localhost")
        self.wait(lambda: self.gate.metric('claimgate_tls_reloads_total{outcome="success"}') > before)

    def restart_upstream(self):
        self.moments.may_be(self.policy, down=True)
        (self.directory / "task-service.log").unlink()
        self.upstream.stop()
        self.upstream = self.start_upstream()
        self.wait(lambda: self.gate.request("GET", "/health").status_code != 502 and self.gate.request("GET", "/api/alice/tasks", sign_token()).status_code == 200)
        self.moments.may_be(self.policy)


@pytest.fixture
def conductor(tmp_path):
    conductor = Conductor(tmp_path)
    yield conductor
    conductor.gate.stop()
    conductor.upstream.stop()


def test_every_answer_is_that_of_the_moment(conductor):
    steps = [lambda number=number: conductor.renumber(number) for number in range(2, GOOD + 2)]
    steps.insert(3, lambda: conductor.break_it("not toml"))
    steps.insert(5, lambda: conductor.rotate(NEW_SECRET, SECRET))
    steps.insert(8, conductor.renew)
    steps.insert(10, lambda: conductor.break_it(conductor.text(99).replace("owner =", "owners =")))
    steps.insert(12, conductor.restart_upstream)
    steps.insert(15, lambda: conductor.rotate(NEW_SECRET))
    began = time.monotonic()
    watch = Watch(conductor.gate, conductor.tls_port, conductor.directory / "ca.crt", conductor.moments)
    for thread in watch.threads:
        thread.start()
    try:
        for place, step in enumerate(steps):
            time.sleep(max(0, began + SECONDS * (place + 0.5) / len(steps) - time.monotonic()))
            step()
        time.sleep(max(0, began + SECONDS - time.monotonic()))
    finally:
        watch.stopping.set()
        for thread in watch.threads:
            thread.join()
    took = time.monotonic() - began
    total = sum(watch.seen.values())
    good = conductor.gate.metric('claimgate_config_reloads_total{outcome="success"}')
    bad = conductor.gate.metric('claimgate_config_reloads_total{outcome="failure"}')
    print(f"\n{total} responses in {took:.0f} s over {watch.connections} connections, {good:.0f} changes taken, {bad:.0f} refused")
    print(", ".join(f"{count} x {what}" for what, count in watch.seen.most_common()))
    print(f"responses of another policy than that of the moment: {len(watch.wrong)}")
    assert not watch.wrong, watch.wrong[:10]
    assert (good, bad) == (GOOD + ROTATION, BROKEN)
    assert total > 20 * SECONDS, "hardly anybody has asked"
    assert {"200", "401 token_signature", "403 subject_mismatch", "404 no_route"} <= set(watch.seen)
    assert conductor.gate.metric("claimgate_panics_total") == 0

"""Hot reload under steady load, while configuration, secret, certificate and upstream change. Every response must match a
policy that was in force between its request and the response.

`WATCH_SECONDS=60 tests/e2e/run -k test_reload -s` runs for a minute, and prints the counts.
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
# Number of valid configuration changes, invalid ones, and secret changes.
VALID, INVALID, ROTATIONS = 16, 2, 2
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

# Configuration in force: value of `X-Number`, and accepted secrets.
Policy = collections.namedtuple("Policy", "number secrets")
# A request, and the secret of its token.
Kind = collections.namedtuple("Kind", "path secret")
KINDS = [
    Kind("/api/alice/tasks", SECRET), Kind("/api/alice/tasks", NEW_SECRET), Kind("/api/bob/tasks", SECRET),
    Kind("/health", None), Kind("/nothing", None),
]


def expected(policy: Policy, kind: Kind) -> tuple:
    """Status, reason and `X-Number` of the response."""
    if kind.secret is None:
        served = kind.path == "/health" and policy.number % 2 == 0
        return (200, "", "") if served else (404, "no_route", "")
    if kind.secret not in policy.secrets:
        return 401, "token_signature", ""
    if "bob" in kind.path:
        return 403, "subject_mismatch", ""
    return 200, "", str(policy.number)


class Timeline:
    """Policies that may be in force now, and those that may have been since a request was sent."""

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
        """A position for `since`, which includes the policies possible now."""
        with self.lock:
            return len(self.history) - len(self.possible)

    def since(self, mark: int) -> list:
        """Policies since the mark, each with a flag for an upstream that may be down."""
        with self.lock:
            return self.history[mark:]


class Clients:
    """Client threads, and counts of expected and wrong responses."""

    def __init__(self, gate: Gate, tls_port: int, ca: pathlib.Path, timeline: Timeline):
        self.plain = int(gate.url.rsplit(":", 1)[1])
        self.tls_port, self.timeline = tls_port, timeline
        self.context = ssl.create_default_context(cafile=str(ca))
        self.stopping = threading.Event()
        self.seen, self.wrong = collections.Counter(), []
        self.tokens = {secret: sign_token("alice", 3600, secret) for secret in (SECRET, NEW_SECRET)}
        self.connections = 0
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(CLIENTS)]

    def connect(self, encrypted: bool):
        self.connections += 1
        if encrypted:
            connection = http.client.HTTPSConnection("localhost", self.tls_port, context=self.context, timeout=TIMEOUT)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=TIMEOUT)
        connection.connect()
        return connection

    def run(self, number: int):
        """Every third client uses TLS, with a new handshake every 20 requests. The others keep one connection."""
        encrypted, connection, sent = number % 3 == 2, None, 0
        try:
            while not self.stopping.is_set():
                if connection is None or (encrypted and sent % 20 == 0):
                    connection = self.connect(encrypted)
                sent += 1
                self.send(connection, random.choice(KINDS))
                time.sleep(0.002)
        except Exception as error:  # noqa: BLE001: any failure of the client counts as wrong
            self.wrong.append((f"client {number}", repr(error)))

    def send(self, connection, kind: Kind):
        headers = {"Authorization": f"Bearer {self.tokens[kind.secret]}"} if kind.secret else {}
        mark = self.timeline.now()
        connection.request("GET", kind.path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        is_refusal = response.headers["Content-Type"] == "application/problem+json"
        reason = json.loads(body)["reason"] if is_refusal else ""
        found = response.status, reason, response.headers["X-Number"] or ""
        allowed = set()
        for policy, down in self.timeline.since(mark):
            outcome = expected(policy, kind)
            allowed.add(outcome)
            if down and outcome[0] == 200:
                allowed |= {(502, "upstream_unreachable", ""), (502, "upstream_invalid_response", "")}
        self.seen[f"{found[0]} {found[1]}".strip()] += 1
        if found not in allowed:
            self.wrong.append((kind.path, found, sorted(allowed)))


class Conductor:
    """Applies one change at a time, and records the policy in force."""

    def __init__(self, directory: pathlib.Path):
        self.directory, self.port, self.tls_port = directory, free_port(), free_port()
        self.authority = Authority(directory)
        self.authority.issue("gate", "localhost")
        self.policy = Policy(1, (SECRET,))
        self.upstream = self.start_upstream()
        self.put("secret", SECRET)
        self.gate = Gate(directory, self.text(1))
        self.timeline = Timeline(self.policy)
        self.failures = 0

    def start_upstream(self) -> Program:
        program = Program(self.directory, [os.environ["TASK_SERVICE"]], {
            "TASK_SERVICE_ADDRESS": f"127.0.0.1:{self.port}", "DATABASE_URL": "sqlite::memory:",
            "BETTER_AUTH_SECRET": "the secret of the task service, and of no other program",
        })
        program.wait_for("listening on")
        return program

    def text(self, number: int) -> str:
        text = CONFIGURATION.format(number=number, port=self.port, tls_port=self.tls_port)
        return text + (EVEN if number % 2 == 0 else "")

    def put(self, name: str, text: str):
        """Replaces a file atomically."""
        new = self.directory / f"{name}.new"
        new.write_text(text)
        new.chmod(0o600)
        new.rename(self.directory / name)

    def request_reload(self):
        """Sends SIGHUP in a short run, which has no time for the poll interval."""
        if SECONDS < 60:
            [child] = pathlib.Path(f"/proc/{self.gate.program.process.pid}/task").glob("*/children")
            os.kill(int(child.read_text().split()[0]), signal.SIGHUP)

    def change(self, policy: Policy, name: str, text: str):
        before = self.gate.metric("claimgate_config_generation")
        self.timeline.may_be(self.policy, policy)
        self.put(name, text)
        self.request_reload()
        self.wait(lambda: self.gate.metric("claimgate_config_generation") == before + 1)
        self.policy = policy
        self.timeline.may_be(policy)

    def wait(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, self.gate.program.output()[-2000:]
            time.sleep(0.02)

    def renumber(self, number: int):
        self.change(self.policy._replace(number=number), "config.toml", self.text(number))

    def rotate(self, *secrets: str):
        self.change(self.policy._replace(secrets=secrets), "secret", "\n".join(secrets) + "\n")

    def put_invalid(self, text: str):
        self.put("config.toml", text)
        self.request_reload()
        self.failures += 1
        self.wait(lambda: self.gate.metric('claimgate_config_reloads_total{outcome="failure"}') == self.failures)
        assert self.gate.metric("claimgate_config_last_reload_success") == 0

    def renew(self):
        before = self.gate.metric('claimgate_tls_reloads_total{outcome="success"}')
        self.authority.issue("gate", "localhost")
        self.wait(lambda: self.gate.metric('claimgate_tls_reloads_total{outcome="success"}') > before)

    def restart_upstream(self):
        self.timeline.may_be(self.policy, down=True)
        (self.directory / "task-service.log").unlink()
        self.upstream.stop()
        self.upstream = self.start_upstream()
        self.wait(lambda: self.gate.request("GET", "/health").status_code != 502
                  and self.gate.request("GET", "/api/alice/tasks", sign_token()).status_code == 200)
        self.timeline.may_be(self.policy)


@pytest.fixture
def conductor(tmp_path):
    conductor = Conductor(tmp_path)
    yield conductor
    conductor.gate.stop()
    conductor.upstream.stop()


def test_every_response_matches_a_policy_in_force(conductor):
    steps = [lambda number=number: conductor.renumber(number) for number in range(2, VALID + 2)]
    steps.insert(3, lambda: conductor.put_invalid("not toml"))
    steps.insert(5, lambda: conductor.rotate(NEW_SECRET, SECRET))
    steps.insert(8, conductor.renew)
    steps.insert(10, lambda: conductor.put_invalid(conductor.text(99).replace("owner =", "owners =")))
    steps.insert(12, conductor.restart_upstream)
    steps.insert(15, lambda: conductor.rotate(NEW_SECRET))
    began = time.monotonic()
    clients = Clients(conductor.gate, conductor.tls_port, conductor.directory / "ca.crt", conductor.timeline)
    for thread in clients.threads:
        thread.start()
    try:
        for index, step in enumerate(steps):
            time.sleep(max(0, began + SECONDS * (index + 0.5) / len(steps) - time.monotonic()))
            step()
        time.sleep(max(0, began + SECONDS - time.monotonic()))
    finally:
        clients.stopping.set()
        for thread in clients.threads:
            thread.join()
    took = time.monotonic() - began
    total = sum(clients.seen.values())
    succeeded = conductor.gate.metric('claimgate_config_reloads_total{outcome="success"}')
    failed = conductor.gate.metric('claimgate_config_reloads_total{outcome="failure"}')
    print(f"\n{total} responses in {took:.0f} s on {clients.connections} connections, "
          f"{succeeded:.0f} successful reloads, {failed:.0f} failed")
    print(", ".join(f"{count} x {outcome}" for outcome, count in clients.seen.most_common()))
    print(f"responses that match no policy in force: {len(clients.wrong)}")
    assert not clients.wrong, clients.wrong[:10]
    assert (succeeded, failed) == (VALID + ROTATIONS, INVALID)
    assert total > 20 * SECONDS, "too few requests"
    assert {"200", "401 token_signature", "403 subject_mismatch", "404 no_route"} <= set(clients.seen)
    assert conductor.gate.metric("claimgate_panics_total") == 0

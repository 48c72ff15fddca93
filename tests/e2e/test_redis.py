"""Two gates that share rate limits in a real Redis, also across a Redis outage."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from gate import CONFIGURATION, SECRET, sign_token
from programs import Gate, Program, free_port

# On Debian, redis-check-rdb is the server binary, which selects its role by its name.
SERVER = shutil.which("redis-server") or shutil.which("redis-check-rdb")

pytestmark = pytest.mark.skipif(not SERVER, reason="redis-tools is missing")

PASSWORD = "the password of the Redis of the tests"

ROUTES = """
[[routes]]
path = "/login"
access = "public"
rate_limit = {{ requests = {requests}, per = "1h", by = "client-address" }}

[[routes]]
path = "/api/{{user_id}}/{{*rest}}"
access = {{ owner = "user_id" }}
rate_limit = [
    {{ requests = 5, per = "1h", by = "subject" }},
    {{ requests = 1000, per = "24h", by = "subject" }},
]
"""


class Redis:
    """A Redis server without persistence. It keeps its port over `stop` and `start`."""

    def __init__(self, directory: pathlib.Path, tls: bool = False):
        self.directory = directory
        self.port = free_port()
        self.lines = f"bind 127.0.0.1\nsave \"\"\nrequirepass \"{PASSWORD}\"\n"
        if tls:
            certificate = directory / "redis.crt"
            key = directory / "redis.key"
            subprocess.run([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                # By default openssl creates a CA certificate, which rustls rejects for a server.
                "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate,
            ], check=True, capture_output=True)
            self.lines += f"port 0\ntls-port {self.port}\ntls-auth-clients no\n"
            self.lines += f"tls-cert-file {certificate}\ntls-key-file {key}\n"
        else:
            self.lines += f"port {self.port}\n"
        (directory / "redis.conf").write_text(self.lines)
        self.program = directory / "redis-server"
        if not self.program.exists():
            self.program.symlink_to(SERVER)
        self.start()

    def start(self):
        self.running = Program(self.directory, [self.program, "redis.conf"], {})
        self.running.wait_for("Ready to accept connections")

    def stop(self):
        self.running.stop()


@contextlib.contextmanager
def gates(tmp_path: pathlib.Path, upstream: str, url: str, more: str = "", requests: int = 10, count: int = 2):
    """Independent gates, each with two workers."""
    redis = f"[redis]\nurl = \"{url}\"\npassword_file = \"password\"\n{more}\n"
    configuration = CONFIGURATION.format(url=upstream).replace("workers = 1", "workers = 2")
    configuration += redis + ROUTES.format(requests=requests)
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            directory = tmp_path / f"gate-{number}"
            directory.mkdir()
            for name, text in (("secret", SECRET), ("password", PASSWORD)):
                (directory / name).write_text(text)
                (directory / name).chmod(0o600)
            gate = Gate(directory, configuration)
            stack.callback(gate.stop)
            started.append(gate)
        yield started


@pytest.fixture
def redis(tmp_path):
    redis = Redis(tmp_path)
    yield redis
    redis.stop()


# Longer than the timeout of the client.
LONG_TIMEOUT = 'timeout = "2m"'


def counted(gate: Gate, outcome: str) -> float:
    return gate.metric(f'claimgate_rate_limit_redis_total{{outcome="{outcome}"}}')


def test_two_gates_share_rate_limits(tmp_path, upstream, redis):
    with gates(tmp_path, upstream, f"redis://127.0.0.1:{redis.port}", LONG_TIMEOUT) as (one, other):
        statuses = [gate.request("GET", "/login").status_code for _ in range(8) for gate in (one, other)]
        assert statuses == [200] * 10 + [429] * 6
        rejected = other.request("GET", "/login")
        # At 10 per hour, the bucket drains by one in 360 seconds.
        assert 300 < int(rejected.headers["retry-after"]) <= 360
        assert rejected.headers["ratelimit-policy"] == '"client-address-3600s";q=10;w=3600'
        token = sign_token()
        statuses = [gate.request("GET", "/api/alice/x", token).status_code for _ in range(4) for gate in (one, other)]
        assert statuses == [200] * 5 + [429] * 3
        left = one.request("GET", "/api/bob/x", sign_token("bob")).headers["ratelimit"]
        assert left.startswith('"subject-3600s";r=4;t=720, "subject-86400s";r=999;'), left
        assert counted(one, "success") + counted(other, "success") == 26
        assert counted(one, "failure") + counted(other, "failure") == 0


def test_buckets_survive_a_restart_of_the_gate_and_expire(tmp_path, upstream, redis):
    url = f"redis://127.0.0.1:{redis.port}"
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    for directory in ("first", "second"):
        with gates(tmp_path / directory, upstream, url, LONG_TIMEOUT, requests=1, count=1) as (gate,):
            expected = 200 if directory == "first" else 429
            assert gate.request("GET", "/login").status_code == expected
    command = ["redis-cli", "-p", str(redis.port), "--no-auth-warning"]
    redis_cli = lambda *words: subprocess.run(
        [*command, *words], env=os.environ | {"REDISCLI_AUTH": PASSWORD}, capture_output=True, text=True, check=True,
    ).stdout.split()
    names = redis_cli("KEYS", "*")
    assert len(names) == 1 and names[0].startswith("claimgate:{"), names
    assert "127" not in names[0]
    assert 3_500_000 < int(redis_cli("PTTL", names[0])[0]) <= 3_600_000


def test_each_gate_counts_on_its_own_while_redis_is_unavailable(tmp_path, upstream, redis):
    with gates(tmp_path, upstream, f"redis://127.0.0.1:{redis.port}", LONG_TIMEOUT, requests=4) as both:
        assert both[0].request("GET", "/login").status_code == 200
        redis.stop()
        for gate in both:
            # Requests must not wait for an unavailable Redis: the client timeout is shorter than that of the gate.
            statuses = [gate.request("GET", "/login").status_code for _ in range(6)]
            assert statuses == [200] * 4 + [429] * 2
            gate.program.wait_for("failed to count requests in Redis at 127.0.0.1")
            assert gate.program.output().count("failed to count requests in Redis") == 1
        redis.start()
        for gate in both:
            deadline = time.monotonic() + 60
            before = counted(gate, "success")
            while counted(gate, "success") == before and time.monotonic() < deadline:
                gate.request("GET", "/login")
                time.sleep(0.1)
            assert counted(gate, "success") > before
            gate.program.wait_for("Redis rate limiting resumed")


def test_connects_with_tls_to_a_trusted_redis_only(tmp_path, upstream):
    redis = Redis(tmp_path, tls=True)
    url = f"rediss://localhost:{redis.port}"
    (tmp_path / "trusted").mkdir()
    (tmp_path / "untrusted").mkdir()
    try:
        trusted = f'{LONG_TIMEOUT}\nca_file = "{tmp_path / "redis.crt"}"'
        with gates(tmp_path / "trusted", upstream, url, trusted, requests=1) as (one, other):
            assert [gate.request("GET", "/login").status_code for gate in (one, other)] == [200, 429]
        # Without `ca_file`, the certificate is not trusted.
        refusing = f'{LONG_TIMEOUT}\nwhen_unavailable = "refuse"'
        with gates(tmp_path / "untrusted", upstream, url, refusing, count=1) as (gate,):
            response = gate.request("GET", "/login")
            assert (response.status_code, response.json()["reason"]) == (503, "rate_limit_unavailable")
            gate.program.wait_for("failed to count requests in Redis.*certificate")
    finally:
        redis.stop()


def test_a_wrong_redis_user_fails_without_logging_the_password(tmp_path, upstream, redis):
    with gates(tmp_path, upstream, f"redis://127.0.0.1:{redis.port}", LONG_TIMEOUT, requests=2, count=1) as (gate,):
        pass
    (tmp_path / "again").mkdir()
    wrong = f'{LONG_TIMEOUT}\nwhen_unavailable = "allow"\nusername = "nobody"'
    with gates(tmp_path / "again", upstream, f"redis://127.0.0.1:{redis.port}", wrong, requests=1, count=1) as (gate,):
        assert [gate.request("GET", "/login").status_code for _ in range(3)] == [200] * 3
        gate.program.wait_for("failed to count requests in Redis")
        assert PASSWORD not in gate.program.output()

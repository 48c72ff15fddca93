"""The gate under test: a program with a configuration, in a folder of its own."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

SECRET = "a secret of the scores, of sixty-four bytes or a few more: 0123456789"
START_SECONDS = 60

CONFIGURATION = """
[listen]
address = "127.0.0.1:0"
{listen}

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:{port}"
{upstream}

[issuers.scores]
keys = {{ secret_file = "secret" }}

[[routes]]
path = "/api/{{user_id}}/{{*rest}}"
access = {{ owner = "user_id" }}

[[routes]]
path = "/me/{{*rest}}"
access = "authenticated"

[[routes]]
path = "/open/{{*rest}}"
access = "public"
"""


def encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: bytes, payload: bytes, secret: bytes = SECRET.encode(), hash_name: str = "sha256") -> str:
    """HMAC over any header and payload (RFC 7518 section 3.2)."""
    text = f"{encode(header)}.{encode(payload)}"
    return f"{text}.{encode(hmac.new(secret, text.encode(), hash_name).digest())}"


def claims_of(subject: str, **claims) -> dict:
    now = int(time.time())
    return {"sub": subject, "iat": now, "exp": now + 3600, **claims}


def token(subject: str = "alice", **claims) -> str:
    """Valid HS256 token."""
    return sign(b'{"alg":"HS256","typ":"JWT"}', json.dumps(claims_of(subject, **claims)).encode())


def program() -> str:
    return os.environ["CLAIMGATE"]


class Gate:
    """`claimgate run` with a configuration."""

    def __init__(self, text: str, files: dict[str, bytes] | None = None):
        self.folder = tempfile.TemporaryDirectory(prefix="claimgate-scores-")
        path = pathlib.Path(self.folder.name)
        for name, content in {"secret": SECRET.encode(), **(files or {})}.items():
            (path / name).write_bytes(content)
            (path / name).chmod(0o600)
        (path / "config.toml").write_text(text)
        self.log = path / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([program(), "run", "--config", "config.toml"], cwd=path,
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.port, self.admin = self._ports()

    def _ports(self) -> tuple[int, int]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r'"message":"serving".*', self.log.read_text(errors="replace")):
                ports = [re.search(rf'"{name}":"127\.0\.0\.1:(\d+)"', found[0]) for name in ("address", "admin")]
                return int(ports[0][1]), int(ports[1][1])
            time.sleep(0.02)
        raise RuntimeError(f"the gate did not start:\n{self.log.read_text(errors='replace')}")

    def resident_kib(self) -> int:
        """Resident memory in KiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            # The second signal ends the graceful shutdown.
            time.sleep(0.1)
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


@contextlib.contextmanager
def running(port: int, listen: str = "", upstream: str = ""):
    """Gate with a shared secret in front of the upstream at this port."""
    gate = Gate(CONFIGURATION.format(port=port, listen=listen, upstream=upstream))
    try:
        yield gate
    finally:
        gate.stop()


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

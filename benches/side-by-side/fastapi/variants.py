"""The variants of the application, their programs, and a token for each."""

import http.server
import json
import pathlib
import string
import sys
import threading
import time
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import programs

HERE = pathlib.Path(__file__).resolve().parent
USER, OTHER_USER = "alice", "bob"
PATH = f"/api/{USER}/tasks"
SECRET = "claimgate-benchmark-secret-known-to-everyone-and-of-no-use-at-all"
LIFETIME = 24 * 3600
KEY_ID = "benchmark"


@dataclass(frozen=True)
class Variant:
    name: str
    app: str
    algorithm: str = "HS256"
    # Whether a token is checked at all.
    verifies: bool = True
    # Connection between claimgate and the application: "tcp", "unix", or none without claimgate.
    gate: str | None = None


VARIANTS = [
    Variant("bare", "bare", verifies=False),
    Variant("pyjwt", "pyjwt"),
    Variant("jwks", "jwks", algorithm="EdDSA"),
    Variant("claimgate-tcp", "behind_gate", gate="tcp"),
    Variant("claimgate-unix", "behind_gate", gate="unix"),
]


class Issuer:
    """Signs tokens, and serves the key set of those with EdDSA on loopback."""

    def __init__(self):
        self._key = Ed25519PrivateKey.generate()
        public = jwt.get_algorithm_by_name("EdDSA").to_jwk(self._key.public_key(), as_dict=True)
        self.key_set = json.dumps({"keys": [public | {"alg": "EdDSA", "use": "sig", "kid": KEY_ID}]}).encode()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _KeySets)
        self._server.key_set = self.key_set
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.jwks_url = f"http://127.0.0.1:{self._server.server_port}/jwks"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def token(self, algorithm: str, subject: str = USER, **claims) -> str:
        now = int(time.time())
        claims = {"sub": subject, "iat": now, "exp": now + LIFETIME, **claims}
        if algorithm == "HS256":
            return jwt.encode(claims, SECRET, algorithm)
        return jwt.encode(claims, self._key, algorithm, headers={"kid": KEY_ID})


class _KeySets(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.key_set)))
        self.end_headers()
        self.wfile.write(self.server.key_set)

    def log_message(self, *_):
        pass


class Running:
    """A variant that serves: uvicorn with one worker, and claimgate where the variant has it."""

    def __init__(self, variant: Variant, issuer: Issuer, claimgate: pathlib.Path, directory: pathlib.Path, cpu: int):
        self.variant = variant
        self.programs: dict[str, programs.Program] = {}
        directory.mkdir()
        self._directory, self._cpu = directory, cpu
        try:
            self.port = self._start_api(issuer.jwks_url)
            if variant.gate:
                self.port = self._start_gate(claimgate)
        except BaseException:
            self.stop()
            raise

    def _start(self, name: str, command: list, serving, environment: dict | None = None):
        directory = self._directory / name
        directory.mkdir()
        program = programs.Program(command, directory, {self._cpu}, environment)
        self.programs[name] = program
        program.wait_until(serving)

    def _start_api(self, jwks_url: str) -> int:
        self._port, self._socket = programs.free_port(), self._directory / "api.sock"
        uvicorn = [sys.executable, "-m", "uvicorn", f"{self.variant.app}:app", "--app-dir", HERE / "apps",
                   "--workers", 1, "--log-level", "warning", "--no-access-log", "--timeout-keep-alive", 75]
        environment = {"SECRET": SECRET, "JWKS_URL": jwks_url}
        if self.variant.gate == "unix":
            self._start("api", [*uvicorn, "--uds", self._socket], self._socket.exists, environment)
        else:
            listen = ["--host", "127.0.0.1", "--port", self._port]
            self._start("api", [*uvicorn, *listen], lambda: programs.accepts(self._port), environment)
        return self._port

    def _start_gate(self, claimgate: pathlib.Path) -> int:
        port, secret = programs.free_port(), self._directory / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        upstream = f"unix:{self._socket}" if self.variant.gate == "unix" else f"http://127.0.0.1:{self._port}"
        configuration = self._directory / "claimgate.toml"
        configuration.write_text(string.Template((HERE / "claimgate.toml").read_text()).substitute(
            port=port, admin_port=programs.free_port(), upstream=upstream, secret_file=secret))
        command = [claimgate, "run", "--config", configuration]
        self._start("gate", command, lambda: programs.accepts(port))
        return port

    def stop(self):
        for program in reversed(self.programs.values()):
            program.stop()

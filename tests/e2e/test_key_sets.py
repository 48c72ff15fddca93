"""The key set of a Kubernetes cluster: private authority, bearer token, OIDC discovery."""

import datetime
import http.server
import ipaddress
import json
import pathlib
import ssl
import subprocess
import threading
import time

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

# Bearer token of the gate for the key set.
GATE_TOKEN = "the-token-of-the-gate"


class Cluster:
    """An HTTPS server on loopback with a certificate of a private authority. Its key set requires a bearer token."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.requested: list[str] = []
        self.discovered_issuer: str | None = None
        authority = ec.generate_private_key(ec.SECP256R1())
        server = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate("authority", authority, "authority", authority, is_authority=True)
        (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        server_certificate = self._certificate("server", server, "authority", authority, is_authority=False)
        (directory / "server.pem").write_bytes(
            server.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())
            + server_certificate.public_bytes(serialization.Encoding.PEM))
        (directory / "token").write_text(f"{GATE_TOKEN}\n")
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                cluster.requested.append(self.path)
                if self.headers.get("Authorization") != f"Bearer {GATE_TOKEN}":
                    return self.respond(401, {})
                if self.path == "/.well-known/openid-configuration":
                    issuer = cluster.discovered_issuer or cluster.url
                    return self.respond(200, {"issuer": issuer, "jwks_uri": f"{cluster.url}/openid/v1/jwks"})
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(cluster.key.public_key()))
                return self.respond(200, {"keys": [public | {"kid": "cluster", "use": "sig", "alg": "RS256"}]})

            def respond(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _certificate(self, subject, key, issuer, issuer_key, is_authority):
        def name(text):
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        now = datetime.datetime.now(datetime.timezone.utc)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(address, critical=False))
        return builder.sign(issuer_key, hashes.SHA256())

    def token(self, subject: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "iat": now, "exp": now + 600}
        return jwt.encode(claims, self.key, "RS256", headers={"kid": "cluster"})

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def cluster(tmp_path):
    running = Cluster(tmp_path)
    yield running
    running.stop()


def doctor(claimgate, directory: pathlib.Path, keys: str, token: str) -> subprocess.CompletedProcess:
    config = directory / "gate.toml"
    config.write_text(
        '[upstreams.tasks]\nurl = "http://127.0.0.1:9"\n'
        f"[issuers.cluster]\nkeys = {{ {keys} }}\n"
        '[[routes]]\npath = "/tasks"\naccess = "authenticated"\n')
    return subprocess.run(
        [claimgate, "doctor", "--config", config, "--token", token], text=True, capture_output=True, timeout=120)


@pytest.fixture
def claimgate():
    import os
    return os.environ["CLAIMGATE"]


def credentials(cluster) -> str:
    """Settings that the gate needs besides the URL."""
    return f'ca_file = "{cluster.directory}/ca.pem", token_file = "{cluster.directory}/token"'


@pytest.mark.parametrize("source", [
    'jwks_url = "{}/openid/v1/jwks"', 'discovery = "{}/.well-known/openid-configuration"',
], ids=["jwks_url", "discovery"])
def test_fetches_keys_with_a_private_authority_and_a_bearer_token(cluster, claimgate, source):
    keys = f"{source.format(cluster.url)}, {credentials(cluster)}"
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "issuer `cluster`: 1 key (`cluster` for RS256)" in result.stdout
    assert "accepted: issuer `cluster`, subject `ada`" in result.stdout
    assert GATE_TOKEN not in result.stdout + result.stderr


def test_sends_no_request_to_a_server_with_an_untrusted_certificate(cluster, claimgate):
    keys = f'jwks_url = "{cluster.url}/openid/v1/jwks", token_file = "{cluster.directory}/token"'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1
    assert "TLS: " in result.stdout and "UnknownIssuer" in result.stdout, result.stdout
    assert "keys_unavailable" in result.stdout
    assert cluster.requested == [], "the gate sent a request to an untrusted server"


def test_reports_the_status_of_a_key_set_request_without_the_token(cluster, claimgate):
    keys = f'jwks_url = "{cluster.url}/openid/v1/jwks", ca_file = "{cluster.directory}/ca.pem"'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1 and "status: 401" in result.stdout, result.stdout


def test_rejects_a_discovery_document_of_another_issuer(cluster, claimgate):
    cluster.discovered_issuer = "https://elsewhere.example"
    keys = f'discovery = "{cluster.url}/.well-known/openid-configuration", {credentials(cluster)}'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1
    assert "discovery: the document has the issuer `https://elsewhere.example`" in result.stdout, result.stdout
    assert cluster.requested == ["/.well-known/openid-configuration"]

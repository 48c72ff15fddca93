"""A key set as a cluster has it: behind an own authority, for a bearer token, found by the issuer's description."""

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

LEASE = "the-token-of-the-gate"


class Cluster:
    """An https server on loopback with a certificate of its own authority; its key set needs a bearer token."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.heard: list[str] = []
        self.described: str | None = None
        authority = ec.generate_private_key(ec.SECP256R1())
        server = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate("authority", authority, "authority", authority, is_authority=True)
        (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        mine = self._certificate("server", server, "authority", authority, is_authority=False)
        (directory / "server.pem").write_bytes(
            server.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())
            + mine.public_bytes(serialization.Encoding.PEM))
        (directory / "token").write_text(f"{LEASE}\n")
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                cluster.heard.append(self.path)
                if self.headers.get("Authorization") != f"Bearer {LEASE}":
                    return self.response(401, {})
                if self.path == "/.well-known/openid-configuration":
                    issuer = cluster.described or cluster.url
                    return self.response(200, {"issuer": issuer, "jwks_uri": f"{cluster.url}/openid/v1/jwks"})
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(cluster.key.public_key()))
                return self.response(200, {"keys": [public | {"kid": "cluster", "use": "sig", "alg": "RS256"}]})

            def response(self, status, body):
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

    def _certificate(self, subject, key, issuer, issuers_key, is_authority):
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
        return builder.sign(issuers_key, hashes.SHA256())

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


def beside(cluster) -> str:
    return f'ca_file = "{cluster.directory}/ca.pem", token_file = "{cluster.directory}/token"'


@pytest.mark.parametrize("place", ["jwks_url = \"{}/openid/v1/jwks\"", "discovery = \"{}/.well-known/openid-configuration\""],
                         ids=["named", "found"])
def test_a_clusters_keys_are_fetched_with_its_authority_and_a_token(cluster, claimgate, place):
    result = doctor(claimgate, cluster.directory, f"{place.format(cluster.url)}, {beside(cluster)}", cluster.token("ada"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "issuer `cluster`: 1 key (`cluster` for RS256)" in result.stdout
    assert "accepted: issuer `cluster`, subject `ada`" in result.stdout
    assert LEASE not in result.stdout + result.stderr


def test_another_authority_proves_nothing(cluster, claimgate):
    keys = f'jwks_url = "{cluster.url}/openid/v1/jwks", token_file = "{cluster.directory}/token"'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1
    assert "TLS: " in result.stdout and "UnknownIssuer" in result.stdout, result.stdout
    assert "keys_unavailable" in result.stdout
    assert cluster.heard == [], "nothing is asked of a server that has proven nothing"


def test_without_its_token_the_cluster_gives_no_keys(cluster, claimgate):
    keys = f'jwks_url = "{cluster.url}/openid/v1/jwks", ca_file = "{cluster.directory}/ca.pem"'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1 and "status: 401" in result.stdout, result.stdout


def test_the_description_of_another_issuer_is_not_taken(cluster, claimgate):
    cluster.described = "https://elsewhere.example"
    keys = f'discovery = "{cluster.url}/.well-known/openid-configuration", {beside(cluster)}'
    result = doctor(claimgate, cluster.directory, keys, cluster.token("ada"))
    assert result.returncode == 1
    assert "discovery: the document has the issuer `https://elsewhere.example`" in result.stdout, result.stdout
    assert cluster.heard == ["/.well-known/openid-configuration"]

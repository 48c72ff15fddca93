"""TLS with OpenSSL and curl: protocol versions, key types, mTLS, revocation, and certificate renewal."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from authority import Authority
from gate import SECRET, sign_token
from programs import Program

TIMEOUT = 60

CONFIGURATION = """
[listen]
address = "127.0.0.1:0"
workers = 1

[listen.tls]
certificate = "gate.crt"
key = "gate.key"
{tls}

[admin]
address = "127.0.0.1:0"

[identity]
headers = {headers}

[upstreams.api]
url = "{url}"

[issuers.test]
keys = {{ secret_file = "secret", encoding = "utf8" }}

[[routes]]
path = "/health"
access = "public"

[[routes]]
path = "/me"
access = "authenticated"
"""


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@contextlib.contextmanager
def serving(authority: Authority, upstream: str, tls: str = "", headers: str = "{}"):
    """A gate with TLS. Yields its port."""
    directory = authority.directory
    (directory / "secret").write_text(SECRET)
    (directory / "secret").chmod(0o600)
    (directory / "config.toml").write_text(CONFIGURATION.format(url=upstream, tls=tls, headers=headers))
    program = Program(directory, [os.environ["CLAIMGATE"], "run", "--config", "config.toml"], {})
    try:
        line = program.wait_for(r'"message":"serving".*')[0]
        yield re.search(r'"address":"[^"]+:(\d+)"', line)[1]
    finally:
        program.stop()


def openssl(authority: Authority, port: str, *arguments: str) -> str:
    """Output of `openssl s_client` for one handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "gate.test",
               "-CAfile", "ca.crt", "-verify_return_error", *arguments]
    ended = subprocess.run(command, cwd=authority.directory, input=b"", timeout=TIMEOUT,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return ended.stdout.decode(errors="replace")


def curl(authority: Authority, port: str, path: str, *arguments: str) -> tuple[str, dict]:
    """HTTP version and status, and the body if it is JSON."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(TIMEOUT),
               "--resolve", f"gate.test:{port}:127.0.0.1", "--cacert", "ca.crt",
               "--write-out", "\n%{http_version} %{http_code}", *arguments, f"https://gate.test:{port}{path}"]
    ended = subprocess.run(command, cwd=authority.directory, timeout=TIMEOUT + 10, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    body, _, line = ended.stdout.decode().rpartition("\n")
    return line, json.loads(body)


# By default, OpenSSL itself rejects TLS 1.1.
ALLOW_TLS_1_1 = ["-cipher", "DEFAULT:@SECLEVEL=0"]


@pytest.mark.parametrize("kind, form", [
    ("ec", PrivateFormat.PKCS8), ("ec", PrivateFormat.TraditionalOpenSSL),
    ("rsa", PrivateFormat.PKCS8), ("rsa", PrivateFormat.TraditionalOpenSSL),
])
def test_negotiates_tls_1_2_and_1_3_with_each_key_type_and_format(authority, upstream, kind, form):
    authority.issue("gate", "gate.test", kind, form)
    with serving(authority, upstream) as port:
        for version, negotiated in [("tls1_1", None), ("tls1_2", "TLSv1.2"), ("tls1_3", "TLSv1.3")]:
            output = openssl(authority, port, f"-{version}", *ALLOW_TLS_1_1, "-alpn", "h2,http/1.1")
            if negotiated is None:
                assert re.search("alert (protocol version|handshake failure)", output), output
            else:
                assert f"New, {negotiated}" in output or f"Protocol  : {negotiated}" in output, output
                assert "ALPN protocol: h2" in output, output
                assert "Verify return code: 0 (ok)" in output, output
        assert curl(authority, port, "/health")[0] == "2 200"
        assert curl(authority, port, "/health", "--http1.1")[0] == "1.1 200"


def test_rejects_versions_below_the_configured_minimum(authority, upstream):
    authority.issue("gate", "gate.test")
    with serving(authority, upstream, 'min_version = "1.3"') as port:
        assert "alert protocol version" in openssl(authority, port, "-tls1_2")
        assert "New, TLSv1.3" in openssl(authority, port, "-tls1_3")


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_requests_a_client_certificate_and_forwards_its_attributes(authority, upstream, http_version):
    authority.issue("gate", "gate.test")
    thumbprint = authority.issue("web", "web.example")
    authority.issue("other", "other.example")
    tls = 'client_ca = "ca.crt"\nclient_certificate = "optional"'
    headers = '{ X-Client = "certificate:subject", X-Client-Hash = "certificate:thumbprint" }'
    version = "--http1.1" if http_version == "1.1" else "--http2"
    with serving(authority, upstream, tls, headers) as port:
        def send(token, certificate=None):
            presented = ["--cert", f"{certificate}.crt", "--key", f"{certificate}.key"] if certificate else []
            forged = ["--header", "X-Client: CN=root"]
            credential = ["--header", f"Authorization: Bearer {token}"]
            return curl(authority, port, "/me", version, *credential, *presented, *forged)

        line, body = send(sign_token(), "web")
        assert line == f"{http_version} 200"
        assert (body["x-client"], body["x-client-hash"]) == ("CN=web.example", thumbprint)
        assert body["x-forwarded-proto"] == "https"
        line, body = send(sign_token())
        assert line == f"{http_version} 200" and "x-client" not in body

        bound = sign_token(cnf={"x5t#S256": thumbprint})
        for _ in range(2):
            assert send(bound, "web")[0] == f"{http_version} 200"
            for line, body in [send(bound, "other"), send(bound)]:
                assert (line, body["reason"]) == (f"{http_version} 401", "token_confirmation")


def test_rejects_a_handshake_without_a_trusted_client_certificate(authority, upstream, tmp_path_factory):
    authority.issue("gate", "gate.test")
    authority.issue("web", "web.example")
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    stranger.issue("web", "web.example")
    foreign = ["-cert", str(stranger.directory / "web.crt"), "-key", str(stranger.directory / "web.key")]
    with serving(authority, upstream, 'client_ca = "ca.crt"') as port:
        output = openssl(authority, port, "-tls1_2")
        assert re.search(r"alert (handshake failure|certificate required)", output), output
        # Signed by an authority with the same name and a different key.
        output = openssl(authority, port, "-tls1_2", *foreign)
        assert "alert decrypt error" in output, output
        output = openssl(authority, port, "-tls1_2", "-cert", "web.crt", "-key", "web.key")
        assert "New, TLSv1.2" in output and " alert " not in output, output


def wait_until(condition, failure: str):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.1)


def test_rejects_a_revoked_certificate_after_a_crl_reload(authority, upstream):
    for file in ["gate", "web", "batch"]:
        authority.issue(file, f"{file}.test")
    authority.revoke("gate")
    with serving(authority, upstream, 'client_ca = "ca.crt"\nclient_crl = "ca.crl"') as port:
        def is_accepted(file):
            output = openssl(authority, port, "-tls1_2", "-cert", f"{file}.crt", "-key", f"{file}.key")
            assert "New, TLSv1.2" in output or "alert certificate revoked" in output, output
            return " alert " not in output

        assert is_accepted("web") and is_accepted("batch")
        authority.revoke("gate", "web")
        wait_until(lambda: not is_accepted("web"), "the new CRL is not in use")
        assert is_accepted("batch")


def test_explains_an_invalid_crl(authority, upstream):
    authority.issue("gate", "gate.test")
    authority.revoke("gate", number=None)
    message = "client_crl: ca.crl is not a valid CRL file: a CRL has no extensions; a CRL must be"
    with pytest.raises(AssertionError, match=message):
        with serving(authority, upstream, 'client_ca = "ca.crt"\nclient_crl = "ca.crl"'):
            pass


def test_presents_a_renewed_certificate(authority, upstream):
    authority.issue("gate", "gate.test")
    with serving(authority, upstream) as port:
        def presented():
            output = openssl(authority, port)
            assert "Verify return code: 0 (ok)" in output, output
            return output.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]

        before = presented()
        authority.issue("gate", "gate.test", "rsa")
        wait_until(lambda: presented() != before, "the old certificate is still in use")

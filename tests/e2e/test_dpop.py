"""DPoP (RFC 9449): tokens of Better Auth 1.7 that are bound to a key, with proofs by jose."""

import contextlib
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import time
from types import SimpleNamespace

import httpx
import pytest

from better_auth_17 import BetterAuth, ProofKey, body, content
from programs import RESPONSE_SECONDS, Program, free_port, wait_until
from sessions import Guarded, Upstream, outcome, tasks_of
from test_introspection import introspection
from test_redis import PASSWORD, SERVER, Redis

# Better Auth requires a proof for tokens of the first resource alone.
RESOURCE = "https://api.example.com/tasks"
UNBOUND_RESOURCE = "https://api.example.com/notes"
ALGORITHMS = ["ES256", "EdDSA", "RS256", "PS256", "ES512"]
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

REQUIRED = '[[routes]]\npath = "/bound"\naccess = "authenticated"\ndpop = "required"\n'


class Holder:
    """A client with a key, and a token that is bound to it."""

    def __init__(self, server: BetterAuth, account, algorithm: str = "ES256", resource: str | None = RESOURCE):
        self.key = ProofKey(algorithm)
        client = account.register(resource)
        self.tokens = body(client.authorization_code(account, resource, key=self.key))
        self.token = self.tokens["access_token"]

    def proof(self, url: str, method: str = "GET", **changes) -> str:
        return self.key.proof(method, url, self.token, **changes)


def send(gate: Guarded, path: str, token: str, *proofs: str, scheme: str = "DPoP", method: str = "GET", headers=()):
    """Sends a request with these proofs."""
    fields = [("Authorization", f"{scheme} {token}"), *(("DPoP", proof) for proof in proofs)]
    return gate.send(path, method=method, headers=[*fields, *headers])


def cause(response: httpx.Response) -> str:
    """Text of the response about a proof that is not valid."""
    assert outcome(response) == (401, "proof_invalid"), response.text
    return response.json()["detail"]


def jwt_issuer(server: BetterAuth, more: str = "") -> str:
    """Table of an issuer of JWTs."""
    return (
        f'keys = {{ discovery = "{server.discovery_url}" }}\naudience = ["{RESOURCE}", "{UNBOUND_RESOURCE}"]\n'
        f'types = ["at+jwt"]\n{more}\n'
    )


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def better_auth(tmp_path_factory):
    """A server with a user and a client."""
    server = BetterAuth(
        tmp_path_factory.mktemp("better-auth"), "--oauth", "--resource", RESOURCE, "--resource", UNBOUND_RESOURCE,
        "--dpop-required")
    try:
        ada = server.sign_up()
        yield SimpleNamespace(server=server, ada=ada, holder=Holder(server, ada))
    finally:
        server.stop()


@pytest.fixture(scope="module")
def gate(tmp_path_factory, better_auth, upstream):
    gate = Guarded(tmp_path_factory.mktemp("gate"), upstream, jwt_issuer(better_auth.server), REQUIRED)
    yield gate
    gate.stop()


@pytest.fixture(scope="module")
def unbound(better_auth) -> str:
    """Access token without `cnf`."""
    client = better_auth.ada.register(UNBOUND_RESOURCE)
    return body(client.authorization_code(better_auth.ada, UNBOUND_RESOURCE))["access_token"]


# JWTs of Better Auth.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_serves_the_owner_with_a_token_and_a_proof(better_auth, gate, algorithm):
    ada = better_auth.ada
    holder = Holder(better_auth.server, ada, algorithm)
    assert holder.tokens["token_type"] == "DPoP"
    path = tasks_of(ada)
    # `htu` has no query (RFC 9449 section 4.2).
    response = send(gate, f"{path}?page=2", holder.token, holder.proof(gate.url + path))
    assert response.status_code == 200, response.text
    assert response.json() == {"user": ada.id}
    assert gate.upstream.last("x-user-id") == [ada.id]
    assert gate.upstream.last("authorization") == [] and gate.upstream.last("dpop") == []
    other = holder.proof(f"{gate.url}/api/another/tasks")
    assert outcome(send(gate, "/api/another/tasks", holder.token, other)) == (403, "subject_mismatch")


def test_a_proof_serves_one_request(better_auth, gate):
    holder = better_auth.holder
    first, second = holder.key.proofs([content("GET", f"{gate.url}/me", holder.token) for _ in range(2)])
    assert send(gate, "/me", holder.token, first).status_code == 200
    for _ in range(3):
        response = send(gate, "/me", holder.token, first)
        assert outcome(response) == (401, "proof_replayed")
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("DPoP ") and 'error="invalid_dpop_proof"' in challenge
    algorithms = re.search('algs="([^"]+)"', challenge)[1].split()
    assert set(ALGORITHMS) <= set(algorithms) and not any(name.startswith("HS") for name in algorithms)
    assert send(gate, "/me", holder.token, second).status_code == 200


def test_accepts_the_scheme_in_any_case_and_http2(better_auth, gate):
    holder = better_auth.holder
    proof = holder.proof(f"{gate.url}/me")
    headers = {"Authorization": f"dpop {holder.token}", "DPoP": proof}
    transport = httpx.HTTPTransport(http1=False, http2=True)
    with httpx.Client(base_url=gate.url, transport=transport, timeout=RESPONSE_SECONDS, trust_env=False) as client:
        response = client.get("/me", headers=headers)
        assert (response.http_version, response.status_code) == ("HTTP/2", 200)
    # A proof is used up for every connection and every version of HTTP.
    assert outcome(send(gate, "/me", holder.token, proof)) == (401, "proof_replayed")


def test_a_proof_for_a_rejected_request_is_used_up(better_auth, gate):
    holder = better_auth.holder
    proof = holder.proof(f"{gate.url}/api/another/tasks")
    assert outcome(send(gate, "/api/another/tasks", holder.token, proof)) == (403, "subject_mismatch")
    assert outcome(send(gate, "/api/another/tasks", holder.token, proof)) == (401, "proof_replayed")


def test_a_stolen_token_is_rejected_without_its_key(better_auth, gate):
    holder, url = better_auth.holder, f"{gate.url}/me"
    before = len(gate.upstream.requests)
    for proofs in ([], [holder.proof(url)]):
        response = send(gate, "/me", holder.token, *proofs, scheme="Bearer")
        assert outcome(response) == (401, "token_confirmation")
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert "no `DPoP` header" in cause(send(gate, "/me", holder.token))
    for algorithm in ("ES256", "EdDSA"):
        thief = ProofKey(algorithm)
        stolen = send(gate, "/me", holder.token, thief.proof("GET", url, holder.token))
        assert "bound to another key" in cause(stolen)
    # The thief names the holder's key, and signs with another.
    public = {name: value for name, value in holder.key.jwk.items() if name != "d"}
    forged = ProofKey("ES256").proof("GET", url, holder.token, header={"jwk": public})
    assert "signature" in cause(send(gate, "/me", holder.token, forged))
    assert len(gate.upstream.requests) == before


def test_a_token_without_a_key_is_a_bearer_token_only(better_auth, gate, unbound):
    assert gate.outcome(token=unbound) == (200, None)
    proof = better_auth.holder.key.proof("GET", f"{gate.url}/me", unbound)
    for proofs in ([], [proof]):
        assert outcome(send(gate, "/me", unbound, *proofs)) == (401, "token_unbound")


def test_a_proof_is_for_one_method_url_and_token(better_auth, gate, unbound):
    holder, url = better_auth.holder, f"{gate.url}/me"
    port = gate.url.rpartition(":")[2]
    faults = [
        ("`htm`", content("POST", url, holder.token)),
        ("`htm`", content("get", url, holder.token)),
        ("`htm`", content("GET", url, holder.token, claims={"htm": None})),
        ("`htu`", content("GET", f"{gate.url}/health", holder.token)),
        ("`htu`", content("GET", f"{url}/", holder.token)),
        ("`htu`", content("GET", f"https://127.0.0.1:{port}/me", holder.token)),
        ("`htu`", content("GET", f"http://localhost:{port}/me", holder.token)),
        ("`htu`", content("GET", "/me", holder.token)),
        ("`ath`", content("GET", url, unbound)),
        ("`ath`", content("GET", url)),
        ("`iat`", content("GET", url, holder.token, claims={"iat": int(time.time()) - 400})),
        ("`iat`", content("GET", url, holder.token, claims={"iat": int(time.time()) + 100})),
        ("`jti`", content("GET", url, holder.token, claims={"jti": None})),
        ("`typ`", content("GET", url, holder.token, header={"typ": "JWT"})),
        ("`jwk`", content("GET", url, holder.token, header={"jwk": None})),
        ("private key", content("GET", url, holder.token, header={"jwk": holder.key.jwk})),
    ]
    before = len(gate.upstream.requests)
    for (expected, _), proof in zip(faults, holder.key.proofs([content for _, content in faults]), strict=True):
        response = send(gate, "/me", holder.token, proof)
        assert expected in cause(response), expected
        assert 'error="invalid_dpop_proof"' in response.headers["www-authenticate"]
    assert len(gate.upstream.requests) == before
    assert send(gate, "/me", holder.token, holder.proof(url)).status_code == 200


def test_rejects_several_proofs(better_auth, gate):
    holder, url = better_auth.holder, f"{gate.url}/me"
    first, second = holder.key.proofs([content("GET", url, holder.token) for _ in range(2)])
    for proofs in ([first, second], [first, first], [f"{first}, {second}"]):
        assert "several" in cause(send(gate, "/me", holder.token, *proofs))


def test_a_proof_is_for_the_method_of_the_request(better_auth, gate):
    holder = better_auth.holder
    for method in ("POST", "DELETE"):
        proof = holder.proof(f"{gate.url}/me", method)
        assert "`htm`" in cause(send(gate, "/me", holder.token, proof))
        assert send(gate, "/me", holder.token, proof, method=method).status_code == 200


def test_a_route_requires_bound_tokens(better_auth, gate, unbound):
    holder, url = better_auth.holder, f"{gate.url}/bound"
    assert gate.outcome("/bound", token=unbound) == (401, "token_unbound")
    assert gate.outcome("/bound", token=holder.token) == (401, "token_confirmation")
    assert send(gate, "/bound", holder.token, holder.proof(url)).status_code == 200


def test_a_machine_has_a_bound_token_too(better_auth, tmp_path, upstream):
    machine = better_auth.ada.register(RESOURCE, machine=True)
    key = ProofKey()
    token = body(machine.client_credentials(RESOURCE, key=key))["access_token"]
    gate = Guarded(tmp_path, upstream, jwt_issuer(better_auth.server, "machines = true"))
    try:
        response = send(gate, "/me", token, key.proof("GET", f"{gate.url}/me", token))
        assert response.status_code == 200, response.text
        assert upstream.last("x-client-id") == [machine.id]
        assert gate.outcome(token=token) == (401, "token_confirmation")
    finally:
        gate.stop()


def test_a_reload_keeps_the_used_proofs(better_auth, tmp_path, upstream):
    gate = Guarded(tmp_path, upstream, jwt_issuer(better_auth.server, 'dpop_nonce = "1h"'))
    try:
        client = NonceClient(gate, better_auth.holder)
        assert client.get("/me").status_code == 200
        proof = client.proof("/me")
        assert send(gate, "/me", client.holder.token, proof).status_code == 200
        configuration = tmp_path / "config.toml"
        configuration.write_text(configuration.read_text() + REQUIRED)
        reloads = 'claimgate_config_reloads_total{outcome="success"}'
        wait_until(lambda: gate.gate.metric(reloads) >= 1)
        assert outcome(send(gate, "/me", client.holder.token, proof)) == (401, "proof_replayed")
        # The nonce is valid with the new configuration, too.
        sent = client.sent
        assert client.get("/bound").status_code == 200
        assert client.sent == sent + 1
    finally:
        gate.stop()


# Nonces.


class NonceClient:
    """A client that sends the last nonce it got, and repeats a request once if the gate demands another."""

    def __init__(self, gate: Guarded, holder: Holder):
        self.gate, self.holder = gate, holder
        self.nonce = None
        self.sent = 0

    def get(self, path: str) -> httpx.Response:
        response = self._send(path)
        challenge = response.headers.get("www-authenticate", "")
        if response.status_code == 401 and challenge.startswith("DPoP ") and 'error="use_dpop_nonce"' in challenge:
            self.nonce = response.headers["dpop-nonce"]
            response = self._send(path)
        return response

    def _send(self, path: str) -> httpx.Response:
        self.sent += 1
        return send(self.gate, path, self.holder.token, self.proof(path))

    def proof(self, path: str) -> str:
        return self.holder.proof(self.gate.url + path, claims={"nonce": self.nonce})


def test_a_client_follows_the_demand_for_a_nonce(better_auth, tmp_path, upstream):
    gate = Guarded(tmp_path, upstream, jwt_issuer(better_auth.server, 'dpop_nonce = "1h"'))
    try:
        client = NonceClient(gate, better_auth.holder)
        assert client.get("/me").json() == {"user": better_auth.ada.id}
        assert client.sent == 2
        assert client.get(tasks_of(better_auth.ada)).status_code == 200
        assert client.sent == 3
        client.nonce = "made-up"
        assert client.get("/me").status_code == 200
        assert client.sent == 5
    finally:
        gate.stop()


def test_a_nonce_expires(better_auth, tmp_path, upstream):
    lifetime = 10
    gate = Guarded(tmp_path, upstream, jwt_issuer(better_auth.server, f'dpop_nonce = "{lifetime}s"'))
    try:
        client = NonceClient(gate, better_auth.holder)
        assert client.get("/me").status_code == 200
        first = client.nonce

        def is_expired() -> bool:
            client.nonce = first
            assert client.get("/me").status_code == 200
            return client.nonce != first

        assert wait_until(is_expired) < 2 * lifetime + 10
    finally:
        gate.stop()


# Opaque tokens, whose key is in the introspection response.


def test_honours_the_key_of_an_introspection_response(tmp_path, upstream):
    server = BetterAuth(tmp_path, "--oauth", "--resource", RESOURCE, "--opaque", "--dpop-required")
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        ada = server.sign_up()
        holder = Holder(server, ada)
        assert "." not in holder.token and holder.tokens["token_type"] == "DPoP"
        machine = ada.register(RESOURCE, machine=True)
        assert machine.introspect(holder.token)["cnf"] == {"jkt": holder.key.thumbprint}
        table = f'issuer = "{server.base}"\naudience = "{RESOURCE}"\n'
        table += introspection(tmp_path, f"{server.url}/oauth2/introspect", machine.id, machine.secret)
        gate = Guarded(tmp_path / "gate", upstream, table, REQUIRED)
        stack.callback(gate.stop)
        path, url = tasks_of(ada), f"{gate.url}/me"
        proof = holder.proof(gate.url + path)
        assert send(gate, path, holder.token, proof).json() == {"user": ada.id}
        assert upstream.last("authorization") == [] and upstream.last("dpop") == []
        assert outcome(send(gate, path, holder.token, proof)) == (401, "proof_replayed")
        assert send(gate, "/bound", holder.token, holder.proof(f"{gate.url}/bound")).status_code == 200
        assert gate.outcome(token=holder.token) == (401, "token_confirmation")
        assert "no `DPoP` header" in cause(send(gate, "/me", holder.token))
        stolen = ProofKey().proof("GET", url, holder.token)
        assert "bound to another key" in cause(send(gate, "/me", holder.token, stolen))


# A TLS terminator.

TERMINATOR = """
defaults
    mode http
    timeout connect 30s
    timeout client 30s
    timeout server 30s

frontend clients
    bind 127.0.0.1:{port} ssl crt {certificate}
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header Host gate.internal
    # A prefix of this site, which the gate does not know from the path.
    acl below_prefix path_beg /base/
    http-request del-header X-Forwarded-Prefix
    http-request set-header X-Forwarded-Prefix /base if below_prefix
    http-request replace-path /base/(.*) /\\1
    default_backend gate

backend gate
    server gate {gate}
"""


@contextlib.contextmanager
def tls_terminator(directory: pathlib.Path, gate: Guarded):
    """HAProxy in front of the gate, and a client that trusts it."""
    certificate, key = directory / "site.crt", directory / "site.key"
    subprocess.run([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
        "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate,
    ], check=True, capture_output=True)
    (directory / "site.pem").write_text(certificate.read_text() + key.read_text())
    port = free_port()
    address = gate.url.removeprefix("http://")
    (directory / "haproxy.cfg").write_text(
        TERMINATOR.format(port=port, certificate=directory / "site.pem", gate=address))
    haproxy = Program(directory, [HAPROXY, "-db", "-f", "haproxy.cfg"], {})
    try:
        with httpx.Client(
            base_url=f"https://localhost:{port}", timeout=RESPONSE_SECONDS, trust_env=False,
            transport=httpx.HTTPTransport(retries=8, verify=ssl.create_default_context(cafile=certificate)),
        ) as client:
            yield client
    finally:
        haproxy.stop()


@pytest.mark.skipif(not HAPROXY, reason="haproxy is missing")
@pytest.mark.parametrize("is_trusted", [True, False])
def test_compares_the_url_in_front_of_a_tls_terminator(better_auth, tmp_path, upstream, is_trusted):
    listen = 'trusted_proxies = ["127.0.0.1"]' if is_trusted else ""
    gate = Guarded(tmp_path / "gate", upstream, jwt_issuer(better_auth.server), listen=listen)
    holder, path = better_auth.holder, tasks_of(better_auth.ada)
    try:
        with tls_terminator(tmp_path, gate) as client:
            origin = str(client.base_url).rstrip("/")
            contents = [content("GET", origin + external, holder.token) for external in (path, f"/base{path}")]
            for external, proof in zip((path, f"/base{path}"), holder.key.proofs(contents), strict=True):
                headers = {"Authorization": f"DPoP {holder.token}", "DPoP": proof}
                response = client.get(external, headers=headers)
                if is_trusted:
                    assert response.json() == {"user": better_auth.ada.id}
                    assert outcome(client.get(external, headers=headers)) == (401, "proof_replayed")
                else:
                    assert "`htu`" in cause(response)
                    line = gate.wait_for_log('"reason":"proof_invalid"')
                    assert "`htu`" in line
            # The address of the gate is not that of the client.
            if is_trusted:
                inner = holder.proof(gate.url + path)
                response = client.get(path, headers={"Authorization": f"DPoP {holder.token}", "DPoP": inner})
                assert "`htu`" in cause(response)
    finally:
        gate.stop()


# Two gates with one Redis.

# Both gates are behind one name, so a proof is for both.
HOST = ("Host", "api.example.com")
SHARED_URL = "http://api.example.com/me"


@pytest.fixture
def redis(tmp_path):
    redis = Redis(tmp_path)
    yield redis
    redis.stop()


@pytest.fixture
def two_gates(tmp_path, better_auth, upstream, redis):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    table = f'[redis]\nurl = "redis://127.0.0.1:{redis.port}"\npassword_file = "{password}"\ntimeout = "2m"\n'
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(2):
            gate = Guarded(
                tmp_path / f"gate-{number}", upstream, jwt_issuer(better_auth.server), table, listen="workers = 2")
            stack.callback(gate.stop)
            started.append(gate)
        yield started


def outcomes(holder: Holder, pairs: list[tuple[Guarded, Guarded]]) -> list[tuple]:
    """Outcomes of one proof for each pair of gates."""
    proofs = holder.key.proofs([content("GET", SHARED_URL, holder.token) for _ in pairs])
    return [
        tuple(outcome(send(gate, "/me", holder.token, proof, headers=[HOST])) for gate in pair)
        for pair, proof in zip(pairs, proofs, strict=True)
    ]


ACCEPTED, REPLAYED = (200, None), (401, "proof_replayed")


@pytest.mark.skipif(not SERVER, reason="redis-tools is missing")
def test_a_proof_of_one_gate_is_a_replay_at_the_other(better_auth, two_gates, redis):
    one, other = two_gates
    pairs = [(one, other), (other, one), (one, one)] * 4
    assert outcomes(better_auth.holder, pairs) == [(ACCEPTED, REPLAYED)] * len(pairs)

    redis.stop()
    pairs = [(one, one), (other, other)] * 4
    assert outcomes(better_auth.holder, pairs) == [(ACCEPTED, REPLAYED)] * len(pairs)
    assert outcomes(better_auth.holder, [(one, other)]) == [(ACCEPTED, ACCEPTED)]
    for gate in two_gates:
        assert gate.gate.ready()
        gate.wait_for_log(f"in Redis at 127.0.0.1:{redis.port}")

    redis.start()
    wait_until(lambda: outcomes(better_auth.holder, [(one, other)]) == [(ACCEPTED, REPLAYED)])

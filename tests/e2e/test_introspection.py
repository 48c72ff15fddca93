"""Token introspection (RFC 7662): opaque tokens, and revocation of JWTs. The issuers: Better Auth 1.7, Authlib."""

import pathlib
import re
import sys
import time
from types import SimpleNamespace

import pytest

from better_auth_17 import BetterAuth, body
from programs import Program, http_client, wait_until
from sessions import Guarded, Upstream, outcome, tasks_of

RESOURCE = "https://api.example.com/tasks"
MAX_AGE = 2
INTROSPECT = "POST /api/auth/oauth2/introspect"
INACTIVE = (401, "token_inactive")


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


def introspection(directory: pathlib.Path, url: str, client_id: str, secret: str, more: str = "") -> str:
    """The table, with the secret in a file of the directory."""
    file = directory / f"secret-{len(list(directory.glob('secret-*')))}"
    file.write_text(f"{secret}\n")
    file.chmod(0o600)
    return (
        f'introspection = {{ url = "{url}", client_id = "{client_id}", client_secret_file = "{file}",'
        f' max_age = "{MAX_AGE}s"{more} }}\n'
    )


def better_auth(directory: pathlib.Path, upstream: Upstream, flags: list[str], table: str):
    """Yields a server, a gate with a client there, and a user."""
    server = BetterAuth(directory, "--oauth", "--resource", RESOURCE, "--log", *flags)
    try:
        ada = server.sign_up()
        machine = ada.register(RESOURCE, machine=True)
        endpoint = f"{server.url}/oauth2/introspect"
        table = table.format(server=server)
        introspected = introspection(directory, endpoint, machine.id, machine.secret)
        gate = Guarded(directory / "gate", upstream, table + introspected)
        try:
            yield SimpleNamespace(
                gate=gate, server=server, ada=ada, machine=machine, client=ada.register(RESOURCE), table=table,
                endpoint=endpoint, directory=directory)
        finally:
            gate.stop()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def opaque(tmp_path_factory, upstream):
    """A server with opaque access tokens only."""
    table = f'issuer = "{{server.base}}"\naudience = "{RESOURCE}"\n'
    yield from better_auth(tmp_path_factory.mktemp("opaque"), upstream, ["--opaque"], table)


@pytest.fixture(scope="module")
def signed(tmp_path_factory, upstream):
    """A server with JWTs, each of which the gate checks for a revocation."""
    table = f'keys = {{{{ discovery = "{{server.discovery_url}}" }}}}\naudience = "{RESOURCE}"\ntypes = ["at+jwt"]\n'
    yield from better_auth(tmp_path_factory.mktemp("signed"), upstream, [], table)


def granted(issuer, resource: str | None = RESOURCE, account=None) -> dict:
    return body(issuer.client.authorization_code(account or issuer.ada, resource))


# Opaque tokens of Better Auth.


def test_serves_the_owner_with_an_opaque_token(opaque):
    token = granted(opaque)["access_token"]
    assert "." not in token
    assert opaque.gate.send(tasks_of(opaque.ada), token=token).json() == {"user": opaque.ada.id}
    assert opaque.gate.upstream.last("authorization") == []
    assert opaque.gate.outcome("/api/another/tasks", token=token) == (403, "subject_mismatch")


def test_asks_about_a_token_once_in_the_maximum_age(opaque):
    token = granted(opaque)["access_token"]
    before = opaque.server.requests(INTROSPECT)
    began = time.monotonic()
    for _ in range(20):
        assert opaque.gate.outcome(token=token) == (200, None)
    assert opaque.server.requests(INTROSPECT) - before <= 1 + (time.monotonic() - began) // (MAX_AGE - 1)
    wait_until(lambda: len(opaque.server.received("oauth2/introspect")) > before)
    sent = dict(opaque.server.received("oauth2/introspect")[-1].headers)
    assert sent["content-type"] == "application/x-www-form-urlencoded" and sent["authorization"].startswith("Basic ")
    assert sent["x-forwarded-for"] == "127.0.0.1" and "cookie" not in sent


def test_a_revocation_takes_effect_within_the_maximum_age(opaque):
    # Only the client of a token can revoke it, so the machine gets a token of the user, too.
    token = body(opaque.machine.authorization_code(opaque.ada, RESOURCE))["access_token"]
    assert opaque.gate.outcome(token=token) == (200, None)
    opaque.machine.revoke(token)
    assert wait_until(lambda: opaque.gate.outcome(token=token) != (200, None)) < MAX_AGE + 1
    response = opaque.gate.send(token=token)
    assert outcome(response) == INACTIVE
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_sign_out_ends_the_opaque_token(opaque):
    eve = opaque.server.sign_up("eve@example.com")
    token = granted(opaque, account=eve)["access_token"]
    assert opaque.gate.send(token=token).json() == {"user": eve.id}
    eve.sign_out()
    assert wait_until(lambda: opaque.gate.outcome(token=token) == INACTIVE) < MAX_AGE + 1


def test_rejects_refresh_tokens_and_unknown_tokens(opaque):
    # Better Auth reports the refresh tokens of the asking client itself as active, unless the hint says access token.
    tokens = body(opaque.machine.authorization_code(opaque.ada, RESOURCE))
    form = {"token": tokens["refresh_token"]}
    asked = opaque.server.post("oauth2/introspect", data=form, auth=(opaque.machine.id, opaque.machine.secret))
    assert asked.json()["active"] is True
    for token in (tokens["refresh_token"], granted(opaque)["refresh_token"], "a" * 32):
        assert opaque.gate.outcome(token=token) == INACTIVE, token


def test_rejects_an_opaque_token_for_another_audience(opaque):
    # Without a resource the token has no audience, and only its own client learns about it.
    token = body(opaque.machine.authorization_code(opaque.ada))["access_token"]
    assert opaque.machine.introspect(token)["active"] is True
    assert opaque.gate.outcome(token=token) == (401, "token_audience")
    assert opaque.gate.outcome(token=granted(opaque, None)["access_token"]) == INACTIVE


def test_an_opaque_token_counts_in_authorization_only(opaque):
    token = granted(opaque)["access_token"]
    before = opaque.server.requests(INTROSPECT)
    for cookie in (f"better-auth.session_token={token}", f"access_token={token}"):
        assert opaque.gate.outcome(cookie=cookie) == (401, "token_missing")
    assert opaque.gate.outcome(f"/me?access_token={token}") == (401, "token_missing")
    for other in (token[:15], f"{token} ", "x" * 513, "a,b" * 8):
        assert opaque.gate.send(headers=[("Authorization", f"Bearer {other}x")]).status_code in (400, 401)
    assert opaque.server.requests(INTROSPECT) - before <= 1


def test_a_wrong_client_secret_is_no_fault_of_the_client(opaque):
    wrong = introspection(opaque.directory, opaque.endpoint, opaque.machine.id, "wrong")
    gate = Guarded(opaque.directory / "wrong", opaque.gate.upstream, opaque.table + wrong)
    try:
        response = gate.send(token=granted(opaque)["access_token"])
        assert outcome(response) == (503, "exchange_unavailable")
        assert int(response.headers["retry-after"]) >= 1 and "www-authenticate" not in response.headers
        line = gate.wait_for_log("the issuer rejects `client_id` or the client secret")
        assert opaque.endpoint in line and "wrong" not in line
    finally:
        gate.stop()


def test_an_introspecting_issuer_needs_an_audience(tmp_path, upstream):
    table = 'issuer = "https://app.example"\n' + introspection(tmp_path, "http://127.0.0.1:9/introspect", "gate", "s")
    with pytest.raises(AssertionError, match="is required with `introspection`"):
        Guarded(tmp_path / "gate", upstream, table)


# JWTs of Better Auth.


def test_checks_that_the_session_of_a_jwt_still_exists(signed):
    eve = signed.server.sign_up("eve@example.com")
    token = granted(signed, account=eve)["access_token"]
    assert token.count(".") == 2
    assert signed.gate.send(tasks_of(eve), token=token).json() == {"user": eve.id}
    assert signed.gate.exchanges("valid", "introspection") > 0
    eve.sign_out()
    assert wait_until(lambda: signed.gate.outcome(token=token) == INACTIVE) < MAX_AGE + 1


def test_never_asks_about_a_jwt_that_is_not_valid_here(signed):
    tokens = granted(signed)
    head, claims, signature = tokens["access_token"].split(".")
    forged = f"{head}.{claims}.{signature[:-4]}AAAA"
    # Better Auth fails on these.
    form = {"token": forged, "token_type_hint": "access_token"}
    asked = signed.server.post("oauth2/introspect", data=form, auth=(signed.machine.id, signed.machine.secret))
    assert asked.status_code == 500
    before = signed.server.requests(INTROSPECT)
    for token, reason in [
        (forged, "token_signature"), (f"{head}.{claims}.", "token_signature"),
        (signed.ada.jwt(), "token_issuer"), (tokens["id_token"], "token_type"),
        (f"{head}.{claims}", "token_malformed"),
    ]:
        assert signed.gate.outcome(token=token) == (401, reason)
    assert signed.server.requests(INTROSPECT) == before
    assert signed.gate.outcome(token=tokens["access_token"]) == (200, None)
    assert signed.server.requests(INTROSPECT) == before + 1


def test_a_jwt_is_not_served_while_its_issuer_is_away(signed):
    token = granted(signed)["access_token"]
    assert signed.gate.outcome(token=token) == (200, None)
    signed.server.kill()
    try:
        waited = wait_until(lambda: signed.gate.outcome(token=token) != (200, None))
        assert waited < MAX_AGE + 1
        response = signed.gate.send(token=token)
        assert outcome(response) == (503, "exchange_unavailable") and int(response.headers["retry-after"]) >= 1
    finally:
        signed.server.start()
    assert wait_until(lambda: signed.gate.outcome(token=token) == (200, None)) < 2


# Authlib.

CLIENT_ID, CLIENT_SECRET = "the gate", "s:%+&=é ž/1"


@pytest.fixture(scope="module")
def authlib(tmp_path_factory, upstream):
    directory = tmp_path_factory.mktemp("authlib")
    script = pathlib.Path(__file__).with_name("introspection_server.py")
    program = Program(directory, [sys.executable, script, CLIENT_ID, CLIENT_SECRET], {})
    try:
        url = program.wait_for(r"listening on (http://\S+)")[1]
        table = 'issuer = "https://login.example"\naudience = "tasks"\n'
        table += introspection(directory, f"{url}/introspect", CLIENT_ID, CLIENT_SECRET)
        routes = '[[routes]]\npath = "/write"\naccess = "authenticated"\n' \
            'require = [{ claim = "scope", has = "tasks:write" }]\n'
        gate = Guarded(directory / "gate", upstream, table, routes)
        try:
            with http_client(url) as client:
                yield SimpleNamespace(gate=gate, client=client)
        finally:
            gate.stop()
    finally:
        program.stop()


def add(authlib, token: str, hint: str = "access_token", **claims) -> str:
    claims = {
        "iss": "https://login.example", "sub": "ada", "aud": "tasks", "exp": int(time.time()) + 600,
        "scope": "tasks:read", "client_id": "app", "token_type": "Bearer",
    } | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    token = f"{token}-{'0' * 20}"
    body(authlib.client.post("/tokens", json={"token": token, "hint": hint, "claims": claims}))
    return token


def test_asks_authlib_about_a_token(authlib):
    token = add(authlib, "ada", aud=["other", "tasks"])
    assert authlib.gate.send("/api/ada/tasks", token=token).json() == {"user": "ada"}
    assert authlib.gate.outcome("/api/eve/tasks", token=token) == (403, "subject_mismatch")
    assert authlib.gate.outcome("/write", token=token) == (403, "claim_denied")
    writer = add(authlib, "writer", scope="tasks:read tasks:write")
    assert authlib.gate.outcome("/write", token=writer) == (200, None)
    forms = body(authlib.client.get("/forms"))
    assert {"token": [token], "token_type_hint": ["access_token"]} in forms


@pytest.mark.parametrize("token", ["plus+slash/0123456789", "tilde~0123456789", "equals012345678=="])
def test_sends_every_character_of_a_token(authlib, token):
    claims = {"iss": "https://login.example", "sub": "ada", "aud": "tasks", "exp": int(time.time()) + 600}
    body(authlib.client.post("/tokens", json={"token": token, "hint": "access_token", "claims": claims}))
    assert authlib.gate.send(token=token).json() == {"user": "ada"}


def test_follows_a_revocation_at_authlib(authlib):
    token = add(authlib, "revoked")
    assert authlib.gate.outcome(token=token) == (200, None)
    add(authlib, "revoked", active=False)
    assert wait_until(lambda: authlib.gate.outcome(token=token) == INACTIVE) < MAX_AGE + 1
    # A rejection is not used for long, either.
    add(authlib, "revoked")
    wait_until(lambda: authlib.gate.outcome(token=token) == (200, None), 10)


@pytest.mark.parametrize(("claims", "reason"), [
    ({"aud": "another"}, "token_audience"),
    ({"aud": None}, "token_audience"),
    ({"iss": "https://elsewhere.example"}, "token_issuer"),
    ({"exp": 1}, "token_expired"),
    ({"nbf": 4_000_000_000, "exp": 4_000_000_100}, "token_not_yet_valid"),
    ({"cnf": {"x5t#S256": "A" * 43}}, None),
    ({"sub": None, "client_id": None}, None),
    ({"sub": "a/../b\n"}, None),
])
def test_checks_the_claims_of_the_response(authlib, claims, reason):
    name = "-".join(f"{name}-{value}" for name, value in claims.items())
    token = add(authlib, re.sub("[^a-z0-9]+", "-", name.lower())[:40], **claims)
    status, found = authlib.gate.outcome(token=token)
    assert status == 401, found
    assert reason in (None, found)


def test_rejects_a_refresh_token_and_an_unknown_one_of_authlib(authlib):
    assert authlib.gate.outcome(token=add(authlib, "refresh", hint="refresh_token")) == INACTIVE
    assert authlib.gate.outcome(token="unknown-0123456789") == INACTIVE

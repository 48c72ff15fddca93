"""The Better Auth 1.7 server of the tests: the behavior that the gate relies on."""

import jwt
import pytest

from better_auth_17 import BetterAuth, ProofKey, body

RESOURCE = "https://api.example.com/tasks"
EXCHANGE = {"disableRefresh": "true", "disableCookieCache": "true"}


@pytest.fixture(scope="module")
def better_auth(tmp_path_factory):
    server = BetterAuth(tmp_path_factory.mktemp("better-auth"), "--oauth", "--resource", RESOURCE)
    yield server
    server.stop()


def claims(token: str) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def exchange(server: BetterAuth, **headers: str):
    return server.client.get("/api/auth/token", params=EXCHANGE, headers=headers)


def test_exchanges_a_session_until_the_sign_out(better_auth):
    account = better_auth.sign_up("exchange@example.com")
    for headers in ({"Cookie": account.session_cookie}, {"Authorization": f"Bearer {account.session_token}"}):
        response = exchange(better_auth, **headers)
        assert claims(body(response)["token"])["sub"] == account.id
        assert "set-cookie" not in response.headers
    account.sign_out()
    assert exchange(better_auth, Cookie=account.session_cookie).status_code == 401


def test_expires_a_session(better_auth):
    account = better_auth.sign_up("expired@example.com")
    better_auth.expire(account.session_token)
    assert exchange(better_auth, Cookie=account.session_cookie).status_code == 401
    assert account.get_session().json() is None


def test_keeps_sessions_and_keys_when_it_is_killed(tmp_path):
    server = BetterAuth(tmp_path)
    try:
        account = server.sign_up()
        before = jwt.get_unverified_header(account.jwt())
        assert server.requests("GET /api/auth/token") == 1
        server.kill()
        server.start()
        assert server.requests("GET /api/auth/token") == 0
        assert jwt.get_unverified_header(account.jwt()) == before
        assert server.sign_in(rememberMe=False).session_token != account.session_token
    finally:
        server.stop()


def test_issues_jwts_for_a_resource_and_opaque_tokens_without(better_auth):
    account = better_auth.sign_up("oauth@example.com")
    client = account.register(RESOURCE)
    tokens = body(client.authorization_code(account, RESOURCE))
    access = claims(tokens["access_token"])
    assert (access["iss"], access["sub"], access["client_id"]) == (better_auth.base, account.id, client.id)
    assert RESOURCE in access["aud"]
    assert jwt.get_unverified_header(tokens["access_token"])["typ"] == "at+jwt"
    refreshed = body(client.refresh(tokens["refresh_token"], RESOURCE))
    assert claims(refreshed["access_token"])["sub"] == account.id
    assert "." not in body(client.authorization_code(account))["access_token"]


def test_machine_tokens_have_the_client_as_subject(better_auth):
    client = better_auth.sign_up("machine@example.com").register(RESOURCE, machine=True)
    token = body(client.client_credentials(RESOURCE))["access_token"]
    access = claims(token)
    assert access["sub"] == access["client_id"] == client.id
    assert client.introspect(token)["active"] is True


def test_binds_tokens_to_the_key_of_a_proof(better_auth):
    account = better_auth.sign_up("dpop@example.com")
    key = ProofKey()
    tokens = body(account.register(RESOURCE).authorization_code(account, RESOURCE, key=key))
    assert tokens["token_type"] == "DPoP"
    assert claims(tokens["access_token"])["cnf"] == {"jkt": key.thumbprint}
    proof = key.proof("GET", RESOURCE, tokens["access_token"], claims={"jti": "once"}, header={"typ": None})
    assert claims(proof)["jti"] == "once"
    assert "typ" not in jwt.get_unverified_header(proof)

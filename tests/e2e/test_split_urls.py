"""Servers under another name than the public one: `url`, `public` and `host` of an issuer, for keys, discovery and
introspection. Those of sessions are in test_sessions.py."""

import contextlib

import pytest

from better_auth_17 import BetterAuth, body
from sessions import Guarded, Upstream

RESOURCE = "https://api.example.com/tasks"


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


@contextlib.contextmanager
def guarded(directory, upstream, table: str):
    gate = Guarded(directory / "gate", upstream, table)
    try:
        yield gate
    finally:
        gate.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = BetterAuth(tmp_path_factory.mktemp("server"), "--oauth", "--resource", RESOURCE)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def granted(server):
    """A user, and the access token of a client."""
    ada = server.sign_up()
    return ada, body(ada.register(RESOURCE).authorization_code(ada, RESOURCE))["access_token"]


@pytest.mark.parametrize("metadata", [
    "/api/auth/.well-known/openid-configuration",
    "/api/auth/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/api/auth",
])
def test_discovers_the_keys_at_each_well_known_url(tmp_path, upstream, server, granted, metadata):
    ada, token = granted
    table = f'keys = {{ discovery = "{server.origin}{metadata}" }}\naudience = "{RESOURCE}"\ntypes = ["at+jwt"]\n'
    with guarded(tmp_path, upstream, table) as gate:
        assert gate.send(token=token).json() == {"user": ada.id}
        assert gate.outcome(token=ada.jwt()) == (401, "token_issuer")


def test_discovers_the_keys_of_an_issuer_with_another_name(tmp_path, upstream):
    issuer = "https://login.example/tenant"
    server = BetterAuth(tmp_path, "--oauth", "--resource", RESOURCE, "--issuer", issuer)
    try:
        ada = server.sign_up()
        token = body(ada.register(RESOURCE).authorization_code(ada, RESOURCE))["access_token"]
        for path in ("/tenant/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenant"):
            keys = f'keys = {{ discovery = "{server.origin}{path}", discovery_issuer = "{issuer}" }}\n'
            directory = tmp_path / path.replace("/", "")
            directory.mkdir()
            with guarded(directory, upstream, f'{keys}audience = "{RESOURCE}"\ntypes = ["at+jwt"]\n') as gate:
                assert gate.send(token=token).json() == {"user": ada.id}
    finally:
        server.stop()


def test_sends_the_configured_host_for_keys_discovery_and_introspection(tmp_path, upstream):
    server = BetterAuth(tmp_path, "--oauth", "--resource", RESOURCE, "--allowed-hosts", "localhost:*", "--log")
    try:
        host = f"localhost:{server.port}"
        server.client.headers["Host"] = host
        server.base = f"http://{host}/api/auth"
        ada = server.sign_up()
        machine = ada.register(RESOURCE, machine=True)
        token = body(machine.authorization_code(ada, RESOURCE))["access_token"]
        (tmp_path / "client-secret").write_text(machine.secret)
        introspection = (
            f'introspection = {{ url = "{server.url}/oauth2/introspect", client_id = "{machine.id}",'
            f' client_secret_file = "{tmp_path}/client-secret", host = "{host}" }}\n'
        )
        common = f'issuer = "{server.base}"\naudience = "{RESOURCE}"\ntypes = ["at+jwt"]\n{introspection}'
        discovery = f'discovery = "{server.url}/.well-known/openid-configuration", discovery_issuer = "{server.base}"'
        for name, keys in [("jwks", f'jwks_url = "{server.jwks_url}"'), ("discovery", discovery)]:
            (tmp_path / name).mkdir()
            with guarded(tmp_path / name, upstream, f'keys = {{ {keys}, host = "{host}" }}\n{common}') as gate:
                assert gate.send(token=token).json() == {"user": ada.id}
                assert gate.exchanges("valid", "introspection") == 1
                assert gate.outcome(token=token[:-4] + "AAAA") == (401, "token_signature")
    finally:
        server.stop()

"""An MCP server behind the gate: clients of the TypeScript and Python SDKs find the authorization server, register, get
a token of Better Auth and call a tool (RFC 9728)."""

import asyncio
import json
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest

import mcp_client
from better_auth_17 import BetterAuth, body, program
from programs import NODE, Gate, Program, free_port, wait_until

SERVER = pathlib.Path(__file__).with_name("mcp_server.py")
# A page that is not of the gate, such as the MCP Inspector.
ORIGIN = {"Origin": "https://inspector.example"}

CONFIGURATION = """
[listen]
address = "127.0.0.1:{port}"

[admin]
address = "127.0.0.1:0"

[upstreams.mcp]
url = "{upstream}"
connect_timeout = "20s"

[resource]
url = "http://127.0.0.1:{port}/mcp"
authorization_servers = ["{better_auth.base}"]
scopes = {scopes}

[issuers.oauth]
keys = {{ discovery = "{better_auth.discovery_url}" }}

[[routes]]
path = "/mcp"
access = "authenticated"
{requirement}

[[routes]]
path = "/mcp/{{*rest}}"
access = "authenticated"
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    server = Program(tmp_path_factory.mktemp("mcp"), [sys.executable, SERVER, "0"], {})
    try:
        yield server.wait_for(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")[1]
    finally:
        server.stop()


def guarded(directory: pathlib.Path, upstream: str, scopes: list[str], requirement: str = ""):
    """Yields a gate in front of the MCP server, its Better Auth and a user."""
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    (directory / "gate").mkdir()
    better_auth = BetterAuth(directory, "--mcp", resource)
    try:
        gate = Gate(directory / "gate", CONFIGURATION.format(
            port=port, upstream=upstream, better_auth=better_auth, scopes=json.dumps(scopes),
            requirement=requirement))
        try:
            wait_until(gate.ready)
            yield SimpleNamespace(
                gate=gate, better_auth=better_auth, resource=resource, account=better_auth.sign_up(),
                metadata_url=f"{gate.url}/.well-known/oauth-protected-resource/mcp")
        finally:
            gate.stop()
    finally:
        better_auth.stop()


@pytest.fixture(scope="module")
def mcp(tmp_path_factory, upstream):
    yield from guarded(tmp_path_factory.mktemp("guarded"), upstream, ["tasks:read", "tasks:write"])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory, upstream):
    """A resource that advertises fewer scopes than its route requires."""
    requirement = 'require = [{ claim = "scope", has = "tasks:write" }]'
    yield from guarded(tmp_path_factory.mktemp("narrow"), upstream, ["tasks:read"], requirement)


def typescript_sdk(url: str, cookie: str) -> dict:
    command = [NODE, program("mcp_client.mjs"), url, cookie]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def python_sdk(url: str, cookie: str) -> dict:
    return asyncio.run(mcp_client.call_whoami(url, cookie))


def call(mcp, token: str) -> httpx.Response:
    """Calls the tool without an SDK."""
    headers = {
        "Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}", "X-User-Id": "mallory",
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    return mcp.gate.client.post("/mcp", headers=headers, json=message)


@pytest.mark.parametrize("call_whoami", [typescript_sdk, python_sdk])
def test_an_unchanged_client_reaches_the_guarded_server(mcp, call_whoami):
    called = call_whoami(mcp.resource, mcp.account.cookie)
    assert called["user"] == mcp.account.id
    [scopes] = called["scopes"]
    # The Python SDK adds `offline_access`.
    assert set(scopes.split()) - {"offline_access"} == {"tasks:read", "tasks:write"}


@pytest.mark.parametrize("call_whoami", [typescript_sdk, python_sdk])
def test_a_client_asks_once_for_the_scope_that_the_challenge_names(narrow, call_whoami):
    called = call_whoami(narrow.resource, narrow.account.cookie)
    assert called["user"] == narrow.account.id
    [scopes] = called["scopes"]
    assert "tasks:write" in scopes.split()


def test_a_request_without_a_token_gets_the_metadata_url(mcp):
    response = mcp.gate.request("POST", "/mcp", json={})
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer ")
    assert f'resource_metadata="{mcp.metadata_url}"' in challenge
    assert "error=" not in challenge


@pytest.mark.parametrize("suffix", ["", "/mcp"])
def test_serves_the_metadata_to_pages_of_any_origin(mcp, suffix):
    path = f"/.well-known/oauth-protected-resource{suffix}"
    # The TypeScript SDK sends the header `MCP-Protocol-Version`, so browsers ask first.
    preflight = mcp.gate.client.options(path, headers=ORIGIN | {
        "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "mcp-protocol-version",
    })
    assert preflight.is_success, preflight.text
    allowed = preflight.headers["access-control-allow-headers"]
    assert allowed == "*" or "mcp-protocol-version" in allowed.lower()
    response = mcp.gate.client.get(path, headers=ORIGIN)
    metadata = body(response)
    assert metadata["resource"] == mcp.resource
    assert metadata["authorization_servers"] == [mcp.better_auth.base]
    assert metadata["scopes_supported"] == ["tasks:read", "tasks:write"]
    assert "header" in metadata["bearer_methods_supported"]
    for sent in (preflight, response):
        assert sent.headers["access-control-allow-origin"] in ("*", ORIGIN["Origin"])


def test_rejects_tokens_that_are_not_for_the_resource(mcp):
    client = mcp.account.register(mcp.resource)
    tokens = body(client.authorization_code(mcp.account, mcp.resource))
    response = call(mcp, tokens["access_token"])
    assert response.status_code == 200 and mcp.account.id in response.text and "mallory" not in response.text
    opaque = body(client.authorization_code(mcp.account))["access_token"]
    for token in (tokens["id_token"], mcp.account.jwt(), opaque):
        response = call(mcp, token)
        assert response.status_code == 401
        challenge = response.headers["www-authenticate"]
        assert 'error="invalid_token"' in challenge and f'resource_metadata="{mcp.metadata_url}"' in challenge

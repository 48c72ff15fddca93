"""WebSockets between Node programs: `ws` as server, and as clients `ws` over HTTP/1.1 and HTTP/2, and the browser API of
Node."""

import json
import os
import pathlib
import subprocess

import pytest

from authority import Authority
from gate import SHORT_LIFETIME, running_gate, sign_token
from programs import NODE, Program

ROUTES = """
[[routes]]
path = "/live/{user_id}"
access = { owner = "user_id" }
tokens = [{ header = "Authorization" }, { websocket = "bearer" }]

[[routes]]
path = "/kept/{user_id}"
access = { owner = "user_id" }
at_expiry = "keep"
tokens = [{ header = "Authorization" }, { websocket = "bearer" }]
"""
KINDS = ["ws", "http2", "native"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("server"), [NODE, script("server.mjs")], {})
    try:
        program.port = program.wait_for(r"listening on port (\d+)")[1]
        yield program
    finally:
        program.stop()


@pytest.fixture(scope="module")
def gate(tmp_path_factory, server):
    with running_gate(tmp_path_factory.mktemp("gate"), f"http://127.0.0.1:{server.port}", ROUTES) as running:
        yield running


def script(name: str) -> pathlib.Path:
    return pathlib.Path(os.environ["WEBSOCKET"]) / name


def run_client(gate, kind: str, path: str, token: str, *steps: str, authority: Authority | None = None) -> list[dict]:
    """Runs the client with these steps, and returns its output lines."""
    url, environment = gate.url.replace("http:", "ws:") + path, dict(os.environ)
    if authority is not None:
        url = url.replace("ws://127.0.0.1:", "wss://localhost:")
        environment["NODE_EXTRA_CA_CERTS"] = str(authority.directory / "ca.crt")
    command = [NODE, script("client.mjs"), kind, url, token, *steps]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_forwards_messages_and_the_user_id(gate, kind):
    opened, identity, echoed, closed = run_client(
        gate, kind, "/live/alice", sign_token(), "headers", "echo", "close")
    assert opened == {"open": True, "protocol": "bearer" if kind == "native" else ""}
    headers = identity["headers"]
    assert headers["x-user-id"] == "alice"
    assert not {"authorization", "x_user_id", "sec-websocket-protocol"} & headers.keys()
    assert echoed == {"echoed": True}
    assert closed == {"closed": 4002, "reason": "bye"}


@pytest.mark.parametrize("kind", ["ws", "http2"])
def test_forwards_ping_and_pong(gate, kind):
    _, pong = run_client(gate, kind, "/live/alice", sign_token(), "ping")
    assert pong == {"pong": "are you there"}


@pytest.mark.parametrize("kind", KINDS)
def test_forwards_the_close_code_in_both_directions(gate, server, kind):
    _, closed = run_client(gate, kind, f"/live/erin-{kind}", sign_token(f"erin-{kind}"), "request close")
    assert closed == {"closed": 4001, "reason": "enough"}
    # Like browsers, the native client of Node echoes the close code but not the reason.
    server.wait_for(f"erin-{kind} closed 4001 $" if kind == "native" else f"erin-{kind} closed 4001 enough$")
    run_client(gate, kind, f"/live/frank-{kind}", sign_token(f"frank-{kind}"), "close")
    server.wait_for(f"frank-{kind} closed 4002 bye")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("user, seconds, status", [("bob", 60, 403), ("alice", -60, 401)])
def test_rejects_the_handshake_without_a_valid_token_of_the_owner(gate, kind, user, seconds, status):
    lines = run_client(gate, kind, "/live/alice", sign_token(user, seconds), "headers")
    assert len(lines) == 1 and lines[0]["open"] is not True
    if kind != "native":
        assert lines[0]["open"] == f"Unexpected server response: {status}"


@pytest.mark.parametrize("kind", KINDS)
def test_closes_the_websocket_when_the_token_expires(gate, server, kind):
    user = f"judy-{kind}"
    _, identity, closed = run_client(
        gate, kind, f"/live/{user}", sign_token(user, SHORT_LIFETIME), "headers", "wait")
    assert identity["headers"]["x-user-id"] == user
    assert closed["closed"] == 1008 and "expired" in closed["reason"]
    server.wait_for(f"{user} closed 1008 .*expired")


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_websocket_after_token_expiry_with_at_expiry_keep(gate, kind):
    token = sign_token(seconds=SHORT_LIFETIME)
    _, first, second, closed = run_client(
        gate, kind, "/kept/alice", token, "headers", "pause", "headers", "close")
    assert first["headers"]["x-user-id"] == second["headers"]["x-user-id"] == "alice"
    assert closed == {"closed": 4002, "reason": "bye"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def gate_with_tls(tmp_path_factory, server, authority):
    authority.issue("gate", "localhost")
    files = authority.directory
    tls = f"""
[listen.tls]
certificate = "{files / 'gate.crt'}"
key = "{files / 'gate.key'}"
"""
    with running_gate(tmp_path_factory.mktemp("gate"), f"http://127.0.0.1:{server.port}", ROUTES + tls) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_forwards_messages_over_tls(gate_with_tls, authority, kind):
    opened, _, echoed, closed = run_client(
        gate_with_tls, kind, "/live/alice", sign_token(), "headers", "echo", "close", authority=authority)
    assert opened["open"] is True and echoed == {"echoed": True}
    assert closed == {"closed": 4002, "reason": "bye"}

"""WebSockets between Node programs: the library `ws` on both sides, over HTTP/1.1 and over HTTP/2, and the client that
Node shares with browsers."""

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


def connected(gate, kind: str, path: str, token: str, *steps: str, authority: Authority | None = None) -> list[dict]:
    """What a client tells of its steps."""
    url, environment = gate.url.replace("http:", "ws:") + path, dict(os.environ)
    if authority is not None:
        url = url.replace("ws://127.0.0.1:", "wss://localhost:")
        environment["NODE_EXTRA_CA_CERTS"] = str(authority.directory / "ca.crt")
    command = [NODE, script("client.mjs"), kind, url, token, *steps]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_pass_and_the_server_knows_the_user(gate, kind):
    opened, who, talked, closed = connected(gate, kind, "/live/alice", sign_token(), "who", "talk", "close")
    assert opened == {"open": True, "protocol": "bearer" if kind == "native" else ""}
    headers = who["headers"]
    assert headers["x-user-id"] == "alice"
    assert not {"authorization", "x_user_id", "sec-websocket-protocol"} & headers.keys()
    assert talked == {"talked": True}
    assert closed == {"closed": 4002, "reason": "bye"}


@pytest.mark.parametrize("kind", ["ws", "http2"])
def test_a_ping_is_answered_by_the_other_side(gate, kind):
    _, pong = connected(gate, kind, "/live/alice", sign_token(), "ping")
    assert pong == {"pong": "are you there"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_learns_how_the_other_closes(gate, server, kind):
    _, closed = connected(gate, kind, f"/live/erin-{kind}", sign_token(f"erin-{kind}"), "ask to close")
    assert closed == {"closed": 4001, "reason": "enough"}
    # As browsers do, the client of Node gives the code back, and the reason not.
    server.wait_for(f"erin-{kind} closed 4001 $" if kind == "native" else f"erin-{kind} closed 4001 enough$")
    connected(gate, kind, f"/live/frank-{kind}", sign_token(f"frank-{kind}"), "close")
    server.wait_for(f"frank-{kind} closed 4002 bye")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("user, seconds, status", [("bob", 60, 403), ("alice", -60, 401)])
def test_a_refused_socket_does_not_open(gate, kind, user, seconds, status):
    told = connected(gate, kind, "/live/alice", sign_token(user, seconds), "who")
    assert len(told) == 1 and told[0]["open"] is not True
    if kind != "native":
        assert told[0]["open"] == f"Unexpected server response: {status}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_is_closed_with_its_token(gate, server, kind):
    user = f"judy-{kind}"
    _, who, closed = connected(gate, kind, f"/live/{user}", sign_token(user, SHORT_LIFETIME), "who", "wait")
    assert who["headers"]["x-user-id"] == user
    assert closed["closed"] == 1008 and "expired" in closed["reason"]
    server.wait_for(f"{user} closed 1008 .*expired")


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_outlives_its_token_where_the_route_says_so(gate, kind):
    token = sign_token(seconds=SHORT_LIFETIME)
    _, first, second, closed = connected(gate, kind, "/kept/alice", token, "who", "pause", "who", "close")
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
def test_messages_pass_over_tls(gate_with_tls, authority, kind):
    opened, _, talked, closed = connected(
        gate_with_tls, kind, "/live/alice", sign_token(), "who", "talk", "close", authority=authority)
    assert opened["open"] is True and talked == {"talked": True}
    assert closed == {"closed": 4002, "reason": "bye"}

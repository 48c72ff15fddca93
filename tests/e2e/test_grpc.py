"""gRPC with grpcio on both sides of the gate, over TCP, a Unix socket and TLS."""

import pathlib
import queue
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from authority import Authority
from gate import SHORT_LIFETIME, running_gate, sign_token
from grpc_notes import SERVICE
from programs import Program, free_port

SERVER = pathlib.Path(__file__).with_name("grpc_notes.py")
TIMEOUT = 60
ROUTES = f"""
[[routes]]
path = "/{SERVICE}/{{method}}"
access = "authenticated"
grpc = true

[[routes]]
path = "/users/{{user_id}}/{{method}}"
access = {{ owner = "user_id" }}
"""


@pytest.fixture(scope="module", params=["port", "socket"])
def gate(request, tmp_path_factory):
    if request.param == "port":
        port = free_port()
        address, url = f"127.0.0.1:{port}", f"h2c://127.0.0.1:{port}"
    else:
        address = f"unix:{tmp_path_factory.mktemp('socket') / 'notes.sock'}"
        url = address.replace("unix:", "unix+h2c:")
    server = Program(tmp_path_factory.mktemp("server"), [sys.executable, SERVER, address], {})
    try:
        server.wait_for("listening on port")
        with running_gate(tmp_path_factory.mktemp("gate"), url, ROUTES) as running:
            yield running
    finally:
        server.stop()


class Caller:
    """A client with a token, which also sends forged identity headers."""

    def __init__(self, gate, token: str | None, authority: bytes | None = None):
        # Ignores proxy variables.
        target, options = gate.url.removeprefix("http://"), [("grpc.enable_http_proxy", 0)]
        if authority is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            credentials = grpc.ssl_channel_credentials(authority)
            options.append(("grpc.ssl_target_name_override", "gate.test"))
            self.channel = grpc.secure_channel(target, credentials, options)
        self.options = {"timeout": TIMEOUT, "metadata": [("x-user-id", "mallory"), ("x_user_id", "mallory")]}
        if token is not None:
            self.options["metadata"].append(("authorization", f"Bearer {token}"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def _method(self, kind: str, path: str):
        make = getattr(self.channel, kind)
        return make(path, request_serializer=str.encode, response_deserializer=bytes.decode)

    def write(self, text: str, service: str = SERVICE) -> str:
        return self._method("unary_unary", f"/{service}/Write")(text, **self.options)

    def write_with_call(self, text: str):
        return self._method("unary_unary", f"/{SERVICE}/Write").with_call(text, **self.options)

    def read(self, text: str):
        return self._method("unary_stream", f"/{SERVICE}/Read")(text, **self.options)

    def collect(self, texts) -> str:
        return self._method("stream_unary", f"/{SERVICE}/Collect")(iter(texts), **self.options)

    def talk(self, texts):
        return self._method("stream_stream", f"/{SERVICE}/Talk")(texts, **self.options)


@pytest.fixture
def alice(gate):
    with Caller(gate, sign_token()) as caller:
        yield caller


def test_forwards_all_four_call_types_with_the_user_id(alice):
    response, call = alice.write_with_call("hello")
    assert response == "x-user-id=alice: 5 hello"
    assert ("x-written", "in the end") in [(name, value) for name, value in call.trailing_metadata()]
    assert list(alice.read("3")) == ["x-user-id=alice", "0", "1", "2"]
    assert alice.collect(["a", "bc", ""]) == "x-user-id=alice: 3"

    messages: queue.SimpleQueue = queue.SimpleQueue()
    responses = alice.talk(iter(messages.get, None))
    for text in ["one", "two"]:
        # Sent only after the response to the previous message.
        messages.put(text)
        assert next(responses) == f"x-user-id=alice: {text}"
    messages.put(None)
    assert list(responses) == []


def test_forwards_the_status_of_the_service_unchanged(alice):
    with pytest.raises(grpc.RpcError) as raised:
        alice.write("fail")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "žádná poznámka"
    assert ("x-written", "in the end") in [(name, value) for name, value in raised.value.trailing_metadata()]


# Functions, so that each token is signed at its test and not at collection, when it would expire.
@pytest.mark.parametrize("token, service, code", [
    (lambda: None, SERVICE, grpc.StatusCode.UNAUTHENTICATED),
    (lambda: sign_token(seconds=-60), SERVICE, grpc.StatusCode.UNAUTHENTICATED),
    (lambda: sign_token(secret="another secret, and long enough as well"), SERVICE, grpc.StatusCode.UNAUTHENTICATED),
    (lambda: sign_token("bob"), "users/alice", grpc.StatusCode.PERMISSION_DENIED),
    (lambda: sign_token(), "other.Service", grpc.StatusCode.UNIMPLEMENTED),
], ids=["no token", "expired", "forged", "another user", "no route"])
def test_rejects_with_a_grpc_status(gate, token, service, code):
    with Caller(gate, token()) as caller, pytest.raises(grpc.RpcError) as raised:
        caller.write("hello", service)
    assert raised.value.code() == code
    # Without `grpc-status`, the client derives a status from the HTTP status, and mentions HTTP in its details.
    assert raised.value.details() and "http" not in raised.value.details().lower()


def test_forwards_large_messages(alice):
    assert len(alice.write("large")) == 1024 * 1024
    assert alice.write("y" * 1024 * 1024).startswith("x-user-id=alice: 1048576 ")
    assert alice.collect("z" * 100_000 for _ in range(40)) == "x-user-id=alice: 4000000"


def test_ends_a_stream_when_the_token_expires(gate):
    with Caller(gate, sign_token(seconds=SHORT_LIFETIME)) as caller:
        responses = caller.read("0")
        assert next(responses) == "x-user-id=alice"
        with pytest.raises(grpc.RpcError) as raised:
            next(responses)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert "expired" in raised.value.details()


def test_keeps_the_user_ids_of_concurrent_calls_apart(gate):
    users = [f"user-{number}" for number in range(4)]
    callers = {user: Caller(gate, sign_token(user)) for user in users}

    def call(number: int):
        user = users[number % len(users)]
        assert callers[user].write(str(number)) == f"x-user-id={user}: {len(str(number))} {number}"

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(call, range(400)))) == 400
    for caller in callers.values():
        caller.channel.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def gate_with_tls(tmp_path_factory, authority):
    """TLS on both sides, with HTTP/2 negotiated by ALPN."""
    authority.issue("gate", "gate.test")
    authority.issue("notes", "notes.test")
    files = authority.directory
    port = free_port()
    command = [sys.executable, SERVER, f"127.0.0.1:{port}", files / "notes.key", files / "notes.crt"]
    server = Program(tmp_path_factory.mktemp("server"), command, {})
    tls = f"""
[listen.tls]
certificate = "{files / 'gate.crt'}"
key = "{files / 'gate.key'}"

[upstreams.api.tls]
ca_file = "{files / 'ca.crt'}"
server_name = "notes.test"
"""
    try:
        server.wait_for("listening on port")
        with running_gate(tmp_path_factory.mktemp("gate"), f"https://127.0.0.1:{port}", ROUTES + tls) as running:
            yield running
    finally:
        server.stop()


def test_forwards_calls_with_tls_on_both_sides(gate_with_tls, authority):
    trusted = (authority.directory / "ca.crt").read_bytes()
    with Caller(gate_with_tls, sign_token(), trusted) as alice:
        assert alice.write("hello") == "x-user-id=alice: 5 hello"
        assert list(alice.read("2")) == ["x-user-id=alice", "0", "1"]
        assert alice.collect("z" * 100_000 for _ in range(40)) == "x-user-id=alice: 4000000"
        assert list(alice.talk(iter(["one", "two"]))) == ["x-user-id=alice: one", "x-user-id=alice: two"]
    with Caller(gate_with_tls, None, trusted) as anonymous, pytest.raises(grpc.RpcError) as raised:
        anonymous.write("hello")
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_client_rejects_a_certificate_of_an_untrusted_authority(gate_with_tls, tmp_path):
    stranger = Authority(tmp_path)
    with Caller(gate_with_tls, sign_token(), (stranger.directory / "ca.crt").read_bytes()) as alice, \
            pytest.raises(grpc.RpcError) as raised:
        alice.write("hello")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE

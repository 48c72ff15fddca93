"""A FastAPI application behind `claimgate dev`: forwarded and rejected requests, and header rules."""

import http.client
import os
import pathlib
import re
import signal
import socket
import stat
import time
from urllib.parse import urlsplit

import jwt
import pytest

from dev import RESPONSE_SECONDS, START_SECONDS, UVICORN, dev
from gate import SECRET, sign_token
from programs import free_port

APP = pathlib.Path(__file__).parent / "fastapi"
COMMAND = [UVICORN, "app:app", "--app-dir", APP, "--host", "127.0.0.1", "--port", "{port}"]
LIFETIME = 600

# The built-in configuration of `dev` with another upstream URL.
OTHER_UPSTREAM = """
[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "{url}"
connect_timeout = "20s"

[issuers.better-auth]
keys = { secret_env = "BETTER_AUTH_SECRET", encoding = "utf8" }

[[routes]]
path = "/health"
access = "public"

[[routes]]
path = "/api/auth/{*rest}"
access = "public"

[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"""


def uvicorn_on_a_port(_):
    return COMMAND, None


def uvicorn_on_a_socket(directory: pathlib.Path):
    socket = directory / "api.sock"
    return [UVICORN, "app:app", "--app-dir", APP, "--uds", socket], f"unix:{socket}"


def hypercorn_over_http2(_):
    """HTTP/2 on both sides of the gate."""
    command = [UVICORN.with_name("hypercorn"), f"{APP / 'app'}:app", "--bind", "127.0.0.1:{port}"]
    return command, f"h2c://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module", params=[uvicorn_on_a_port, uvicorn_on_a_socket, hypercorn_over_http2],
                ids=lambda server: server.__name__)
def gate(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    command, url = request.param(directory)
    config = url and OTHER_UPSTREAM.replace("{url}", url)
    with dev(directory, command, SECRET, config=config, http2=request.param is hypercorn_over_http2) as running:
        yield running


def problem(response, status: int, reason: str) -> str:
    """Asserts a problem response of the gate, and returns `detail`, the member that FastAPI clients read."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"
    body = response.json()
    assert body["reason"] == reason
    assert isinstance(body["detail"], str) and body["detail"]
    return body["detail"]


def normalized(headers: list) -> list:
    """Header names as a CGI-like server reads them: lower case, with equal separators."""
    return [(re.sub(r"[^a-z0-9]", "-", name.lower()), value) for name, value in headers]


def headers_at_the_app(response) -> list:
    assert response.status_code == 200, response.text
    headers = normalized(response.json())
    assert any(name == "host" for name, _ in headers), "the app received no headers, so there is nothing to check"
    return headers


def identities(response) -> list:
    return [value for name, value in headers_at_the_app(response) if name == "x-user-id"]


def send_raw(gate, target: str, **headers: str) -> http.client.HTTPResponse:
    """Sends a GET over HTTP/1.1, with target and headers not normalized by the client library."""
    url = urlsplit(gate.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=RESPONSE_SECONDS)
    connection.request("GET", target, headers={"Authorization": f"Bearer {gate.token}"} | headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


# --- output of dev

def test_listens_on_loopback_with_the_user_alice(gate):
    assert gate.url.startswith("http://127.0.0.1:")
    assert gate.user == "alice"


def test_creates_the_env_file_with_mode_0600(gate):
    assert stat.S_IMODE(gate.env_file.stat().st_mode) == 0o600


def test_prints_curl_lines_without_the_secret(gate):
    gate.wait_until("curl line", lambda: "curl " in gate.output(), START_SECONDS)
    assert SECRET not in gate.output()


# --- authentication and authorization

def test_a_user_writes_and_reads_their_own_notes(gate):
    written = gate.request("POST", "/api/alice/notes", gate.token, json={"text": "milk, žito 😀"})
    assert written.status_code == 201, written.text
    assert written.json() == {"path": "alice", "caller": "alice", "text": "milk, žito 😀"}
    read = gate.get("/api/alice/notes", gate.token)
    assert read.status_code == 200, read.text
    assert read.json()["caller"] == "alice"
    assert "milk, žito 😀" in read.json()["notes"]


def test_forwards_the_response_of_the_app_to_an_invalid_body(gate):
    response = gate.request("POST", "/api/alice/notes", gate.token, json={"wrong": 1})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_rejects_the_path_of_another_user(gate, method):
    detail = problem(gate.request(method, "/api/bob/notes", gate.token), 403, "subject_mismatch")
    assert "alice" not in detail and "bob" not in detail


@pytest.mark.parametrize("path", ["/api/Alice/notes", "/api/alice2/notes", "/api/alic/notes"])
def test_rejects_the_path_of_a_user_with_a_similar_name(gate, path):
    problem(gate.get(path, gate.token), 403, "subject_mismatch")


@pytest.mark.parametrize("target", [
    "/api/alice/../bob/notes", "/api/bob/../alice/notes", "/api/alice%2f..%2fbob/notes",
    "//api/alice/notes", "/api/alice/./notes", "/api/%2561lice/notes", "/api/%61lice/notes",
])
def test_rejects_an_ambiguous_path(gate, target):
    assert send_raw(gate, target).status == 400


def test_challenges_a_request_without_a_token_and_without_an_error_code(gate):
    response = gate.get("/api/alice/notes")
    problem(response, 401, "token_missing")
    challenge = response.headers["www-authenticate"]
    assert challenge.split(" ")[0] == "Bearer" and "error=" not in challenge


def test_rejects_an_expired_token_with_invalid_token(gate):
    response = gate.get("/api/alice/notes", gate.expired)
    detail = problem(response, 401, "token_expired")
    assert detail == "Token has expired. Please sign in again."
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer ") and 'error="invalid_token"' in challenge


def test_rejects_two_tokens(gate):
    twice = [("Authorization", f"Bearer {gate.token}")]
    problem(gate.get("/api/alice/notes", gate.token, twice), 400, "token_repeated")


def test_accepts_a_token_signed_by_pyjwt(gate):
    response = gate.get("/api/bob/notes", sign_token("bob"))
    assert response.status_code == 200, response.text
    assert response.json()["caller"] == "bob"


def test_accepts_a_token_with_user_id_instead_of_sub(gate):
    assert gate.get("/api/bob/notes", sign_token(None, user_id="bob")).json()["caller"] == "bob"


def test_rejects_a_token_signed_with_another_secret(gate):
    problem(gate.get("/api/alice/notes", sign_token(secret=SECRET.upper())), 401, "token_signature")


def test_rejects_an_unsigned_token(gate):
    token = jwt.encode({"sub": "alice", "exp": int(time.time()) + LIFETIME}, None, algorithm="none")
    problem(gate.get("/api/alice/notes", token), 401, "token_algorithm")


def test_serves_the_public_health_route_without_a_token(gate):
    response = gate.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("path", ["/", "/api", "/admin", "/healthz", "/API/alice/notes"])
@pytest.mark.parametrize("signed_in", [True, False], ids=["with token", "without token"])
def test_rejects_a_path_without_a_route(gate, path, signed_in):
    problem(gate.get(path, gate.token if signed_in else None), 404, "no_route")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_serves_the_documentation_pages_in_development_alone(gate, path):
    # Only the built-in configuration of `dev` has routes for them.
    expected = 404 if gate.config is not None else 200
    assert gate.get(path).status_code == expected


# --- forwarded headers

def test_forwards_the_user_id_but_not_the_credential(gate):
    headers = headers_at_the_app(gate.get("/api/alice/headers", gate.token))
    assert [value for name, value in headers if name == "x-user-id"] == ["alice"]
    assert "authorization" not in [name for name, _ in headers]
    assert all(gate.token not in value for _, value in headers)


@pytest.mark.parametrize("forged", [
    [("X-User-Id", "mallory")],
    [("x-user-id", "mallory")],
    [("x_user_id", "mallory")],
    [("X_USER_ID", "mallory")],
    [("X-User_Id", "mallory")],
    [("X.User.Id", "mallory")],
    [("X-User-Id", "mallory"), ("X-User-Id", "alice")],
    [("X-User-Id", "alice"), ("x_user_id", "mallory"), ("X.User.Id", "mallory")],
    [("X-User-Id", "")],
], ids=lambda headers: ", ".join(f"{name}={value}" for name, value in headers))
def test_replaces_a_forged_identity_header(gate, forged):
    response = gate.get("/api/alice/headers", gate.token, forged)
    assert identities(response) == ["alice"]
    assert "mallory" not in response.text


def test_removes_a_forged_identity_header_on_a_public_route(gate):
    forged = [("X-User-Id", "mallory"), ("x_user_id", "mallory")]
    response = gate.get("/api/auth/headers", headers=forged)
    assert identities(response) == []
    assert "mallory" not in response.text


def test_rejects_a_forged_identity_header_instead_of_a_token(gate):
    problem(gate.get("/api/mallory/notes", headers=[("X-User-Id", "mallory")]), 401, "token_missing")


@pytest.mark.parametrize("listed", ["X-User-Id", "x-user-id", "close, X-User-Id"])
def test_rejects_the_identity_header_as_a_hop_by_hop_header(gate, listed):
    response = send_raw(gate, "/api/alice/headers", Connection=listed)
    assert response.status == 400
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"


def test_forwards_other_headers_unchanged(gate):
    sent = [("X-Request-Note", "a  b"), ("X-Twice", "1"), ("X-Twice", "2"), ("Accept-Language", "cs, en;q=0.5")]
    headers = headers_at_the_app(gate.get("/api/alice/headers?q=%2F&user_id=bob", gate.token, sent))
    for name, value in sent:
        assert (name.lower(), value) in headers


# --- lifecycle of dev

def test_sets_the_port_in_the_environment_of_the_command(tmp_path):
    with dev(tmp_path, [UVICORN, "app:app", "--app-dir", APP], SECRET) as gate:
        assert gate.get("/api/alice/notes", gate.token).status_code == 200


def test_generates_a_secret_for_each_run_without_one(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with dev(tmp_path / "one", COMMAND) as one, dev(tmp_path / "two", COMMAND) as two:
        assert one.get("/api/alice/notes", one.token).status_code == 200
        assert two.get("/api/alice/notes", two.token).status_code == 200
        problem(two.get("/api/alice/notes", one.token), 401, "token_signature")
        problem(one.get("/api/alice/notes", one.expired), 401, "token_expired")


def test_rejects_with_502_after_the_end_of_the_app(tmp_path):
    # The command outlives the app, so that `dev` keeps running.
    shell = f'"{UVICORN}" app:app --app-dir "{APP}" --host 127.0.0.1 --port "$PORT"; exec sleep 600'
    with dev(tmp_path, ["sh", "-c", shell], SECRET) as gate:
        os.kill(gate.get("/health").json()["pid"], signal.SIGKILL)
        # A pooled connection may still be open for a moment. Every response must be 502 even then.
        for _ in range(3):
            response = gate.get("/api/alice/notes", gate.token)
            assert response.status_code == 502, response.text
            assert response.headers["content-type"].split(";")[0] == "application/problem+json"
            assert response.json()["reason"] in ("upstream_unreachable", "upstream_invalid_response")
        problem(gate.get("/api/bob/notes", gate.token), 403, "subject_mismatch")
        assert gate.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_the_app_and_the_gate(tmp_path, number):
    with dev(tmp_path, COMMAND, SECRET) as gate:
        app = gate.get("/health").json()["pid"]
        gate.client.close()
        assert gate.stop(number) == 0, gate.output()
        assert not gate.env_file.exists()
        assert not is_running(app), "the app is still running"
        url = urlsplit(gate.url)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((url.hostname, url.port), timeout=5)


def is_running(process: int) -> bool:
    """True if the process exists and is not a zombie."""
    try:
        text = pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")

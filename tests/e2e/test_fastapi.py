"""A FastAPI application behind `claimgate dev`: what it is asked, and what it never sees."""

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

# What `dev` has built in, but for the upstream.
ELSEWHERE = """
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
    """HTTP/2 before the gate and behind it."""
    command = [UVICORN.with_name("hypercorn"), f"{APP / 'app'}:app", "--bind", "127.0.0.1:{port}"]
    return command, f"h2c://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module", params=[uvicorn_on_a_port, uvicorn_on_a_socket, hypercorn_over_http2],
                ids=lambda server: server.__name__)
def gate(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    command, url = request.param(directory)
    config = url and ELSEWHERE.replace("{url}", url)
    with dev(directory, command, SECRET, config=config, http2=request.param is hypercorn_over_http2) as running:
        yield running


def problem(response, status: int, reason: str) -> str:
    """Asserts a refusal of the gate, and returns the text that clients of FastAPI read."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"
    body = response.json()
    assert body["reason"] == reason
    assert isinstance(body["detail"], str) and body["detail"]
    return body["detail"]


def folded(headers: list) -> list:
    """Header names as a CGI-like server reads them: case and separators are one."""
    return [(re.sub(r"[^a-z0-9]", "-", name.lower()), value) for name, value in headers]


def seen_by_the_app(response) -> list:
    assert response.status_code == 200, response.text
    headers = folded(response.json())
    assert any(name == "host" for name, _ in headers), "the app saw no headers: the check would pass on nothing"
    return headers


def identities(response) -> list:
    return [value for name, value in seen_by_the_app(response) if name == "x-user-id"]


def as_written(gate, target: str, **headers: str) -> http.client.HTTPResponse:
    """A GET over HTTP/1.1 whose target and headers no client library has tidied up."""
    place = urlsplit(gate.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=RESPONSE_SECONDS)
    connection.request("GET", target, headers={"Authorization": f"Bearer {gate.token}"} | headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


# --- what dev gives to the developer

def test_the_gate_listens_on_loopback_and_the_user_is_alice(gate):
    assert gate.url.startswith("http://127.0.0.1:")
    assert gate.user == "alice"


def test_the_env_file_is_for_its_owner_only(gate):
    assert stat.S_IMODE(gate.env_file.stat().st_mode) == 0o600


def test_curl_lines_are_printed_and_the_secret_is_not(gate):
    gate.wait_until("curl line", lambda: "curl " in gate.output(), START_SECONDS)
    assert SECRET not in gate.output()


# --- who may do what

def test_a_user_writes_and_reads_notes_of_their_own(gate):
    written = gate.request("POST", "/api/alice/notes", gate.token, json={"text": "milk, žito 😀"})
    assert written.status_code == 201, written.text
    assert written.json() == {"path": "alice", "caller": "alice", "text": "milk, žito 😀"}
    read = gate.get("/api/alice/notes", gate.token)
    assert read.status_code == 200, read.text
    assert read.json()["caller"] == "alice"
    assert "milk, žito 😀" in read.json()["notes"]


def test_the_answer_of_the_app_to_a_bad_body_is_passed_on(gate):
    response = gate.request("POST", "/api/alice/notes", gate.token, json={"wrong": 1})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_another_users_path_is_forbidden(gate, method):
    detail = problem(gate.request(method, "/api/bob/notes", gate.token), 403, "subject_mismatch")
    assert "alice" not in detail and "bob" not in detail


@pytest.mark.parametrize("path", ["/api/Alice/notes", "/api/alice2/notes", "/api/alic/notes"])
def test_a_user_of_nearly_the_same_name_is_another_user(gate, path):
    problem(gate.get(path, gate.token), 403, "subject_mismatch")


@pytest.mark.parametrize("target", [
    "/api/alice/../bob/notes", "/api/bob/../alice/notes", "/api/alice%2f..%2fbob/notes",
    "//api/alice/notes", "/api/alice/./notes", "/api/%2561lice/notes", "/api/%61lice/notes",
])
def test_a_path_with_two_readings_is_refused(gate, target):
    assert as_written(gate, target).status == 400


def test_no_token_is_a_challenge_without_an_error(gate):
    response = gate.get("/api/alice/notes")
    problem(response, 401, "token_missing")
    challenge = response.headers["www-authenticate"]
    assert challenge.split(" ")[0] == "Bearer" and "error=" not in challenge


def test_an_expired_token_is_told_so(gate):
    response = gate.get("/api/alice/notes", gate.expired)
    detail = problem(response, 401, "token_expired")
    assert detail == "Token has expired. Please sign in again."
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer ") and 'error="invalid_token"' in challenge


def test_two_tokens_are_refused(gate):
    twice = [("Authorization", f"Bearer {gate.token}")]
    problem(gate.get("/api/alice/notes", gate.token, twice), 400, "token_repeated")


def test_a_token_that_the_python_library_made_is_good(gate):
    response = gate.get("/api/bob/notes", sign_token("bob"))
    assert response.status_code == 200, response.text
    assert response.json()["caller"] == "bob"


def test_a_token_with_user_id_in_place_of_sub_is_good(gate):
    assert gate.get("/api/bob/notes", sign_token(None, user_id="bob")).json()["caller"] == "bob"


def test_a_token_under_another_secret_is_refused(gate):
    problem(gate.get("/api/alice/notes", sign_token(secret=SECRET.upper())), 401, "token_signature")


def test_an_unsigned_token_is_refused(gate):
    token = jwt.encode({"sub": "alice", "exp": int(time.time()) + LIFETIME}, None, algorithm="none")
    problem(gate.get("/api/alice/notes", token), 401, "token_algorithm")


def test_health_is_public(gate):
    response = gate.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("path", ["/", "/api", "/docs", "/openapi.json", "/healthz", "/API/alice/notes"])
@pytest.mark.parametrize("signed_in", [True, False], ids=["with token", "without token"])
def test_an_unknown_path_is_not_found(gate, path, signed_in):
    problem(gate.get(path, gate.token if signed_in else None), 404, "no_route")


# --- which headers arrive

def test_the_app_sees_the_caller_and_not_the_credential(gate):
    headers = seen_by_the_app(gate.get("/api/alice/headers", gate.token))
    assert [value for name, value in headers if name == "x-user-id"] == ["alice"]
    assert "authorization" not in [name for name, _ in headers]
    assert all(gate.token not in value for _, value in headers)


@pytest.mark.parametrize("spoofed", [
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
def test_a_spoofed_identity_does_not_arrive(gate, spoofed):
    response = gate.get("/api/alice/headers", gate.token, spoofed)
    assert identities(response) == ["alice"]
    assert "mallory" not in response.text


def test_a_spoofed_identity_does_not_arrive_on_a_public_route(gate):
    spoofed = [("X-User-Id", "mallory"), ("x_user_id", "mallory")]
    response = gate.get("/api/auth/headers", headers=spoofed)
    assert identities(response) == []
    assert "mallory" not in response.text


def test_a_spoofed_identity_is_no_token(gate):
    problem(gate.get("/api/mallory/notes", headers=[("X-User-Id", "mallory")]), 401, "token_missing")


@pytest.mark.parametrize("listed", ["X-User-Id", "x-user-id", "close, X-User-Id"])
def test_the_identity_cannot_be_declared_hop_by_hop(gate, listed):
    response = as_written(gate, "/api/alice/headers", Connection=listed)
    assert response.status == 400
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"


def test_other_headers_arrive_as_they_were(gate):
    sent = [("X-Request-Note", "a  b"), ("X-Twice", "1"), ("X-Twice", "2"), ("Accept-Language", "cs, en;q=0.5")]
    headers = seen_by_the_app(gate.get("/api/alice/headers?q=%2F&user_id=bob", gate.token, sent))
    for name, value in sent:
        assert (name.lower(), value) in headers


# --- the life of dev

def test_a_command_without_arguments_for_the_port_reads_it_from_the_environment(tmp_path):
    with dev(tmp_path, [UVICORN, "app:app", "--app-dir", APP], SECRET) as gate:
        assert gate.get("/api/alice/notes", gate.token).status_code == 200


def test_without_a_secret_each_run_has_its_own(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with dev(tmp_path / "one", COMMAND) as one, dev(tmp_path / "two", COMMAND) as two:
        assert one.get("/api/alice/notes", one.token).status_code == 200
        assert two.get("/api/alice/notes", two.token).status_code == 200
        problem(two.get("/api/alice/notes", one.token), 401, "token_signature")
        problem(one.get("/api/alice/notes", one.expired), 401, "token_expired")


def test_an_app_that_is_gone_is_a_bad_gateway(tmp_path):
    # The command outlives the app, so that this asks about the gate, and not about the end of `dev`.
    shell = f'"{UVICORN}" app:app --app-dir "{APP}" --host 127.0.0.1 --port "$PORT"; exec sleep 600'
    with dev(tmp_path, ["sh", "-c", shell], SECRET) as gate:
        os.kill(gate.get("/health").json()["pid"], signal.SIGKILL)
        # A connection from before may still be open for a moment; each response must be a 502 all the same.
        for _ in range(3):
            response = gate.get("/api/alice/notes", gate.token)
            assert response.status_code == 502, response.text
            assert response.headers["content-type"].split(";")[0] == "application/problem+json"
            assert response.json()["reason"] in ("upstream_unreachable", "upstream_invalid_response")
        problem(gate.get("/api/bob/notes", gate.token), 403, "subject_mismatch")
        assert gate.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_signal_ends_the_app_and_the_gate(tmp_path, how):
    with dev(tmp_path, COMMAND, SECRET) as gate:
        app = gate.get("/health").json()["pid"]
        gate.client.close()
        assert gate.stop(how) == 0, gate.output()
        assert not gate.env_file.exists()
        assert not runs(app), "the app is still there"
        place = urlsplit(gate.url)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((place.hostname, place.port), timeout=5)


def runs(process: int) -> bool:
    """Whether the process is there and not merely waiting for its parent to notice its end."""
    try:
        text = pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")

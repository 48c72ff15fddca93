"""A gate in an empty folder, configured by the environment alone: real Better Auth, FastAPI, and two URLs of one server."""

import os
import pathlib
import subprocess

import httpx
import pytest

from dev import UVICORN
from programs import RESPONSE_SECONDS, Issuer, Program, free_port, http_client

CLAIMGATE = os.environ["CLAIMGATE"]
APP = pathlib.Path(__file__).parent / "fastapi"


@pytest.fixture
def started(tmp_path):
    """Starts programs, each in a folder of its own, and stops them at the end."""
    running = []

    def start(name: str, make):
        directory = tmp_path / name
        directory.mkdir()
        running.append(make(directory))
        return running[-1]

    yield start
    for program in reversed(running):
        program.stop()


def api(directory: pathlib.Path) -> Program:
    port = free_port()
    program = Program(directory, [UVICORN, "app:app", "--app-dir", APP, "--host", "127.0.0.1", "--port", port], {})
    program.wait_for("Uvicorn running on")
    program.url = f"http://127.0.0.1:{port}"
    return program


def gate(environment: dict):
    def make(directory: pathlib.Path) -> Program:
        port = free_port()
        program = Program(
            directory, [CLAIMGATE, "run"], environment | {"PORT": str(port), "ADMIN_ADDRESS": "127.0.0.1:0"})
        program.wait_for('"serving"')
        program.client = http_client(f"http://127.0.0.1:{port}")
        return program
    return make


def outcome(response: httpx.Response):
    return response.status_code, response.json().get("reason") if response.status_code >= 400 else None


def bearer(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def test_guards_an_api_without_a_file(started):
    issuer = started("issuer", Issuer)
    user = issuer.sign_up()
    upstream = started("api", api)
    running = started("gate", gate({"UPSTREAM": upstream.url, "BETTER_AUTH_URL": issuer.url}))
    notes, token = f"/api/{user.id}/notes", user.token()
    send = running.client.request
    assert outcome(send("POST", notes, headers=bearer(token), json={"text": "milk"})) == (201, None)
    assert outcome(send("GET", "/api/another/notes", headers=bearer(token))) == (403, "subject_mismatch")
    assert outcome(send("GET", notes)) == (401, "token_missing")
    assert outcome(send("GET", "/health")) == (200, None)
    assert outcome(send("GET", "/docs", headers=bearer(token))) == (404, "no_route")


def test_doctor_proposes_the_line_for_a_server_with_two_urls(started, tmp_path):
    issuer = started("issuer", lambda directory: Issuer(directory, origin="http://localhost:3000"))
    user = issuer.sign_up()
    upstream = started("api", api)
    environment = {"UPSTREAM": upstream.url, "BETTER_AUTH_URL": issuer.url}
    running = started("one-url", gate(environment))
    token = user.token()
    notes = f"/api/{user.id}/notes"
    assert outcome(running.client.get(notes, headers=bearer(token))) == (401, "token_issuer")

    doctor = subprocess.run(
        [CLAIMGATE, "doctor", "--token", token], cwd=tmp_path, env=environment, text=True, capture_output=True,
        timeout=RESPONSE_SECONDS)
    assert doctor.returncode == 1, doctor.stderr
    line = f'better_auth = {{ url = "{issuer.url}", public = "http://localhost:3000" }}'
    assert line in doctor.stdout, doctor.stdout

    running = started("two-urls", gate(environment | {"BETTER_AUTH_PUBLIC_URL": "http://localhost:3000"}))
    assert outcome(running.client.get(notes, headers=bearer(token))) == (200, None)

    # The same as a file: the printed configuration, with the proposed line.
    printed = subprocess.run(
        [CLAIMGATE, "config"], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=RESPONSE_SECONDS)
    text = printed.stdout.replace(f'better_auth = "{issuer.url}"', line)
    assert line in text, printed.stdout
    (tmp_path / "claimgate.toml").write_text(text)
    doctor = subprocess.run(
        [CLAIMGATE, "doctor", "--token", token], cwd=tmp_path, env={}, text=True, capture_output=True,
        timeout=RESPONSE_SECONDS)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr

"""`claimgate init --openapi` and `claimgate check --openapi` with the document of a running FastAPI application."""

import json
import os
import pathlib
import subprocess

import pytest

from dev import UVICORN
from gate import SECRET, sign_token
from programs import Gate, Program, free_port

APP = pathlib.Path(__file__).parent / "fastapi"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """URL of the application. It trusts X-User-Id, and has no security in its document."""
    port = free_port()
    command = [UVICORN, "app:app", "--app-dir", APP, "--host", "127.0.0.1", "--port", port]
    program = Program(tmp_path_factory.mktemp("api"), command, {})
    program.wait_for("Uvicorn running on")
    yield f"http://127.0.0.1:{port}"
    program.stop()


def claimgate(directory: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [os.environ["CLAIMGATE"], *arguments]
    environment = os.environ | {"BETTER_AUTH_SECRET": SECRET}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def written(api, tmp_path) -> pathlib.Path:
    """Configuration that `init` wrote for the application."""
    done = claimgate(tmp_path, "init", "--secret-env", "BETTER_AUTH_SECRET", "--openapi", f"{api}/openapi.json")
    assert done.returncode == 0, done.stderr
    return tmp_path / "claimgate.toml"


def check(file: pathlib.Path, api: str, *more: str) -> subprocess.CompletedProcess:
    return claimgate(file.parent, "check", "--openapi", f"{api}/openapi.json", *more)


def test_serves_the_application_with_the_written_routes(api, written):
    done = check(written, api, "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    # Free ports, and the secret in a file, because programs of the tests do not inherit it.
    (written.parent / "secret").write_text(SECRET)
    (written.parent / "secret").chmod(0o600)
    text = written.read_text().replace('secret_env = "BETTER_AUTH_SECRET"', 'secret_file = "secret"')
    written.unlink()
    ports = '[listen]\naddress = "127.0.0.1:0"\n\n[admin]\naddress = "127.0.0.1:0"\n\n'
    gate = Gate(written.parent, ports + text)
    try:
        made = gate.request("POST", "/api/alice/notes", sign_token("alice"), json={"text": "milk"})
        assert (made.status_code, made.json()["caller"]) == (201, "alice")
        assert gate.request("DELETE", "/api/alice/notes", sign_token("alice")).status_code == 204
        for method in ("GET", "POST", "DELETE"):
            assert gate.request(method, "/api/bob/notes", sign_token("alice")).json()["reason"] == "subject_mismatch"
        assert gate.request("GET", "/api/alice/notes").json()["reason"] == "token_missing"
        assert gate.request("GET", "/health").status_code == 200
        assert gate.request("HEAD", "/api/alice/page", sign_token("alice")).status_code == 200
        assert gate.request("PATCH", "/api/alice/notes", sign_token("alice")).status_code == 405
        assert gate.request("GET", "/docs").status_code == 404
    finally:
        gate.stop()


def test_names_a_removed_owner(api, written):
    text = written.read_text()
    route = 'path = "/api/{user_id}/notes"\nmethods = ["GET", "POST", "DELETE"]\naccess = '
    assert route in text
    written.write_text(text.replace(route + '{ owner = "user_id" }', route + '"authenticated"'))
    done = check(written, api, "--strict")
    assert done.returncode == 2
    assert "GET, POST, DELETE /api/{user_id}/notes has the user `{user_id}`" in done.stderr
    assert "access = { owner = \"user_id\" }" in done.stderr
    report = json.loads(check(written, api, "--output", "json").stdout)
    assert [finding["kind"] for finding in report["openapi"]["findings"]] == ["no-owner"]


def test_names_a_removed_route(api, written):
    first, *routes = written.read_text().split("[[routes]]\n")
    kept = [route for route in routes if "/page" not in route]
    assert len(kept) == len(routes) - 1
    written.write_text("[[routes]]\n".join([first, *kept]))
    assert check(written, api).returncode == 0
    done = check(written, api, "--strict")
    assert done.returncode == 2
    assert "GET, HEAD /api/{user_id}/page is in no route" in done.stderr

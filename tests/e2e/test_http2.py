"""HTTP/2 with the nghttp2 clients: many streams on few connections, and graceful shutdown of a connection."""

import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

from dev import UVICORN
from gate import ROUTES, running_gate, sign_token
from programs import Program, free_port

APP = pathlib.Path(__file__).parent / "fastapi"
TIMEOUT = 240

pytestmark = pytest.mark.skipif(
    not (shutil.which("h2load") and shutil.which("nghttp")), reason="h2load and nghttp are missing: nghttp2-client")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    port = free_port()
    command = [UVICORN, "app:app", "--app-dir", APP, "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    program = Program(tmp_path_factory.mktemp("app"), command, {})
    try:
        program.wait_for("Uvicorn running")
        yield f"http://127.0.0.1:{port}"
    finally:
        program.stop()


@pytest.fixture
def gate(tmp_path, app):
    with running_gate(tmp_path, app, ROUTES) as running:
        yield running


def h2load(gate, *arguments: str) -> dict[str, int]:
    """Counts of one run: requests by outcome, and responses by status class."""
    command = ["h2load", "--requests=3000", "--clients=4", "--max-concurrent-streams=100", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert ended.returncode == 0, ended.stderr
    lines = re.findall(r"^(?:requests|status codes): (.*)$", ended.stdout, re.MULTILINE)
    assert len(lines) == 2, ended.stdout
    return {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", ", ".join(lines))}


def test_serves_a_hundred_concurrent_streams_on_each_connection(gate):
    counts = h2load(gate, "-H", f"Authorization: Bearer {sign_token()}", f"{gate.url}/api/alice/page")
    assert (counts["succeeded"], counts["failed"], counts["errored"], counts["2xx"]) == (3000, 0, 0, 3000), counts


def test_forwards_bodies_in_a_hundred_concurrent_streams(gate, tmp_path):
    body = tmp_path / "note.json"
    body.write_text('{"text": "%s"}' % ("x" * 20_000))
    headers = ["-H", f"Authorization: Bearer {sign_token()}", "-H", "Content-Type: application/json"]
    counts = h2load(gate, "--requests=500", f"--data={body}", *headers, f"{gate.url}/api/alice/notes")
    assert (counts["succeeded"], counts["failed"], counts["2xx"]) == (500, 0, 500), counts


def test_a_rejection_affects_its_own_stream_only(gate):
    counts = h2load(gate, f"{gate.url}/api/alice/page")
    assert (counts["failed"], counts["errored"], counts["4xx"]) == (3000, 0, 3000), counts


def test_drain_sends_goaway_and_lets_open_streams_finish(gate):
    token = sign_token()
    client = subprocess.Popen(
        ["nghttp", "--verbose", "--timeout=120", "-H", f"Authorization: Bearer {token}", f"{gate.url}/api/alice/events"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while gate.request("GET", "/api/alice/listeners", token).json() == 0:
            assert client.poll() is None, client.stdout.read()
            time.sleep(0.05)
        admin = gate.admin_url.removeprefix("http://")
        subprocess.run([os.environ["CLAIMGATE"], "drain", "--admin", admin], check=True, capture_output=True)
        read = ""
        while "recv GOAWAY" not in read:
            line = client.stdout.readline()
            assert line, f"the connection ended without GOAWAY:\n{read}"
            read += line
        # Other clients are still served, and the open stream lasts until the application ends it.
        for text in ["after", "end"]:
            assert gate.request("POST", "/api/alice/notes", token, json={"text": text}).status_code == 201
        read += client.communicate(timeout=TIMEOUT)[0]
        assert "data: after" in read, read
        assert client.returncode == 0 and "RST_STREAM" not in read, read
    finally:
        client.kill()
        client.wait()

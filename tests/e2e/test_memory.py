"""Memory of the gate with large bodies: no more than with small ones, in every combination of HTTP versions, and with a
slow reader.

`MEBIBYTES=1024 tests/e2e/run -k test_memory -s` transfers 1 GiB in each test, and prints time and memory.
"""

import os
import pathlib
import subprocess
import time

import pytest

from dev import UVICORN
from gate import running_gate, sign_token
from programs import Program, free_port

APP = pathlib.Path(__file__).parent / "fastapi"
MEBIBYTES = int(os.environ.get("MEBIBYTES", "64"))
# Allowance for memory kept by the allocator, and for the flow-control windows of one connection.
GROWTH_KIB = 8 * 1024
TIMEOUT = 60 + 2 * MEBIBYTES
VERSIONS = {"1.1": "--http1.1", "2": "--http2-prior-knowledge"}
ROUTES = """
[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
max_body_bytes = 0
"""
SERVERS = {
    "1.1": ([UVICORN, "app:app", "--app-dir", APP, "--no-access-log", "--port"], "http", "Uvicorn running"),
    "2": ([UVICORN.with_name("hypercorn"), f"{APP / 'app'}:app", "--bind"], "h2c", "Running on"),
}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda version: f"to {version}")
def gate(request, tmp_path_factory):
    command, scheme, started = SERVERS[request.param]
    port = free_port()
    address = str(port) if request.param == "1.1" else f"127.0.0.1:{port}"
    app = Program(tmp_path_factory.mktemp("app"), [*command, address], {})
    try:
        app.wait_for(started)
        with running_gate(tmp_path_factory.mktemp("gate"), f"{scheme}://127.0.0.1:{port}", ROUTES) as running:
            yield running
    finally:
        app.stop()


@pytest.fixture(scope="module")
def zeros(tmp_path_factory):
    """Creates sparse files of a given size in MiB."""
    def create(mebibytes: int) -> pathlib.Path:
        file = tmp_path_factory.mktemp("zeros") / "zeros"
        with file.open("wb") as sparse:
            sparse.truncate(mebibytes * 1024 * 1024)
        return file
    return create


def peak_kib(gate) -> int:
    """Peak resident memory of the gate, in KiB."""
    parent = gate.program.process.pid
    process = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak)


def curl(gate, version: str, path: str, *arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", str(TIMEOUT),
               VERSIONS[version], "-H", f"Authorization: Bearer {sign_token()}", *arguments,
               f"{gate.url}/api/alice/{path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT + 10)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def download(gate, version: str, mebibytes: int, *arguments: str):
    size = curl(gate, version, f"source?mebibytes={mebibytes}", "-o", os.devnull, "-w", "%{size_download}", *arguments)
    assert int(size) == mebibytes * 1024 * 1024


def upload(gate, version: str, zeros, mebibytes: int):
    response = curl(gate, version, "sink", "--upload-file", str(zeros(mebibytes)))
    assert response == f'{{"mebibytes":{mebibytes:.1f}}}'


def assert_little_growth(gate, what: str, transfer):
    """Transfers a small body and then a large one, and compares the peaks of memory."""
    transfer(2)
    before, began = peak_kib(gate), time.monotonic()
    transfer(MEBIBYTES)
    growth, seconds = peak_kib(gate) - before, time.monotonic() - began
    print(f"\n{what}: {MEBIBYTES} MiB in {seconds:.1f} s, peak {before} KiB before, {growth} KiB more after")
    assert growth < GROWTH_KIB, f"{growth} KiB"


@pytest.mark.parametrize("version", VERSIONS)
def test_streams_a_download_without_buffering_it(gate, version):
    assert_little_growth(gate, f"download over {version}", lambda mebibytes: download(gate, version, mebibytes))


@pytest.mark.parametrize("version", VERSIONS)
def test_streams_an_upload_without_buffering_it(gate, version, zeros):
    assert_little_growth(gate, f"upload over {version}", lambda mebibytes: upload(gate, version, zeros, mebibytes))


@pytest.mark.parametrize("version", VERSIONS)
def test_applies_backpressure_for_a_slow_client(gate, version):
    # Slower than the source writes, so unread data must stay at the source.
    slow = ["--limit-rate", f"{MEBIBYTES // 3}M"]
    assert_little_growth(gate, f"slow download over {version}",
                 lambda mebibytes: download(gate, version, mebibytes, *slow))

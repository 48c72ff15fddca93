"""Memory of the gate with large bodies: no more than with small ones, in every combination of HTTP versions, and with a
slow reader.

`MEBIBYTES=1024 tests/e2e/run -k test_memory -s` transfers 1 GiB in each test, and prints time and memory.
"""

import os
import pathlib
import socket
import ssl
import subprocess
import threading
import time

import pytest

from authority import Authority
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


# Clients that send a request and never read, and the largest memory of the gate for each.
STUCK = 100
STUCK_KIB = 128
PUBLIC = """
[[routes]]
path = "/{*rest}"
access = "public"
"""
TLS = """
[listen.tls]
certificate = "gate.crt"
key = "gate.key"
"""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2_request(scheme: str) -> bytes:
    """Preface, the largest windows, and GET /large."""
    largest = 0x7fffffff
    settings = frame(4, 0, 0, b"\0\x04" + largest.to_bytes(4, "big"))
    window = frame(8, 0, 0, (largest - 65535).to_bytes(4, "big"))
    fields = {":method": "GET", ":scheme": scheme, ":authority": "gate.test", ":path": "/large"}
    encoded = [b"\0" + bytes([len(text)]) + text.encode() for pair in fields.items() for text in pair]
    head = b"".join(text if index % 2 == 0 else text[1:] for index, text in enumerate(encoded))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window + frame(1, 5, 1, head)


@pytest.fixture(scope="module")
def endless():
    """HTTP/1.1 server with a response of 100 MiB to every request."""
    def respond(connection: socket.socket):
        try:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
            for _ in range(100):
                connection.sendall(bytes(1024 * 1024))
        except OSError:
            pass

    def serve():
        while True:
            threading.Thread(target=respond, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=2 * STUCK) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def resident_kib(gate) -> int:
    parent = gate.program.process.pid
    process = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident)


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_client_that_reads_nothing_costs_little(tmp_path, endless, version, scheme):
    context = None
    if scheme == "https":
        authority = Authority(tmp_path)
        authority.issue("gate", "gate.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([version])
    request = b"GET /large HTTP/1.1\r\nHost: gate.test\r\n\r\n" if version == "http/1.1" else http2_request(scheme)
    with running_gate(tmp_path, endless, PUBLIC + (TLS if scheme == "https" else "")) as gate:
        host, port = gate.url.split("//")[1].split(":")

        def stuck(count: int) -> list[socket.socket]:
            clients = []
            for _ in range(count):
                client = socket.create_connection((host, int(port)))
                if context is not None:
                    client = context.wrap_socket(client, server_hostname="gate.test")
                client.sendall(request)
                clients.append(client)
            time.sleep(3)
            return clients

        warm = stuck(5)
        before = resident_kib(gate)
        clients = stuck(STUCK)
        each = (resident_kib(gate) - before) / STUCK
        print(f"\n{scheme} {version}: {each:.0f} KiB for each client that reads nothing")
        for client in warm + clients:
            client.close()
    assert each <= STUCK_KIB, f"{each:.0f} KiB"

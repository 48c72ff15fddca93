"""Clients that hold a connection without making progress, against the default timeouts."""

import concurrent.futures
import contextlib
import socket
import time

from . import http2
from .gate import running
from .http2 import DATA, END_HEADERS, END_STREAM, HEADERS, frame, get, headers
from .result import Result
from .wire import Connection, Upstream

# Time in which every pattern must end, and the time that the suite waits for the others.
BAR, LONGEST = 40.0, 90.0
HOST = b"Host: gate.test\r\n"
POST = b"POST /open/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n"


def _drip(connection, pieces, deadline: float) -> bool:
    """Sends one piece a second until the connection ends. Returns whether it ended."""
    for piece in pieces:
        if time.monotonic() > deadline:
            return False
        try:
            connection.socket.sendall(piece)
        except ConnectionError:
            return True
        if connection.is_closed(1.0):
            return True
    return False


def _forever(piece: bytes):
    while True:
        yield piece


def _silent(port):
    return Connection(port), []


def _after(data: bytes):
    def start(port):
        connection = Connection(port)
        connection.send(data)
        return connection, []
    return start


def _dripped_head(port):
    connection = Connection(port)
    connection.send(b"GET /open/x HTTP/1.1\r\n" + HOST + b"X-Slow: ")
    return connection, _forever(b"a")


def _dripped_body(port):
    connection = Connection(port)
    connection.send(POST)
    return connection, _forever(b"a")


def _idle_http2(port):
    connection = http2.Connection(port)
    connection.handshake()
    return connection, []


def _open_headers(port):
    connection, _ = _idle_http2(port)
    connection.send(frame(HEADERS, END_STREAM, 1, headers(1, get())[9:20]))
    return connection, []


def _stalled_http2_body(port):
    connection, _ = _idle_http2(port)
    connection.send(headers(1, get(__method="POST"), END_HEADERS) + frame(DATA, 0, 1, b"hello"))
    return connection, []


def _dripped_http2_body(port):
    connection, _ = _idle_http2(port)
    connection.send(headers(1, get(__method="POST"), END_HEADERS))
    return connection, _forever(frame(DATA, 0, 1, b"a"))


# The ten patterns of the score.
PATTERNS = {
    "no byte": _silent,
    "half a request line": _after(b"GET /open/x HT"),
    "a head without its end": _after(b"GET /open/x HTTP/1.1\r\n" + HOST),
    "a head, one octet a second": _dripped_head,
    "half an HTTP/2 preface": _after(http2.PREFACE[:12]),
    "an HTTP/2 connection without a stream": _idle_http2,
    "HEADERS without END_HEADERS": _open_headers,
    "a body that stops": _after(POST + b"hello"),
    "a body, one octet a second": _dripped_body,
    "an HTTP/2 body that stops": _stalled_http2_body,
}
# Shown beside the score.
MORE = {
    "an HTTP/2 body, one octet a second": _dripped_http2_body,
    "a chunk without its end": _after(b"POST /open/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"),
    "an HTTP/2 preface without SETTINGS": _after(http2.PREFACE),
    "half a second request": _after(b"GET /open/x HTTP/1.1\r\n" + HOST + b"\r\nGET /open/y HT"),
}
# A body that stops ends its stream; the connection may stay for others.
STREAMS = {"an HTTP/2 body that stops", "an HTTP/2 body, one octet a second"}


def _measure(port: int, name: str, start) -> float | None:
    """Seconds until the connection ended, or the stream of a body."""
    connection, pieces = start(port)
    began = time.monotonic()
    deadline = began + LONGEST
    with connection:
        if name in STREAMS:
            while time.monotonic() < deadline:
                found = connection.outcome(1, 1.0)
                if found != "silent":
                    return time.monotonic() - began
                for piece in pieces:
                    connection.send(piece)
                    break
            return None
        if pieces:
            return time.monotonic() - began if _drip(connection, pieces, deadline) else None
        return time.monotonic() - began if connection.is_closed(LONGEST) else None


def stalls() -> list[Result]:
    """All patterns at once; the first ten are the score."""
    upstream = Upstream()
    patterns = PATTERNS | MORE
    with running(upstream.port) as gate, concurrent.futures.ThreadPoolExecutor(len(patterns)) as pool:
        measured = list(pool.map(lambda item: _measure(gate.port, *item), patterns.items()))
    upstream.stop()
    results = []
    for name, seconds in zip(patterns, measured):
        if seconds is None:
            failure = f"open after {LONGEST:.0f} s"
        else:
            failure = f"closed after {seconds:.0f} s" if seconds > BAR else ""
        results.append(Result(name, failure, seconds))
    return results


# --- readers that stand still ----------------------------------------------------------------------------------------

READERS = 100
LARGE = 100 * 1024 * 1024


def _large(_request, connection: socket.socket):
    """Sends 100 MiB, as far as the gate takes it."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
    chunk = b"\0" * 65536
    with contextlib.suppress(OSError):
        for _ in range(LARGE // len(chunk)):
            connection.sendall(chunk)
    return None


def stuck_readers() -> dict[str, float]:
    """KiB of memory of the gate for each client that requests a large body and does not read it, by HTTP version."""
    measured = {}
    for version in ("HTTP/1.1", "HTTP/2"):
        upstream = Upstream(_large)
        # Small buffers of the upstream, so that the memory of the kernel does not decide when it stops.
        upstream.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        with running(upstream.port) as gate:
            # The first ones grow the pools that all connections share.
            opened = [_reader(gate.port, version) for _ in range(4)]
            before = _settled(gate)
            opened += [_reader(gate.port, version) for _ in range(READERS)]
            measured[version] = (_settled(gate) - before) / READERS
            for connection in opened:
                connection.close()
        upstream.stop()
    return measured


def _reader(port: int, version: str):
    if version == "HTTP/1.1":
        connection = Connection(port)
        connection.send(b"GET /open/large HTTP/1.1\r\n" + HOST + b"\r\n")
        return connection
    connection = http2.Connection(port)
    # Windows as large as possible: the client promises to read, and then does not.
    connection.handshake((4, 0x7FFFFFFF))
    connection.send(http2.window_update(0, 0x7FFFFFFF - 65_535) + headers(1, get("/open/large")))
    return connection


def _settled(gate) -> int:
    """Largest resident memory, once it has not grown for two seconds. A busy machine fills buffers in bursts."""
    largest, quiet = 0, 0
    for _ in range(120):
        current = gate.resident_kib()
        quiet = 0 if current > largest + 64 else quiet + 1
        largest = max(largest, current)
        if quiet == 8:
            break
        time.sleep(0.25)
    return largest


# --- idle connections ------------------------------------------------------------------------------------------------

IDLE = 500


def idle_connections() -> float:
    """KiB of memory of the gate for each keep-alive connection after one request."""
    upstream = Upstream()
    with running(upstream.port) as gate:
        opened = [_idle(gate.port) for _ in range(100)]
        before = _settled(gate)
        opened += [_idle(gate.port) for _ in range(IDLE)]
        measured = (_settled(gate) - before) / IDLE
        for connection in opened:
            connection.close()
    upstream.stop()
    return measured


def _idle(port: int) -> Connection:
    connection = Connection(port)
    connection.send(b"GET /open/x HTTP/1.1\r\n" + HOST + b"\r\n")
    connection.response()
    return connection

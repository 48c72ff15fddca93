"""Floods of HTTP/2 frames that cost the sender little: the gate must end the connection or stay within bounds.

RFC 9113 section 10.5 lets a server treat excessive use as ENHANCE_YOUR_CALM. Bounds: the processor time of the gate is at
most 2 s for one flood, its memory grows by at most 16 MiB, and the next client is served.
"""

import os
import pathlib
import struct
import time

from . import http2
from .gate import running
from .hpack import encode, literal
from .http2 import ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, frame, get, headers, settings, window_update
from .result import Result
from .wire import Upstream

MAX_SECONDS, MAX_KIB = 2.0, 16 * 1024


def _many(piece, count: int, batch: int = 100):
    """Sends `piece(n)` for n below `count`, as long as the connection takes it."""
    def flood(connection):
        for start in range(0, count, batch):
            connection.socket.settimeout(5)
            connection.socket.sendall(b"".join(piece(number) for number in range(start, start + batch)))
    return flood


FLOODS = {
    "rapid reset (CVE-2023-44487)": _many(lambda n: headers(1 + 2 * n, get()) + frame(RST_STREAM, 0, 1 + 2 * n, struct.pack(">I", 8)), 20_000),
    "made you reset (CVE-2025-8671)": _many(lambda n: headers(1 + 2 * n, get(__method="POST"), END_HEADERS) + window_update(1 + 2 * n, 0), 20_000),
    "PING": _many(lambda n: frame(PING, 0, 0, b"12345678"), 100_000),
    "PING acknowledgements": _many(lambda n: frame(PING, ACK, 0, b"12345678"), 100_000),
    "SETTINGS": _many(lambda n: settings((3, 100)), 100_000),
    "SETTINGS acknowledgements": _many(lambda n: frame(SETTINGS, ACK, 0), 100_000),
    "PRIORITY": _many(lambda n: frame(PRIORITY, 0, 1 + 2 * (n % 1000), b"\0\0\0\0\x0f"), 100_000),
    "empty DATA": lambda c: (c.send(headers(1, get(__method="POST"), END_HEADERS)), _many(lambda n: frame(DATA, 0, 1), 100_000)(c)),
    "CONTINUATION (CVE-2024-27316)": lambda c: (c.send(frame(HEADERS, END_STREAM, 1, encode(get()))), _many(lambda n: frame(CONTINUATION, 0, 1, literal("x", "a" * 1000)), 20_000)(c)),
    "empty CONTINUATION": lambda c: (c.send(frame(HEADERS, END_STREAM, 1, encode(get()))), _many(lambda n: frame(CONTINUATION, 0, 1), 100_000)(c)),
    "HPACK bomb": _many(lambda n: headers(1 + 2 * n, encode(get()) + b"\x40\x01x\x7f\xa0\x1e" + b"a" * 3999 + b"\xbe" * 12_000 if n == 0 else encode(get()) + b"\xbe" * 12_000), 500, 10),
    "one octet of window at a time": lambda c: (c.send(settings((4, 0)) + headers(1, get())), _many(lambda n: window_update(1, 1), 100_000)(c)),
}


def attacks() -> list[Result]:
    upstream = Upstream()
    results = []
    for name, flood in FLOODS.items():
        with running(upstream.port, "workers = 1") as gate:
            with http2.Connection(gate.port) as client:
                client.handshake()
                client.request(get())
            before, memory = _processor_seconds(gate), gate.resident_kib()
            with http2.Connection(gate.port) as connection:
                connection.handshake()
                try:
                    flood(connection)
                except OSError:
                    pass
                found = connection.outcome(0, 1.0)
                time.sleep(0.2)
                seconds, grown = _processor_seconds(gate) - before, gate.resident_kib() - memory
            lines = gate.log.read_text(errors="replace").count("\n")
            with http2.Connection(gate.port) as client:
                client.handshake()
                served = client.request(get())
            problems = [text for text in (
                f"{seconds:.1f} s of processor time" if seconds > MAX_SECONDS else "", f"{grown} KiB" if grown > MAX_KIB else "",
                f"the next client got {served}" if served != "200" else "", f"{lines} log lines" if lines > 50 and "reset" not in name else "",
            ) if text]
            results.append(Result(name, f"{found}: {', '.join(problems)}" if problems else "", seconds))
    upstream.stop()
    return results


def _processor_seconds(gate) -> float:
    fields = pathlib.Path(f"/proc/{gate.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""WebSocket messages through the gate (RFC 6455): a client of raw frames, and an upstream that follows the RFC strictly.

The gate must pass every frame in both directions, and every end of the connection. So each case has the outcome that the
upstream alone would give: the echoed messages, and the code of the close frame.
"""

import base64
import contextlib
import hashlib
import os
import socket
import struct
import threading

from .gate import running, token
from .result import Result, run_all
from .wire import Connection, Upstream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes = b"", fin: bool = True, reserved: int = 0, mask: bool = True) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
    head = bytes([(FIN if fin else 0) | reserved << 4 | opcode, length[0] | (0x80 if mask else 0)]) + length[1:]
    if not mask:
        return head + payload
    key = b"\x11\x22\x33\x44"
    return head + key + masked(payload, key)


def masked(payload: bytes, key: bytes) -> bytes:
    mask = int.from_bytes((key * (len(payload) // 4 + 1))[:len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ mask).to_bytes(len(payload), "big")


class Failed(Exception):
    """A frame that fails the connection (RFC 6455 section 7.1.7), with the code of section 7.4.1."""

    def __init__(self, code: int):
        self.code = code


class Frames:
    """Reads frames from a socket."""

    def __init__(self, connection: socket.socket, unread: bytes = b""):
        self.socket, self.unread = connection, unread

    def exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self.unread += data
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def read(self) -> tuple[int, int, bytes]:
        """First octet without the opcode, opcode, payload."""
        first, second = self.exactly(2)
        size = second & 0x7F
        if first & 0x08 and size > 125:
            raise Failed(1002)
        if size == 126:
            size = struct.unpack(">H", self.exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.exactly(8))[0]
        key = self.exactly(4) if second & 0x80 else None
        payload = self.exactly(size)
        return first & 0xF0, first & 0x0F, masked(payload, key) if key else payload


def is_close_code(code: int) -> bool:
    """RFC 6455 section 7.4: codes that a close frame may have."""
    return code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014) or 3000 <= code <= 4999


def serve(connection: socket.socket):
    """Echoes messages, and fails the connection as the RFC says."""
    frames, message, kind = Frames(connection), b"", None

    def send(opcode: int, payload: bytes = b""):
        connection.sendall(frame(opcode, payload, mask=False))

    try:
        while True:
            flags, opcode, payload = frames.read()
            fin = flags & FIN
            if flags & 0x70 or opcode in (3, 4, 5, 6, 7) or opcode > PONG or (opcode & 0x08 and not fin):
                raise Failed(1002)
            if opcode == PING:
                send(PONG, payload)
            elif opcode == CLOSE:
                if len(payload) == 1 or (payload and not is_close_code(struct.unpack(">H", payload[:2])[0])):
                    raise Failed(1002)
                if not is_text(payload[2:]):
                    raise Failed(1007)
                send(CLOSE, payload[:2])
                return
            elif opcode in (CONTINUATION, TEXT, BINARY):
                if (opcode == CONTINUATION) == (kind is None):
                    raise Failed(1002)
                kind = opcode or kind
                message += payload
                if kind == TEXT and not (is_text(message) if fin else is_start_of_text(message)):
                    raise Failed(1007)
                if fin:
                    send(kind, message)
                    message, kind = b"", None
    except Failed as failed:
        send(CLOSE, struct.pack(">H", failed.code))
    except (OSError, EOFError):
        pass
    finally:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.close()


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_start_of_text(data: bytes) -> bool:
    """Whether the data can be continued to valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def upgrade(request, connection):
    key = request.values("sec-websocket-key")
    if not key:
        return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    accept = base64.b64encode(hashlib.sha1((key[0] + GUID).encode()).digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    serve(connection)
    return None


# --- cases -----------------------------------------------------------------------------------------------------------

def echo(payload: bytes, opcode: int = TEXT) -> tuple[int, bytes]:
    return opcode, payload


def closed(code: int | None = 1000) -> tuple[int, bytes]:
    return CLOSE, b"" if code is None else struct.pack(">H", code)


BYE = frame(CLOSE, struct.pack(">H", 1000))
CASES = []


def case(name: str, pieces, *expected, end=closed()):
    """Sends pieces, apart from each other, and expects these frames; then the close frame, if `end` is not `None`."""
    CASES.append((name, [pieces] if isinstance(pieces, bytes) else list(pieces), [*expected, *([end] if end else [])]))


def passes(name: str, pieces, *expected):
    case(name, [*([pieces] if isinstance(pieces, bytes) else pieces), BYE], *expected)


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at:at + size] for at in range(0, len(data), size)]


for kind, label in ((TEXT, "text"), (BINARY, "binary")):
    fill = b"*" if kind == TEXT else b"\xfe"
    for size in (0, 1, 124, 125, 126, 127, 128, 255, 4096, 65_534, 65_535, 65_536, 65_537):
        passes(f"5.6: {label} of {size} octets", frame(kind, fill * size), echo(fill * size, kind))
    for size in (65_536, 1 << 20, 4 << 20):
        passes(f"5.6: {label} of {size} octets, in pieces of 997", split(frame(kind, fill * size), 997 if size < 1 << 20 else 99_991), echo(fill * size, kind))
    for size in (1, 64, 1024, 65_536):
        passes(f"5.4: {label} of 64 KiB in frames of {size} octets" if size > 1 else f"5.4: {label} of 300 octets in frames of 1",
               [b"".join(frame(kind if at == 0 else CONTINUATION, fill * size, fin=False) for at in range((65_536 if size > 1 else 300) // size)) + frame(CONTINUATION)],
               echo(fill * (65_536 if size > 1 else 300), kind))
    for size in (0, 16, 256, 4096):
        passes(f"5.4: 100 messages of {size} octets, {label}", b"".join(frame(kind, fill * size) for _ in range(100)), *[echo(fill * size, kind)] * 100)

for size in (0, 1, 124, 125):
    passes(f"5.5.2: ping of {size} octets", frame(PING, b"\xfe" * size), echo(b"\xfe" * size, PONG))
    passes(f"5.5.3: unsolicited pong of {size} octets", frame(PONG, b"\xfe" * size))
case("5.5: ping of 126 octets", frame(PING, b"\xfe" * 126), end=closed(1002))
case("5.5: pong of 126 octets", frame(PONG, b"\xfe" * 126), end=closed(1002))
passes("5.5.2: ping in single octets", split(frame(PING, b"\xfe" * 100), 1), echo(b"\xfe" * 100, PONG))
passes("5.5.2: ten pings", b"".join(frame(PING, b"%d" % number) for number in range(10)), *[echo(b"%d" % number, PONG) for number in range(10)])
passes("5.5.2: ten pings in single octets", split(b"".join(frame(PING, b"%d" % number) for number in range(10)), 1), *[echo(b"%d" % number, PONG) for number in range(10)])
passes("5.5.3: unsolicited pong, then a ping", frame(PONG, b"pong") + frame(PING, b"ping"), echo(b"ping", PONG))
for reserved in range(1, 8):
    case(f"5.2: reserved bits {reserved:03b}", frame(TEXT, b"x", reserved=reserved), end=closed(1002))
    case(f"5.2: reserved bits {reserved:03b} after a message", frame(TEXT, b"one") + frame(TEXT, b"x", reserved=reserved), echo(b"one"), end=closed(1002))
    case(f"5.2: reserved bits {reserved:03b} of a ping", frame(PING, b"x", reserved=reserved), end=closed(1002))
for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    case(f"5.2: reserved opcode {opcode}", frame(opcode), end=closed(1002))
    case(f"5.2: reserved opcode {opcode} with a payload", frame(opcode, b"reserved"), end=closed(1002))
    case(f"5.2: reserved opcode {opcode} after a message", frame(TEXT, b"one") + frame(opcode, b"x") + frame(PING), echo(b"one"), end=closed(1002))
for control, label in ((PING, "ping"), (PONG, "pong")):
    case(f"5.5: {label} in two frames", frame(control, b"one", fin=False) + frame(CONTINUATION, b"two"), end=closed(1002))
passes("5.4: two frames", frame(TEXT, b"one", fin=False) + frame(CONTINUATION, b"two"), echo(b"onetwo"))
passes("5.4: two frames in single octets", split(frame(TEXT, b"one", fin=False) + frame(CONTINUATION, b"two"), 1), echo(b"onetwo"))
passes("5.4: two frames with a ping between", frame(TEXT, b"one", fin=False) + frame(PING, b"ping") + frame(CONTINUATION, b"two"), echo(b"ping", PONG), echo(b"onetwo"))
passes("5.4: two frames with a ping between, apart", [frame(TEXT, b"one", fin=False), frame(PING, b"ping"), frame(CONTINUATION, b"two")], echo(b"ping", PONG), echo(b"onetwo"))
passes("5.4: five frames with pings between", b"".join(frame(TEXT if n == 0 else CONTINUATION, b"%d" % n, fin=n == 4) + frame(PING, b"%d" % n) for n in range(5)),
       *[echo(b"%d" % n, PONG) for n in range(4)], echo(b"01234"), echo(b"4", PONG))
passes("5.4: empty frames", frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), echo(b""))
passes("5.4: empty frames around a text", frame(TEXT, fin=False) + frame(CONTINUATION, b"one", fin=False) + frame(CONTINUATION), echo(b"one"))
for fin in (True, False):
    case(f"5.4: continuation without a start, {'last' if fin else 'not last'}", frame(CONTINUATION, b"one", fin=fin) + frame(TEXT, b"two"), end=closed(1002))
    case(f"5.4: continuation without a start in single octets, {'last' if fin else 'not last'}", split(frame(CONTINUATION, b"one", fin=fin), 1), end=closed(1002))
    case(f"5.4: continuation after a whole message, {'last' if fin else 'not last'}", frame(TEXT, b"one") + frame(CONTINUATION, b"two", fin=fin), echo(b"one"), end=closed(1002))
case("5.4: a text within a text", frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"), end=closed(1002))
case("5.4: a binary within a text", frame(TEXT, b"one", fin=False) + frame(BINARY, b"two"), end=closed(1002))

VALID = ["Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\ufeff",
         "\U0001fffe", "\U0001ffff", "\U0002fffe", "\U0003ffff", "\U0004fffe", "\U0005ffff", "\U0006fffe", "\U0007ffff", "\U0008fffe", "\U0009ffff", "\U000afffe", "\U000bffff",
         "\U000cfffe", "\U000dffff", "\U000efffe", "\U000fffff", "漢字かな交じり文", "𐍈𝄞😀", "z̀́̂̃̄"]
INVALID = [b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf",
           b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80",
           b"\xed\xbe\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfb\xbf\xbf\xbf\xbf",
           b"\xfc\x84\x80\x80\x80\x80", b"\xfd\xbf\xbf\xbf\xbf\xbf", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xce", b"\xce\xba\xe1", b"\xe1\xbd", b"\xf0\x90\x80",
           "κόσμε".encode() + b"\xed\xa0\x80" + b"edited"]
for text in VALID:
    data = text.encode()
    passes(f"8.1: text {text!a}", frame(TEXT, data), echo(data))
    passes(f"8.1: text {text!a} in frames of one octet", b"".join(frame(TEXT if at == 0 else CONTINUATION, data[at:at + 1], fin=at == len(data) - 1) for at in range(len(data))), echo(data))
for data in INVALID:
    case(f"8.1: invalid text {data!r}", frame(TEXT, data), end=closed(1007))
    if not is_start_of_text(data):
        case(f"8.1: invalid text {data!r} in the first of two frames", [frame(TEXT, data, fin=False), frame(CONTINUATION, b"x")], end=closed(1007))
passes("8.1: a code point across frames", frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION, b"\xba"), echo(b"\xce\xba"))
case("7.1.2: close", frame(CLOSE), end=closed(None))
case("7.1.2: close after a message", frame(TEXT, b"one") + frame(CLOSE), echo(b"one"), end=closed(None))
case("7.1.5: nothing after close", BYE + frame(TEXT, b"late") + frame(PING), end=closed())
case("7.1.5: close within a message", frame(TEXT, b"one", fin=False) + BYE + frame(CONTINUATION, b"two"), end=closed())
case("5.5.1: close of one octet", frame(CLOSE, b"\x03"), end=closed(1002))
case("5.5.1: close with a reason", frame(CLOSE, struct.pack(">H", 1000) + b"bye"), end=closed())
case("5.5.1: close with the longest reason", frame(CLOSE, struct.pack(">H", 1000) + b"*" * 123), end=closed())
case("5.5.1: close with too long a reason", frame(CLOSE, struct.pack(">H", 1000) + b"*" * 124), end=closed(1002))
case("5.5.1: close with a reason that is not UTF-8", frame(CLOSE, struct.pack(">H", 1000) + b"\xff"), end=closed(1007))
for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    case(f"7.4: close code {code}", frame(CLOSE, struct.pack(">H", code)), end=closed(code))
for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
    case(f"7.4: invalid close code {code}", frame(CLOSE, struct.pack(">H", code)), end=closed(1002))
passes("5.5.2: a message and a ping together, in one segment", frame(TEXT, b"one") + frame(PING, b"ping"), echo(b"one"), echo(b"ping", PONG))


def _open(port: int) -> Frames:
    connection = Connection(port, 30)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.send(f"GET /api/alice/socket HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token()}\r\nConnection: Upgrade\r\n"
                    f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    response = connection.response()
    expected = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    assert response and response.status == 101 and response.field("sec-websocket-accept") == expected, response
    return Frames(connection.socket, connection.unread)


def websockets() -> list[Result]:
    upstream = Upstream(upgrade)
    with running(upstream.port) as gate:

        def check(one) -> str:
            _, pieces, expected = one
            frames = _open(gate.port)
            with frames.socket:
                # A large echo fills the buffers of both directions, so send and receive together.
                sender = threading.Thread(target=_send, args=(frames.socket, pieces), daemon=True)
                sender.start()
                for wanted in expected:
                    _, opcode, payload = frames.read()
                    if (opcode, payload) != wanted:
                        return f"{opcode:x} with {payload[:40]!r} ({len(payload)} octets), expected {wanted[0]:x} with {wanted[1][:40]!r}"
                try:
                    more = frames.read()
                except (EOFError, ConnectionError):
                    more = None
                return f"{more} after the close frame" if more else ""

        results = run_all(CASES, check, threads=8)
    upstream.stop()
    return results


def _send(connection: socket.socket, pieces: list[bytes]):
    with contextlib.suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)

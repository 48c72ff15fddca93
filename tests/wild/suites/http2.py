"""HTTP/2 on plain sockets, frame by frame (RFC 9113)."""

import socket
import struct
import time

from . import hpack
from .wire import OpenSocket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITY_FLAG, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, \
    COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(12)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def headers(stream: int, fields, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream, fields if isinstance(fields, bytes) else hpack.encode(fields))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


class Closed(Exception):
    """The peer closed the connection."""


class Connection(OpenSocket):
    """Client connection without TLS, by prior knowledge (RFC 9113 section 3.3)."""

    def __init__(self, port: int, seconds: float = 5):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds = seconds
        self.unread = b""
        self.decoder = hpack.Decoder()
        self.settings: dict[int, int] = {}

    def send(self, data: bytes):
        try:
            self.socket.sendall(data)
        except ConnectionError:
            pass

    def receive(self, seconds: float | None = None) -> tuple[int, int, int, bytes]:
        """Next frame: type, flags, stream, payload. Raises `Closed`, or `TimeoutError`."""
        head = self._exactly(9, seconds)
        length = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, self._exactly(length, seconds)

    def _exactly(self, size: int, seconds: float | None) -> bytes:
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while len(self.unread) < size:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise Closed
            self.unread += data
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def handshake(self, *pairs: tuple[int, int]):
        """Exchanges the prefaces, and acknowledges the settings of the peer."""
        self.send(PREFACE + settings(*pairs))
        while True:
            kind, flags, _, payload = self.receive()
            if kind == SETTINGS and not flags & ACK:
                for at in range(0, len(payload), 6):
                    name, value = struct.unpack(">HI", payload[at:at + 6])
                    self.settings[name] = value
                self.send(frame(SETTINGS, ACK, 0))
                return

    def outcome(self, stream: int = 1, seconds: float | None = None) -> str:
        """What happens to a stream: its status, `reset N`, `goaway N`, `closed`, or `silent`."""
        try:
            while True:
                kind, flags, of, payload = self.receive(seconds)
                if kind == HEADERS:
                    # Every head passes the decoder, whose state belongs to the connection.
                    fields = dict(self.decoder.decode(self._block(flags, payload)))
                    if of == stream and fields.get(":status", "")[:1] != "1":
                        return fields.get(":status", "trailers")
                elif kind == RST_STREAM and of == stream:
                    return f"reset {int.from_bytes(payload, 'big')}"
                elif kind == GOAWAY:
                    return f"goaway {int.from_bytes(payload[4:8], 'big')}"
                elif kind == SETTINGS and not flags & ACK:
                    self.send(frame(SETTINGS, ACK, 0))
        except Closed:
            return "closed"
        except TimeoutError:
            return "silent"

    def _block(self, flags: int, payload: bytes) -> bytes:
        if flags & PADDED:
            payload = payload[1:len(payload) - payload[0]]
        if flags & PRIORITY_FLAG:
            payload = payload[5:]
        while not flags & END_HEADERS:
            _, flags, _, more = self.receive()
            payload += more
        return payload

    def request(self, fields, stream: int = 1) -> str:
        self.send(headers(stream, fields))
        return self.outcome(stream)

    def body(self, stream: int = 1) -> bytes:
        """Data of a stream until its end."""
        data = b""
        while True:
            kind, flags, of, payload = self.receive()
            if kind == HEADERS:
                self.decoder.decode(self._block(flags, payload))
            if of == stream and kind == DATA:
                data += payload
            if of == stream and (flags & END_STREAM or kind == RST_STREAM):
                return data

    def is_alive(self, seconds: float | None = None) -> bool:
        """Asks for the echo of a PING."""
        self.send(frame(PING, 0, 0, b"is alive"))
        try:
            while True:
                kind, flags, _, payload = self.receive(seconds)
                if kind == PING and flags & ACK and payload == b"is alive":
                    return True
                if kind == GOAWAY:
                    return False
        except (Closed, TimeoutError):
            return False


def get(path: str = "/open/x", **fields) -> list[tuple[str, str]]:
    """Fields of a request; a value of `None` leaves one out."""
    all_fields = {":method": "GET", ":scheme": "http", ":authority": "gate.test", ":path": path}
    all_fields |= {name.replace("__", ":").replace("_", "-"): value for name, value in fields.items()}
    return [(name, value) for name, value in all_fields.items() if value is not None]

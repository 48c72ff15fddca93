"""HTTP/2 and HPACK, section by section: what a server must accept, and the error it must report otherwise.

Sections are those of RFC 9113 (`9113`) and RFC 7541 (`7541`). A connection error is a GOAWAY with the code of the section,
or any error code before the end of the connection (section 5.4.1). A stream error is an RST_STREAM with the code, or a
connection error. RFC 9113 section 8.1.1 lets a server respond to a malformed request with 400.
"""

import struct

from . import http2
from .gate import running
from .hpack import encode, integer, literal, string
from .http2 import (ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, PADDED,
                    PING, PRIORITY, PRIORITY_FLAG, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, Connection, frame,
                    get, headers, settings, window_update)
from .result import Result, run_all
from .wire import Upstream

ALIVE = "alive"
BLOCK = encode(get())
POST_FIELDS = get(__method="POST")
MAX_FRAME = 16_384


def connection_error(*codes: int) -> set[str]:
    return {"closed", *(f"goaway {code}" for code in codes)}


def stream_error(*codes: int) -> set[str]:
    return connection_error(*codes) | {f"reset {code}" for code in codes}


MALFORMED = stream_error(PROTOCOL_ERROR) | {"400", "421", "501", "405"}
CASES = []


def case(name: str, expected: set[str], *pairs: tuple[int, int]):
    """Registers a case: a function that sends frames after the handshake, and returns the stream to wait for."""
    def register(act):
        CASES.append((name, act, expected, pairs))
        return act
    return register


def sends(name: str, expected: set[str], *frames: bytes, stream: int = 1):
    """Registers a case that only sends frames."""
    def act(connection: Connection):
        connection.send(b"".join(frames))
        return stream
    case(name, expected)(act)


def priority(stream: int, dependency: int, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", dependency, weight))


def reset(stream: int, code: int = http2.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


OK = {"200"}
REQUEST = headers(1, BLOCK)
# A request with an open body, whose response does not come before its end.
OPEN = headers(1, POST_FIELDS, END_HEADERS)

# --- what must work --------------------------------------------------------------------------------------------------

sends("9113 3.4: GET after the preface", OK, REQUEST)
sends("9113 8.1: HEAD", OK, headers(1, get(__method="HEAD")))
sends("9113 8.1: POST with a body", OK, OPEN, frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 8.1: POST with several DATA frames", OK, OPEN, frame(DATA, 0, 1, b"he"), frame(DATA, 0, 1, b"llo"), frame(DATA, END_STREAM, 1))
sends("9113 8.1: POST with trailers", OK, OPEN, frame(DATA, 0, 1, b"hello"), headers(1, [("x-trailer", "x")]))
sends("9113 6.1: DATA with padding", OK, OPEN, frame(DATA, END_STREAM | PADDED, 1, b"\x05hello" + b"\0" * 5))
sends("9113 6.1: DATA with no data", OK, OPEN, frame(DATA, 0, 1), frame(DATA, END_STREAM, 1))
sends("9113 6.2: HEADERS with padding", OK, frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x05" + BLOCK + b"\0" * 5))
sends("9113 6.2: HEADERS with priority", OK, frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0\0\x0f" + BLOCK))
sends("9113 6.2: HEADERS with priority and padding", OK,
      frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG | PADDED, 1, b"\x03\0\0\0\0\x0f" + BLOCK + b"\0" * 3))
sends("9113 6.2: HEADERS with an exclusive dependency", OK, frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, 1, b"\x80\0\0\0\x0f" + BLOCK))
sends("9113 6.10: CONTINUATION", OK, frame(HEADERS, END_STREAM, 1, BLOCK[:9]), frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]))
sends("9113 6.10: several CONTINUATION frames", OK, frame(HEADERS, END_STREAM, 1, BLOCK[:1]), frame(CONTINUATION, 0, 1, BLOCK[1:9]),
      frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]))
sends("9113 6.10: CONTINUATION without fields", OK, frame(HEADERS, END_STREAM, 1, BLOCK), frame(CONTINUATION, END_HEADERS, 1))
for weight in (0, 255):
    sends(f"9113 6.3: PRIORITY with weight {weight + 1}", OK, priority(1, 0, weight), REQUEST)
sends("9113 6.3: PRIORITY with a dependency", OK, priority(3, 1), REQUEST)
sends("9113 6.3: PRIORITY that is exclusive", OK, priority(3, 1 | 1 << 31), REQUEST)
sends("9113 5.1: PRIORITY on an idle stream", OK, priority(9, 0), REQUEST)
sends("9113 5.1: PRIORITY on a half-closed stream", OK, REQUEST, priority(1, 0))
sends("9113 5.1: WINDOW_UPDATE on a half-closed stream", OK, REQUEST, window_update(1, 10))
sends("9113 6.9: WINDOW_UPDATE of the connection", OK, window_update(0, 10), REQUEST)
sends("9113 6.9: WINDOW_UPDATE of a stream", OK, OPEN, window_update(1, 10), frame(DATA, END_STREAM, 1))
sends("9113 6.5: SETTINGS", OK, settings((3, 100)), REQUEST)
sends("9113 6.5: empty SETTINGS", OK, settings(), REQUEST)
sends("9113 6.5.2: unknown setting", OK, settings((0xFF, 1)), REQUEST)
sends("9113 6.5.2: setting of the extension for extended CONNECT", OK, settings((8, 1)), REQUEST)
sends("9113 6.5.2: the last of two values counts", OK, settings((4, 1), (4, 65_535)), REQUEST)
sends("9113 5.1.1: stream identifiers may have gaps", OK, headers(7, BLOCK), stream=7)
sends("9113 4.1: frame of an unknown type", OK, frame(0x16, 0, 0, b"12345678"), REQUEST)
sends("9113 5.5: frame of an unknown type on a stream", OK, OPEN, frame(0x16, 0, 1, b"12345678"), frame(DATA, END_STREAM, 1))
sends("9113 4.1: undefined flags", OK, frame(PING, 0x16, 0, b"12345678"), REQUEST)
sends("9113 4.1: reserved bit of the stream identifier", OK, frame(PING, 0, 1 << 31, b"12345678"), REQUEST)
sends("9113 6.2: undefined flags on HEADERS", OK, frame(HEADERS, END_STREAM | END_HEADERS | 0xD0 & 0x50, 1, BLOCK))
sends("9113 4.2: DATA of the largest size", OK, OPEN, frame(DATA, END_STREAM, 1, b"\0" * MAX_FRAME))
sends("9113 4.2: HEADERS of the largest size", OK, frame(HEADERS, END_STREAM | END_HEADERS, 1, BLOCK + literal("x-a", "a" * (MAX_FRAME - len(BLOCK) - 9))))
sends("9113 7: GOAWAY with an unknown error code", OK, REQUEST, frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xFF)))
sends("9113 7: RST_STREAM with an unknown error code", OK, headers(3, POST_FIELDS, END_HEADERS), reset(3, 0xFF), headers(5, BLOCK), stream=5)
sends("9113 8.2.3: cookies in several fields", OK, headers(1, get() + [("cookie", "a=b"), ("cookie", "c=d")]))
sends("9113 8.3.1: Host instead of :authority", OK, headers(1, get(__authority=None, host="gate.test")))
sends("9113 8.2.2: TE: trailers", OK, headers(1, get(te="trailers")))
sends("9113 8.3.1: OPTIONS *", {"200", "204", "405"}, headers(1, get("*", __method="OPTIONS")))
sends("9113 8.1.1: Content-Length that is right", OK, headers(1, get(__method="POST", content_length="5"), END_HEADERS), frame(DATA, END_STREAM, 1, b"hello"))


@case("9113 6.7: PING is echoed", {ALIVE})
def _(connection):
    return None


@case("9113 6.5.3: SETTINGS are acknowledged", OK)
def _(connection):
    connection.send(settings((3, 50)))
    acknowledged = 0
    while acknowledged < 2:
        kind, flags, _, _ = connection.receive()
        acknowledged += kind == SETTINGS and flags & ACK
    connection.send(REQUEST)
    return 1


@case("9113 3.4: the preface of the server comes first", OK)
def _(connection):
    assert connection.settings is not None
    connection.send(REQUEST)
    return 1


@case("9113 5.1.2: two streams at once", {ALIVE})
def _(connection):
    connection.send(headers(1, BLOCK) + headers(3, encode(get("/open/y"))))
    ended = set()
    while ended != {1, 3}:
        _, flags, stream, _ = found = connection.receive()
        if found[0] in (HEADERS, DATA) and flags & END_STREAM:
            ended.add(stream)
    return None


@case("9113 6.9.1: DATA stays within the window of the stream", OK, (4, 1))
def _(connection):
    connection.send(REQUEST)
    assert connection.outcome() == "200"
    kind, _, _, payload = next(found for found in iter(connection.receive, None) if found[0] == DATA)
    assert len(payload) == 1, payload
    connection.send(window_update(1, 1000) + headers(3, BLOCK) + window_update(3, 1000))
    return 3


@case("9113 6.9.2: a window of zero stops DATA until it is raised", OK, (4, 0))
def _(connection):
    connection.send(REQUEST)
    assert connection.outcome() == "200"
    connection.send(frame(PING, 0, 0, b"no data!"))
    while True:
        kind, flags, _, payload = connection.receive()
        assert kind != DATA or not payload, payload
        if kind == PING and flags & ACK:
            break
    connection.send(settings((4, 1000)))
    kind, _, _, payload = next(found for found in iter(connection.receive, None) if found[0] == DATA)
    assert payload == b"for /open/x", payload
    connection.send(headers(3, BLOCK))
    return 3


@case("9113 6.9.2: a window below zero", OK, (4, 3))
def _(connection):
    connection.send(REQUEST)
    assert connection.outcome() == "200"
    while connection.receive()[0] != DATA:
        pass
    # The window is -1 then, so one more octet needs two.
    connection.send(settings((4, 2)) + window_update(1, 2))
    kind, _, _, payload = next(found for found in iter(connection.receive, None) if found[0] == DATA)
    assert len(payload) == 1, payload
    connection.send(headers(3, BLOCK) + window_update(3, 1000))
    return 3


@case("7541 6.1: indexed field", OK)
def _(connection):
    connection.send(headers(1, b"\x82\x86" + literal(":authority", "gate.test") + literal(":path", "/open/x")))
    return 1


@case("7541 6.2.1: literal field with indexing, and its index", OK)
def _(connection):
    added = b"\x82\x86" + b"\x41" + string("gate.test") + b"\x44" + string("/open/x")
    connection.send(headers(1, added))
    assert connection.outcome() == "200"
    connection.send(headers(3, b"\x82\x86\xbf\xbe"))
    return 3


@case("7541 6.2.1: literal field with indexing and a new name", OK)
def _(connection):
    connection.send(headers(1, BLOCK + b"\x40" + string("x-new") + string("value")))
    assert connection.outcome() == "200"
    connection.send(headers(3, BLOCK + b"\xbe"))
    return 3


@case("7541 6.2.3: literal field that is never indexed", OK)
def _(connection):
    connection.send(headers(1, BLOCK + b"\x10" + string("x-secret") + string("value")))
    return 1


@case("7541 5.2: string with Huffman code", OK)
def _(connection):
    # RFC 7541 appendix C.4.1: "www.example.com".
    connection.send(headers(1, b"\x82\x86\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff" + literal(":path", "/open/x")))
    return 1


@case("7541 6.3: table size update to zero at the start of a block", OK)
def _(connection):
    connection.send(headers(1, b"\x20" + BLOCK))
    return 1


@case("7541 4.2: table size update to zero and back", OK)
def _(connection):
    connection.send(headers(1, b"\x20" + integer(4096, 5, 0x20) + BLOCK))
    return 1


@case("7541 4.4: entry that is larger than the table", OK)
def _(connection):
    connection.send(headers(1, BLOCK + b"\x40" + string("x-large") + string("a" * 5000)))
    return 1


@case("7541 4.2: table of the client of size zero", OK, (1, 0))
def _(connection):
    connection.send(REQUEST)
    return 1


# --- connection errors -----------------------------------------------------------------------------------------------

sends("9113 4.2: PING of the wrong size", connection_error(FRAME_SIZE_ERROR), frame(PING, 0, 0, b"1234567"))
sends("9113 4.2: DATA above the largest size", stream_error(FRAME_SIZE_ERROR), OPEN, frame(DATA, END_STREAM, 1, b"\0" * (MAX_FRAME + 1)))
sends("9113 4.2: HEADERS above the largest size", connection_error(FRAME_SIZE_ERROR), frame(HEADERS, END_STREAM | END_HEADERS, 1, BLOCK + literal("x-a", "a" * MAX_FRAME)))
sends("9113 4.2: unknown frame above the largest size", connection_error(FRAME_SIZE_ERROR), frame(0x16, 0, 0, b"\0" * (MAX_FRAME + 1)))
sends("9113 4.3: field block that cannot be decoded", connection_error(COMPRESSION_ERROR), headers(1, b"\xff\xff\xff\xff\xff\xff\xff\xff"))
sends("9113 4.3: PRIORITY within a field block", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM, 1, BLOCK[:9]), priority(1, 0), frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]))
sends("9113 4.3: HEADERS of another stream within a field block", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM, 1, BLOCK[:9]), headers(3, BLOCK))
sends("9113 4.3: unknown frame within a field block", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM, 1, BLOCK[:9]), frame(0x16, 0, 1, b"12345678"))
sends("9113 5.1: DATA on an idle stream", connection_error(PROTOCOL_ERROR, STREAM_CLOSED), frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 5.1: RST_STREAM on an idle stream", connection_error(PROTOCOL_ERROR), reset(1))
sends("9113 5.1: WINDOW_UPDATE on an idle stream", connection_error(PROTOCOL_ERROR), window_update(1, 10))
sends("9113 5.1: CONTINUATION on an idle stream", connection_error(PROTOCOL_ERROR), frame(CONTINUATION, END_HEADERS, 1, BLOCK))
sends("9113 5.1.1: even stream identifier", connection_error(PROTOCOL_ERROR), headers(2, BLOCK), stream=2)
sends("9113 5.1.1: stream identifier below an earlier one", connection_error(PROTOCOL_ERROR, STREAM_CLOSED), headers(5, POST_FIELDS, END_HEADERS), headers(3, BLOCK), stream=3)
sends("9113 5.4.1: no stream after a connection error", connection_error(FRAME_SIZE_ERROR), frame(PING, 0, 0, b"1"), REQUEST)
sends("9113 6.1: DATA on stream 0", connection_error(PROTOCOL_ERROR), frame(DATA, END_STREAM, 0, b"hello"))
sends("9113 6.1: DATA with too much padding", connection_error(PROTOCOL_ERROR), OPEN, frame(DATA, END_STREAM | PADDED, 1, b"\x06hello"))
sends("9113 6.1: DATA without its padding length", connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR), OPEN, frame(DATA, END_STREAM | PADDED, 1))
sends("9113 6.2: HEADERS on stream 0", connection_error(PROTOCOL_ERROR), headers(0, BLOCK), stream=0)
sends("9113 6.2: HEADERS with too much padding", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, bytes([255]) + BLOCK))
sends("9113 6.3: PRIORITY on stream 0", connection_error(PROTOCOL_ERROR), priority(0, 0), stream=0)
sends("9113 6.3: PRIORITY of the wrong size", stream_error(FRAME_SIZE_ERROR), OPEN, frame(PRIORITY, 0, 1, b"\0\0\0\0"))
sends("9113 6.4: RST_STREAM on stream 0", connection_error(PROTOCOL_ERROR), reset(0), stream=0)
sends("9113 6.4: RST_STREAM of the wrong size", connection_error(FRAME_SIZE_ERROR), OPEN, frame(RST_STREAM, 0, 1, b"\0\0\0"))
sends("9113 6.5: SETTINGS acknowledgement with a payload", connection_error(FRAME_SIZE_ERROR), frame(SETTINGS, ACK, 0, struct.pack(">HI", 3, 100)))
sends("9113 6.5: SETTINGS on a stream", connection_error(PROTOCOL_ERROR), frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100)))
sends("9113 6.5: SETTINGS of the wrong size", connection_error(FRAME_SIZE_ERROR), frame(SETTINGS, 0, 0, b"\0\0\0"))
sends("9113 6.5.2: ENABLE_PUSH of 2", connection_error(PROTOCOL_ERROR), settings((2, 2)))
sends("9113 6.5.2: INITIAL_WINDOW_SIZE above 2^31-1", connection_error(FLOW_CONTROL_ERROR), settings((4, 1 << 31)))
sends("9113 6.5.2: MAX_FRAME_SIZE below 2^14", connection_error(PROTOCOL_ERROR), settings((5, MAX_FRAME - 1)))
sends("9113 6.5.2: MAX_FRAME_SIZE above 2^24-1", connection_error(PROTOCOL_ERROR), settings((5, 1 << 24)))
sends("8441 3: ENABLE_CONNECT_PROTOCOL of 2", connection_error(PROTOCOL_ERROR), settings((8, 2)))
sends("9113 6.6: PUSH_PROMISE of a client", connection_error(PROTOCOL_ERROR), OPEN, frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02" + BLOCK))
sends("9113 6.7: PING on a stream", connection_error(PROTOCOL_ERROR), frame(PING, 0, 1, b"12345678"))
sends("9113 6.7: PING with 9 octets", connection_error(FRAME_SIZE_ERROR), frame(PING, 0, 0, b"123456789"))
sends("9113 6.8: GOAWAY on a stream", connection_error(PROTOCOL_ERROR), frame(GOAWAY, 0, 1, struct.pack(">II", 0, 0)))
sends("9113 6.8: GOAWAY of the wrong size", connection_error(FRAME_SIZE_ERROR), frame(GOAWAY, 0, 0, b"\0" * 7))
sends("9113 6.9: WINDOW_UPDATE of zero for the connection", connection_error(PROTOCOL_ERROR), window_update(0, 0), stream=0)
sends("9113 6.9: WINDOW_UPDATE of zero for a stream", stream_error(PROTOCOL_ERROR), OPEN, window_update(1, 0))
sends("9113 6.9: WINDOW_UPDATE of the wrong size", connection_error(FRAME_SIZE_ERROR), frame(WINDOW_UPDATE, 0, 0, b"\0\0\0"))
sends("9113 6.9.1: window of the connection above 2^31-1", connection_error(FLOW_CONTROL_ERROR), window_update(0, 0x7FFFFFFF), window_update(0, 0x7FFFFFFF), stream=0)
sends("9113 6.9.1: window of a stream above 2^31-1", stream_error(FLOW_CONTROL_ERROR), OPEN, window_update(1, 0x7FFFFFFF), window_update(1, 0x7FFFFFFF))
sends("9113 6.9.2: INITIAL_WINDOW_SIZE that overflows a window", stream_error(FLOW_CONTROL_ERROR), OPEN, window_update(1, 0x7FFF0000), settings((4, 0x7FFFFFFF)))
sends("9113 6.10: CONTINUATION on stream 0", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM, 1, BLOCK[:9]), frame(CONTINUATION, END_HEADERS, 0, BLOCK[9:]))
sends("9113 6.10: CONTINUATION after END_HEADERS", connection_error(PROTOCOL_ERROR), OPEN, frame(CONTINUATION, END_HEADERS, 1, literal("x-a", "a")))
sends("9113 6.10: CONTINUATION after CONTINUATION with END_HEADERS", connection_error(PROTOCOL_ERROR), frame(HEADERS, 0, 1, encode(POST_FIELDS)),
      frame(CONTINUATION, END_HEADERS, 1), frame(CONTINUATION, END_HEADERS, 1))
sends("9113 6.10: CONTINUATION after DATA", connection_error(PROTOCOL_ERROR), OPEN, frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1))
sends("9113 6.10: CONTINUATION of another stream", connection_error(PROTOCOL_ERROR), frame(HEADERS, END_STREAM, 1, BLOCK[:9]), frame(CONTINUATION, END_HEADERS, 3, BLOCK[9:]))
sends("9113 6.10: DATA within a field block", connection_error(PROTOCOL_ERROR), frame(HEADERS, 0, 1, BLOCK), frame(DATA, END_STREAM, 1, b"x"))
sends("7541 2.3.3: index beyond the tables", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + integer(70, 7, 0x80)))
sends("7541 2.3.3: name index beyond the tables", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + integer(70, 6, 0x40) + string("value")))
sends("7541 6.1: index of zero", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x80"))
sends("7541 4.2: table size update at the end of a block", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x20"))
sends("7541 6.3: table size above the limit", connection_error(COMPRESSION_ERROR), headers(1, integer(4097, 5, 0x20) + BLOCK))
sends("7541 5.2: Huffman padding longer than 7 bits", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x00\x03x-a\x82\x1f\xff"))
sends("7541 5.2: Huffman padding of zeros", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x00\x03x-a\x81\x18"))
sends("7541 5.2: Huffman end of string", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x00\x03x-a\x84\xff\xff\xff\xff"))
sends("7541 5.1: integer of too many octets", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x00\x7f" + b"\x80" * 12 + b"\x01"))
sends("7541 5.2: string beyond the block", connection_error(COMPRESSION_ERROR), headers(1, BLOCK + b"\x00\x03x-a\x09abc"))

# --- stream errors and malformed requests ----------------------------------------------------------------------------

sends("9113 5.1: DATA on a half-closed stream", stream_error(STREAM_CLOSED), headers(1, get("/open/slow")), frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 5.1: HEADERS on a half-closed stream", stream_error(STREAM_CLOSED), headers(1, get("/open/slow")), REQUEST)
sends("9113 5.1: CONTINUATION on a half-closed stream", connection_error(STREAM_CLOSED, PROTOCOL_ERROR), headers(1, get("/open/slow")), frame(CONTINUATION, END_HEADERS, 1, BLOCK))
sends("9113 5.1: DATA after RST_STREAM", stream_error(STREAM_CLOSED), OPEN, reset(1), frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 5.1: HEADERS after RST_STREAM", stream_error(STREAM_CLOSED), OPEN, reset(1), REQUEST)
sends("9113 5.1: CONTINUATION after RST_STREAM", connection_error(STREAM_CLOSED, PROTOCOL_ERROR), OPEN, reset(1), frame(CONTINUATION, END_HEADERS, 1, BLOCK))


@case("9113 5.1: HEADERS on a closed stream", connection_error(STREAM_CLOSED, PROTOCOL_ERROR))
def _(connection):
    connection.send(REQUEST)
    assert connection.outcome() == "200"
    connection.body()
    connection.send(REQUEST)
    return 1


@case("9113 5.1: DATA on a closed stream", stream_error(STREAM_CLOSED, PROTOCOL_ERROR))
def _(connection):
    connection.send(REQUEST)
    assert connection.outcome() == "200"
    connection.body()
    connection.send(frame(DATA, END_STREAM, 1, b"hello"))
    return 1


@case("9113 5.1.2: more streams than the limit", stream_error(PROTOCOL_ERROR, http2.REFUSED_STREAM))
def _(connection):
    limit = connection.settings.get(3)
    assert limit is not None, "no limit on concurrent streams"
    connection.send(b"".join(headers(1 + 2 * number, POST_FIELDS, END_HEADERS) for number in range(limit + 1)))
    return 1 + 2 * limit


sends("9113 5.3.1, 7540 5.3.1: HEADERS that depend on themselves", stream_error(PROTOCOL_ERROR) | OK, frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0\x01\x0f" + BLOCK))
sends("9113 5.3.1, 7540 5.3.1: PRIORITY that depends on itself", stream_error(PROTOCOL_ERROR) | OK, priority(1, 1), REQUEST)
for name, fields in {
    "8.2.1: upper-case field name": get() + [("X-Test", "a")],
    "8.2.1: space in a field name": get() + [("x test", "a")],
    "8.2.1: colon in a field name": get() + [("x:test", "a")],
    "8.2.1: empty field name": get() + [("", "a")],
    "8.2.1: NUL in a field value": get() + [("x-test", "a\0b")],
    "8.2.1: LF in a field value": get() + [("x-test", "a\nb")],
    "8.2.1: CR in a field value": get() + [("x-test", "a\rb")],
    "8.2.2: Connection": get() + [("connection", "keep-alive")],
    "8.2.2: Keep-Alive": get() + [("keep-alive", "timeout=5")],
    "8.2.2: Proxy-Connection": get() + [("proxy-connection", "keep-alive")],
    "8.2.2: Transfer-Encoding": get() + [("transfer-encoding", "chunked")],
    "8.2.2: Upgrade": get() + [("upgrade", "foo")],
    "8.2.2: TE other than trailers": get() + [("te", "trailers, deflate")],
    "8.3: unknown pseudo-header field": get() + [(":test", "a")],
    "8.3: pseudo-header field of a response": get() + [(":status", "200")],
    "8.3: pseudo-header field after a field": [("x-test", "a"), *get()],
    "8.3.1: no :method": get(__method=None),
    "8.3.1: no :scheme": get(__scheme=None),
    "8.3.1: no :path": get(__path=None),
    "8.3.1: empty :path": get(""),
    "8.3.1: empty :method": get(__method=""),
    "8.3.1: :path without a slash": get("open/x"),
    "8.3.1: :path with a fragment": get("/open/x#y"),
    "8.3.1: :path that is a fragment": get("#y"),
    "8.3.1: :path that is a query": get("?y"),
    "8.3.1: :path in absolute form": get("http://gate.test/open/x"),
    "8.3.1: :path with a space": get("/open/x y"),
    "8.3.1: :path * for GET": get("*"),
    "8.3.1: two :method fields": [(":method", "GET"), *get()],
    "8.3.1: two :scheme fields": [(":scheme", "http"), *get()],
    "8.3.1: two :path fields": [(":path", "/open/y"), *get()],
    "8.3.1: two :authority fields": [(":authority", "gate.test"), *get()],
    "8.3.1: :authority with user information": get(__authority="user@gate.test"),
    "8.3.1: :authority with a path": get(__authority="gate.test/x"),
    "8.3.1: empty :authority": get(__authority=""),
    "8.3.1: Host differs from :authority": get() + [("host", "other.test")],
    "8.3.1: neither :authority nor Host": get(__authority=None),
    "8.3.1: :scheme with a colon": get(__scheme="http:"),
    "8.3.1: :scheme of another protocol": get(__scheme="ftp"),
    "8.3.1: :scheme https on plaintext": get(__scheme="https"),
    "8.5: CONNECT with :path": get(__method="CONNECT"),
    "8.5: CONNECT": [(":method", "CONNECT"), (":authority", "gate.test:80")],
}.items():
    sends(f"9113 {name}", MALFORMED, headers(1, fields))
sends("9113 8.1: second HEADERS without END_STREAM", MALFORMED, OPEN, headers(1, [("x-test", "a")], END_HEADERS))
sends("9113 8.1: pseudo-header field in trailers", MALFORMED, OPEN, frame(DATA, 0, 1, b"x"), headers(1, [(":method", "POST")]))
sends("9113 8.1: upper-case name in trailers", MALFORMED, OPEN, frame(DATA, 0, 1, b"x"), headers(1, [("X-Test", "a")]))
sends("9113 8.1.1: Content-Length below the body", MALFORMED, headers(1, get(__method="POST", content_length="1"), END_HEADERS), frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 8.1.1: Content-Length above the body", MALFORMED, headers(1, get(__method="POST", content_length="9"), END_HEADERS), frame(DATA, END_STREAM, 1, b"hello"))
sends("9113 8.1.1: Content-Length below several DATA frames", MALFORMED, headers(1, get(__method="POST", content_length="1"), END_HEADERS), frame(DATA, 0, 1, b"he"), frame(DATA, END_STREAM, 1, b"llo"))
sends("9113 8.1.1: Content-Length without a body", MALFORMED, headers(1, get(__method="POST", content_length="5")))

# --- prefaces --------------------------------------------------------------------------------------------------------

PREFACES = [
    ("9113 3.4: preface of another version", b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n" + settings()),
    ("9113 3.4: preface without SETTINGS", http2.PREFACE + headers(1, BLOCK)),
    ("9113 3.4: preface with a PING first", http2.PREFACE + frame(PING, 0, 0, b"12345678")),
    ("9113 3.4: preface with other letters", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings()),
]


def spec() -> list[Result]:
    def slow(request, connection):
        body = f"for {request.target}".encode()
        if "slow" in request.target:
            # Long enough that the frames after the request arrive before its response.
            connection.settimeout(1)
            try:
                connection.recv(1)
            except TimeoutError:
                pass
        if request.line.startswith("HEAD "):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    upstream = Upstream(slow)
    with running(upstream.port, 'header_timeout = "5s"\nbody_timeout = "5s"') as gate:

        def check(one) -> str:
            _, act, expected, pairs = one
            with Connection(gate.port) as connection:
                connection.handshake(*pairs)
                stream = act(connection)
                found = (ALIVE if connection.is_alive() else "dead") if stream is None else connection.outcome(stream)
                if found.startswith("goaway") and found != "goaway 0" and connection.is_closed(3):
                    found = "closed"
                if found not in expected:
                    return f"{found}, expected {' or '.join(sorted(expected))}"
                # A stream error leaves the connection usable.
                if found.startswith("reset") and not connection.is_alive():
                    return f"{found}, and the connection is dead"
            return ""

        def check_preface(one) -> str:
            with Connection(gate.port) as connection:
                connection.send(one[1])
                found = connection.outcome()
                rejected = found == "closed" or found.startswith("goaway")
                # An invalid preface is a request of HTTP/1.1.
                is_http1 = b"HTTP/1.1 4" in connection.unread or found == "silent"
                return "" if rejected or is_http1 else found

        results = run_all(CASES, check) + run_all(PREFACES, check_preface)
    upstream.stop()
    return results

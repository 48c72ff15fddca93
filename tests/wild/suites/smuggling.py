"""Request smuggling: messages that two parsers could split differently (RFC 9112 section 11.2).

A trophy is a request for `/open/smuggled`, which no client sent by any valid reading, at the upstream; a second response
on the connection of the client; or a forwarded head with an unclear length. Each case also asks for its own target
afterwards, over another connection, and must get its own response.
"""

import itertools

from .gate import running
from .result import Result, run_all
from .wire import Connection, Upstream

HOST = b"Host: gate.test\r\n"
INNER = b"GET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"
_numbers = itertools.count(1)

# Spellings of Transfer-Encoding that some parsers accept as chunked, and others ignore.
_CODINGS = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:\x0cchunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: 'chunked'", b"transfer-encoding: Chunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunk\r\n ed",
    b" Transfer-Encoding: chunked", b"X: x\nTransfer-Encoding: chunked", b"X: x\rTransfer-Encoding: chunked", b"Transfer_Encoding: chunked",
    b"Transfer.Encoding: chunked", b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: \x00chunked", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: chunked,", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: \xc4\x8dhunked", b"Transfer-Encoding\x00: chunked",
    b"Transfer-Encod\xc4\xb1ng: chunked", b"HTTP_TRANSFER_ENCODING: chunked", b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
]
_LENGTHS = [
    b"Content-Length: {n}\r\nContent-Length: 0", b"Content-Length: 0\r\nContent-Length: {n}", b"Content-Length: {n}, 0", b"Content-Length: 0, {n}",
    b"Content-Length: +{n}", b"Content-Length: 0{n}", b"Content-Length: {n} ", b"Content-Length:{n}", b"Content-Length: {n}\x0b", b"Content-Length: \x0b{n}",
    b"Content-Length : {n}", b"Content_Length: {n}", b"Content.Length: {n}", b" Content-Length: {n}", b"Content-Length: 0x{n}", b"Content-Length: {n}.0",
    b"Content-Length: -{n}", b"Content-Length: {n}\x00", b"Content-Length\r\n: {n}", b"Content-Length:\r\n {n}", b"Connection: content-length\r\nContent-Length: {n}",
    b"HTTP_CONTENT_LENGTH: {n}", b"X: x\nContent-Length: {n}", b"X: x\rContent-Length: {n}", b"Content-Length: 1844674407370955161{n}",
]
_CHUNKS = [
    # Chunk lines and ends that move the boundary for a lenient parser.
    b"0\r\n\r\n" + INNER, b"0;\r\n\r\n" + INNER, b"0\r\n\n" + INNER, b"0\n\n" + INNER, b"0\r\r\n" + INNER, b"00000000\r\n\r\n" + INNER,
    b"1;a=\n2\r\nx\r\n0\r\n\r\n" + INNER, b"1\r\nZ\r\nQ" + INNER, b"5\r\nhello0\r\n\r\n" + INNER, b"5\nhello\n0\n\n" + INNER,
    b"0x0\r\n\r\n" + INNER, b"-0\r\n\r\n" + INNER, b"\x000\r\n\r\n" + INNER, b"0\x00\r\n\r\n" + INNER, b"10000000000000000\r\n\r\n" + INNER,
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + INNER, b"0\r\nContent-Length: 90\r\n\r\n" + INNER, b"0\r\nX-User-Id: bob\r\n\r\n" + INNER,
]


def _cases():
    chunked = b"0\r\n\r\n" + INNER
    for coding in _CODINGS:
        # Read by Content-Length, INNER is the body; read as chunked, it is a second request.
        yield f"{coding!r}, then Content-Length", b"POST {t} HTTP/1.1\r\n" + HOST + coding + b"\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked
    for coding in _CODINGS[::4]:
        yield f"Content-Length, then {coding!r}", b"POST {t} HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(chunked) + coding + b"\r\n\r\n" + chunked
    for length in _LENGTHS:
        # Without a length, INNER is the next request: so the connection says close.
        close = b"Connection: close\r\n" if b"Content-Length" not in length else b""
        yield repr(length), b"POST {t} HTTP/1.1\r\n" + close + HOST + length.replace(b"{n}", b"%d" % len(INNER)) + b"\r\n\r\n" + INNER
    for chunk in _CHUNKS:
        # A correct reading ends before INNER and serves it as a request of its own: so the connection says close.
        yield f"chunk {chunk.split(INNER)[0]!r}", b"POST {t} HTTP/1.1\r\nConnection: close\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    for version in (b"HTTP/1.0", b"HTTP/0.9"):
        yield f"chunked in {version.decode()}", b"POST {t} " + version + b"\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked
    yield "GET with a body that the API may not read", b"GET {t} HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER
    yield "HEAD with a body", b"HEAD {t} HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER
    yield "DELETE with a chunked body", b"DELETE {t} HTTP/1.1\r\nConnection: close\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n"
    yield "an expectation before the body", b"POST {t} HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER
    yield "an upgrade that the API refuses", b"GET {t} HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 9\r\nSec-WebSocket-Key: x\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER
    yield "line end in the target", b"GET {t}\r\n\r\n" + INNER.replace(b"GET ", b"GET", 1)
    yield "encoded line end in the target", b"GET {t}%0d%0aHost:%20x%0d%0a%0d%0aGET%20/open/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    yield "CR in a field value", b"GET {t} HTTP/1.1\r\n" + HOST + b"X: a\r\rGET /open/smuggled HTTP/1.1\r\n\r\n"
    yield "LF LF in a field", b"GET {t} HTTP/1.1\r\nConnection: close\r\n" + HOST + b"X: a\n\n" + INNER


def _check(port: int, upstream: Upstream):
    def check(case) -> str:
        _, data = case
        target = b"/open/smuggle/%d" % next(_numbers)
        data = data.replace(b"{t}", target)
        method = data.split(b" ")[0].decode()
        with Connection(port, 8) as client:
            client.send(data)
            try:
                first = client.response(method)
                second = client.response() if first else None
            except (TimeoutError, ConnectionError, ValueError):
                second = None
        if second is not None:
            return f"a second response: {second.status} {second.body[:60]!r}"
        with Connection(port, 15) as client:
            own = target + b"/own"
            client.send(b"GET %s HTTP/1.1\r\n" % own + HOST + b"\r\n")
            response = client.response()
            if response is None or response.body != b"for " + own:
                return f"the next client got {response}"
        return ""
    return check


def smuggling() -> list[Result]:
    upstream = Upstream()
    # Short, because an incomplete body must end first.
    with running(upstream.port, 'header_timeout = "2s"\nbody_timeout = "2s"\nidle_timeout = "1s"') as gate:
        results = run_all(list(_cases()), _check(gate.port, upstream))
        results += [Result(f"smuggled: {request.raw!r}", "reached the upstream") for request in upstream.seen("smuggled")
                    if not request.target.startswith("/open/smuggle/")]
        results += [Result(f"unclear head: {head!r}", "reached the upstream") for head in upstream.invalid]
    upstream.stop()
    return results

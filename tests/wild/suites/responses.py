"""Responses of a broken or hostile upstream (RFC 9112, RFC 9110): none may be passed on as another message.

Each is 502, a response that is cut off visibly, or the clean form that the section allows. The next request over the same
connection of the client, or a new one, gets its own response.
"""

import itertools

from .gate import running
from .result import Result, run_all
from .wire import Connection, Upstream, respond

_numbers = itertools.count(1)
OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"hello"
BAD, CUT, CLEAN = "502", "cut off", "200"


def _fields(lines: bytes, body: bytes = BODY, start: bytes = OK) -> bytes:
    return start + lines + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
# Name, bytes of the response, accepted outcomes. The upstream closes the connection after each.
CASES = [
    ("9112 4: garbage", b"\x00\x01garbage\r\n\r\n", {BAD}),
    ("9112 4: HTTP/0.9", b"hello without a head", {BAD}),
    ("9112 4: two status lines", OK + _fields(b"Content-Length: 5\r\n"), {BAD}),
    ("9112 4: status of two digits", _fields(b"", start=b"HTTP/1.1 20 OK\r\n"), {BAD}),
    ("9112 4: status of four digits", _fields(b"", start=b"HTTP/1.1 2000 OK\r\n"), {BAD}),
    ("9112 4: status 000", _fields(b"", start=b"HTTP/1.1 000 OK\r\n"), {BAD}),
    ("9112 2.3: HTTP/2.0", _fields(b"Content-Length: 5\r\n", start=b"HTTP/2.0 200 OK\r\n"), {BAD}),
    ("9112 4: no space before the reason", _fields(b"Content-Length: 5\r\n", start=b"HTTP/1.1 200\r\n"), {CLEAN, BAD}),
    ("9112 4: end without a response", b"", {BAD}),
    ("9112 4: end within the head", OK + b"Content-Le", {BAD}),
    ("9110 5.4: large head", OK + b"X-Large: " + b"a" * 2_000_000 + b"\r\n\r\n", {BAD}),
    ("9110 5.4: a thousand fields", OK + b"X-Many: a\r\n" * 1000 + b"Content-Length: 5\r\n\r\nhello", {CLEAN, BAD}),
    ("9110 5.4: 101 fields", OK + b"X-Many: a\r\n" * 100 + b"Content-Length: 5\r\n\r\nhello", {CLEAN}),
    ("9110 5.5: NUL in a value", _fields(b"X-Bad: a\x00b\r\nContent-Length: 5\r\n"), {BAD}),
    ("9110 5.5: bare CR in a value", _fields(b"X-Bad: a\rb\r\nContent-Length: 5\r\n"), {BAD}),
    ("9112 5.1: space before the colon", _fields(b"Content-Length : 5\r\n"), {BAD}),
    ("9112 5.2: continuation line", _fields(b"X-Old: a\r\n b\r\nContent-Length: 5\r\n"), {BAD, CLEAN}),
    ("9112 6.3: two lengths", _fields(b"Content-Length: 5\r\nContent-Length: 6\r\n"), {BAD}),
    ("9112 6.3: list of two lengths", _fields(b"Content-Length: 5, 6\r\n"), {BAD}),
    ("9112 6.3: two equal lengths", _fields(b"Content-Length: 5\r\nContent-Length: 5\r\n"), {BAD, CLEAN}),
    ("9110 8.6: length with a plus sign", _fields(b"Content-Length: +5\r\n"), {BAD}),
    ("9110 8.6: negative length", _fields(b"Content-Length: -5\r\n"), {BAD}),
    ("9110 8.6: length in words", _fields(b"Content-Length: five\r\n"), {BAD}),
    ("9110 8.6: length above 2^64", _fields(b"Content-Length: 18446744073709551621\r\n"), {BAD}),
    ("9110 8.6: leading zero", _fields(b"Content-Length: 05\r\n"), {CLEAN, BAD}),
    ("9112 6.3: length and chunks", _fields(b"Content-Length: 5\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), {CLEAN, BAD}),
    ("9112 6.1: chunked twice", _fields(b"Transfer-Encoding: chunked, chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), {BAD}),
    ("9112 6.1: unknown coding", _fields(b"Transfer-Encoding: x-unknown\r\n"), {BAD}),
    ("9112 6.1: gzip, chunked", _fields(b"Transfer-Encoding: gzip, chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), {BAD}),
    ("9112 6.3: end within the length", _fields(b"Content-Length: 50\r\n"), {CUT, BAD}),
    ("9112 7.1: end within a chunk", _fields(CHUNKED, b"50\r\nhello"), {CUT, BAD}),
    ("9112 7.1: end without the last chunk", _fields(CHUNKED, b"5\r\nhello\r\n"), {CUT, BAD}),
    ("9112 7.1: chunk size in letters", _fields(CHUNKED, b"5\r\nhello\r\nzz\r\n"), {CUT, BAD}),
    ("9112 7.1: chunk size above 2^64", _fields(CHUNKED, b"5\r\nhello\r\n10000000000000000\r\n"), {CUT, BAD}),
    ("9112 7.1: data longer than its chunk", _fields(CHUNKED, b"3\r\nhello\r\n0\r\n\r\n"), {CUT, BAD}),
    ("9112 6.3: more than the length", _fields(b"Content-Length: 5\r\n", b"hello and more"), {CLEAN}),
    ("9110 15.2.2: 101 that was not asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", {BAD}),
    ("9110 15.2: a hundred 1xx", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100 + _fields(b"Content-Length: 5\r\n"), {CLEAN, BAD}),
    ("9110 8.6: 1xx with a length", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + _fields(b"Content-Length: 5\r\n"), {CLEAN, BAD}),
    ("9112 9.3: HTTP/1.0 without a length", _fields(b"", start=b"HTTP/1.0 200 OK\r\n"), {CLEAN}),
    ("9112 6.3: body until the end", _fields(b""), {CLEAN}),
]
# The status and fields of messages without a body (RFC 9110 sections 6.4.1 and 8.6).
BODILESS = [
    ("9110 8.6: 204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204),
    ("9112 6.1: 204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204),
    ("9110 8.6: 304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
]


def responses() -> list[Result]:
    prepared: dict[str, bytes] = {}

    def handler(request, connection):
        data = prepared.get(request.target)
        if data is None:
            return respond(request)
        connection.sendall(data)
        connection.close()
        return None

    upstream = Upstream(handler)
    with running(upstream.port, upstream='response_timeout = "3s"') as gate:

        def ask(client: Connection, target: str):
            client.send(f"GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n".encode())
            return client.response()

        def own(client: Connection | None, target: str) -> str:
            with client or Connection(gate.port) as client:
                response = ask(client, f"{target}/own")
                is_own = response is not None and response.status == 200 and response.body == f"for {target}/own".encode()
                return "" if is_own else f"the next request got {response}"

        def check(case) -> str:
            _, data, expected = case
            target = f"/open/response/{next(_numbers)}"
            prepared[target] = data
            client = Connection(gate.port)
            try:
                response = ask(client, target)
                found = "closed" if response is None else str(response.status)
                if found == CLEAN and response.body != BODY:
                    return f"200 with {response.body!r}"
            except (ConnectionError, ValueError):
                found = CUT
            if found not in expected:
                return f"{found}, expected {' or '.join(sorted(expected))}"
            is_kept = found in (BAD, CLEAN) and (response.field("connection") or "") != "close"
            if not is_kept:
                client.close()
            return own(client if is_kept else None, target)

        def check_bodiless(case) -> str:
            _, data, status = case
            target = f"/open/response/{next(_numbers)}"
            prepared[target] = data
            client = Connection(gate.port)
            response = ask(client, target)
            if response is None or response.status != status:
                return f"{response}"
            if status == 204 and (response.field("content-length") or response.field("transfer-encoding")):
                return f"{response.fields}"
            return own(client, target)

        results = run_all(CASES, check) + run_all(BODILESS, check_bodiless)
    upstream.stop()
    return results

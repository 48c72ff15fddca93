"""HTTP/2 requests whose fields would be dangerous in the HTTP/1.1 request that is made of them (RFC 9113 section 10.3).

Each is rejected, or the upstream receives one request with a clear length, for the target that was asked for.
"""

import itertools

from . import http2
from .gate import running
from .http2 import DATA, END_HEADERS, END_STREAM, frame, get, headers
from .result import Result, run_all
from .wire import Upstream

INNER = "GET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"
_numbers = itertools.count(1)

REJECTED = "rejected"
CLEAN = "clean"


def _post(**fields):
    return get(**({"__method": "POST"} | fields))


def _with(*pairs, body: bytes | None = None, **fields):
    base = _post(**fields) if body is not None else get(**fields)
    return base + list(pairs), body


CASES = [
    *((f"{what} in a field value", _with(("x-test", f"a{text}{INNER}")), REJECTED) for what, text in {"CR LF": "\r\n", "LF": "\n", "CR": "\r", "NUL": "\0"}.items()),
    *((f"{what} in a field name", _with((f"x-test{text}x", "a")), REJECTED)
      for what, text in {"CR LF": ": a\r\nx-user-id: bob\r\nx", "LF": "\n", "colon": ": a", "space": " ", "NUL": "\0", "upper case": "X", "not ASCII": "\xe4", "tab": "\t"}.items()),
    *((f"{what} in :method", _with(__method=f"GET{text}"), REJECTED) for what, text in {"CR LF": f" /open/x HTTP/1.1\r\n\r\n{INNER}", "space": " /open/x", "slash": "/x"}.items()),
    *((f"{what} in :path", _with(__path="{t}" + text), REJECTED)
      for what, text in {"CR LF": f" HTTP/1.1\r\n\r\n{INNER}", "space and version": " HTTP/1.1", "LF": "\n", "tab": "\t", "NUL": "\0", "not ASCII": "\xe4"}.items()),
    *((f"{what} in :authority", _with(__authority=f"gate.test{text}"), REJECTED)
      for what, text in {"CR LF": "\r\nx-user-id: bob", "space": " x", "path": "/x", "query": "?x", "comma": ",other.test", "port in letters": ":x"}.items()),
    *((f"{what} in :scheme", _with(__scheme=f"http{text}"), REJECTED) for what, text in {"URL": "://gate.test/open/smuggled?", "CR LF": "\r\nx: x", "colon": ":"}.items()),
    ("Transfer-Encoding: chunked", _with(("transfer-encoding", "chunked"), body=b"0\r\n\r\n" + INNER.encode()), REJECTED),
    ("Transfer-Encoding with Content-Length", _with(("transfer-encoding", "chunked"), ("content-length", "5"), body=b"hello"), REJECTED),
    ("Transfer-Encoding in another spelling", _with(("transfer_encoding", "chunked"), body=b"0\r\n\r\n" + INNER.encode()), CLEAN),
    ("Connection: close", _with(("connection", "close")), REJECTED),
    ("Connection names the identity header", _with(("connection", "x-user-id")), REJECTED),
    ("Upgrade", _with(("upgrade", "websocket")), REJECTED),
    ("Host beside :authority, equal", _with(("host", "gate.test")), CLEAN),
    ("Host beside :authority, different", _with(("host", "other.test")), REJECTED),
    ("two Host fields", _with(("host", "gate.test"), ("host", "gate.test"), __authority=None), REJECTED),
    ("Content-Length shorter than the body", _with(("content-length", "5"), body=b"hello" + INNER.encode()), REJECTED),
    ("Content-Length of zero with a body", _with(("content-length", "0"), body=INNER.encode()), REJECTED),
    ("Content-Length longer than the body", _with(("content-length", "500"), body=b"hello"), REJECTED),
    ("two Content-Length fields, different", _with(("content-length", "5"), ("content-length", "6"), body=b"hello"), REJECTED),
    ("Content-Length with a plus sign", _with(("content-length", "+5"), body=b"hello"), REJECTED),
    ("Content-Length with a leading zero", _with(("content-length", "05"), body=b"hello"), CLEAN),
    ("Content-Length in another spelling", _with(("content_length", "500"), body=b"hello"), CLEAN),
    ("GET with a body without a length", _with(body=INNER.encode(), __method="GET"), CLEAN),
    ("POST with a body without a length", _with(body=INNER.encode()), CLEAN),
    ("POST without a body", _with(body=b""), CLEAN),
    ("Expect: 100-continue", _with(("expect", "100-continue"), ("content-length", "5"), body=b"hello"), CLEAN),
    # The library cuts the fragment before the gate judges the target, so the target sent is the one judged.
    ("fragment in :path", _with(__path="{t}#/../smuggled"), CLEAN),
    ("Keep-Alive", _with(("keep-alive", "timeout=5")), REJECTED),
    ("TE: chunked", _with(("te", "chunked")), REJECTED),
]


def downgrade() -> list[Result]:
    upstream = Upstream()
    with running(upstream.port, 'body_timeout = "3s"') as gate:

        def check(case) -> str:
            _, (fields, body), expected = case
            target = f"/open/{next(_numbers)}/own"
            fields = [(name, value.replace("{t}", target) if "{t}" in value else target if (name, value) == (":path", "/open/x") else value)
                      for name, value in fields]
            with http2.Connection(gate.port, 10) as connection:
                connection.handshake()
                connection.send(headers(1, fields, END_HEADERS | (END_STREAM if body is None else 0)))
                if body is not None:
                    connection.send(frame(DATA, END_STREAM, 1, body))
                found = connection.outcome()
            arrived = upstream.seen(target)
            if found == "silent" or found.startswith("5"):
                return found
            if expected == REJECTED:
                if found.startswith("2"):
                    return f"{found}, expected a rejection"
                # The head of a request may arrive before its body turns out to be wrong.
                complete = [request for request in arrived if body is None or len(request.body) == len(body)]
                return f"rejected, but the upstream received {complete}" if complete else ""
            if not found.startswith(("2", "4", "reset", "goaway")):
                return found
            if found.startswith("2") and (len(arrived) != 1 or arrived[0].target != target or arrived[0].body != (body or b"")):
                return f"the upstream received {arrived}"
            return ""

        results = run_all(CASES, check)
        results += [Result(f"smuggled: {request.raw!r}", "reached the upstream") for request in upstream.seen("smuggled") if not request.target.startswith("/open/")]
        results += [Result(f"smuggled: {request.raw!r}", "reached the upstream") for request in upstream.seen("/open/smuggled")]
        results += [Result(f"unclear head: {head!r}", "reached the upstream") for head in upstream.invalid]
    upstream.stop()
    return results

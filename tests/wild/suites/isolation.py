"""Responses of users who share the gate's connections to an upstream that ends its messages wrongly.

Each user repeats requests for a target of its own and must never get a response that names another user.
"""

import itertools
import threading
import time

from .gate import running, token
from .result import Result
from .wire import Connection, Upstream

USERS = [f"user{number}" for number in range(8)]


def _head(status: str, fields: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{fields}\r\n".encode()


def _named(request) -> bytes:
    return f"for {request.values('x-user-id')}".encode()


def _plain(request) -> bytes:
    """Correct response that names the user."""
    body = _named(request)
    return _head("200 OK", f"Content-Length: {len(body)}\r\n") + body


def _then(connection, first: bytes, second: bytes) -> bytes:
    """Sends the surplus in a segment of its own, as servers do that write head and body separately."""
    connection.sendall(first)
    time.sleep(next(_delays))
    return second


def _body_for_head(request, connection):
    """Like `http.server` of Python with `do_HEAD = do_GET`: a body in response to HEAD."""
    head, body = _plain(request).split(b"\r\n\r\n")
    return _then(connection, head + b"\r\n\r\n", body)


def _response_for_head(request, connection):
    """A whole further response after the one to HEAD."""
    if not request.line.startswith("HEAD "):
        return _plain(request)
    return _then(connection, _plain(request).split(b"\r\n\r\n")[0] + b"\r\n\r\n", _plain(request))


def _with_status(status: str):
    def handler(request, connection):
        if "?odd" not in request.target:
            return _plain(request)
        return _then(connection, _head(status), _plain(request))
    return handler


def _second_response(request, connection):
    response = _plain(request)
    return _then(connection, response, response) if "?odd" in request.target else response


def _after_last_chunk(request, connection):
    if "?odd" not in request.target:
        return _plain(request)
    return _then(connection, _head("200 OK", "Transfer-Encoding: chunked\r\n") + b"2\r\nok\r\n0\r\n\r\n", _plain(request))


def _two_to_a_post(request, connection):
    response = _plain(request)
    return _then(connection, response, response) if request.body else response


_delays = itertools.cycle([0.0, 0.0, 0.0005, 0.002, 0.01])
# Messages that the RFC ends with their head: whatever follows is surplus.
SURPLUS = {
    "a body for HEAD": (_body_for_head, "HEAD", ""),
    "a whole response after HEAD": (_response_for_head, "HEAD", ""),
    "a body for 204": (_with_status("204 No Content"), "GET", "?odd"),
    "a body for 304": (_with_status("304 Not Modified"), "GET", "?odd"),
}
# Complete responses, followed by another one: no proxy can tell it from the response to the next request, if that is sent
# before it arrives.
SECOND = {
    "a second response to GET": (_second_response, "GET", "?odd"),
    "a response after the last chunk": (_after_last_chunk, "GET", "?odd"),
    "a second response to POST": (_two_to_a_post, "POST", ""),
}
# Wrong responses of one endpoint before the gate stops reusing its connections: at most one for each user.
MOST_SECOND = len(USERS)


def isolation(kinds: dict, seconds: float, most: int = 0) -> tuple[list[Result], int, int]:
    """Results by kind of upstream, all exchanges, and wrong responses."""
    results, exchanges, wrong = [], 0, 0
    for name, (handler, method, query) in kinds.items():
        counts = _measure(handler, method, query, seconds)
        exchanges, wrong = exchanges + counts["exchanges"], wrong + len(counts["wrong"])
        failure = ""
        if len(counts["wrong"]) > most:
            failure = f"{len(counts['wrong'])} of {counts['exchanges']} responses are another user's, such as {counts['wrong'][0]}"
        elif counts["exchanges"] < 20:
            failure = f"only {counts['exchanges']} exchanges"
        results.append(Result(name, failure))
    return results, exchanges, wrong


def _measure(handler, method: str, query: str, seconds: float) -> dict:
    upstream = Upstream(handler)
    counts = {"exchanges": 0, "wrong": []}
    lock = threading.Lock()
    with running(upstream.port) as gate:
        deadline = time.monotonic() + seconds

        def user(name: str):
            credential = f"Host: gate.test\r\nAuthorization: Bearer {token(name)}\r\n".encode()
            while time.monotonic() < deadline:
                try:
                    with Connection(gate.port, 5) as client:
                        for odd in (True, False) * 10:
                            verb, suffix = (method, query) if odd else ("GET", "")
                            body = b"hello" if verb == "POST" else b""
                            length = b"Content-Length: 5\r\n" if body else b""
                            client.send(f"{verb} /me/{name}{suffix} HTTP/1.1\r\n".encode() + credential + length + b"\r\n" + body)
                            response = client.response(verb)
                            if response is None:
                                break
                            is_wrong = response.body and b"for " in response.body and name.encode() not in response.body
                            with lock:
                                counts["exchanges"] += 1
                                if is_wrong:
                                    counts["wrong"].append((name, response.body))
                except (OSError, ValueError):
                    pass

        threads = [threading.Thread(target=user, args=(name,)) for name in USERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    upstream.stop()
    return counts

"""Paths that two parsers could read differently. A forwarded one must name alice's data by every reading.

A reading is what some server or framework makes of a path: decoded once or twice, with dot segments resolved, parameters
(`;`) cut off, slashes merged, or backslashes taken as slashes. The token is alice's; every case aims at bob.
"""

import itertools
import re
import urllib.parse

from .gate import running, token
from .result import Result, run_all
from .wire import Connection, Upstream

_numbers = itertools.count(1)

_DOTS = ["..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "..;", "..;x", "..;a=b", ";/..", "%2e%2e;", "..%00", "..%20", "..%09", "...", "%252e%252e", "%25252e%25252e", "..%3b", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae",
         "%uff0e%uff0e", "．．", "%ef%bc%8e%ef%bc%8e", ".;/.", "..\\", "..%5c", "..%255c", "..%2f", "..%252f", "..%c0%af", "..%ef%bc%8f", "..%u2215"]
_SLASHES = ["/", "%2f", "%2F", "\\", "%5c", "%252f", "%25%32%66", "%c0%af", "%e2%88%95", "%ef%bc%8f", ";/", "/;/", "//", "/./", "/%2e/", "%00/", "%0a/", "%0d%0a/", "%20/", "%09/", "/.;/"]
PATHS = [
    *(f"/api/alice/{dots}/bob/{{n}}" for dots in _DOTS),
    *(f"/api/alice{slash}..{slash}bob/{{n}}" for slash in _SLASHES),
    *(f"/api{slash}bob/{{n}}" for slash in _SLASHES),
    *(f"/api/bob{end}/{{n}}" for end in ("%00", ";alice", "%3balice", "?alice", "#alice", "%23alice", "%3falice", "%20", "%09", ".", "%2e", "%0a", "%0d", "%7f", "%1b", "%c2%a0", "%e2%80%8b", "%ef%bb%bf")),
    *(f"/api/{name}/{{n}}" for name in ("Alice", "ALICE", "%61lice", "%41lice", "al%69ce", "ａｌｉｃｅ", "%ef%bd%81lice", "alice%00bob", "alice,bob", "alice%2cbob", "alice%2Fbob", "alice%5cbob", "alice;bob", "alice%3bbob", "alice%", "alice%6", "alice%zz", "alice%u0062ob",
                                        "%00alice", "%20alice", "+alice", "alice+", "*", "{user_id}", ":user_id", "me", "", ".", "%2e", "bob&alice", "%ff", "%c3", "%ed%a0%80", "%f4%90%80%80")),
    "//api/bob/{n}", "/./api/bob/{n}", "/x/../api/bob/{n}", "/%61pi/bob/{n}", "/API/bob/{n}", "/api/bob/{n}/../../alice/x", "/api/bob/{n}/%2e%2e/%2e%2e/alice/x", "http://gate.test/api/bob/{n}", "http://gate.test//api/bob/{n}",
    "http://alice@gate.test/api/bob/{n}", "/api/alice?/../bob/{n}", "/api/bob?x=/api/alice/{n}", "/api/bob#/api/alice/{n}", "/api/alice#/../../bob/{n}",
]


def readings(target: str) -> set[str]:
    """Paths that a target may stand for."""
    path = target.split("?")[0].split("#")[0]
    found, pending = set(), [path]
    steps = [
        lambda text: urllib.parse.unquote(text, "latin-1"),
        lambda text: text.replace("\\", "/"),
        lambda text: re.sub(";[^/]*", "", text),
        lambda text: re.sub("/+", "/", text),
        lambda text: text.split("\0")[0],
        _without_dots,
    ]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += [step(one) for step in steps]
    return found


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4."""
    out: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            out = out[:-1]
        elif segment != ".":
            out.append(segment)
    return "/" + "/".join(out)


def paths() -> list[Result]:
    upstream = Upstream()
    with running(upstream.port, 'header_timeout = "2s"\nidle_timeout = "2s"') as gate:

        def check(case) -> str:
            marker = f"case-{next(_numbers)}"
            target = case[0].replace("{n}", marker)
            with Connection(gate.port) as client:
                client.send(b"GET " + target.encode() + f" HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token()}\r\n\r\n".encode())
                try:
                    response = client.response()
                except (ConnectionError, TimeoutError):
                    response = None
            found = response.status if response else "closed"
            if found not in (400, 403, 404, "closed", 200):
                return f"{found}"
            for request in upstream.seen(marker):
                sent = request.target
                if sent != target.removeprefix("http://gate.test"):
                    return f"{found}: {sent} was sent"
                others = {reading for reading in readings(sent) if not re.match(r"/api/alice(/|$)", reading)}
                if others:
                    return f"{found}: forwarded, and may be read as {sorted(others)[0]!r}"
            return ""

        results = run_all([(path,) for path in PATHS], check)
    upstream.stop()
    return results

"""Identity and forwarding headers of a client: none may reach the upstream, in any spelling.

Frameworks that follow CGI (RFC 3875 section 4.1.18), such as WSGI, PHP and Rack, map `X_User_Id`, `x.user.id` and
`X-User-Id` to one variable. Proxies in front of other installations set the names of the second list.
"""

import itertools

from . import http2
from .gate import running, token
from .result import Result, run_all
from .wire import Connection, Upstream

_SEPARATORS = "-_.~!#$%&'*+^`|"
SPELLINGS = [
    *(f"X{one}User{one}Id" for one in _SEPARATORS),
    *(f"X{one}User{other}Id" for one, other in ("-_", "_-", "-.", ".-", "_.", "._")),
    "x-user-id", "X-USER-ID", "x-UsEr-iD", "XUserId", "X-UserId", "XUser-Id", "X_UserId", "HTTP_X_USER_ID", "HTTP-X-USER-ID", "http_x-user_id", "Http.X.User.Id",
]
NAMES = [
    # Client address.
    "X-Forwarded-For", "X-Forwarded", "Forwarded", "Forwarded-For", "X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "CF-Connecting-IP",
    "CF-Connecting-IPv6", "X-Cluster-Client-IP", "Fastly-Client-IP", "Fly-Client-IP", "X-Original-Forwarded-For", "X-Azure-ClientIP",
    "X-Envoy-External-Address", "X-ProxyUser-Ip", "WL-Proxy-Client-IP", "Proxy-Client-IP", "X_Forwarded_For", "x.real.ip", "HTTP_CLIENT_IP",
    # Original target, host, scheme and method.
    "X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Original-Host", "X-Original-Method", "X-Host", "X-Forwarded-Host", "X-Forwarded-Proto",
    "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Envoy-Original-Path",
    "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override",
    # User, as other proxies name it.
    "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
    "X-Auth-Request-User", "X-Auth-Request-Email", "Remote-User", "REMOTE_USER", "X-Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name",
    "X-Authenticated-User", "X-Authenticated-Userid", "X-UserId", "X-User", "X-Consumer-Id", "X-Consumer-Custom-Id", "X-Consumer-Username",
    "X-Credential-Identifier", "X-Webauth-User", "X-authentik-username", "X-authentik-uid", "X-Goog-Authenticated-User-Email",
    "X-Goog-Authenticated-User-Id", "X-Goog-IAP-JWT-Assertion", "X-MS-CLIENT-PRINCIPAL", "X-MS-CLIENT-PRINCIPAL-ID", "X-MS-CLIENT-PRINCIPAL-NAME",
    "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Data", "X-Amzn-Oidc-Accesstoken", "Cf-Access-Authenticated-User-Email", "Cf-Access-Jwt-Assertion",
    "X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email", "Tailscale-User-Login", "Tailscale-User-Name", "X-Forwarded-Client-Cert",
    "X-SSL-Client-Cert", "X-SSL-Client-S-DN", "SSL-Client-Cert", "X-Client-Cert",
]
# Values of a client, each a canary that must not arrive under any name.
CANARY = "mallory-canary"
_numbers = itertools.count(1)


def _http1(port: int, number: int, lines: bytes, body: bytes = b"", signed: bool = True) -> str:
    target = b"/me/%d" % number if signed else b"/open/%d" % number
    credential = b"Authorization: Bearer " + token().encode() + b"\r\n" if signed else b""
    with Connection(port) as client:
        client.send(b"POST " + target + b" HTTP/1.1\r\nHost: gate.test\r\n" + credential + lines + b"\r\n" + body)
        response = client.response()
        return str(response.status) if response else "closed"


def _http2(port: int, number: int, name: str) -> str:
    with http2.Connection(port) as client:
        client.handshake()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "gate.test"), (":path", f"/me/{number}"),
                  ("authorization", f"Bearer {token()}"), (name.lower(), CANARY)]
        return str(client.request(fields))


def _cases():
    for name in SPELLINGS + NAMES:
        line = f"{name}: {CANARY}\r\nContent-Length: 0\r\n".encode()
        for signed in (True, False):
            yield f"{name}, {'with' if signed else 'without'} a token", lambda port, number, line=line, signed=signed: _http1(port, number, line, signed=signed)
        yield f"{name} over HTTP/2", lambda port, number, name=name: _http2(port, number, name)
    for name in ("X-User-Id", "X_User_Id", "X.User.Id", "HTTP_X_USER_ID", "X-Forwarded-For", "Remote-User"):
        twice = f"{name}: {CANARY}\r\n{name}: {CANARY}\r\nContent-Length: 0\r\n".encode()
        yield f"{name} twice", lambda port, number, line=twice: _http1(port, number, line)
        trailer = f"Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: {name}\r\n".encode()
        body = f"1\r\nx\r\n0\r\n{name}: {CANARY}\r\n\r\n".encode()
        yield f"{name} as a trailer", lambda port, number, line=trailer, body=body: _http1(port, number, line, body)
    yield "X-User-Id with a space before the colon", lambda port, number: _http1(port, number, f"X-User-Id : {CANARY}\r\n".encode())
    yield "X-User-Id after a bare CR", lambda port, number: _http1(port, number, f"A: a\rX-User-Id: {CANARY}\r\n".encode())
    yield "X-User-Id in a continuation line", lambda port, number: _http1(port, number, f"A: a\r\n X-User-Id: {CANARY}\r\n".encode())
    yield "Connection names X-User-Id", lambda port, number: _http1(port, number, f"Connection: X-User-Id\r\nX-User-Id: {CANARY}\r\n".encode())
    yield "Connection names X_User_Id", lambda port, number: _http1(port, number, f"Connection: X_User_Id\r\nX_User_Id: {CANARY}\r\n".encode())


def aliases() -> list[Result]:
    upstream = Upstream()

    def check(case) -> str:
        number = next(_numbers)
        outcome = case[1](gate.port, number)
        for request in upstream.seen(f"/{number}"):
            if not request.target.endswith(f"/{number}"):
                continue
            if CANARY.encode() in request.raw:
                named = [name for name, value in request.fields if CANARY in value]
                return f"{outcome}, and {named} reached the upstream"
            identities = request.values("x-user-id")
            expected = ["alice"] if request.target.startswith("/me/") else []
            if identities != expected:
                return f"{outcome}, and the upstream received {identities}"
        return ""

    with running(upstream.port) as gate:
        results = run_all(list(_cases()), check)
    upstream.stop()
    return results

"""The workloads: what is sent, through which setup, by which proxies."""

from dataclasses import dataclass

from proxies import Setup, route_name

VERIFYING = ("claimgate", "haproxy", "envoy")
ALL = (*VERIFYING, "nginx", "caddy")
# Without any proxy: the load goes to the upstream.
DIRECT = "direct"


@dataclass(frozen=True)
class Load:
    """Closed loop of wrk over HTTP/1.1, the base of the other kinds."""

    connections: int = 64
    path: str = "/api/{user}/tasks"
    # Number of different tokens, each of another user; the requests use them in turn.
    tokens: int = 1
    # "valid", "forged" (401), "foreign" (403), "none", or "unique": another token for each request.
    token: str = "valid"
    method: str = "GET"
    body_bytes: int = 0
    close: bool = False


@dataclass(frozen=True)
class Http2(Load):
    """Closed loop of h2load over HTTP/2."""

    connections: int = 4
    streams: int = 16


@dataclass(frozen=True)
class Handshakes(Load):
    """New TLS connections of h2load at a fixed rate, with one HTTP/1.1 request each. None resumes a session."""

    rate: int = 800


@dataclass(frozen=True)
class Paced(Load):
    """Fixed rate over HTTP/1.1."""

    connections: int = 16
    rate: int = 3000


@dataclass(frozen=True)
class WebSocket(Load):
    """One message in flight on each WebSocket; requests are messages."""

    connections: int = 16


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    load: Load = Load()
    setup: Setup = Setup()
    proxies: tuple[str, ...] = ALL
    # Workload with the HAProxy rounds that all ratios refer to. Its rounds alternate with those of this workload.
    against: str = ""
    # Starts the proxies again for each round.
    fresh: bool = False

    @property
    def reference(self) -> str:
        return self.against or self.name


def _of_algorithm(algorithm: str) -> Workload:
    return Workload(f"{algorithm.lower()}-1000-tokens", f"{algorithm}, 1,000 tokens", Load(tokens=1000),
                    Setup(algorithm=algorithm), VERIFYING)


_MAIN = [
    Workload("hs256", "HS256, one token"),
    Workload("access-log", "… with an access log", setup=Setup(access_log=True), proxies=("claimgate",),
             against="hs256"),
    Workload("public", "… on a public route", Load(path="/public/tasks", token="none"), proxies=("claimgate",),
             against="hs256"),
    Workload("unix-socket", "… upstream on a Unix socket", setup=Setup(upstream="unix"), proxies=("claimgate",),
             against="hs256"),
    *map(_of_algorithm, ("HS256", "RS256", "ES256", "EdDSA")),
    Workload("body-1k", "response body of 1 KiB", Load(path="/api/{user}/body-1k")),
    Workload("body-64k", "response body of 64 KiB", Load(path="/api/{user}/body-64k")),
    Workload("body-1m", "response body of 1 MiB", Load(path="/api/{user}/body-1m")),
    Workload("post-16k", "POST of 16 KiB", Load(method="POST", body_bytes=16 * 1024)),
    Workload("new-connections", "a new connection per request", Load(close=True)),
    Workload("1000-connections", "1,000 busy connections", Load(connections=1000)),
    Workload("tls", "TLS, kept connections", setup=Setup(listen="tls")),
    Workload("tls-h2", "HTTP/2 over TLS, 16 streams", Http2(), Setup(listen="tls")),
    Workload("h2c", "HTTP/2 without TLS, 16 streams", Http2(), Setup(listen="h2c")),
    # wrk resumes the session of the connection before.
    Workload("tls-new-connections", "TLS, a new connection per request, resumed sessions", Load(close=True),
             Setup(listen="tls")),
    Workload("tls-handshakes", "TLS, 800 full handshakes/s with one request each", Handshakes(), Setup(listen="tls")),
    Workload("paced", "3,000 requests/s", Paced(), proxies=(*ALL, DIRECT)),
    Workload("paced-public", "… on a public route", Paced(path="/public/tasks", token="none"), proxies=("claimgate",),
             against="paced"),
    Workload("paced-unix-socket", "… upstream on a Unix socket", Paced(), Setup(upstream="unix"),
             proxies=("claimgate",), against="paced"),
    Workload("first-sight", "another token for each request", Load(token="unique"), proxies=VERIFYING, fresh=True),
    Workload("refused-401", "refused: invalid signature (401)", Load(token="forged"), proxies=VERIFYING),
    Workload("refused-403", "refused: path of another user (403)", Load(token="foreign"), proxies=VERIFYING),
    Workload("websocket", "WebSocket messages of 64 bytes", WebSocket(path="/api/{user}/socket"),
             Setup(upstream="websocket")),
]

_GROWTH = [
    Workload("100-tokens", "HS256, 100 tokens", Load(tokens=100), proxies=VERIFYING),
    Workload("10000-tokens", "HS256, 10,000 tokens", Load(tokens=10000), proxies=VERIFYING),
    Workload("16-connections", "16 busy connections", Load(connections=16), proxies=VERIFYING),
    Workload("256-connections", "256 busy connections", Load(connections=256), proxies=VERIFYING),
    *(Workload(f"{routes}-routes", f"{routes:,} routes", Load(path=f"/api/{{user}}/{route_name(routes // 2)}/list"),
               Setup(routes=routes), VERIFYING) for routes in (10, 1000)),
    Workload("2-workers", "two workers", setup=Setup(workers=2), proxies=VERIFYING),
]

WORKLOADS = {workload.name: workload for workload in (*_MAIN, *_GROWTH)}

# Axis, and the workload of each of its values.
GROWTH = {
    "tokens": {1: "hs256", 100: "100-tokens", 1000: "hs256-1000-tokens", 10000: "10000-tokens"},
    "connections": {16: "16-connections", 64: "hs256", 256: "256-connections", 1000: "1000-connections"},
    "routes": {1: "hs256", 10: "10-routes", 1000: "1000-routes"},
    "workers": {1: "hs256", 2: "2-workers"},
}

"""A gate in front of an API, with an issuer that it asks about credentials."""

import contextlib
import http.server
import json
import pathlib
import re
import threading
from types import SimpleNamespace

import httpx

from better_auth_17 import BetterAuth
from programs import Gate, wait_until

CONFIGURATION = """
[listen]
address = "127.0.0.1:{port}"
{listen}

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "{upstream.url}"
connect_timeout = "20s"

[issuers.app]
{issuer}

[[routes]]
path = "/api/{{user_id}}/tasks"
access = {{ owner = "user_id" }}
upstream = "api"

[[routes]]
path = "/me"
access = "authenticated"
upstream = "api"

[[routes]]
path = "/health"
access = "public"
upstream = "api"
"""


class Upstream:
    """An API that records each request: method, target and header fields."""

    def __init__(self):
        self.requests: list[SimpleNamespace] = []
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                upstream.requests.append(SimpleNamespace(method=self.command, target=self.path, headers=headers))
                body = json.dumps({"user": self.headers["X-User-Id"]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Cache-Control", "no-cache")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            do_GET = do_POST = do_DELETE = respond

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def last(self, name: str) -> list[str]:
        """Values of a header of the last request."""
        return [value for field, value in self.requests[-1].headers if field == name]


class Guarded:
    """A gate in front of the upstream."""

    def __init__(self, directory: pathlib.Path, upstream: Upstream, issuer: str, routes: str = "", listen: str = "",
                 port: int = 0, is_ready: bool = True):
        directory.mkdir(exist_ok=True)
        configuration = CONFIGURATION.format(port=port, upstream=upstream, issuer=issuer, listen=listen) + routes
        self.gate = Gate(directory, configuration)
        self.upstream = upstream
        self.url = self.gate.url
        if is_ready:
            try:
                wait_until(self.gate.ready)
            except AssertionError:
                self.stop()
                raise

    def stop(self):
        self.gate.stop()

    def send(self, path: str = "/me", cookie: str | None = None, token: str | None = None, method: str = "GET",
             headers=()) -> httpx.Response:
        """Sends a request with these credentials. `headers` are pairs, which may repeat."""
        fields = [("Cookie", cookie)] if cookie is not None else []
        fields += [("Authorization", f"Bearer {token}")] if token is not None else []
        response = self.gate.client.request(method, path, headers=[*fields, *headers])
        self.gate.client.cookies.clear()
        return response

    def outcome(self, *arguments, **options) -> tuple[int, str | None]:
        """Status and reason."""
        return outcome(self.send(*arguments, **options))

    def exchanges(self, outcome: str, kind: str = "session") -> int:
        labels = f'issuer="app",kind="{kind}",outcome="{outcome}"'
        return int(self.gate.metric(f"claimgate_exchanges_total{{{labels}}}"))

    def wait_for_log(self, text: str) -> str:
        """Waits for a line of the log with this text. The log follows the response."""
        return self.gate.program.wait_for(f".*{re.escape(text)}.*")[0]


def outcome(response: httpx.Response) -> tuple[int, str | None]:
    """Status and reason of a response."""
    return response.status_code, None if response.is_success else response.json()["reason"]


def tasks_of(account) -> str:
    return f"/api/{account.id}/tasks"


def issuer(server: BetterAuth, sessions: str = "true", better_auth: str = "", more: str = "") -> str:
    """Table of an issuer that exchanges sessions at this server."""
    return f'better_auth = {{ url = "{server.origin}", sessions = {sessions}{better_auth} }}\n{more}'


@contextlib.contextmanager
def running(directory: pathlib.Path, upstream: Upstream, *flags: str, sessions: str = "true", better_auth: str = "",
            more: str = "", **options):
    """A Better Auth server with these flags, and a gate that exchanges its sessions."""
    server = BetterAuth(directory, *flags)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        gate = Guarded(directory / "gate", upstream, issuer(server, sessions, better_auth, more), **options)
        stack.callback(gate.stop)
        yield server, gate

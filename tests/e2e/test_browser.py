"""A real browser: pages of one origin that sign in with the client of Better Auth and call the gate on another."""

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import threading
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import sync_playwright

from programs import BROWSER_MILLISECONDS, NODE, Gate, Issuer, Program, TaskService, free_port, wait_until

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

# Everything is `localhost`, on ports of its own: one site of several origins, so that a cookie is sent.
CONFIGURATION = """
[listen]
address = "127.0.0.1:{port}"

[admin]
address = "127.0.0.1:0"

[cors]
origins = ["{page}"]

[upstreams.api]
url = "{api.url}"

[upstreams.live]
url = "http://127.0.0.1:{live.port}"

[upstreams.better-auth]
url = "{issuer.url}"

[issuers.better-auth]
keys = {{ jwks_url = "{issuer.jwks_url}" }}
issuer = "{issuer.origin}"
audience = "{issuer.origin}"

[[routes]]
path = "/api/auth/{{*rest}}"
access = "public"
upstream = "better-auth"
cors = {{ origins = ["{page}"], credentials = true, expose = ["Set-Auth-Jwt"] }}

[[routes]]
path = "/api/{{user_id}}/tasks/{{*rest}}"
access = {{ owner = "user_id" }}
upstream = "api"

[[routes]]
path = "/events/{{user_id}}"
access = {{ owner = "user_id" }}
upstream = "api"
tokens = [{{ query = "access_token" }}]

[[routes]]
path = "/live/{{user_id}}"
access = {{ owner = "user_id" }}
upstream = "live"
tokens = [{{ websocket = "bearer" }}]
"""


class Server:
    """A server on a free port, whose handler may know it."""

    def __init__(self, handler, **known):
        kind = type("Handler", (handler,), known | {"log_message": lambda *_: None, "protocol_version": "HTTP/1.1"})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class PageHandler(http.server.BaseHTTPRequestHandler):
    """The pages of an application: one, and its script."""

    def do_GET(self):
        kind, body = "text/html", b"<!doctype html><script src=/page.js></script>"
        if self.path == "/page.js":
            kind, body = "text/javascript", pathlib.Path(os.environ["BETTER_AUTH_SERVER"]).with_name("page.js").read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ApiHandler(http.server.BaseHTTPRequestHandler):
    """Notes every request, tells events, and leaves all else to the task service."""

    def response(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.noted.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/events/"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(f"data: for {self.headers['X-User-Id']}\n\n".encode())
            return
        headers = {name: self.headers[name] for name in ("X-User-Id", "Content-Type") if name in self.headers}
        response = httpx.request(self.command, self.tasks + self.path, headers=headers, content=body, trust_env=False)
        self.send_response(response.status_code)
        self.send_header("Content-Type", response.headers.get("Content-Type", "text/plain"))
        # A library of the API's own that says the wrong thing.
        self.send_header("Access-Control-Allow-Origin", "https://elsewhere.example")
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = response


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything that is running, and two pages of which one may call."""
    with contextlib.ExitStack() as stack:
        def start(kind, *arguments, **more):
            started = kind(*arguments, **more)
            stack.callback(started.stop)
            return started

        def directory(name):
            return tmp_path_factory.mktemp(name)

        def localhost(port):
            return f"http://localhost:{port}"

        pages, others, port = start(Server, PageHandler), start(Server, PageHandler), free_port()
        issuer = start(Issuer, directory("issuer"), origin=localhost(port), PAGES=localhost(pages.port))
        tasks, noted = start(TaskService, directory("tasks")), []
        api = start(Server, ApiHandler, noted=noted, tasks=tasks.url)
        api.url = f"http://127.0.0.1:{api.port}"
        script = pathlib.Path(os.environ["WEBSOCKET"]) / "server.mjs"
        live = start(Program, directory("live"), [NODE, script], {})
        live.port = live.wait_for(r"listening on port (\d+)")[1]
        gate = start(Gate, directory("gate"), CONFIGURATION.format(
            port=port, page=localhost(pages.port), api=api, live=live, issuer=issuer,
        ))
        chromium = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"], timeout=BROWSER_MILLISECONDS,
        )
        stack.callback(chromium.close)
        context = chromium.new_context()
        context.set_default_timeout(BROWSER_MILLISECONDS)

        def opened(server):
            page = context.new_page()
            page.goto(localhost(server.port))
            return page

        page = opened(pages)
        signed_in = page.evaluate("gate => signIn(gate)", localhost(port))
        # The first to sign in made the key, and the gate fetches it.
        wait_until(gate.ready)
        yield SimpleNamespace(
            gate=gate, url=localhost(port), noted=noted, page=page, other=opened(others), chromium=chromium,
            origin=localhost(pages.port), signed_in=signed_in, user=signed_in["user"], token=signed_in["token"],
        )


def ask(page, *arguments):
    return page.evaluate("asked => ask(...asked)", list(arguments))


def tasks_of(world, user=None) -> str:
    return f"{world.url}/api/{user or world.user}/tasks"


def preflights(world, route: str, outcome: str) -> float:
    exposition = world.gate.admin.get("/metrics").text
    start = f'claimgate_requests_total{{route="{route}",method="OPTIONS",{outcome}}} '
    return sum(float(line.removeprefix(start)) for line in exposition.splitlines() if line.startswith(start))


TASKS = "/api/{user_id}/tasks/{*rest}"


def test_a_page_signs_in_with_the_client_of_better_auth(world):
    assert world.signed_in["same"]
    assert world.token.count(".") == 2
    # It came in a header that is not for every page to read: `expose` says that this one is.
    assert world.signed_in["beside"].count(".") == 2
    assert preflights(world, "/api/auth/{*rest}", 'status="204",reason=""') > 0


def test_a_page_makes_a_task_and_lists_it_and_the_api_sees_no_preflight(world):
    before = len(world.noted)
    made = ask(world.page, tasks_of(world), world.token, {"method": "POST", "json": {"title": "Buy milk"}})
    assert made["status"] == 201, made
    listed = ask(world.page, tasks_of(world), world.token)
    assert (listed["status"], [task["title"] for task in listed["body"]]) == (200, ["Buy milk"])
    task = f"{tasks_of(world)}/{made['body']['id']}"
    assert ask(world.page, task, world.token, {"method": "DELETE"})["status"] == 204

    noted = world.noted[before:]
    assert [method for method, _, _ in noted] == ["POST", "GET", "DELETE"]
    for _, _, headers in noted:
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["x-user-id"] == world.user
        assert headers["origin"] == world.origin
        # The session's cookie is for whoever asks with credentials, which this page does at Better Auth alone.
        assert not {"cookie", "authorization"} & headers.keys()
    assert preflights(world, TASKS, 'status="204",reason=""') >= 2


def test_a_page_can_read_why_it_was_refused(world):
    before = len(world.noted)
    missing = ask(world.page, tasks_of(world))
    assert (missing["status"], missing["body"]["reason"]) == (401, "token_missing")
    assert missing["headers"]["www-authenticate"] == 'Bearer realm="claimgate"'
    assert missing["headers"]["x-request-id"]
    bad = ask(world.page, tasks_of(world), world.token[:-4] + "AAAA")
    assert (bad["status"], bad["body"]["reason"]) == (401, "token_signature")
    anothers = ask(world.page, tasks_of(world, "bob"), world.token)
    assert (anothers["status"], anothers["body"]["reason"]) == (403, "subject_mismatch")
    nowhere = ask(world.page, f"{world.url}/nowhere")
    assert (nowhere["status"], nowhere["body"]["reason"]) == (404, "no_route")
    assert len(world.noted) == before


def test_a_page_of_another_origin_is_stopped_by_the_browser(world):
    before = len(world.noted)
    assert ask(world.other, tasks_of(world), world.token) == {"failed": "TypeError"}
    made = {"method": "POST", "json": {"title": "Buy nothing"}}
    assert ask(world.other, tasks_of(world), world.token, made) == {"failed": "TypeError"}
    assert len(world.noted) == before
    assert preflights(world, TASKS, 'status="403",reason="preflight_origin"') >= 2
    # Neither can it read what needs no preflight, nor use the session that the browser has.
    assert ask(world.other, tasks_of(world)) == {"failed": "TypeError"}
    session = f"{world.url}/api/auth/token"
    assert ask(world.other, session, None, {"credentials": "include"}) == {"failed": "TypeError"}
    assert ask(world.page, session, None, {"credentials": "include"})["body"]["token"].count(".") == 2


def test_a_page_without_an_origin_is_stopped_by_the_browser(world):
    page = world.chromium.new_page()
    page.set_default_timeout(BROWSER_MILLISECONDS)
    page.goto(world.origin)
    frame = "<iframe sandbox=allow-scripts src=/></iframe>"
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", frame)
    boxed = page.wait_for_selector("iframe").content_frame()
    # Until its script is there, it is another document with another origin.
    boxed.wait_for_function("() => globalThis.ask")
    assert boxed.evaluate("() => origin") == "null"
    assert ask(boxed, tasks_of(world), world.token) == {"failed": "TypeError"}
    page.close()


def test_a_page_sends_no_header_that_is_not_named(world):
    before = len(world.noted)
    asked = ask(world.page, tasks_of(world), world.token, {"headers": {"X-Debug": "1"}})
    assert asked == {"failed": "TypeError"}
    assert len(world.noted) == before
    assert preflights(world, TASKS, 'status="403",reason="preflight_headers"') == 1


def test_a_page_opens_a_websocket_with_its_token(world):
    url = f"{world.url}/live/{world.user}".replace("http:", "ws:")
    told = world.page.evaluate("asked => talk(...asked)", [url, world.token, "who"])
    assert told["protocol"] == "bearer"
    headers = json.loads(told["data"])
    assert headers["x-user-id"] == world.user
    anothers = world.page.evaluate("asked => talk(...asked)", [url.replace(world.user, "bob"), world.token, "who"])
    assert anothers == {"closed": 1006}


def test_a_page_hears_events_and_a_page_of_another_origin_does_not(world):
    url = f"{world.url}/events/{world.user}?access_token={world.token}"
    assert world.page.evaluate("url => listen(url)", url) == {"data": f"for {world.user}"}
    assert world.other.evaluate("url => listen(url)", url) == {"failed": True}

"""A real browser: pages on one origin sign in with the Better Auth client and call the gate on another origin."""

import contextlib
import http.server
import json
import os
import pathlib
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import sync_playwright

from pages import CHROMIUM, PageHandler, Server
from programs import BROWSER_MILLISECONDS, NODE, Gate, Issuer, Program, TaskService, free_port, wait_until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

# All servers are on `localhost` with different ports: several origins, but one site, so that the browser sends cookies.
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


class ApiHandler(http.server.BaseHTTPRequestHandler):
    """Records every request, streams events, and forwards the rest to the task service."""

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.command, self.path, dict(self.headers)))
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
        # A wrong CORS header of the API, which the gate must replace.
        self.send_header("Access-Control-Allow-Origin", "https://elsewhere.example")
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All programs, a page on an allowed origin, and a page on another one."""
    with contextlib.ExitStack() as stack:
        def start(kind, *arguments, **options):
            started = kind(*arguments, **options)
            stack.callback(started.stop)
            return started

        def directory(name):
            return tmp_path_factory.mktemp(name)

        def localhost(port):
            return f"http://localhost:{port}"

        pages, others, port = start(Server, PageHandler), start(Server, PageHandler), free_port()
        issuer = start(Issuer, directory("issuer"), origin=localhost(port), PAGES=localhost(pages.port))
        tasks, received = start(TaskService, directory("tasks")), []
        api = start(Server, ApiHandler, received=received, tasks=tasks.url)
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
        # The first sign-in created the key, which the gate then fetches.
        wait_until(gate.ready)
        yield SimpleNamespace(
            gate=gate, url=localhost(port), received=received, page=page, other=opened(others), chromium=chromium,
            origin=localhost(pages.port), signed_in=signed_in, user=signed_in["user"], token=signed_in["token"],
        )


def send(page, *arguments):
    return page.evaluate("values => send(...values)", list(arguments))


def tasks_of(world, user=None) -> str:
    return f"{world.url}/api/{user or world.user}/tasks"


def preflights(world, route: str, outcome: str) -> float:
    exposition = world.gate.admin.get("/metrics").text
    start = f'claimgate_requests_total{{route="{route}",method="OPTIONS",{outcome}}} '
    return sum(float(line.removeprefix(start)) for line in exposition.splitlines() if line.startswith(start))


TASKS = "/api/{user_id}/tasks/{*rest}"


def test_signs_in_with_the_better_auth_client(world):
    assert world.signed_in["same"]
    assert world.token.count(".") == 2
    # Only `expose` allows the page to read this response header.
    assert world.signed_in["header_token"].count(".") == 2
    assert preflights(world, "/api/auth/{*rest}", 'status="204",reason=""') > 0


def test_creates_and_lists_a_task_without_a_preflight_at_the_api(world):
    before = len(world.received)
    created = send(world.page, tasks_of(world), world.token, {"method": "POST", "json": {"title": "Buy milk"}})
    assert created["status"] == 201, created
    listed = send(world.page, tasks_of(world), world.token)
    assert (listed["status"], [task["title"] for task in listed["body"]]) == (200, ["Buy milk"])
    task = f"{tasks_of(world)}/{created['body']['id']}"
    assert send(world.page, task, world.token, {"method": "DELETE"})["status"] == 204

    received = world.received[before:]
    assert [method for method, _, _ in received] == ["POST", "GET", "DELETE"]
    for _, _, headers in received:
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["x-user-id"] == world.user
        assert headers["origin"] == world.origin
        # The page sends the session cookie to Better Auth only.
        assert not {"cookie", "authorization"} & headers.keys()
    assert preflights(world, TASKS, 'status="204",reason=""') >= 2


def test_a_page_can_read_the_reason_of_a_rejection(world):
    before = len(world.received)
    missing = send(world.page, tasks_of(world))
    assert (missing["status"], missing["body"]["reason"]) == (401, "token_missing")
    assert missing["headers"]["www-authenticate"] == 'Bearer realm="claimgate"'
    assert missing["headers"]["x-request-id"]
    forged = send(world.page, tasks_of(world), world.token[:-4] + "AAAA")
    assert (forged["status"], forged["body"]["reason"]) == (401, "token_signature")
    of_bob = send(world.page, tasks_of(world, "bob"), world.token)
    assert (of_bob["status"], of_bob["body"]["reason"]) == (403, "subject_mismatch")
    unknown = send(world.page, f"{world.url}/nowhere")
    assert (unknown["status"], unknown["body"]["reason"]) == (404, "no_route")
    assert len(world.received) == before


def test_the_browser_blocks_a_page_of_another_origin(world):
    before = len(world.received)
    assert send(world.other, tasks_of(world), world.token) == {"failed": "TypeError"}
    create = {"method": "POST", "json": {"title": "Buy nothing"}}
    assert send(world.other, tasks_of(world), world.token, create) == {"failed": "TypeError"}
    assert len(world.received) == before
    assert preflights(world, TASKS, 'status="403",reason="preflight_origin"') >= 2
    # The page cannot read responses that need no preflight either, nor use the session of the browser.
    assert send(world.other, tasks_of(world)) == {"failed": "TypeError"}
    session = f"{world.url}/api/auth/token"
    assert send(world.other, session, None, {"credentials": "include"}) == {"failed": "TypeError"}
    assert send(world.page, session, None, {"credentials": "include"})["body"]["token"].count(".") == 2


def test_the_browser_blocks_a_page_with_a_null_origin(world):
    page = world.chromium.new_page()
    page.set_default_timeout(BROWSER_MILLISECONDS)
    page.goto(world.origin)
    frame = "<iframe sandbox=allow-scripts src=/></iframe>"
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", frame)
    sandboxed = page.wait_for_selector("iframe").content_frame()
    # Before its script runs, the frame is still the initial document, with another origin.
    sandboxed.wait_for_function("() => globalThis.send")
    assert sandboxed.evaluate("() => origin") == "null"
    assert send(sandboxed, tasks_of(world), world.token) == {"failed": "TypeError"}
    page.close()


def test_the_browser_blocks_a_request_header_that_cors_does_not_allow(world):
    before = len(world.received)
    blocked = send(world.page, tasks_of(world), world.token, {"headers": {"X-Debug": "1"}})
    assert blocked == {"failed": "TypeError"}
    assert len(world.received) == before
    assert preflights(world, TASKS, 'status="403",reason="preflight_headers"') == 1


def test_opens_a_websocket_with_the_token_as_subprotocol(world):
    url = f"{world.url}/live/{world.user}".replace("http:", "ws:")
    reply = world.page.evaluate("values => exchange(...values)", [url, world.token, "headers"])
    assert reply["protocol"] == "bearer"
    headers = json.loads(reply["data"])
    assert headers["x-user-id"] == world.user
    path_of_bob = [url.replace(world.user, "bob"), world.token, "headers"]
    assert world.page.evaluate("values => exchange(...values)", path_of_bob) == {"closed": 1006}


def test_streams_events_to_the_allowed_origin_only(world):
    url = f"{world.url}/events/{world.user}?access_token={world.token}"
    assert world.page.evaluate("url => firstEvent(url)", url) == {"data": f"for {world.user}"}
    assert world.other.evaluate("url => firstEvent(url)", url) == {"failed": True}

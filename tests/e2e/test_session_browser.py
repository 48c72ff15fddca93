"""A real browser: pages sign in with the Better Auth client, and call the gate with the session cookie only."""

import contextlib
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright

from better_auth_17 import BetterAuth
from pages import CHROMIUM, PageHandler, Server
from programs import BROWSER_MILLISECONDS, free_port, wait_until
from sessions import Guarded, Upstream, issuer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

MAX_AGE = 2

# One origin for the page, Better Auth and the API, and one more page on the same site, with its own origin.
ROUTES = """
[upstreams.pages]
url = "http://127.0.0.1:{pages.port}"

[upstreams.better-auth]
url = "{server.origin}"

[[routes]]
path = "/"
access = "public"
upstream = "pages"

[[routes]]
path = "/page.js"
access = "public"
upstream = "pages"

[[routes]]
path = "/api/auth/{{*rest}}"
access = "public"
upstream = "better-auth"

[[routes]]
path = "/shared/{{user_id}}/tasks"
access = {{ owner = "user_id" }}
upstream = "api"
origins = ["{friend}"]
cors = {{ origins = ["{friend}"], credentials = true }}
"""

COOKIE_ONLY = {"credentials": "include"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        def start(kind, *arguments, **options):
            started = kind(*arguments, **options)
            stack.callback(started.stop)
            return started

        port = free_port()
        origin = f"http://localhost:{port}"
        upstream, pages, friends = start(Upstream), start(Server, PageHandler), start(Server, PageHandler)
        friend = f"http://localhost:{friends.port}"
        directory = tmp_path_factory.mktemp("world")
        server = start(BetterAuth, directory, "--base-url", origin, "--cookie-cache", "compact")
        sessions = f'{{ max_age = "{MAX_AGE}s" }}'
        routes = ROUTES.format(pages=pages, server=server, friend=friend)
        table = issuer(server, sessions, f', public = "{origin}"')
        gate = start(Guarded, directory / "gate", upstream, table, routes, port=port)
        chromium = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"], timeout=BROWSER_MILLISECONDS,
        )
        stack.callback(chromium.close)
        context = chromium.new_context()
        context.set_default_timeout(BROWSER_MILLISECONDS)

        def opened(url):
            page = context.new_page()
            page.goto(url)
            page.wait_for_function("() => globalThis.send")
            return page

        yield SimpleNamespace(
            gate=gate, url=origin, upstream=upstream, server=server, context=context, page=opened(origin),
            friend=opened(friend), stranger=opened(f"http://127.0.0.1:{friends.port}"),
        )


def send(page, url: str, **options):
    return page.evaluate("values => send(...values)", [url, None, COOKIE_ONLY | options])


def test_a_page_uses_the_session_cookie_until_it_signs_out(world):
    user = world.page.evaluate("gate => signIn(gate)", world.url)["user"]
    tasks, sent = f"{world.url}/api/{user}/tasks", len(world.upstream.requests)
    assert {cookie["name"] for cookie in world.context.cookies()} == {
        "better-auth.session_token", "better-auth.session_data"}
    for method in ("GET", "POST", "DELETE"):
        response = send(world.page, tasks, method=method)
        assert (response["status"], response["body"]) == (200, {"user": user})
    other = send(world.page, f"{world.url}/api/another/tasks")
    assert (other["status"], other["body"]["reason"]) == (403, "subject_mismatch")

    received = world.upstream.requests[sent:]
    assert [request.method for request in received] == ["GET", "POST", "DELETE"]
    for request in received:
        headers = dict(request.headers)
        assert headers["x-user-id"] == user
        assert not {"cookie", "authorization"} & headers.keys()
        assert "better-auth" not in str(request.headers)

    # Another page of the site: the browser attaches the cookie, and tells the gate about the page.
    for method in ("POST", "DELETE"):
        assert send(world.friend, tasks, method=method) == {"failed": "TypeError"}
        shared = send(world.friend, f"{world.url}/shared/{user}/tasks", method=method)
        assert (shared["status"], shared["body"]) == (200, {"user": user})
        for url in (tasks, f"{world.url}/shared/{user}/tasks"):
            assert send(world.stranger, url, method=method) == {"failed": "TypeError"}
    changed = [request.target for request in world.upstream.requests[sent + 3:] if request.method != "GET"]
    assert changed == [f"/shared/{user}/tasks"] * 2

    cookies = world.context.cookies()
    world.page.evaluate("gate => signOut(gate)", world.url)
    missing = send(world.page, tasks)
    assert (missing["status"], missing["body"]["reason"]) == (401, "token_missing")
    # Cookies that a thief has kept.
    world.context.add_cookies(cookies)
    waited = wait_until(lambda: send(world.page, tasks)["status"] != 200)
    assert waited < MAX_AGE + 1
    ended = send(world.page, tasks)
    assert (ended["status"], ended["body"]["reason"]) == (401, "session_invalid")

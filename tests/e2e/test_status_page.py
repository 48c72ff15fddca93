"""The status page of the gate in a real browser."""

import os
import pathlib
import shutil
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright

from gate import running_gate, sign_token
from programs import BROWSER_MILLISECONDS, Gate, wait_until

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

# An issuer with sessions that cannot be asked.
EXCHANGES = """
[listen]
address = "127.0.0.1:0"
workers = 1

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:1"

[issuers.away]
better_auth = { url = "http://127.0.0.1:1", sessions = true }

[[routes]]
path = "/me"
access = "authenticated"
"""

SESSION = f"better-auth.session_token={'a' * 32}.{'A' * 43}="

MARKUP = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A gate after one failed and one rejected request, and its status page."""
    directory = tmp_path_factory.mktemp("gate")
    with running_gate(directory, "http://127.0.0.1:1") as gate, sync_playwright() as playwright:
        assert gate.request("GET", "/health").status_code == 502
        assert gate.request("GET", "/api/alice/tasks", sign_token(MARKUP)).status_code == 403
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"], timeout=BROWSER_MILLISECONDS,
        )
        page = chromium.new_page()
        page.set_default_timeout(BROWSER_MILLISECONDS)
        requested, errors = [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{gate.admin_url}/")
        page.wait_for_selector("#upstreams td")
        yield SimpleNamespace(
            directory=directory, gate=gate, page=page, chromium=chromium, requested=requested, errors=errors)
        chromium.close()


def test_shows_routes_reasons_issuers_upstreams_and_latency(world):
    page = world.page
    assert page.inner_text("#state") == "ready"
    assert "generation 1" in page.inner_text("#generation")
    assert "`/api/{user_id}/{*rest}`, for the owner `{user_id}`" in page.inner_text("#routes")
    assert "subject_mismatch" in page.inner_text("#reasons")
    assert "better-auth" in page.inner_text("#issuers")
    assert "api" in page.inner_text("#upstreams")
    assert page.locator("#series svg").count() == 4
    last = page.locator("#refusals summary").first
    assert "403" in last.inner_text() and "subject_mismatch: GET /api/alice/tasks" in last.inner_text()
    last.click()
    assert "FAIL  authorization       subject_mismatch" in page.locator("#refusals pre").first.inner_text()
    # Kept in the target directory, for manual inspection.
    folder = pathlib.Path(os.environ["CLAIMGATE"]).parent
    page.screenshot(path=folder / "status-page.png", full_page=True)


def test_updates_without_a_reload(world):
    assert world.gate.request("GET", "/nowhere").status_code == 404
    world.page.wait_for_function("() => document.querySelector('#reasons').innerText.includes('no_route')")


def test_shows_an_unreachable_upstream_in_red_at_the_top(world):
    world.page.wait_for_selector("#connection:empty", state="attached")

    def is_red() -> bool:
        world.gate.request("GET", "/health")
        return world.page.locator("#health.error").count() == 1

    wait_until(is_red)
    assert "upstream api: connections fail" in world.page.inner_text("#health")
    assert world.page.title() == "claimgate: unhealthy"


def test_shows_the_first_problem_of_a_refused_reload(world):
    config = world.directory / "config.toml"
    valid = config.read_text()
    config.write_text(valid.replace("leeway =", "leewya ="))
    world.page.wait_for_function("() => document.querySelector('#health').innerText.includes('leewya')")
    assert "the previous one stays in force" in world.page.inner_text("#health")
    config.write_text(valid)
    world.page.wait_for_function("() => !document.querySelector('#health').innerText.includes('leewya')")


def test_filters_and_pauses_the_refusals(world):
    page, lines = world.page, world.page.locator("#refusals summary")
    page.fill("#filter", "403 alice")
    assert lines.count() == 1 and "subject_mismatch" in lines.first.inner_text()
    page.fill("#filter", "no such refusal")
    assert lines.count() == 0 and "No refused request matches" in page.inner_text("#refusals")
    page.fill("#filter", "")
    page.click("#pause")
    shown = lines.count()
    assert world.gate.request("GET", "/paused").status_code == 404
    page.wait_for_function("() => document.querySelector('#reasons').innerText.includes('no_route')")
    assert lines.count() == shown
    page.click("#pause")
    page.wait_for_function("() => document.querySelector('#refusals').innerText.includes('/paused')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(world, scheme):
    context = world.chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(BROWSER_MILLISECONDS)
    page = context.new_page()
    page.goto(f"{world.gate.admin_url}/")
    page.wait_for_selector("#upstreams td")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_shows_markup_of_a_client_as_text(world):
    assert MARKUP in world.page.locator("#refusals summary").last.inner_text() + world.page.inner_text("#refusals")
    assert world.page.title() in ("claimgate", "claimgate: unhealthy")
    assert world.page.locator("#refusals img").count() == 0


def test_shows_no_exchanges_without_an_issuer_that_has_them(world):
    assert not world.page.is_visible("#exchanges")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shows_failing_exchanges_in_red(world, tmp_path, scheme):
    gate = Gate(tmp_path, EXCHANGES)
    context = world.chromium.new_context(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(BROWSER_MILLISECONDS)
    page = context.new_page()
    try:
        assert gate.client.get("/me", headers={"Cookie": SESSION}).status_code == 503
        page.goto(f"{gate.admin_url}/")
        page.wait_for_selector("#exchanges .error")
        row = page.inner_text("#exchanges")
        assert "away" in row and "sessions" in row and "connect: " in row
        assert "issuer away: sessions cannot be verified: connect: " in page.inner_text("#health")
        assert page.title() == "claimgate: unhealthy"
        # The row fits, so that the last error is visible.
        table, box = page.locator("#exchanges").bounding_box(), page.locator("#asked .scroll").bounding_box()
        assert table["width"] <= box["width"]
        folder = pathlib.Path(os.environ["CLAIMGATE"]).parent
        page.screenshot(path=folder / f"status-page-exchanges-{scheme}.png", full_page=True)
    finally:
        context.close()
        gate.stop()


def test_sends_requests_to_the_gate_only_and_obeys_its_content_security_policy(world):
    outside = [url for url in world.requested if not url.startswith((world.gate.admin_url, "data:"))]
    assert world.requested and not outside
    assert world.errors == []


def test_blocks_injected_markup_and_foreign_images(world):
    with pytest.raises(Exception, match="TrustedHTML|Trusted Types|violates"):
        world.page.evaluate("markup => { document.body.innerHTML = markup }", MARKUP)
    blocked = world.page.evaluate("""() => new Promise(resolve => {
        document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective), { once: true });
        const image = new Image();
        image.src = "http://127.0.0.1:1/leak";
    })""")
    assert blocked == "img-src"
    world.errors.clear()


def test_a_page_of_another_origin_cannot_read_the_status(world):
    page = world.chromium.new_page()
    page.set_default_timeout(BROWSER_MILLISECONDS)
    page.route("http://evil.test/", lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
    page.goto("http://evil.test/")
    read = "url => fetch(url).then(response => response.text(), error => error.name)"
    assert page.evaluate(read, f"{world.gate.admin_url}/status.json") == "TypeError"
    page.close()


def test_links_to_the_data_without_javascript(world):
    context = world.chromium.new_context(java_script_enabled=False)
    context.set_default_timeout(BROWSER_MILLISECONDS)
    page = context.new_page()
    page.goto(f"{world.gate.admin_url}/")
    assert page.locator("noscript a").count() == 3 or "/status.json" in page.content()
    context.close()

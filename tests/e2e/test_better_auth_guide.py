"""The code of docs/guides/better-auth-any-backend.md: each front end and its configuration, with other addresses and
shorter times, against a real Better Auth server. Pages run in Chromium, programs in Node."""

import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright

import mcp_client
from better_auth_17 import PASSWORD, BetterAuth, body
from programs import BROWSER_MILLISECONDS, NODE, Gate, Program, free_port, wait_until

PAGE = pathlib.Path(__file__).parents[2] / "docs/guides/better-auth-any-backend.md"
CHROMIUM = shutil.which("chromium")
IN_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
EMAIL = "ada@example.com"
MAX_AGE_SECONDS = 2


def section(name: str) -> str:
    parts = re.split(r"^##+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[name]


def block(name: str, language: str, contains: str) -> str:
    """The code block of a section that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section(name), re.MULTILINE | re.DOTALL)
    [found] = (code for code in blocks if contains in code)
    return found


def replaced(code: str, **texts: str) -> str:
    """The code with other texts. Each must occur, so that the test follows the guide."""
    for old, new in texts.items():
        assert old in code, f"{old} is not in\n{code}"
        code = code.replace(old, new)
    return code


def bundle(directory: pathlib.Path, code: str, *options: str) -> pathlib.Path:
    """Translates TypeScript, with the Better Auth client in it."""
    source, script = directory / "program.ts", directory / "program.js"
    source.write_text(code)
    packages = pathlib.Path(os.environ["BETTER_AUTH_17"]) / "node_modules"
    esbuild = pathlib.Path(os.environ["BETTER_AUTH_SERVER"]).parent / "node_modules/.bin/esbuild"
    command = [esbuild, source, "--bundle", f"--outfile={script}", "--log-level=warning", *options]
    subprocess.run(command, check=True, env=os.environ | {"NODE_PATH": str(packages)})
    return script


def run_in_node(directory: pathlib.Path, code: str, **environment: str):
    """Runs TypeScript, and returns the JSON that it prints."""
    script = bundle(directory, code, "--platform=node", "--format=esm")
    script = script.rename(script.with_suffix(".mjs"))
    ended = subprocess.run([NODE, script], capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


class Api(http.server.BaseHTTPRequestHandler):
    """An API that returns the user, and records the header fields of each request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(headers)
        content = json.dumps({"tasks of": headers.get("x-user-id"), "client": headers.get("x-client-id")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def start(tmp_path_factory):
    """Starts programs, and stops them after the test."""
    with contextlib.ExitStack() as stack:
        def program(kind, *arguments):
            started = kind(tmp_path_factory.mktemp(kind.__name__.lower()), *arguments)
            stack.callback(started.stop)
            return started

        def api():
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api))
            server.received, server.url = [], f"http://127.0.0.1:{server.server_port}"
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server

        def page(origin, script):
            """Runs this script on a page of an origin with Better Auth."""
            chromium = stack.enter_context(sync_playwright()).chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"], timeout=BROWSER_MILLISECONDS,
            )
            stack.callback(chromium.close)
            opened = chromium.new_page()
            opened.set_default_timeout(BROWSER_MILLISECONDS)
            # A page from the network: Chromium would block requests of an invented one to this machine.
            opened.goto(f"{origin}/api/auth/ok")
            opened.add_script_tag(path=script)
            return opened

        yield SimpleNamespace(program=program, api=api, page=page, directory=tmp_path_factory.mktemp("code"))


def gate(start, port: int, configuration: str) -> Gate:
    listeners = f'[listen]\naddress = "127.0.0.1:{port}"\n[admin]\naddress = "127.0.0.1:0"\n'
    return start.program(Gate, listeners + configuration)


def session_gate(start):
    """The programs of the section about session cookies, and a user."""
    port, api = free_port(), start.api()
    url = f"http://localhost:{port}"
    better_auth = start.program(BetterAuth, "--base-url", url)
    configuration = replaced(block("Session cookie on the same site", "toml", "[upstreams.web]"), **{
        "http://127.0.0.1:8000": api.url, "http://127.0.0.1:3000": better_auth.origin, "https://app.example": url,
        "sessions = true": f'sessions = {{ max_age = "{MAX_AGE_SECONDS}s" }}',
    })
    started = gate(start, port, configuration)
    wait_until(started.ready)
    better_auth.post("sign-up/email", json={"email": EMAIL, "password": PASSWORD, "name": "Ada"}, headers={"Origin": url})
    return SimpleNamespace(gate=started, api=api, url=url)


@IN_BROWSER
def test_a_page_uses_its_session_cookie(start):
    world = session_gate(start)
    code = block("Session cookie on the same site", "ts", "createAuthClient")
    page = start.page(world.url, bundle(start.directory, code, "--format=iife", "--global-name=guide"))

    user = page.evaluate("account => guide.signIn(...account)", [EMAIL, PASSWORD])
    get = "path => guide.api(path).then(async (r) => ({ status: r.status, ...await r.json() }))"
    own = page.evaluate(get, f"/api/{user}/tasks")
    assert (own["status"], own["tasks of"]) == (200, user)
    of_bob = page.evaluate(get, "/api/bob/tasks")
    assert (of_bob["status"], of_bob["reason"]) == (403, "subject_mismatch")
    [received] = world.api.received
    assert not {"cookie", "authorization"} & received.keys()

    # The cookie of a thief outlives that of the browser for `max_age`.
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    page.evaluate("() => guide.authClient.signOut()")
    signed_out = time.monotonic()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    stolen = lambda: world.gate.client.get(f"/api/{user}/tasks", headers={"Cookie": cookie})  # noqa: E731
    wait_until(lambda: stolen().status_code == 401)
    assert time.monotonic() - signed_out < MAX_AGE_SECONDS + 1
    assert stolen().json()["reason"] == "session_invalid"
    page.evaluate("path => void guide.api(path)", f"/api/{user}/tasks")
    page.wait_for_url("**/sign-in")


def test_an_application_uses_its_session_token(start):
    world = session_gate(start)
    # Node sends `Sec-Fetch-Mode`, and so must send `Origin` as the section says.
    code = replaced(block("Session token of an application", "ts", "createAuthClient"), **{
        "https://app.example": world.url, "fetchOptions: {": f'fetchOptions: {{ headers: {{ Origin: "{world.url}" }},',
    })
    steps = """
    const { data } = await authClient.signIn.email({ email: process.env.EMAIL!, password: process.env.PASSWORD! });
    const own = await api(`/api/${data!.user.id}/tasks`);
    const ofBob = await api("/api/bob/tasks");
    console.log(JSON.stringify([data!.user.id, own.status, await own.json(), ofBob.status]));
    """
    user, status, tasks, of_bob = run_in_node(start.directory, code + steps, EMAIL=EMAIL, PASSWORD=PASSWORD)
    assert (status, tasks["tasks of"], of_bob) == (200, user, 403)


@IN_BROWSER
def test_a_page_on_another_site_uses_a_jwt(start):
    better_auth, api, port = start.program(BetterAuth), start.api(), free_port()
    name = "JWT for pages on another site"
    started = gate(start, port, replaced(block(name, "toml", "[cors]"), **{
        "http://127.0.0.1:8000": api.url, "https://app.example": better_auth.origin,
    }))
    user = better_auth.sign_up(EMAIL)
    user.jwt()
    wait_until(started.ready)
    code = replaced(block(name, "ts", "createAuthClient"), **{"https://api.example": f"http://localhost:{port}"})
    page = start.page(better_auth.origin, bundle(start.directory, code, "--format=iife", "--global-name=guide"))
    sign_in = "account => guide.authClient.signIn.email(account)"
    page.evaluate(sign_in, {"email": EMAIL, "password": PASSWORD})
    get = "path => guide.api(path).then(async (r) => ({ status: r.status, ...await r.json() }))"
    own = page.evaluate(get, f"/api/{user.id}/tasks")
    assert (own["status"], own["tasks of"]) == (200, user.id)
    assert page.evaluate(get, "/api/bob/tasks")["reason"] == "subject_mismatch"


def test_a_machine_uses_its_own_token(start):
    resource, port, api = "https://api.example", free_port(), start.api()
    better_auth = start.program(BetterAuth, "--oauth", "--resource", resource)
    configuration = replaced(block("Machine clients", "toml", "machines = true"), **{
        "http://127.0.0.1:8000": api.url, "https://app.example": better_auth.origin, "reports:read": "tasks:read",
    })
    started = gate(start, port, configuration)
    user = better_auth.sign_up(EMAIL)
    user.jwt()
    wait_until(started.ready)
    client = user.register(resource, machine=True)
    # The address of the gate, but not the resource.
    code = replaced(block("Machine clients", "ts", "client_credentials"), **{
        "https://app.example": better_auth.origin, "https://api.example/": f"{started.url}/", "reports:read": "tasks:read",
    })
    steps = "console.log(JSON.stringify([reports.status, await reports.json()]));"
    status, received = run_in_node(start.directory, code + steps, CLIENT_ID=client.id, CLIENT_SECRET=client.secret)
    assert (status, received) == (200, {"tasks of": client.id, "client": client.id})
    assert started.request("GET", "/reports/2026", user.jwt()).json()["reason"] == "token_issuer"


def test_a_machine_proves_its_key(start):
    resource, port, api = "https://api.example", free_port(), start.api()
    better_auth = start.program(BetterAuth, "--oauth", "--resource", resource, "--dpop-required")
    name = "Tokens bound to a key (DPoP)"
    issuer = block(name, "toml fragment", "dpop_nonce")
    routes = block("Machine clients", "toml", "machines = true").split("[[routes]]")[1]
    configuration = f'[upstreams.tasks]\nurl = "{api.url}"\n{issuer}[[routes]]{routes}'
    started = gate(start, port, replaced(configuration, **{
        "https://app.example": better_auth.origin, "reports:read": "tasks:read",
    }))
    user = better_auth.sign_up(EMAIL)
    user.jwt()
    wait_until(started.ready)
    client = user.register(resource, machine=True)
    code = replaced(block(name, "ts", "SignJWT"), **{
        "https://app.example": better_auth.origin, "https://api.example/": f"{started.url}/", "reports:read": "tasks:read",
    })
    steps = f"""
    const url = "{started.url}/reports/2026";
    const token = await boundToken();
    const once = {{ headers: {{ Authorization: `DPoP ${{token}}`, DPoP: await proof("GET", url, token) }} }};
    const statuses = [];
    for (const sent of [once, once, {{ headers: {{ Authorization: `Bearer ${{token}}` }} }}]) {{
      const response = await fetch(url, sent);
      statuses.push([response.status, (await response.json()).reason ?? null]);
    }}
    console.log(JSON.stringify([report.status, await report.json(), statuses]));
    """
    status, received, statuses = run_in_node(start.directory, code + steps, CLIENT_ID=client.id, CLIENT_SECRET=client.secret)
    assert (status, received) == (200, {"tasks of": client.id, "client": client.id})
    assert statuses == [[200, None], [401, "proof_replayed"], [401, "token_confirmation"]]
    assert all(not {"authorization", "dpop"} & headers.keys() for headers in api.received)


def test_an_mcp_client_finds_its_way(start):
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    better_auth = start.program(BetterAuth, "--mcp", resource)
    code = replaced(block("MCP clients", "python", "FastMCP"), **{"port=8000": "port=int(sys.argv[1])"})
    script = start.directory / "mcp_server.py"
    script.write_text(f"import sys\n{code}")
    server = start.program(Program, [sys.executable, script, "0"], {})
    upstream = server.wait_for(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")[1]
    started = gate(start, port, replaced(block("MCP clients", "toml", "[resource]"), **{
        "http://127.0.0.1:8000": upstream, "https://api.example/mcp": resource, "https://app.example": better_auth.origin,
    }))
    wait_until(started.ready)
    user = better_auth.sign_up(EMAIL)
    called = asyncio.run(mcp_client.call_whoami(resource, user.cookie))
    assert called["user"] == user.id
    challenge = started.client.get("/mcp").headers["www-authenticate"]
    assert f'resource_metadata="http://127.0.0.1:{port}/.well-known/oauth-protected-resource/mcp"' in challenge
    assert body(started.client.get("/.well-known/oauth-protected-resource/mcp"))["resource"] == resource

"""The gate with a real Better Auth server: tokens, key rotation, an issuer outage, and floods of unknown keys."""

import asyncio
import base64
import collections
import contextlib
import json
import re
import secrets
import time
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from programs import RESPONSE_SECONDS, Gate, Issuer, TaskService, User, free_port, wait_until

TIMEOUT = 60
# Concurrent requests for new tokens. With all fifty clients at once, a busy machine serves the key set later than the
# gate lets a request wait.
TOKEN_REQUESTS = 8

CONFIGURATION = """
[listen]
address = "127.0.0.1:{port}"

[admin]
address = "127.0.0.1:0"

[upstreams.tasks]
url = "{tasks.url}"
connect_timeout = "20s"

[upstreams.better-auth]
url = "{issuer.url}"
connect_timeout = "20s"

[issuers.better-auth]
keys = {{ jwks_url = "{issuer.jwks_url}", refresh = "{refresh}" }}
issuer = "{issuer.origin}"
audience = "{issuer.origin}"

[[routes]]
path = "/api/auth/{{*rest}}"
access = "public"
upstream = "better-auth"

[[routes]]
path = "/api/{{user_id}}/tasks/{{*rest}}"
access = {{ owner = "user_id" }}
upstream = "tasks"
"""


@contextlib.contextmanager
def programs(directory):
    """Yields a function that starts programs in this directory. All stop at the end, in reverse order."""
    with contextlib.ExitStack() as stack:
        def start(kind, *arguments, **options):
            subdirectory = directory / kind.__name__
            subdirectory.mkdir()
            started = kind(subdirectory, *arguments, **options)
            stack.callback(started.stop)
            return started
        yield start


@pytest.fixture
def start(tmp_path):
    with programs(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    with programs(tmp_path_factory.mktemp("tasks")) as start:
        yield start(TaskService)


def configuration_for(issuer, tasks, refresh: str = "5m", port: int = 0) -> str:
    return CONFIGURATION.format(issuer=issuer, tasks=tasks, refresh=refresh, port=port)


def path(user) -> str:
    return f"/api/{user.id}/tasks"


def reason(response) -> str:
    return response.json().get("reason", "") if "problem+json" in response.headers.get("content-type", "") else ""


def outcome(response) -> str:
    """`200`, or `401 token_expired`."""
    return f"{response.status_code} {reason(response)}".strip()


def ready(gate) -> Gate:
    wait_until(gate.ready)
    return gate


def report(capsys, text: str):
    """Prints counts, also for a test that passes."""
    with capsys.disabled():
        print(f"\n    {text}", end="")


# --- tokens

@pytest.fixture(scope="module", params=["EdDSA", "ES256", "ES512", "RS256", "PS256"])
def signed_in(request, tmp_path_factory, tasks):
    with programs(tmp_path_factory.mktemp(request.param)) as start:
        issuer = start(Issuer, algorithm=request.param)
        gate = ready(start(Gate, configuration_for(issuer, tasks)))
        user = issuer.sign_up()
        token = user.token()
        assert jwt.get_unverified_header(token)["alg"] == request.param
        yield SimpleNamespace(gate=gate, user=user, token=token)


def test_a_user_creates_a_task_and_lists_it(signed_in):
    created = signed_in.gate.request("POST", path(signed_in.user), signed_in.token, json={"title": "Buy milk"})
    assert created.status_code == 201, created.text
    listed = signed_in.gate.request("GET", path(signed_in.user), signed_in.token)
    assert listed.status_code == 200, listed.text
    assert [(task["title"], task["user_id"]) for task in listed.json()] == [("Buy milk", signed_in.user.id)]


def test_rejects_the_path_of_another_user(signed_in):
    response = signed_in.gate.request("GET", f"/api/{signed_in.user.id.swapcase()}/tasks", signed_in.token)
    assert outcome(response) == "403 subject_mismatch"


def test_rejects_a_session_token_with_a_hint(signed_in):
    signed = unquote(signed_in.user.cookie.split("=", 1)[1])
    assert signed.split(".")[0] == signed_in.user.session
    for session in (signed_in.user.session, signed):
        response = signed_in.gate.request("GET", path(signed_in.user), session)
        assert outcome(response) == "401 token_opaque"
        assert "from /api/auth/token for a session" in response.json()["detail"]


@pytest.mark.parametrize("index", [0, 20, -1])
def test_rejects_a_signature_with_a_flipped_bit(signed_in, index):
    content, _, signature = signed_in.token.rpartition(".")
    flipped = bytearray(base64.urlsafe_b64decode(signature + "=="))
    flipped[index] ^= 1
    token = f"{content}.{base64.urlsafe_b64encode(flipped).decode().rstrip('=')}"
    assert outcome(signed_in.gate.request("GET", path(signed_in.user), token)) == "401 token_signature"
    assert outcome(signed_in.gate.request("GET", path(signed_in.user), signed_in.token)) == "200"


# --- concurrent clients

class Crowd:
    """Clients that send requests in a loop, each with its own tokens, and counts of the responses."""

    def __init__(self, gate: Gate, issuer: Issuer, users: list, size: int):
        self.issuer, self.size = issuer, size
        self.users = [users[index % len(users)] for index in range(size)]
        self.tokens = [[user.token()] for user in self.users]
        self.responses = collections.Counter()
        self.slowest = collections.Counter()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx.AsyncClient(base_url=gate.url, timeout=RESPONSE_SECONDS, trust_env=False, limits=limits)

    async def _call_until(self, ended: asyncio.Event, index: int):
        while not ended.is_set():
            for age, token in enumerate(self.tokens[index]):
                began = time.monotonic()
                response = await self.http.get(path(self.users[index]), headers={"Authorization": f"Bearer {token}"})
                self.responses[f"token {age}: {outcome(response)}"] += 1
                self.slowest[f"token {age}"] = max(self.slowest[f"token {age}"], time.monotonic() - began)
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def calling(self):
        ended = asyncio.Event()
        async with self.http:
            calls = [asyncio.create_task(self._call_until(ended, index)) for index in range(self.size)]
            try:
                yield
            finally:
                ended.set()
                await asyncio.gather(*calls)

    async def new_tokens(self):
        """Fetches a new token for each client, which then uses it in addition to its others."""
        limit = asyncio.Semaphore(TOKEN_REQUESTS)
        async with httpx.AsyncClient(base_url=self.issuer.url, timeout=RESPONSE_SECONDS, trust_env=False) as http:
            async def fetch(index: int):
                async with limit:
                    response = await http.get("/api/auth/token", headers={"Cookie": self.users[index].cookie})
                self.tokens[index].append(response.json()["token"])
            await asyncio.gather(*map(fetch, range(self.size)))

    def report(self) -> str:
        counts = ", ".join(f"{count} × {response}" for response, count in sorted(self.responses.items()))
        slowest = ", ".join(f"{token} {seconds * 1000:.0f} ms" for token, seconds in sorted(self.slowest.items()))
        return f"{counts}; slowest: {slowest}"

    def kids(self) -> set:
        return {jwt.get_unverified_header(token)["kid"] for tokens in self.tokens for token in tokens}

    def failures(self) -> dict:
        return {response: count for response, count in self.responses.items() if not response.endswith(" 200")}


def crowd(gate: Gate, issuer: Issuer, size: int) -> Crowd:
    return Crowd(gate, issuer, [issuer.sign_up(f"user{number}@example.com") for number in range(10)], size)


def test_a_key_rotation_causes_no_failed_request(start, tasks, capsys):
    issuer = start(Issuer)
    issuer.sign_up().token()
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    fifty = crowd(gate, issuer, 50)

    async def rotation():
        async with fifty.calling():
            await asyncio.sleep(2)
            issuer.rotate()
            fifty.users[0].token()
            await fifty.new_tokens()
            await asyncio.sleep(3)

    asyncio.run(rotation())
    report(capsys, f"{len(fifty.kids())} keys, {gate.fetches('success')} fetches: {fifty.report()}")
    assert len(fifty.kids()) == 2
    assert not fifty.failures()


def test_two_key_rotations_with_many_new_keys_cause_no_failed_request(start, tasks, capsys):
    issuer = start(Issuer)
    issuer.sign_up().token()
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    forty = crowd(gate, issuer, 40)

    async def rotations():
        async with forty.calling():
            for _ in range(2):
                issuer.rotate()
                # Better Auth creates one key for each of the first concurrent token requests.
                await forty.new_tokens()
                await asyncio.sleep(2)

    asyncio.run(rotations())
    report(capsys, f"{len(forty.kids())} keys, {gate.fetches('success')} fetches: {forty.report()}")
    assert len(forty.kids()) >= 3
    assert not forty.failures()


def test_accepts_every_key_of_the_largest_better_auth_key_set(start, tasks):
    issuer = start(Issuer)
    user = issuer.sign_up()
    tokens = [user.token()]
    # Better Auth reads a hundred rows. With more, it does not find its own newest keys.
    for _ in range(99):
        issuer.rotate()
        tokens.append(user.token())
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    assert gate.metric('claimgate_keys{issuer="better-auth"}') == 100
    assert {outcome(gate.request("GET", path(user), token)) for token in tokens} == {"200"}


# --- issuer outage

def test_accepts_tokens_of_known_keys_during_an_issuer_outage(start, tasks, capsys):
    issuer = start(Issuer)
    issuer.sign_up().token()
    gate = ready(start(Gate, configuration_for(issuer, tasks, refresh="1s")))
    twenty = crowd(gate, issuer, 20)
    readiness = collections.Counter()
    forged = forger()(issuer.origin, twenty.users[0].id)

    async def outage():
        async with (twenty.calling(), httpx.AsyncClient(
                base_url=gate.admin_url, timeout=RESPONSE_SECONDS, trust_env=False) as admin):
            await asyncio.sleep(1)
            await asyncio.to_thread(issuer.stop)
            for _ in range(20):
                readiness[(await admin.get("/readyz")).status_code] += 1
                await asyncio.sleep(0.5)
            # The gate retried during the outage.
            await asyncio.to_thread(wait_until, lambda: gate.fetches("failure") >= 3)

    asyncio.run(outage())
    failed = gate.fetches("failure")
    report(capsys, f"{failed} fetches failed: {twenty.report()}")
    assert not twenty.failures()
    assert readiness == {200: 20}

    # An unknown key may be a new one, which the gate cannot decide now.
    assert outcome(gate.request("GET", path(twenty.users[0]), forged)) == "503 keys_unavailable"

    issuer.start()
    issuer.rotate()
    token = twenty.users[0].token()
    responses = collections.Counter()

    def is_accepted() -> bool:
        response = outcome(gate.request("GET", path(twenty.users[0]), token))
        responses[response] += 1
        return response == "200"

    took = wait_until(is_accepted)
    report(capsys, f"a new key was accepted {took:.1f} s after the end of the outage: {dict(responses)}")
    assert set(responses) <= {"200", "503 keys_unavailable"}


def test_a_gate_started_before_the_issuer_becomes_ready_later(start, tasks, capsys):
    issuer = start(Issuer)
    user = issuer.sign_up()
    token = user.token()
    issuer.stop()
    gate = start(Gate, configuration_for(issuer, tasks))

    readiness = gate.admin.get("/readyz")
    assert readiness.status_code == 503
    assert "better-auth" in readiness.text
    response = gate.request("GET", path(user), token)
    assert outcome(response) == "503 keys_unavailable"
    assert int(response.headers["retry-after"]) > 0
    assert "www-authenticate" not in response.headers
    assert gate.client.get("/api/auth/ok").status_code == 502, "a public route needs no keys"

    issuer.start()
    took = wait_until(gate.ready)
    report(capsys, f"ready {took:.1f} s after the start of the issuer")
    assert outcome(gate.request("GET", path(user), token)) == "200"


# --- floods of unknown keys

def forger():
    """Returns a function that signs plausible tokens with an unknown key, each with a new `kid` or the given one."""
    key = Ed25519PrivateKey.generate()
    now = int(time.time())

    def token(origin: str, subject: str, kid: str | None = None) -> str:
        claims = {"iss": origin, "aud": origin, "sub": subject, "iat": now, "exp": now + 900}
        headers = {"kid": kid or secrets.token_urlsafe(24), "typ": None}
        return jwt.encode(claims, key, algorithm="EdDSA", headers=headers)

    return token


async def pipeline(url: str, path: str, tokens: list, responses: collections.Counter):
    """Sends all requests on one connection without waiting, and reads the responses as they arrive."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)

    async def send():
        for token in tokens:
            head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        for _ in tokens:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
            body = json.loads(await reader.readexactly(length))
            responses[f"{head.split()[1]} {body['reason']}"] += 1
        await sending
    finally:
        sending.cancel()
        writer.close()


class Flood:
    """A hundred connections with a hundred forged tokens each."""

    def __init__(self, issuer: Issuer, user: User):
        token = forger()
        self.path = path(user)
        self.tokens = [[token(issuer.origin, user.id) for _ in range(100)] for _ in range(100)]
        self.responses = collections.Counter()
        self.seconds = 0.0

    async def run(self, gate: Gate, at_most: float):
        """Ends after the last response, or after `at_most` seconds."""
        began = time.monotonic()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most):
                    calls = [pipeline(gate.url, self.path, tokens, self.responses) for tokens in self.tokens]
                    await asyncio.gather(*calls)
        finally:
            self.seconds = time.monotonic() - began

    def report(self) -> str:
        return f"responses to the flood: {dict(self.responses)} in {self.seconds:.1f} s"


def test_a_flood_of_unknown_keys_affects_neither_the_issuer_nor_the_users(start, tasks, capsys):
    issuer = start(Issuer)
    issuer.sign_up().token()
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    ten = crowd(gate, issuer, 10)
    flood = Flood(issuer, ten.users[0])
    before, began = issuer.key_set_fetches(), time.monotonic()

    async def flooded():
        async with ten.calling():
            await flood.run(gate, at_most=12)

    asyncio.run(flooded())
    fetched = issuer.key_set_fetches() - before
    seconds = time.monotonic() - began
    report(capsys, f"{flood.report()}, {fetched} fetches; meanwhile {ten.report()}")
    assert not ten.failures()
    assert flood.responses.total() > 100 and set(flood.responses) <= {"401 token_key_unknown", "503 keys_unavailable"}
    assert 1 <= fetched <= 4 + seconds / 5


def test_never_reports_a_new_key_as_unknown_during_a_flood(start, tasks, capsys):
    issuer = start(Issuer)
    user = issuer.sign_up()
    user.token()
    flood = Flood(issuer, user)
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    responses = collections.Counter()

    async def flooded() -> float:
        flooding = asyncio.create_task(flood.run(gate, at_most=TIMEOUT + 5))
        await asyncio.sleep(2.5)
        issuer.rotate()
        token = user.token()
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=gate.url, timeout=RESPONSE_SECONDS, trust_env=False) as http:
            while responses["200"] == 0 and time.monotonic() < began + TIMEOUT:
                response = await http.get(path(user), headers={"Authorization": f"Bearer {token}"})
                responses[outcome(response)] += 1
                await asyncio.sleep(0.1)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        return time.monotonic() - began

    took = asyncio.run(flooded())
    report(capsys, f"{dict(responses)} within {took:.1f} s; {flood.report()}")
    assert responses["200"] == 1
    assert set(responses) <= {"200", "503 keys_unavailable"}


def test_a_forged_key_id_does_not_block_a_later_key(start, tasks):
    issuer = start(Issuer, IDS="serial")
    user = issuer.sign_up()
    assert jwt.get_unverified_header(user.token())["kid"] == "1"
    gate = ready(start(Gate, configuration_for(issuer, tasks)))
    forged = forger()(issuer.origin, user.id, kid="2")
    assert outcome(gate.request("GET", path(user), forged)) == "401 token_key_unknown"
    issuer.rotate()
    token = user.token()
    assert jwt.get_unverified_header(token)["kid"] == "2"
    assert outcome(gate.request("GET", path(user), token)) in ("200", "503 keys_unavailable")


# --- other issuer settings

def test_configures_better_auth_with_one_setting(start, tasks):
    issuer = start(Issuer)
    user = issuer.sign_up()
    others = start(type("Others", (Issuer,), {}))
    configuration = f"""
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[upstreams.tasks]
url = "{tasks.url}"
[issuers.app]
better_auth = "{issuer.url}"
[[routes]]
path = "/api/{{user_id}}/tasks/{{*rest}}"
access = {{ owner = "user_id" }}
"""
    gate = ready(start(Gate, configuration))
    assert outcome(gate.request("GET", path(user), user.token())) == "200"
    other_user = others.sign_up()
    assert outcome(gate.request("GET", path(other_user), other_user.token())) == "401 token_issuer"


def test_accepts_a_configured_session_cache_cookie_but_no_email_link(start, tasks):
    issuer = start(Issuer, CACHE="jwt")
    account = {"email": "ada@example.com", "password": "correct horse battery staple", "name": "Ada"}
    response = issuer.client.post("/api/auth/sign-up/email", json=account, headers={"Origin": issuer.origin})
    assert response.status_code == 200, response.text
    user = SimpleNamespace(id=response.json()["user"]["id"])
    cookies = dict(line.split(";")[0].split("=", 1) for line in response.headers.get_list("set-cookie"))
    session = cookies["better-auth.session_data"]
    secret = issuer.environment["BETTER_AUTH_SECRET"]
    (issuer.directory / "secret").write_text(secret)
    configuration = f"""
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[upstreams.tasks]
url = "{tasks.url}"
[issuers.session]
keys = {{ secret_file = "{issuer.directory}/secret" }}
subject = ["/user/id"]
max_lifetime = "5m"
[[routes]]
path = "/api/{{user_id}}/tasks/{{*rest}}"
access = {{ owner = "user_id" }}
tokens = [{{ cookie = "better-auth.session_data" }}]
origins = ["{issuer.origin}"]
"""
    gate = ready(start(Gate, configuration))

    def send(method, token, **headers):
        headers = {"Cookie": f"theme=dark; better-auth.session_data={token}", **headers}
        return outcome(gate.client.request(method, path(user), headers=headers, json={"title": "Buy milk"}))

    assert send("GET", session) == "200"
    assert send("POST", session, Origin=issuer.origin) == "201"
    assert send("POST", session, Origin="https://evil.example") == "403 origin_not_allowed"
    assert send("POST", session) == "403 origin_not_allowed"
    now = int(time.time())
    link = jwt.encode({"email": account["email"], "userId": user.id, "iat": now, "exp": now + 200}, secret, "HS256")
    assert send("GET", link) == "401 token_subject"


# --- Better Auth behind the gate

def test_serves_better_auth_through_the_gate(start, tasks):
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    issuer = start(Issuer, origin=origin)
    gate = ready(start(Gate, configuration_for(issuer, tasks, port=port)))
    assert gate.url == origin

    response = gate.client.post(
        "/api/auth/sign-up/email", headers={"Origin": origin, "X-User-Id": "mallory"},
        json={"email": "ada@example.com", "password": "correct horse battery staple", "name": "Ada"},
    )
    assert response.status_code == 200, response.text
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("better-auth.session_token=") and "HttpOnly" in cookie
    user = SimpleNamespace(id=response.json()["user"]["id"])

    # The client now sends the session cookie from its cookie jar.
    session = gate.client.get("/api/auth/get-session")
    assert session.json()["user"]["id"] == user.id
    token = gate.client.get("/api/auth/token").json()["token"]
    assert session.headers["set-auth-jwt"].count(".") == 2
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["sub"]) == (origin, origin, user.id)
    assert outcome(gate.request("GET", path(user), token)) == "200"

    # A session is not a token, so the cookie alone grants no access.
    assert gate.client.cookies
    assert outcome(gate.request("GET", path(user))) == "401 token_missing"

    signed_out = gate.client.post("/api/auth/sign-out", headers={"Origin": origin}, json={})
    assert signed_out.status_code == 200, signed_out.text
    assert "Max-Age=0" in signed_out.headers["set-cookie"]
    assert gate.client.get("/api/auth/token").status_code == 401

"""Sessions of Better Auth 1.7: the gate exchanges the session cookie, or the bearer plugin's token, at the server."""

import concurrent.futures
import re
import time

import jwt
import pytest

from better_auth_17 import BetterAuth, body
from programs import http_client, wait_until
from sessions import Guarded, Upstream, issuer, outcome, running, tasks_of

# Longest use of an exchange in these tests, in seconds.
MAX_AGE = 2
SESSIONS = f'{{ max_age = "{MAX_AGE}s" }}'
INVALID = (401, "session_invalid")


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def app(tmp_path_factory, upstream):
    """A server and its gate, behind a trusted proxy."""
    listen = 'trusted_proxies = ["127.0.0.1/32"]'
    directory = tmp_path_factory.mktemp("app")
    with running(directory, upstream, "--log", sessions=SESSIONS, listen=listen) as (server, gate):
        gate.server = server
        yield gate


@pytest.fixture
def ada(app, request):
    """A user of their own for each test."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)
    return app.server.sign_up(f"{name}@example.com")


def session_cookies(value: str) -> set[str]:
    names = (pair.partition("=")[0].strip() for pair in value.split(";"))
    return {name for name in names if ".session_" in name}


# The cookie.


def test_serves_the_owner_with_the_session_cookie_only(app, ada):
    for path in (tasks_of(ada), "/me"):
        response = app.send(path, cookie=ada.session_cookie)
        assert outcome(response) == (200, None)
        assert response.json() == {"user": ada.id}
        assert app.upstream.last("x-user-id") == [ada.id]
        assert app.upstream.last("cookie") == []
    assert app.outcome("/api/another/tasks", cookie=ada.session_cookie) == (403, "subject_mismatch")
    assert app.outcome(tasks_of(ada)) == (401, "token_missing")


def test_a_client_cannot_choose_its_identity(app, ada):
    for name in ("X-User-Id", "x_user_id", "X-USER-ID"):
        assert app.send(cookie=ada.session_cookie, headers=[(name, "mallory")]).json() == {"user": ada.id}
        assert not any("mallory" in value for _, value in app.upstream.requests[-1].headers)


def test_the_upstream_sees_other_cookies_but_none_of_the_session(app, ada):
    session = f"{ada.session_cookie}; better-auth.session_data=abc; better-auth.session_data.0=d"
    prefixed = "__Secure-better-auth.session_data=f; __Secure-better-auth.session_data.1=g"
    first, second = f"theme=dark; {session}; lang=cs", f"{prefixed}; cart=7"
    assert app.outcome(headers=[("Cookie", first), ("Cookie", second)]) == (200, None)
    sent = "; ".join(app.upstream.last("cookie"))
    assert [pair.strip() for pair in sent.split(";")] == ["theme=dark", "lang=cs", "cart=7"]
    assert ada.session_token not in str(app.upstream.requests[-1].headers)


def test_a_public_route_needs_no_session_and_asks_about_none(app, ada):
    before = app.server.requests("GET /api/auth/token")
    assert app.outcome("/health", cookie=ada.session_cookie) == (200, None)
    assert app.upstream.last("x-user-id") == []
    assert app.server.requests("GET /api/auth/token") == before


def test_rejects_cookies_that_are_not_a_session(app, ada):
    name, _, value = ada.session_cookie.partition("=")
    token, _, signature = value.partition(".")
    before = app.server.requests("GET /api/auth/token")
    for other in ("garbage", token, f"{token}.", f".{signature}", f"{token}.{signature[:-9]}", f"{value}.{value}"):
        assert app.outcome(cookie=f"{name}={other}") == INVALID, other
    # None of these has the form of a session, so the server is not asked.
    assert app.server.requests("GET /api/auth/token") == before
    swapped = token[:-1] + ("a" if token[-1] != "a" else "b")
    for other in (f"{swapped}.{signature}", f"{token}.{'A' * 43}%3D"):
        assert app.outcome(cookie=f"{name}={other}") == INVALID, other
    assert app.server.requests("GET /api/auth/token") == before + 2
    assert app.outcome(cookie=ada.session_cookie) == (200, None)


def test_rejects_the_cookie_under_another_name(app, ada):
    value = ada.session_cookie.partition("=")[2]
    for name in ("session_token", "my-app.session_token", "better-auth.session_tokens", "Better-Auth.session_token",
                 "__Host-better-auth.session_token"):
        assert app.outcome(cookie=f"{name}={value}") == (401, "token_missing"), name
    # Only a server with an https URL sets this name, and this server accepts it for none of its sessions.
    assert app.outcome(cookie=f"__Secure-better-auth.session_token={value}") == INVALID


def test_the_secure_cookie_comes_before_the_plain_one(app, ada):
    value = ada.session_cookie.partition("=")[2]
    secure = f"__Secure-better-auth.session_token={value}"
    _, headers = exchange_of(app, INVALID, cookie=f"{ada.session_cookie}; {secure}")
    assert headers["cookie"] == secure


def test_rejects_a_repeated_session_cookie(app, ada):
    other = app.server.sign_in(ada.email)
    for second in (ada.session_cookie, other.session_cookie):
        repeated = f"{ada.session_cookie}; theme=dark; {second}"
        assert app.outcome(cookie=repeated) == (400, "token_repeated")
        assert app.outcome(headers=[("Cookie", ada.session_cookie), ("Cookie", second)]) == (400, "token_repeated")


# The bearer plugin.


def test_accepts_the_session_token_of_the_bearer_plugin(app, ada):
    signed = ada.session_cookie.partition("=")[2]
    for token in (ada.session_token, signed):
        assert app.send(tasks_of(ada), token=token).json() == {"user": ada.id}
        assert app.upstream.last("authorization") == []
        assert app.outcome("/api/another/tasks", token=token) == (403, "subject_mismatch")


def test_accepts_the_jwt_of_the_session_without_an_exchange(app, ada):
    token = ada.jwt()
    before = app.server.requests("GET /api/auth/token")
    assert app.send(tasks_of(ada), token=token).json() == {"user": ada.id}
    assert app.server.requests("GET /api/auth/token") == before


def test_authorization_decides_beside_a_cookie(app, ada):
    eve = app.server.sign_up("eve@example.com")
    both = {"cookie": ada.session_cookie, "token": eve.session_token}
    assert app.send(**both).json() == {"user": eve.id}
    assert app.upstream.last("cookie") == []
    for token in ("a" * 32, ada.session_token[:-1] + "-", "garbage", f"{eve.jwt()[:-4]}AAAA"):
        assert app.send(cookie=ada.session_cookie, token=token).status_code == 401, token
    # Without a token in it, the cookie is the one credential.
    assert app.send(cookie=ada.session_cookie, headers=[("Authorization", "Basic YTpi")]).json() == {"user": ada.id}
    assert app.upstream.last("authorization") == []


# The end of a session.


def test_a_sign_out_takes_effect_within_the_maximum_age(app, ada):
    credentials = [{"cookie": ada.cookie}, {"token": ada.session_token}]
    for credential in credentials:
        assert app.outcome(**credential) == (200, None)
    ada.sign_out()
    for credential in credentials:
        waited = wait_until(lambda: app.outcome(**credential) != (200, None))
        assert waited < MAX_AGE + 1
        assert app.outcome(**credential) == INVALID
    # A rejection is remembered, too.
    before = app.server.requests("GET /api/auth/token")
    for _ in range(10):
        assert app.outcome(cookie=ada.cookie) == INVALID
    assert app.server.requests("GET /api/auth/token") <= before + 1


def test_rejects_an_expired_session(app, ada):
    app.server.expire(ada.session_token)
    assert app.outcome(cookie=ada.session_cookie) == INVALID
    assert app.outcome(token=ada.session_token) == INVALID


def test_accepts_a_session_that_ends_with_the_browser(app, ada):
    session = app.server.sign_in(ada.email, rememberMe=False)
    assert "better-auth.dont_remember" in session.cookies
    assert app.send(tasks_of(ada), cookie=session.cookie).json() == {"user": ada.id}


def test_sessions_of_one_user_end_one_by_one(app, ada):
    other = app.server.sign_in(ada.email)
    assert app.outcome(cookie=ada.session_cookie) == app.outcome(cookie=other.session_cookie) == (200, None)
    ada.sign_out()
    wait_until(lambda: app.outcome(cookie=ada.session_cookie) == INVALID)
    assert app.outcome(cookie=other.session_cookie) == (200, None)


# The request to the server.


def exchange_of(app, expected=(200, None), **request):
    """The one exchange that a request causes, with its headers."""
    before = len(app.server.received("token"))
    assert app.outcome(**request) == expected
    wait_until(lambda: len(app.server.received("token")) > before)
    [exchange] = app.server.received("token")[before:]
    names = [name for name, _ in exchange.headers]
    assert len(set(names)) == len(names), names
    return exchange, dict(exchange.headers)


CLIENT = [
    ("X-Forwarded-For", "192.0.2.9, 203.0.113.7"), ("X-Real-IP", "192.0.2.1"), ("Forwarded", "for=192.0.2.2"),
    ("User-Agent", "browser"), ("Accept", "text/html"), ("Accept-Language", "cs"), ("Origin", "https://a.example"),
    ("Referer", "https://a.example/page"), ("X-Forwarded-Host", "b.example"), ("X-Forwarded-Proto", "https"),
    ("X-Api-Key", "k" * 64), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("If-None-Match", '"1"'), ("X-Custom", "1"), ("X-Request-Id", "chosen"),
]


@pytest.mark.parametrize("kind", ["cookie", "raw token", "signed token"])
def test_the_exchange_has_one_credential_and_the_client_address(app, ada, kind):
    name, _, value = ada.session_cookie.partition("=")
    if kind == "cookie":
        credential = {"cookie": f"a=1; {ada.cookie}; better-auth.session_data=x; b=2"}
        expected = ("cookie", f"{name}={value}")
    else:
        token = ada.session_token if kind == "raw token" else value
        credential, expected = {"token": token, "cookie": ada.cookie}, ("authorization", f"Bearer {token}")
    exchange, headers = exchange_of(app, headers=CLIENT, **credential)
    assert exchange.method == "GET"
    assert exchange.url == "/api/auth/token?disableRefresh=true&disableCookieCache=true"
    assert headers.pop(expected[0]) == expected[1]
    # The address that the trusted proxy has appended, and no other.
    assert headers.pop("x-forwarded-for") == "203.0.113.7"
    assert headers.pop("host") == f"127.0.0.1:{app.server.port}"
    assert headers.pop("accept") == "application/json"
    assert headers.keys() <= {"connection", "user-agent", "accept-encoding"}, headers
    assert "browser" not in headers.values()


def test_the_exchange_has_the_address_of_the_connection_without_a_trusted_proxy(tmp_path, upstream):
    with running(tmp_path, upstream, "--log") as (server, gate):
        gate.server = server
        headers = [("X-Forwarded-For", "203.0.113.7")]
        _, headers = exchange_of(gate, cookie=server.sign_up().session_cookie, headers=headers)
        assert headers["x-forwarded-for"] == "127.0.0.1"


def test_concurrent_requests_of_one_session_share_one_exchange(app, ada):
    before = app.server.requests("GET /api/auth/token")

    def request(_):
        # A connection of its own, so that all workers take part.
        with http_client(app.url) as client:
            return client.get(tasks_of(ada), headers={"Cookie": ada.session_cookie}).status_code

    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        assert set(threads.map(request, range(50))) == {200}
    # The requests take less than the maximum age, unless the machine is very slow.
    assert app.server.requests("GET /api/auth/token") == before + 1


# Pages of other sites.


@pytest.mark.parametrize(("headers", "expected"), [
    ([("Origin", "https://evil.example")], (403, "origin_not_allowed")),
    ([("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")], (403, "origin_not_allowed")),
    ([("Origin", "null")], (403, "origin_not_allowed")),
    ([], (403, "origin_not_allowed")),
    ([("Sec-Fetch-Site", "same-site")], (403, "origin_not_allowed")),
    ([("Sec-Fetch-Site", "none")], (403, "origin_not_allowed")),
    ([("Origin", "OWN"), ("Sec-Fetch-Site", "same-site")], (403, "origin_not_allowed")),
    ([("Origin", "OWN")], (200, None)),
    ([("Origin", "OWN"), ("Sec-Fetch-Site", "same-origin")], (200, None)),
    ([("Sec-Fetch-Site", "same-origin")], (200, None)),
])
def test_only_pages_of_the_own_origin_change_something(app, headers, expected):
    ada = app.server.sign_in(account_of(app).email)
    headers = [(name, app.url if value == "OWN" else value) for name, value in headers]
    before = app.server.requests("GET /api/auth/token"), len(app.upstream.requests)
    assert app.outcome(tasks_of(ada), cookie=ada.session_cookie, method="POST", headers=headers) == expected
    if expected != (200, None):
        assert (app.server.requests("GET /api/auth/token"), len(app.upstream.requests)) == before
    # Other pages can only read what CORS allows, and no page sends this header by itself.
    assert app.outcome(tasks_of(ada), cookie=ada.session_cookie, headers=headers) == (200, None)
    assert app.outcome(tasks_of(ada), token=ada.session_token, method="POST", headers=headers) == (200, None)


def account_of(app):
    if not hasattr(app, "account"):
        app.account = app.server.sign_up("csrf@example.com")
    return app.account


# Keys and endpoints.


@pytest.mark.parametrize("flags", [["--api-key"], ["--api-key-sessions"]])
def test_an_api_key_never_reaches_the_server(tmp_path, upstream, flags):
    with running(tmp_path, upstream, *flags) as (server, gate):
        ada = server.sign_up()
        key = body(server.client.post("/__probe/create-key", json={"userId": ada.id}))["key"]
        if "sessions" in flags[0]:
            # What the server would return: a JWT of the whole user.
            assert server.client.get("/api/auth/token", headers={"x-api-key": key}).status_code == 200
        before = server.requests("GET /api/auth/token")
        assert gate.outcome(headers=[("x-api-key", key)]) == (401, "token_missing")
        for token in (key, f"{key[:32]}.{key[32:]}"):
            assert gate.send(token=token).status_code == 401
        assert gate.outcome(cookie=f"better-auth.session_token={key}") == INVALID
        assert server.requests("GET /api/auth/token") == before
        # Beside a session, the key is not passed to the server either.
        assert gate.send(cookie=ada.session_cookie, headers=[("x-api-key", key)]).json() == {"user": ada.id}


def test_the_configuration_refuses_api_keys_as_tokens(tmp_path, upstream):
    routes = '[[routes]]\npath = "/keys"\naccess = "authenticated"\ntokens = [{ header = "x-api-key" }]\n'
    with pytest.raises(AssertionError, match="the gate exchanges no API keys"):
        Guarded(tmp_path, upstream, 'better_auth = { url = "http://127.0.0.1:9", sessions = true }', routes)


def test_asks_get_session_of_a_server_without_the_jwt_plugin(tmp_path, upstream):
    sessions = f'{{ via = "get-session", max_age = "{MAX_AGE}s" }}'
    routes = '[[routes]]\npath = "/ada"\naccess = "authenticated"\n' \
        'require = [{ claim = "/user/email", equals = "ada@example.com" }]\n'
    with running(tmp_path, upstream, "--no-jwt", "--log", sessions=sessions, routes=routes) as (server, gate):
        ada, eve = server.sign_up(), server.sign_up("eve@example.com")
        for account in (ada, eve):
            for credential in ({"cookie": account.cookie}, {"token": account.session_token}):
                assert gate.send(tasks_of(account), **credential).json() == {"user": account.id}
        assert gate.outcome(tasks_of(eve), cookie=ada.session_cookie) == (403, "subject_mismatch")
        assert gate.outcome("/ada", cookie=ada.session_cookie) == (200, None)
        assert gate.outcome("/ada", cookie=eve.session_cookie) == (403, "claim_denied")
        wait_until(lambda: server.received("get-session"))
        [first, *_] = server.received("get-session")
        assert first.url == "/api/auth/get-session?disableRefresh=true&disableCookieCache=true"
        # The server responds with `null`.
        forged = ada.session_cookie.partition("=")[0] + "=" + "a" * 32 + "." + "A" * 43 + "%3D"
        for credential in ({"cookie": forged}, {"token": "a" * 32}):
            assert gate.outcome(**credential) == INVALID
        ada.sign_out()
        assert wait_until(lambda: gate.outcome(cookie=ada.cookie) == INVALID) < MAX_AGE + 1
        server.expire(eve.session_token)
        assert wait_until(lambda: gate.outcome(cookie=eve.cookie) == INVALID) < MAX_AGE + 1
        assert server.requests("GET /api/auth/token") == 0


def test_names_the_missing_jwt_plugin(tmp_path, upstream):
    with running(tmp_path, upstream, "--no-jwt", is_ready=False) as (server, gate):
        assert gate.outcome(cookie=server.sign_up().session_cookie)[0] == 503
        gate.wait_for_log('via = \\"get-session\\"')


# Extension of sessions.


def expires_at(account) -> str:
    return account.get_session(disableRefresh="true").json()["session"]["expiresAt"]


@pytest.mark.parametrize("flags", [[], ["--no-jwt"]])
def test_extends_a_session_once_and_passes_its_cookie(tmp_path, upstream, flags):
    via = ', via = "get-session"' if flags else ""
    sessions = f'{{ refresh = true, max_age = "1s"{via} }}'
    with running(tmp_path, upstream, "--session-update-age", "1", *flags, sessions=sessions) as (server, gate):
        ada = server.sign_up()
        before = expires_at(ada)
        # A session is extended once it is older than one second.
        time.sleep(1.5)
        response = gate.send(tasks_of(ada), cookie=ada.session_cookie)
        assert response.json() == {"user": ada.id}
        [renewed] = response.headers.get_list("set-cookie")
        assert renewed.startswith(f"{ada.session_cookie};") and "max-age=604800" in renewed.lower()
        assert "httponly" in renewed.lower()
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert expires_at(ada) > before
        after = expires_at(ada)
        # Later exchanges of this day leave the session alone.
        exchanges = server.requests("GET /api/auth/token") + server.requests("GET /api/auth/get-session")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            response = gate.send(cookie=ada.session_cookie)
            assert "set-cookie" not in response.headers
            assert response.headers["cache-control"] == "no-cache"
            time.sleep(0.2)
        assert server.requests("GET /api/auth/token") + server.requests("GET /api/auth/get-session") > exchanges
        assert expires_at(ada) == after


def test_only_one_of_concurrent_requests_gets_the_renewed_cookie(tmp_path, upstream):
    sessions = "{ refresh = true }"
    with running(tmp_path, upstream, "--session-update-age", "1", sessions=sessions) as (server, gate):
        ada = server.sign_up()
        time.sleep(1.5)

        def request(_):
            with http_client(gate.url) as client:
                response = client.get(tasks_of(ada), headers={"Cookie": ada.session_cookie})
                assert response.status_code == 200
                return len(response.headers.get_list("set-cookie"))

        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            assert sum(threads.map(request, range(20))) == 1


def test_extends_a_session_of_the_bearer_plugin_without_a_cookie(tmp_path, upstream):
    sessions = "{ refresh = true }"
    with running(tmp_path, upstream, "--session-update-age", "1", sessions=sessions) as (server, gate):
        ada = server.sign_up()
        before = expires_at(ada)
        time.sleep(1.5)
        response = gate.send(token=ada.session_token)
        assert "set-cookie" not in response.headers and "set-auth-token" not in response.headers
        assert expires_at(ada) > before


def test_does_not_extend_a_session_that_ends_with_the_browser(tmp_path, upstream):
    sessions = "{ refresh = true }"
    with running(tmp_path, upstream, "--session-update-age", "1", sessions=sessions) as (server, gate):
        server.sign_up()
        session = server.sign_in(rememberMe=False)
        before = expires_at(session)
        time.sleep(1.5)
        # With both cookies, the server neither extends the session nor sets a cookie with an age.
        assert "set-cookie" not in session.get_session().headers
        assert expires_at(session) == before
        response = gate.send(cookie=session.cookie)
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
        assert expires_at(session) == before


def test_leaves_sessions_alone_without_refresh(tmp_path, upstream):
    with running(tmp_path, upstream, "--session-update-age", "1") as (server, gate):
        ada = server.sign_up()
        before = expires_at(ada)
        time.sleep(1.5)
        response = gate.send(cookie=ada.session_cookie)
        assert response.status_code == 200 and "set-cookie" not in response.headers
        assert expires_at(ada) == before


# Names and addresses.


def test_accepts_another_cookie_prefix(tmp_path, upstream):
    sessions = '{ cookie_prefix = "my-app" }'
    with running(tmp_path, upstream, "--cookie-prefix", "my-app", sessions=sessions) as (server, gate):
        ada = server.sign_up()
        assert ada.session_cookie.startswith("my-app.session_token=")
        others = "my-app.session_data=x; better-auth.session_token=y"
        assert gate.send(cookie=f"{others}; {ada.session_cookie}").json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == ["better-auth.session_token=y"]
        value = ada.session_cookie.partition("=")[2]
        assert gate.outcome(cookie=f"better-auth.session_token={value}") == (401, "token_missing")


def test_accepts_the_secure_cookie_of_an_https_server(tmp_path, upstream):
    server = BetterAuth(tmp_path, "--https", "--log")
    try:
        certificate = server.certificate
        gate = Guarded(tmp_path / "gate", upstream, issuer(server, better_auth=f', ca_file = "{certificate}"'))
        try:
            ada = server.sign_up()
            assert ada.session_cookie.startswith("__Secure-better-auth.session_token=")
            plain = "better-auth.session_token=" + ada.session_cookie.partition("=")[2]
            assert gate.send(tasks_of(ada), cookie=f"a=b; {ada.session_cookie}").json() == {"user": ada.id}
            assert gate.upstream.last("cookie") == ["a=b"]
            # A page without TLS can set the plain cookie, so the secure one decides.
            assert gate.outcome(cookie=f"{plain}; {ada.session_cookie}") == (200, None)
            assert gate.outcome(cookie=plain) == INVALID
        finally:
            gate.stop()
        untrusting = Guarded(tmp_path / "untrusting", upstream, issuer(server), is_ready=False)
        try:
            response = untrusting.send(cookie=ada.session_cookie)
            assert outcome(response) == (503, "exchange_unavailable") and response.headers["retry-after"]
            assert "certificate" in untrusting.wait_for_log("failed to exchange a credential")
        finally:
            untrusting.stop()
    finally:
        server.stop()


def test_sends_the_configured_host(tmp_path, upstream):
    server = BetterAuth(tmp_path, "--allowed-hosts", "app.example.com", "--log")
    try:
        server.client.headers["Host"] = "app.example.com"
        ada = server.sign_up()
        # Such a server names itself after the host of each request.
        iss = claims(ada.jwt())["iss"]
        assert iss.endswith("://app.example.com")
        split = f', public = "{iss}"'
        gate = Guarded(tmp_path / "gate", upstream, issuer(server, better_auth=f'{split}, host = "app.example.com"'))
        try:
            gate.server = server
            _, headers = exchange_of(gate, cookie=ada.session_cookie)
            assert headers["host"] == "app.example.com"
            assert gate.upstream.last("x-user-id") == [ada.id]
        finally:
            gate.stop()
        without = Guarded(tmp_path / "without", upstream, issuer(server, better_auth=split), is_ready=False)
        try:
            response = without.send(cookie=ada.session_cookie)
            assert outcome(response) == (503, "exchange_unavailable") and response.headers["retry-after"]
            without.wait_for_log("a server with `allowedHosts` rejects other names; set `host`")
        finally:
            without.stop()
    finally:
        server.stop()


def test_accepts_sessions_of_a_server_with_another_public_url(tmp_path, upstream):
    public = "https://app.example.com"
    split = f', public = "{public}"'
    with running(tmp_path, upstream, "--base-url", public, better_auth=split) as (server, gate):
        server.client.headers["Origin"] = public
        ada = server.sign_up()
        assert ada.session_cookie.startswith("__Secure-")
        assert gate.send(tasks_of(ada), cookie=ada.session_cookie).json() == {"user": ada.id}
        assert gate.send(tasks_of(ada), token=ada.jwt()).json() == {"user": ada.id}
        # Without `public`, the JWT of the exchange has another `iss`: a fault of the configuration, not of the client.
        without = Guarded(tmp_path / "without", upstream, issuer(server))
        try:
            assert without.outcome(cookie=ada.session_cookie) == (503, "exchange_unavailable")
            without.wait_for_log("token_issuer")
        finally:
            without.stop()



# The cookie cache.


def cache_of(account) -> dict[str, str]:
    """Cookies of the cookie cache, possibly in pieces."""
    return {name: value for name, value in account.cookies.items() if ".session_data" in name}


def header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


@pytest.mark.parametrize("strategy", ["compact", "jwt", "jwe", "jwks"])
def test_the_cookie_cache_does_not_keep_a_session_alive(tmp_path, upstream, strategy):
    with running(tmp_path, upstream, "--cookie-cache", strategy, "--log", sessions=SESSIONS) as (server, gate):
        ada = server.sign_up()
        assert cache_of(ada)
        assert gate.outcome(cookie=header(cache_of(ada))) == (401, "token_missing")
        assert gate.send(cookie=ada.cookie).json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == []
        cookies = ada.cookie
        ada.sign_out()
        # The server itself still accepts the two cookies together.
        assert server.client.get("/api/auth/token", headers={"Cookie": cookies}).status_code == 200
        assert wait_until(lambda: gate.outcome(cookie=cookies) == INVALID) < MAX_AGE + 1
        own = [exchange for exchange in server.received("token") if "disableCookieCache=true" in exchange.url]
        assert own and "session_data" not in str(own)


CACHE = '{ cookie_cache = true, max_age = "2s" }'


def test_the_signed_cookie_cache_is_enough(tmp_path, upstream):
    flags = ["--cookie-cache", "jwks", "--cookie-max-age", "6"]
    with running(tmp_path, upstream, *flags, sessions=CACHE, more='leeway = "0s"') as (server, gate):
        ada = server.sign_up()
        began = time.monotonic()
        cache = header(cache_of(ada))
        assert gate.send(tasks_of(ada), cookie=f"a=b; {cache}").json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == ["a=b"]
        assert gate.send(tasks_of(ada), cookie=ada.cookie).json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == []
        assert gate.outcome("/api/another/tasks", cookie=cache) == (403, "subject_mismatch")
        # Session JWTs have the same `iss`.
        assert gate.send(tasks_of(ada), token=ada.jwt()).json() == {"user": ada.id}
        headers = [("Origin", "https://evil.example")]
        assert gate.outcome(cookie=cache, method="POST", headers=headers) == (403, "origin_not_allowed")
        exchanged = gate.exchanges("valid")
        assert time.monotonic() > began + 6 or exchanged == 0
        # The rest of the session follows once the cookie cache has expired.
        wait_until(lambda: gate.outcome(cookie=cache) == (401, "token_expired"))
        assert gate.send(tasks_of(ada), cookie=ada.cookie).json() == {"user": ada.id}
        assert gate.exchanges("valid") == exchanged + 1
        cookies = ada.cookie
        ada.sign_out()
        assert wait_until(lambda: gate.outcome(cookie=cookies) == INVALID) < MAX_AGE + 1


@pytest.mark.parametrize(("length", "pieces"), [(3000, 2), (7000, 3)])
def test_joins_the_pieces_of_the_cookie_cache(tmp_path, upstream, length, pieces):
    more = 'max_token_bytes = "16KiB"'
    with running(tmp_path, upstream, "--cookie-cache", "jwks", "--big", sessions=CACHE, more=more) as (server, gate):
        ada = server.sign_up(bio="x" * length)
        cache = cache_of(ada)
        assert sorted(cache) == [f"better-auth.session_data.{number}" for number in range(pieces)]
        assert gate.send(tasks_of(ada), cookie=f"a=b; {header(cache)}").json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == ["a=b"]
        assert gate.send(tasks_of(ada), cookie=ada.cookie).json() == {"user": ada.id}
        assert gate.upstream.last("cookie") == []
        assert gate.exchanges("valid") == 0
        backwards = dict(reversed(cache.items()))
        assert gate.send(cookie=header(backwards)).json() == {"user": ada.id}
        cache.popitem()
        assert gate.send(cookie=header(cache)).status_code == 401


def test_no_type_passes_with_the_audience_of_another(tmp_path, upstream):
    """Every token that one server issues, at gates that accept other pairs of type and audience."""
    resource = "https://api.example.com/tasks"
    server = BetterAuth(tmp_path, "--cookie-cache", "jwks", "--oauth", "--resource", resource)
    cache_type, cache_audience = "better-auth.session-cache+jwt", "better-auth:session-cache"
    try:
        ada = server.sign_up()
        granted = body(ada.register(resource).authorization_code(ada, resource))
        [cache] = cache_of(ada).values()
        tokens = {"jwt": ada.jwt(), "cache": cache, "access": granted["access_token"], "id": granted["id_token"]}
        kinds = {name: (jwt.get_unverified_header(token).get("typ"), claims(token)["aud"])
                 for name, token in tokens.items()}
        assert kinds["cache"] == (cache_type, cache_audience)
        assert kinds["access"][0] == "at+jwt" and resource in kinds["access"][1]
        own = issuer(server, CACHE)
        accept = f'keys = {{ jwks_url = "{server.jwks_url}" }}\nissuer = ["{server.origin}", "{server.base}"]\n'
        swapped = (
            f'audience = "{cache_audience}"\n'
            f'accept = [{{ types = ["{cache_type}"], audience = "{server.origin}" }},'
            f' {{ types = ["at+jwt"], audience = "{server.origin}" }}]\n'
        )
        general = (
            f'audience = "{server.origin}"\n'
            f'accept = [{{ types = ["{cache_type}"], audience = "{cache_audience}" }},'
            f' {{ types = ["at+jwt"], audience = "{resource}", subject = ["client_id", "sub"] }}]\n'
        )
        for name, configuration, accepted in [
            ("own", own, {"jwt", "cache"}), ("swapped", accept + swapped, set()),
            ("general", accept + general, {"jwt", "cache", "access"}),
        ]:
            gate = Guarded(tmp_path / name, upstream, configuration)
            try:
                statuses = {kind: gate.send(token=token).status_code for kind, token in tokens.items()}
                assert statuses == {kind: 200 if kind in accepted else 401 for kind in tokens}, name
                as_cookie = gate.send(cookie=header(cache_of(ada))).status_code
                assert as_cookie == (200 if name == "own" else 401)
                for kind in {"jwt", "access", "id"}:
                    as_cookie = gate.send(cookie=f"better-auth.session_data={tokens[kind]}").status_code
                    assert as_cookie == (200 if (name, kind) == ("own", "jwt") else 401), (name, kind)
            finally:
                gate.stop()
    finally:
        server.stop()


def claims(token: str) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_session_jwt_with_the_audience_of_the_cookie_cache_is_rejected(tmp_path, upstream):
    flags = ["--cookie-cache", "jwks", "--audience", "better-auth:session-cache"]
    with running(tmp_path, upstream, *flags, sessions=CACHE) as (server, gate):
        ada = server.sign_up()
        assert gate.outcome(token=ada.jwt()) == (401, "token_audience")
        assert gate.outcome(cookie=f"better-auth.session_data={ada.jwt()}") == (401, "token_audience")
        assert gate.send(cookie=header(cache_of(ada))).json() == {"user": ada.id}


# The sources of a route.


def test_a_route_lists_the_sources_of_its_credentials(tmp_path, upstream):
    table = '[[routes]]\npath = "/{name}"\naccess = "authenticated"\ntokens = [{tokens}]\n'
    cookie, header = "{ session = true }", '{ header = "Authorization" }'
    routes = "".join(table.format(name=name, tokens=tokens) for name, tokens in [
        ("cookie", cookie), ("header", header), ("both", f"{header}, {cookie}")])
    with running(tmp_path, upstream, routes=routes) as (server, gate):
        ada = server.sign_up()
        for path, expected in [
            ("/cookie", ((200, None), (401, "token_missing"))),
            ("/header", ((401, "token_missing"), (200, None))),
            ("/both", ((200, None), (200, None))),
        ]:
            found = gate.outcome(path, cookie=ada.session_cookie), gate.outcome(path, token=ada.session_token)
            assert found == expected, path
        # The upstream sees the cookie on none of them.
        assert gate.outcome("/header", cookie=f"a=b; {ada.session_cookie}", token=ada.session_token) == (200, None)
        assert gate.upstream.last("cookie") == ["a=b"]
        assert gate.outcome("/cookie", cookie=ada.session_cookie, token="a" * 32) == (200, None)

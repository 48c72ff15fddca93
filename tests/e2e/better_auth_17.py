"""A Better Auth 1.7 server with every plugin: sessions, OAuth clients with their tokens, and DPoP proofs."""

import base64
import hashlib
import json
import os
import pathlib
import secrets
import signal
import ssl
import subprocess
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx

from programs import NODE, RESPONSE_SECONDS, Program, free_port, http_client

PASSWORD = "correct horse battery staple"
REDIRECT_URI = "http://127.0.0.1:7777/callback"
SCOPE = "openid profile offline_access tasks:read"


def program(name: str) -> pathlib.Path:
    return pathlib.Path(os.environ["BETTER_AUTH_17"]) / name


def body(response: httpx.Response):
    assert response.is_success, f"{response.request.url}: {response.status_code} {response.text}"
    return response.json()


class BetterAuth:
    """The server with these flags (see better-auth-17/server.mjs). Port, accounts, sessions and keys survive `stop`,
    `kill` and `start`. `url` leads to the server, `base` is its public URL: they differ with `--base-url`."""

    def __init__(self, directory: pathlib.Path, *flags: str):
        self.directory = directory
        self.port = free_port()
        self.flags = ["--port", str(self.port), "--database", str(directory / "auth.sqlite3"), *flags]
        self.start()

    def start(self):
        self.program = Program(self.directory, [NODE, program("server.mjs"), *self.flags], {})
        ready = json.loads(self.program.wait_for(r'^{"ready":true,.*}$')[0])
        self.pid, self.origin, self.base = ready["pid"], ready["origin"], ready["base"]
        self.url = f"{self.origin}/api/auth"
        self.jwks_url = f"{self.url}/jwks"
        self.discovery_url = f"{self.url}/.well-known/openid-configuration"
        self.client = http_client(self.origin)
        self.certificate = ready.get("certificate")
        if self.certificate:
            self.client = httpx.Client(
                base_url=self.origin, timeout=RESPONSE_SECONDS, trust_env=False,
                verify=ssl.create_default_context(cafile=self.certificate))

    def stop(self):
        self.client.close()
        self.program.stop()

    def kill(self):
        """Ends the server at once, with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def pause(self):
        """Stops the server from responding, with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def requests(self, target: str) -> int:
        """Number of requests to a target, such as `GET /api/auth/token`, since the start."""
        return body(self.client.get("/__probe/requests")).get(target, 0)

    def received(self, path: str) -> list[SimpleNamespace]:
        """Requests to a path below /api/auth, as they came. Needs `--log`."""
        lines = (json.loads(line) for line in self.program.output().splitlines() if line.startswith('{"method"'))
        return [SimpleNamespace(**line) for line in lines if line["url"].split("?")[0] == f"/api/auth/{path}"]

    def sign_up(self, email: str = "ada@example.com", **fields) -> "Account":
        account = {"email": email, "password": PASSWORD, "name": "Ada Lovelace, žena", **fields}
        return Account(self, email, self.post("sign-up/email", json=account))

    def sign_in(self, email: str = "ada@example.com", **options) -> "Account":
        """A new session. With `rememberMe=False`, it ends with the browser."""
        account = {"email": email, "password": PASSWORD, **options}
        return Account(self, email, self.post("sign-in/email", json=account))

    def expire(self, session_token: str):
        body(self.client.post("/__probe/expire", json={"token": session_token}))

    def post(self, path: str, **options) -> httpx.Response:
        headers = {"Origin": self.origin} | options.pop("headers", {})
        response = self.client.post(f"/api/auth/{path}", headers=headers, **options)
        # Accounts share the client, so their cookies must not stay in its jar.
        self.client.cookies.clear()
        return response


class Account:
    """A user with a session."""

    def __init__(self, server: BetterAuth, email: str, signed_in: httpx.Response):
        self.server, self.email = server, email
        user = body(signed_in)
        self.id = user["user"]["id"]
        # Without its signature, as the bearer plugin accepts it.
        self.session_token = user["token"]
        # By name, with values as they came.
        self.cookies = dict(set_cookies(signed_in))

    @property
    def cookie(self) -> str:
        """Value of a `Cookie` header with all cookies."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    @property
    def session_cookie(self) -> str:
        """`session_token` alone, as `name=value`."""
        [name] = (name for name in self.cookies if name.endswith(".session_token"))
        return f"{name}={self.cookies[name]}"

    def set_cookie(self, name: str, value: str):
        """Replaces a cookie, or adds one."""
        self.cookies[name] = value

    def get_session(self, **parameters: str) -> httpx.Response:
        """The session, or `null`. Takes over the cookies of the response, like a browser."""
        response = self._get("get-session", parameters)
        self.cookies |= dict(set_cookies(response))
        return response

    def jwt(self) -> str:
        return body(self._get("token", {}))["token"]

    def _get(self, path: str, parameters: dict) -> httpx.Response:
        response = self.server.client.get(f"/api/auth/{path}", params=parameters, headers={"Cookie": self.cookie})
        self.server.client.cookies.clear()
        return response

    def sign_out(self):
        """Ends the session. The account keeps its cookies, as a thief of them would."""
        body(self.server.post("sign-out", json={}, headers={"Cookie": self.cookie}))

    def register(self, resource: str | None = None, machine: bool = False, **metadata) -> "OAuthClient":
        """Creates an OAuth client. A machine has a secret and `tasks:read` of its own."""
        metadata = {
            "client_name": "e2e", "redirect_uris": [REDIRECT_URI], "application_type": "native", "skip_consent": True,
            "scope": f"{SCOPE} tasks:write", "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none", "link": [resource] if resource else [],
        } | metadata
        if machine:
            metadata["grant_types"].append("client_credentials")
            metadata |= {"token_endpoint_auth_method": "client_secret_basic", "clientCredentialsScopes": ["tasks:read"]}
        registered = self.server.client.post("/__probe/client", json=metadata, headers={"Cookie": self.cookie})
        return OAuthClient(self.server, body(registered))


class OAuthClient:
    """A registered client. Each grant returns the response of the token endpoint."""

    def __init__(self, server: BetterAuth, registered: dict):
        self.server = server
        self.id, self.secret = registered["client_id"], registered.get("client_secret")

    def authorization_code(
        self, account: Account, resource: str | None = None, scope: str = SCOPE, key: "ProofKey | None" = None,
    ) -> httpx.Response:
        """The authorization code grant with PKCE. Without a resource, the access token is opaque."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        state = secrets.token_urlsafe(8)
        response = self.server.client.get("/api/auth/oauth2/authorize", headers={"Cookie": account.cookie}, params={
            "response_type": "code", "client_id": self.id, "redirect_uri": REDIRECT_URI, "scope": scope,
            "state": state, "code_challenge": challenge, "code_challenge_method": "S256", **target(resource),
        })
        self.server.client.cookies.clear()
        location = response.headers.get("location", "")
        query = parse_qs(urlsplit(location).query)
        assert location.startswith(REDIRECT_URI) and query["state"] == [state] and "code" in query, \
            f"{response.status_code} {location} {response.text}"
        return self._token({
            "grant_type": "authorization_code", "code": query["code"][0], "redirect_uri": REDIRECT_URI,
            "code_verifier": verifier, **target(resource),
        }, key)

    def client_credentials(
        self, resource: str | None = None, scope: str = "tasks:read", key: "ProofKey | None" = None,
    ) -> httpx.Response:
        return self._token({"grant_type": "client_credentials", "scope": scope, **target(resource)}, key)

    def refresh(self, refresh_token: str, resource: str | None = None) -> httpx.Response:
        return self._token({"grant_type": "refresh_token", "refresh_token": refresh_token, **target(resource)}, None)

    def introspect(self, token: str) -> dict:
        form = {"token": token, "token_type_hint": "access_token"}
        return body(self.server.post("oauth2/introspect", data=form, auth=(self.id, self.secret)))

    def revoke(self, token: str):
        form = {"token": token, "token_type_hint": "access_token"}
        response = self.server.post("oauth2/revoke", data=form, auth=(self.id, self.secret))
        assert response.status_code == 200, response.text

    def _token(self, form: dict, key: "ProofKey | None") -> httpx.Response:
        headers = {"DPoP": key.proof("POST", f"{self.server.base}/oauth2/token")} if key else {}
        options = {"auth": (self.id, self.secret)} if self.secret else {}
        form |= {} if self.secret else {"client_id": self.id}
        return self.server.post("oauth2/token", data=form, headers=headers, **options)


class ProofKey:
    """A key of a client, and DPoP proofs that jose signs with it."""

    def __init__(self, algorithm: str = "ES256"):
        self.algorithm = algorithm
        self.jwk = None
        self.thumbprint = self._run([])["thumbprint"]

    def proof(self, method: str, url: str, token: str | None = None, **changes: dict) -> str:
        """One proof. `claims` and `header` replace members, and None removes one."""
        return self.proofs([content(method, url, token, **changes)])[0]

    def proofs(self, contents: list[dict]) -> list[str]:
        """Signs many contents at once, since each run of Node takes a tenth of a second."""
        return self._run(contents)["proofs"]

    def _run(self, contents: list[dict]) -> dict:
        request = {"algorithm": self.algorithm, "jwk": self.jwk, "proofs": contents}
        ended = subprocess.run(
            [NODE, program("proof.mjs")], input=json.dumps(request), capture_output=True, text=True,
            timeout=RESPONSE_SECONDS)
        assert ended.returncode == 0, ended.stderr
        result = json.loads(ended.stdout)
        self.jwk = result["jwk"]
        return result


def content(method: str, url: str, token: str | None = None, claims: dict | None = None, header: dict | None = None):
    """Content of a proof for this request, with changes."""
    bound = {} if token is None else {"ath": token_hash(token)}
    return {"claims": {"htm": method, "htu": url, **bound, **(claims or {})}, "header": header or {}}


def token_hash(token: str) -> str:
    """`ath` of RFC 9449 section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def target(resource: str | None) -> dict:
    return {} if resource is None else {"resource": resource}


def set_cookies(response: httpx.Response):
    """Names and values of the `Set-Cookie` headers."""
    for line in response.headers.get_list("set-cookie"):
        name, _, value = line.split(";")[0].partition("=")
        yield name, value

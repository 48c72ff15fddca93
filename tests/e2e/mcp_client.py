"""An MCP client of the Python SDK, which knows the URL of the server and no more. The browser of a signed-in user
accepts the consent page."""

from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from programs import RESPONSE_SECONDS

REDIRECT_URI = "http://127.0.0.1:7777/callback"


class MemoryStorage:
    """Tokens and registration of one client."""

    tokens = client_info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info):
        self.client_info = client_info


class Browser:
    """The browser of a signed-in user."""

    def __init__(self, cookie: str):
        self.cookie = cookie
        self.scopes = []

    async def visit(self, page: str):
        """Follows the redirect to the consent page, accepts it, and keeps the redirect to the client."""
        self.scopes.append(parse_qs(urlsplit(page).query)["scope"][0])
        async with httpx2.AsyncClient(trust_env=False, timeout=RESPONSE_SECONDS) as http:
            response = await http.get(page, headers={"Cookie": self.cookie})
            consent = urlsplit(urljoin(page, response.headers["location"]))
            assert consent.path == "/consent", f"{response.status_code} to {consent}"
            headers = {"Cookie": self.cookie, "Origin": f"{consent.scheme}://{consent.netloc}"}
            decision = {"accept": True, "oauth_query": consent.query}
            accepted = await http.post(urljoin(page, "consent"), headers=headers, json=decision)
            assert accepted.status_code == 200, accepted.text
            self.redirect = accepted.json()["url"]

    async def callback(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self.redirect).query)
        return AuthorizationCodeResult(**{name: query[name][0] for name in ("code", "state", "iss")})


async def call_whoami(url: str, cookie: str) -> dict:
    """Calls the tool `whoami`. Returns its result, and the scopes of each authorization."""
    browser = Browser(cookie)
    metadata = OAuthClientMetadata(
        client_name="Python SDK", application_type="native", redirect_uris=[REDIRECT_URI],
        token_endpoint_auth_method="none",
    )
    provider = OAuthClientProvider(url, metadata, MemoryStorage(), browser.visit, browser.callback)
    http = httpx2.AsyncClient(auth=provider, trust_env=False, timeout=RESPONSE_SECONDS)
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        result = await client.call_tool("whoami", {})
    return {"user": result.content[0].text, "scopes": browser.scopes}

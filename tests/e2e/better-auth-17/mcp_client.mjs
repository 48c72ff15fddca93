// An MCP client of the TypeScript SDK, which knows the URL of the server and no more. The browser of a signed-in user
// accepts the consent page.
//
//   node mcp_client.mjs URL COOKIE
//
// Calls the tool `whoami`, and writes one line of JSON: its result, and the scopes of each authorization.

import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, cookie] = process.argv.slice(2);
const ATTEMPTS = 3;

class OAuthClientProvider {
  redirectUrl = "http://127.0.0.1:7777/callback";
  clientMetadata = {
    client_name: "TypeScript SDK",
    application_type: "native",
    redirect_uris: [this.redirectUrl],
    token_endpoint_auth_method: "none",
  };
  scopes = [];
  #stored = {};

  clientInformation = () => this.#stored.client;
  saveClientInformation = (client) => (this.#stored.client = client);
  tokens = () => this.#stored.tokens;
  saveTokens = (tokens) => (this.#stored.tokens = tokens);
  codeVerifier = () => this.#stored.verifier;
  saveCodeVerifier = (verifier) => (this.#stored.verifier = verifier);

  async redirectToAuthorization(page) {
    this.scopes.push(page.searchParams.get("scope"));
    this.code = await visit(page);
  }
}

// Better Auth redirects with a status, or with a body for requests by `fetch`.
async function redirection(response) {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${text}`);
  return new URL(JSON.parse(text).url, response.url);
}

// The browser: opens the authorization page, accepts the consent page, and returns the code for the client.
async function visit(page) {
  const consent = await redirection(await fetch(page, { headers: { cookie } }));
  if (consent.pathname !== "/consent") throw new Error(`${page} leads to ${consent}, expected the consent page`);
  const accepted = await fetch(new URL("consent", page), {
    method: "POST",
    headers: { cookie, origin: page.origin, "content-type": "application/json" },
    body: JSON.stringify({ accept: true, oauth_query: consent.search.slice(1) }),
  });
  return (await redirection(accepted)).searchParams.get("code");
}

// Runs the action on a connection. Each time it is unauthorized, completes the authorization and runs it again.
async function authorized(provider, action) {
  for (let attempt = 1; ; attempt += 1) {
    const client = new Client({ name: "e2e", version: "1.0.0" });
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
    try {
      await client.connect(transport);
      return await action(client);
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || attempt === ATTEMPTS) throw error;
      await transport.finishAuth(provider.code);
    } finally {
      await client.close();
    }
  }
}

const provider = new OAuthClientProvider();
const result = await authorized(provider, (client) => client.callTool({ name: "whoami", arguments: {} }));
console.log(JSON.stringify({ user: result.content[0].text, scopes: provider.scopes }));

// A Better Auth 1.7 server on loopback, with sessions, API keys, organizations, OAuth and MCP.
//
//   node server.mjs [--port 0] [--https] [flags]
//
// Prints one line of JSON once it listens: {"ready":true,"origin","base","pid","certificate"}.
//
// Flags, with a value or, for switches, alone:
//   --port N                 port; 0 for a free one (default 0)
//   --host H                 address of the listener (default 127.0.0.1)
//   --https                  TLS with a self-signed certificate of openssl, in a new folder of the working directory
//   --database FILE          SQLite file, kept after the server ends (default: in memory)
//   --base-url URL|none      public base URL (default: origin of the listener)
//   --allowed-hosts A,B      dynamic base URL: { allowedHosts: [...] }
//   --secret S               secret (default: a constant)
//   --cookie-cache K         strategy of the session cache cookie: compact, jwt, jwe, or jwks for a jwt signed with the
//                            key set
//   --cookie-max-age S       lifetime of the session cache cookie (default 300)
//   --cookie-prefix P        prefix of cookie names (default better-auth)
//   --session-expires S      lifetime of a session (default 7 days)
//   --session-update-age S   age at which a session is refreshed (default 1 day)
//   --defer-refresh          session.deferSessionRefresh
//   --rate-limit [W:M]       rate limit of M requests in W seconds (default 10:100; without the flag: none)
//   --ip-headers A,B         advanced.ipAddress.ipAddressHeaders
//   --trusted-proxies A,B    advanced.ipAddress.trustedProxies
//   --issuer V               `iss` of session JWTs
//   --audience A[,B]         `aud` of session JWTs
//   --expires 15m            lifetime of session JWTs
//   --no-jwt                 without the JWT plugin: no /token and no key set
//   --payload K              claims of session JWTs: minimal, or org for the active organization
//   --big                    user column `bio`
//   --api-key                API keys
//   --api-key-sessions       API keys that are sessions, too (enableSessionForAPIKeys)
//   --api-key-rate W:M       rate limit of an API key, M requests in W milliseconds (default 86400000:10)
//   --org                    organizations with teams
//   --oauth                  OAuth provider
//   --resource URL           resource of the OAuth provider; repeatable
//   --mcp URL                MCP plugin with this resource, in place of --oauth
//   --opaque                 opaque access tokens only (disableJwtPlugin)
//   --dpop-required          DPoP for the first resource
//   --access-expires S       lifetime of OAuth access tokens (default 3600)
//   --bcl-relay URL          destination of back-channel logout calls to https://rp.example.com/
//   --log                    one line of JSON on stderr for each request, with its headers as they came
//
// For the tests, next to /api/auth:
//   POST /__probe/client       creates an OAuth client: its metadata, `link` (resources) and `clientCredentialsScopes`.
//                              Needs a session cookie.
//   POST /__probe/create-key   auth.api.createApiKey
//   POST /__probe/verify-key   auth.api.verifyApiKey
//   POST /__probe/expire       expires the session {token}
//   GET /__probe/requests      number of requests by method and path, since the start

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { apiKey } from "@better-auth/api-key";
import { mcp } from "@better-auth/mcp";
import { oauthProvider } from "@better-auth/oauth-provider";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { bearer, jwt, organization } from "better-auth/plugins";

const flags = {};
for (let index = 2; index < process.argv.length; index += 1) {
  const name = process.argv[index].replace(/^--/, "");
  const next = process.argv[index + 1];
  const alone = next === undefined || next.startsWith("--");
  if (!alone) index += 1;
  (flags[name] ??= []).push(alone ? true : next);
}
const flag = (name, otherwise) => flags[name]?.at(-1) ?? otherwise;
const number = (name) => flag(name) && Number(flag(name));
const list = (name) => flag(name)?.split(",");
// Better Auth does not treat an undefined option as a missing one everywhere.
const defined = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

let auth;

const payloads = {
  minimal: ({ user }) => ({ email: user.email }),
  // No option of the plugins adds the role: each project looks up the member itself.
  org: async ({ user, session }) => {
    const { adapter } = await auth.$context;
    const where = [{ field: "userId", value: user.id }];
    const members = await adapter.findMany({ model: "member", where });
    const active = members.find((member) => member.organizationId === session.activeOrganizationId);
    return {
      email: user.email,
      activeOrganizationId: session.activeOrganizationId,
      activeTeamId: session.activeTeamId,
      orgRole: active?.role,
      o: active && { id: active.organizationId, rol: active.role },
      organizations: members.map(({ organizationId, role }) => ({ id: organizationId, role })),
    };
  },
};

function jwtPlugin() {
  const audience = list("audience");
  return jwt({
    sessionCookieCache: flag("cookie-cache") === "jwks",
    jwt: defined({
      issuer: flag("issuer"),
      audience: audience?.length > 1 ? audience : audience?.[0],
      expirationTime: flag("expires"),
      definePayload: payloads[flag("payload")],
    }),
  });
}

function apiKeyPlugin() {
  const [timeWindow, maxRequests] = flag("api-key-rate", "86400000:10").split(":").map(Number);
  return apiKey({
    enableMetadata: true,
    enableSessionForAPIKeys: flag("api-key-sessions", false),
    rateLimit: { enabled: true, timeWindow, maxRequests },
  });
}

function providerOptions() {
  const resources = flags.resource?.map((identifier, index) =>
    flag("dpop-required") && index === 0 ? { identifier, dpopBoundAccessTokensRequired: true } : identifier,
  );
  return defined({
    loginPage: "/login",
    consentPage: "/consent",
    scopes: ["openid", "profile", "email", "offline_access", "tasks:read", "tasks:write"],
    allowDynamicClientRegistration: true,
    allowUnauthenticatedClientRegistration: true,
    clientPrivileges: () => true,
    accessTokenExpiresIn: number("access-expires"),
    resources,
    disableJwtPlugin: flag("opaque"),
    silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
  });
}

function plugins() {
  const plugins = [bearer()];
  if (!flag("no-jwt")) plugins.push(jwtPlugin());
  if (flag("api-key") || flag("api-key-sessions")) plugins.push(apiKeyPlugin());
  if (flag("org")) plugins.push(organization({ teams: { enabled: true } }));
  if (flag("mcp")) plugins.push(mcp({ ...providerOptions(), resource: flag("mcp") }));
  else if (flag("oauth")) plugins.push(oauthProvider(providerOptions()));
  return plugins;
}

function baseUrl(origin) {
  if (flag("allowed-hosts")) return { allowedHosts: list("allowed-hosts") };
  return flag("base-url") === "none" ? undefined : flag("base-url", origin);
}

function sessionOptions() {
  const strategy = flag("cookie-cache");
  return defined({
    expiresIn: number("session-expires"),
    updateAge: number("session-update-age"),
    deferSessionRefresh: flag("defer-refresh"),
    cookieCache:
      strategy &&
      defined({
        enabled: true,
        strategy: strategy === "jwks" ? "jwt" : strategy,
        maxAge: number("cookie-max-age"),
      }),
  });
}

function rateLimitOptions() {
  const limit = flag("rate-limit");
  const [window, max] = typeof limit === "string" ? limit.split(":").map(Number) : [10, 100];
  return { enabled: limit !== undefined, window, max };
}

function advancedOptions() {
  const addresses = defined({ ipAddressHeaders: list("ip-headers"), trustedProxies: list("trusted-proxies") });
  return defined({
    cookiePrefix: flag("cookie-prefix"),
    ipAddress: Object.keys(addresses).length > 0 ? addresses : undefined,
  });
}

async function start(origin) {
  const database = new DatabaseSync(flag("database", ":memory:"));
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  const options = {
    baseURL: baseUrl(origin),
    secret: flag("secret", "mC0xq8Yw3kTfZ6uJr1LsVb9dNgHp5eAi"),
    database,
    trustedOrigins: [origin],
    emailAndPassword: { enabled: true },
    user: flag("big") ? { additionalFields: { bio: { type: "string", required: false } } } : {},
    session: sessionOptions(),
    rateLimit: rateLimitOptions(),
    advanced: advancedOptions(),
    plugins: plugins(),
    telemetry: { enabled: false },
  };
  const { runMigrations } = await getMigrations(options);
  await runMigrations();
  auth = betterAuth(options);
}

async function createClient({ link = [], clientCredentialsScopes, ...client }, headers) {
  const { adapter } = await auth.$context;
  const created = await auth.api.adminCreateOAuthClient({ headers, body: client });
  if (clientCredentialsScopes !== undefined) {
    await adapter.update({
      model: "oauthClient",
      where: [{ field: "clientId", value: created.client_id }],
      update: { clientCredentialsScopes },
    });
  }
  for (const resourceId of link) {
    const pair = { clientId: created.client_id, resourceId };
    const where = Object.entries(pair).map(([field, value]) => ({ field, value }));
    // The MCP plugin has linked its own resource.
    if (await adapter.findOne({ model: "oauthClientResource", where })) continue;
    await adapter.create({ model: "oauthClientResource", data: { ...pair, createdAt: new Date() } });
  }
  return created;
}

async function expireSession({ token }) {
  const { adapter } = await auth.$context;
  const where = [{ field: "token", value: token }];
  await adapter.update({ model: "session", where, update: { expiresAt: new Date(Date.now() - 1000) } });
  return {};
}

const requests = {};

const probes = {
  "POST /__probe/client": createClient,
  "POST /__probe/create-key": (body) => auth.api.createApiKey({ body }),
  "POST /__probe/verify-key": (body) => auth.api.verifyApiKey({ body }),
  "POST /__probe/expire": expireSession,
  "GET /__probe/requests": () => requests,
};

async function handleProbe(probe, request, response) {
  let text = "";
  for await (const chunk of request) text += chunk;
  response.setHeader("content-type", "application/json");
  try {
    const headers = new Headers({ cookie: request.headers.cookie ?? "", host: request.headers.host });
    response.end(JSON.stringify(await probe(JSON.parse(text || "{}"), headers)));
  } catch (error) {
    response.statusCode = 500;
    response.end(JSON.stringify({ error: String(error), body: error.body }));
  }
}

// Back-channel logout URIs must be public and https, which no test server is.
function relayBackChannelLogout(destination) {
  const original = globalThis.fetch;
  globalThis.fetch = (input, options) => {
    const url = String(input.url ?? input);
    return original(url.startsWith("https://rp.example.com/") ? destination : input, options);
  };
}

function certificate() {
  const directory = mkdtempSync(resolve("tls-"));
  const [key, certificate] = ["key.pem", "certificate.pem"].map((name) => join(directory, name));
  execFileSync("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(" "),
    ..."-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(" "),
    "-keyout", key, "-out", certificate,
  ], { stdio: "ignore" });
  return { key: readFileSync(key), cert: readFileSync(certificate), file: certificate };
}

function logWhenFinished(request, response) {
  const started = performance.now();
  response.on("finish", () => {
    const { method, url, rawHeaders } = request;
    const pair = (name, index) => (index % 2 === 0 ? [[name.toLowerCase(), rawHeaders[index + 1]]] : []);
    const headers = rawHeaders.flatMap(pair);
    const milliseconds = performance.now() - started;
    console.error(JSON.stringify({ method, url, status: response.statusCode, milliseconds, headers }));
  });
}

let handleBetterAuth;

function handle(request, response) {
  if (flag("log")) logWhenFinished(request, response);
  const target = `${request.method} ${request.url.split("?")[0]}`;
  if (probes[target]) return handleProbe(probes[target], request, response);
  requests[target] = (requests[target] ?? 0) + 1;
  if (handleBetterAuth === undefined) return response.writeHead(503).end();
  // With --allowed-hosts, another host makes the handler throw. Most frameworks turn that into a 500.
  handleBetterAuth(request, response).catch((error) => {
    console.error(String(error));
    response.writeHead(500).end();
  });
}

if (flag("bcl-relay")) relayBackChannelLogout(flag("bcl-relay"));
const tls = flag("https") ? certificate() : undefined;
const server = tls ? createTlsServer(tls, handle) : createServer(handle);
server.listen(number("port") ?? 0, flag("host", "127.0.0.1"), async () => {
  const origin = `${tls ? "https" : "http"}://127.0.0.1:${server.address().port}`;
  await start(origin);
  handleBetterAuth = toNodeHandler(auth);
  const { baseURL: base } = await auth.$context;
  console.log(JSON.stringify({ ready: true, origin, base, pid: process.pid, certificate: tls?.file }));
});

process.on("SIGTERM", () => process.exit(0));

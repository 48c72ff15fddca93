// A Better Auth server: accounts, sessions and keys in SQLite, tokens by the jwt() plugin.
//
// From the environment:
//   PORT       port on 127.0.0.1
//   ORIGIN     public URL if it differs; becomes `iss` and `aud`
//   PAGES      origin of pages that may sign in, if it differs
//   ALGORITHM  algorithm of new keys: EdDSA, ES256, ES512, RS256, PS256
//   DATABASE   SQLite file, kept after the server ends
//   IDS        "serial" for the IDs 1, 2, 3 of users, sessions and keys; else random
//   CACHE      "jwt" for a session cache cookie, signed with the secret
//   BETTER_AUTH_SECRET
//
// For the tests, next to /api/auth:
//   POST /rotate   expires every signing key, like `rotationInterval`: the next token creates a new one
//   GET /fetches   number of key set requests

import { createServer } from "node:http";
import { DatabaseSync } from "node:sqlite";

import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins/jwt";

const { PORT, PAGES, ALGORITHM, DATABASE, IDS, CACHE } = process.env;
const origin = process.env.ORIGIN ?? `http://127.0.0.1:${PORT}`;

const database = new DatabaseSync(DATABASE);
database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");

const options = {
  baseURL: origin,
  trustedOrigins: PAGES === undefined ? [] : [PAGES],
  database,
  emailAndPassword: { enabled: true },
  plugins: [jwt({ jwks: { keyPairConfig: { alg: ALGORITHM } } })],
  session: { cookieCache: { enabled: CACHE !== undefined, maxAge: 300, strategy: CACHE } },
  advanced: { database: { generateId: IDS } },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
};
const { runMigrations } = await getMigrations(options);
await runMigrations();
const handleBetterAuth = toNodeHandler(betterAuth(options));

let fetches = 0;

createServer((request, response) => {
  switch (`${request.method} ${request.url}`) {
    case "POST /rotate":
      database
        .prepare("UPDATE jwks SET expiresAt = ? WHERE expiresAt IS NULL")
        .run(new Date(Date.now() - 1).toISOString());
      return response.end();
    case "GET /fetches":
      return response.end(String(fetches));
    case "GET /api/auth/jwks":
      fetches += 1;
  }
  handleBetterAuth(request, response);
}).listen(Number(PORT), "127.0.0.1", () => console.log(`listening on port ${PORT} as ${origin}`));

process.on("SIGTERM", () => process.exit(0));

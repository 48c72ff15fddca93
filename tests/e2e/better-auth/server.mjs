// A Better Auth server as an application has one: accounts, sessions and keys in SQLite, tokens by jwt().
//
// From the environment:
//   PORT       where to listen, on 127.0.0.1
//   ORIGIN     its public address, if that is another (it is what `iss` and `aud` say)
//   PAGES      the origin of pages that may sign in, if it is another
//   ALGORITHM  what a new key is for: EdDSA, ES256, ES512, RS256, PS256
//   DATABASE   the SQLite file; it outlives the server
//   IDS        "serial" for 1, 2, 3 as the names of users, sessions and keys; else they are random
//   CACHE      "jwt" for a cookie with the session in it, signed with the secret
//   BETTER_AUTH_SECRET
//
// For the tests alone, beside /api/auth:
//   POST /rotate   the end of every key that signs, as of `rotationInterval`: the next token makes a new one
//   GET /fetched   how often the key set was given out

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
const betterAuthAnswers = toNodeHandler(betterAuth(options));

let fetched = 0;

createServer((request, response) => {
  switch (`${request.method} ${request.url}`) {
    case "POST /rotate":
      database
        .prepare("UPDATE jwks SET expiresAt = ? WHERE expiresAt IS NULL")
        .run(new Date(Date.now() - 1).toISOString());
      return response.end();
    case "GET /fetched":
      return response.end(String(fetched));
    case "GET /api/auth/jwks":
      fetched += 1;
  }
  betterAuthAnswers(request, response);
}).listen(Number(PORT), "127.0.0.1", () => console.log(`listening on port ${PORT} as ${origin}`));

process.on("SIGTERM", () => process.exit(0));

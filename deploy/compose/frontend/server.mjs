// Better Auth with the jwt() plugin, in place of your front end. BETTER_AUTH_URL and BETTER_AUTH_SECRET are read by
// Better Auth itself.

import { createServer } from "node:http";

import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins/jwt";
import pg from "pg";

const { DATABASE_URL, HOST, PORT } = process.env;

const options = {
  database: new pg.Pool({ connectionString: DATABASE_URL }),
  emailAndPassword: { enabled: true },
  plugins: [jwt()],
  telemetry: { enabled: false },
};
const { runMigrations } = await getMigrations(options);
await runMigrations();

createServer(toNodeHandler(betterAuth(options))).listen(Number(PORT ?? 3000), HOST);

process.on("SIGTERM", () => process.exit(0));

// Matches request targets with the router of Express: reads {patterns, targets} from standard input, and writes the
// handler and the parameters of each target, or null.
import express from "express";
import { readFileSync } from "node:fs";

const { patterns, targets } = JSON.parse(readFileSync(0, "utf8"));
const router = express.Router();
let matched = null;
patterns.forEach((pattern, handler) => router.get(pattern, (request) => {
  matched = [handler, Object.entries(request.params)];
}));
const results = targets.map((target) => {
  matched = null;
  router.handle({ method: "GET", url: target, headers: {} }, {}, () => {});
  return matched;
});
process.stdout.write(JSON.stringify(results));

// DPoP proofs (RFC 9449) by jose.
//
// Reads one JSON object from stdin:
//   algorithm  algorithm of the key
//   jwk        private key; else a new one
//   proofs     list of { claims, header }, which replace members of a valid proof; null removes a member
//
// Writes one JSON object: { jwk, thumbprint, proofs }.

import { randomUUID } from "node:crypto";
import { text } from "node:stream/consumers";

import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, SignJWT } from "jose";

const { algorithm, jwk: given, proofs } = JSON.parse(await text(process.stdin));

async function newKey() {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
  return exportJWK(privateKey);
}

function merged(members, changes) {
  return Object.fromEntries(Object.entries({ ...members, ...changes }).filter(([, value]) => value !== null));
}

const jwk = given ?? (await newKey());
const { d, p, q, dp, dq, qi, ...publicJwk } = jwk;
const key = await importJWK(jwk, algorithm);

function sign({ claims, header }) {
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT(merged({ jti: randomUUID(), iat: now }, claims))
    .setProtectedHeader(merged({ typ: "dpop+jwt", alg: algorithm, jwk: publicJwk }, header))
    .sign(key);
}

const thumbprint = await calculateJwkThumbprint(publicJwk);
console.log(JSON.stringify({ jwk, thumbprint, proofs: await Promise.all(proofs.map(sign)) }));

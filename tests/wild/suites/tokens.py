"""Forged tokens: none may reach the upstream.

Every algorithm has an issuer with one key of `tests/fixtures/keys`, and a valid token as a control: without it, the cases
would pass on a gate that rejects everything. OpenSSL signs, so no JWT library shares a mistake with the gate.
"""

import base64
import contextlib
import itertools
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

from .gate import SECRET, Gate, claims_of, encode, sign
from .result import Result, run_all
from .wire import Connection, Upstream

KEYS = pathlib.Path(__file__).parents[2] / "fixtures" / "keys"
HASHES = {"256": "sha256", "384": "sha384", "512": "sha512"}
# Key file by algorithm.
ASYMMETRIC = {
    "RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa",
    "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519",
}
ALGORITHMS = ["HS256", "HS384", "HS512", *ASYMMETRIC]

CONFIGURATION = """
[listen]
address = "127.0.0.1:0"
max_header_bytes = "128KiB"

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:{port}"

[[routes]]
path = "/me/{{*rest}}"
access = "authenticated"

[[routes]]
path = "/api/{{user_id}}/{{*rest}}"
access = {{ owner = "user_id" }}
"""


def _issuer(algorithm: str) -> str:
    keys = '{ secret_file = "secret" }' if algorithm.startswith("HS") else f'{{ pem_file = "{ASYMMETRIC[algorithm]}.pem" }}'
    return (f'\n[issuers.{algorithm.lower()}]\nkeys = {keys}\nalgorithms = ["{algorithm}"]\nissuer = "https://{algorithm}.test"\n'
            f'audience = "scores"\nleeway = "0s"\n')


def signature(algorithm: str, text: bytes, key: str | None = None) -> bytes:
    """Signs with a private key of the fixtures (RFC 7518 sections 3.3 to 3.5, RFC 8037 section 3.1)."""
    key = key or ASYMMETRIC[algorithm]
    path = str(KEYS / f"{key}.private.pem")
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        if algorithm == "EdDSA":
            command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", path, "-in", file.name]
        else:
            command = ["openssl", "dgst", f"-{HASHES[algorithm[2:]]}", "-sign", path]
            if algorithm.startswith("PS"):
                command += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
            command.append(file.name)
        signed = subprocess.run(command, capture_output=True, check=True).stdout
    return _raw(signed, {"ES256": 32, "ES384": 48, "ES512": 66}[algorithm]) if algorithm.startswith("ES") else signed


def _raw(der: bytes, size: int) -> bytes:
    """Two integers of fixed size, from their DER form."""
    at = 2 if der[1] < 0x80 else 3
    numbers = []
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(size, "big"))
        at += 2 + length
    return b"".join(numbers)


def make(algorithm: str, header: dict | bytes | None = None, payload: dict | bytes | None = None, key: str | None = None) -> str:
    """Token with a valid signature of the issuer of this algorithm, over any header and payload."""
    header = {"alg": algorithm, "typ": "JWT"} if header is None else header
    payload = claims(algorithm) if payload is None else payload
    parts = [encode(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    text = ".".join(parts)
    if algorithm.startswith("HS"):
        return sign(*(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts), hash_name=HASHES[algorithm[2:]])
    return f"{text}.{encode(signature(algorithm, text.encode(), key))}"


def claims(algorithm: str, **more) -> dict:
    all_claims = claims_of("alice", iss=f"https://{algorithm}.test", aud="scores") | more
    return {name: value for name, value in all_claims.items() if value is not ...}


def _cases(canary: int):
    valid = {algorithm: make(algorithm) for algorithm in ALGORITHMS}
    for algorithm, token in valid.items():
        head, body, mark = token.split(".")
        raw = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4))
        for at in (0, len(raw) // 2, len(raw) - 1):
            changed = bytearray(raw)
            changed[at] ^= 0x20
            yield f"{algorithm}: signature with a changed octet {at}", f"{head}.{body}.{encode(bytes(changed))}"
        yield f"{algorithm}: signature without its last octet", f"{head}.{body}.{encode(raw[:-1])}"
        yield f"{algorithm}: signature with one more octet", f"{head}.{body}.{encode(raw + bytes(1))}"
        yield f"{algorithm}: empty signature", f"{head}.{body}."
        yield f"{algorithm}: signature of zeros", f"{head}.{body}.{encode(bytes(len(raw)))}"
        yield f"{algorithm}: signature of ones", f"{head}.{body}.{encode(bytes([255]) * len(raw))}"
        yield f"{algorithm}: another payload", f"{head}.{encode(json.dumps(claims(algorithm, sub='bob')).encode())}.{mark}"
        yield f"{algorithm}: another header", f"{encode(json.dumps({'alg': algorithm}).encode())}.{body}.{mark}"
        for none in ("none", "None", "NONE", "nOnE"):
            unsigned = encode(json.dumps({"alg": none, "typ": "JWT"}).encode())
            yield f"{algorithm}: alg {none} without a signature", f"{unsigned}.{body}."
            yield f"{algorithm}: alg {none} with the signature", f"{unsigned}.{body}.{mark}"
        for other in ALGORITHMS:
            if other != algorithm:
                # Signed as the other algorithm, for the issuer of this one.
                yield f"{algorithm}: signed as {other}", make(other, payload=claims(algorithm))
        yield f"{algorithm}: alg in lower case", make(algorithm, {"alg": algorithm.lower() if algorithm != "EdDSA" else "eddsa", "typ": "JWT"})
    for name, algorithm in (("rsa-stranger", "RS256"), ("p256-stranger", "ES256"), ("p521-stranger", "ES512"), ("ed25519-stranger", "EdDSA")):
        yield f"{algorithm}: signed by a stranger", make(algorithm, key=name)
    # An HMAC with what is public about an asymmetric key.
    for algorithm in ("RS256", "ES256", "EdDSA"):
        pem = (KEYS / f"{ASYMMETRIC[algorithm]}.public.pem").read_bytes()
        text = b"".join(pem.split(b"-----")[2].split())
        der = base64.b64decode(text)
        for label, secret in {"PEM": pem, "PEM without its last line end": pem.rstrip(), "PEM with CR LF": pem.replace(b"\n", b"\r\n"), "DER": der,
                              "base64 of the PEM": text, "last octets of the DER": der[-32:], "nothing": b"", "kid": b"1"}.items():
            for name in ("HS256", "HS384", "HS512"):
                header = json.dumps({"alg": name, "typ": "JWT"}).encode()
                yield f"{algorithm}: {name} with {label} as the secret", sign(header, json.dumps(claims(algorithm)).encode(), secret, HASHES[name[2:]])
    body = json.dumps(claims("HS256")).encode()
    for secret in ("", "secret", "a", SECRET[:-1], SECRET + "x", SECRET.upper(), " " + SECRET):
        yield f"HS256: secret {secret[:12]!r}…", sign(b'{"alg":"HS256","typ":"JWT"}', body, secret.encode())
    for label, header in {
        "jku": {"jku": f"http://127.0.0.1:{canary}/jwks"}, "x5u": {"x5u": f"http://127.0.0.1:{canary}/x5u"}, "jku and kid": {"jku": f"http://127.0.0.1:{canary}/jwks", "kid": "1"},
        "jwk": {"jwk": {"kty": "oct", "k": encode(b"attacker")}}, "x5c": {"x5c": ["AAAA"]}, "kid of a path": {"kid": "../../../dev/null"}, "kid of SQL": {"kid": "' UNION SELECT 'a"},
        "kid of a URL": {"kid": f"http://127.0.0.1:{canary}/"}, "kid with NUL": {"kid": "a\0"}, "long kid": {"kid": "a" * 5000},
    }.items():
        yield f"HS256: {label}, signed by the attacker", sign(json.dumps({"alg": "HS256", "typ": "JWT"} | header).encode(), body, b"attacker")
        yield f"EdDSA: {label}, signed by a stranger", make("EdDSA", {"alg": "EdDSA", "typ": "JWT"} | header, key="ed25519-stranger")
    for label, header in {
        "crit": {"crit": ["exp"]}, "empty crit": {"crit": []}, "crit that is null": {"crit": None}, "crit of an unknown name": {"crit": ["x"], "x": 1}, "b64 false": {"b64": False},
        "b64 false and crit": {"b64": False, "crit": ["b64"]}, "zip": {"zip": "DEF"}, "typ of an ID token for back-channel logout": {"typ": "logout+jwt"}, "typ JWE": {"typ": "JWE"},
        "typ at+jwt": {"typ": "at+jwt"}, "typ of a number": {"typ": 1}, "kid of a number": {"kid": 1}, "kid of a list": {"kid": ["1"]}, "kid that is null": {"kid": None},
        "alg of a list": {"alg": ["HS256"]}, "alg of a number": {"alg": 256}, "alg that is null": {"alg": None}, "alg with a space": {"alg": "HS256 "}, "empty alg": {"alg": ""},
    }.items():
        yield f"HS256: header with {label}", make("HS256", {"alg": "HS256", "typ": "JWT"} | header)
    for label, header in {
        "no alg": b'{"typ":"JWT"}', "alg twice": b'{"alg":"none","alg":"HS256"}', "alg twice, the other order": b'{"alg":"HS256","alg":"none"}', "a BOM": b'\xef\xbb\xbf{"alg":"HS256"}',
        "text after it": b'{"alg":"HS256"}x', "a list": b'["HS256"]', "a text": b'"HS256"', "nothing": b"", "not UTF-8": b'{"alg":"HS256","x":"\xff"}', "an escaped alg twice": b'{"alg":"HS256","\\u0061lg":"none"}',
        "kid twice": b'{"alg":"HS256","kid":"a","kid":"b"}', "single quotes": b"{'alg':'HS256'}", "a comment": b'{"alg":"HS256"/**/}', "a trailing comma": b'{"alg":"HS256",}', "deep nesting": b'{"alg":"HS256","x":' + b"[" * 500 + b"]" * 500 + b"}",
    }.items():
        yield f"HS256: header is or has {label}", make("HS256", header)
    now = int(time.time())
    for label, more in {
        "exp an hour ago": {"exp": now - 3600}, "exp a second ago": {"exp": now - 1}, "no exp": {"exp": ...}, "exp as text": {"exp": str(now + 600)}, "exp null": {"exp": None}, "exp true": {"exp": True},
        "exp of a list": {"exp": [now + 600]}, "exp negative": {"exp": -1}, "exp of zero": {"exp": 0}, "exp in milliseconds": {"exp": (now + 600) * 1000}, "exp of 2^64": {"exp": 2**64}, "exp of 10^30": {"exp": 10**30},
        "nbf in an hour": {"nbf": now + 3600}, "nbf as text": {"nbf": "0"}, "nbf null": {"nbf": None}, "iat in an hour": {"iat": now + 3600}, "iat as text": {"iat": "0"}, "iat null": {"iat": None},
        "iss of another": {"iss": "https://evil.test"}, "no iss": {"iss": ...}, "iss null": {"iss": None}, "iss of a list": {"iss": ["https://HS256.test"]}, "iss with a slash": {"iss": "https://HS256.test/"}, "iss in lower case": {"iss": "https://hs256.test"},
        "iss of a number": {"iss": 1}, "iss with a prefix": {"iss": "xhttps://HS256.test"}, "aud of another": {"aud": "other"}, "no aud": {"aud": ...}, "aud null": {"aud": None}, "empty list aud": {"aud": []}, "aud of an object": {"aud": {"scores": 1}},
        "aud in another case": {"aud": "Scores"}, "aud with a prefix": {"aud": "scores-other"}, "aud of nested lists": {"aud": [["scores"]]}, "aud of a number": {"aud": 1}, "no sub": {"sub": ...}, "sub null": {"sub": None}, "sub of a number": {"sub": 1},
        "sub of a list": {"sub": ["alice"]}, "sub of an object": {"sub": {"id": "alice"}}, "sub true": {"sub": True}, "empty sub": {"sub": ""}, "sub with a line end": {"sub": "alice\r\nX-User-Id: bob"}, "sub with NUL": {"sub": "alice\0"},
        "long sub": {"sub": "a" * 5000}, "sub with DEL": {"sub": "alice\x7f"}, "cnf of another key": {"cnf": {"jkt": "x"}}, "cnf null": {"cnf": None}, "sub with a tab": {"sub": "al\tice"},
    }.items():
        yield f"HS256: claims with {label}", make("HS256", payload=claims("HS256", **more))
    good = json.dumps(claims("HS256"))
    for label, payload in {
        "sub twice": good[:-1] + ', "sub": "bob"}', "exp twice": good[:-1] + f', "exp": {now + 9999}}}', "an escaped sub twice": good[:-1] + ', "\\u0073ub": "bob"}', "text after them": good + "x", "a BOM": "\ufeff" + good,
        "a list": f"[{good}]", "a text": json.dumps(good), "nothing": "", "two objects": good + good, "exp of 1e400": good.replace(str(now + 3600), "1e400"), "deep nesting": good[:-1] + ', "x": ' + "[" * 5000 + "]" * 5000 + "}",
        "NaN": good.replace(str(now + 3600), "NaN"), "a lone surrogate": good.replace("alice", "\\ud800"), "a trailing comma": good[:-1] + ",}", "sub within an object": good.replace('"sub"', '"user"').replace('"alice"', '{"sub": "alice"}'),
    }.items():
        if label not in ("NaN", "exp of 1e400") or payload != good:
            yield f"HS256: claims are or have {label}", make("HS256", payload=payload.encode())
    yield "HS256: claims that are not UTF-8", make("HS256", payload=good.encode().replace(b"alice", b"al\xffice"))
    token = valid["HS256"]
    head, body, mark = token.split(".")
    for label, text in {
        "padding of the signature": token + "=", "padding of the payload": f"{head}.{body}=.{mark}", "a space inside": f"{head}. {body}.{mark}", "one part": head, "two parts": f"{head}.{body}", "four parts": f"{token}.{mark}",
        "five parts": f"{token}.{mark}.{mark}", "dots alone": "..", "leading dot": f".{token}", "trailing dot": f"{token}.", "standard base64": f"{head}.{body}.{mark[:-1]}+", "a quote": f'"{token}"', "an escape": token.replace("e", "%65", 1),
        "JSON form": json.dumps({"payload": body, "signatures": [{"protected": head, "signature": mark}]}), "two tokens": f"{token} {token}", "two tokens with a comma": f"{token},{token}", "another scheme inside": f"Bearer {token}",
        "non-canonical base64": _other_last_letter(token), "upper case": token.upper(), "lower case": token.lower(), "a trailing NUL": token + "\0",
    }.items():
        yield f"HS256: {label}", text


def _other_last_letter(token: str) -> str:
    """The same octets with other unused bits (RFC 4648 section 3.5)."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) ^ 1]


# Requests with a valid token in a place, or a number, that must not count.
TRANSPORTS = {
    "no token": "", "empty value": "Authorization:\r\n", "scheme alone": "Authorization: Bearer\r\n", "scheme and spaces": "Authorization: Bearer   \r\n", "another scheme": "Authorization: Basic {t}\r\n",
    "no scheme": "Authorization: {t}\r\n", "no space after the scheme": "Authorization: Bearer{t}\r\n", "colon after the scheme": "Authorization: Bearer: {t}\r\n", "parameter form": "Authorization: Bearer token={t}\r\n",
    "Proxy-Authorization": "Proxy-Authorization: Bearer {t}\r\n", "X-Authorization": "X-Authorization: Bearer {t}\r\n", "cookie": "Cookie: token={t}; session={t}; access_token={t}\r\n", "X-Forwarded-Access-Token": "X-Forwarded-Access-Token: {t}\r\n",
    "two fields": "Authorization: Bearer {t}\r\nAuthorization: Bearer {t}\r\n", "two fields, the first empty": "Authorization:\r\nAuthorization: Bearer {t}\r\n", "two fields, the first invalid": "Authorization: Bearer x\r\nAuthorization: Bearer {t}\r\n",
    "two fields, the second invalid": "Authorization: Bearer {t}\r\nAuthorization: Basic eDp5\r\n", "list in one field": "Authorization: Bearer {t}, Bearer {t}\r\n", "list of two schemes": "Authorization: Basic eDp5, Bearer {t}\r\n",
    "underscore": "HTTP_AUTHORIZATION: Bearer {t}\r\n", "name with a space": "Authorization : Bearer {t}\r\n", "no-break space": "Authorization: Bearer\u00a0{t}\r\n", "query": "?access_token={t}", "body": "Content-Type: application/x-www-form-urlencoded\r\n",
}


def tokens() -> list[Result]:
    fetches: list = []
    canary = socket.create_server(("127.0.0.1", 0))

    def watch():
        with contextlib.suppress(OSError):
            while True:
                connection, peer = canary.accept()
                fetches.append(peer)
                connection.close()

    threading.Thread(target=watch, daemon=True).start()
    upstream = Upstream()
    numbers = itertools.count(1)
    files = {f"{name}.pem": (KEYS / f"{name}.public.pem").read_bytes() for name in set(ASYMMETRIC.values())}
    gate = Gate(CONFIGURATION.format(port=upstream.port) + "".join(map(_issuer, ALGORITHMS)), files)

    def ask(lines: str, target: str = "/me/") -> tuple[str, str]:
        target, _, query = f"{target}{next(numbers)}".partition("?")
        with Connection(gate.port) as client:
            client.send(f"GET {target}{'?' + query if query else ''} HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n".encode())
            try:
                response = client.response()
            except ConnectionError:
                response = None
        return target, str(response.status) if response else "closed"

    def check(case) -> str:
        target, found = ask(f"Authorization: Bearer {case[1]}\r\n")
        if any(request.target == target for request in upstream.seen(target)):
            return f"{found}: accepted"
        return "" if found.startswith("4") or found == "closed" else found

    def check_transport(case) -> str:
        name, lines = case
        lines = lines.replace("{t}", make("HS256"))
        query = lines.startswith("?")
        target, found = ask("" if query else lines, f"/me/{lines}&" if query else "/me/")
        if upstream.seen(target) and any(request.target.split("?")[0] == target for request in upstream.seen(target)):
            return f"{found}: accepted"
        return "" if found in ("401", "400") else found

    def check_control(case) -> str:
        _, found = ask(f"Authorization: Bearer {case[1]}\r\n")
        return "" if found == "200" else f"{found}, so the cases of this algorithm prove nothing"

    try:
        results = run_all([(f"control: {algorithm} is accepted", make(algorithm)) for algorithm in ALGORITHMS], check_control)
        results += run_all(_cases(canary.getsockname()[1]), check)
        results += run_all([(f"token in: {name}", lines) for name, lines in TRANSPORTS.items()], check_transport)
        results.append(Result("no key is fetched from a URL in a token", f"connections from {fetches}" if fetches else ""))
    finally:
        gate.stop()
        upstream.stop()
        canary.close()
    return results

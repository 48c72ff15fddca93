"""Tokens of the benchmark, and the keys that verify them in the form that each proxy needs."""

import base64
import hashlib
import hmac
import json
import pathlib
import time

LIFETIME = 24 * 3600
SECRET = b"claimgate-benchmark-secret-known-to-everyone-and-of-no-use-at-all"
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with one algorithm. All but HS256 need the package `cryptography`."""

    def __init__(self, algorithm: str, directory: pathlib.Path):
        self.algorithm = algorithm
        self.key_file = directory / f"{algorithm}.key"
        self._expires = int(time.time()) + LIFETIME
        if algorithm == "HS256":
            self._sign = lambda data: hmac.digest(SECRET, data, hashlib.sha256)
            self.key_file.write_bytes(SECRET)
            self.jwks = _key_set({"kty": "oct", "alg": algorithm, "k": base64url(SECRET)})
        else:
            self._generate()
        self.key_file.chmod(0o600)

    def _generate(self):
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

        def integer(number: int, size: int) -> str:
            return base64url(number.to_bytes(size, "big"))

        if self.algorithm == "RS256":
            key = rsa.generate_private_key(65537, 2048)
            numbers = key.public_key().public_numbers()
            self._sign = lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            jwk = {"kty": "RSA", "n": integer(numbers.n, 256), "e": integer(numbers.e, 3)}
        elif self.algorithm == "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
            numbers = key.public_key().public_numbers()

            def sign(data: bytes) -> bytes:
                r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")

            self._sign = sign
            jwk = {"kty": "EC", "crv": "P-256", "x": integer(numbers.x, 32), "y": integer(numbers.y, 32)}
        else:
            key = ed25519.Ed25519PrivateKey.generate()
            raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            self._sign = key.sign
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)}
        self.jwks = _key_set(jwk | {"alg": self.algorithm})
        self.key_file.write_bytes(key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))

    def token(self, subject: str, **claims) -> str:
        header = {"alg": self.algorithm, "typ": "JWT"}
        payload = {"sub": subject, "iat": self._expires - LIFETIME, "exp": self._expires, **claims}
        signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
        return f"{signed}.{base64url(self._sign(signed.encode()))}"

    def forged(self, subject: str) -> str:
        """A token with the signature of another one."""
        return self.token(subject).rpartition(".")[0] + "." + self.token("mallory").rpartition(".")[2]


def _key_set(jwk: dict) -> str:
    return json.dumps({"keys": [jwk | {"use": "sig"}]})

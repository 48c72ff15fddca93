"""A gate with a shared secret in front of any upstream, and tokens signed with that secret."""

import contextlib
import pathlib
import time

import jwt

from programs import Gate

SECRET = "a secret of the end-to-end tests, of sixty-four bytes or a few more"

# No leeway, so that tokens expire at `exp` and tests need not wait longer.
CONFIGURATION = """
[listen]
address = "127.0.0.1:0"
workers = 1

[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "{url}"
connect_timeout = "20s"

[issuers.better-auth]
keys = {{ secret_file = "secret", encoding = "utf8" }}
leeway = "0s"
"""

ROUTES = """
[[routes]]
path = "/health"
access = "public"

[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"""


# Lifetime in seconds of tokens that expire during a test. Long enough to open a stream on a slow machine.
SHORT_LIFETIME = 12


def sign_token(subject: str = "alice", seconds: float = 600, secret: str = SECRET, **claims) -> str:
    """HS256 token. A claim with the value None is omitted."""
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": int(time.time() + seconds), **claims}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, algorithm="HS256")


@contextlib.contextmanager
def running_gate(directory: pathlib.Path, url: str, routes: str = ROUTES):
    """`claimgate run` in front of the upstream at this URL."""
    (directory / "secret").write_text(SECRET)
    (directory / "secret").chmod(0o600)
    gate = Gate(directory, CONFIGURATION.format(url=url) + routes)
    try:
        yield gate
    finally:
        gate.stop()

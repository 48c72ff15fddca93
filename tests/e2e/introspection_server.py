"""Token introspection (RFC 7662) by Authlib, for one client with HTTP Basic.

    python introspection_server.py CLIENT_ID CLIENT_SECRET

Listens on a free port of loopback. For the tests, next to POST /introspect:
  POST /tokens    adds the token {token, hint, claims}, or replaces it
  GET /forms      form of each introspection, since the start
"""

import sys

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, request
from werkzeug.serving import make_server

CLIENT_ID, CLIENT_SECRET = sys.argv[1:]

app = Flask(__name__)
tokens: dict[str, "Token"] = {}
forms: list[dict] = []


class Client:
    def check_client_secret(self, secret: str) -> bool:
        return secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"


class Token:
    def __init__(self, hint: str, claims: dict):
        self.hint, self.claims = hint, claims

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return self.claims.get("active") is False


class Introspection(IntrospectionEndpoint):
    CLIENT_AUTH_METHODS = ["client_secret_basic"]

    def query_token(self, token: str, hint: str | None) -> Token | None:
        found = tokens.get(token)
        return found if found and hint in (None, found.hint) else None

    def check_permission(self, token, client, request) -> bool:
        return True

    def introspect_token(self, token: Token) -> dict:
        return dict(token.claims)


server = AuthorizationServer(app, query_client=lambda name: Client() if name == CLIENT_ID else None)
server.register_endpoint(Introspection)


@app.post("/introspect")
def introspect():
    forms.append(request.form.to_dict(flat=False))
    return server.create_endpoint_response("introspection")


@app.post("/tokens")
def add():
    content = request.get_json()
    tokens[content["token"]] = Token(content["hint"], content["claims"])
    return {}


@app.get("/forms")
def received():
    return forms


if __name__ == "__main__":
    listener = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"listening on http://127.0.0.1:{listener.port}", flush=True)
    listener.serve_forever()

"""Fixtures shared by several test files."""

import http.server
import json
import threading

import pytest


class Headers(http.server.BaseHTTPRequestHandler):
    """Returns the request headers as a JSON object, names in lower case."""

    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def upstream():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Headers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

"""A web page with the Better Auth client, for a real browser."""

import http.server
import os
import pathlib
import shutil
import threading

CHROMIUM = shutil.which("chromium")


class Server:
    """A server on a free port. The keyword arguments become attributes of the handler class."""

    def __init__(self, handler, **attributes):
        kind = type("Handler", (handler,), attributes | {"log_message": lambda *_: None, "protocol_version": "HTTP/1.1"})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class PageHandler(http.server.BaseHTTPRequestHandler):
    """Serves one page and its script."""

    def do_GET(self):
        kind, body = "text/html", b"<!doctype html><script src=/page.js></script>"
        if self.path == "/page.js":
            script = pathlib.Path(os.environ["BETTER_AUTH_SERVER"]).with_name("page.js")
            kind, body = "text/javascript", script.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

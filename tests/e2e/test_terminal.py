"""Commands on a terminal: colours, and a spinner while a key set is slow."""

import http.server
import os
import pty
import subprocess
import threading
import time

import pytest

from gate import SECRET

CLAIMGATE = os.environ["CLAIMGATE"]
CONFIG = """
[upstreams.tasks]
url = "http://127.0.0.1:1"

[issuers.app]
keys = {{ jwks_url = "{url}/jwks" }}
allow_any_audience = true

[[routes]]
path = "/me"
access = "authenticated"
"""


class SlowKeys(http.server.BaseHTTPRequestHandler):
    """A key set that arrives after the spinner has begun to turn."""

    def do_GET(self):
        time.sleep(0.6)
        self.send_error(503)

    def log_message(self, *_):
        pass


@pytest.fixture
def config(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowKeys) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = tmp_path / "claimgate.toml"
        file.write_text(CONFIG.format(url=f"http://127.0.0.1:{server.server_port}"))
        yield file
        server.shutdown()


def on_a_terminal(arguments: list, directory, **environment) -> str:
    """Output of a command with a pseudo-terminal for both streams."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [CLAIMGATE, *arguments], cwd=directory, stdin=slave, stdout=slave, stderr=slave,
        env={"TERM": "xterm", "BETTER_AUTH_SECRET": SECRET} | environment)
    os.close(slave)
    output = b""
    while True:
        try:
            read = os.read(master, 4096)
        except OSError:  # the last process closed the terminal
            break
        if not read:
            break
        output += read
    process.wait(30)
    os.close(master)
    return output.decode()


def test_turns_a_spinner_and_erases_it(config):
    output = on_a_terminal(["doctor"], config.parent)
    assert "fetching keys from http://127.0.0.1:" in output
    assert output.rindex("\x1b[2K") < output.index("issuer `app`: failed to fetch keys"), output
    assert "\x1b[1m\x1b[31mFAIL" in output, output


def test_prints_no_colour_with_no_color(config):
    output = on_a_terminal(["check"], config.parent, NO_COLOR="1")
    assert "\x1b[" not in output, output
    assert "valid" in output
    assert "\x1b[32mvalid" in on_a_terminal(["check"], config.parent)


def test_shows_the_examples_of_each_command(config):
    output = on_a_terminal(["explain", "--help"], config.parent)
    assert "Examples:" in output and "Exit codes:" in output and "docs/reference/cli.md#claimgate-explain" in output

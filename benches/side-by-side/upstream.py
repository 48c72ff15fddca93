"""The light upstream: one nginx process on the load's CPU, on TCP and on a Unix socket."""

import pathlib

import programs
from templates import render

# 200 bytes, as from a small API.
BODY = '{"tasks":[' + ",".join(
    f'{{"id":{number},"title":"water plants","done":false}}' for number in range(1, 5)
) + "]"
BODY += " " * (199 - len(BODY)) + "}"
SIZES = {"body-1k": 1024, "body-64k": 64 * 1024, "body-1m": 1024 * 1024}


class Upstream:
    """Upstream addresses, and the program that serves them once it is started."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory / "upstream"
        self.directory.mkdir()
        for name, size in SIZES.items():
            (self.directory / name).write_bytes((b"0123456789abcdef" * (size // 16)))
        # nginx workers drop their privileges; this one has no master process, but must enter the folder.
        self.directory.chmod(0o755)
        self.port = programs.free_port()
        self.socket = self.directory / "api.sock"
        self.websocket_port = programs.free_port()
        configuration = render("upstream.conf", {
            "PORT": self.port, "SOCKET": self.socket, "BODY": BODY, "DIRECTORY": self.directory,
        })
        (self.directory / "upstream.conf").write_text(configuration)
        self.program = None

    def start(self, cpus: set[int]):
        nginx = programs.find("nginx")
        self.program = programs.Program(
            [nginx, "-p", self.directory, "-c", self.directory / "upstream.conf"], self.directory, cpus)
        self.program.wait_until(lambda: programs.accepts(self.port))

    def stop(self):
        if self.program:
            self.program.stop()

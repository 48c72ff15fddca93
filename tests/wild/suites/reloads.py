"""Requests during configuration reloads and secret rotations: none may be lost or refused."""

import pathlib
import signal
import threading
import time

from .gate import CONFIGURATION, SECRET, Gate, claims_of, sign
from .result import Result
from .wire import Connection, Upstream

CLIENTS = 4
NEW_SECRET = SECRET[::-1]


def reloads(seconds: float) -> tuple[list[Result], str]:
    """Results, and the count of requests and reloads."""
    upstream = Upstream()
    gate = Gate(CONFIGURATION.format(port=upstream.port, listen="", upstream=""))
    counts = {"requests": 0, "lost": []}
    lock = threading.Lock()
    stop = threading.Event()

    def client(number: int):
        while not stop.is_set():
            try:
                with Connection(gate.port) as connection:
                    for _ in range(50):
                        # Both secrets verify tokens during the rotation.
                        secret = SECRET if counts["requests"] % 2 else NEW_SECRET
                        signed = sign(b'{"alg":"HS256"}', str(claims_of("alice")).replace("'", '"').encode(), secret.encode())
                        connection.send(f"GET /me/{number} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {signed}\r\n\r\n".encode())
                        response = connection.response()
                        with lock:
                            counts["requests"] += 1
                            if response is None or response.status != 200:
                                counts["lost"].append(str(response))
            except (OSError, ValueError) as error:
                with lock:
                    counts["lost"].append(repr(error))

    folder = pathlib.Path(gate.folder.name)
    text = (folder / "config.toml").read_text()
    # Rename, as editors and ConfigMaps do, so that no reader sees half a file.
    def replace(name: str, content: str):
        (folder / "new").write_text(content)
        (folder / "new").chmod(0o600)
        (folder / "new").rename(folder / name)

    replace("secret", f"{NEW_SECRET}\n{SECRET}\n")
    changes = 0
    try:
        gate.process.send_signal(signal.SIGHUP)
        time.sleep(3)
        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            changes += 1
            broken = changes % 5 == 0
            replace("config.toml", "not a configuration" if broken else f"{text}\n# change {changes}\n[[routes]]\npath = \"/more/{changes}\"\naccess = \"public\"\n")
            replace("secret", f"{SECRET}\n{NEW_SECRET}\n" if changes % 2 else f"{NEW_SECRET}\n{SECRET}\n")
            gate.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        gate.stop()
        upstream.stop()
    lost = counts["lost"]
    failure = f"{len(lost)} lost, such as {lost[0]}" if lost else "no request" if counts["requests"] < 100 else ""
    return [Result("requests during reloads and rotations", failure)], f"{len(lost)} of {counts['requests']}, {changes} changes"

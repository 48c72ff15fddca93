"""HTTP/1.1 on plain sockets: a client that sends any bytes, and an upstream that records every byte it receives."""

import contextlib
import dataclasses
import re
import socket
import threading
import time

SECONDS = 10
FRAMING = ("content-length", "transfer-encoding", "host", "connection")


@dataclasses.dataclass
class Response:
    """One response as read from the wire."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)


class OpenSocket:
    """Client side of a connection, over `socket`."""

    socket: socket.socket

    def is_closed(self, seconds: float) -> bool:
        """Waits for the end of the connection, and discards what comes before it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True
        return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Connection(OpenSocket):
    """Client connection to a port on loopback."""

    def __init__(self, port: int, seconds: float = SECONDS):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def send(self, data: bytes):
        # The gate may respond and close before it has read everything.
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self.unread += data
        return bool(data)

    def response(self, method: str = "GET") -> Response | None:
        """Reads the next final response; `None` at the end of the connection. Raises `TimeoutError`."""
        while True:
            while b"\r\n\r\n" not in self.unread:
                if not self._more():
                    return None
            head, self.unread = self.unread.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            found = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", first)
            if not found:
                raise ValueError(f"invalid status line {first!r}")
            status = int(found[1])
            fields = [(name, value.strip()) for name, value in (line.split(":", 1) for line in lines)]
            if status >= 200 or status == 101:
                return Response(status, fields, self._body(method, status, dict((n.lower(), v) for n, v in fields)))

    def _body(self, method: str, status: int, fields: dict) -> bytes:
        if method == "HEAD" or status in (101, 204, 304):
            return b""
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = b""
            while True:
                size = int(self._line().split(b";")[0], 16)
                chunk = self._exactly(size + 2)[:-2]
                if size == 0:
                    return body
                body += chunk
        if "content-length" in fields:
            return self._exactly(int(fields["content-length"]))
        while self._more():
            pass
        body, self.unread = self.unread, b""
        return body

    def _line(self) -> bytes:
        while b"\r\n" not in self.unread:
            if not self._more():
                raise ConnectionError("end within a line")
        line, self.unread = self.unread.split(b"\r\n", 1)
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            if not self._more():
                raise ConnectionError(f"end after {len(self.unread)} of {size} bytes")
        data, self.unread = self.unread[:size], self.unread[size:]
        return data


def outcome(port: int, data: bytes | list[bytes], method: str = "GET", seconds: float = SECONDS,
            half_close: bool = False) -> str:
    """Status of the first response, `closed` without one, `silent` if neither comes in time."""
    pieces = [data] if isinstance(data, bytes) else data
    with Connection(port, seconds) as client:
        for index, piece in enumerate(pieces):
            if index:
                time.sleep(0.01)
            client.send(piece)
        if half_close:
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
        try:
            response = client.response(method)
        except TimeoutError:
            return "silent"
        except ConnectionError:
            return "closed"
        return str(response.status) if response else "closed"


@dataclasses.dataclass
class Request:
    """Request as the upstream received it."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes
    raw: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1] if self.line.count(" ") == 2 else self.line

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]


def respond(request: Request) -> bytes:
    """Default response: the request line, so that a client can tell whose response it has."""
    body = b"" if request.line.startswith("HEAD ") else f"for {request.target}".encode("latin-1")
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Upstream:
    """HTTP/1.1 server that records requests, and responds with the bytes that `handler` returns. A handler that returns
    `None` has taken over the connection."""

    def __init__(self, handler=None):
        self.handler = handler or (lambda request, _connection: respond(request))
        self.requests: list[Request] = []
        self.invalid: list[bytes] = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Reader(connection)
        with contextlib.suppress(OSError, EOFError):
            while (request := self._read(reader)) is not None:
                with self.lock:
                    self.requests.append(request)
                response = self.handler(request, connection)
                if response is None:
                    return
                connection.sendall(response)
        connection.close()

    def _read(self, reader: "_Reader") -> Request | None:
        try:
            head = reader.until(b"\r\n\r\n")
        except EOFError:
            return None
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        fields = [tuple(one.split(":", 1)) if ":" in one else (one, "") for one in lines]
        fields = [(name, value.strip()) for name, value in fields]
        request = Request(line, fields, b"", head)
        lengths, codings = request.values("content-length"), request.values("transfer-encoding")
        is_clear = (not codings or codings == ["chunked"]) and len(lengths) <= 1 and not (codings and lengths) \
            and all(re.fullmatch("0|[1-9][0-9]*", length) for length in lengths) \
            and re.fullmatch(r"[!-~]+ [!-~]+ HTTP/1\.1", line)
        # A server that follows CGI reads these as the framing of the message.
        folded = [name.lower().replace("_", "-").replace(".", "-").removeprefix("http-") for name, _ in fields]
        disguised = any(fold in FRAMING and name.lower() != fold for (name, _), fold in zip(fields, folded))
        if not is_clear or disguised:
            with self.lock:
                self.invalid.append(head)
        if codings:
            while size := int(reader.until(b"\r\n").split(b";")[0], 16):
                request.body += reader.exactly(size + 2)[:-2]
            while reader.until(b"\r\n") != b"\r\n":
                pass
        elif lengths:
            request.body = reader.exactly(int(lengths[0]))
        return request

    def seen(self, marker: str) -> list[Request]:
        """Requests with a target that contains the marker."""
        with self.lock:
            return [request for request in self.requests if marker in request.target]

    def stop(self):
        self.listener.close()


class _Reader:
    def __init__(self, connection: socket.socket):
        self.connection, self.unread = connection, b""

    def _more(self):
        data = self.connection.recv(65536)
        if not data:
            raise EOFError
        self.unread += data

    def until(self, end: bytes) -> bytes:
        while end not in self.unread:
            self._more()
        data, self.unread = self.unread.split(end, 1)
        return data + end

    def exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            self._more()
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

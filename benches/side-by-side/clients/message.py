"""Smallest HTTP/1.1 client that measures: a request on a socket, and whether its response is complete."""

import socket


def request(path: str, token: str = "", host: str = "127.0.0.1") -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n".encode()


def body_length(head: bytes) -> int:
    """Length of the body by `Content-Length`."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"response without Content-Length: {head[:200]!r}")


def is_complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= body_length(head)


def exchange(connection: socket.socket, message: bytes) -> bytes:
    """Sends a request, and returns its whole response, as `receive` does."""
    connection.sendall(message)
    return receive(connection)


def receive(connection: socket.socket) -> bytes:
    """The next response; empty if the connection closed first."""
    received = b""
    while not (received and is_complete(received)):
        data = connection.recv(65536)
        if not data:
            return b""
        received += data
    return received


def status(response: bytes) -> int:
    return int(response[9:12] or 0)

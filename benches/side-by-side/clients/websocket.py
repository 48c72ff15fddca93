"""WebSocket messages: a server that echoes, and a client that keeps one message in flight on each connection.

    websocket.py serve PORT
    websocket.py load PORT PATH TOKEN SECONDS CONNECTIONS

All messages have one size, so that the server counts bytes instead of parsing frames.
"""

import base64
import hashlib
import json
import select
import socket
import sys
import time

PAYLOAD = b"0123456789abcdef" * 4
MASK = b"\x37\xfa\x21\x3d"
FROM_CLIENT = bytes([0x82, 0x80 | len(PAYLOAD)]) + MASK + bytes(
    byte ^ MASK[place % 4] for place, byte in enumerate(PAYLOAD))
FROM_SERVER = bytes([0x82, len(PAYLOAD)]) + PAYLOAD
KEY = base64.b64encode(b"of the benchmark").decode()
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
SWITCHING = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


def serve(port: int):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll, open_, heads, partial = select.epoll(), {}, {}, {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[connection.fileno()] = connection
                heads[connection.fileno()] = b""
                poll.register(connection, select.EPOLLIN)
                continue
            connection = open_[descriptor]
            try:
                data = connection.recv(65536)
                if data and descriptor in heads:
                    heads[descriptor] += data
                    if heads[descriptor].endswith(b"\r\n\r\n"):
                        del heads[descriptor]
                        partial[descriptor] = 0
                        connection.sendall(SWITCHING)
                elif data:
                    messages, partial[descriptor] = divmod(partial[descriptor] + len(data), len(FROM_CLIENT))
                    connection.sendall(FROM_SERVER * messages)
            except OSError:
                data = b""
            if not data:
                poll.unregister(descriptor)
                del open_[descriptor]
                heads.pop(descriptor, None)
                connection.close()


def upgrade(port: int, path: str, token: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall((
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = connection.recv(1)
        if not data:
            sys.exit(f"no upgrade: {head!r}")
        head += data
    if not head.startswith(b"HTTP/1.1 101"):
        sys.exit(f"no upgrade: {head!r}")
    return connection


def load(port: int, path: str, token: str, seconds: float, connections: int):
    poll, open_, sent, missing = select.epoll(), {}, {}, {}
    for _ in range(connections):
        connection = upgrade(port, path, token)
        open_[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    start = time.perf_counter()
    for descriptor, connection in open_.items():
        sent[descriptor], missing[descriptor] = time.perf_counter(), len(FROM_SERVER)
        connection.sendall(FROM_CLIENT)
    latencies, failed = [], 0
    while open_ and time.perf_counter() < start + seconds:
        for descriptor, _ in poll.poll(1):
            connection = open_[descriptor]
            data = connection.recv(65536)
            if not data:
                failed += 1
                poll.unregister(descriptor)
                del open_[descriptor]
                continue
            missing[descriptor] -= len(data)
            if missing[descriptor] == 0:
                now = time.perf_counter()
                latencies.append(now - sent[descriptor])
                sent[descriptor], missing[descriptor] = now, len(FROM_SERVER)
                connection.sendall(FROM_CLIENT)
    latencies.sort()
    print(json.dumps({
        "requests": len(latencies), "duration_us": (time.perf_counter() - start) * 1e6, "rejected": 0, "failed": failed,
        "p50_us": latencies[len(latencies) // 2] * 1e6, "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
    }))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        port, path, token, seconds, connections = sys.argv[2:]
        load(int(port), path, token, float(seconds), int(connections))

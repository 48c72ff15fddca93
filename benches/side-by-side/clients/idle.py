"""Opens connections, sends one request on each, and keeps them open without another request until its input ends.

    idle.py PORT PATH TOKEN CONNECTIONS
"""

import socket
import struct
import sys

import message

# Closes with a reset, so that no port stays in TIME_WAIT.
RESET = struct.pack("ii", 1, 0)


def main(port: int, path: str, token: str, connections: int):
    request = message.request(path, token)
    opened = []
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        response = message.exchange(connection, request)
        if message.status(response) != 200:
            sys.exit(f"response {response[:200]!r} on connection {len(opened)}")
        opened.append(connection)
    print("open", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    port, path, token, connections = sys.argv[1:]
    main(int(port), path, token, int(connections))

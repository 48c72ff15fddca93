"""Requests at a fixed rate, whatever the responses do. Latency counts from the time at which a request is due, so that
a slow response delays no measurement of the requests after it (no coordinated omission).

    paced.py PORT PATH TOKEN RATE SECONDS CONNECTIONS
"""

import json
import pathlib
import select
import socket
import sys
import time
from collections import deque

import message

# Time for the last responses after the last request.
LAST_SECONDS = 5


def main(port: int, path: str, token: str, rate: int, seconds: float, connections: int):
    # The kernel may wake this process late to save energy: 50 µs by default, 1 ns from here on.
    pathlib.Path("/proc/self/timerslack_ns").write_text("1")
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = message.request(path, token)
    idle, due, began, received = deque(sockets), deque(), {}, {}
    latencies, failed = [], 0
    total, interval = int(rate * seconds), 1 / rate
    planned, start = 0, time.perf_counter() + 0.01
    end = start + seconds + LAST_SECONDS
    while len(latencies) + failed < total:
        now = time.perf_counter()
        if now > end:
            failed = total - len(latencies)
            break
        while planned < total and start + planned * interval <= now:
            due.append(start + planned * interval)
            planned += 1
        while due and idle:
            connection = idle.popleft()
            began[connection], received[connection] = due.popleft(), b""
            connection.sendall(request)
        wait = max(0.0, start + planned * interval - time.perf_counter()) if planned < total else 0.1
        for connection in select.select(sockets, (), (), wait)[0]:
            received[connection] += connection.recv(65536)
            if message.is_complete(received[connection]):
                latencies.append(time.perf_counter() - began[connection])
                failed += message.status(received[connection]) != 200
                idle.append(connection)
    latencies.sort()
    print(json.dumps({
        "requests": len(latencies), "duration_us": seconds * 1e6, "rejected": 0, "failed": failed,
        "p50_us": latencies[len(latencies) // 2] * 1e6, "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
    }))


if __name__ == "__main__":
    port, path, token, rate, seconds, connections = sys.argv[1:]
    main(int(port), path, token, int(rate), float(seconds), int(connections))

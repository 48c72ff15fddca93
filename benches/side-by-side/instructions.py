"""User instructions per request of claimgate, counted by valgrind: repeatable on a busy machine."""

import contextlib
import pathlib
import re
import socket
import time

import programs
from clients import message
from measure import Bench
from proxies import Claimgate, Setup

CONNECTIONS = 32
# Requests on each connection, in the shorter and in the longer run.
SHORT, LONG = 40, 200
# The SHA-256 digest of the token of this benchmark, for a binary without symbols: three blocks of 2,123 instructions, as
# counted in a binary with symbols. valgrind has no SHA extensions, so it runs the code for processors without them.
DIGEST = 6_369
DIGEST_FUNCTIONS = re.compile(r"sha256_block_data_order")
START_SECONDS = 120


def count(bench: Bench, gate: Claimgate) -> dict:
    """Instructions of a longer run less those of a shorter one, for each request between them."""
    short, long = (_run(bench, gate, requests) for requests in (SHORT, LONG))
    requests = CONNECTIONS * (LONG - SHORT)
    total = (long["total"] - short["total"]) / requests
    counted = (long["digest"] - short["digest"]) / requests
    digest = counted or DIGEST
    return {"proxy": gate.name, "total": round(total), "digest": round(digest), "net": round(total - digest),
            "digest_counted": bool(counted)}


def _run(bench: Bench, gate: Claimgate, requests: int) -> dict:
    token = bench.environment.issuer("HS256").token("alice")
    directory = bench.environment.directory / f"callgrind-{programs.free_port()}"
    directory.mkdir()
    port, profile = programs.free_port(), directory / "profile"
    command = gate.command(Setup(), bench.environment, directory, port)
    valgrind = [programs.find("valgrind"), "--tool=callgrind", f"--callgrind-out-file={profile}"]
    with programs.Program([*valgrind, *command], directory, {bench.proxy_cpu}) as program:
        deadline = time.monotonic() + START_SECONDS
        while not programs.accepts(port):
            if program.process.poll() is not None or time.monotonic() > deadline:
                raise programs.Failed(f"claimgate does not start under valgrind:\n{program.tail()}")
            time.sleep(0.1)
        request = message.request("/api/alice/tasks", token)
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                           for _ in range(CONNECTIONS)]
            for _ in range(requests):
                for connection in connections:
                    connection.sendall(request)
                for connection in connections:
                    response = message.receive(connection)
                    if message.status(response) != 200:
                        raise programs.Failed(f"response under valgrind: {response[:200]!r}")
    return _read(profile)


def _read(profile: pathlib.Path) -> dict:
    """Total, and self cost of the digest if the binary has symbols."""
    total, digest, names, inside, call = 0, 0, {}, False, False
    for line in profile.read_text().splitlines():
        if line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            names.setdefault(number, name)
            inside = bool(DIGEST_FUNCTIONS.search(names[number]))
        elif match := re.match(r"cfn=(\(\d+\)) (.+)", line):
            names.setdefault(match[1], match[2])
        elif line.startswith("calls="):
            # The next line is the inclusive cost of the callee.
            call = True
        elif line.startswith(("summary:", "totals:")):
            total = int(line.split()[1])
        elif line[:1] in "0123456789+-*" and line:
            if inside and not call:
                digest += int(line.split()[1])
            call = False
    return {"total": total, "digest": digest}

"""Request heads as the gate writes them, read by llhttp (Node) and h11. Each reads what the gate judged."""

import json
import os
import pathlib
import shutil
import subprocess

import h11
import pytest

from programs import NODE

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(__file__).with_name("written_heads.mjs")

# CLAIMGATE_WRITTEN_HEADS=1000000 sets another number.
HEADS = int(os.environ.get("CLAIMGATE_WRITTEN_HEADS", "20000"))


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Pipelined requests, written by an integration test of the gate, and the meaning of each."""
    if shutil.which("cargo") is None:
        pytest.skip("the heads come from `cargo test`")
    file = tmp_path_factory.mktemp("heads") / "heads"
    environment = {**os.environ, "CLAIMGATE_WRITTEN_HEADS": str(HEADS), "CLAIMGATE_WRITTEN_HEADS_FILE": str(file)}
    command = ["cargo", "test", "--quiet", "--test", "it", "written_heads::"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with open(f"{file}.jsonl", encoding="utf-8") as lines:
        meant = [json.loads(line) for line in lines]
    assert len(meant) == HEADS
    return file, meant


def check(meant, number, method, target, fields, content):
    """Compares a reading with the meaning of the head with this number."""
    expected = meant[number]
    fields = sorted([name.lower(), value] for name, value in fields)
    assert (method, target, content) == (expected["method"], expected["target"], expected["content"]), number
    assert fields == sorted(expected["fields"]), number


def test_llhttp_reads_each_head_as_it_was_judged(heads):
    file, meant = heads
    with subprocess.Popen([NODE, SCRIPT, file], stdout=subprocess.PIPE, text=True, encoding="utf-8") as node:
        count = 0
        for line in node.stdout:
            read = json.loads(line)
            check(meant, count, read["method"], read["target"], read["fields"], read["content"])
            count += 1
    assert (node.returncode, count) == (0, len(meant))


def test_h11_reads_each_head_as_it_was_judged(heads):
    file, meant = heads
    connection = h11.Connection(h11.SERVER)
    count = 0
    with open(file, "rb") as stream:
        for number in range(len(meant)):
            # Exactly the bytes of one request: nothing is missing, and nothing is left over.
            connection.receive_data(stream.read(meant[number]["bytes"]))
            request, content = connection.next_event(), 0
            assert isinstance(request, h11.Request), request
            while isinstance(event := connection.next_event(), h11.Data):
                content += len(event.data)
            assert isinstance(event, h11.EndOfMessage), event
            fields = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
            check(meant, number, request.method.decode(), request.target.decode(), fields, content)
            count += 1
            assert connection.trailing_data == (b"", False)
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    assert count == HEADS

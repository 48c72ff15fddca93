"""The side-by-side benchmark: its configurations are valid, and a short run measures."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

MAIN = pathlib.Path(__file__).resolve().parents[2] / "benches/side-by-side/main.py"
PROGRAMS = ("nginx", "openssl", "wrk")
PATH = f"{os.environ['PATH']}:/usr/sbin"
# A healthy run takes a few seconds.
SECONDS = 300


def run(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, MAIN, "--proxies", "claimgate", "--claimgate", os.environ["CLAIMGATE"], *arguments],
        capture_output=True, text=True, timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is missing")
def test_claimgate_accepts_every_configuration_of_the_benchmark():
    count, _, text = run("--check").partition(" ")
    assert text == "configurations are valid\n"
    assert int(count) >= 10


@pytest.mark.skipif(not all(shutil.which(name, path=PATH) for name in PROGRAMS), reason="needs nginx, openssl and wrk")
def test_a_short_run_measures_every_request(tmp_path):
    output = tmp_path / "results.json"
    printed = run("--quick", "--only", "hs256", "--seconds", "1", "--output", str(output))
    assert "HS256, one token [hs256]" in printed
    [result] = json.loads(output.read_text())["results"]
    assert (result["workload"], result["proxy"], result["round"]) == ("hs256", "claimgate", 1)
    assert result["requests"] > 0
    assert result["unexpected"] == 0
    assert result["cpu_us"] > 0
    assert result["rss_kib"] > 0

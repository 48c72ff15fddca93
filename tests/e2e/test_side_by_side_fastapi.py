"""The FastAPI variants of the side-by-side benchmark do their job."""

import os
import pathlib
import re
import subprocess
import sys

MAIN = pathlib.Path(__file__).resolve().parents[2] / "benches/side-by-side/fastapi/main.py"
# A healthy check takes a few seconds.
SECONDS = 300


def test_each_fastapi_variant_responds_to_the_owner_alone():
    command = [sys.executable, MAIN, "--check", "--claimgate", os.environ["CLAIMGATE"]]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert checked.returncode == 0, checked.stderr
    assert len(re.findall(r"(?m)^\S+ does the job$", checked.stdout)) == 5, checked.stdout

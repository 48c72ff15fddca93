"""Each section of docs/guides/quick-starts.md that this machine can run: its code and its command behind `claimgate dev`."""

import os
import pathlib
import re
import shlex

import pytest

from dev import dev
from programs import NODE

PAGE = pathlib.Path(__file__).parents[2] / "docs/guides/quick-starts.md"

# Sections whose toolchain or project generator the tests do not have.
NOT_RUN = {"NestJS", "Next.js", "Spring Boot", "Go", "ASP.NET Core", "Rails", "Laravel", "axum"}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def block(section: str, languages: str) -> str:
    return re.search(rf"^```(?:{languages})\n(.*?)^```$", section, re.MULTILINE | re.DOTALL).group(1)


RUN = sorted(sections().keys() - NOT_RUN)


def test_names_every_section_that_does_not_run():
    assert NOT_RUN < sections().keys()
    assert len(RUN) >= 6
    for name, section in sections().items():
        assert block(section, "sh").startswith("claimgate dev -- "), name


@pytest.mark.parametrize("name", RUN)
def test_runs_behind_the_gate(name, tmp_path, monkeypatch):
    section = sections()[name]
    code = block(section, "python|js")
    (tmp_path / re.match(r"(?:#|//) (\S+)", code).group(1)).write_text(code)
    modules = pathlib.Path(os.environ["EXPRESS"]) / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    # The programs of the requirements, before those of the system.
    monkeypatch.setenv("PATH", str(NODE.parent), prepend=os.pathsep)
    command = shlex.split(block(section, "sh"))[3:]
    with dev(tmp_path, command) as gate:
        response = gate.get("/api/alice/tasks", gate.token, headers=[("X-User-Id", "mallory")])
        assert response.status_code == 200, gate.output()
        assert response.json() == {"tasks of": "alice"}
        assert gate.get("/api/bob/tasks", gate.token).json()["reason"] == "subject_mismatch"
        assert gate.get("/api/alice/tasks").json()["reason"] == "token_missing"

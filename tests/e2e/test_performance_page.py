"""docs/performance.md shows the kept results of the side-by-side benchmark."""

import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SIDE_BY_SIDE = ROOT / "benches" / "side-by-side"
PICTURES = sorted((DOCS / "performance").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def check_page(docs: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SIDE_BY_SIDE / "publish", "--check", "--docs", docs],
                          capture_output=True, text=True, timeout=120)


@pytest.fixture
def docs(tmp_path):
    """A copy of the page and its pictures."""
    shutil.copy(DOCS / "performance.md", tmp_path)
    shutil.copytree(DOCS / "performance", tmp_path / "performance")
    return tmp_path


def test_the_page_and_its_pictures_show_the_kept_results():
    checked = check_page(DOCS)
    assert checked.returncode == 0, checked.stderr


def test_a_changed_cell_differs_from_the_results(docs):
    page = docs / "performance.md"
    text = page.read_text()
    changed = re.sub(r"(?m)^(\| HS256, one token \| )[0-9.]+", r"\g<1>0.01", text, count=1)
    assert changed != text
    page.write_text(changed)
    checked = check_page(docs)
    assert checked.returncode == 1 and "performance.md" in checked.stderr, checked.stderr


def test_a_changed_a_missing_and_a_stale_picture_differ_from_the_results(docs):
    picture = docs / "performance" / "fastapi.svg"
    picture.write_text(picture.read_text().replace("<text", "<text ", 1))
    (docs / "performance" / "memory.svg").unlink()
    (docs / "performance" / "stale.svg").write_text("<svg/>")
    checked = check_page(docs)
    assert checked.returncode == 1
    assert all(name in checked.stderr for name in ("fastapi.svg", "memory.svg", "stale.svg")), checked.stderr


def test_a_missing_marker_is_reported(docs):
    page = docs / "performance.md"
    page.write_text(page.read_text().replace("<!-- generated: memory -->", ""))
    checked = check_page(docs)
    assert checked.returncode == 1 and "markers" in checked.stderr, checked.stderr


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_has_text_both_themes_and_nothing_from_elsewhere(picture):
    text = picture.read_text()
    root = ElementTree.fromstring(text)
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert kinds <= {"svg", "title", "style", "rect", "path", "circle", "text"}
    assert len(root.findall(f"{SVG}text")) > 10
    assert root.find(f"{SVG}title").text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"url\(|@import|href|<!DOCTYPE|<!ENTITY", text)


def test_there_are_pictures():
    assert len(PICTURES) >= 4

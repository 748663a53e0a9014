"""The house keeps its own rules: small rooms, short functions, every package is installed."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 400, 60, 100
SOURCES = ("*.py", "*.js", "*.css", "*.html", "*.sh")


def sources() -> Iterator[Path]:
    for folder in ("camserver", "tests"):
        for pattern in SOURCES:
            yield from (ROOT / folder).rglob(pattern)


def test_no_file_is_long() -> None:
    """When a file passes the limit, the new idea wants a room of its own."""
    long = {p: n for p in sources() if (n := len(p.read_text().splitlines())) > MAX_FILE_LINES}
    assert long == {}


def test_no_line_is_long() -> None:
    long = [
        f"{path}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > MAX_COLUMNS
    ]
    assert long == []


def test_no_function_is_long() -> None:
    long = [
        f"{path}: {node.name} has {length} lines"
        for path in sources()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_nobody_reaches_into_another_object_or_reads_a_message() -> None:
    """No private access across objects, and no branch on the text of an error."""
    found = [
        path
        for path in (ROOT / "camserver").rglob("*.py")
        if "SLF001" in (text := path.read_text()) or "in str(error)" in text
    ]
    assert found == []


def test_every_package_is_installed() -> None:
    """The build is told each package by its name."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "camserver").rglob("__init__.py")
    }
    assert set(told) == there


def test_every_test_that_may_be_skipped_is_named() -> None:
    """docs/reliability.md says without what each of them is skipped, and why."""
    marks = ("pytest.skip(", "skipif(", "NEEDS_ROOT")
    table = (ROOT / "docs/reliability.md").read_text().split("## Tests that may be skipped")[1]
    unnamed = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if any(mark in path.read_text() for mark in marks)
        and path.name not in table
        and path.name != "test_structure.py"
    ]
    assert unnamed == []

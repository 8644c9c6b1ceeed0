"""The documentation: its Python runs, its commands succeed, what it shows is what comes out, what it names exists.

A ```python block runs; the blocks of a file share their names. A ```text block right behind it is what it prints. In a
```console block, a line `$ tensorprog ...` is a command and what follows is its output; commands without output only have
to succeed. `python tests/test_docs.py FILE ...` writes the outputs of today into files.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import tensorprog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(tensorprog.__file__).parent
PAGES = [
    path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))) if path.exists()
]
COMMANDS = (
    'python3 -m venv .venv && .venv/bin/pip install ".[plot]" && .venv/bin/tensorprog demo',
    '.venv/bin/pip install ".[test]" && .venv/bin/python -m pytest',
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


def blocks(page: Path) -> list[tuple[str, str, bool]]:
    """Language and text of every block, and whether it stands right behind the one before."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for match in FENCE.finditer(text):
        found.append((match[1], match[2], not text[end : match.start()].strip()))
        end = match.end()
    return found


def printed(code: str, names: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "documentation", "exec"), names)
    return out.getvalue()


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder that has the programs and nothing else."""
    if not (folder / "programs").exists():
        shutil.copytree(ROOT / "programs", folder / "programs")
    words = shlex.split(line, comments=True)
    assert words[0] == "tensorprog", line
    known = {
        "PYTHONPATH": str(PACKAGE.parent),
        "TENSORPROG_SMALL": "1",
        "MPLBACKEND": "Agg",
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | known,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def shown_commands(page: Path) -> Iterator[tuple[str, str]]:
    for language, text, _ in blocks(page):
        if language == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                if line.startswith("tensorprog"):
                    yield line, output


def assert_same(found: str, shown: str) -> None:
    """Equal, but for the last digit of numbers with a point; a limit's number may differ by a few of its own errors."""
    a, b = ([line.rstrip() for line in text.strip().split("\n")] for text in (found, shown))
    assert [NUMBER.sub("#", line) for line in a] == [NUMBER.sub("#", line) for line in b]
    for x, y in zip(a, b, strict=True):
        us, vs = NUMBER.findall(x), NUMBER.findall(y)
        stated = re.search(r"± (\de-\d+) \(", y)  # value ± error (method, kind)
        for u, v in zip(us, vs, strict=True):
            if "e-" in v:  # an error
                assert float(v) / 30 <= float(u) <= 30 * float(v), (x, y)
            elif u.isdigit() and v.isdigit():
                assert u == v, (x, y)
            else:
                last = 10.0 ** -min(len(w.partition(".")[2]) for w in (u, v))
                assert abs(float(u) - float(v)) <= 1.01 * last + (10 * float(stated[1]) if stated else 0), (x, y)


# ---- what is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_and_print_what_is_shown(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    output = ""
    for language, text, adjacent in blocks(page):
        if language == "python":
            output = printed(text, names)
        elif language == "text" and adjacent:
            assert_same(output, text)
            output = ""


@pytest.mark.parametrize(
    ("line", "output"), [pytest.param(*pair, id=pair[0]) for page in PAGES for pair in shown_commands(page)]
)
def test_commands_succeed_and_print_what_is_shown(line: str, output: str, tmp_path: Path) -> None:
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    if output:
        assert_same(done.stdout, output)


def test_the_two_commands_of_the_readme() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").split("\n")
    for line in COMMANDS:
        assert line in lines


@pytest.mark.slow  # .ci/run does it, and tests/test_demo.py in this process
def test_the_demo_runs_in_an_empty_folder(tmp_path: Path) -> None:
    done = command("tensorprog demo", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stdout


# ---- what is named --------------------------------------------------------------------------------------------------


def exists(path: str, name: str = "") -> bool:
    """Is there such a file, with such a function or class (`Class.method`) in it?"""
    if not (PACKAGE / path).exists():
        return not name and (ROOT / path).exists()
    if not name:
        return True
    found: Any = importlib.import_module("tensorprog." + path.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def defines(path: str, name: str) -> bool:
    """Does a function, class or method of the file have this name?"""
    return (
        re.search(rf"^ *(?:def|class) {name}\b", (PACKAGE / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
        is not None
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"`([\w/.]+\.(?:py|md|toml|ipynb|tp|svg|txt)|\w+(?:/\w+)*/)(?::([\w.]+))?`", text)
    missing = [f"{path}:{name}" for path, name in files if not exists(path, name) and not exists(Path(path).name, name)]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_table_of_instructions_and_meanings() -> None:
    """The rows are the instructions of node.py; each cell names functions of the file that its column has."""
    page = ROOT / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("a source distribution without the documentation")
    text = page.read_text(encoding="utf-8")
    columns = dict(re.findall(r"^\* \*\*(\w+)\*\*: (.*?)(?=^\* |^$)", text, flags=re.DOTALL | re.MULTILINE))
    files = {name: re.findall(r"`([\w/]+/\w+\.py)`", said) for name, said in columns.items()}
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("| op |"))
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in takewhile(lambda s: s.startswith("|"), lines[start:])
    ]
    from tensorprog.language import node

    assert [row[0] for row in rows] == re.findall(r"^\| (\w+) +\| ", node.__doc__ or "", flags=re.MULTILINE)[1:]
    for row in rows:
        assert len(row) == len(head)
        for column, cell in zip(head[1:], row[1:], strict=True):
            for name in re.findall(r"`([\w.]+)`", cell):
                assert any(defines(path, name) for path in files[column]), (row[0], column, name)


def test_the_grammar_is_that_of_the_parser() -> None:
    from tensorprog.text import parse

    said = [text for page in PAGES for language, text, _ in blocks(page) if language == "ebnf"]
    assert said and all(textwrap.indent(text, "    ") in (parse.__doc__ or "") for text in said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit(page: Path) -> None:
    assert max(map(len, page.read_text(encoding="utf-8").split("\n"))) <= 160


# ---- rewriting ------------------------------------------------------------------------------------------------------


def rewrite(page: Path) -> None:
    """Writes the outputs of today into the page."""
    names: dict[str, Any] = {"__name__": "documentation"}
    text, output, end, parts = page.read_text(encoding="utf-8"), "", 0, []
    with tempfile.TemporaryDirectory() as folder:
        for match in FENCE.finditer(text):
            language, body = match[1], match[2]
            adjacent = not text[end : match.start()].strip()
            parts.append(text[end : match.start()])
            if language == "python":
                output = printed(body, names)
            elif language == "text" and adjacent:
                body = output.rstrip() + "\n"
            elif language == "console" and "$ tensorprog" in body:
                lines = [(line, command(line, Path(folder)), shown) for line, shown in _commands(body)]
                body = "".join([f"$ {line}\n{done.stdout if shown else ''}" for line, done, shown in lines])
            parts.append(f"```{language}\n{body}```")
            end = match.end()
    page.write_text("".join(parts) + text[end:], encoding="utf-8")


def _commands(body: str) -> list[tuple[str, str]]:
    return [
        (part.partition("\n")[0], part.partition("\n")[2]) for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    ]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))

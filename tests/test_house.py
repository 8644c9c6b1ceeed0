"""The house: which room imports which, as docs/architecture.md lists them, and no modules in a circle."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import tensorprog

PACKAGE = Path(tensorprog.__file__).parent
PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"

ARROWS: dict[str, str] = {
    "errors": "",
    "estimate": "errors",
    "progress": "",
    "figures": "errors",
    "language": "errors",
    "arrays": "language",
    "transforms": "errors language",
    "text": "errors language transforms",
    "drawing": "errors language transforms text",
    "execute": "errors estimate progress language arrays transforms",
    "limits/tasks": "",
    "limits/budget": "errors limits/tasks",
    "limits/gauss": "errors estimate language arrays",
    "limits/expect": "errors language arrays limits/budget limits/tasks limits/gauss",
    "limits/simplify": "language",
    "limits/fused": "language limits/tasks limits/gauss",
    "limits/evaluate": "estimate language arrays limits/budget limits/tasks limits/gauss limits/simplify",
    "limits/jumps": "errors language arrays limits/budget limits/tasks limits/gauss limits/expect limits/simplify "
    "limits/evaluate",
    "limits/formula": "errors language transforms text limits/tasks limits/gauss limits/expect limits/evaluate limits/jumps",
    "limits/pairs": "errors estimate language arrays limits/budget limits/tasks limits/gauss limits/expect limits/simplify "
    "limits/fused limits/evaluate limits/jumps",
    "limits": "errors estimate language transforms execute limits/budget limits/tasks limits/gauss limits/expect limits/evaluate "
    "limits/jumps limits/pairs",
    "networks": "errors language transforms limits/expect",
    "kernels": "errors progress language transforms limits/budget limits/tasks limits/fused limits/pairs limits networks",
    "depth": "errors estimate progress figures language transforms limits networks kernels",
    "analysis": "errors estimate progress figures language transforms text execute limits/expect limits/evaluate "
    "limits/jumps limits networks",
    "training": "errors estimate progress language transforms execute limits/tasks limits/expect limits/evaluate limits networks "
    "analysis",
    "coordinates": "errors progress figures language execute limits networks training",
    "function_space": "errors estimate progress language arrays networks kernels training",
    "data": "",
    "faces": "errors estimate progress language text drawing execute limits/formula limits networks kernels analysis "
    "training coordinates depth function_space data",
}
"""What a room may import: rooms above it. (`language/` also asks `text/` and `drawing/`, when a program is printed or shown.)"""
PRINTED = {
    ("language/program", "text/show"),
    ("language/program", "text/graph"),
    ("language/program", "drawing/picture"),
}
NAMES_ALL = ("__init__", "__main__", "cli")


@cache
def imports() -> set[tuple[str, str]]:
    """Pairs of modules, the imports inside functions among them, those for types alone not."""
    modules = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}
    found: set[tuple[str, str]] = set()

    def visit(tree: ast.AST, here: str) -> None:
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{here} imports relatively"
                origin = (node.module or "").split(".")
                for name in [a.name for a in node.names] if origin[0] == "tensorprog" else []:
                    inside = "/".join([*origin[1:], name])
                    found.add((here, inside if inside in modules else "/".join(origin[1:]) or "__init__"))
            visit(node, here)

    for name, path in modules.items():
        visit(ast.parse(path.read_text(encoding="utf-8")), name)
    return {(a, b if b in modules else f"{b}/__init__") for a, b in found}


def room(module: str) -> str:
    """The longest name of a room that the module's begins with."""
    return max([r for r in ARROWS if f"{module}/".startswith(f"{r}/")], key=len, default=module)


def test_rooms_import_those_above_them():
    order = list(ARROWS)
    for name, above in ARROWS.items():
        assert all(order.index(other) < order.index(name) for other in above.split()), name
    wrong = [
        f"{a} imports {b}"
        for a, b in sorted(imports() - PRINTED)
        if a not in NAMES_ALL and room(b) not in (room(a), *ARROWS[room(a)].split())
    ]
    assert not wrong
    used = {(room(a), room(b)) for a, b in imports()}
    idle = [(a, b) for a, above in ARROWS.items() for b in above.split() if (a, b) not in used]
    assert not idle, "arrows that nothing needs"


def test_rooms_are_those_of_the_documentation():
    if not PAGE.exists():
        pytest.skip("a source distribution without the documentation")
    section = PAGE.read_text(encoding="utf-8").split("## Folders")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, flags=re.MULTILINE)
    said = [name.removesuffix(".py").removesuffix("/") for row in rows for name in re.findall(r"`([\w/.]+)`", row)]
    assert said == list(ARROWS)


def test_no_modules_import_each_other():
    needs: dict[str, set[str]] = {}
    for a, b in imports():
        needs.setdefault(a, set()).add(b)
    left = set(needs)
    while free := {a for a in left if not needs[a] & left}:
        left -= free
    assert not left, "these import each other, or what does"

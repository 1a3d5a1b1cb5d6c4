"""The shape of the house: which floor may import which, and how long a function may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p for d in ("harness", "tasks", "systems") for p in (ROOT / d).rglob("*.py"))
FORBIDDEN = {
    "harness": {"tasks", "systems"},
    "tasks": {"systems"},
    "systems": {"tasks"},
}
"""What each package never imports: the harness reaches the other two by name only."""
INSIDE = [
    (
        "harness/data.py",
        {"harness.run", "harness.score", "harness.report", "harness.prepare", "harness.canonical"},
    ),
    (
        "harness/score",
        {"harness.report", "harness.run.runner", "harness.run.work", "harness.run.plan"},
    ),
    ("harness/run", {"harness.report", "harness.score.scoring"}),
]
FOREIGN = {
    "harness/cli/__init__.py",
    "harness/own_code.py",
    "harness/registry.py",
    "harness/run/indexes.py",
    "harness/run/stages.py",
}
"""Where other people's code is called, which may raise anything, and where every command ends."""
TORCH = {
    "systems/models/backends.py",
    "systems/models/mamba2.py",
    "systems/models/openwords.py",
    "systems/models/tuning.py",
    "systems/dro/training.py",
    "systems/raggd/interface.py",
    "systems/raggd/predictor.py",
    "systems/raggd/soft.py",
    "systems/raggd/training.py",
    "systems/retrollm/training.py",
    "systems/rico/mixture.py",
    "systems/rico/states.py",
    *(str(path.relative_to(ROOT)) for path in (ROOT / "systems" / "training").glob("[!_]*.py")),
}
"""Modules of torch classes: they import torch at their top, so nobody imports them at theirs."""
NUMBA = {"systems/retrollm/suffixes.py"}
"""Compiled loops: they import numba at their top, and are themselves imported when needed."""
HEAVY = {"torch", "transformers", "datasets", "pandas", "numba", "bm25s", "ir_measures"}


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_a_package_that_lists_its_modules_lists_them_all() -> None:
    package = ROOT / "harness" / "verify"
    told = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    listed = re.findall(r"(?:^|  )(\w+\.py)  ", told, re.MULTILINE)
    assert sorted(listed) == sorted(p.name for p in package.glob("[!_]*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_keeps_to_the_rules_of_the_house(path: Path) -> None:
    tree, place = ast.parse(path.read_text()), str(path.relative_to(ROOT))
    names = imported(tree)
    forbidden = set(FORBIDDEN[place.partition("/")[0]])
    for start, more in INSIDE:
        if place.startswith(start):
            forbidden |= more
    assert not [name for name in names if within(name, forbidden)]
    later = ast.If | ast.FunctionDef | ast.ClassDef
    at_top = imported(ast.Module([n for n in tree.body if not isinstance(n, later)], []))
    lazy = {each.removesuffix(".py").replace("/", ".") for each in TORCH | NUMBA}
    heavy = HEAVY - {"torch", "transformers"} if place in TORCH else HEAVY | lazy
    heavy -= {"numba"} if place in NUMBA else set()
    assert not [name for name in at_top if within(name, heavy)]
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.body[0].lineno + 1
            assert lines <= 40, f"{node.name}: {lines} lines"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or "Exception" in ast.unparse(node.type).split(", ")
            assert not broad or place in FOREIGN

"""What a result depends on, as keys: same key, same rows.

A stage's key covers the task's fingerprint, the setting, options, the stages before it, the
sources of the first-party modules it imports, the files of its checkpoints, the versions of the
numeric packages, dtype and batch size.
"""

from __future__ import annotations

import ast
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FIRST_PARTY = ("harness", "tasks", "systems")
NUMERIC = ("numpy", "bm25s", "numba", "PyStemmer", "torch", "transformers", "tokenizers")
"""Packages whose version can change a score."""
RUNNER = "harness.run.stages"
"""The module that hands queries to systems: part of every stage."""


def digest(value: object) -> str:
    """64 bits of a hash of a JSON value, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the installed numeric packages."""
    found = {"python": platform.python_version()}
    for name in NUMERIC:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def sources(module: str) -> dict[str, str]:
    """Hash of the source of a module and of all first-party modules it imports, by name.

    Imports are read from the source, lazy ones too; a module outside the three packages
    brings its own top-level package along.
    """
    parties = {*FIRST_PARTY, module.partition(".")[0]}
    found: dict[str, str] = {}
    waiting = {module, RUNNER}
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in found or path is None:
            continue
        text = path.read_bytes()
        found[name] = blake2b(text, digest_size=8).hexdigest()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting |= {each for each in _imports(text, package) if each.partition(".")[0] in parties}
    return dict(sorted(found.items()))


def _file_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        try:
            spec = find_spec(module)
        except (ModuleNotFoundError, ValueError):
            return None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _imports(source: bytes, package: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = above[: len(above) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def file_hash(path: Path) -> str:
    """Hash of a file, or of all files of a folder with their names."""
    total = blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        total.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def environment() -> dict[str, Any]:
    """Where a run was made, for its manifest."""
    return {"versions": versions(), "machine": platform.machine(), "system": platform.system()}


def stage_key(parts: Mapping[str, Any]) -> str:
    """The key of a stage from everything it depends on."""
    return digest(dict(parts))

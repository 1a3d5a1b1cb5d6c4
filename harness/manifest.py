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
from hashlib import blake2b, file_digest
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
def sources(*modules: str) -> dict[str, str]:
    """Hash of the source of modules and of all first-party modules they import, by name.

    Imports are read from the source, lazy ones too; a module outside the three packages
    brings its own top-level package along.
    """
    parties = {*FIRST_PARTY, *(module.partition(".")[0] for module in modules)}
    found: dict[str, str] = {}
    waiting = set(modules)
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
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return digest([(str(file.relative_to(path)), _content_hash(file)) for file in files])


def _content_hash(file: Path) -> str:
    state = file.stat()
    return _hashed(file, state.st_size, state.st_mtime_ns)


@cache
def _hashed(file: Path, size: int, changed: int) -> str:  # noqa: ARG001
    """The hash of a file's bytes; size and time of change only tell when to read it again."""
    with file.open("rb") as stream:
        return file_digest(stream, "blake2b").hexdigest()


def environment() -> dict[str, Any]:
    """Where a run was made, for its manifest."""
    return {"versions": versions(), "machine": platform.machine(), "system": platform.system()}


def stage_key(parts: Mapping[str, Any]) -> str:
    """The key of a stage from everything it depends on."""
    return digest(dict(parts))

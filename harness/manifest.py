"""What a result depends on, as keys: same key, same rows.

A stage's key covers the task's fingerprint, the setting, options, the stages before it, the
sources of the first-party modules it imports, the files of its checkpoints, the versions of the
numeric packages that those modules reach, dtype and batch size.
"""

from __future__ import annotations

import ast
import inspect
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import blake2b, file_digest
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

FIRST_PARTY = ("harness", "tasks", "systems")
RUNNER = ("harness.run.stages", "harness.run.external")
"""The modules that stand between queries and systems: part of every stage."""
ALWAYS = ("numpy", "scipy", "numba")
NUMERIC = {
    "bm25s": ("bm25s",),
    "Stemmer": ("PyStemmer",),
    "torch": ("torch",),
    "transformers": ("transformers", "tokenizers"),
    "tokenizers": ("tokenizers",),
    "safetensors": ("safetensors",),
    "peft": ("peft",),
    "mamba_ssm": ("mamba-ssm",),
    "pyterrier": ("pyterrier", "python-terrier"),
    "mteb": ("mteb",),
    "sentence_transformers": ("sentence-transformers",),
}
"""Packages whose version can change a score, by the name that they are imported under."""
BY_NAME = ("import_module", "library")
"""Functions that import the module that their first argument names."""
INSTALLED = ("site-packages", "dist-packages")


def digest(value: object) -> str:
    """64 bits of a hash of a JSON value, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def class_sources(cls: type, *more: str) -> dict[str, str]:
    """Hashes of all that a class is made of: its module and what that imports, or, for a class
    that was typed in and has no file, its code."""
    if _file_of(cls.__module__) is not None:
        return sources(cls.__module__, *more)
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):
        functions = (each for each in vars(cls).values() if inspect.isfunction(each))
        text = repr([(each.__qualname__, *_code(each.__code__)) for each in functions])
    return {f"{cls.__module__}:{cls.__qualname__}": digest(text), **sources(*more)}


def _code(code: CodeType) -> list[object]:
    """What a function does, without where it stands."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


@cache
def sources(*modules: str) -> dict[str, str]:
    """Hash of modules and of all first-party modules they import, by name; comments and
    docstrings do not count.

    Imports are read from the source, lazy ones and those `BY_NAME` too. First-party are our three
    packages, a module's own top-level package, and what lies in a script's own folder.
    """
    return {name: hashed for name, (hashed, _) in sorted(_walked(*modules).items())}


@cache
def versions(*modules: str) -> dict[str, str]:
    """Versions of Python and of the numeric packages that modules and their imports reach."""
    reached = {name for _, names in _walked(*modules).values() for name in names}
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    numeric = (name for module, names in NUMERIC.items() if module in reached for name in names)
    for name in (*ALWAYS, *numeric):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _walked(*modules: str) -> dict[str, tuple[str, frozenset[str]]]:
    """By module: the hash of its code, and the top-level names of all that it imports."""
    parties = {*FIRST_PARTY, *(module.partition(".")[0] for module in modules)}
    folders = {path.parent for module in modules if (path := _file_of(module)) is not None}
    folders = {folder for folder in folders if folder.name not in INSTALLED}
    found: dict[str, tuple[str, frozenset[str]]] = {}
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in found or path is None:
            continue
        tree = ast.parse(path.read_bytes())
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        names = set(_imports(tree, package))
        found[name] = (_code_hash(tree), frozenset(each.partition(".")[0] for each in names))
        own = {each for each in names if each.partition(".")[0] in parties}
        waiting |= own | {each for each in names - own if _lies_in(each, folders)}
    return found


def _lies_in(module: str, folders: set[Path]) -> bool:
    top = _file_of(module.partition(".")[0])
    return top is not None and (top.parent in folders or top.parent.parent in folders)


def _code_hash(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return digest(ast.dump(tree))


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def _file_of(module: str) -> Path | None:
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin is None:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):
            return None
        origin = spec.origin if spec else None
    path = Path(origin) if origin and origin.endswith(".py") else None
    return path if path is not None and path.exists() else None


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = above[: len(above) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if called in BY_NAME and isinstance(first, ast.Constant):
                yield str(first.value)


def forget_modules() -> None:
    """Read sources anew: a module is not what it was."""
    for known in (sources, versions, _walked, _file_of):
        known.cache_clear()


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


def stage_key(parts: Mapping[str, Any]) -> str:
    """The key of a stage from everything it depends on."""
    return digest(dict(parts))

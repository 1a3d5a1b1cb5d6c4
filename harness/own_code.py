"""A class in a Python file of the user's own, spelled ``path/to/file.py:Class``.

The file is run only inside `code_allowed`: a spelling may come from somebody else's run, bundle
or experiment, and a file can do whatever its reader may. Modules beside it can be imported, as
from a script; they come last on the path, so that they hide nothing.

What it does not do: notice that a module beside it changed while this process lives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from harness import files, manifest
from harness.data import HarnessError
from harness.registry import described
from harness.spelling import file_and_class

_allowed: ContextVar[bool] = ContextVar("code_allowed", default=False)


@contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Within it, systems may be spelled as classes of files, whose code is run."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_code_allowed() -> bool:
    """Whether files may be run here."""
    return _allowed.get()


def class_in_file(name: str) -> type:
    """The class that ``file.py:Class`` names; runs the file if it has not been run as it is now.

    Raises `HarnessError` if that was not allowed, and for a file or a class that is not there or
    cannot be loaded.
    """
    path, wanted = file_and_class(name)
    if not is_code_allowed():
        raise HarnessError(
            f"{name} is Python code in a file: to use it is to run that file with all your rights.",
            "If you trust it, add --allow-code (to run, latency or repeat).",
        )
    module = _loaded(name.rpartition(":")[0], path.expanduser())
    classes = {key: each for key, each in vars(module).items() if isinstance(each, type)}
    own = {key: each for key, each in classes.items() if each.__module__ == module.__name__}
    if wanted in own:
        return own[wanted]
    if wanted in classes:
        raise HarnessError(
            f"{path} only imports {wanted} from {classes[wanted].__module__}.",
            "Name the file that defines it, or write a class of your own that inherits from it.",
        )
    close = get_close_matches(wanted, own, n=1)
    guess = f"Did you mean {close[0]}? " if close else ""
    raise HarnessError(
        f"{path} has no class {wanted!r}.", f"{guess}Its classes: {', '.join(own) or 'none'}."
    )


@dataclass(frozen=True)
class _Loaded:
    """A file as it was when it was run."""

    path: Path
    source: bytes
    module: ModuleType


_files: dict[str, _Loaded] = {}


def _loaded(name: str, path: Path) -> ModuleType:
    """The module of a file, under the name by which it is spelled."""
    with files.reading(path):
        place, source = path.resolve(), path.read_bytes()
    known = _files.get(name)
    if known is None or (known.path, known.source) != (place, source):
        known = _files[name] = _Loaded(place, source, _run(name, place, source))
        manifest.forget_modules()
    return known.module


def _run(name: str, path: Path, source: bytes) -> ModuleType:
    """Run a file's code as a module, which the keys of stages know by that name."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(source, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise HarnessError(
            f"{name} cannot be loaded ({described(error)}).", "Mend the file."
        ) from error
    return module

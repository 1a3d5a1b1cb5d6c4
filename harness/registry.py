"""From a name to a task or a system: one table of built-ins, entry points, and what was registered.

Nothing is imported until it is asked for. Third parties use the entry-point groups
``harness.tasks`` and ``harness.systems`` (``name = "module:Class"``), or `register` in a script;
or they spell a class of a file (`harness.own_code`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, cast, get_type_hints

import harness
from harness.contract import Task
from harness.data import HarnessError, raise_together
from harness.spelling import Spelled, is_in_file

Kind = Literal["tasks", "systems", "recipes", "judges"]
PACKAGES: dict[Kind, str] = {
    "tasks": "tasks",
    "systems": "systems",
    "recipes": "systems.training",
    "judges": "systems.judges",
}
"""Where the tables of the built-ins are."""
Class = TypeVar("Class", bound=type)
CAPABILITIES = ("retrieve", "answer", "solve", "external")

_registered: dict[Kind, dict[str, type]] = {kind: {} for kind in PACKAGES}


def register(kind: Kind, name: str) -> Callable[[Class], Class]:
    """A class decorator that makes a task or a system known by name in this process."""

    def note(cls: Class) -> Class:
        _registered[kind][name] = cls
        return cls

    return note


def registered(kind: Kind) -> Mapping[str, type]:
    """What was registered in this process, which another one does not know by itself."""
    return _registered[kind]


def table(kind: Kind) -> dict[str, str | type]:
    """Every known name: built-in, from an entry point, or registered (the later wins)."""
    built_in: Mapping[str, str] = _own_package(kind).TABLE
    return {**built_in, **_plugged(kind, tuple(sys.path)), **_registered[kind]}


@cache
def _plugged(kind: Kind, path: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001
    """Names that installed packages bring; looked up again only when the path changes."""
    return {each.name: each.value for each in entry_points(group=f"harness.{kind}")}


def _own_package(kind: Kind) -> Any:
    """Our package, never a file of the same name that stands before it on the path."""
    package = PACKAGES[kind].partition(".")[0]
    spec = find_spec(package)
    own = Path(harness.__file__).parent.parent / package
    if package not in sys.modules and (spec is None or spec.origin != str(own / "__init__.py")):
        raise HarnessError(
            f"{spec.origin if spec else own} hides the package '{package}' of the harness.",
            "Rename it, or start from another folder.",
        )
    return import_module(PACKAGES[kind])


def find(kind: Kind, name: str) -> type:
    """The class behind a name; `HarnessError` with a suggestion if there is none."""
    if kind == "systems" and is_in_file(name):
        from harness.own_code import class_in_file

        return class_in_file(name)
    known = table(kind)
    if name not in known:
        alike = {each.replace("-", "_"): each for each in known}
        close = [alike[each] for each in get_close_matches(name.replace("-", "_"), alike, n=1)]
        guess = f"Did you mean {close[0]!r}? " if close else ""
        raise HarnessError(
            f"there is no {kind[:-1]} {name!r}.",
            f"{guess}`python -m harness list {kind}` shows all.",
        )
    target = known[name]
    if isinstance(target, type):
        return target
    module, _, attribute = target.partition(":")
    try:
        return cast(type, getattr(import_module(module), attribute))
    except ImportError as error:
        raise HarnessError(
            f"{kind[:-1]} {name!r} cannot be loaded: {error}.",
            "`python -m harness doctor` says what is missing.",
        ) from error


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """The options of a class: the parameters of its constructor."""
    parameters = inspect.signature(cls).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in parameters.items() if p.kind not in variadic}


def create(kind: Kind, spelled: Spelled) -> Any:
    """The task or system that was spelled, its options checked against its constructor."""
    cls = find(kind, spelled.name)
    options = check_options(spelled, cls)
    try:
        return cls(**options)
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:
        raise HarnessError(
            f"{spelled} cannot be made ({described(error)}).", "Check its options."
        ) from error


def check_options(spelled: Spelled, cls: type) -> dict[str, Any]:
    """Options turned from text into what the constructor's annotations ask for."""
    from pydantic import TypeAdapter, ValidationError

    known, given, mistakes, values = options_of(cls), dict(spelled.options), [], {}
    if "" in given:
        if not known:
            raise HarnessError(f"{spelled.name} takes no options.", f"Write {spelled.name}.")
        first = next(iter(known))
        if first in given:
            raise HarnessError(f"{spelled} gives {first} twice.", "Give every option once.")
        given[first] = given.pop("")
    hints = get_type_hints(getattr(cls, "__init__")) if known else {}  # noqa: B009
    for option, text in given.items():
        if option not in known:
            close = get_close_matches(option, known, n=1)
            mend = f"Did you mean {close[0]!r}? " if close else ""
            names = ", ".join(known) or "none"
            mistakes.append(
                HarnessError(
                    f"{spelled.name} has no option {option!r}.", f"{mend}Its options: {names}."
                )
            )
            continue
        try:
            values[option] = TypeAdapter(hints.get(option, str)).validate_strings(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input should be ")
            mistakes.append(
                HarnessError(f"{spelled.name}:{option}={text} is wrong.", f"It should be {reason}.")
            )
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty]
    for option in missing:
        if option not in given:
            mistakes.append(
                HarnessError(
                    f"{spelled.name} needs {option}=.", f"Write {spelled.name}:{option}=…."
                )
            )
    raise_together(mistakes)
    return values


def described(error: BaseException) -> str:
    """An exception of other people's code in one line, even if it cannot say what it is; with the
    line, if it came through a ``file.py:Class``."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  (it may raise anything)
        text = ""
    told = f"{name}: {text}" if text else name
    at = [f"{PurePath(n).name}:{line}" for n, line in _steps(error) if n.endswith(".py")]
    return f"{told}, at {at[-1]}" if at else told


def _steps(error: BaseException) -> Iterator[tuple[str, int]]:
    """Where an exception came through, outermost first: modules and lines. The module of a
    ``file.py:Class`` has the file's name."""
    trace = error.__traceback__
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_lineno
        trace = trace.tb_next


def task(spelled: Spelled) -> Task:
    """The task that was spelled."""
    return cast(Task, create("tasks", spelled))


def capabilities(system: object) -> tuple[str, ...]:
    """Which of `CAPABILITIES` a system has; options may take one away by setting it to None."""
    return tuple(name for name in CAPABILITIES if callable(getattr(system, name, None)))


def ranks(system: object) -> bool:
    """Whether a system ranks documents; results from outside say so themselves (``ranks``)."""
    return bool({"retrieve", "solve"} & set(capabilities(system))) or getattr(
        system, "ranks", False
    )


def answers(system: object) -> bool:
    """Whether a system answers; results from outside say so themselves (``answers``)."""
    return bool({"answer", "solve"} & set(capabilities(system))) or getattr(
        system, "answers", False
    )

"""Tasks and pipelines as values: their spelling is their key in results, tables and files.

    mini-hotpotqa:profile=hard,documents=10000      a task with options
    bm25@100+rico:steps=1@10+reader@5               stages joined by ``+``; ``@n`` go on
    reader@0                                        an answering stage that reads nothing
    bm25@100+my/file.py:Rerank:depth=3@10           a class of a file (`harness.own_code`)
    my/task.yaml                                    a task of a file, short for yaml:my/task.yaml

A value may leave out its option's name if it stands first (``jsonl:DIR``). Inside a value or a path
``+``, ``,``, ``@`` and ``%`` can be written ``%2B``, ``%2C``, ``%40`` and ``%25``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from harness.data import HarnessError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
IN_FILE = re.compile(r"([^:]+\.py):([^\W\d]\w*)")
FORMS = (".yaml", ".yml")
"""How the name of a task's file ends."""
DEPTH = re.compile(r"(.*)@(\d+)")
PLAIN = "/:=.~_- ()[]'"
"""What stays as it is when a value is spelled, besides letters and digits."""
SAFE = PLAIN.replace(":", "").replace("=", "")
"""The same of the path of a file of code."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A name, or ``file.py:Class``, with options; the option ``""`` is the one given without a
    name."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        listed = ",".join(
            f"{key}={quote(value, PLAIN)}" if key else quote(value, PLAIN)
            for key, value in self.options
        )
        return f"{self.name}:{listed}" if listed else self.name

    @property
    def canonical(self) -> Spelled:
        """The same with its options in one order, whatever order they were typed in."""
        return replace(self, options=tuple(sorted(self.options)))


@dataclass(frozen=True, slots=True)
class Stage:
    """One system of a pipeline, and how many documents go on from it (None: its default)."""

    system: Spelled
    depth: int | None = None

    def __str__(self) -> str:
        return str(self.system) + (f"@{self.depth}" if self.depth is not None else "")

    @property
    def canonical(self) -> Stage:
        """The same with its options in one order."""
        return replace(self, system=self.system.canonical)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages, first to last."""

    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.stages))

    @property
    def canonical(self) -> Pipeline:
        """The same with its options in one order."""
        return Pipeline(tuple(stage.canonical for stage in self.stages))


def parse_spelled(text: str, what: str = "task") -> Spelled:
    """Read ``name:option=value,…``; `HarnessError` if it is not of that form."""
    if what == "task" and ":" not in text and text.endswith(FORMS):
        return Spelled("yaml", (("", unquote(text)),))
    name, colon, rest = _named(text) if what == "system" else text.partition(":")
    if what == "system" and name.endswith(".py"):
        raise HarnessError(f"{text!r} names no class.", f"Write {name}:Class.")
    if not NAME.fullmatch(name) and not is_in_file(name):
        raise HarnessError(
            f"{text!r} does not begin with the name of a {what}.",
            f"Write name or name:option=value; `python -m harness list {what}s` shows the names.",
        )
    if colon and not rest:
        raise HarnessError(f"{text!r} has no option behind its colon.", f"Write {name} alone.")
    options: dict[str, str] = {}
    for place, item in enumerate(rest.split(",") if rest else ()):
        key, equals, value = item.partition("=")
        if not equals and place == 0:
            key, value = "", item
        elif not equals or not key or not value:
            raise HarnessError(f"{item!r} in {text!r} is not option=value.", "Write option=value.")
        if key in options:
            raise HarnessError(f"{text!r} gives {key} twice.", "Give every option once.")
        options[key] = unquote(value)
    return Spelled(name, tuple(options.items()))


def _named(text: str) -> tuple[str, str, str]:
    """The name of a system, the colon behind it, and its options."""
    found = IN_FILE.match(text)
    if found is None or text[found.end() :][:1] not in ("", ":"):
        return text.partition(":")
    path = quote(str(Path(unquote(found[1]))), SAFE)
    return f"{path}:{found[2]}", text[found.end() :][:1], text[found.end() + 1 :]


def stage_name(text: str) -> str:
    """A stage's name as pipelines have it, of one that was typed."""
    return _named(text)[0]


def is_in_file(name: str) -> bool:
    """Whether a system's name is that of a class of a file."""
    return IN_FILE.fullmatch(name) is not None


def file_and_class(name: str) -> tuple[Path, str]:
    """The file and the class of ``file.py:Class``."""
    path, _, cls = name.rpartition(":")
    return Path(unquote(path)), cls


def is_named(task: str, typed: str) -> bool:
    """Whether a task, as it is spelled, is what was typed: its options may be left out."""
    return typed in (task, task.partition(":")[0])


def parse_pipeline(text: str) -> Pipeline:
    """Read ``stage+stage+…``; `HarnessError` if it is not of that form."""
    stages = []
    for part in text.split("+"):
        if not part:
            raise HarnessError(f"{text!r} has an empty stage.", "Write stages as bm25+reader.")
        match = DEPTH.fullmatch(part)
        depth = int(match[2]) if match else None
        name, at, wrong = part.partition("@")
        if at and not wrong.isdecimal() and NAME.fullmatch(name):
            raise HarnessError(
                f"@{wrong} in {text!r} is no number of documents.", f"Write {name}@10, say."
            )
        stages.append(Stage(parse_spelled(match[1] if match else part, "system"), depth))
    return Pipeline(tuple(stages))


def with_options(pipeline: Pipeline, options: Mapping[str, Mapping[str, str]]) -> Pipeline:
    """The pipeline with ``options[stage name][option]`` set wherever that stage occurs."""

    def changed(stage: Stage) -> Stage:
        extra = options.get(stage.system.name, {})
        merged = {**dict(stage.system.options), **extra}
        return replace(stage, system=Spelled(stage.system.name, tuple(merged.items())))

    return Pipeline(tuple(map(changed, pipeline.stages)))

"""Runs to compare, and the command line that compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from knowing import Knows, Ordered, like

from harness import api, registry
from harness.cli import main


def run(
    folder: str, wrong: Sequence[int] = (), task: str = "toy:count=200", **options: Any
) -> Path:
    """A scored run of `Knows`."""
    registry.register("systems", "ordered")(Ordered)
    registry.register("systems", "knows")(
        like(Knows, wrong=frozenset(wrong), **options.pop("parts", {}))
    )
    made = api.run([task], ["ordered+knows"], out=Path(folder), **options)
    api.score(made)
    return made


def cli(*words: str) -> int:
    return main(["compare", *words])


def file(tolerance: float, reason: str = "seen", day: date = date(2026, 1, 5)) -> tuple[str, str]:
    Path("gate.yaml").write_text(
        f"tolerances: [{{tolerance: {tolerance}, date: {day}, reason: {reason}}}]"
    )
    return "--tolerance-file", "gate.yaml"


def refused(capsys: Any, *words: str) -> str:
    """What is said against a comparison; no number with it."""
    assert cli(*words) == 2
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    return str(told.err)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))

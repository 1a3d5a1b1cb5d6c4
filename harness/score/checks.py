"""What a file scorer returns, and how it reads values out of other people's files.

Every reader returns the value or raises `HarnessError` naming the place and the mend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data import HarnessError


@dataclass(frozen=True)
class Report:
    """What an official script reports of a prediction file.

    scores:  unrounded, under the script's keys and on its scale
    printed: the same, rounded as the script prints it
    log:     what it says on the way, a line each: missing ids, repeated passages
    warnings: what it does not say and should: see `harness.score.validity`
    questions: of the prepared data that it is scored against; None: of a gold file
    gold:    the kind of that data's gold; empty: of a gold file
    seed:    what drew these questions, as those of a run; None: all are asked
    """

    scores: Mapping[str, float]
    printed: Mapping[str, float]
    log: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    questions: int | None = None
    gold: str = ""
    seed: int | None = None


def mean(rows: Iterable[Mapping[str, float]], n: int, scale: float = 1.0) -> dict[str, float]:
    """Sum over rows / n × scale, by key; a row without a key adds 0 to it."""
    totals: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        for key, value in row.items():
            totals[key] += value
    return {key: total / n * scale for key, total in totals.items()}


def field(row: Any, key: str, place: str) -> Any:
    """``row[key]`` of an object that must have it."""
    if key not in mapping(row, place):
        raise HarnessError(f"{place} has no {key!r}.", f"Add the key {key!r}: the scorer reads it.")
    return row[key]


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """``value`` as a JSON object."""
    if not isinstance(value, Mapping):
        raise HarnessError(f"{place} is {_kind(value)}, expected an object.", "Write {…} there.")
    return value


def items(value: Any, place: str) -> Sequence[Any]:
    """``value`` as a JSON list."""
    if not isinstance(value, list):
        raise HarnessError(f"{place} is {_kind(value)}, expected a list.", "Write […] there.")
    return value


def text(value: Any, place: str) -> str:
    """``value`` as text."""
    if not isinstance(value, str):
        raise HarnessError(f"{place} is {_kind(value)}, expected text.", 'Write "" if it is empty.')
    return value


def texts(value: Any, place: str) -> list[str]:
    """``value`` as a list of texts."""
    return [text(entry, f"{place}, entry {n},") for n, entry in enumerate(items(value, place), 1)]


def questions(value: Any) -> Sequence[Any]:
    """The rows of a gold file, at least one."""
    rows = items(value, "The gold file")
    if not rows:
        raise no_questions()
    return rows


def no_questions() -> HarnessError:
    """The error for gold without questions: every script divides by their number."""
    return HarnessError("The gold file has no questions.", "Check that it is the right file.")


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"

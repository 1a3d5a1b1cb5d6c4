"""What is tolerated, and what a comparison says of it.

    tolerances:
      - {metric: "*", tolerance: 0.02, date: 2026-11-28, reason: what the mini run can see}
      - {task: mini-msmarco, system: "rico*", metric: RR@10, tolerance: 0.05, date: …, reason: …}

The last one that fits counts, as in a .gitignore; ``*`` stands for any letters. A base that was
accepted (`harness.report.snapshot`) knows what was tolerated then: a looser tolerance needs a
reason of its own and a date that is not before that day, nor in the future.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from harness.data import HarnessError
from harness.score.paired import Paired
from harness.spelling import is_named

Case = tuple[str, str, str]
"""Task, system and metric of a comparison."""
Verdict = Literal["no regression", "regression", "inconclusive"]
LEVEL = 0.05
"""Of the test; intervals are at 1 - LEVEL."""
SAME = "every row is the same"
FORM = "{metric: EM, tolerance: 0.02, date: 2026-11-28, reason: why}"


@dataclass(frozen=True)
class Tolerance:
    """How much a metric may fall before that is a regression; task, system and metric may have
    ``*`` in them."""

    tolerance: float
    date: date
    reason: str
    task: str = "*"
    system: str = "*"
    metric: str = "*"

    def fits(self, task: str, system: str, metric: str) -> bool:
        """Whether it is meant for a comparison. A task without its options names them all."""
        tasks = fnmatchcase(task, self.task) or is_named(task, self.task)
        return tasks and fnmatchcase(system, self.system) and fnmatchcase(metric, self.metric)

    def as_json(self) -> dict[str, Any]:
        """As it stands in a file, the date as text."""
        return {**vars(self), "date": self.date.isoformat()}

    def __str__(self) -> str:
        parts = (f"{name}: {getattr(self, name)}" for name in ("task", "system", "metric"))
        named = (part for part in parts if not part.endswith(": *"))
        return f"{{{', '.join([*named, f'tolerance: {self.tolerance:g}'])}}}"


@dataclass(frozen=True)
class Accepted:
    """When a base was accepted last, and what was tolerated then."""

    date: date
    tolerances: tuple[Tolerance, ...]


UNSAID = Tolerance(0.01, date.min, "no tolerance file was given")


def read_tolerances(path: Path) -> list[Tolerance]:
    """The tolerances of a file; `HarnessError` naming each entry that is not one."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HarnessError(
            f"cannot read the tolerances of {path} ({str(error).splitlines()[0]}).",
            f"Write `tolerances:` and below it lines like - {FORM}.",
        ) from error
    entries = found.get("tolerances") if isinstance(found, dict) and len(found) == 1 else None
    if not isinstance(entries, list) or not entries:
        raise HarnessError(
            f"{path} is no list of tolerances.",
            f"Write `tolerances:` and below it lines like - {FORM}.",
        )
    return [tolerance_of(entry, f"{path}, entry {n}") for n, entry in enumerate(entries, 1)]


def tolerance_of(entry: Any, place: str) -> Tolerance:
    """One entry of a file, checked."""
    names = {"task": str, "system": str, "metric": str, "reason": str, "date": date}
    wrong = "it is no {…}"
    if isinstance(entry, dict):
        size: Any = entry.get("tolerance")
        unknown = sorted(map(str, entry.keys() - {*names, "tolerance"}))
        kinds = [n for n, kind in names.items() if n in entry and type(entry[n]) is not kind]
        reasons = [
            (bool(unknown), f"it has {', '.join(unknown)}, which nothing reads"),
            (bool(kinds), f"its {' and '.join(kinds)} cannot be read"),
            (type(size) not in (int, float) or not 0 <= size < 1, "its tolerance is not in 0..1"),
            ("date" not in entry, "it has no date"),
            (_in_future(entry.get("date")), "its date is in the future"),
            (not str(entry.get("reason", "")).strip(), "it has no reason"),
        ]
        wrong = next((reason for is_so, reason in reasons if is_so), "")
    if wrong:
        raise HarnessError(f"{place}: {wrong}.", f"An entry looks like {FORM}.")
    return Tolerance(**{**entry, "tolerance": float(entry["tolerance"])})


def tolerance_for(
    tolerances: Sequence[Tolerance], task: str, system: str, metric: str
) -> Tolerance:
    """The last that fits; `UNSAID` if none does."""
    fitting = [each for each in tolerances if each.fits(task, system, metric)]
    return fitting[-1] if fitting else UNSAID


def _in_future(day: Any) -> bool:
    """Whether it is not yet that day anywhere on earth."""
    return isinstance(day, date) and day > datetime.now(timezone(timedelta(hours=14))).date()


def fitless(tolerances: Sequence[Tolerance], cases: Iterable[Case]) -> list[HarnessError]:
    """Those that fit nothing that could be compared: a name is misspelt, or no longer used."""
    every = list(dict.fromkeys(cases))
    found = [each for each in tolerances if not any(each.fits(*case) for case in every)]
    names = ("tasks", "systems", "metrics")
    there = zip(names, zip(*every, strict=True), strict=False)
    known = "; ".join(f"{name} {', '.join(dict.fromkeys(values))}" for name, values in there)
    return [
        HarnessError(
            f"the tolerance {each} fits nothing in these runs.",
            f"Mend its names, or take it out. There are {known}.",
        )
        for each in found
    ]


def unused(tolerances: Sequence[Tolerance], cases: Iterable[Case]) -> list[Tolerance]:
    """Those that count for none of the cases."""
    counting = {id(tolerance_for(tolerances, *case)) for case in cases}
    return [each for each in tolerances if id(each) not in counting]


def loosened(
    now: Sequence[Tolerance], then: Accepted | None, cases: Iterable[Case]
) -> list[HarnessError]:
    """Which of now's tolerances let more pass than those of the accepted base without saying why.

    then: None for a base that was never accepted; nothing is compared with it
    """
    if then is None:
        return []
    reasons = {each.reason for each in then.tolerances}
    found = {}
    for case in cases:
        new, old = tolerance_for(now, *case), tolerance_for(then.tolerances, *case)
        said = new.date >= then.date and new.reason not in reasons
        if new.tolerance > old.tolerance and not said:
            mend = f"Give that tolerance a reason of its own and a date from {then.date} on."
            found[new] = HarnessError(
                f"{case[2]} of {case[1]} on {case[0]} may fall by {new.tolerance:g}, by "
                f"{old.tolerance:g} when the base was accepted, and no reason is given for that.",
                "Give the --tolerance-file." if new is UNSAID else mend,
            )
    return list(found.values())


def verdict(found: Paired, p: float, tolerance: float, same: bool) -> tuple[Verdict, str]:
    """What a comparison says, and why in words.

    p:    adjusted for all that is compared together
    same: every row is the same, so that there is nothing to infer
    """
    if same:
        return "no regression", SAME
    known = not math.isnan(found.low)
    interval = f"{found.low:+.3f} to {found.high:+.3f}" if known else "no interval"
    change = f"{found.difference:+.3f} ({interval})"
    if p < LEVEL and found.difference < -tolerance:
        return "regression", (
            f"{change}: were the two alike, so much would be seen with a chance of {p:.2g}, and "
            f"more than the {tolerance:g} tolerated is lost"
        )
    if p < LEVEL and found.difference > 0:
        return "no regression", f"{change}: better, p = {p:.2g}"
    if found.low >= -tolerance:
        return "no regression", f"{change}: a loss of more than {tolerance:g} is excluded"
    seen = "" if math.isnan(found.visible) else f" (80 % power: {found.visible:.3f})"
    return "inconclusive", (
        f"{change}: {found.n} questions in {found.groups} groups neither show a loss of more than "
        f"{tolerance:g} nor exclude it{seen}"
    )

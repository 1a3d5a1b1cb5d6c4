"""What is tolerated, and what a comparison says of it.

    tolerances:
      - {metric: "*", tolerance: 0.02, date: 2026-11-28, reason: what the mini run can see}
      - {task: mini-msmarco, system: "rico*", metric: RR@10, tolerance: 0.05, date: …, reason: …}

The last one that fits counts, as in a .gitignore; ``*`` stands for any letters. A base that was
accepted (`harness.report.snapshot`) knows what was tolerated then: a looser tolerance needs a later
date and a reason of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from harness.data import HarnessError
from harness.score.paired import Paired

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
        tasks = fnmatchcase(task, self.task) or task.partition(":")[0] == self.task
        return tasks and fnmatchcase(system, self.system) and fnmatchcase(metric, self.metric)

    def as_json(self) -> dict[str, Any]:
        """As it stands in a file, the date as text."""
        return {**vars(self), "date": self.date.isoformat()}


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


def loosened(
    now: Sequence[Tolerance], then: Sequence[Tolerance], cases: Iterable[tuple[str, str, str]]
) -> list[HarnessError]:
    """Which of now's tolerances let more pass than then's without saying why.

    cases: task, system and metric of what is compared
    """
    latest = max((each.date for each in then), default=date.min)
    reasons = {each.reason for each in then}
    found = {}
    for case in cases:
        new, old = tolerance_for(now, *case), tolerance_for(then, *case)
        said = new.date >= latest and new.reason not in reasons
        if then and new.tolerance > old.tolerance and not said:
            found[new] = HarnessError(
                f"{case[2]} of {case[1]} on {case[0]} may fall by {new.tolerance:g}, by "
                f"{old.tolerance:g} when the base was accepted, and no reason is given for that.",
                "Give that tolerance a reason of its own and the date of today.",
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

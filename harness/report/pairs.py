"""Which systems of two scored runs are compared, on which metrics, and what is missing for that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data import HarnessError
from harness.score.results import Columns, Sample, read_columns, read_manifest, score_heads
from harness.spelling import is_named

Entry = Mapping[str, Any]
"""A pipeline in a manifest."""
Pair = tuple[Entry, Entry]
"""One of the base's and one of the new run."""


class Scored:
    """A run's scores and what they came from, read when they are needed."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.heads = score_heads(self.folder)
        self.manifest = read_manifest(self.folder)
        self.entries = {
            (Sample.of(each).digest, each["system"]): each for each in self.manifest["pipelines"]
        }

    @cached_property
    def columns(self) -> dict[tuple[str, str], Columns]:
        """Scores by the digest of a sample and a system."""
        return read_columns(self.folder)

    @property
    def scorer(self) -> object:
        """What made the scores."""
        return json.loads((self.folder / "scores.json").read_text(encoding="utf-8")).get("scorer")

    @property
    def cases(self) -> Iterator[tuple[str, str, str]]:
        """Task, system and metric of all that has a score."""
        for key, entry in self.entries.items():
            for metric in self.columns.get(key, Columns()).values:
                yield entry["task"], entry["system"], metric

    def is_run(self, other: Scored) -> bool:
        """Whether both are the same folder."""
        return self.folder.resolve() == other.folder.resolve()

    def rows(self, entry: Entry) -> Path:
        """The file of a pipeline's rows."""
        return self.folder / str(entry["rows"])

    def parts(self, entry: Entry) -> Entry:
        """What the last stage's key was made of."""
        stage = self.manifest.get("stages", {}).get(entry["key"], {})
        if "parts" in stage:
            return dict(stage["parts"])
        with suppress(OSError, ValueError):
            return dict(json.loads(self.rows(entry).with_name("stage.json").read_text("utf-8")))
        return {}


def key_of(entry: Entry) -> tuple[str, str]:
    """The sample and the system of an entry."""
    return Sample.of(entry).digest, entry["system"]


def refusal(pair: Pair, why: str, hint: str = "Run both alike.") -> HarnessError:
    """That two systems are not compared, and why."""
    systems = " and ".join(dict.fromkeys(each["system"] for each in pair))
    return HarnessError(f"{systems} on {pair[1]['task']}: not comparable, because {why}.", hint)


# --- which are compared ---------------------------------------------------------------


def unknown(
    one: Scored, other: Scored, baseline: str, systems: Sequence[str], tasks: Sequence[str]
) -> list[HarnessError]:
    """What is named and not there."""
    own = {system for _, system in one.entries}
    every = own | {system for _, system in other.entries}
    known = {str(each["task"]) for run in (one, other) for each in run.entries.values()}
    named = known | {task.partition(":")[0] for task in known}
    where = "these runs"
    asked = [
        ("baseline", [baseline] if baseline else [], own, own, str(one.folder)),
        ("system", systems, every, every, where),
        ("task", tasks, named, known, where),
    ]
    return [
        HarnessError(
            f"no {what} {each!r} is in {place}.", f"There are: {', '.join(sorted(there))}."
        )
        for what, wanted, good, there, place in asked
        for each in wanted
        if each not in good
    ]


def _asked(entry: Entry, systems: Sequence[str], tasks: Sequence[str]) -> bool:
    """Whether an entry is among those that were named, if any were."""
    return (not systems or entry["system"] in systems) and (
        not tasks or any(is_named(entry["task"], each) for each in tasks)
    )


def pairs_of(
    one: Scored, other: Scored, baseline: str, systems: Sequence[str], tasks: Sequence[str]
) -> tuple[list[Pair], list[HarnessError]]:
    """Which entries are compared, and what is missing for that."""
    pairs: list[Pair] = []
    mistakes: list[HarnessError] = []
    for (sample, system), entry in (other if baseline else one).entries.items():
        if not _asked(entry, systems, tasks) or (system == baseline and one.is_run(other)):
            continue
        mine = one.entries.get((sample, baseline or system))
        yours = other.entries.get((sample, system))
        if mine is not None and yours is not None:
            pairs.append((mine, yours))
            continue
        run, lacks = (one, baseline) if mine is None else (other, system)
        mistakes.append(
            HarnessError(
                f"{lacks} on {entry['task']} is not comparable, because "
                f"{_absent(run, entry, lacks)}.",
                "Run both alike, or name what to compare with --system and --task.",
            )
        )
    if not pairs and not mistakes:
        mistakes.append(_nothing(one, other, baseline, systems, tasks))
    return pairs, mistakes


def _nothing(
    one: Scored, other: Scored, baseline: str, systems: Sequence[str], tasks: Sequence[str]
) -> HarnessError:
    """Why what is named leaves nothing to compare."""
    if baseline and any(_asked(each, systems, tasks) for each in other.entries.values()):
        rest = [system for _, system in other.entries if system != baseline]
        more = f"{other.folder} has {', '.join(dict.fromkeys(rest))} beside it."
        alone = f"{other.folder} has no other system: name a run that has."
        return HarnessError(f"{baseline} would be compared with itself.", more if rest else alone)
    run = other if baseline else one
    there = dict.fromkeys(f"{each['system']} on {each['task']}" for each in run.entries.values())
    said = " on ".join(" or ".join(each) for each in (systems, tasks) if each)
    return HarnessError(f"{run.folder} has no {said or 'pipeline'}.", f"It has {', '.join(there)}.")


def only_new(one: Scored, other: Scored, systems: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Systems of the new run that have no namesake in the base, in words."""
    return list(
        dict.fromkeys(
            f"{entry['system']} on {entry['task']}"
            for key, entry in other.entries.items()
            if key not in one.entries and _asked(entry, systems, tasks)
        )
    )


def _absent(run: Scored, entry: Entry, system: str) -> str:
    """Why a run has no such system on these very questions."""
    wanted = Sample.of(entry)
    for (_, name), found in run.entries.items():
        there = Sample.of(found)
        if name == system and there.task == wanted.task:
            apart = [n for n in Sample._fields if getattr(there, n) != getattr(wanted, n)]
            told = ", ".join(f"{n} {getattr(there, n)} and not {getattr(wanted, n)}" for n in apart)
            return f"{run.folder} has it with {told}"
    return f"{run.folder} does not have it"


# --- on which metrics -----------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """A metric of a pair. there: whether both have it."""

    pair: Pair
    metric: str
    there: bool


def metrics_of(
    one: Scored, other: Scored, pairs: Sequence[Pair], wanted: Sequence[str]
) -> tuple[list[Chosen], list[HarnessError]]:
    """The metrics on which pairs are compared, and what is wrong with them.

    wanted: left out, the first that a pair has: its answers' before its ranking's. One that only
            other pairs have is no mistake: a ranker has no EM.
    """
    found = [(pair, _common(one, other, pair)) for pair in pairs]
    every = dict.fromkeys(metric for _, both in found for metric in both)
    mistakes = [refusal(p, "they have no metric in common") for p, both in found if not both]
    mistakes += [
        HarnessError(
            f"no system that is compared has {metric}.",
            f"Both have: {', '.join(every)}. Others: `python -m harness score RUN --metric …`.",
        )
        for metric in wanted
        if every and metric not in every
    ]
    mistakes += [
        error
        for m in wanted
        if m in every
        for pair in pairs
        for error in _once(one, other, pair, m)
    ]
    chosen = [Chosen(p, m, m in both) for p, both in found for m in wanted or both[:1]]
    return chosen, mistakes


def _once(one: Scored, other: Scored, pair: Pair, metric: str) -> Iterator[HarnessError]:
    """A system has a metric in both runs or in none."""
    mine, yours = pair
    lacks = [
        run.folder
        for run, entry in ((one, mine), (other, yours))
        if metric not in run.columns.get(key_of(entry), Columns()).values
    ]
    if mine["system"] == yours["system"] and len(lacks) == 1:
        yield HarnessError(
            f"{yours['system']} on {yours['task']} has no {metric} in {lacks[0]}.",
            f"Score both with it: `python -m harness score RUN --metric {metric}`.",
        )


def _common(one: Scored, other: Scored, pair: Pair) -> list[str]:
    """The metrics that both of a pair have, its answers' before its ranking's."""
    mine, yours = (
        run.columns.get(key_of(entry), Columns()).values
        for run, entry in zip((one, other), pair, strict=True)
    )
    head = other.heads[key_of(pair[1])[0]]
    order = (*head["answer_metrics"], *head["ranking_metrics"])
    return [metric for metric in order if metric in mine and metric in yours]

"""Asking a few questions again, which tells rows that a system made from rows made out of gold.

The same pipeline, spelled the same, under the same seed, device, dtype and batch size, from code
that is installed here. Rows agree if all that was answered and written is the same and documents
stand in the same order, but for those whose scores, computed here, differ by less than `TIE`
relative to the largest of their ranking: batches and processors round sums otherwise. A row that
errs here and there agrees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import HarnessError, Row
from harness.run.external import from_outside
from harness.run.plan import Plan, make_plan
from harness.run.progress import Progress
from harness.run.runner import Unfinished, run, work_of
from harness.run.store import read_rows
from harness.score.changed import kinds_of
from harness.score.results import read_manifest
from harness.spelling import Pipeline

LEAST = 0.95
"""The share of rows that must agree."""
TIE = 1e-5
ELSEWHERE = re.compile(r"(^|[:=])[/~\\]|(^|/)\.\.(/|$)")
"""A path that leaves the folder in which the verifier was started."""
REFUSED = "Only what is installed here is run, never what a bundle brings or points at."


@dataclass(frozen=True)
class Rerun:
    """A pipeline asked again. share: of rows that agree; low, high: its exact 95 % interval."""

    task: str
    system: str
    questions: int
    agree: int
    low: float
    high: float
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the questions asked again, in 0..1."""
        return self.agree / self.questions

    @property
    def sentence(self) -> str:
        """What is wrong; empty if nothing is."""
        return "" if self.share >= LEAST else f"{self}, less than {LEAST:.0%}."

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:.0%}–{self.high:.0%}"
        return f"{self.agree} of {self.questions} rows agree ({self.share:.0%}, {interval})"


def rerun(
    entry: Mapping[str, Any],
    pipeline: Pipeline,
    stages: Sequence[Mapping[str, Any]],
    claimed: Mapping[str, Row],
    place: Path,
    data: Path,
    progress: Progress,
) -> Rerun:
    """Ask the questions of ``claimed`` again, in a folder of ours, and compare.

    stages: what the keys of its stages were made of
    Raises `HarnessError` if that cannot be done here.
    """
    _refuse(pipeline)
    plan = make_plan(
        [entry["task"]],
        [entry["system"]],
        split=entry["split"],
        setting=entry["setting"],
        data=data,
        **{name: entry[name] for name in ("limit", "seed", "device", "dtype", "batch_size")},
    )
    plan = replace(plan, only=frozenset(claimed))
    notes = _compared(plan, stages, place)
    try:
        run(plan, place, data, progress)
    except Unfinished as error:
        raise HarnessError(str(error)) from error
    (told,) = read_manifest(place)["pipelines"]
    rows = {row.id: row for row in read_rows(place / told["rows"])}
    agree = sum(agrees(claimed[query_id], rows[query_id]) for query_id in claimed)
    low, high = exact_interval(agree, len(claimed))
    return Rerun(entry["task"], entry["system"], len(claimed), agree, low, high, notes)


def _refuse(pipeline: Pipeline) -> None:
    """Nothing is asked of the network or read from where a bundle says."""
    for stage in pipeline.stages:
        told = f"{stage.system.name} takes its results from a file."
        if hasattr(registry.find("systems", stage.system.name), "external"):
            raise HarnessError(told, REFUSED)
        for name, value in stage.system.options:
            if "://" in value or name == "endpoint":
                raise HarnessError(f"{stage.system.name} asks an endpoint.", REFUSED)
            if ELSEWHERE.search(value):
                raise HarnessError(f"the option {name} leads to {value:.60}.", REFUSED)
        if from_outside(registry.create("systems", stage.system)):
            raise HarnessError(told, REFUSED)


def _compared(plan: Plan, stages: Sequence[Mapping[str, Any]], place: Path) -> tuple[str, ...]:
    """What differs between the stages here and those of the bundle; other files are an error."""
    (job,) = plan.jobs
    work = work_of(job, plan, place)
    notes: dict[str, None] = {}
    (last,) = (node for node in work.nodes.values() if node.asked)
    for node, there in zip(last.chain, stages, strict=True):
        if node.parts["files"] != there["files"]:
            raise HarnessError(
                f"{node.pipeline.stages[-1]} has other files here than in the bundle.",
                "Put the submitter's checkpoint where its option says.",
            )
        for name, what in (("sources", "other code"), ("versions", "other package versions")):
            if node.parts[name] != there[name]:
                notes[f"run again with {what} than its rows were made with."] = None
    return tuple(notes)


def agrees(claimed: Row, again: Row) -> bool:
    """Whether two rows say the same; see above for ties."""
    apart = {*kinds_of(claimed, again)[0]} - {"scores"}
    if apart != {"ranking"}:
        return not apart
    if len(claimed.hits) != len(again.hits):
        return False
    score = dict(again.hits)
    tie = TIE * max((abs(each) for each in score.values()), default=0.0)
    for there, here in zip(claimed.hits, again.hits, strict=True):
        if there.id == here.id:
            continue
        other = score.get(there.id)
        if other is None or abs(other - here.score) > tie:
            return False
    return True


def exact_interval(agree: int, questions: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (Biometrika 1934) of a share."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, agree, questions - agree + 1)) if agree else 0.0
    high = float(beta.ppf(1 - tail, agree + 1, questions - agree)) if agree < questions else 1.0
    return low, high

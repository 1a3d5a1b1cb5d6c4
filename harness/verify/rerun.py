"""Asking a few questions again, which tells rows that a system made from rows made out of gold.

The same pipeline, spelled the same, under the same seed, device, dtype and batch size, from code
that is installed here. Rows agree if all that was answered and written is the same and documents
stand in the same order, but for those whose scores, computed here, differ, and by no more than
`TIE` of the largest of their ranking: processors and batches round sums otherwise. Documents of
equal scores stand in one order only, for else gold could choose it. A row that errs here and there
agrees.

A few rows that differ are asked once more in the whole batches that they were in. After that there
is no reason left why any should differ, if code, packages, processor and threads are the same here:
then all rows must agree, otherwise `LEAST` of them, and it is said why. What they were, only the
manifest says: whoever claims others gets the looser rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import HarnessError, Hit, Row
from harness.run.environment import machine, threads
from harness.run.external import from_outside
from harness.run.plan import Plan, make_plan
from harness.run.progress import Progress
from harness.run.runner import Unfinished, run
from harness.run.store import read_rows
from harness.run.work import work_of
from harness.score.changed import kinds_of
from harness.score.results import read_manifest
from harness.spelling import Pipeline, is_in_file
from harness.verify.findings import counted

LEAST = 0.95
"""The share of rows that must agree where something is not as it was."""
ENOUGH = f"{LEAST:.0%} enough"
SHOWN = 3
"""Questions that are named."""
TIE = 1e-5
ELSEWHERE = re.compile(r"(^|[:=])[/~\\]|(^|/)\.\.(/|$)")
"""A path that leaves the folder in which the verifier was started."""
REFUSED = "Only what is installed here is run, never what a bundle brings or points at."


@dataclass(frozen=True)
class Rerun:
    """A pipeline asked again. share: of rows that agree; low, high: its exact 95 % interval.

    differ: the questions whose rows do not agree
    apart:  what is not as it was when the rows were made, so that `LEAST` of them are enough
    """

    task: str
    system: str
    questions: int
    agree: int
    low: float
    high: float
    differ: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the questions asked again, in 0..1."""
        return self.agree / self.questions

    @property
    def sentence(self) -> str:
        """What is wrong; empty if nothing is."""
        if self.share < LEAST:
            return f"{self}, less than {LEAST:.0%}."
        return f"{self}; {self.rule}." if self.differ and self.strict else ""

    @property
    def strict(self) -> bool:
        """Whether all rows must agree."""
        return not self.apart

    @property
    def rule(self) -> str:
        """How many rows must agree, and why."""
        if self.strict:
            return "code, packages, processor and threads are the same here, so that all must"
        told = ", ".join(self.apart)
        return f"{ENOUGH}: they are asked again {told}, going by what the manifest says"

    def __str__(self) -> str:
        share = f"{self.share:.0%}, 95 % interval {self.low:.0%}–{self.high:.0%}"
        more = " …" if len(self.differ) > SHOWN else ""
        differ = f"; not {', '.join(self.differ[:SHOWN])}{more}" if self.differ else ""
        agree = "agrees" if self.questions == 1 else "agree"
        rows = counted(self.questions, "row")
        return f"{self.agree} of {rows} {agree} ({share}{differ})"


def rerun(
    entry: Mapping[str, Any],
    pipeline: Pipeline,
    stages: Sequence[Mapping[str, Any]],
    claimed: Mapping[str, Row],
    sessions: Sequence[Mapping[str, Any]],
    place: Path,
    data: Path,
    progress: Progress,
) -> Rerun:
    """Ask the questions of ``claimed`` again, in a folder of ours, and compare.

    stages:   what the keys of its stages were made of
    sessions: of the bundle's manifest, each with its machine
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
    apart = _other_code(plan, stages, place)

    def differing(ids: Collection[str], asked: Collection[str], name: str) -> list[str]:
        rows = _asked(replace(plan, only=frozenset(asked)), place / name, data, progress)
        return [query_id for query_id in ids if not agrees(claimed[query_id], rows[query_id])]

    differ = differing(claimed, claimed, "alone")
    if differ and len(differ) <= (1 - LEAST) * len(claimed):
        differ = differing(differ, _batches(plan, differ, place), "in-batches")
    apart += _other_machine(sessions, entry["device"])
    agree = len(claimed) - len(differ)
    interval = exact_interval(agree, len(claimed))
    told = tuple(differ), tuple(apart)
    return Rerun(entry["task"], entry["system"], len(claimed), agree, *interval, *told)


def _asked(plan: Plan, place: Path, data: Path, progress: Progress) -> dict[str, Row]:
    """The rows of a plan of one pipeline, by question."""
    try:
        run(plan, place, data, progress)
    except Unfinished as error:
        raise HarnessError(str(error)) from error
    (told,) = read_manifest(place)["pipelines"]
    return {row.id: row for row in read_rows(place / told["rows"])}


def _batches(plan: Plan, ids: Collection[str], place: Path) -> set[str]:
    """All questions of the batches in which a whole run asks these."""
    (job,) = plan.jobs
    every = [query.id for query in work_of(job, plan, place).asked]
    size = plan.batch_size
    batches = (every[start : start + size] for start in range(0, len(every), size))
    return {each for batch in batches if not set(ids).isdisjoint(batch) for each in batch}


def _refuse(pipeline: Pipeline) -> None:
    """Nothing is asked of the network or read from where a bundle says."""
    for stage in pipeline.stages:
        if is_in_file(stage.system.name):
            raise HarnessError(f"{stage.system.name} is code in a file.", REFUSED)
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


def _other_code(plan: Plan, stages: Sequence[Mapping[str, Any]], place: Path) -> list[str]:
    """In what the stages here are not those of the bundle; other files are an error."""
    (job,) = plan.jobs
    work = work_of(job, plan, place)
    found: dict[str, None] = {}
    (last,) = (node for node in work.nodes.values() if node.asked)
    for node, there in zip(last.chain, stages, strict=True):
        if node.parts["files"] != there["files"]:
            raise HarnessError(
                f"{node.pipeline.stages[-1]} has other files here than in the bundle.",
                "Put the submitter's checkpoint where its option says.",
            )
        for name, what in (
            ("sources", "with other code"),
            ("versions", "with other package versions"),
        ):
            if node.parts[name] != there[name]:
                found[what] = None
    return list(found)


def _other_machine(sessions: Sequence[Mapping[str, Any]], device: str) -> Iterator[str]:
    """In what this machine may round otherwise than those of the bundle."""
    here = machine()
    if device != "cpu":
        yield "on a GPU, where sums come in no fixed order"
    if any(each["machine"][name] != here[name] for each in sessions for name in ("cpu", "flags")):
        yield "on another processor"
    if any(_other_threads(each["threads"]) for each in sessions):
        yield "with other threads"


def _other_threads(there: Mapping[str, Any]) -> bool:
    """Whether threads are set otherwise here, or counted otherwise by a library that is loaded."""
    told = [(name, there.get(name), count) for name, count in threads().items()]
    return any(
        one != other for name, one, other in told if name.isupper() or None not in (one, other)
    )


def agrees(claimed: Row, again: Row) -> bool:
    """Whether two rows say the same; see above for ties."""
    apart = {*kinds_of(claimed, again)[0]} - {"scores"}
    if apart != {"ranking"}:
        return not apart
    tie = TIE * max((abs(hit.score) for hit in again.hits), default=0.0)
    there, here = ([hit.id for hit in row.hits] for row in (claimed, again))
    if there == here or not _but_for_ties(there, again.hits, tie):
        return False  # of one order, other documents were read
    score = dict(again.hits)

    def near(one: str, other: str) -> bool:
        known = one in score and other in score
        return one == other or (known and 0 < abs(score[one] - score[other]) <= tie)

    return len(claimed.read) == len(again.read) and all(map(near, claimed.read, again.read))


def _but_for_ties(there: Sequence[str], here: Sequence[Hit], tie: float) -> bool:
    """Whether an order is ours but for documents whose scores differ, and by no more than ``tie``.

    Documents of equal scores must follow each other as here, and none may follow one that has a
    score lower by more.
    """
    places = {hit.id: place for place, hit in enumerate(here)}
    lowest, latest = math.inf, dict[float, int]()
    for doc_id in there:
        place = places.pop(doc_id, None)
        if place is None:
            return False
        score = here[place].score
        if score - lowest > tie or latest.get(score, -1) > place:
            return False
        lowest, latest[score] = min(lowest, score), place
    return not places


def exact_interval(agree: int, questions: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (Biometrika 1934) of a share."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, agree, questions - agree + 1)) if agree else 0.0
    high = float(beta.ppf(1 - tail, agree + 1, questions - agree)) if agree < questions else 1.0
    return low, high

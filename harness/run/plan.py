"""What a run will do, resolved and checked before anything starts.

All mistakes of one command (names, options, splits, settings, pipelines) are told together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.contract import Setting, Task
from harness.data import HarnessError, raise_together
from harness.prepare import DATA, checked_split, prepared, read_about
from harness.score.ranking import check_measures
from harness.spelling import Pipeline, Spelled, parse_pipeline, parse_spelled, with_options


@dataclass(frozen=True)
class Job:
    """One task in one setting, prepared in ``folder``."""

    spelled: Spelled
    task: Task
    split: str
    setting: Setting
    folder: Path

    def __str__(self) -> str:
        return f"{self.spelled} {self.split}, {self.setting}"


@dataclass(frozen=True)
class Plan:
    """Every job with every pipeline, over the same questions."""

    jobs: tuple[Job, ...]
    pipelines: tuple[Pipeline, ...]
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 32

    def __str__(self) -> str:
        tasks = "".join(f"\n  {job} of {self._size(job)}" for job in self.jobs)
        systems = "".join(f"\n  {pipeline}" for pipeline in self.pipelines)
        return f"tasks{tasks}\nsystems{systems}\nseed {self.seed}"

    def _size(self, job: Job) -> str:
        about = read_about(job.folder)
        total = about["questions"]
        asked = total if self.limit is None else min(self.limit, total)
        return f"{total} questions ({asked} asked), {about['documents']} documents"


def make_plan(
    tasks: Sequence[str],
    systems: Sequence[str],
    *,
    split: str | None = None,
    setting: str | None = None,
    overrides: Sequence[str] = (),
    metrics: Sequence[str] = (),
    data: Path = DATA,
    **sizes: Any,
) -> Plan:
    """Resolve names and options; prepare what needs no network; raise all mistakes as one."""
    mistakes: list[HarnessError] = []
    pipelines = _pipelines(systems, overrides, mistakes)
    resolved = []
    for name in tasks:
        try:
            resolved.append(_resolve(name, split, setting))
        except HarnessError as error:
            mistakes.append(error)
    for _, _, _, where in resolved:
        for pipeline in pipelines:
            mistakes.extend(_misfits(pipeline, where))
    try:
        check_measures(metrics)
    except HarnessError as error:
        mistakes.append(error)
    raise_together(list({str(each): each for each in mistakes}.values()))
    jobs = []
    for spelled, task, chosen, where in resolved:
        try:
            jobs.append(Job(spelled, task, chosen, where, prepared(spelled, task, chosen, data)))
        except HarnessError as error:
            mistakes.append(error)
    raise_together(mistakes)
    return Plan(tuple(jobs), tuple(pipelines), **sizes)


def _resolve(
    name: str, split: str | None, setting: str | None
) -> tuple[Spelled, Task, str, Setting]:
    spelled = parse_spelled(name)
    task = registry.task(spelled)
    mistakes, chosen = [], task.splits[0]
    try:
        chosen = checked_split(task, split)
    except HarnessError as error:
        mistakes.append(error)
    fitting = [each for each in task.settings if setting in (None, each)]
    if not fitting:
        mistakes.append(
            HarnessError(
                f"{task.name} has no setting {setting!r}.",
                f"Its settings: {', '.join(task.settings)}.",
            )
        )
    raise_together(mistakes)
    return spelled, task, chosen, fitting[0]


def _pipelines(
    systems: Sequence[str], overrides: Sequence[str], mistakes: list[HarnessError]
) -> list[Pipeline]:
    """The pipelines that were spelled, with their options checked."""
    changes: dict[str, dict[str, str]] = {}
    for item in overrides:
        target, equals, value = item.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot and name and option and value):
            mistakes.append(HarnessError(f"--set {item} is not stage.option=value.", "Mend it."))
        else:
            changes.setdefault(name, {})[option] = value
    pipelines: dict[str, Pipeline] = {}
    for text in systems:
        try:
            pipeline = with_options(parse_pipeline(text), changes)
        except HarnessError as error:
            mistakes.append(error)
            continue
        pipelines.setdefault(str(pipeline.canonical), pipeline)
    for pipeline in pipelines.values():
        for stage in pipeline.stages:
            try:
                system = registry.create("systems", stage.system)
                if hasattr(system, "files"):
                    system.files()
            except HarnessError as error:
                mistakes.append(error)
    used = {stage.system.name for each in pipelines.values() for stage in each.stages}
    for stage_name in changes.keys() - used:
        mistakes.append(
            HarnessError(f"--set {stage_name}.…: no pipeline has that stage.", "Check its name.")
        )
    return list(pipelines.values())


def _misfits(pipeline: Pipeline, setting: Setting) -> list[HarnessError]:
    """What cannot work in this order: an answer before the end, nothing to read, no pool."""
    found = []
    for place, stage in enumerate(pipeline.stages):
        try:
            cls = registry.find("systems", stage.system.name)
        except HarnessError:
            continue
        can = registry.capabilities(cls)
        last = place == len(pipeline.stages) - 1
        if not can:
            found.append(
                HarnessError(
                    f"{stage.system.name} has none of {', '.join(registry.CAPABILITIES)}.",
                    "Give the class one of these methods.",
                )
            )
        elif can == ("answer",) and place == 0:
            found.append(
                HarnessError(
                    f"{pipeline}: {stage.system.name} has nothing to read.",
                    f"Put a retriever before it: bm25+{pipeline}.",
                )
            )
        elif "answer" in can and not last:
            found.append(
                HarnessError(
                    f"{pipeline}: {stage.system.name} answers before the end.",
                    "Put the answering stage last.",
                )
            )
        elif getattr(cls, "needs_pool", False) and place == 0 and setting == "corpus":
            found.append(
                HarnessError(
                    f"{pipeline}: {stage.system.name} ranks a closed pool and has none.",
                    f"Put a retriever before it (bm25@100+{pipeline}) or use --setting pool.",
                )
            )
    return found

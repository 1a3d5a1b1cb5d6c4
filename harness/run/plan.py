"""What a run will do, resolved and checked before anything starts.

All mistakes of one command (names, options, splits, settings, pipelines) are told together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.canonical import read_about
from harness.contract import Setting, Task
from harness.data import DATA, HarnessError, raise_together
from harness.prepare import checked_split, prepared
from harness.run.shown import TRAIN, shots_of
from harness.score.ranking import check_measures
from harness.spelling import (
    Pipeline,
    Spelled,
    parse_pipeline,
    parse_spelled,
    stage_name,
    with_options,
)

DTYPES = ("float32", "bfloat16", "float16")
DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True)
class Job:
    """One task in one setting, prepared in ``folder``; its train split in ``train``, where a
    system is to be shown demonstrations."""

    spelled: Spelled
    task: Task
    split: str
    setting: Setting
    folder: Path
    train: Path | None = None

    def __str__(self) -> str:
        return f"{self.spelled} {self.split}, {self.setting}"


@dataclass(frozen=True)
class Plan:
    """Every job with every pipeline, over the same questions.

    overrides: the ``stage.option=value`` that the pipelines were changed by
    only:      ids of those of the drawn questions that are asked; None: all
    """

    jobs: tuple[Job, ...]
    pipelines: tuple[Pipeline, ...]
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 32
    overrides: tuple[str, ...] = ()
    only: frozenset[str] | None = None

    def __str__(self) -> str:
        tasks = "".join(f"\n  {job} of {self._size(job)}" for job in self.jobs)
        systems = "".join(f"\n  {pipeline}" for pipeline in self.pipelines)
        return f"tasks{tasks}\nsystems{systems}\nseed {self.seed}"

    def _size(self, job: Job) -> str:
        about = read_about(job.folder)
        total = about["questions"]
        asked = total if self.limit is None else min(self.limit, total)
        part = f" (prepared with --limit {about['limit']})" if about["limit"] else ""
        notes = "".join(f"\n    {count} {reason}" for reason, count in about["notes"].items())
        return f"{total} questions{part}, {asked} asked, {about['documents']} documents{notes}"


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
    tasks = [tasks] if isinstance(tasks, str) else tasks
    systems = [systems] if isinstance(systems, str) else systems
    mistakes = _bad_sizes(tasks, systems, sizes)
    pipelines = _pipelines(systems, overrides, mistakes)
    resolved = []
    for name in tasks:
        try:
            resolved.append(_resolve(name, split, setting))
        except HarnessError as error:
            mistakes.append(error)
    for pipeline in pipelines:
        mistakes.extend(_misfits(pipeline, resolved))
    try:
        shown = [name for _, task, _, _ in resolved for name in task.ranking_metrics]
        check_measures([*shown, *metrics])
    except HarnessError as error:
        mistakes.append(error)
    raise_together(list({str(each): each for each in mistakes}.values()))
    jobs = []
    systems_of = (stage.system for pipeline in pipelines for stage in pipeline.stages)
    train = any(shots_of(registry.create("systems", each)) for each in systems_of)
    for each in resolved:
        try:
            jobs.append(_job(*each, train, data))
        except HarnessError as error:
            mistakes.append(error)
    raise_together(mistakes)
    return Plan(tuple(jobs), tuple(pipelines), overrides=tuple(overrides), **sizes)


def job_of(name: str, split: str | None, setting: str | None, data: Path = DATA) -> Job:
    """One task as it is spelled, prepared, with nothing to be run on it."""
    return _job(*_resolve(name, split, setting), train=False, data=data)


def _job(
    spelled: Spelled, task: Task, split: str, setting: Setting, train: bool, data: Path
) -> Job:
    """One task, prepared, and its train split too where demonstrations are shown."""
    folders, mistakes = {}, []
    for each in (split, TRAIN) if train else (split,):
        try:
            folders[each] = prepared(spelled, task, each, data)
        except HarnessError as error:
            mistakes.append(error)
    raise_together(mistakes)
    if train and folders[TRAIN] == folders[split]:
        raise HarnessError(
            f"{spelled}: its splits {TRAIN} and {split} are the same questions.",
            "Mend its data, or leave shots= out.",
        )
    return Job(spelled, task, split, setting, folders[split], folders[TRAIN] if train else None)


def needs(plan: Plan) -> list[str]:
    """What the systems of a plan say that they will take of memory and disk, a line each."""
    systems = dict.fromkeys(stage.system for each in plan.pipelines for stage in each.stages)
    found = []
    for spelled in systems:
        system = registry.create("systems", spelled)
        for job in plan.jobs if hasattr(system, "needs") else ():
            told = system.needs(read_about(job.folder)["documents"])
            found.append(f"{spelled} on {job.spelled}: {told}")
    return found


def _bad_sizes(
    tasks: Sequence[str], systems: Sequence[str], sizes: Mapping[str, Any]
) -> list[HarnessError]:
    """What is wrong with the numbers and words that go with a plan."""
    limit, size = sizes.get("limit"), sizes.get("batch_size", 1)
    device, dtype = sizes.get("device", "cpu"), sizes.get("dtype", DTYPES[0])
    wrong = [
        (not tasks, "no task is named.", "Name one or more."),
        (not systems, "no system is named.", "Name one or more."),
        (limit is not None and limit < 1, f"a limit of {limit} asks nothing.", "Write 1 or more."),
        (size < 1, f"a batch of {size} questions is none.", "Write 1 or more."),
        (not DEVICE.fullmatch(device), f"there is no device {device!r}.", "Write cpu or cuda."),
        (dtype not in DTYPES, f"there is no dtype {dtype!r}.", f"Write {', '.join(DTYPES)}."),
    ]
    return [HarnessError(message, hint) for is_so, message, hint in wrong if is_so]


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
        typed, dot, option = target.rpartition(".")
        name = stage_name(typed)
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
    used = {stage.system.name for each in pipelines.values() for stage in each.stages}
    for name in changes.keys() - used:
        mistakes.append(
            HarnessError(f"--set {name}.…: no pipeline has that stage.", "Check its name.")
        )
    return list(pipelines.values())


def _misfits(
    pipeline: Pipeline, resolved: Sequence[tuple[Spelled, Task, str, Setting]]
) -> list[HarnessError]:
    """What cannot work: a system that cannot be made, one at the wrong place, or one whose
    checkpoint was made for another world than a task's."""
    found = []
    settings: set[Setting] = {where for _, _, _, where in resolved} or {"pool"}
    before = ""
    for place, stage in enumerate(pipeline.stages):
        try:
            system = registry.create("systems", stage.system)
            if hasattr(system, "files"):
                system.files()
        except HarnessError as error:
            found.append(error)
            continue
        for where in settings:
            found += _misplaced(pipeline, place, system, where)
        for spelled, task, _, _ in resolved:
            found += _foreign(stage.system, system, spelled, task)
        if shots_of(system):
            found += _unshown(pipeline, stage.system, before, resolved)
            before = str(stage.system)
    return found


def _unshown(
    pipeline: Pipeline,
    stage: Spelled,
    before: str,
    resolved: Sequence[tuple[Spelled, Task, str, Setting]],
) -> list[HarnessError]:
    """Why a stage that wants demonstrations cannot be shown any. before: another one that does."""
    found = []
    if before:
        found.append(
            HarnessError(
                f"{pipeline}: {before} and {stage} both want demonstrations.",
                "Leave shots= out of one of them.",
            )
        )
    for spelled, task, split, _ in resolved:
        if TRAIN not in task.splits:
            why, mend = f"{spelled} has no split {TRAIN}", "Leave shots= out for this task."
        elif split == TRAIN:
            others = ", ".join(each for each in task.splits if each != TRAIN)
            why, mend = f"{TRAIN} is what is asked", f"Write --split with one of: {others}."
        else:
            continue
        found.append(
            HarnessError(
                f"{stage} is shown demonstrations from the train split of {spelled}, and {why}.",
                mend,
            )
        )
    return found


def serves(world: str, task: Task) -> bool:
    """Whether what was made for a generated world, or for none (""), is of use on a task."""
    return not world or (task.generated and task.version == world)


def _foreign(stage: Spelled, system: object, spelled: Spelled, task: Task) -> list[HarnessError]:
    """What is wrong with a checkpoint that was made for another world than the task's."""
    world = getattr(system, "world", "")
    if serves(world, task):
        return []
    option = getattr(system, "model_option", "model=ORG/NAME")
    made = f"the checkpoint of {stage} was made for the generated world {world}"
    if not type(task).generated:  # of an exported mini task none knows the world
        return [HarnessError(f"{made}, not for {spelled}.", f"Write {stage.name}:{option}.")]
    return [
        HarnessError(
            f"{made}, and {spelled} is of {task.version}.",
            "Train it again: python -m harness train NAME --out DIR, "
            f"then write {stage.name}:{option.partition('=')[0]}=DIR.",
        )
    ]


def _misplaced(
    pipeline: Pipeline, place: int, system: object, setting: Setting
) -> list[HarnessError]:
    """The first thing that is wrong with a system at its place, if anything is."""
    stage, last = pipeline.stages[place], place == len(pipeline.stages) - 1
    name, can, speaks = stage.system.name, registry.capabilities(system), registry.answers(system)
    open_corpus = place == 0 and setting == "corpus"
    needs_pool = getattr(system, "needs_pool", False)
    wrong = [
        (
            not can,
            f"{name} has none of {', '.join(registry.CAPABILITIES)}.",
            "Give the class one of these methods.",
        ),
        (
            can == ("answer",) and place == 0 and stage.depth != 0,
            f"{pipeline}: {name} has nothing to read.",
            f"Write bm25+{pipeline}, or {stage.system}@0 to ask it without passages.",
        ),
        (
            speaks and not last,
            f"{pipeline}: {name} answers before the end.",
            "Put the answering stage last.",
        ),
        (
            stage.depth == 0 and (not speaks or needs_pool),
            f"{pipeline}: {stage} passes no documents on.",
            "Write @1 or more.",
        ),
        (
            needs_pool and open_corpus,
            f"{pipeline}: {name} ranks a closed pool and has none.",
            f"Put a retriever before it (bm25@100+{pipeline}) or use --setting pool.",
        ),
        (
            getattr(system, "needs_prior", False) and place == 0,
            f"{pipeline}: {name} starts from the scores of a stage before it, and there is none.",
            f"Put a retriever before it (bm25@100+{pipeline}).",
        ),
    ]
    return [HarnessError(message, hint) for is_so, message, hint in wrong if is_so][:1]

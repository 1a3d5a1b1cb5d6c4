"""What there is to do: for each task the first stages of all pipelines, each with its key.

Pipelines that begin alike share the folders of their first stages. A stage's key is made of
everything that its rows depend on (`harness.manifest.stage_key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import manifest, registry
from harness.canonical import natives_hash, open_questions, read_about, sample
from harness.data import Query, Questions
from harness.run.external import from_outside
from harness.run.plan import Job, Plan
from harness.run.shown import TRAIN, reads, shots_of
from harness.spelling import Pipeline, Stage

RUNS = Path("results/runs")


@dataclass
class Node:
    """The first stages of one or more pipelines; ``asked`` if they are a whole pipeline.

    files:  name and hash of each file that the last stage depends on
    errors: questions without a good row; None until it came to its end
    """

    pipeline: Pipeline
    key: str
    parts: Mapping[str, Any]
    folder: Path
    after: Node | None = None
    shown: Shown | None = None
    files: Sequence[tuple[str, str]] = ()
    asked: bool = False
    failed: bool = False
    errors: int | None = None

    @property
    def rows(self) -> Path:
        """The file of its rows."""
        return self.folder / "rows.jsonl"

    @property
    def chain(self) -> list[Node]:
        """Its stages, first to last, each with those before it."""
        return [*(self.after.chain if self.after else ()), self]


@dataclass
class Work:
    """The nodes of one job, in an order that can be run, and the questions they answer.

    train: the same of the train split, where demonstrations are drawn from it
    """

    job: Job
    questions: Questions
    asked: tuple[Query, ...]
    home: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    train: Work | None = None


@dataclass(frozen=True)
class Shown:
    """What the demonstrations of a stage are made from.

    count: how many
    reads: how many passages of each; None for all
    after: the stages before it, on the train split
    """

    count: int
    reads: int | None
    train: Work
    after: Node | None


def run_name(plan: Plan) -> str:
    """The name of a plan's folder if nobody gives one."""
    names = {job.spelled.name for job in plan.jobs}
    first = names.pop() if len(names) == 1 else f"{len(names)}-tasks"
    jobs = [(str(job.spelled.canonical), job.split, job.setting) for job in plan.jobs]
    pipelines = [str(pipeline.canonical) for pipeline in plan.pipelines]
    sizes = [plan.limit, plan.seed, plan.device, plan.dtype, plan.batch_size]
    return f"{first}-{manifest.digest([jobs, pipelines, sizes])}"


def work_of(job: Job, plan: Plan, folder: Path) -> Work:
    """The distinct first stages of all pipelines for one job."""
    questions = open_questions(job.folder, job.task, job.split, job.setting)
    by_id = {query.id: query for query in questions.queries}
    ids = sample(by_id, plan.limit, plan.seed)
    asked = tuple(by_id[i] for i in ids if plan.only is None or i in plan.only)
    work = Work(job, questions, asked, folder / home_of(job))
    for pipeline in plan.pipelines:
        last = _nodes(pipeline.stages, work, plan)
        if last is not None:
            last.asked = True
    return work


def _nodes(stages: Sequence[Stage], work: Work, plan: Plan) -> Node | None:
    """The node of these stages, if there are any; it and those before it join the work."""
    after: Node | None = None
    for end in range(1, len(stages) + 1):
        first = Pipeline(tuple(stages[:end]))
        node = work.nodes.get(str(first.canonical))
        if node is None:
            node = _node(first, work, plan, after)
            work.nodes[str(first.canonical)] = node
        after = node
    return after


def _node(first: Pipeline, work: Work, plan: Plan, after: Node | None) -> Node:
    stage = first.stages[-1]
    system = registry.create("systems", stage.system)
    shown = _shown(first, system, work, plan)
    parts = _parts(stage, system, work, plan, after)
    if shown is not None:
        parts["shown"] = _shown_parts(shown)
    key = manifest.stage_key(parts)
    folder = work.home / f"{safe(str(first))}-{key[:8]}"
    return Node(first, key, parts, folder, after, shown, _named(system))


def home_of(job: Job) -> str:
    """The name of a job's folder in a run."""
    return safe(f"{job.spelled}.{job.split}.{job.setting}")


def safe(text: str) -> str:
    """A readable file name, a letter or digit first (the key behind it keeps it unique)."""
    return re.sub(r"[^A-Za-z0-9.,=@+-]+", "_", text).lstrip("_.,=@+-")[:80]


def _parts(stage: Stage, system: Any, work: Work, plan: Plan, after: Node | None) -> dict[str, Any]:
    """Everything the rows of a stage depend on, but for its demonstrations."""
    return {
        "fingerprint": work.questions.fingerprint,
        "natives": natives_hash(work.job.folder) if from_outside(system) else None,
        "setting": work.job.setting,
        "stage": str(stage.canonical),
        "after": after.key if after else None,
        "instruction": work.questions.instruction,
        "max_new_tokens": work.job.task.max_new_tokens,
        "seed": plan.seed,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch_size": plan.batch_size,
        **made_of(system),
    }


def made_of(system: Any) -> dict[str, Any]:
    """What a system is made of, whatever it is asked: files, code, packages."""
    files = system.files() if hasattr(system, "files") else ()
    return {
        "files": [manifest.file_hash(Path(path)) for path in files],
        "sources": manifest.class_sources(type(system), *manifest.RUNNER),
        "versions": manifest.versions(type(system).__module__, *manifest.RUNNER),
    }


def _named(system: Any) -> list[tuple[str, str]]:
    """Name and hash of each file that a system depends on; a folder's with the folder's name."""
    paths = map(Path, system.files() if hasattr(system, "files") else ())
    return [
        (str(file.relative_to(path.parent)), manifest.file_hash(file))
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]


# --- demonstrations -------------------------------------------------------------------


def _shown(first: Pipeline, system: Any, work: Work, plan: Plan) -> Shown | None:
    """What the last stage is shown, if it wants demonstrations."""
    count = shots_of(system)
    if not count:
        return None
    if work.train is None:
        work.train = _train_work(work)
    after = _nodes(first.stages[:-1], work.train, alone(plan))
    return Shown(count, reads(system, first.stages[-1].depth), work.train, after)


def _train_work(work: Work) -> Work:
    """The train split of a job's task, of which nothing is asked yet."""
    folder = work.job.train
    assert folder is not None  # a plan with such a system has it
    job = replace(work.job, split=TRAIN, folder=folder, train=None)
    questions = open_questions(folder, job.task, job.split, job.setting)
    return Work(job, questions, (), work.home.parent / "shown" / home_of(job))


def alone(plan: Plan) -> Plan:
    """How train questions are asked: one at a time, so that demonstrations depend neither on the
    batch size nor on how many there are."""
    return replace(plan, batch_size=1, limit=None)


def _shown_parts(shown: Shown) -> dict[str, Any]:
    """Everything that demonstrations depend on beside the seed and the stage."""
    return {
        "train": shown.train.questions.fingerprint,
        "count": shown.count,
        "after": shown.after.key if shown.after else None,
        "sources": manifest.sources(shots_of.__module__),
    }


def indexes_of(job: Job, data: Path) -> Path:
    """The folder of all indexes of a job's corpus."""
    return data / "indexes" / str(read_about(job.folder)["corpus"])

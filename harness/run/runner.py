"""Running a plan: every pipeline over every task, one row a question, resumable at any moment.

    RUN/manifest.json                          what was asked
    RUN/<task>/<pipeline>-<key>/rows.jsonl     one row a question
                                stage.json     everything its key was made of

A folder stands for a pipeline or for the first stages of one, so that pipelines which begin
alike share that work. Running again finishes what is missing or errored and leaves whole files
alone; when anything a stage depends on changes, so does its key, and it starts a folder anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import manifest, registry
from harness.data import DATA, Brief, HarnessError, Mistakes, Query, Questions
from harness.prepare import (
    natives_hash,
    open_questions,
    read_about,
    read_lines,
    sample,
)
from harness.run.external import hand_rankings, translate, wants_rankings
from harness.run.indexes import build_index, close_system, open_system
from harness.run.plan import Job, Plan
from harness.run.progress import Progress, silent
from harness.run.stages import Station
from harness.run.store import RowFile, asked_rows, one_writer
from harness.score.results import read_manifest
from harness.spelling import Pipeline, Stage

RUNS = Path("results/runs")


@dataclass
class Node:
    """The first stages of one or more pipelines; ``asked`` if they are a whole pipeline."""

    pipeline: Pipeline
    key: str
    parts: Mapping[str, Any]
    folder: Path
    after: Node | None = None
    asked: bool = False
    failed: bool = False

    @property
    def rows(self) -> Path:
        """The file of its rows."""
        return self.folder / "rows.jsonl"


@dataclass
class Work:
    """The nodes of one job, in an order that can be run, and the questions they answer."""

    job: Job
    questions: Questions
    asked: tuple[Query, ...]
    nodes: dict[str, Node] = field(default_factory=dict)


def run(
    plan: Plan, out: Path | None = None, data: Path = DATA, progress: Progress = silent
) -> Path:
    """Carry out a plan; returns the run's folder. Gold is never opened.

    out: the run's folder; by default one under ``results/runs`` named after the plan
    A stage that cannot be started leaves the other pipelines alone and is told at the end.
    """
    folder = out or RUNS / run_name(plan)
    failures: list[HarnessError] = []
    try:
        with one_writer(folder):
            works = [work_of(job, plan, folder) for job in plan.jobs]
            _write_manifest(folder, plan, works)
            for work in works:
                for node in work.nodes.values():
                    try:
                        _run_node(node, work, plan, data, progress)
                    except HarnessError as error:
                        node.failed = True
                        failures.append(error)
    except OSError as error:
        raise HarnessError(
            f"cannot write {error.filename or folder}: {error.strerror or error}.",
            "Free some room or mend it, then run the same command: finished rows are kept.",
        ) from error
    if failures:
        raise Unfinished(failures, folder)
    return folder


class Unfinished(Mistakes):
    """Some stages could not be started; the rows of the other pipelines are in ``folder``."""

    def __init__(self, failures: Sequence[HarnessError], folder: Path) -> None:
        super().__init__(failures)
        self.folder = folder


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
    asked = tuple(by_id[query_id] for query_id in sample(by_id, plan.limit, plan.seed))
    work = Work(job, questions, asked)
    home = folder / _safe(f"{job.spelled}.{job.split}.{job.setting}")
    for pipeline in plan.pipelines:
        after: Node | None = None
        for end in range(1, len(pipeline.stages) + 1):
            first = Pipeline(pipeline.stages[:end])
            node = work.nodes.get(str(first.canonical))
            if node is None:
                parts = _parts(first.stages[-1], work, plan, after)
                key = manifest.stage_key(parts)
                node = Node(first, key, parts, home / f"{_safe(str(first))}-{key[:8]}", after)
                work.nodes[str(first.canonical)] = node
            after = node
        if after is not None:
            after.asked = True
    return work


def _safe(text: str) -> str:
    """A readable file name (the key behind it keeps it unique)."""
    return re.sub(r"[^A-Za-z0-9.,=@+-]+", "_", text)[:80]


def _parts(stage: Stage, work: Work, plan: Plan, after: Node | None) -> dict[str, Any]:
    """Everything the rows of a stage depend on."""
    system = registry.create("systems", stage.system)
    files = system.files() if hasattr(system, "files") else ()
    outside = hasattr(system, "external") or wants_rankings(system)
    return {
        "fingerprint": work.questions.fingerprint,
        "natives": natives_hash(work.job.folder) if outside else None,
        "setting": work.job.setting,
        "stage": str(stage.canonical),
        "after": after.key if after else None,
        "instruction": work.questions.instruction,
        "max_new_tokens": work.job.task.max_new_tokens,
        "seed": plan.seed,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch_size": plan.batch_size,
        "files": [manifest.file_hash(Path(path)) for path in files],
        "sources": manifest.class_sources(type(system), *manifest.RUNNER),
        "versions": manifest.versions(type(system).__module__, *manifest.RUNNER),
    }


# --- the manifest ---------------------------------------------------------------------


def _write_manifest(folder: Path, plan: Plan, works: Sequence[Work]) -> None:
    """Add this plan's pipelines to the run's manifest; write only if something changed."""
    path = folder / "manifest.json"
    old = read_manifest(folder) if path.exists() else {"pipelines": []}
    entries = {(e["task"], e["split"], e["setting"], e["system"]): e for e in old["pipelines"]}
    for work in works:
        for node in filter(lambda node: node.asked, work.nodes.values()):
            entry = _entry(node, work, plan, folder)
            entries[(entry["task"], entry["split"], entry["setting"], entry["system"])] = entry
    new = {"format": 1, "pipelines": [*entries.values()]}
    if new != old:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)


def _entry(node: Node, work: Work, plan: Plan, folder: Path) -> dict[str, Any]:
    """What the manifest says of one pipeline on one task."""
    job = work.job
    systems = [registry.create("systems", stage.system) for stage in node.pipeline.stages]
    return {
        "task": str(job.spelled),
        "split": job.split,
        "setting": job.setting,
        "system": str(node.pipeline),
        "generated": job.task.generated,
        "answer_metrics": list(job.task.answer_metrics),
        "ranking_metrics": list(job.task.ranking_metrics),
        "ranks": any(map(registry.ranks, systems)),
        "answers": any(map(registry.answers, systems)),
        "deterministic": all(getattr(system, "deterministic", True) for system in systems),
        "fingerprint": work.questions.fingerprint,
        "data": str(job.folder),
        "limit": plan.limit,
        "seed": plan.seed,
        "questions": len(work.asked),
        "key": node.key,
        "rows": str(node.rows.relative_to(folder)),
    }


# --- one node -------------------------------------------------------------------------


def _run_node(node: Node, work: Work, plan: Plan, data: Path, progress: Progress) -> None:
    """Finish the rows of one node; nothing to do where an earlier stage failed."""
    if node.after is not None and node.after.failed:
        node.failed = True
        return
    ids = [query.id for query in work.asked]
    rows = RowFile(node.rows)
    rows.repair(ids)
    if not all(map(rows.good, ids)):
        _fill(rows, node, work, plan, data, progress)
    rows.order(ids)


def _fill(
    rows: RowFile, node: Node, work: Work, plan: Plan, data: Path, progress: Progress
) -> None:
    """Ask what is missing or errored, batch by batch."""
    station = _open(node, work, plan, data, progress)
    batches = list(_batches(work.asked, plan.batch_size))
    independent = getattr(station.system, "independent", False)
    if not independent:
        rows.repair((), _partial(rows, batches))
    _save_parts(node)
    before = RowFile(node.after.rows) if node.after else None
    done = sum(query.id in rows for query in work.asked)
    try:
        with progress(f"{work.job}: {node.pipeline}", len(work.asked), done) as advance:
            for batch in batches:
                if wanted := [query for query in batch if query.id not in rows]:
                    earlier = before.read([query.id for query in wanted]) if before else None
                    rows.append(station.rows(wanted, earlier), station.label)
                    advance(len(wanted))
    finally:
        rows.close()
        close_system(station.system, node.pipeline.stages[-1].system)


def _batches(queries: Sequence[Query], size: int) -> Iterator[Sequence[Query]]:
    """Batches at fixed places, so that a resumed run computes the very batches it would have."""
    return (queries[start : start + size] for start in range(0, len(queries), size))


def _partial(rows: RowFile, batches: Sequence[Sequence[Query]]) -> list[str]:
    """The questions of batches that are not whole: they are asked again together, so that a
    resumed or enlarged run has the very rows that it would have had at once."""
    return [
        query.id
        for batch in batches
        if not all(rows.good(query.id) for query in batch)
        for query in batch
    ]


def _save_parts(node: Node) -> None:
    node.folder.mkdir(parents=True, exist_ok=True)
    place = node.folder / "stage.json"
    if not place.exists():
        part = place.with_suffix(".part")
        part.write_text(json.dumps(dict(node.parts), indent=1) + "\n", encoding="utf-8")
        part.replace(place)


def _open(node: Node, work: Work, plan: Plan, data: Path, progress: Progress) -> Station:
    """The node's last stage, indexed and open."""
    stage, corpus = node.pipeline.stages[-1], work.questions.corpus
    system = registry.create("systems", stage.system)
    if hasattr(system, "external"):
        translated = translate(system.external(), work.job.folder, corpus)
        return Station(str(stage.system), system, corpus, stage.depth, translated)
    hand_rankings(system, work.job.folder, corpus)
    brief = brief_of(work, plan)
    indexes = indexes_of(work.job, data)
    index = build_index(system, stage.system, corpus, indexes, brief, progress)
    open_system(system, stage.system, corpus, index, brief)
    return Station(str(stage.system), system, corpus, stage.depth)


def brief_of(work: Work, plan: Plan) -> Brief:
    """What every stage of a job is told."""
    return Brief(
        instruction=work.questions.instruction,
        max_new_tokens=work.job.task.max_new_tokens,
        seed=plan.seed,
        device=plan.device,
        dtype=plan.dtype,
    )


def indexes_of(job: Job, data: Path) -> Path:
    """The folder of all indexes of a job's corpus."""
    return data / "indexes" / str(read_about(job.folder)["corpus"])


def errored(folder: Path, plan: Plan) -> dict[str, str]:
    """Pipelines with errors among the questions that the plan asks: how many, and the first."""
    found: dict[str, str] = {}
    entries = read_manifest(folder)["pipelines"]
    for job in plan.jobs:
        every = [row["id"] for row in read_lines(job.folder / "queries.jsonl")]
        ids = sample(every, plan.limit, plan.seed)
        for entry in entries:
            place = (str(job.spelled), job.split, job.setting)
            ours = entry["system"] in map(str, plan.pipelines)
            if place != (entry["task"], entry["split"], entry["setting"]) or not ours:
                continue
            rows = (row for _, row in asked_rows(folder / entry["rows"], ids))
            errors = [row.error for row in rows if row is not None and row.error]
            if errors:
                name = f"{entry['task']} {entry['system']}"
                found[name] = f"{len(errors)} errors, first: {errors[0]}"
    return found

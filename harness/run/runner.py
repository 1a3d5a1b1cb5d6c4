"""Running a plan: every pipeline over every task, one row a question, resumable at any moment.

    RUN/manifest.json                          what was asked, with which versions
    RUN/<task>/<pipeline>-<key>/rows.jsonl     one row a question
                                stage.json     everything its key was made of

A folder stands for a pipeline or for the first stages of one, so that pipelines which begin
alike share that work. Running again finishes what is missing or errored and leaves whole files
alone; when anything a stage depends on changes, so does its key, and it starts a folder anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import Any

from harness import manifest, registry
from harness.contract import System
from harness.data import Brief, HarnessError, Hit, Query, Questions, Reply
from harness.prepare import DATA, native_documents, native_queries, open_questions
from harness.run.plan import Job, Plan
from harness.run.progress import Advance, Progress, silent
from harness.run.stages import Station
from harness.run.store import RowFile, one_writer, read_rows
from harness.spelling import Pipeline, Stage

RUNS = Path("results/runs")


@dataclass
class Node:
    """The first stages of one or more pipelines: its key, its folder, whether it is one itself."""

    pipeline: Pipeline
    key: str
    parts: Mapping[str, Any]
    folder: Path
    asked: bool = False
    after: Node | None = None
    errors: int = 0


@dataclass
class Table:
    """The nodes of one job, and the questions they answer."""

    job: Job
    questions: Questions
    nodes: dict[str, Node] = field(default_factory=dict)


def run(
    plan: Plan, out: Path | None = None, data: Path = DATA, progress: Progress = silent
) -> Path:
    """Carry out a plan; returns the run's folder. Gold is never opened.

    out: the run's folder; by default one under ``results/runs`` named after the plan
    """
    folder = out or RUNS / _name(plan)
    try:
        with one_writer(folder):
            tables = [_table(job, plan, folder) for job in plan.jobs]
            _write_manifest(folder, plan, tables)
            for table in tables:
                for node in table.nodes.values():
                    _run_node(node, table, plan, data, progress)
    except OSError as error:
        raise HarnessError(
            f"cannot write {error.filename or folder}: {error.strerror or error}.",
            "Free some room or mend it, then run the same command: finished rows are kept.",
        ) from error
    return folder


def sampled(questions: Questions, limit: int | None, seed: int) -> tuple[Query, ...]:
    """``limit`` questions in an order drawn from the seed: smaller limits are its beginnings."""
    ordered = sorted(
        questions.queries, key=lambda q: blake2b(f"{seed} {q.id}".encode(), digest_size=8).digest()
    )
    return tuple(ordered[:limit])


def _name(plan: Plan) -> str:
    names = {job.spelled.name for job in plan.jobs}
    first = names.pop() if len(names) == 1 else f"{len(names)}-tasks"
    return f"{first}-{manifest.digest(_asked(plan))}"


def _asked(plan: Plan) -> dict[str, Any]:
    return {
        "tasks": [
            {"task": str(job.spelled.canonical), "split": job.split, "setting": job.setting}
            for job in plan.jobs
        ],
        "systems": [str(pipeline.canonical) for pipeline in plan.pipelines],
        "limit": plan.limit,
        "seed": plan.seed,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch_size": plan.batch_size,
    }


def _table(job: Job, plan: Plan, folder: Path) -> Table:
    """The distinct first-stages of all pipelines for one job, in an order that can be run."""
    questions = open_questions(job.folder, job.task, job.setting)
    table = Table(job, questions)
    place = f"{job.spelled}.{job.split}.{job.setting}"
    for pipeline in plan.pipelines:
        after: Node | None = None
        for end in range(1, len(pipeline.stages) + 1):
            prefix = Pipeline(pipeline.stages[:end])
            node = table.nodes.get(str(prefix.canonical))
            if node is None:
                parts = _parts(prefix.stages[-1], questions, job, plan, after)
                key = manifest.stage_key(parts)
                home = folder / _safe(place) / f"{_safe(str(prefix))}-{key[:8]}"
                node = Node(prefix, key, parts, home, after=after)
                table.nodes[str(prefix.canonical)] = node
            after = node
        if after is not None:
            after.asked = True
    return table


def _safe(text: str) -> str:
    """A readable file name (the key behind it keeps it unique)."""
    return re.sub(r"[^A-Za-z0-9.,=@+-]+", "_", text)[:80]


def _parts(
    stage: Stage, questions: Questions, job: Job, plan: Plan, after: Node | None
) -> dict[str, Any]:
    """Everything the rows of a stage depend on."""
    system = registry.create("systems", stage.system)
    files = system.files() if hasattr(system, "files") else ()
    return {
        "fingerprint": questions.fingerprint,
        "setting": job.setting,
        "stage": str(stage.canonical),
        "after": after.key if after else None,
        "instruction": questions.instruction,
        "max_new_tokens": job.task.max_new_tokens,
        "seed": plan.seed,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch_size": plan.batch_size,
        "files": [manifest.file_hash(Path(path)) for path in files],
        "sources": manifest.sources(type(system).__module__, manifest.RUNNER),
        "versions": manifest.versions(),
    }


def _write_manifest(folder: Path, plan: Plan, tables: Sequence[Table]) -> None:
    """Add this plan's pipelines to the run's manifest; write only if something changed."""
    path = folder / "manifest.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"pipelines": []}
    entries = {(e["task"], e["split"], e["setting"], e["system"]): e for e in old["pipelines"]}
    for table in tables:
        job = table.job
        for node in table.nodes.values():
            if not node.asked:
                continue
            entry = {
                "task": str(job.spelled),
                "split": job.split,
                "setting": job.setting,
                "system": str(node.pipeline),
                "generated": job.task.generated,
                "metrics": list(job.task.metrics),
                "ranks": _produces(node.pipeline, "ranks", "retrieve", "solve"),
                "answers": _produces(node.pipeline, "answers", "answer", "solve"),
                "fingerprint": table.questions.fingerprint,
                "data": str(job.folder),
                "limit": plan.limit,
                "seed": plan.seed,
                "questions": len(sampled(table.questions, plan.limit, plan.seed)),
                "key": node.key,
                "rows": str((node.folder / "rows.jsonl").relative_to(folder)),
            }
            entries[(entry["task"], job.split, job.setting, entry["system"])] = entry
    new = {"format": 1, "environment": manifest.environment(), "pipelines": [*entries.values()]}
    if new != old:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)


def _produces(pipeline: Pipeline, said: str, *methods: str) -> bool:
    """Whether some stage has one of the methods, or says so itself (results from outside)."""
    classes = [registry.find("systems", stage.system.name) for stage in pipeline.stages]
    return any(
        getattr(cls, said, False) or set(methods) & set(registry.capabilities(cls))
        for cls in classes
    )


def _run_node(node: Node, table: Table, plan: Plan, data: Path, progress: Progress) -> None:
    """Finish the rows of one node."""
    queries = sampled(table.questions, plan.limit, plan.seed)
    path = node.folder / "rows.jsonl"
    rows = RowFile(path)
    rows.repair()
    missing = [query.id for query in queries if query.id not in rows]
    if not missing:
        return
    node.folder.mkdir(parents=True, exist_ok=True)
    (node.folder / "stage.json").write_text(json.dumps(dict(node.parts), indent=1) + "\n")
    label = f"{table.job.spelled.name} {node.pipeline}"
    station = _open(node, table, plan, data, progress)
    before = RowFile(node.after.folder / "rows.jsonl") if node.after else None
    try:
        with progress(label, len(queries), len(queries) - len(missing)) as advance:
            for batch in _batches(queries, plan.batch_size):
                wanted = [query.id for query in batch if query.id not in rows]
                if not wanted:
                    continue
                earlier = before.read([query.id for query in batch]) if before else None
                made = station.rows(batch, earlier)
                rows.append([row for row in made if row.id in wanted])
                advance(len(wanted))
        rows.order([query.id for query in queries])
    finally:
        rows.close()
        if hasattr(station.system, "close"):
            station.system.close()


def _batches(queries: Sequence[Query], size: int) -> Iterator[Sequence[Query]]:
    """Batches at fixed places, so that a resumed run computes the very batches it would have."""
    return (queries[start : start + size] for start in range(0, len(queries), size))


def _open(node: Node, table: Table, plan: Plan, data: Path, progress: Progress) -> Station:
    """The node's last stage, indexed and open."""
    stage = node.pipeline.stages[-1]
    system: System = registry.create("systems", stage.system)
    corpus = table.questions.corpus
    label = str(stage.system)
    if hasattr(system, "external"):
        translated = _translate(system.external(), table)
        return Station(label, system, corpus, stage.depth, translated)
    brief = Brief(
        instruction=table.questions.instruction,
        max_new_tokens=table.job.task.max_new_tokens,
        seed=plan.seed,
        device=plan.device,
        dtype=plan.dtype,
    )
    index = None
    if hasattr(system, "build"):
        index = _indexed(system, node, table, brief, data, progress)
    if hasattr(system, "open"):
        system.open(corpus, index, brief)
    return Station(label, system, corpus, stage.depth)


def _indexed(
    system: System, node: Node, table: Table, brief: Brief, data: Path, progress: Progress
) -> Path:
    """The folder of the system's index of this corpus, built once and renamed when whole."""
    stage = node.pipeline.stages[-1]
    parts = {name: node.parts[name] for name in ("files", "versions", "dtype", "device")}
    parts["sources"] = manifest.sources(type(system).__module__)
    corpus = json.loads((table.job.folder / "about.json").read_text(encoding="utf-8"))["corpus"]
    key = manifest.digest({**parts, "corpus": corpus, "system": str(stage.system.canonical)})
    place = data / "indexes" / key
    if not place.exists():
        work = place.with_name(f"{key}.{os.getpid()}.part")
        rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            with progress(f"{stage.system}: index", len(table.questions.corpus), 0) as advance:
                system.on_progress = _steps(advance)
                system.build(table.questions.corpus, work, brief)
            work.replace(place)
        finally:
            rmtree(work, ignore_errors=True)
    return place


def _steps(advance: Advance) -> Callable[[int, int], None]:
    """What a system calls with how much is done so far."""
    before = 0

    def told(done: int, _: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return told


def _translate(outside: Mapping[str, Reply], table: Table) -> dict[str, Reply]:
    """Results from outside, from native ids to ours."""
    folder, corpus = table.job.folder, table.questions.corpus
    queries = native_queries(folder)
    ours = {queries[native]: reply for native, reply in outside.items() if native in queries}
    if not ours:
        example = next(iter(outside), "")
        raise HarnessError(
            f"the file knows none of the questions of {table.job.spelled} (it has {example!r}).",
            "Check that it belongs to this task and split.",
        )
    wanted = {hit.id for reply in ours.values() for hit in reply.hits}
    documents = native_documents(folder, corpus, wanted)
    strange = sorted(wanted - documents.keys())
    unknown = [d for d, place in zip(strange, corpus.positions(strange), strict=True) if place < 0]
    if unknown:
        raise HarnessError(
            f"the file ranks {len(unknown)} documents that the corpus does not have "
            f"(such as {unknown[0]!r}).",
            "Check that it belongs to this task's corpus.",
        )
    return {query_id: _in_our_ids(reply, documents) for query_id, reply in ours.items()}


def _in_our_ids(reply: Reply, documents: Mapping[str, str]) -> Reply:
    hits = (Hit(documents.get(hit.id, hit.id), hit.score) for hit in reply.hits)
    return Reply(reply.answer, tuple(sorted(hits, key=lambda hit: (-hit.score, hit.id))), reply.raw)


def errored(folder: Path) -> dict[str, str]:
    """Pipelines of a run with errored rows: how many, and the first error."""
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["pipelines"]
    found: dict[str, str] = {}
    for entry in entries:
        errors = [row.error for row in read_rows(folder / entry["rows"]) if row.error]
        if errors:
            found[f"{entry['task']} {entry['system']}"] = (
                f"{len(errors)} errors, first: {errors[0]}"
            )
    return found

"""Running a plan: every pipeline over every task, one row a question, resumable at any moment.

    RUN/manifest.json                          what was asked, how and where (`harness.provenance`)
    RUN/<task>/<pipeline>-<key>/rows.jsonl     one row a question
                                stage.json     everything its key was made of
    RUN/shown/<task>/…                         the same of train questions, for demonstrations

A folder stands for a pipeline or for the first stages of one, so that pipelines which begin
alike share that work. Running again finishes what is missing or errored and leaves whole files
alone; when anything a stage depends on changes, so does its key, and it starts a folder anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness import manifest, registry
from harness.canonical import read_gold, read_lines, sample
from harness.data import DATA, Brief, Example, HarnessError, Mistakes, Query, Row
from harness.run.external import hand_rankings, translate
from harness.run.indexes import build_index, close_system, open_system
from harness.run.plan import Plan
from harness.run.progress import Progress, silent
from harness.run.sessions import recorded
from harness.run.shown import checked, drawn, example_of, usable
from harness.run.stages import Station
from harness.run.store import RowFile, asked_rows, one_writer
from harness.run.work import RUNS, Node, Shown, Work, alone, indexes_of, run_name, work_of
from harness.score.results import read_manifest


def run(
    plan: Plan,
    out: Path | None = None,
    data: Path = DATA,
    progress: Progress = silent,
    argv: Sequence[str] | None = None,
) -> Path:
    """Carry out a plan; returns the run's folder. Gold of what is asked is never opened.

    out:  the run's folder; by default one under ``results/runs`` named after the plan
    argv: the command as it was typed, to be noted
    A stage that cannot be started leaves the other pipelines alone and is told at the end.
    """
    folder = out or RUNS / run_name(plan)
    failures: list[HarnessError] = []
    try:
        with one_writer(folder):
            works = [work_of(job, plan, folder) for job in plan.jobs]
            with recorded(folder, plan, works, argv) as begin:
                for work in works:
                    for node in work.nodes.values():
                        try:
                            _run_node(node, work, plan, data, progress, begin)
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


# --- demonstrations -------------------------------------------------------------------


def _demonstrations(
    node: Node, work: Work, plan: Plan, data: Path, progress: Progress
) -> tuple[Example, ...]:
    """What a stage is shown; the only place of a run that opens gold, and that of the train split
    alone. `HarnessError` if there is too little of it or it asks what is evaluated."""
    if node.shown is None:
        return ()
    shown, train = node.shown, node.shown.train
    gold = read_gold(train.job.folder)
    asked = drawn(train.questions.queries, gold, shown.count, plan.seed)
    texts = {query.id: query.text for query in asked}
    corpus, told = train.questions.corpus, train.questions.instruction
    try:
        examples = [
            example_of(texts[row.id], row.hits, gold[row.id], corpus, told, shown.reads)
            for row in _retrieved(shown, asked, plan, data, progress)
        ]
        return checked(examples, shown.count, work.questions.queries)
    except HarnessError as error:
        raise HarnessError(
            f"{node.pipeline} on {work.job.spelled}: {error.message}", error.hint
        ) from error


def _retrieved(
    shown: Shown, asked: tuple[Query, ...], plan: Plan, data: Path, progress: Progress
) -> list[Row]:
    """What the stages before retrieve for the train questions that are shown."""
    if shown.after is None:
        return [Row(query.id) for query in asked[: shown.count]]
    for each in shown.after.chain:
        _run_node(each, replace(shown.train, asked=asked), alone(plan), data, progress)
    rows = RowFile(shown.after.rows).read([query.id for query in asked])
    return usable(rows, shown.count)


# --- one node -------------------------------------------------------------------------


def _run_node(
    node: Node,
    work: Work,
    plan: Plan,
    data: Path,
    progress: Progress,
    begin: Callable[[], None] = lambda: None,
) -> None:
    """Finish the rows of one node; nothing to do where an earlier stage failed.

    begin: called before anything is asked
    """
    if node.after is not None and node.after.failed:
        node.failed = True
        return
    ids = [query.id for query in work.asked]
    rows = RowFile(node.rows)
    rows.repair(ids)
    if not all(map(rows.good, ids)):
        begin()
        _fill(rows, node, work, plan, data, progress)
    rows.order(ids)
    node.errors = sum(not rows.good(query_id) for query_id in ids)


def _fill(
    rows: RowFile, node: Node, work: Work, plan: Plan, data: Path, progress: Progress
) -> None:
    """Ask what is missing or errored, batch by batch."""
    brief = brief_of(node, work, plan, data, progress)
    station = _open(node, work, brief, data, progress)
    batches = list(_batches(work.asked, plan.batch_size))
    independent = getattr(station.system, "independent", False)
    if not independent:
        rows.repair((), _partial(rows, batches))
    _save_parts(node, brief)
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


def _save_parts(node: Node, brief: Brief) -> None:
    """Write what the key was made of, and the digest of each demonstration's question."""
    digests = [manifest.digest(each.question) for each in brief.examples]
    parts = {**node.parts, **({"demonstrations": digests} if digests else {})}
    node.folder.mkdir(parents=True, exist_ok=True)
    place = node.folder / "stage.json"
    if not place.exists():
        part = place.with_suffix(".part")
        part.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
        part.replace(place)


def _open(node: Node, work: Work, brief: Brief, data: Path, progress: Progress) -> Station:
    """The node's last stage, indexed and open."""
    stage, corpus = node.pipeline.stages[-1], work.questions.corpus
    system = registry.create("systems", stage.system)
    if hasattr(system, "external"):
        translated = translate(system.external(), work.job.folder, corpus)
        return Station(str(stage.system), system, corpus, stage.depth, translated)
    hand_rankings(system, work.job.folder, corpus)
    indexes = indexes_of(work.job, data)
    index = build_index(system, stage.system, corpus, indexes, brief, progress)
    open_system(system, stage.system, corpus, index, brief)
    return Station(str(stage.system), system, corpus, stage.depth)


def brief_of(node: Node, work: Work, plan: Plan, data: Path, progress: Progress) -> Brief:
    """What the last stage of a node is told; its demonstrations are drawn, and what the stages
    before retrieve for them is kept in the run's folder."""
    return Brief(
        instruction=work.questions.instruction,
        examples=_demonstrations(node, work, plan, data, progress),
        max_new_tokens=work.job.task.max_new_tokens,
        seed=plan.seed,
        device=plan.device,
        dtype=plan.dtype,
    )


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

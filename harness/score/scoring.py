"""From rows and gold to scores: one line a question and pipeline, by metric.

Exactly the questions that a run was asked are scored: one without a row scores 0 like one that
failed. ``state`` is empty, ``error``, ``missing`` (not asked yet, or not in a file from outside),
``length`` (cut off) or ``abstained``. What is written where: `harness.score.results`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from harness import manifest, registry
from harness.canonical import open_corpus, read_gold, read_lines, sample
from harness.contract import Task
from harness.corpus import Corpus
from harness.data import Answer, Document, Gold, HarnessError, Row
from harness.prepare import slug
from harness.run.store import asked_rows
from harness.score import ranking
from harness.score.outputs import is_output, score_output
from harness.score.results import CEILING, FLOOR, Sample, present, read_manifest
from harness.spelling import parse_spelled

T = TypeVar("T")
BEHIND = ("ir-measures", "pytrec-eval-terrier", "numpy")
"""Packages that scores are computed with."""
CHUNK = 250
"""Questions whose rankings are in memory at a time: 0.15 GB at 1,000 hits each."""


@dataclass(frozen=True)
class Reference:
    """What the pipelines of one table are scored against.

    ids:    the questions that were asked, in order; each has its gold
    pools:  the closed candidates by question; empty where the whole corpus is ranked
    ranked: the ranking metrics, as ir-measures spells them
    outputs: further metrics of what was written, see `harness.score.outputs`
    """

    task: Task
    ids: tuple[str, ...]
    golds: Mapping[str, Gold]
    corpus: Corpus
    pools: Mapping[str, tuple[str, ...]]
    ranked: tuple[str, ...]
    outputs: tuple[str, ...] = ()


class Given(NamedTuple):
    """What a pipeline gives at all: a question without it scores 0 there; no column otherwise."""

    ranking: bool
    answers: bool = False
    evidence: bool = False
    triples: bool = False


def score(folder: Path | str, metrics: Sequence[str] = (), data: Path | str | None = None) -> Path:
    """Score a run: write its ``scores.jsonl`` and ``scores.json``; returns the run's folder.

    metrics: further ones: ranking metrics as ir-measures spells them, or those of
             `harness.score.outputs`
    data:    where prepared data is kept, if it is not where it was when the run was made
    Needs the prepared data that was run. Raises `HarnessError` for metrics that cannot be
    computed, data that is not there and rows that cannot be read.
    """
    folder = Path(folder)
    ranking.check_measures(metrics)
    entries: dict[Sample, list[dict[str, Any]]] = {}
    for entry in read_manifest(folder)["pipelines"]:
        entries.setdefault(Sample.of(entry), []).append(entry)
    try:
        _write(folder, entries, metrics, data)
    except OSError as error:
        with suppress(OSError):
            (folder / "scores.part").unlink(missing_ok=True)
        raise HarnessError(
            f"cannot score {folder}: {error.strerror or error}.",
            "Mend that and score again; the rows are as they were.",
        ) from error
    return folder


def _write(
    folder: Path,
    tables: Mapping[Sample, list[dict[str, Any]]],
    metrics: Sequence[str],
    home: Path | str | None,
) -> None:
    """Write both files; scores.json last, so that it never vouches for half a scores.jsonl."""
    now = present(folder)
    part, index = folder / "scores.part", folder / "scores.json"
    heads: list[dict[str, Any]] = []
    with part.open("w", encoding="utf-8") as file:
        for asked, entries in tables.items():
            against = _reference(entries[-1], metrics, home)
            heads.append(
                {
                    **asked._asdict(),
                    "sample": asked.digest,
                    "questions": len(against.ids),
                    "generated": entries[-1]["generated"],
                    "answer_metrics": (*against.task.answer_metrics, *against.outputs),
                    "ranking_metrics": against.ranked,
                    "systems": now[asked.digest],
                    "lines": 0,
                }
            )
            head = {name: heads[-1][name] for name in ("task", "split", "setting", "sample")}
            for line in _score_table(folder, entries, against):
                file.write(json.dumps({**head, **line}, ensure_ascii=False) + "\n")
                heads[-1]["lines"] += 1
    index.unlink(missing_ok=True)
    part.replace(folder / "scores.jsonl")
    told = {"scorer": scorer(), "tables": heads}
    part.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(index)


def scorer() -> dict[str, Any]:
    """What computes scores: a hash of the modules beside this one, and the packages behind them."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    versions = {}
    for name in BEHIND:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    hashes = [(each.name, manifest.file_hash(each)) for each in modules]
    return {"sources": manifest.digest(hashes), "versions": versions}


# --- what is scored against what ------------------------------------------------------


def data_of(entry: Mapping[str, Any], file: str, home: Path | str | None = None) -> Path:
    """The prepared data that a manifest's entry was run on, where it was then or under ``home``; it
    must be there, with this file."""
    data = Path(entry["data"])
    places = [data] if data.name == entry["fingerprint"] else []
    if home is not None:
        places.append(Path(home) / slug(parse_spelled(entry["task"])) / entry["fingerprint"])
    for place in places:
        if (place / file).exists():
            return place
    elsewhere = "" if home is None else f", nor under {home}"
    raise HarnessError(
        f"the data of {entry['task']} ({entry['split']}) is not at {data}{elsewhere}.",
        "This needs the very data that was run; prepare it again: "
        f"`python -m harness prepare {entry['task']} --split {entry['split']}`.",
    )


def _reference(
    entry: Mapping[str, Any], extra: Sequence[str], home: Path | str | None
) -> Reference:
    """Load what the pipelines that share this entry's sample are scored against."""
    data = data_of(entry, "gold.jsonl", home)
    task = registry.task(parse_spelled(entry["task"]))
    outputs = tuple(dict.fromkeys(filter(is_output, extra)))
    further = (name for name in extra if name not in outputs)
    measures = (ranking.measure(name, task.rel) for name in (*task.ranking_metrics, *further))
    ranked = tuple(dict.fromkeys(map(str, measures)))
    _keep_apart(task, task.answer_metrics, ranked)
    pools = {row["id"]: row.get("pool") for row in read_lines(data / "queries.jsonl")}
    ids = tuple(sample(pools, entry["limit"], entry["seed"]))
    golds = read_gold(data)
    without = [query_id for query_id in ids if query_id not in golds]
    if without:
        raise HarnessError(
            f"{data / 'gold.jsonl'} has no line for the question {without[0]}.",
            f"Prepare {entry['task']} again.",
        )
    if entry["setting"] != "pool":
        pools.clear()
    return Reference(
        task,
        ids,
        {query_id: golds[query_id] for query_id in ids},
        open_corpus(data),
        {query_id: tuple(pool) for query_id in ids if (pool := pools.get(query_id)) is not None},
        ranked,
        outputs,
    )


def _keep_apart(task: Task, answers: Iterable[str], ranked: Iterable[str]) -> None:
    """Refuse one name for two metrics: a column would hold both."""
    both = sorted(set(answers) & set(ranked))
    if both:
        raise HarnessError(
            f"{both[0]} is an answer metric of {task.name} and a ranking metric.",
            "Rename the answer metric, or do not ask for the ranking metric.",
        )


def given(path: Path, entry: Mapping[str, Any], ids: Sequence[str]) -> Given:
    """What the pipeline gives, from its rows.

    One that solves questions at once may never rank; evidence and triples are up to the system.
    """
    if not entry["answers"]:
        return Given(entry["ranks"])
    well = hits = evidence = triples = False
    for _, row in asked_rows(path, ids):
        if row is None or row.error:
            continue
        well = True
        hits = hits or bool(row.hits)
        if row.answer is not None:
            evidence = evidence or row.answer.evidence is not None
            triples = triples or row.answer.triples is not None
    return Given(entry["ranks"] and (hits or not well), True, evidence, triples)


# --- scores ---------------------------------------------------------------------------


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    stream = iter(items)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def _score_table(
    folder: Path, entries: Sequence[Mapping[str, Any]], against: Reference
) -> Iterator[dict[str, Any]]:
    """The lines of every pipeline, then those of floor and ceiling if some pipeline ranks."""
    ranks = False
    for entry in entries:
        path = folder / entry["rows"]
        gives = given(path, entry, against.ids)
        ranks = ranks or gives.ranking
        for rows in _chunks(asked_rows(path, against.ids)):
            yield from _score_rows(entry["system"], rows, gives, against)
    if ranks:
        for ids in _chunks(against.ids):
            yield from _bounds(ids, against)


def _score_rows(
    system: str, rows: Sequence[tuple[str, Row | None]], given: Given, against: Reference
) -> Iterator[dict[str, Any]]:
    """Scores question by question; no column for what the pipeline does not give."""
    found: dict[str, dict[str, float]] = {}
    if given.ranking:
        rankings = {i: [hit.id for hit in row.hits] for i, row in rows if row and not row.error}
        found = _ranking_scores(rankings, [query_id for query_id, _ in rows], against)
    for query_id, row in rows:
        answers: dict[str, float] = {}
        if given.answers:
            answers = _answer_scores(row, against.golds[query_id], given, against)
            _keep_apart(against.task, answers, against.ranked)
        metrics = {**answers, **found.get(query_id, {})}
        yield _line(system, query_id, against, metrics, _state(row))


def _line(
    system: str,
    query_id: str,
    against: Reference,
    metrics: Mapping[str, float],
    state: str = "",
) -> dict[str, Any]:
    gold = against.golds[query_id]
    return {
        "system": system,
        "id": query_id,
        "group": gold.group,
        "gold": gold.kind,
        "state": state,
        "metrics": dict(metrics),
    }


def _state(row: Row | None) -> str:
    if row is None:
        return "missing"
    if row.error:
        return "error"
    if row.stop == "length":
        return "length"
    answer = row.answer
    return "abstained" if answer and (answer.answerable is False or not answer.text) else ""


def _ranking_scores(
    rankings: Mapping[str, Sequence[str]], ids: Sequence[str], against: Reference
) -> dict[str, dict[str, float]]:
    """Ranking metrics of those questions that have relevance judgements."""
    judged = {i: gold.relevance for i in ids if (gold := against.golds[i]).relevance}
    return ranking.evaluate(rankings, judged, against.ranked, against.task.rel)


def _answer_scores(
    row: Row | None, gold: Gold, given: Given, against: Reference
) -> dict[str, float]:
    """Answer metrics of one question.

    A system that gives evidence (or triples) for some questions is held to give none for the
    others; an errored or missing answer scores 0 in all that its gold could fill.
    """
    told = row.answer if row is not None and not row.error else None
    answer = told or Answer("")
    if given.evidence and answer.evidence is None:
        answer = replace(answer, evidence=())
    if given.triples and answer.triples is None:
        answer = replace(answer, triples=())
    support = support_of(answer, against.corpus.__getitem__)
    values = {**against.task.score(answer, support, gold)}
    for name in against.outputs:
        value = score_output(name, answer, row.raw if row else "", gold, against.task.rel)
        if value is not None:
            values[name] = value
    return values if told is not None else dict.fromkeys(values, 0.0)


def support_of(
    answer: Answer, document: Callable[[str], Document]
) -> tuple[tuple[str, int], ...] | None:
    """Evidence as (title, sentence), as the official scripts compare it; spans by sentence."""
    if answer.evidence is None:
        return None
    found: list[tuple[str, int]] = []
    for evidence in answer.evidence:
        try:
            source = document(evidence.doc_id)
        except KeyError:
            found.append(("", -1))
            continue
        if evidence.sentence is not None:
            found.append((source.title, evidence.sentence))
        elif evidence.span is not None:
            found.extend((source.title, n) for n in _sentences_in(source, *evidence.span))
    return tuple(found)


def _sentences_in(document: Document, start: int, end: int) -> Iterator[int]:
    begin = 0
    for number, sentence in enumerate(document.sentences):
        if begin < end and start < begin + len(sentence):
            yield number
        begin += len(sentence)


def _bounds(ids: Sequence[str], against: Reference) -> Iterator[dict[str, Any]]:
    """Floor and ceiling of the ranking metrics."""
    best: dict[str, list[str]] = {}
    for query_id in ids:
        grades = against.golds[query_id].relevance
        if not grades:
            continue
        reachable, n = _reachable(query_id, against)
        best[query_id] = ranking.ideal(grades, list(reachable))
        low = ranking.floors(grades, reachable, n, against.ranked, against.task.rel)
        yield _line(FLOOR, query_id, against, low)
    for query_id, metrics in _ranking_scores(best, list(best), against).items():
        yield _line(CEILING, query_id, against, metrics)


def _reachable(query_id: str, against: Reference) -> tuple[dict[str, int], int]:
    """The judged documents that can be ranked, with their grades, among how many."""
    grades = against.golds[query_id].relevance
    pool = against.pools.get(query_id)
    if pool is None:
        places = against.corpus.positions(list(grades))
        inside = {d for d, place in zip(grades, places, strict=True) if place >= 0}
    else:
        inside = set(pool)
    n = len(against.corpus if pool is None else pool)
    return {doc_id: grade for doc_id, grade in grades.items() if doc_id in inside}, n

"""From rows and gold to scores: one line a question and pipeline, by metric.

    {"task":…,"split":…,"setting":…,"system":…,"id":…,"group":…,"gold":…,"state":…,"metrics":{…}}

``state`` is empty, ``error``, ``length`` (cut off) or ``abstained``. Two systems that nobody ran
stand beside the others: `FLOOR` and `CEILING`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.contract import Task
from harness.corpus import Corpus
from harness.data import Answer, Document, Gold, HarnessError, Row
from harness.prepare import open_corpus, read_gold
from harness.run.store import read_rows
from harness.score import ranking
from harness.spelling import parse_spelled

FLOOR = "(floor: random order, closed form)"
CEILING = "(ceiling: ideal ranking)"


@dataclass(frozen=True)
class Scored:
    """What score knows of one task, split and setting while it scores its pipelines."""

    task: Task
    golds: dict[str, Gold]
    corpus: Corpus
    pools: dict[str, tuple[str, ...]] | None
    ranked: tuple[str, ...]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run; `HarnessError` if the folder is not a run."""
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        manifest: dict[str, Any] = json.loads(text)
    except (OSError, json.JSONDecodeError) as error:
        raise HarnessError(
            f"{folder} is not the folder of a run ({error}).", "Give the folder that run printed."
        ) from None
    return manifest


def score(folder: Path | str, metrics: Sequence[str] = ()) -> Path:
    """Score a run; writes and returns its ``scores.jsonl``. Needs the prepared data.

    metrics: further ranking metrics, as ir-measures spells them
    """
    folder = Path(folder)
    ranking.check_measures(metrics)
    tables: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in read_manifest(folder)["pipelines"]:
        tables.setdefault((entry["task"], entry["split"], entry["setting"]), []).append(entry)
    part = folder / "scores.part"
    with part.open("w", encoding="utf-8") as file:
        for (task, split, setting), entries in tables.items():
            head = {"task": task, "split": split, "setting": setting}
            for line in _score_table(folder, entries, tuple(metrics)):
                file.write(json.dumps({**head, **line}, ensure_ascii=False) + "\n")
    place = folder / "scores.jsonl"
    part.replace(place)
    return place


def _score_table(
    folder: Path, entries: list[dict[str, Any]], extra: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    asked: dict[str, None] = {}
    for entry in entries:
        scored = _load(entry, extra)
        rows = {row.id: row for row in read_rows(folder / entry["rows"])}
        ids = [query_id for query_id in rows if query_id in scored.golds]
        asked |= dict.fromkeys(ids)
        yield from _score_rows(entry, [rows[query_id] for query_id in ids], scored)
    golds = {query_id: scored.golds[query_id] for query_id in asked}
    yield from _bounds(golds, scored)


def _load(entry: Mapping[str, Any], extra: tuple[str, ...]) -> Scored:
    data = Path(entry["data"])
    if data.name != entry["fingerprint"] or not (data / "gold.jsonl").exists():
        raise HarnessError(
            f"the data of {entry['task']} ({entry['split']}) is not at {data}.",
            "Scores need the very data that was run; prepare it again: "
            f"`python -m harness prepare {entry['task']} --split {entry['split']}`.",
        )
    task = registry.task(parse_spelled(entry["task"]))
    pools = None
    if entry["setting"] == "pool":
        rows = map(json.loads, (data / "queries.jsonl").read_text(encoding="utf-8").splitlines())
        pools = {row["id"]: tuple(row["pool"]) for row in rows if "pool" in row}
    named = tuple(dict.fromkeys((*_ranking_metrics(task), *extra)))
    return Scored(task, read_gold(data), open_corpus(data), pools, named)


def _ranking_metrics(task: Task) -> list[str]:
    """Those of a task's metrics that judge rankings; the rest comes from its scorer."""
    found = []
    for name in task.metrics:
        try:
            ranking.measure(name)
        except HarnessError:
            continue
        found.append(name)
    return found


def _score_rows(
    entry: Mapping[str, Any], rows: list[Row], scored: Scored
) -> Iterator[dict[str, Any]]:
    """Scores of one pipeline, question by question; no column for what it does not produce."""
    answers = _answer_scores(rows, scored) if entry["answers"] else {}
    judged = {row.id: g.relevance for row in rows if (g := scored.golds[row.id]).relevance}
    rankings = {row.id: [hit.id for hit in row.hits] for row in rows if not row.error}
    found = (
        ranking.evaluate(rankings, judged, scored.ranked, scored.task.rel) if entry["ranks"] else {}
    )
    for row in rows:
        gold = scored.golds[row.id]
        metrics = {**answers.get(row.id, {}), **found.get(row.id, {})}
        yield _line(entry["system"], row.id, gold, metrics, _state(row))


def _line(
    system: str, query_id: str, gold: Gold, metrics: Mapping[str, float], state: str = ""
) -> dict[str, Any]:
    return {
        "system": system,
        "id": query_id,
        "group": gold.group,
        "gold": gold.kind,
        "state": state,
        "metrics": dict(metrics),
    }


def _state(row: Row) -> str:
    if row.error:
        return "error"
    if row.stop == "length":
        return "length"
    answer = row.answer
    return "abstained" if answer and (answer.answerable is False or not answer.text) else ""


def _answer_scores(rows: list[Row], scored: Scored) -> dict[str, dict[str, float]]:
    """Answer metrics by question.

    A system that gives evidence (or triples) for some questions is held to give none for the
    others; an errored or missing answer scores 0 in all that its gold could fill.
    """
    given = [row.answer for row in rows if row.answer is not None]
    evidence = () if any(answer.evidence is not None for answer in given) else None
    triples = () if any(answer.triples is not None for answer in given) else None
    found = {}
    for row in rows:
        answer = row.answer or Answer("")
        if answer.evidence is None:
            answer = replace(answer, evidence=evidence)
        if answer.triples is None:
            answer = replace(answer, triples=triples)
        support = support_of(answer, scored.corpus.__getitem__)
        values = scored.task.score(answer, support, scored.golds[row.id])
        if row.error or row.answer is None:
            values = dict.fromkeys(values, 0.0)
        found[row.id] = values
    return found


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


def _bounds(golds: Mapping[str, Gold], scored: Scored) -> Iterator[dict[str, Any]]:
    """Floor and ceiling of the ranking metrics."""
    rel, names = scored.task.rel, scored.ranked
    best: dict[str, list[str]] = {}
    for query_id, gold in golds.items():
        if not gold.relevance:
            continue
        judged = list(gold.relevance)
        if scored.pools is not None:
            pool = scored.pools.get(query_id, ())
            here = set(pool)
            n = len(pool)
        else:
            places = scored.corpus.positions(judged)
            here = {doc_id for doc_id, place in zip(judged, places, strict=True) if place >= 0}
            n = len(scored.corpus)
        reachable = {d: g for d, g in gold.relevance.items() if d in here}
        best[query_id] = ranking.ideal(gold.relevance, list(reachable))
        low = ranking.floors(gold.relevance, reachable, n, names, rel)
        yield _line(FLOOR, query_id, gold, low)
    judged_golds = {query_id: golds[query_id].relevance for query_id in best}
    ceiling = ranking.evaluate(best, judged_golds, names, rel)
    for query_id, metrics in ceiling.items():
        yield _line(CEILING, query_id, golds[query_id], metrics)

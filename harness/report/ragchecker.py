"""A pipeline's answers as a file that RAGChecker 0.1.9 reads: ``claims RUN --export FILE``.

    {"results": [{"query_id", "query", "gt_answer", "response", "retrieved_context":
     [{"doc_id", "text"}]}]}

With what a judge said of them there are claims and labels, too, and RAGChecker computes its metrics
of them without asking a model; what is not entailed is Neutral there, for our tables do not tell it
from Contradiction. An empty answer claims nothing, so that no model is asked what it claims. The
file has questions, gold answers and passages of the data: it is written on demand alone and never
into a run's folder, which is passed on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.canonical import read_about
from harness.data import HarnessError, raise_together
from harness.files import taken
from harness.score.claims import Tables
from harness.score.judgements import claim_lines, key_of, read_claims
from harness.score.judging import Asked, Entry, asked, chosen
from harness.score.scoring import data_of


def ready(folder: Path, out: Path, task: str | None, system: str | None) -> Entry:
    """The pipeline to write; `HarnessError` unless it is one, and ``out`` a place for it."""
    raise_together(taken(out))
    if out.suffix != ".json":
        raise HarnessError(f"{out}: RAGChecker's file is one JSON value.", "Name it ….json.")
    for parent in out.resolve().parents:
        if (parent / "manifest.json").exists():
            raise HarnessError(
                f"{out} would lie in the run {parent}, and the file has texts of the data.",
                "Name a file elsewhere.",
            )
    entries = chosen(folder, task, system)
    if len(entries) > 1:
        names = ("task", "system")
        told = "; ".join(" ".join(f"--{name} {each[name]}" for name in names) for each in entries)
        raise HarnessError("RAGChecker's file holds one pipeline.", f"Choose: {told}.")
    return entries[0]


def write(
    folder: Path,
    out: Path,
    entry: Entry,
    heads: Sequence[Mapping[str, Any]] = (),
    home: Path | None = None,
) -> str:
    """Write the file; returns what to know before it is passed on.

    home: where prepared data is kept
    heads: what `judge_run` returned of this pipeline, to have its claims and labels in the file
    """
    keys = set(map(key_of, heads))
    lines = claim_lines(folder, read_claims(folder)) if keys else ()
    judged = {line["id"]: line for line in lines if key_of(line) in keys}
    results = [result(each, judged.get(each.id)) for each in asked(folder, entry, home)]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".part-{out.name}")
    try:
        part.write_text(json.dumps({"results": results}, indent=2), encoding="utf-8")
        part.rename(out)
    finally:
        part.unlink(missing_ok=True)
    licence = read_about(data_of(entry, "about.json", home))["licence"]
    return f"It holds texts of {entry['task']} (licence: {licence})."


def result(one: Asked, line: Mapping[str, Any] | None) -> dict[str, Any]:
    """A question as RAGChecker has it; ``line`` is what claims.jsonl says of it."""
    case = one.case
    found: dict[str, Any] = {
        "query_id": case.id,
        "query": case.question,
        "gt_answer": case.answer,
        "response": case.response,
        "retrieved_context": [
            {"doc_id": each.id, "text": text}
            for each, text in zip(case.passages, case.references, strict=True)
        ],
    }
    if line is not None:
        found["response_claims"] = line["response_claims"]
        found["gt_answer_claims"] = line["answer_claims"]
        found |= {name: _words(line[name]) for name in Tables._fields}
    elif not case.response:
        found |= {"response_claims": [], "answer2response": [], "retrieved2response": []}
    return found


def _words(table: Any) -> Any:
    """Labels in RAGChecker's words."""
    if isinstance(table, list):
        return [_words(each) for each in table]
    return "Entailment" if table else "Neutral"

"""Submissions of runs on real data score against the official gold as the runs do in the harness.

The gold files are the data's own rows, in the shape of the official file where it is another one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from answering import Answering
from official_files import lines, put
from test_submission import means, same

from harness import api, registry

SYSTEM = "bm25+answering:solves=false@3"


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def rows_of(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def scored(task: str, source: Path, system: str = SYSTEM) -> tuple[Path, Mapping[str, float]]:
    """A scored run over the whole split, and the harness's means."""
    api.prepare(task, source, "validation")
    folder = api.score(api.run([task], ["bm25", system], split="validation", out="run"))
    return folder, means(folder, system)


def test_hotpotqa(real_data: Path) -> None:
    source = real_data / "hotpotqa/validation.jsonl.gz"
    folder, ours = scored("hotpotqa", source)
    made = api.submit(folder, "hotpotqa", "made.json")
    gold = put(Path("gold.json"), rows_of(source))
    assert ours["F1"] > 0
    same(api.score_file(made.path, "hotpotqa", gold=gold).scores, ours, "hotpotqa")


def test_2wiki(real_data: Path) -> None:
    source = real_data / "2wikimultihopqa/validation.jsonl.gz"
    folder, ours = scored("2wikimultihopqa", source)
    made = api.submit(folder, "2wikimultihopqa", "made.json")
    gold = put(Path("gold.json"), rows_of(source))
    aliases = put(Path("a.jsonl"), lines([{"Q_id": "Q0", "aliases": [], "demonyms": []}]))
    report = api.score_file(made.path, "2wikimultihopqa", gold=gold, aliases=aliases)
    assert ours["F1"] > 0
    same(report.scores, ours, "2wikimultihopqa")


def test_musique(real_data: Path) -> None:
    source = real_data / "musique/validation.jsonl.gz"
    folder, ours = scored("musique", source)
    made = api.submit(folder, "musique", "made.jsonl")
    assert ours["Support-F1"] > 0
    same(api.score_file(made.path, "musique", gold=source).scores, ours, "musique")


@pytest.mark.parametrize("file", ["validation.jsonl.gz", "rc_sample.jsonl.gz"])
def test_triviaqa(real_data: Path, file: str) -> None:
    source = real_data / "triviaqa" / file
    folder, ours = scored("triviaqa", source)
    made = api.submit(folder, "triviaqa", "made.json")
    merged: dict[str, list[str]] = {}
    for row in rows_of(source):
        accepted = row["answer"]["normalized_aliases"] or row["answer"]["aliases"]
        merged.setdefault(row["question_id"], []).extend(accepted)
    data = [{"QuestionId": q, "Answer": {"NormalizedAliases": a}} for q, a in merged.items()]
    header = {"Domain": "Wikipedia", "VerifiedEval": False, "Version": 1.0}
    gold = put(Path("gold.json"), header | {"Data": data})
    same(api.score_file(made.path, "triviaqa", gold=gold).scores, ours, "triviaqa")


def test_ms_marcos_answers(real_data: Path) -> None:
    """The harness scores them as SQuAD does, so that they go through its scorer."""
    source = real_data / "msmarco/v1.1.jsonl.gz"
    folder, ours = scored("msmarco-qa", source, "bm25+answering:solves=false,plain=true@3")
    made = api.submit(folder, "msmarco-qa", "made.json")
    assert any("7 rows without a selected passage" in note for note in made.notes)
    said = {row["query_id"]: row["answers"][0] for row in map(json.loads, made.path.open())}
    asked = [row for row in rows_of(source) if row["query_id"] in said]
    assert len(asked) == 91
    qas = [
        {"id": str(row["query_id"]), "answers": [{"text": text} for text in answers]}
        for row in asked
        if (answers := [a for a in row["answers"] if a.strip() and a != "No Answer Present."])
    ]
    gold = put(Path("gold.json"), {"data": [{"paragraphs": [{"qas": qas}]}]})
    texts = {str(key): text for key, text in said.items() if text != "No Answer Present."}
    scores = api.score_file(put(Path("p.json"), texts), "squad", gold=gold).scores
    assert scores["f1"] == pytest.approx(ours["F1"] * 100, abs=1e-9)
    assert scores["exact_match"] == pytest.approx(ours["EM"] * 100, abs=1e-9)


def test_passages_of_dl19(real_data: Path) -> None:
    folder = real_data / "msmarco"
    run = [row for row in rows_of(folder / "dl19_runs.jsonl.gz") if row["run"] == "bm25"]
    ranked = (f"{r['qid']} Q0 {r['docid']} {r['rank']} {r['score']} x" for r in run)
    put(Path("first.run"), lines(ranked))
    api.prepare("msmarco-dl19", folder)
    system = "trec:file=first.run"
    made = api.score(api.run(["msmarco-dl19"], [system], out="run"), metrics=["RR(rel=2)@10"])
    ours = means(made, system)
    judged = rows_of(folder / "dl19_qrels.jsonl.gz")
    triples = [(r["query-id"], r["corpus-id"], int(r["score"])) for r in judged]
    qrels = put(Path("qrels"), lines(f"{q} 0 {d} {grade}" for q, d, grade in triples))
    trec = api.submit(made, "trec", "made.run")
    report = api.score_file(trec.path, "msmarco-dl19", format="trec", gold=qrels)
    assert len(report.scores) == 4
    expected = {name: ours[name] for name in report.scores}
    assert report.scores == pytest.approx(expected, abs=1e-9, rel=0)
    passages = api.submit(made, "msmarco-passage", "made.tsv.bz2")
    relevant = (f"{q}\t0\t{d}\t1" for q, d, grade in triples if grade >= 2)
    report = api.score_file(
        passages.path, "msmarco-dl19", gold=put(Path("reference"), lines(relevant))
    )
    assert report.scores["MRR @10"] == pytest.approx(ours["RR(rel=2)@10"], abs=1e-9)
    assert report.scores == api.score_file(passages.path, "msmarco-dl19").scores

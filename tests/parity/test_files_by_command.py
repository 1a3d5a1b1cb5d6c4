"""The file vectors by the command line, and one invented file a format as people submit it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_official_vectors import Vector, each, same

from harness import api
from harness.cli import main
from harness.data import HarnessError
from harness.score.validity import validate

EXAMPLES = Path(__file__).parent / "examples"


def put(name: str, content: Any) -> str:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
    return name


def rows(values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def squad_file(golds: list[Any]) -> dict[str, Any]:
    """Rows of the vectors in the shape of a SQuAD data file."""
    asked = [{"id": r["id"], "answers": [{"text": g} for g in r["golds"]]} for r in golds]
    return {"data": [{"paragraphs": [{"qas": [each]} for each in asked]}]}


FILES: dict[str, tuple[str, Any]] = {
    "hotpotqa": ("hotpotqa", lambda i: (put("p.json", i["prediction"]), put("g.json", i["gold"]))),
    "wiki2multihopqa": (
        "2wikimultihopqa",
        lambda i: (
            put("p.json", i["prediction"]),
            put("g.json", i["gold"]),
            "--aliases",
            put("a.jsonl", rows(i["aliases"])),
        ),
    ),
    "musique": (
        "musique",
        lambda i: (
            put("p.jsonl", rows(i["prediction_rows"])),
            put("g.jsonl", rows(i["gold_rows"])),
        ),
    ),
    "triviaqa": (
        "triviaqa",
        lambda i: (put("p.json", i["prediction"]), put("g.json", i["dataset"])),
    ),
    "squad_v1": (
        "squad",
        lambda i: (put("p.json", i["prediction"]), put("g.json", squad_file(i["rows"]))),
    ),
    "kilt": ("kilt", lambda i: (put("p.jsonl", rows(i["guess"])), put("g.jsonl", rows(i["gold"])))),
    "msmarco_mrr10": (
        "msmarco-passage",
        lambda i: (
            put("p.tsv", "".join(f"{line}\n" for line in i["candidate_lines"])),
            put("g.tsv", "".join(f"{line}\n" for line in i["reference_lines"])),
        ),
    ),
}


def by_command(name: str, inputs: Mapping[str, Any]) -> int:
    task, write = FILES[name]
    prediction, gold, *more = write(inputs)
    return main(["score-file", prediction, "--task", task, "--gold", gold, "--json", *more])


def check(name: str, vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    expected = dict(vector["expected"])
    code = by_command(name, vector["inputs"])
    out, err = capsys.readouterr()
    if "error" in expected:
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1 and "Traceback" not in err
        return
    assert (code, err) == (0, "")
    found = json.loads(out)
    if (log_lines := expected.pop("log_lines", None)) is not None:
        assert len(found["log"]) == log_lines
    if (message := expected.pop("printed_message", None)) is not None:
        assert found["log"] == [message]
    expected.pop("needs_rouge_1.0.1", None)
    unrounded = expected.get("unrounded_percent") or expected.get("unrounded") or expected
    same(found["scores"], unrounded)
    same(found["printed"], expected.get("printed", unrounded))


@each("hotpotqa", "file")
def test_hotpotqa(vector: Vector, capsys) -> None:
    check("hotpotqa", vector, capsys)


@each("wiki2multihopqa", "file")
def test_wiki2(vector: Vector, capsys) -> None:
    check("wiki2multihopqa", vector, capsys)


@each("musique", "file")
def test_musique(vector: Vector, capsys) -> None:
    check("musique", vector, capsys)


@each("triviaqa", "file")
def test_triviaqa(vector: Vector, capsys) -> None:
    check("triviaqa", vector, capsys)


@each("squad_v1", "file")
def test_squad(vector: Vector, capsys) -> None:
    check("squad_v1", vector, capsys)


@each("kilt", "file")
def test_kilt(vector: Vector, capsys) -> None:
    check("kilt", vector, capsys)


@each("msmarco_mrr10", "file")
def test_msmarco(vector: Vector, capsys) -> None:
    check("msmarco_mrr10", vector, capsys)


# --- the examples ---------------------------------------------------------------------

FORMATS = {
    "hotpotqa_dev_distractor_pred.json": "hotpotqa",
    "2wiki_pred.json": "2wikimultihopqa",
    "musique_ans_predictions.jsonl": "musique",
    "musique_full_predictions.jsonl": "musique",
    "triviaqa_wikipedia_pred.json": "triviaqa",
    "triviaqa_web_pred.json": "triviaqa",
    "msmarco_passage_dev.txt": "msmarco-passage",
    "msmarco_qa_candidates.json": "msmarco-qa",
    "run.trec": "trec",
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_example_is_accepted_in_its_format_and_in_no_other(name: str) -> None:
    assert validate(FORMATS[name], EXAMPLES / name) == []
    alike = {"hotpotqa", "2wikimultihopqa"} if FORMATS[name] in ("2wikimultihopqa",) else set()
    for fmt in set(FORMATS.values()) - {FORMATS[name]} - alike:
        with pytest.raises(HarnessError):
            validate(fmt, EXAMPLES / name)


def test_an_example_scores_by_hand() -> None:
    def scored(name: str, gold: str, task: str, **more: Any) -> Mapping[str, float]:
        return api.score_file(EXAMPLES / name, task, gold=gold, **more).scores

    hotpot = [
        {"_id": "syn0a1", "answer": "The Marrow Lake", "supporting_facts": [["Marrow Lake", 0]]},
        {"_id": "syn0a2", "answer": "no", "supporting_facts": [["Quill House", 1]]},
    ]
    found = scored("hotpotqa_dev_distractor_pred.json", put("h.json", hotpot), "hotpotqa")
    assert (found["em"], found["sp_prec"], found["joint_recall"]) == (0.5, 0.75, 0.5)
    passages = put("q.tsv", "900001\t0\t17\t1\n900002\t0\t5\t1\n900003\t0\t1\t1\n")
    found = scored("msmarco_passage_dev.txt", passages, "msmarco-dev")
    assert found == {"MRR @10": 0.5, "QueriesRanked": 2}
    found = scored("run.trec", str(EXAMPLES / "qrels.trec"), "msmarco-dl20", format="trec")
    assert found["RR(rel=2)"] == 0.5  # the grade 1 of the other query is not relevant
    musique = [
        {"id": "2hop__11_12", "answer": "Marrow Lake", "answer_aliases": [], "answerable": flag}
        | {"paragraphs": [{"idx": n, "is_supporting": n in (3, 4)} for n in range(20)]}
        for flag in (True, False)
    ]
    found = scored("musique_full_predictions.jsonl", put("m.jsonl", rows(musique)), "musique")
    assert found["group_answer_sufficiency_f1"] == 1
    assert found["group_support_sufficiency_f1"] == found["support_f1"] == 0.5
    trivia = {"Domain": "Web", "VerifiedEval": False, "Version": 1.0}
    trivia["Data"] = [
        {
            "QuestionId": "syn_12",
            "Answer": {"NormalizedAliases": ["herons"]},
            "SearchResults": [{"Filename": "7/7_12.txt"}],
        }
    ]
    found = scored("triviaqa_web_pred.json", put("t.json", trivia), "triviaqa")
    assert (found["exact_match"], found["f1"]) == (0, pytest.approx(200 / 3))

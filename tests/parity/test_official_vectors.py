"""Every vector: invented inputs, expected values computed by the official evaluation scripts.

Items go through the item functions and, as a file of one question, through the file scorer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.data import Answer, Gold, HarnessError
from harness.score import answers, kilt, msmarco, official
from harness.score.answers import Overlap
from harness.score.checks import Report
from harness.score.normalise import squad_normal, triviaqa_normal, wiki2_evidence_normal

VECTORS = Path(__file__).parent / "vectors"
TOLERANCE = 1e-9
Vector = dict[str, Any]


def read(name: str, *kinds: str) -> list[Vector]:
    lines = (VECTORS / f"{name}.public.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = [json.loads(line) for line in lines]
    return [vector for vector in vectors if vector["kind"] in kinds]


def each(name: str, *kinds: str) -> pytest.MarkDecorator:
    vectors = read(name, *kinds)
    assert vectors
    return pytest.mark.parametrize("vector", vectors, ids=[vector["id"] for vector in vectors])


def same(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    missing = expected.keys() - found.keys()
    assert not missing
    picked = {key: found[key] for key in expected}
    assert picked == pytest.approx(dict(expected), abs=TOLERANCE, rel=0)


def check_file(vector: Vector, score: Callable[[], Report]) -> None:
    """Scores, rounded scores and log lines; or a clear refusal."""
    expected = dict(vector["expected"])
    if "error" in expected:
        with pytest.raises(HarnessError) as caught:
            score()
        assert caught.value.message.endswith(".")
        assert caught.value.hint.endswith((".", "'"))
        return
    report = score()
    if (log_lines := expected.pop("log_lines", None)) is not None:
        assert len(report.log) == log_lines
    if (message := expected.pop("printed_message", None)) is not None:
        assert report.log == (message,)
    needs_rouge = expected.pop("needs_rouge_1.0.1", {})
    if kilt.has_rouge():
        expected |= needs_rouge
    unrounded = expected.get("unrounded_percent") or expected.get("unrounded") or expected
    assert report.scores.keys() == unrounded.keys()
    same(report.scores, unrounded)
    same(report.printed, expected.get("printed", unrounded))


def short(overlap: Overlap, prefix: str = "") -> dict[str, float]:
    names = ("em", "f1", "prec", "recall")
    return {prefix + name: value for name, value in zip(names, overlap, strict=True)}


# --- normalisers --------------------------------------------------------------------------


@each("normalizers", "item")
def test_normalisers(vector: Vector) -> None:
    text = vector["inputs"]["text"]
    assert squad_normal(text) == vector["expected"]["squad_family"]
    assert triviaqa_normal(text) == vector["expected"]["triviaqa"]
    assert wiki2_evidence_normal(text) == vector["expected"]["wiki2_evidence"]


# --- HotpotQA -----------------------------------------------------------------------------


def hotpotqa_files(vectors: list[Vector]) -> tuple[Any, Any]:
    prediction: Any = {"answer": {}, "sp": {}}
    gold = []
    for vector in vectors:
        name, inputs = vector["id"], vector["inputs"]
        prediction["answer"][name] = inputs["prediction"]
        prediction["sp"][name] = inputs["pred_sp"]
        row = {"_id": name, "answer": inputs["gold"], "supporting_facts": inputs["gold_sp"]}
        gold.append(row)
    return prediction, gold


@each("hotpotqa", "item")
def test_hotpotqa_item(vector: Vector) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    answer = answers.hotpotqa_answer(inputs["prediction"], inputs["gold"])
    predicted, gold = ([tuple(fact) for fact in inputs[key]] for key in ("pred_sp", "gold_sp"))
    support = answers.hotpotqa_support(predicted, gold)
    found = short(answer) | short(support, "sp_") | short(answers.joint(answer, support), "joint_")
    same(found, expected)
    as_task = answers.score_hotpotqa(
        Answer(inputs["prediction"]), predicted, Gold({}, (inputs["gold"],), tuple(gold))
    )
    same(rename(as_task), expected)
    check_file(vector, lambda: official.hotpotqa(*hotpotqa_files([vector])))


@each("hotpotqa", "file")
def test_hotpotqa_file(vector: Vector) -> None:
    check_file(vector, lambda: official.hotpotqa(**vector["inputs"]))


@each("hotpotqa", "aggregate")
def test_hotpotqa_aggregate(vector: Vector) -> None:
    files = hotpotqa_files(read("hotpotqa", "item"))
    check_file(vector, lambda: official.hotpotqa(*files))


def rename(scores: Mapping[str, float]) -> dict[str, float]:
    """Metric names of tasks as the keys of the HotpotQA family's scripts."""
    parts = {"SP-": "sp_", "Evi-": "evi_", "Joint-": "joint_", "Precision": "prec"}
    renamed = {}
    for name, value in scores.items():
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        renamed[name.lower()] = value
    return renamed


# --- 2WikiMultihopQA v1.1 -----------------------------------------------------------------


def wiki2_files(vectors: list[Vector]) -> tuple[Any, Any, Any]:
    prediction: Any = {"answer": {}, "sp": {}, "evidence": {}}
    gold, aliases = [], []
    for vector in vectors:
        name, inputs = vector["id"], vector["inputs"]
        prediction["answer"][name] = inputs["prediction"]
        prediction["sp"][name] = inputs["pred_sp"]
        prediction["evidence"][name] = inputs["pred_evidence"]
        kept = ("answer", "answer_id", "evidences", "evidences_id")
        row = {"_id": name, "supporting_facts": inputs["gold_sp"]}
        gold.append(row | {key: inputs[key] for key in kept})
        aliases += inputs["aliases"]
    return prediction, gold, aliases


@each("wiki2multihopqa", "item")
def test_wiki2_item(vector: Vector) -> None:
    inputs = vector["inputs"]
    expected = {key: x / 100 for key, x in vector["expected"]["unrounded_percent"].items()}
    _, (row,), aliases = wiki2_files([vector])
    table = official.wiki2_aliases(aliases)
    gold = Gold(
        {},
        (inputs["answer"], *table.get(inputs["answer_id"], ())),
        tuple(tuple(fact) for fact in inputs["gold_sp"]),
        tuple(official.wiki2_gold_triples(row, table)),
    )
    answer = Answer(inputs["prediction"], triples=tuple(tuple(t) for t in inputs["pred_evidence"]))
    support = [tuple(fact) for fact in inputs["pred_sp"]]
    scores = answers.score_2wikimultihopqa(answer, support, gold)
    capped = scores.pop("Evi-F1-capped")
    assert rename(scores).keys() == expected.keys()
    same(rename(scores), expected)
    assert 0 <= capped <= min(1, expected["evi_f1"] + TOLERANCE)
    check_file(vector, lambda: official.wiki2multihopqa(*wiki2_files([vector])))


@each("wiki2multihopqa", "file")
def test_wiki2_file(vector: Vector) -> None:
    check_file(vector, lambda: official.wiki2multihopqa(**vector["inputs"]))


@each("wiki2multihopqa", "aggregate")
def test_wiki2_aggregate(vector: Vector) -> None:
    files = wiki2_files(read("wiki2multihopqa", "item"))
    check_file(vector, lambda: official.wiki2multihopqa(*files))


# --- MuSiQue ------------------------------------------------------------------------------


def musique_rows(name: str, inputs: Mapping[str, Any], answerable: bool, flag: Any) -> Any:
    """A prediction row and a gold row; the unanswerable one has its fields under ``other_``."""
    prefix = "" if answerable else "other_"
    prediction = {
        "id": name,
        "predicted_answer": inputs[f"{prefix}predicted_answer"],
        "predicted_support_idxs": inputs[f"{prefix}predicted_support_idxs"],
        "predicted_answerable": flag,
    }
    supporting = inputs[f"{prefix}gold_support_idxs"]
    gold = {
        "id": name,
        "answer": inputs[f"{prefix}answer"],
        "answer_aliases": inputs[f"{prefix}answer_aliases"],
        "answerable": answerable,
        "paragraphs": [{"idx": n, "is_supporting": n in supporting} for n in range(20)],
    }
    return prediction, gold


def musique_files(vectors: list[Vector]) -> tuple[list[Any], list[Any]]:
    rows = []
    for vector in vectors:
        inputs = vector["inputs"]
        flags = inputs.get("predicted_answerable", True)
        if vector["kind"] == "item":
            rows.append(musique_rows(vector["id"], inputs, True, flags))
            continue
        for answerable, flag in zip(inputs["gold_answerable"], flags, strict=True):
            rows.append(musique_rows(vector["id"], inputs, answerable, flag))
    return [row[0] for row in rows], [row[1] for row in rows]


@each("musique", "item")
def test_musique_item(vector: Vector) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    golds = (inputs["answer"], *inputs["answer_aliases"])
    support = [(str(int(index)), 0) for index in inputs["predicted_support_idxs"]]
    gold_support = tuple((str(index), 0) for index in inputs["gold_support_idxs"])
    scores = answers.score_musique(
        Answer(inputs["predicted_answer"]), support, Gold({}, golds, gold_support)
    )
    assert scores == pytest.approx(
        {
            "EM": expected["answer_em"],
            "F1": expected["answer_f1"],
            "SP-EM": expected["support_em_internal"],
            "SP-F1": expected["support_f1"],
        },
        abs=TOLERANCE,
        rel=0,
    )
    printed = {key: x for key, x in expected.items() if key != "support_em_internal"}
    same(official.musique(*musique_files([vector])).scores, printed)


@each("musique", "pair")
def test_musique_pair(vector: Vector) -> None:
    same(official.musique(*musique_files([vector])).scores, vector["expected"])


@each("musique", "file")
def test_musique_file(vector: Vector) -> None:
    inputs = vector["inputs"]
    check_file(vector, lambda: official.musique(inputs["prediction_rows"], inputs["gold_rows"]))


@each("musique", "aggregate")
def test_musique_aggregate(vector: Vector) -> None:
    kind = "pair" if vector["id"] == "__aggregate_full__" else "item"
    files = musique_files(read("musique", kind))
    assert len(files[0]) == vector["n"]
    check_file(vector, lambda: official.musique(*files))


# --- TriviaQA and SQuAD -------------------------------------------------------------------


def triviaqa_files(vectors: list[Vector]) -> tuple[Any, Any]:
    predictions = {vector["id"]: vector["inputs"]["prediction"] for vector in vectors}
    data = [
        {
            "QuestionId": vector["id"],
            "Answer": {k: x for k, x in vector["inputs"].items() if k != "prediction"},
        }
        for vector in vectors
    ]
    header = {"Domain": "Wikipedia", "VerifiedEval": False, "Version": 1.0}
    return predictions, header | {"Data": data}


@each("triviaqa", "item")
def test_triviaqa_item(vector: Vector) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    golds = (*inputs["NormalizedAliases"], *inputs.get("HumanAnswers", ()))
    scores = answers.score_triviaqa(Answer(inputs["prediction"]), None, Gold({}, golds))
    wanted = {"EM": expected["exact_match"] / 100, "F1": expected["f1"] / 100}
    assert scores == pytest.approx(wanted, abs=TOLERANCE, rel=0)
    same(official.triviaqa(*triviaqa_files([vector])).scores, expected)


@each("triviaqa", "file")
def test_triviaqa_file(vector: Vector) -> None:
    check_file(vector, lambda: official.triviaqa(**vector["inputs"]))


@each("triviaqa", "aggregate")
def test_triviaqa_aggregate(vector: Vector) -> None:
    files = triviaqa_files(read("triviaqa", "item"))
    check_file(vector, lambda: official.triviaqa(*files))


def squad_files(vectors: list[Vector]) -> tuple[Any, Any]:
    predictions = {vector["id"]: vector["inputs"]["prediction"] for vector in vectors}
    return predictions, [{"id": v["id"], "golds": v["inputs"]["golds"]} for v in vectors]


@each("squad_v1", "item")
def test_squad_item(vector: Vector) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    scores = answers.score_squad(
        Answer(inputs["prediction"]), None, Gold({}, tuple(inputs["golds"]))
    )
    wanted = {"EM": expected["exact_match"] / 100, "F1": expected["f1"] / 100}
    assert scores == pytest.approx(wanted, abs=TOLERANCE, rel=0)
    check_file(vector, lambda: official.squad(*squad_files([vector])))


@each("squad_v1", "file")
def test_squad_file(vector: Vector) -> None:
    check_file(vector, lambda: official.squad(**vector["inputs"]))


@each("squad_v1", "aggregate")
def test_squad_aggregate(vector: Vector) -> None:
    check_file(vector, lambda: official.squad(*squad_files(read("squad_v1", "item"))))


# --- KILT ---------------------------------------------------------------------------------


def kilt_files(vectors: list[Vector]) -> tuple[Any, Any]:
    guesses, gold = [], []
    for vector in vectors:
        inputs = vector["inputs"]
        pages = [{"wikipedia_id": page} for page in inputs["guess_wikipedia_ids"]]
        output = {"answer": inputs["prediction"], "provenance": pages}
        guesses.append({"id": vector["id"], "output": [output]})
        gold.append({"id": vector["id"], "output": inputs["gold_output"]})
    return guesses, gold


@each("kilt", "item")
def test_kilt_item(vector: Vector) -> None:
    check_file(vector, lambda: kilt.kilt(*kilt_files([vector])))


@each("kilt", "file")
def test_kilt_file(vector: Vector) -> None:
    check_file(vector, lambda: kilt.kilt(**vector["inputs"]))


@each("kilt", "aggregate")
def test_kilt_aggregate(vector: Vector) -> None:
    vectors = [v for v in read("kilt", "item") if "error" not in v["expected"]]
    assert len(vectors) == vector["n"]
    check_file(vector, lambda: kilt.kilt(*kilt_files(vectors)))


# --- MS MARCO -----------------------------------------------------------------------------


def msmarco_files(vectors: list[Vector]) -> tuple[Iterator[str], Iterator[str]]:
    one = len(vectors) == 1  # a file of one question calls it 1
    queries = {
        1 if one else 1000 + int(v["id"].removeprefix("msmarco-i")): v["inputs"] for v in vectors
    }
    candidate = (f"{q}\t{p}\t{r}" for q, inputs in queries.items() for p, r in inputs["run"])
    reference = (f"{q}\t0\t{p}\t1" for q, i in queries.items() for p in i["relevant_pids"])
    return candidate, reference


@each("msmarco_mrr10", "item")
def test_msmarco_item(vector: Vector) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    slots = msmarco.passage_slots([(passage, rank) for passage, rank in inputs["run"]])
    found = msmarco.reciprocal_rank(slots, set(inputs["relevant_pids"]))
    assert found == pytest.approx(expected["MRR @10"], abs=TOLERANCE, rel=0)
    check_file(vector, lambda: msmarco.msmarco_passage(*msmarco_files([vector])))


@each("msmarco_mrr10", "file")
def test_msmarco_file(vector: Vector) -> None:
    inputs = vector["inputs"]
    check_file(
        vector,
        lambda: msmarco.msmarco_passage(inputs["candidate_lines"], inputs["reference_lines"]),
    )


@each("msmarco_mrr10", "aggregate")
def test_msmarco_aggregate(vector: Vector) -> None:
    files = msmarco_files(read("msmarco_mrr10", "item"))
    check_file(vector, lambda: msmarco.msmarco_passage(*files))

"""Prediction files as people have them: on disk, incomplete, in the wrong shape."""

from __future__ import annotations

import json
import sys

import pytest

from harness.data import HarnessError
from harness.score import kilt, msmarco, official

HOTPOTQA_GOLD = [{"_id": "q", "answer": "Marrow Lake", "supporting_facts": [["Kiln", 0]]}]
HOTPOTQA = {"answer": {"q": "lake"}, "sp": {"q": [["Kiln", 0]]}}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- files on disk ------------------------------------------------------------------------


def test_a_file_scores_as_its_content(tmp_path):
    prediction, gold = (
        write(tmp_path / "p.json", HOTPOTQA),
        write(tmp_path / "g.json", HOTPOTQA_GOLD),
    )
    report = official.score_file("hotpotqa", prediction, gold)
    assert report == official.hotpotqa(HOTPOTQA, HOTPOTQA_GOLD)
    assert report.scores["f1"] == pytest.approx(2 / 3)


def test_a_squad_data_file_is_read_in_its_official_shape(tmp_path):
    question = {"id": "q", "answers": [{"text": "lamp"}, {"text": "Marrow Lake"}]}
    data = {"data": [{"paragraphs": [{"qas": [question]}]}]}
    files = write(tmp_path / "p.json", {"q": "lake"}), write(tmp_path / "g.json", data)
    assert official.score_file("squad", *files).scores["f1"] == pytest.approx(200 / 3)


def test_jsonl_files_may_have_blank_lines_and_a_run_may_not(tmp_path):
    gold = {"id": "q", "answer": "lamp", "answer_aliases": [], "answerable": True, "paragraphs": []}
    predicted = {
        "predicted_answer": "lamp",
        "predicted_support_idxs": "",
        "predicted_answerable": 1,
    }
    files = (
        write(tmp_path / "p.jsonl", "\n" + lines({"id": "q"} | predicted)),
        write(tmp_path / "g.jsonl", lines(gold) + "\n\n"),
    )
    assert set(official.score_file("musique", *files).scores.values()) == {1.0}
    run = write(tmp_path / "run.tsv", "1\t5\t1\n\n1\t6\t2\n")
    reference = write(tmp_path / "qrels.tsv", "1\t0\t5\t1\n")
    with pytest.raises(HarnessError, match=r"run\.tsv:2 is a blank line"):
        official.score_file("msmarco-passage", run, reference)


def test_2wiki_asks_for_its_aliases_and_unknown_benchmarks_are_named(tmp_path):
    file = write(tmp_path / "f.json", {})
    with pytest.raises(HarnessError, match=r"id_aliases\.json"):
        official.score_file("2wikimultihopqa", file, file)
    with pytest.raises(HarnessError, match="Choose one of hotpotqa, "):
        official.score_file("hotpot", file, file)


# --- refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prediction",
    [
        None,
        [],
        {"answer": {}},
        {"answer": [], "sp": {}},
        HOTPOTQA | {"answer": {"q": 1851}},
        HOTPOTQA | {"sp": {"q": [["Kiln", [0]]]}},
        HOTPOTQA | {"sp": {"q": [3]}},
    ],
)
def test_hotpotqa_refuses_in_one_sentence(prediction):
    with pytest.raises(HarnessError) as caught:
        official.hotpotqa(prediction, HOTPOTQA_GOLD)
    assert caught.value.message.count(". ") == 0
    assert caught.value.hint


WIKI2_GOLD = [
    HOTPOTQA_GOLD[0]
    | {"answer_id": None, "evidences": [["Kiln", "director", "Tove"]], "evidences_id": []}
]


@pytest.mark.parametrize(
    "evidence", [None, "abc", [None], [["a", ["b"], "c"]], [["a", 3, "c"]], {"a": 1}]
)
def test_2wiki_refuses_evidence_that_is_not_made_of_texts(evidence):
    with pytest.raises(HarnessError):
        official.wiki2multihopqa(HOTPOTQA | {"evidence": {"q": evidence}}, WIKI2_GOLD, [])


@pytest.mark.parametrize("ids", [None, [["Q1", "founder", "Q2"]], [["Q1", "director"]], [3]])
def test_2wiki_refuses_gold_whose_ids_do_not_fit(ids):
    gold = [WIKI2_GOLD[0] | {"evidences_id": ids}]
    with pytest.raises(HarnessError):
        official.wiki2multihopqa(HOTPOTQA | {"evidence": {"q": []}}, gold, [])


def test_2wiki_without_the_evidence_of_anybody_scores_answers_and_support():
    report = official.wiki2multihopqa(HOTPOTQA | {"evidence": {}}, WIKI2_GOLD, [])
    assert report.log == ("missing evidence q",)
    assert report.scores["sp_f1"] == 100
    assert report.scores["evi_f1"] == report.scores["joint_f1"] == 0
    assert report.printed["f1"] == 66.67


@pytest.mark.parametrize("support", [None, 3, ["a"], [[1]], [float("inf")]])
def test_musique_refuses_support_that_is_not_numbers(support):
    gold = {"id": "q", "answer": "lamp", "answer_aliases": [], "answerable": True, "paragraphs": []}
    predicted = {
        "predicted_answer": "",
        "predicted_support_idxs": support,
        "predicted_answerable": 1,
    }
    with pytest.raises(HarnessError, match="Row 1"):
        official.musique([{"id": "q"} | predicted], [gold])


def kilt_row(*outputs):
    return {"id": "q", "output": list(outputs)}


def test_kilt_refuses_two_outputs_and_repeated_ids():
    one = {"answer": "lamp", "provenance": [{"wikipedia_id": 7}]}
    gold = [kilt_row(one)]
    assert kilt.kilt([kilt_row(one)], gold).scores["KILT-em"] == 1
    for guess in ([kilt_row(one, one)], [kilt_row()], [kilt_row(one)] * 2, []):
        with pytest.raises(HarnessError):
            kilt.kilt(guess, gold)


def test_kilt_pages_without_an_id_count_for_recall_only():
    page, nameless = {"wikipedia_id": "7"}, {"title": "Kiln"}
    gold = [kilt_row({"answer": "lamp", "provenance": [page, nameless]})]
    guess = [kilt_row({"answer": None, "provenance": [nameless, page]})]
    scores = kilt.kilt(guess, gold).scores
    assert scores["Rprec"] == 1
    assert scores["recall@5"] == scores["em"] == 0


# --- TriviaQA's keys ----------------------------------------------------------------------


def triviaqa(domain, verified, **question):
    row = {"QuestionId": "t", "QuestionPartOfVerifiedEval": True} | question
    row["Answer"] = {"NormalizedAliases": ["lamp"]}
    return {"Domain": domain, "VerifiedEval": verified, "Version": 1.0, "Data": [row]}


DOCUMENTS = [
    {"Filename": "a.txt", "DocPartOfVerifiedEval": True},
    {"Filename": "b.txt", "DocPartOfVerifiedEval": False},
]


@pytest.mark.parametrize(
    ("domain", "verified", "keys"),
    [
        ("Wikipedia", False, ["t"]),
        ("Wikipedia", True, ["t"]),
        ("Web", False, ["t--a.txt", "t--b.txt"]),
        ("Web", True, ["t--a.txt"]),
        ("wikipedia", True, ["t--a.txt", "t--b.txt"]),
    ],
)
def test_triviaqa_keys_follow_the_domain_and_the_verified_set(domain, verified, keys):
    data = triviaqa(domain, verified, SearchResults=DOCUMENTS)
    assert list(official.triviaqa_keys(data)) == keys
    other = triviaqa(domain, verified, QuestionPartOfVerifiedEval=not verified)
    assert len(official.triviaqa_keys(other)) == (not verified and domain == "Wikipedia")


def test_triviaqa_refuses_a_verified_web_question_without_verified_document():
    with pytest.raises(HarnessError, match="no verified document"):
        official.triviaqa_keys(triviaqa("Web", True, EntityPages=DOCUMENTS[1:]))


def test_triviaqa_refuses_an_answer_list_that_is_empty_and_says_another_version():
    data = triviaqa("Wikipedia", False) | {"Version": 2.0}
    assert "version 1.0" in official.triviaqa({"t": "lamp"}, data).log[0]
    data["Data"][0]["Answer"]["NormalizedAliases"] = []
    with pytest.raises(HarnessError, match="no gold answer"):
        official.triviaqa({"t": "lamp"}, data)


# --- MS MARCO answers ---------------------------------------------------------------------


def test_bleu_clips_repeated_words_and_rouge_takes_precision_and_recall_apart():
    references = ["the cat is on the mat", "there is a cat on the mat"]
    assert msmarco.bleu(["the the the the the the the"], [references])[0] == pytest.approx(2 / 7)
    assert msmarco.bleu(["the cat is on"], [references])[3] == pytest.approx(
        2.718281828459045**-0.5
    )
    assert msmarco.rouge_l("a b", ["a b c d", "a"]) == pytest.approx(1.0)
    assert msmarco.rouge_l("x", ["y"]) == 0


def test_answers_without_references_are_refused():
    for call in (lambda: msmarco.rouge_l("a", []), lambda: msmarco.bleu(["a"], [[]])):
        with pytest.raises(HarnessError, match="no reference"):
            call()
    with pytest.raises(HarnessError, match="1 candidates for 0"):
        msmarco.bleu(["a"], [])


def test_without_spacy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    msmarco._spacy.cache_clear()
    with pytest.raises(HarnessError, match=r"-c constraints.txt -e '\.\[msmarco\]'"):
        msmarco.tokenised("a lamp")


def test_spacy_tokens_are_lower_case_and_split_from_punctuation():
    pytest.importorskip("spacy", reason="needs the extra msmarco")
    msmarco._spacy.cache_clear()
    assert msmarco.tokenised("It's a Lamp.") == "it 's a lamp ."


def test_ms_marcos_f1_is_of_the_choice_of_queries_to_answer():
    none = [msmarco.NO_ANSWER]

    def rows(*answers):
        return [{"query_id": n, "answers": each} for n, each in enumerate(answers)]

    reference = rows(["a", "b"], ["c"], ["d"], none, none, none)
    compared = msmarco.compare(rows(["x"], none, ["d"], ["y"], none, ["z"]), reference)
    assert compared.f1 == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert compared.candidate == {0: ["x"], 1: [""], 2: ["d"]}
    assert msmarco.compare(rows(["x"], none, ["d"], ["y"], none), reference).f1 == compared.f1


@pytest.mark.parametrize(
    "answers", [[["x"], ["c"]], [["x"], ["c"], []], [["x", "y"], ["c"], ["d"]]]
)
def test_ms_marco_refuses_other_queries_and_two_answers(answers):
    candidate = [{"query_id": n, "answers": each} for n, each in enumerate(answers)]
    reference = [{"query_id": n, "answers": ["a"]} for n in range(3)]
    with pytest.raises(HarnessError, match=r"Query \d (is in the reference|has 2 answers)"):
        msmarco.compare(candidate, reference)

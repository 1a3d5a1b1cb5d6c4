"""Each parser: the hub's shape and the official file's of one invented row are one question."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.data import Answer, Candidate, Document, Evidence, Gold, HarnessError, RawQuestion
from harness.spelling import parse_spelled
from tasks import TABLE, hub
from tasks.jsonl import TEXTLESS, UNASKED, UNJUDGED
from tasks.msmarco import UNSELECTED
from tasks.triviaqa import BLANK
from tasks.twowiki import NO_ALIASES, NO_IDS

Row = dict[str, Any]


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def task(spelling: str) -> Any:
    return registry.task(parse_spelled(spelling))


def load(spelling: str, source: Path | None, split: str | None = None, limit: int | None = None):
    """Questions without their places, documents, notes."""
    made = task(spelling)
    loaded = made.load(source, split or made.splits[0], limit)
    documents = list(loaded.documents)
    questions = [replace(question, where="") for question in loaded.questions]
    return questions, documents, dict(loaded.notes)


def one(spelling: str, source: Path, split: str | None = None) -> RawQuestion:
    questions, _, _ = load(spelling, source, split)
    assert len(questions) == 1
    return questions[0]


# --- one invented row a task, as the official file and as the hub have it ----------------

HOTPOT: Row = {
    "_id": "h1",
    "question": "Where was the potter of the blue kiln born?",
    "answer": "Arvo",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Blue kiln", 0], ["Blue kiln", 0], ["Ida", 1]],
    "context": [
        ["Blue kiln", ["The blue kiln is Ida's.", " It is old."]],
        ["Ida", ["Ida is a potter.", " She was born in Arvo.", ""]],
        ["Red kiln", ["The red kiln is cold."]],
    ],
}
TWOWIKI: Row = {
    **{key: HOTPOT[key] for key in ("_id", "question", "answer")},
    "type": "compositional",
    "supporting_facts": [["Blue kiln", 0], ["Ida", 1]],
    "context": [
        ["Blue kiln", ["The blue kiln is Ida's.", "It is old."]],
        ["Ida", ["Ida is a potter.", "She was born in Arvo."]],
    ],
    "evidences": [["Blue kiln", "owner", "Ida"], ["Ida", "birthplace", "Arvo"]],
    "evidences_id": [["Q1", "owner", "Q2"], ["Q2", "birthplace", "Q3"]],
    "answer_id": "Q3",
}
MUSIQUE: Row = {
    "id": "2hop__1_2",
    "question": HOTPOT["question"],
    "answer": "Arvo",
    "answer_aliases": ["Arvo town", "Arvo"],
    "answerable": True,
    "question_decomposition": [],
    "paragraphs": [
        {"idx": 0, "title": "Kiln", "paragraph_text": "It is Ida's.", "is_supporting": True},
        {"idx": 1, "title": "Kiln", "paragraph_text": "It is cold.", "is_supporting": False},
    ],
}
TRIVIA: Row = {
    "question": "Which town has the blue kiln?",
    "question_id": "t1",
    "question_source": "",
    "entity_pages": {
        "doc_source": ["TagMe"],
        "filename": ["Kiln.txt"],
        "title": ["Kiln"],
        "wiki_context": ["The blue kiln stands in Arvo's square."],
    },
    "search_results": {
        "title": ["Page"],
        "filename": ["1/1_2.txt"],
        "search_context": ["Arvon has no kiln."],
    },
    "answer": {
        "value": "Arvo",
        "aliases": ["Arvo", "Old Arvo"],
        "normalized_aliases": ["arvo", "old arvo"],
        "normalized_value": "arvo",
    },
}
TRIVIA_OFFICIAL: Row = {
    "Question": TRIVIA["question"],
    "QuestionId": "t1",
    "Answer": {"Value": "Arvo", "Aliases": [], "NormalizedAliases": ["arvo", "old arvo"]},
    "EntityPages": [{"DocSource": "TagMe", "Filename": "Kiln.txt", "Title": "Kiln"}],
    "SearchResults": [{"Filename": "1/1_2.txt", "Title": "Page"}],
}
MSMARCO: Row = {
    "query_id": 17,
    "query": "where is the blue kiln",
    "query_type": "LOCATION",
    "answers": ["In Arvo"],
    "wellFormedAnswers": ["The kiln is in Arvo."],
    "passages": [
        {"is_selected": 0, "passage_text": "Kilns are hot.", "url": "u"},
        {"is_selected": 1, "passage_text": "The blue kiln is in Arvo.", "url": "v"},
    ],
}


def as_hub(row: Row) -> Row:
    """The official row as the hub's columns."""
    found = deepcopy(row)
    if "_id" in found:
        found["id"] = found.pop("_id")
    for column, names in (
        ("context", ("title", "sentences")),
        ("supporting_facts", ("title", "sent_id")),
    ):
        if column in found:
            values = zip(*found[column], strict=True)
            found[column] = dict(zip(names, map(list, values), strict=True))
    if "passages" in found:
        names = found["passages"][0]
        found["passages"] = {name: [p[name] for p in found["passages"]] for name in names}
    return found


def official_hotpot(folder: Path) -> Path:
    return text(folder / "hotpot_dev_distractor_v1.json", json.dumps([HOTPOT]))


def official_twowiki(folder: Path) -> Path:
    return text(folder / "dev.json", json.dumps([TWOWIKI]))


def official_musique(folder: Path) -> Path:
    return lines(folder / "musique_ans_v1.0_dev.jsonl", MUSIQUE)


def official_trivia(folder: Path) -> Path:
    for kind, name, content in (
        ("wikipedia", "Kiln.txt", TRIVIA["entity_pages"]["wiki_context"][0]),
        ("web", "1/1_2.txt", TRIVIA["search_results"]["search_context"][0]),
    ):
        text(folder / "evidence" / kind / name, content)
    whole = {"Data": [TRIVIA_OFFICIAL], "Domain": "Wikipedia", "Version": 1.0}
    return text(folder / "qa" / "wikipedia-dev.json", json.dumps(whole))


def official_msmarco(folder: Path) -> Path:
    return lines(folder / "dev_v1.1.json", MSMARCO)


def official_msmarco_21(folder: Path) -> Path:
    columns = {key: {"0": value} for key, value in MSMARCO.items()}
    return text(folder / "dev_v2.1.json", json.dumps(columns))


SHAPES: list[tuple[str, Row, Callable[[Path], Path]]] = [
    ("hotpotqa", as_hub(HOTPOT), official_hotpot),
    ("2wikimultihopqa", as_hub(TWOWIKI), official_twowiki),
    ("musique", MUSIQUE, official_musique),
    ("triviaqa", TRIVIA, official_trivia),
    ("triviaqa-long", TRIVIA, official_trivia),
    ("msmarco-qa", as_hub(MSMARCO), official_msmarco),
    ("msmarco-qa:version=v2.1", as_hub(MSMARCO), official_msmarco_21),
]
each_shape = pytest.mark.parametrize(
    ("name", "row", "official"), SHAPES, ids=[s[0] for s in SHAPES]
)


@each_shape
def test_hub_shape_and_official_file_give_the_same_question(
    tmp_path: Path, name: str, row: Row, official: Callable[[Path], Path]
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the hub extra")

    path = official(tmp_path / "official")
    lines(tmp_path / "jsonl" / "validation.jsonl", row)
    lines(tmp_path / "gzip" / "validation.jsonl.gz", row)
    (tmp_path / "parquet").mkdir()
    shard = str(tmp_path / "parquet" / "validation-00000-of-00001.parquet")
    datasets.Dataset.from_list([row]).to_parquet(shard)
    expected = one(name, path)
    assert expected.candidates
    for folder in ("official", "jsonl", "gzip", "parquet"):
        assert one(name, tmp_path / folder) == expected, folder
    assert one(name, Path(shard)) == expected


@pytest.mark.parametrize(
    ("spelling", "row", "labels"),
    [
        ("hotpotqa", HOTPOT, {"question type": "bridge", "level": "hard"}),
        ("2wikimultihopqa", TWOWIKI, {"question type": "compositional"}),
        ("musique", MUSIQUE, {"hops": "2"}),
        ("musique", {**MUSIQUE, "id": "plain"}, {}),
        ("msmarco-qa", MSMARCO, {"query type": "LOCATION"}),
        ("hotpotqa", {k: v for k, v in HOTPOT.items() if k not in ("type", "level")}, {}),
    ],
)
def test_what_a_row_says_of_its_sort_is_kept(spelling: str, row: Row, labels: Row) -> None:
    for shaped in (row, as_hub(row)):
        assert one(spelling, lines(Path("x.jsonl"), shaped)).labels == labels
    with pytest.raises(HarnessError, match=r"x.jsonl:1: 'type' is of type int, expected text"):
        one("hotpotqa", lines(Path("x.jsonl"), {**HOTPOT, "type": 3}))


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa", "musique", "msmarco"])
def test_mini_tasks_say_the_same_of_theirs(name: str) -> None:
    questions, _, _ = load(f"mini-{name}:documents=300,questions=20", None)
    found = {label for question in questions for label in question.labels}
    assert (
        found
        == {
            "hotpotqa": {"question type", "level"},
            "2wikimultihopqa": {"question type"},
            "musique": {"hops"},
            "msmarco": {"query type"},
        }[name]
    )


@each_shape
def test_a_row_without_a_key_or_of_a_wrong_type_names_the_line(
    tmp_path: Path, name: str, row: Row, official: Callable[[Path], Path]
) -> None:
    text_key = "query" if "query" in row else "question"
    for broken, said in (
        ({k: v for k, v in row.items() if k != text_key}, f"no key '{text_key}'"),
        ({**row, text_key: 3}, f"'{text_key}' is of type int, expected text"),
        ({k: v for k, v in row.items() if "id" not in k}, "no key"),
        ([row], "expected an object"),
    ):
        path = lines(tmp_path / "rows.jsonl", row, broken)
        with pytest.raises(HarnessError, match=f"rows.jsonl:2.*{said}") as error:
            load(name, path)
        assert error.value.hint


@each_shape
def test_limit_and_missing_split(
    tmp_path: Path, name: str, row: Row, official: Callable[[Path], Path]
) -> None:
    path = lines(tmp_path / "validation.jsonl", *[row] * 3)
    assert len(load(name, path, limit=2)[0]) == 2
    with pytest.raises(HarnessError, match=r"for the split 'train'.*there is validation\.jsonl"):
        load(name, tmp_path, "train")
    with pytest.raises(HarnessError, match=r"for the split 'train'"):
        next(task(name).examples(path, 0))


@each_shape
def test_examples_come_from_the_train_split(
    tmp_path: Path, name: str, row: Row, official: Callable[[Path], Path]
) -> None:
    lines(tmp_path / "train.jsonl", row)
    (example,) = task(name).examples(tmp_path, 0)
    question = one(name, tmp_path, "train")
    gold = {candidate.document.text for candidate in question.candidates if candidate.grade}
    assert (example.question, example.answer) == (question.text, question.answers[0])
    assert {document.text for document in example.documents[: len(gold)]} == gold


# --- what each parser makes of its row --------------------------------------------------


def test_hotpotqa(tmp_path: Path) -> None:
    question = one("hotpotqa", official_hotpot(tmp_path))
    assert question.id == "h1"
    assert question.answers == ("Arvo",)
    assert question.sentences == (("Blue kiln", 0), ("Blue kiln", 0), ("Ida", 1))
    assert [candidate.grade for candidate in question.candidates] == [1, 1, 0]
    assert question.candidates[1].document == Document(
        "", "Ida is a potter. She was born in Arvo.", "Ida", tuple(HOTPOT["context"][1][1])
    )


def test_the_paragraph_split_has_no_sentence_support(tmp_path: Path) -> None:
    lines(tmp_path / "validation_paragraphs.jsonl", HOTPOT)
    question = one("hotpotqa", tmp_path, "validation_paragraphs")
    assert question.sentences is None
    assert all(candidate.document.sentences == () for candidate in question.candidates)
    with pytest.raises(HarnessError, match="not on the hub"):
        load("hotpotqa", None, "validation_paragraphs")


def test_twowiki_joins_sentences_with_spaces(tmp_path: Path) -> None:
    question = one("2wikimultihopqa", official_twowiki(tmp_path))
    document = question.candidates[1].document
    assert document.text == "Ida is a potter. She was born in Arvo." == "".join(document.sentences)


def test_twowiki_takes_aliases_from_the_file_beside(tmp_path: Path) -> None:
    path = official_twowiki(tmp_path)
    questions, _, notes = load("2wikimultihopqa", path)
    assert questions[0].answers == ("Arvo",)
    assert questions[0].triples == (
        (("Blue kiln",), "owner", ("Ida",)),
        (("Ida",), "birthplace", ("Arvo",)),
    )
    assert notes == {NO_ALIASES: 1}
    lines(
        tmp_path / "id_aliases.json",
        {"Q_id": "Q3", "aliases": ["gone"], "demonyms": []},
        {"Q_id": "Q3", "aliases": ["Arvo town"], "demonyms": ["Arvoan"]},
        {"Q_id": "Q2", "aliases": ["Ida the potter"], "demonyms": []},
    )
    questions, _, notes = load("2wikimultihopqa", path)
    assert questions[0].answers == ("Arvo", "Arvo town", "Arvoan")
    assert questions[0].triples == (
        (("Blue kiln",), "owner", ("Ida", "Ida the potter")),
        (("Ida", "Ida the potter"), "birthplace", ("Arvo", "Arvo town", "Arvoan")),
    )
    assert notes == {}


def test_twowiki_without_ids_or_evidences(tmp_path: Path) -> None:
    lines(tmp_path / "id_aliases.json", {"Q_id": "Q3", "aliases": ["x"], "demonyms": []})
    bare = {k: v for k, v in TWOWIKI.items() if k not in ("evidences_id", "answer_id")}
    (question,), _, notes = load("2wikimultihopqa", lines(tmp_path / "validation.jsonl", bare))
    assert question.answers == ("Arvo",)
    assert question.triples and notes == {NO_IDS: 1}
    del bare["evidences"]
    assert one("2wikimultihopqa", lines(tmp_path / "validation.jsonl", bare)).triples is None
    wrong = {**TWOWIKI, "evidences_id": TWOWIKI["evidences_id"][:1]}
    with pytest.raises(HarnessError, match="'evidences_id' does not fit"):
        load("2wikimultihopqa", lines(tmp_path / "validation.jsonl", wrong))
    wrong = {**TWOWIKI, "evidences": [["a", "b"]]}
    with pytest.raises(HarnessError, match="not a triple"):
        load("2wikimultihopqa", lines(tmp_path / "validation.jsonl", wrong))


def test_musique_keeps_equal_titles_apart_and_aliases(tmp_path: Path) -> None:
    question = one("musique", official_musique(tmp_path))
    assert [candidate.grade for candidate in question.candidates] == [1, 0]
    assert [candidate.native for candidate in question.candidates] == ["0", "1"]
    assert question.answers == ("Arvo", "Arvo town")
    assert question.sentences is None


def test_the_unanswerable_twin_has_its_own_id_and_nothing_relevant(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "musique_full_v1.0_dev.jsonl", MUSIQUE, {**MUSIQUE, "answerable": False}
    )
    (first, twin), _, notes = load("musique:version=full", tmp_path)
    assert first.id != twin.id
    assert not twin.answerable and twin.answers == ()
    assert not any(candidate.grade for candidate in twin.candidates)
    assert notes == {"unanswerable questions": 1}
    assert task("musique:version=full").files(tmp_path, "validation") == [path]
    with pytest.raises(HarnessError, match="not on the hub"):
        load("musique:version=full", None)


def test_musique_support_is_by_paragraph() -> None:
    gold = Gold({"a": 1, "b": 1, "c": 0}, ("Arvo",))
    musique = task("musique")

    def support(*named: str) -> float:
        return musique.score(Answer("Arvo", tuple(map(Evidence, named))), (), gold)["Support-F1"]

    assert support("a", "b") == 1
    assert support("a", "c") == 0.5
    assert support() == 0
    assert "Support-F1" not in musique.score(Answer("Arvo"), None, gold)
    unanswerable = replace(gold, answerable=False, answers=())
    assert musique.score(Answer("Arvo", ()), (), unanswerable) == {}


def test_triviaqa_grades_by_tokens_not_letters(tmp_path: Path) -> None:
    question = one("triviaqa", official_trivia(tmp_path))
    assert [(c.document.title, c.grade) for c in question.candidates] == [("Kiln", 1), ("Page", 0)]
    assert [c.native for c in question.candidates] == ["Kiln.txt", "1/1_2.txt"]


def test_passages_without_names_have_none(tmp_path: Path) -> None:
    row = deepcopy(MUSIQUE)
    del row["paragraphs"][0]["idx"]
    question = one("musique", lines(tmp_path / "musique.jsonl", row))
    assert [candidate.native for candidate in question.candidates] == ["", "1"]
    row = deepcopy(TRIVIA)
    del row["entity_pages"]["filename"]
    question = one("triviaqa", lines(tmp_path / "trivia.jsonl", row))
    assert [candidate.native for candidate in question.candidates] == ["", "1/1_2.txt"]


@pytest.mark.parametrize("name", ["triviaqa", "triviaqa-long"])
def test_blank_evidence_is_counted(tmp_path: Path, name: str) -> None:
    row = deepcopy(TRIVIA)
    row["entity_pages"]["wiki_context"] = [" \n"]
    (question,), _, notes = load(name, lines(tmp_path / "rows.jsonl", row))
    assert len(question.candidates) == 1 and notes == {BLANK: 1}
    row["search_results"]["search_context"] = [""]
    (question,), _, notes = load(name, lines(tmp_path / "rows.jsonl", row))
    assert question.candidates == () and question.answers
    assert notes == {BLANK: 2, "questions without a passage (kept for answers)": 1}


def test_triviaqa_cuts_documents_and_its_long_form_does_not(tmp_path: Path) -> None:
    row = deepcopy(TRIVIA)
    words = [f"w{n}" for n in range(250)]
    row["entity_pages"]["wiki_context"] = [" \n".join([*words[:240], "ARVO", *words[240:]])]
    path = lines(tmp_path / "rows.jsonl", row)
    short, long = one("triviaqa", path), one("triviaqa-long", path)
    assert [len(c.document.text.split()) for c in short.candidates] == [100, 100, 51, 4]
    assert [c.grade for c in short.candidates] == [0, 0, 1, 0]
    assert [c.native for c in short.candidates] == ["Kiln.txt"] * 3 + ["1/1_2.txt"]
    assert long.candidates[0].document.text == row["entity_pages"]["wiki_context"][0]
    assert [c.grade for c in long.candidates] == [1, 0]


def test_triviaqa_uses_retrieved_passages_where_there_are_any(tmp_path: Path) -> None:
    passages = [
        {"id": "x", "title": "Kiln", "text": "In Arvo.", "has_answer": True, "rank": 1},
        {"id": "y", "title": None, "text": "Arvo is not meant.", "has_answer": False, "rank": 2},
    ]
    question = one("triviaqa", lines(tmp_path / "rows.jsonl", {**TRIVIA, "ctxs": passages}))
    assert question.candidates == (
        Candidate(Document("", "In Arvo.", "Kiln"), 1),
        Candidate(Document("", "Arvo is not meant."), 0),
    )


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ({"value": "Arvo", "normalized_aliases": ["arvo", "x"]}, ("Arvo", "arvo", "x")),
        ({"value": "The Arvo!", "normalized_aliases": ["x", "arvo"]}, ("The Arvo!", "x", "arvo")),
        # The official script reads neither value nor aliases.
        ({"value": "Else", "aliases": ["y"], "normalized_aliases": ["arvo"]}, ("arvo",)),
        ({"value": "A", "normalized_aliases": ["a1"], "human_answers": ["b"]}, ("a1", "b")),
        ({"value": "Arvo"}, ("Arvo",)),
        ({}, ()),
    ],
)
def test_triviaqa_accepts_what_the_official_script_does(
    tmp_path: Path, answer: Row, accepted: tuple[str, ...]
) -> None:
    path = lines(tmp_path / "rows.jsonl", {**TRIVIA, "answer": answer})
    assert one("triviaqa", path).answers == accepted


def test_a_missing_evidence_document_is_named(tmp_path: Path) -> None:
    path = official_trivia(tmp_path)
    (tmp_path / "evidence" / "wikipedia" / "Kiln.txt").unlink()
    with pytest.raises(HarnessError, match=r"row 1: its document evidence/wikipedia/Kiln\.txt"):
        load("triviaqa", path)
    (tmp_path / "evidence" / "wikipedia" / "Kiln.txt").write_bytes(b"kiln\n\xff")
    with pytest.raises(HarnessError, match=r"Kiln\.txt:2: not UTF-8"):
        load("triviaqa", path)


def test_msmarco_qa_drops_and_counts(tmp_path: Path) -> None:
    unselected = deepcopy(MSMARCO)
    unselected["passages"][1]["is_selected"] = 0
    rows = [MSMARCO, unselected, {**MSMARCO, "query_id": 2, "answers": ["No Answer Present."]}]
    rows.append({**MSMARCO, "query_id": 3, "answers": [" "]})
    questions, _, notes = load("msmarco-qa", lines(tmp_path / "v1.1.jsonl", *rows))
    assert [(q.id, q.answers, q.answerable) for q in questions] == [
        ("17", ("In Arvo",), True),
        ("2", (), False),
        ("3", (), True),
    ]
    assert notes == {UNSELECTED: 1, "questions without an answer (kept for ranking)": 2}
    assert [(c.document.title, c.grade) for c in questions[0].candidates] == [("", 0), ("", 1)]


# --- passage ranking --------------------------------------------------------------------

PASSAGES = [("p1", "The kiln is hot."), ("p2", "Looms are not."), ("p3", "Rain.")]


def official_passages(folder: Path) -> Path:
    text(folder / "collection.tsv", "".join(f"{pid}\t{passage}\n" for pid, passage in PASSAGES))
    text(folder / "msmarco-test2019-queries.tsv", "1\tis the kiln hot\n2\tnever judged\n")
    text(folder / "2019qrels-pass.txt", "1 Q0 p1 3\n1 0 p2 0\n1 0 gone 2\n")
    return folder


def beir_passages(folder: Path, prefix: str = "", suffix: str = "") -> Path:
    documents = [{"_id": pid, "title": "", "text": passage} for pid, passage in PASSAGES]
    lines(folder / f"{prefix}corpus.jsonl{suffix}", *documents)
    queries = [{"_id": "1", "text": "is the kiln hot"}, {"_id": "2", "text": "never judged"}]
    lines(folder / f"{prefix}queries.jsonl{suffix}", *queries)
    grades = [("1", "p1", 3), ("1", "p2", 0), ("1", "gone", 2)]
    if prefix:
        rows = [{"query-id": q, "corpus-id": d, "score": float(s)} for q, d, s in grades]
        lines(folder / f"{prefix}qrels.jsonl{suffix}", *rows)
    else:
        table = "".join(f"{q}\t{d}\t{s}\n" for q, d, s in grades)
        text(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + table)
    return folder


@pytest.mark.parametrize("shape", ["official", "beir", "prefixed"])
def test_passage_ranking_reads_three_shapes(tmp_path: Path, shape: str) -> None:
    if shape == "official":
        official_passages(tmp_path)
    else:
        beir_passages(tmp_path, *(("dl19_", ".gz") if shape == "prefixed" else ()))
    questions, documents, notes = load("msmarco-dl19", tmp_path)
    assert questions == [
        RawQuestion("1", "is the kiln hot", relevance={"p1": 3, "p2": 0, "gone": 2})
    ]
    assert documents == [Document(pid, passage) for pid, passage in PASSAGES]
    assert notes == {TEXTLESS: 1, UNJUDGED: 1}
    assert len(task("msmarco-dl19").files(tmp_path, "test")) == 3


def test_another_years_folder_is_not_taken(tmp_path: Path) -> None:
    beir_passages(tmp_path / "beir")
    with pytest.raises(HarnessError, match=r"no qrels/dl20\.tsv; there is test\.tsv"):
        load("msmarco-dl20", tmp_path / "beir")
    beir_passages(tmp_path / "dl19", "dl19_")
    with pytest.raises(HarnessError, match=r"no collection\.tsv, nor dl20_corpus\.jsonl"):
        load("msmarco-dl20", tmp_path / "dl19")
    official_passages(tmp_path / "official")
    with pytest.raises(HarnessError, match=r"no msmarco-test2020-queries\.tsv"):
        load("msmarco-dl20", tmp_path / "official")
    with pytest.raises(HarnessError, match="not on the hub"):
        load("msmarco-dl20", None)
    with pytest.raises(HarnessError, match="is not a folder"):
        load("msmarco-dev", lines(tmp_path / "a.jsonl", {}))


def test_a_line_of_the_wrong_form_is_named(tmp_path: Path) -> None:
    official_passages(tmp_path)
    text(tmp_path / "2019qrels-pass.txt", "1 0 p1 3\n1 0 p2\n")
    with pytest.raises(HarnessError, match=r"2019qrels-pass\.txt:2: 3 columns"):
        load("msmarco-dl19", tmp_path)
    text(tmp_path / "2019qrels-pass.txt", "1 0 p1 3\n")
    text(tmp_path / "collection.tsv", "p1\ta\np2 without a tab\n")
    with pytest.raises(HarnessError, match=r"collection\.tsv:2: 1 tab-separated"):
        load("msmarco-dl19", tmp_path)


# --- anybody's data ---------------------------------------------------------------------


def folder_of(folder: Path, **changes: Any) -> Path:
    parts = {
        "corpus": [{"_id": "d1", "title": "Kiln", "text": "hot"}, {"_id": "d2", "text": "cold"}],
        "queries": [{"_id": "q1", "text": "kiln?", "answers": ["hot"]}],
        "qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
        **changes,
    }
    for name, rows in parts.items():
        lines(folder / f"{name}.jsonl", *rows)
    return folder


def test_a_beir_folder_with_answers(tmp_path: Path) -> None:
    questions, documents, notes = load(f"jsonl:{folder_of(tmp_path)}", None)
    assert questions == [RawQuestion("q1", "kiln?", relevance={"d1": 1}, answers=("hot",))]
    assert documents == [Document("d1", "hot", "Kiln"), Document("d2", "cold")]
    assert notes == {}


def judged_by(folder: Path, table: str) -> str:
    """A folder with this table of judgements for its split dev; returns the task's spelling."""
    (folder_of(folder) / "qrels.jsonl").unlink()
    text(folder / "qrels" / "dev.tsv", table)
    return f"jsonl:{folder},split=dev"


def test_the_first_line_of_a_table_of_judgements_is_a_header(tmp_path: Path) -> None:
    name = judged_by(tmp_path, "query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    questions, _, _ = load(name, None)
    assert questions[0].relevance == {"d1": 1}
    with pytest.raises(HarnessError, match=r"no qrels/test\.tsv; there is dev\.tsv"):
        load(f"jsonl:{tmp_path}", None)


@pytest.mark.parametrize("grade", ["1", "0", "2.0", "-1"])
def test_a_table_of_judgements_without_its_header_is_refused(tmp_path: Path, grade: str) -> None:
    name = judged_by(tmp_path, f"q1\td2\t{grade}\nq1\td1\t1\n")
    with pytest.raises(HarnessError, match=r"dev\.tsv:1: the header .*query-id corpus-id score"):
        load(name, None)


@pytest.mark.parametrize("grade", ["much", "1.5", "nan", "inf", "1\tx"])
def test_a_grade_is_a_whole_number(tmp_path: Path, grade: str) -> None:
    name = judged_by(tmp_path, f"header\tof\tthree\nq1\td1\t{grade}\n")
    with pytest.raises(HarnessError, match=r"dev\.tsv:2: the score '"):
        load(name, None)


@pytest.mark.parametrize(
    ("query", "document", "said"),
    [("q1", "d9", "document 'd9'"), ("q9", "d1", "query 'q9'")],
)
def test_judgements_that_point_nowhere(
    tmp_path: Path, query: str, document: str, said: str
) -> None:
    grades = [("q1", "d2"), (query, document)]
    rows = [{"query-id": q, "corpus-id": d, "score": 1} for q, d in grades]
    folder = folder_of(tmp_path, qrels=rows)
    with pytest.raises(HarnessError, match=rf"qrels\.jsonl:2: there is no {said}.*missing=keep"):
        load(f"jsonl:{folder}", None)
    with pytest.raises(HarnessError, match=said):
        load(f"jsonl:{folder}", None, limit=0)
    questions, _, notes = load(f"jsonl:{folder},missing=keep", None)
    kept = {"d2": 1, "d9": 1} if document == "d9" else {"d2": 1}
    assert questions[0].relevance == kept
    assert notes == {TEXTLESS if document == "d9" else UNASKED: 1}


def test_an_id_that_stands_twice(tmp_path: Path) -> None:
    rows = [
        {"_id": "d1", "text": "hot"},
        {"_id": "d2", "text": "cold"},
        {"_id": "d1", "text": "hot"},
    ]
    assert len(load(f"jsonl:{folder_of(tmp_path, corpus=rows)}", None)[1]) == 3
    rows[2]["text"] = "warm"
    with pytest.raises(HarnessError, match=r"corpus\.jsonl:3: the id 'd1' stands at .*jsonl:1"):
        load(f"jsonl:{folder_of(tmp_path, corpus=rows)}", None)


def test_a_judgement_that_stands_twice_counts_once_with_the_higher_grade(tmp_path: Path) -> None:
    rows = [{"query-id": "q1", "corpus-id": "d1", "score": s} for s in (1, 2, 0)]
    questions, _, notes = load(f"jsonl:{folder_of(tmp_path, qrels=rows)}", None)
    assert questions[0].relevance == {"d1": 2}
    assert notes == {"judgements merged (same query and document)": 2}


def test_a_flashrag_folder(tmp_path: Path) -> None:
    row = {"id": "f1", "question": "kiln?", "golden_answers": ["hot", "warm"], "metadata": {}}
    lines(tmp_path / "test.jsonl", row)
    lines(tmp_path / "corpus.jsonl", {"id": "0", "contents": '"Blue kiln"\nIt is hot.\nVery.'})
    questions, documents, _ = load(f"jsonl:{tmp_path}", None)
    assert questions == [RawQuestion("f1", "kiln?", answers=("hot", "warm"))]
    assert documents == [Document("0", "It is hot.\nVery.", "Blue kiln")]


@pytest.mark.parametrize(
    ("contents", "title", "words"),
    [
        ("It is hot.", "", "It is hot."),
        ('"Blue kiln"', "Blue kiln", ""),
        ("Blue kiln\nIt is hot.", "Blue kiln", "It is hot."),
        ('""Kiln" (song)"\nIt is sung.', '"Kiln" (song)', "It is sung."),
    ],
)
def test_one_line_of_flashrag_contents_is_text(
    tmp_path: Path, contents: str, title: str, words: str
) -> None:
    lines(tmp_path / "test.jsonl", {"id": "f1", "question": "kiln?", "golden_answers": ["hot"]})
    lines(tmp_path / "corpus.jsonl", {"id": "0", "contents": contents})
    assert load(f"jsonl:{tmp_path}", None)[1] == [Document("0", words, title)]


def test_the_folder_is_the_source(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="Leave --from out"):
        load(f"jsonl:{folder_of(tmp_path)}", tmp_path)
    with pytest.raises(HarnessError, match="is not a folder"):
        load(f"jsonl:{tmp_path / 'nowhere'}", None)
    (tmp_path / "bare").mkdir()
    with pytest.raises(HarnessError, match=r"neither x_corpus\.jsonl .* nor x_test\.jsonl"):
        load(f"jsonl:{tmp_path / 'bare'},prefix=x_", None)


def test_a_changed_folder_is_another_version(tmp_path: Path) -> None:
    before = task(f"jsonl:{folder_of(tmp_path)}").version
    assert task(f"jsonl:{tmp_path}").version == before
    folder_of(tmp_path, queries=[{"_id": "q1", "text": "another?"}])
    assert task(f"jsonl:{tmp_path}").version != before


def test_a_file_beside_those_that_are_read_changes_no_version(tmp_path: Path) -> None:
    before = task(f"jsonl:{folder_of(tmp_path)}").version
    text(tmp_path / "bm25.run", "q1 Q0 d1 1 1.0 bm25\n")
    lines(tmp_path / "other_corpus.jsonl", {})
    assert task(f"jsonl:{tmp_path}").version == before


# --- native ids -------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["\t", "\n", "\r", "\0"])
@pytest.mark.parametrize(
    ("part", "key", "row"),
    [
        ("corpus", "_id", {"text": "hot"}),
        ("queries", "_id", {"text": "kiln?", "answers": ["hot"]}),
        ("qrels", "corpus-id", {"query-id": "q1", "score": 1}),
        ("qrels", "query-id", {"corpus-id": "d1", "score": 1}),
    ],
)
def test_an_id_with_a_control_character_is_refused(
    tmp_path: Path, part: str, key: str, row: Row, control: str
) -> None:
    folder = folder_of(tmp_path, **{part: [{key: f"x{control}1", **row}]})
    with pytest.raises(HarnessError, match=rf"{part}\.jsonl:1: 'x\\.*expected an id without"):
        load(f"jsonl:{folder}", None)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("collection.tsv", "p1\ta\np\r2\tb\n"),
        ("collection.tsv", "p1\ta\n\tb\n"),
        ("msmarco-test2019-queries.tsv", "1\tis the kiln hot\n\x002\tnever\n"),
        ("2019qrels-pass.txt", "1 0 p1 3\n1 0 p\x002 0\n"),
    ],
)
def test_an_id_in_a_table_is_checked_too(tmp_path: Path, file: str, content: str) -> None:
    text(official_passages(tmp_path) / file, content)
    with pytest.raises(HarnessError, match=rf"{file}:2: '.*expected an id without"):
        load("msmarco-dl19", tmp_path)


def test_an_id_in_a_table_of_judgements_is_checked_too(tmp_path: Path) -> None:
    name = judged_by(tmp_path, "header\tof\tthree\nq1\td\x001\t1\n")
    with pytest.raises(HarnessError, match=r"dev\.tsv:2: 'd\\x001', expected an id"):
        load(name, None)


def test_a_passage_keeps_its_tabs(tmp_path: Path) -> None:
    text(official_passages(tmp_path) / "collection.tsv", "p1\ta\tb\n")
    assert load("msmarco-dl19", tmp_path)[1] == [Document("p1", "a\tb")]


# --- the hub ----------------------------------------------------------------------------


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset's repository as a folder, which stands for the hub."""
    datasets = pytest.importorskip("datasets", reason="needs the hub extra")
    import huggingface_hub

    shard = tmp_path / "distractor" / "validation-00000-of-00001.parquet"
    shard.parent.mkdir()
    datasets.Dataset.from_list([as_hub(HOTPOT)]).to_parquet(str(shard))
    configs = {
        "config_name": "distractor",
        "data_files": [{"split": "validation", "path": "distractor/validation-*"}],
    }
    text(tmp_path / "README.md", f"---\nconfigs: {json.dumps([configs])}\n---\n")
    build = datasets.load_dataset_builder

    def builder(name: str, config: str, revision: str) -> Any:
        assert name == "hotpotqa/hotpot_qa" and len(revision) == 40
        return build(str(tmp_path), config)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _, name, repo_type, revision: name
    )
    return tmp_path


def test_the_hubs_files_are_found_and_streamed(hub_copy: Path) -> None:
    questions, _, _ = load("hotpotqa", None)
    assert questions == [one("hotpotqa", official_hotpot(hub_copy / "official"))]
    (path,) = task("hotpotqa").files(None, "validation")
    assert path.name == "validation-00000-of-00001.parquet"


def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the hub extra")

    def fails(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset_builder", fails)
    with pytest.raises(HarnessError, match=r"cannot be fetched .*reach the Hub\).*--from PATH"):
        load("hotpotqa", None)


def test_a_revision_is_a_commit() -> None:
    with pytest.raises(HarnessError, match="'main' is not a commit"):
        hub.fetch(hub.Hub("some/data", "", "main"), "train")


# --- all of them ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_every_task_keeps_the_contract(tmp_path: Path, name: str) -> None:
    if name in ("jsonl", "yaml"):
        folder, file = folder_of(tmp_path), tmp_path / "task.yaml"
        file.write_text(f"name: yaml\nformat: beir\npath: {folder}\n")
        made = task(f"{name}:{folder if name == 'jsonl' else file}")
    else:
        made = task(name)
    assert made.name == name
    assert made.generated == name.startswith("mini-")
    assert made.splits and set(made.settings) <= {"pool", "corpus"}
    assert made.kind in ("official", "sparse", "graded", "distant")
    assert made.group_by in ("question", "documents")
    assert made.instruction and made.licence and made.version and type(made).__doc__
    gold = Gold({"d": 1}, ("Arvo",), (("Ida", 0),), ((("Ida",), "in", ("Arvo",)),))
    answer = Answer("Arvo", (Evidence("d", 0),), (("Ida", "in", "Arvo"),))
    scores = made.score(answer, (("Ida", 0),), gold)
    assert all(scores[metric] == 1 for metric in made.answer_metrics)
    assert made.ranking_metrics
    assert all(metric.startswith(("nDCG@", "R@", "RR", "AP")) for metric in made.ranking_metrics)

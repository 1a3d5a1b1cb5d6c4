from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.data import Candidate, Document, HarnessError, RawQuestion
from tasks import shapes
from tasks.hub import Hub


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# --- nested columns ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        [["Kiln", ["a", "b"]], ["Loom", ["c"]]],
        [{"title": "Kiln", "sentences": ["a", "b"]}, {"title": "Loom", "sentences": ["c"], "x": 1}],
        {"title": ["Kiln", "Loom"], "sentences": [["a", "b"], ["c"]], "other": []},
    ],
)
def test_three_nestings_are_one(column: Any) -> None:
    assert shapes.rows_of({"context": column}, "context", ("title", "sentences"), "f:1") == [
        {"title": "Kiln", "sentences": ["a", "b"]},
        {"title": "Loom", "sentences": ["c"]},
    ]


def test_a_nested_column_may_have_more() -> None:
    for column in (
        {"title": ["Kiln"], "idx": [3], "url": None},
        [{"title": "Kiln", "idx": 3}],
    ):
        (entry,) = shapes.rows_of({"c": column}, "c", ("title",), "f:1", ("idx", "url"))
        assert entry == {"title": "Kiln", "idx": 3}
        assert shapes.reference(entry, "idx", "f:1") == "3"
        assert shapes.reference(entry, "url", "f:1") == ""
    with pytest.raises(HarnessError, match="different lengths"):
        shapes.rows_of({"c": {"title": ["Kiln"], "idx": []}}, "c", ("title",), "f:1", ("idx",))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"title": ["Kiln"], "sentences": []}, "columns of different lengths"),
        ({"title": ["Kiln"]}, "no key 'sentences'"),
        ([["Kiln"]], r"an entry that is not \(title, sentences\)"),
        ([["Kiln", [], 3]], r"an entry that is not \(title, sentences\)"),
        ([{"title": "Kiln"}], "no key 'sentences'"),
        ("Kiln", "of type str, expected a list"),
        (None, "null, expected a list"),
    ],
)
def test_a_broken_nesting_is_one_sentence(column: Any, said: str) -> None:
    with pytest.raises(HarnessError, match=f"f:1: 'context'.*{said}|f:1: .*{said}"):
        shapes.rows_of({"context": column}, "context", ("title", "sentences"), "f:1")


# --- fields -----------------------------------------------------------------------------


def test_field_names_the_place_the_keys_there_and_the_type() -> None:
    with pytest.raises(HarnessError, match=r"f:3: no key 'question' \(there are: id, q\)"):
        shapes.field({"id": 1, "q": 2}, "question", str, "f:3")
    with pytest.raises(HarnessError, match="f:3: 'question' is of type int, expected text"):
        shapes.field({"question": 4}, "question", str, "f:3")
    with pytest.raises(HarnessError, match="f:3: of type list, expected an object"):
        shapes.field([1], "question", str, "f:3")
    with pytest.raises(HarnessError, match="f:3: an entry of 'answers' is null"):
        shapes.texts({"answers": ["a", None]}, "answers", "f:3")


def test_optional_takes_missing_and_null_but_no_wrong_type() -> None:
    assert shapes.optional({}, "a", str, "-", "f:1") == "-"
    assert shapes.optional({"a": None}, "a", str, "-", "f:1") == "-"
    assert shapes.optional({"a": ""}, "a", str, "-", "f:1") == ""
    with pytest.raises(HarnessError, match="expected text"):
        shapes.optional({"a": 1}, "a", str, "-", "f:1")


def test_identifiers_are_text() -> None:
    assert shapes.identifier({"_id": "a"}, "f:1") == "a"
    assert shapes.identifier({"id": 17}, "f:1") == "17"
    assert shapes.identifier({"query_id": 0}, "f:1", "query_id") == "0"
    for wrong in ("", True, 1.5, ["a"], "a\tb", "a\n", "\0"):
        with pytest.raises(HarnessError, match="expected an id"):
            shapes.identifier({"id": wrong}, "f:1")
    with pytest.raises(HarnessError, match="no key '_id'"):
        shapes.identifier({"id": None}, "f:1")


# --- files of a split -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("validation.jsonl", "validation.jsonl.gz", "validation.json", "validation.json.gz"),
        *("validation.parquet", "validation-00000-of-00001.parquet"),
        *("official_dev.json", "official_dev.json.gz"),
        *("distractor/validation-00000-of-00001.parquet", "data/validation-0.parquet"),
    ],
)
def test_a_split_is_found_by_every_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, {})
    write(tmp_path / "validation_paragraphs.jsonl", {})
    write(tmp_path / "train.jsonl", {})
    found = shapes.find_split(tmp_path, "validation", ["official_dev.json"], "distractor")
    assert found == [path]


def test_shards_come_in_order(tmp_path: Path) -> None:
    shards = [write(tmp_path / f"train-0000{n}-of-00003.parquet", {}) for n in (2, 0, 1)]
    assert shapes.find_split(tmp_path, "train") == sorted(shards)


def test_a_file_is_its_own_split(tmp_path: Path) -> None:
    path = write(tmp_path / "anything.jsonl", {})
    assert shapes.find_split(path, "validation") == [path]


def test_what_was_looked_for_and_what_is_there_is_said(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {})
    with pytest.raises(HarnessError, match=r"looked for .*dev\.json; there is train\.jsonl"):
        shapes.find_split(tmp_path, "validation", ["dev.json"])
    with pytest.raises(HarnessError, match="does not exist"):
        shapes.find_split(tmp_path / "nowhere", "validation")


def test_two_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "validation.jsonl", {})
    write(tmp_path / "dev.json", {})
    with pytest.raises(HarnessError, match=r"has validation\.jsonl, dev\.json for 'validation'"):
        shapes.find_split(tmp_path, "validation", ["dev.json"])


def test_a_name_that_the_machine_refuses_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"cannot be read \(File name too long\)"):
        shapes.find_split(tmp_path, "x" * 300)


def test_a_split_that_the_hub_lacks_needs_a_copy() -> None:
    hub = Hub("some/data", "", "0" * 40)
    with pytest.raises(HarnessError, match=r"not on the hub .*validation, train.*--from"):
        shapes.split_files(None, "test", hub)


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the hub extra")
    whole = gzip.compress(b"".join(b'{"n":%d}\n' % n for n in range(20_000)))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "torn.jsonl").write_text('{"a": 1}\n{"a": ')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "number.json").write_text("3")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not at all")
    for name, said in (
        ("cut.jsonl.gz", r"cut.jsonl.gz:\d+: the gzip data is broken"),
        ("no.jsonl.gz", "no.jsonl.gz:1: the gzip data is broken"),
        ("torn.jsonl", "torn.jsonl:2: not valid JSON"),
        ("empty.jsonl", "empty.jsonl is empty"),
        ("number.json", "expected a list of rows"),
        ("bad.parquet", "not a whole parquet file"),
    ):
        with pytest.raises(HarnessError, match=said):
            list(shapes.rows([tmp_path / name]))


# --- supporting facts -------------------------------------------------------------------


def row(context: Any, facts: Any) -> dict[str, Any]:
    return {"context": context, "supporting_facts": facts}


def test_support_grades_paragraphs_and_stays_verbatim() -> None:
    notes: Counter[str] = Counter()
    facts = [["Loom", 1], ["Loom", 1], ["Gone", 0]]
    candidates, sentences = shapes.supported(
        row([["Kiln", ["a."]], ["Loom", ["b.", "c."]]], facts), "f:1", notes, " ", False
    )
    assert [candidate.grade for candidate in candidates] == [0, 1]
    assert sentences == (("Loom", 1), ("Loom", 1), ("Gone", 0))
    assert candidates[1].document == Document("", "b. c.", "Loom", ("b.", " c."))
    assert notes == {shapes.ABSENT: 1}


def test_a_fact_beyond_its_paragraph_counts_and_is_told() -> None:
    notes: Counter[str] = Counter()
    candidates, _ = shapes.supported(
        row([["Kiln", ["a."]], ["Loom", ["b."]]], [["Loom", 4]]), "f:1", notes, " ", False
    )
    assert [candidate.grade for candidate in candidates] == [0, 1]
    assert notes == {shapes.BEYOND: 1}


def test_of_equal_titles_those_with_the_sentence_count() -> None:
    context = [["Kiln", ["a."]], ["Kiln", ["b.", "c."]], ["Kiln", ["d."]]]

    def grades(sentence: int) -> list[int]:
        facts = [["Kiln", sentence]]
        found, _ = shapes.supported(row(context, facts), "f:1", Counter(), "", False)
        return [candidate.grade for candidate in found]

    assert grades(1) == [0, 1, 0]
    assert grades(0) == [1, 1, 1]
    assert grades(7) == [1, 1, 1]


def test_whole_paragraphs_have_no_sentence_support() -> None:
    candidates, sentences = shapes.supported(
        row([["Kiln", ["a. b."]]], [["Kiln", 0]]), "f:1", Counter(), " ", True
    )
    assert sentences is None
    assert candidates == (Candidate(Document("", "a. b.", "Kiln"), 1),)


# --- examples ---------------------------------------------------------------------------


def question(number: int, answers: tuple[str, ...] = ("a",), grade: int = 1) -> RawQuestion:
    pool = [Candidate(Document("", f"other {number} {n}")) for n in range(5)]
    pool.insert(number % 5, Candidate(Document("", f"gold {number}"), grade))
    return RawQuestion(str(number), f"question {number}?", tuple(pool), answers=answers)


def test_examples_show_gold_first_in_an_order_of_the_seed() -> None:
    questions = [question(number) for number in range(30)]
    first = list(shapes.examples(questions, 1))
    assert first == list(shapes.examples(questions, 1))
    texts = [example.question for example in first]
    assert texts != [example.question for example in shapes.examples(questions, 2)]
    assert sorted(texts) == sorted(each.text for each in questions)
    for example in first:
        assert [d.text.split()[0] for d in example.documents] == ["gold", "other", "other", "other"]
        assert example.documents[0].text.split()[1] == example.question.split()[1].strip("?")
        assert example.documents[0].id


def test_examples_need_an_answer_and_a_gold_passage() -> None:
    questions = [question(1, answers=()), question(2, grade=0), question(3)]
    assert [example.question for example in shapes.examples(questions, 0)] == ["question 3?"]


def test_examples_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "BUFFER", 4)
    read = []

    def stream() -> Any:
        for number in range(50):
            read.append(number)
            yield question(number)

    taken = shapes.examples(stream(), 0)
    next(taken)
    assert len(read) == 5
    assert len(list(taken)) == 49


def test_examples_never_come_from_the_file_of_the_questions(tmp_path: Path) -> None:
    path = write(tmp_path / "validation.jsonl", {})
    assert shapes.beside(path) == tmp_path
    assert shapes.beside(tmp_path) == tmp_path
    assert shapes.beside(None) is None

"""The parsers on real rows; skipped without the folder of real data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness import api, registry
from harness.data import Document, RawQuestion
from harness.spelling import parse_spelled


def load(
    name: str, source: Path | None, split: str
) -> tuple[list[RawQuestion], list[Document], dict[str, int]]:
    loaded = registry.task(parse_spelled(name)).load(source, split, None)
    documents = list(loaded.documents)
    return list(loaded.questions), documents, dict(loaded.notes)


@pytest.mark.parametrize(
    ("name", "source", "split", "rows"),
    [
        ("hotpotqa", "hotpotqa", "validation", 171),
        ("hotpotqa", "hotpotqa", "validation_paragraphs", 194),
        ("hotpotqa", "hotpotqa", "train", 100),
        ("musique", "musique", "validation", 107),
        ("musique", "musique", "train", 120),
        ("2wikimultihopqa", "2wikimultihopqa", "validation", 78),
        ("2wikimultihopqa", "2wikimultihopqa", "validation_paragraphs", 256),
        ("triviaqa", "triviaqa", "validation", 546),
        ("triviaqa", "triviaqa/rc_sample.jsonl.gz", "validation", 11),
        ("triviaqa-long", "triviaqa/rc_sample.jsonl.gz", "validation", 11),
        ("msmarco-qa", "msmarco", "validation", 91),
    ],
)
def test_every_row_is_parsed(
    real_data: Path, name: str, source: str, split: str, rows: int
) -> None:
    questions, documents, notes = load(name, real_data / source, split)
    assert len(questions) == rows
    assert not documents
    for question in questions:
        assert question.text and question.candidates
        assert question.answers or not question.answerable
        for candidate in question.candidates:
            document = candidate.document
            assert not document.sentences or document.text == "".join(document.sentences)
        relevant = any(candidate.grade for candidate in question.candidates)
        assert relevant == question.answerable or name == "triviaqa"
    if name == "msmarco-qa":
        assert notes == {"rows without a selected passage (dropped)": 7}


def test_support_of_whole_paragraphs_is_unknown(real_data: Path) -> None:
    for name in ("hotpotqa", "2wikimultihopqa"):
        folder = real_data / name
        assert all(q.sentences is None for q in load(name, folder, "validation_paragraphs")[0])
        assert all(q.sentences for q in load(name, folder, "validation")[0])


def test_the_rc_sample_has_rows_of_one_question(real_data: Path) -> None:
    source = real_data / "triviaqa" / "rc_sample.jsonl.gz"
    questions, _, _ = load("triviaqa-long", source, "validation")
    assert len({question.id for question in questions}) == 9
    assert max(len(c.document.text) for q in questions for c in q.candidates) > 30_000


def test_passages_have_the_names_that_submissions_use(real_data: Path) -> None:
    for question in load("musique", real_data / "musique", "validation")[0]:
        assert [each.native for each in question.candidates] == list(map(str, range(20)))
    for name in ("triviaqa", "triviaqa-long"):
        questions = load(name, real_data / "triviaqa" / "rc_sample.jsonl.gz", "validation")[0]
        assert all(each.native.endswith(".txt") for q in questions for each in q.candidates)


def test_dl19_is_a_part_of_its_corpus(real_data: Path) -> None:
    questions, documents, notes = load("msmarco-dl19", real_data / "msmarco", "test")
    assert (len(questions), len(documents)) == (43, 10_852)
    assert sum(len(question.relevance) for question in questions) == 9260
    (untexted,) = notes.values()
    assert 0 < untexted < 9260


@pytest.mark.parametrize(
    ("folder", "prefix", "queries", "documents"),
    [
        ("hotpotqa", "", 365, 6757),
        ("musique", "", 107, 5338),
        ("2wikimultihopqa", "", 334, 5530),
        ("triviaqa", "", 417, 12_330),
        ("msmarco", ",prefix=v1.1_", 91, 797),
    ],
)
def test_beir_files(
    real_data: Path, folder: str, prefix: str, queries: int, documents: int
) -> None:
    found = load(f"jsonl:{real_data / folder}{prefix}", None, "test")
    assert (len(found[0]), len(found[1]), found[2]) == (queries, documents, {})


def test_examples_of_real_train_files(real_data: Path) -> None:
    for name in ("hotpotqa", "musique"):
        task = registry.task(parse_spelled(name))
        first = list(task.examples(real_data / name, 1))
        assert first == list(task.examples(real_data / name / "validation.jsonl.gz", 1))
        assert len(first) >= 100
        assert all(example.answer and example.documents for example in first)


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("hotpotqa", "hotpotqa/validation.jsonl.gz"),
        ("2wikimultihopqa", "2wikimultihopqa/validation.jsonl.gz"),
    ],
)
def test_hub_shape_and_file_shape_are_the_same_data(
    real_data: Path, tmp_path: Path, task: str, file: str
) -> None:
    """The hub nests the official lists of lists as dicts of lists, and says ``id``."""
    with (
        gzip.open(real_data / file, "rt") as rows,
        (tmp_path / "validation.jsonl").open("w") as out,
    ):
        for row in map(json.loads, rows):
            row["id"] = row.pop("_id")
            titles, sentences = zip(*row["context"], strict=True)
            row["context"] = {"title": titles, "sentences": sentences}
            titles, numbers = zip(*row["supporting_facts"], strict=True)
            row["supporting_facts"] = {"title": titles, "sent_id": numbers}
            out.write(json.dumps(row) + "\n")
    official = api.prepare(task, real_data / file, "validation")
    nested = api.prepare(task, tmp_path / "validation.jsonl", "validation")
    assert official.name == nested.name

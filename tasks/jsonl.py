"""Anybody's data: a folder in BEIR's or FlashRAG's shape.

BEIR      corpus.jsonl {_id, title, text}, queries.jsonl {_id, text[, answers]}, and
          qrels/<split>.tsv (its first line is a header) or qrels.jsonl {query-id, corpus-id, score}
FlashRAG  <split>.jsonl {id, question, golden_answers}, corpus.jsonl {id, contents} whose first
          line, if there are more or if it is in quotes, is the title; no judgements, so no
          ranking metric

Every file may be gzip, and its name may begin with a ``prefix``. Rows that `export` wrote of a mini
task say so (`harness.files.GENERATED`), and stay mini. Sources: github.com/beir-cellar/
beir and github.com/RUC-NLPIR/FlashRAG, their pages on datasets.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from re import fullmatch
from typing import Any, Literal

import numpy as np

from harness import files
from harness.contract import Setting, Task
from harness.data import Document, HarnessError, Loaded, RawQuestion
from tasks import shapes

Documents = Iterator[tuple[str, Document]]
Judgement = tuple[str, str, str, int]
"""Place, query, document, grade."""


@dataclass(frozen=True)
class Collection:
    """A corpus, questions and judgements, each read anew at every call. lacks: the file of
    judgements that was looked for and is not there; empty: it is, or the shape has none."""

    documents: Callable[[], Documents]
    queries: Callable[[], Iterator[RawQuestion]]
    qrels: Callable[[], Iterator[Judgement]] = lambda: iter(())
    lacks: str = ""


# --- from a collection to questions ---------------------------------------------------

TEXTLESS = "judged documents without text (kept in the ideal ranking)"
UNASKED = "judged queries without text (dropped)"
UNJUDGED = "queries without judgements and answers (dropped)"


@dataclass
class _Judged:
    """Joins the parts of a collection. ``keep``: judgements may point outside of it."""

    collection: Collection
    keep: bool
    limit: int | None
    notes: Counter[str] = field(default_factory=Counter)
    grades: dict[str, dict[str, int]] = field(default_factory=dict)
    query_places: dict[str, str] = field(default_factory=dict)
    document_places: dict[str, str] = field(default_factory=dict)

    def read_qrels(self) -> None:
        for place, query, document, grade in self.collection.qrels():
            graded = self.grades.setdefault(query, {})
            if document in graded:
                self.notes["judgements merged (same query and document)"] += 1
            graded[document] = max(grade, graded.get(document, grade))
            self.query_places.setdefault(query, place)
            self.document_places.setdefault(document, place)

    def documents(self) -> Iterator[Document]:
        for document in _distinct(self.collection.documents):
            self.document_places.pop(document.id, None)
            yield document

    def questions(self) -> Iterator[RawQuestion]:
        self._missing(self.document_places, "document", TEXTLESS)
        kept = 0
        for query in self.collection.queries():
            self.query_places.pop(query.id, None)
            if query.id not in self.grades and not query.answers:
                self.notes[UNJUDGED] += 1
            elif self.limit is None or kept < self.limit:
                kept += 1
                yield replace(query, relevance=self.grades.get(query.id, {}))
        self._missing(self.query_places, "query", UNASKED)
        if self.collection.lacks and self.notes[UNJUDGED] and not kept and self.limit != 0:
            raise HarnessError(
                f"there is no {self.collection.lacks}, and no query has answers.",
                "Add the judgements, or answers to the queries.",
            )

    def _missing(self, places: dict[str, str], what: str, reason: str) -> None:
        if not places:
            return
        if not self.keep:
            name, place = next(iter(places.items()))
            raise HarnessError(
                f"{place}: there is no {what} {name!r} ({len(places)} such in all).",
                "Mend the judgements; for a part of a corpus write missing=keep.",
            )
        self.notes[reason] = len(places)


def judged(collection: Collection, limit: int | None, keep: bool) -> Loaded:
    """The questions of a collection that can be scored, and its corpus.

    Questions without judgements and answers are dropped and counted. ``keep``: judged documents
    without text stay in the relevance (and are counted), else they are an error.
    """
    both = _Judged(collection, keep, limit)
    both.read_qrels()
    return Loaded(both.questions(), both.documents(), both.notes)


def _distinct(read: Callable[[], Documents]) -> Iterator[Document]:
    """Documents, 8 bytes of memory each; an id that stands twice with other content is an error.

    Copies with the same content go through: `prepare` merges and counts them.
    """
    hashes = array("q")
    for _, document in read():
        hashes.append(hash(document.id))
        yield document
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    twice = set(values[counts > 1].tolist())
    first: dict[str, tuple[str, Document]] = {}
    for place, document in read() if twice else ():
        if hash(document.id) not in twice:
            continue
        before, known = first.setdefault(document.id, (place, document))
        if known != document:
            raise HarnessError(
                f"{place}: the id {document.id!r} stands at {before} with another text.",
                "Give every document its own id.",
            )


# --- the shapes -----------------------------------------------------------------------


def beir_documents(numbered: files.Numbered) -> Documents:
    """Rows {_id, title, text}; the title may be missing."""
    for place, row in numbered:
        title = shapes.optional(row, "title", str, "", place)
        text = shapes.field(row, "text", str, place)
        yield place, Document(shapes.identifier(row, place), text, title)


def beir_queries(numbered: files.Numbered) -> Iterator[RawQuestion]:
    """Rows {_id, text[, answers]}."""
    for place, row in numbered:
        yield _query(row, place, "text", "answers")


def _query(row: Any, place: str, text: str, answers: str) -> RawQuestion:
    return RawQuestion(
        shapes.identifier(row, place),
        shapes.field(row, text, str, place),
        answers=shapes.texts(row, answers, place),
        where=place,
    )


def beir_qrels(numbered: files.Numbered) -> Iterator[Judgement]:
    """Rows {query-id, corpus-id, score}."""
    for place, row in numbered:
        query, document = (shapes.identifier(row, place, f"{x}-id") for x in ("query", "corpus"))
        yield place, query, document, grade_of(shapes.field(row, "score", object, place), place)


def table_qrels(path: Path) -> Iterator[Judgement]:
    """BEIR's table: query, document, grade; its first line is a header."""
    table = files.table_rows(path, 3)
    place, (_, _, first) = next(table)
    if fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", first):
        raise HarnessError(
            f"{place}: the header is missing: a judgement stands in the first line.",
            "Put the line `query-id corpus-id score` (with tabs between) before it.",
        )
    for place, (query, document, grade) in table:
        ids = shapes.native(query, place), shapes.native(document, place)
        yield place, *ids, grade_of(grade, place)


def grade_of(value: object, place: str) -> int:
    """A grade, which the hub stores as a floating number."""
    if isinstance(value, int | float | str):
        try:
            if float(value) == int(float(value)):
                return int(float(value))
        except (ValueError, OverflowError):
            pass
    raise HarnessError(f"{place}: the score {value!r} is not a whole number.", "Mend that line.")


def flashrag_documents(numbered: files.Numbered) -> Documents:
    """Rows {id, contents}; one line of contents without quotes is a text without a title."""
    for place, row in numbered:
        first, more, text = shapes.field(row, "contents", str, place).partition("\n")
        title = first.strip()
        if quoted := fullmatch('"(.*)"', title):
            title = quoted[1]
        elif not more:
            title, text = "", first
        yield place, Document(shapes.identifier(row, place), text, title)


def flashrag_queries(numbered: files.Numbered) -> Iterator[RawQuestion]:
    """Rows {id, question, golden_answers}."""
    for place, row in numbered:
        yield _query(row, place, "question", "golden_answers")


def beir(folder: Path, prefix: str, split: str) -> tuple[Collection, list[Path]] | None:
    """The collection of a BEIR-shaped folder and its files; None if it has no corpus there."""
    corpus = shapes.existing(folder, [f"{prefix}corpus.jsonl"])
    queries = shapes.existing(folder, [f"{prefix}queries.jsonl"])
    if not corpus or not queries:
        return None
    names = [f"{prefix}qrels.jsonl", f"{prefix}qrels/{split}.tsv", f"{prefix}qrels/{split}.jsonl"]
    qrels = shapes.existing(folder, names)
    if not qrels and (there := sorted((folder / f"{prefix}qrels").glob("*.*"))):
        raise HarnessError(
            f"{folder} has no {names[1]}; there is {', '.join(path.name for path in there)}.",
            "Name a split that has judgements.",
        )
    if len(qrels) > 1:
        raise HarnessError(
            f"{folder} has both {qrels[0].name} and {qrels[1].name}.", "Keep one of them."
        )
    collection = Collection(
        lambda: beir_documents(files.json_rows(corpus[0])),
        lambda: beir_queries(files.json_rows(queries[0])),
        lambda: _qrels(qrels),
        "" if qrels else str(folder / names[1]),
    )
    return collection, [corpus[0], queries[0], *qrels]


def _qrels(paths: Iterable[Path]) -> Iterator[Judgement]:
    for path in paths:
        table = path.name.removesuffix(".gz").endswith(".tsv")
        yield from table_qrels(path) if table else beir_qrels(files.json_rows(path))


def flashrag(folder: Path, prefix: str, split: str) -> tuple[Collection, list[Path]] | None:
    """The collection of a FlashRAG-shaped folder and its files; None if the split is not there."""
    queries = shapes.existing(folder, [f"{prefix}{split}.jsonl"])
    if not queries:
        return None
    corpus = shapes.existing(folder, [f"{prefix}corpus.jsonl"])
    collection = Collection(
        lambda: flashrag_documents(files.json_rows(corpus[0])) if corpus else iter(()),
        lambda: flashrag_queries(files.json_rows(queries[0])),
    )
    return collection, [*queries, *corpus]


def collection(folder: Path, split: str, prefix: str = "") -> tuple[Collection, list[Path]]:
    """The collection of a folder in BEIR's or FlashRAG's shape, and the files that it is read from.

    split:  of its judgements (BEIR) or its questions (FlashRAG)
    prefix: what its file names begin with
    Nothing is read yet; `judged` makes a task's questions and corpus of it. `HarnessError` if the
    folder has neither shape.
    """
    if not folder.is_dir():
        raise HarnessError(f"{folder} is not a folder.", "Write jsonl:FOLDER.")
    found = beir(folder, prefix, split) or flashrag(folder, prefix, split)
    if found is None:
        raise HarnessError(
            f"{folder} has neither {prefix}corpus.jsonl and {prefix}queries.jsonl "
            f"nor {prefix}{split}.jsonl (each may end in .gz).",
            "Check the folder, prefix= and split=.",
        )
    return found


class Jsonl(Task):
    """A folder in BEIR's or FlashRAG's shape. ``dir`` is the folder, ``prefix`` what its file names
    begin with; ``missing=keep`` allows judgements of documents and queries that are not there.
    Where there is a train split beside ``split``, demonstrations are drawn from it."""

    name = "jsonl"
    ranking_metrics: tuple[str, ...] = ("nDCG@10", "R@10", "RR@10", "AP")
    settings: tuple[Setting, ...] = ("corpus",)
    submissions = ("trec", "msmarco-passage")
    instruction = "Answer with a few words taken from the passages."
    licence = "that of your data"
    offline = True

    def __init__(
        self,
        dir: Path,
        prefix: str = "",
        split: str = "test",
        missing: Literal["error", "keep"] = "error",
    ) -> None:
        self.dir, self.prefix, self.keep = dir, prefix, missing == "keep"
        names = (
            f"{prefix}{each}" for each in ("qrels/train.tsv", "qrels/train.jsonl", "train.jsonl")
        )
        train = split != "train" and shapes.existing(dir, list(names))
        self.splits = (split, "train") if train else (split,)
        rows = [f"{prefix}{each}.jsonl" for each in ("corpus", "queries", *self.splits)]
        self.generated = dir.is_dir() and any(map(files.is_generated, shapes.existing(dir, rows)))

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """Changes when a file that is read does, so that the folder is prepared again."""
        digest = blake2b(digest_size=4)
        for path in dict.fromkeys(path for each in self.splits for path in self.files(None, each)):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions and corpus of the folder; see `Task.load`."""
        return judged(self._found(source, split)[0], limit, self.keep)

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads, for checksums."""
        return self._found(source, split)[1]

    def _found(self, source: Path | None, split: str) -> tuple[Collection, list[Path]]:
        if source is not None:
            raise HarnessError(f"jsonl reads {self.dir}.", "Leave --from out.")
        return collection(self.dir, split, self.prefix)

"""MS MARCO: question answering (Bajaj et al. 2016), and passage ranking over 8.8M passages with
the sparse dev judgements or the graded ones of TREC Deep Learning 2019 and 2020 (Craswell et al.).

Row shapes: the hub's dataset card of microsoft/ms_marco; microsoft.github.io/msmarco (official
.json and .tsv files); trec.nist.gov (qrels). Empty "wellFormedAnswers" are not gold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from harness import files
from harness.contract import Task
from harness.data import Candidate, Document, GoldKind, HarnessError, Loaded, RawQuestion
from harness.score.msmarco import NO_ANSWER
from tasks import hub, jsonl, shapes
from tasks.hub import Hub
from tasks.shapes import field

REVISION = "a47ee7aae8d7d466ba15f9f0bfac3b3681087b3a"
SPLITS = {"validation": "dev", "train": "train", "test": "eval"}
"""The harness's name of a split → that in official file names."""
LICENCE = "MS MARCO terms: non-commercial research only"
UNSELECTED = "rows without a selected passage (dropped)"


class MSMarcoQA(Task):
    """Bing questions over up to ten passages, of which people selected some; v1.1 or v2.1.

    Answers are scored as SQuAD v1.1 does: the official ROUGE-L and BLEU need spaCy's tokens.
    """

    name = "msmarco-qa"
    splits: tuple[str, ...] = ("validation", "train", "test")
    kind = "sparse"
    submissions = ("msmarco-qa", "trec")
    instruction = "Answer in one sentence or less, from what the passages say."
    max_new_tokens = 64
    licence = LICENCE
    citation = "Bajaj et al. 2016, MS MARCO, arXiv:1611.09268"

    def __init__(self, version: Literal["v1.1", "v2.1"] = "v1.1") -> None:
        self.data_version = version

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads, for checksums."""
        at_hub = Hub("microsoft/ms_marco", self.data_version, REVISION, {s: s for s in SPLITS})
        official = [f"{SPLITS[split]}_{self.data_version}.json"]
        if split == "validation":
            official.append(f"{self.data_version}.jsonl")
        return shapes.split_files(source, split, at_hub, official)

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions of a split; see `Task.load`."""
        rows = chain.from_iterable(map(_qa_rows, self.files(source, split)))
        return shapes.pooled(rows, self.question, limit)

    def question(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion | None:
        """One row; None if nobody selected a passage."""
        candidates = tuple(
            Candidate(
                Document("", field(passage, "passage_text", str, place)),
                int(field(passage, "is_selected", int, place) > 0),
            )
            for passage in shapes.rows_of(row, "passages", ("passage_text", "is_selected"), place)
        )
        if not any(candidate.grade for candidate in candidates):
            notes[UNSELECTED] += 1
            return None
        given = shapes.texts(row, "answers", place)
        answers = tuple(text for text in given if text.strip() and text != NO_ANSWER)
        if not answers:
            notes["questions without an answer (kept for ranking)"] += 1
        return RawQuestion(
            shapes.identifier(row, place, "query_id"),
            field(row, "query", str, place),
            candidates,
            answers=answers,
            answerable=bool(answers) or NO_ANSWER not in given,
            where=place,
            labels=shapes.labels(row, place, query_type="query_type"),
        )

    examples = shapes.train_examples


def _qa_rows(path: Path) -> files.Numbered:
    """Rows of a file. The official .json has a row a line in v1.1, a dict of columns in v2.1."""
    if path.suffix == ".parquet" or ".jsonl" in path.suffixes:
        yield from shapes.read_rows(path)
        return
    _, start = next(files.lines(path))
    if start.startswith("["):
        yield from files.json_rows(path)
    elif re.match(r'\{\s*"\w+":\s*\{', start) is None:
        yield from ((place, files.decode(place, line)) for place, line in files.lines(path))
    else:
        columns = files.json_value(path)
        for number in field(columns, "query_id", dict, str(path)):
            place = f"{path} row {number}"
            yield place, {name: field(columns[name], number, object, place) for name in columns}


class _Passages(Task):
    """Passage ranking, without gold answers: what dev and the two TREC years share."""

    answer_metrics = ()
    ranking_metrics: tuple[str, ...] = ("nDCG@10", "RR", "AP", "R@100")
    settings = ("corpus",)
    kind: GoldKind = "graded"
    submissions = ("msmarco-passage", "trec")
    rel = 2
    instruction = MSMarcoQA.instruction
    max_new_tokens = 64
    licence = LICENCE

    prefix: str
    """What file names of a BEIR-shaped folder may begin with."""
    judged: str
    """The split of BEIR's judgements, in a folder and on the hub."""
    queries: tuple[str, ...]
    """Official names of the file of questions."""
    qrels: tuple[str, ...]
    """Official names of the file of judgements."""

    def files(self, source: Path | None, split: str) -> list[Path]:  # noqa: ARG002
        """What `load` reads, for checksums."""
        return self._found(source)[1]

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:  # noqa: ARG002
        """Judged questions, and the corpus as a stream; see `Task.load`."""
        return jsonl.judged(self._found(source)[0], limit, keep=True)

    def _found(self, source: Path | None) -> tuple[jsonl.Collection, list[Path]]:
        if source is None:
            return _from_hub(self.name, self.judged)
        if not source.is_dir():
            raise HarnessError(
                f"{source} is not a folder.", "Give the folder with corpus, queries and qrels."
            )
        # Without its prefix, only a split's own judgements tell that the folder is this task's.
        prefixes = (self.prefix, "") if (source / "qrels").is_dir() else (self.prefix,)
        shaped = (jsonl.beir(source, prefix, self.judged) for prefix in prefixes)
        return next(filter(None, shaped), None) or self._official(source)

    def _official(self, folder: Path) -> tuple[jsonl.Collection, list[Path]]:
        paths = []
        for names in (("collection.tsv",), self.queries, self.qrels):
            there = shapes.existing(folder, names)
            if not there:
                raise HarnessError(
                    f"{folder} has no {' or '.join(names)}, nor {self.prefix}corpus.jsonl.",
                    "Fetch the official files into one folder; each may end in .gz.",
                )
            paths.append(there[0])
        corpus, queries, qrels = paths
        collection = jsonl.Collection(
            lambda: _passages(corpus), lambda: _queries(queries), lambda: _trec_qrels(qrels)
        )
        return collection, paths


def _passages(path: Path) -> jsonl.Documents:
    """collection.tsv: pid, text."""
    for place, (pid, text) in files.table_rows(path, 2):
        yield place, Document(shapes.native(pid, place), text)


def _queries(path: Path) -> Iterator[RawQuestion]:
    """queries.*.tsv: qid, text."""
    for place, (qid, text) in files.table_rows(path, 2):
        yield RawQuestion(shapes.native(qid, place), text, where=place)


def _trec_qrels(path: Path) -> Iterator[jsonl.Judgement]:
    """``qid 0 pid grade``, by white space."""
    for place, (query, _, document, grade) in files.word_rows(path, "qid 0 pid grade"):
        query, document = shapes.native(query, place), shapes.native(document, place)
        yield place, query, document, jsonl.grade_of(grade, place)


def _from_hub(name: str, judged: str) -> tuple[jsonl.Collection, list[Path]]:
    """The collection of mteb/msmarco: configs corpus, queries and default (the judgements)."""
    if judged not in ("dev", "test"):
        raise HarnessError(
            f"{name} is not on the hub.", "Give the official files with --from PATH."
        )
    revision = "c5a29a104738b98a9e76336939199e264163d4a0"
    parts = (("corpus", "corpus"), ("queries", "queries"), ("default", judged))
    corpus, queries, qrels = (
        hub.fetch(Hub("mteb/msmarco", config, revision, {split: split}), split)
        for config, split in parts
    )
    collection = jsonl.Collection(
        lambda: jsonl.beir_documents(shapes.rows(corpus)),
        lambda: jsonl.beir_queries(shapes.rows(queries)),
        lambda: jsonl.beir_qrels(shapes.rows(qrels)),
    )
    return collection, [*corpus, *queries, *qrels]


class MSMarcoDev(_Passages):
    """Passage ranking, the 6,980 questions of the small dev set, about one judgement each."""

    name = "msmarco-dev"
    ranking_metrics = ("RR@10", "nDCG@10", "R@100")
    splits = ("dev",)
    kind = "sparse"
    rel = 1
    citation = "Bajaj et al. 2016, MS MARCO, arXiv:1611.09268"
    prefix = "dev_"
    judged = "dev"
    queries = ("queries.dev.small.tsv",)
    qrels = ("qrels.dev.small.tsv",)


class MSMarcoDL19(_Passages):
    """TREC Deep Learning 2019, passage ranking: 43 questions, grades 0 to 3."""

    name = "msmarco-dl19"
    citation = "Craswell et al. 2020, TREC 2019 Deep Learning, arXiv:2003.07820"
    prefix = "dl19_"
    judged = "test"
    queries = ("msmarco-test2019-queries.tsv",)
    qrels = ("2019qrels-pass.txt", "qrels.dl19-passage.txt")


class MSMarcoDL20(_Passages):
    """TREC Deep Learning 2020, passage ranking: 54 questions, grades 0 to 3."""

    name = "msmarco-dl20"
    citation = "Craswell et al. 2021, TREC 2020 Deep Learning, arXiv:2102.07662"
    prefix = "dl20_"
    judged = "dl20"
    queries = ("msmarco-test2020-queries.tsv",)
    qrels = ("2020qrels-pass.txt", "qrels.dl20-passage.txt")

"""A task that a YAML file describes: a folder of jsonl, and what to make of it. No code.

    name: harbours
    format: jsonl               # or beir, flashrag: the shapes of `tasks.jsonl`
    path: .                     # the folder, seen from the file
    metrics: [EM, F1, nDCG@10]

``jsonl``   <split>.jsonl {id, question, answers, passages: [{text[, title, relevant]}]}: each
            question brings its own candidates; ``relevant`` is true, false or a grade

What it does not do: prompts with placeholders, code, scorers of one's own (those are a class).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.contract import Setting, Task
from harness.data import (
    Answer,
    Candidate,
    Document,
    Gold,
    GoldKind,
    HarnessError,
    Loaded,
    RawQuestion,
)
from harness.files import json_rows
from harness.forms import Form, read_form
from harness.score.answers import score_squad
from harness.score.outputs import is_output
from harness.score.ranking import check_measures
from tasks import shapes
from tasks.jsonl import Collection, Jsonl, beir, flashrag

ANSWERS = ("EM", "F1")
"""What `score_squad` returns: exact match and F1 after SQuAD's normaliser."""


class Description(Form):
    """The keys of a file; see `harness.contract.Task` for those that are not the folder's.

    path, prefix: the folder, seen from the file, and what the names of its files begin with
    splits:       the first is the default; demonstrations are drawn from ``train``
    metrics:      EM and F1 of SQuAD, and rankings as ir-measures spells them
    group:        the field of a question whose value it shares with others that belong together
                  (``metadata.topic``: the field of a field); intervals resample these
    missing:      ``keep`` allows judgements of documents and queries that are not there
    """

    name: str = Field(min_length=1)
    format: Literal["beir", "flashrag", "jsonl"]
    path: Path = Path()
    prefix: str = ""
    splits: tuple[str, ...] = Field(("test",), min_length=1)
    metrics: tuple[str, ...] = Field((*ANSWERS, *Task.ranking_metrics), min_length=1)
    setting: Setting | None = None
    group: str = ""
    kind: GoldKind = Task.kind
    rel: int = Field(Task.rel, ge=1)
    instruction: str = Jsonl.instruction
    max_new_tokens: int = Field(Task.max_new_tokens, ge=1)
    licence: str = Jsonl.licence
    citation: str = ""
    missing: Literal["error", "keep"] = "error"


class Described(Jsonl):
    """A folder of jsonl that a YAML file describes (docs/plug-in.md has its keys)."""

    def __init__(self, file: Path) -> None:
        told = read_form(file, Description)
        super().__init__(file.parent / told.path, told.prefix, told.splits[0], told.missing)
        self.file, self.told, self.splits = file, told, told.splits
        self.name, self.kind, self.rel = told.name, told.kind, told.rel
        self.instruction, self.max_new_tokens = told.instruction, told.max_new_tokens
        self.licence, self.citation = told.licence, told.citation
        self.answer_metrics = tuple(each for each in told.metrics if each in ANSWERS)
        self.ranking_metrics = tuple(each for each in told.metrics if each not in ANSWERS)
        self.settings = self._settings()
        self._check_metrics()

    def _settings(self) -> tuple[Setting, ...]:
        """Those that the data has, the one that is asked for first."""
        there: tuple[Setting, ...] = ("pool", "corpus") if self._pooled else ("corpus",)
        asked = self.told.setting or there[0]
        if asked not in there:
            raise HarnessError(
                f"{self.file}: questions of the format {self.told.format} bring no candidates.",
                "Write setting: corpus, or leave it out.",
            )
        return (asked, *(each for each in there if each != asked))

    def _check_metrics(self) -> None:
        try:
            check_measures(self.ranking_metrics)
        except HarnessError as error:
            mend = f"{error.hint} Of answers: {', '.join(ANSWERS)}."
            raise HarnessError(f"{self.file}: {error.message}", mend) from None
        if beyond := [each for each in self.ranking_metrics if is_output(each)]:
            raise HarnessError(
                f"{self.file}: {', '.join(beyond)} is no metric of a task.",
                "Leave it out there, and ask for it with --metric.",
            )

    @property
    def _pooled(self) -> bool:
        """Whether questions bring their candidates."""
        return self.told.format == "jsonl"

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions and corpus of the folder; see `Task.load`."""
        if self._pooled:
            loaded = shapes.pooled(shapes.rows(self._data(source, split)), question, limit)
        else:
            loaded = super().load(source, split, limit)
        if self.told.group:
            loaded.questions = self._grouped(loaded.questions, self._asked(source, split))
        return loaded

    def files(self, source: Path | None, split: str) -> list[Path]:
        """The description and what `load` reads, for checksums."""
        return [self.file, *self._data(source, split)]

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """Those of EM and F1 that the description names; see `score_squad`."""
        found = score_squad(answer, support, gold)
        return {name: found[name] for name in self.answer_metrics if name in found}

    def _data(self, source: Path | None, split: str) -> list[Path]:
        """The files of the folder that hold a split."""
        if not self._pooled:
            return self._found(source, split)[1]
        self._refuse(source)
        name = f"{self.prefix}{split}.jsonl"
        found = shapes.existing(self.dir, [name])
        if not found:
            raise HarnessError(f"{self.dir} has no {name}[.gz].", f"Mend path in {self.file}.")
        return found[:1]

    def _found(self, source: Path | None, split: str) -> tuple[Collection, list[Path]]:
        self._refuse(source)
        beirs = self.told.format == "beir"
        found = (beir if beirs else flashrag)(self.dir, self.prefix, split)
        if found is None:
            names = ("corpus.jsonl", "queries.jsonl") if beirs else (f"{split}.jsonl",)
            lacking = " and ".join(f"{self.prefix}{name}" for name in names)
            raise HarnessError(
                f"{self.dir} has no {lacking} (each may end in .gz).",
                f"Mend path, prefix or splits in {self.file}.",
            )
        named = self.ranking_metrics if "metrics" in self.told.model_fields_set else ()
        if named and found[0].lacks:
            raise HarnessError(
                f"there is no {found[0].lacks}, by which {', '.join(named)} would be scored.",
                f"Add the judgements, or take these metrics out of {self.file}.",
            )
        return found

    def _refuse(self, source: Path | None) -> None:
        if source is not None:
            raise HarnessError(f"{self.file} says where its data is.", "Leave --from out.")
        if not self.dir.is_dir():
            raise HarnessError(f"{self.dir} is not a folder.", f"Mend path in {self.file}.")

    def _asked(self, source: Path | None, split: str) -> Path:
        """The file that has the questions of a split."""
        name = "queries" if self.told.format == "beir" else split
        start = f"{self.prefix}{name}.jsonl"
        return next(each for each in self._data(source, split) if each.name.startswith(start))

    def _grouped(self, questions: Iterable[RawQuestion], path: Path) -> Iterator[RawQuestion]:
        """The questions with their groups, which stand in the rows that they were read from."""
        *outer, last = self.told.group.split(".")
        groups = {}
        for place, row in json_rows(path):
            for key in outer:
                row = shapes.field(row, key, dict, place)
            groups[place] = shapes.identifier(row, place, last)
        for each in questions:
            yield replace(each, group=groups[each.where])


def question(row: Any, place: str, notes: Counter[str]) -> RawQuestion:  # noqa: ARG001
    """One row of the format ``jsonl``."""
    return RawQuestion(
        shapes.identifier(row, place, "id"),
        shapes.field(row, "question", str, place),
        tuple(_candidate(each, place) for each in shapes.field(row, "passages", list, place)),
        answers=shapes.texts(row, "answers", place),
        where=place,
    )


def _candidate(passage: Any, place: str) -> Candidate:
    what = f"{place}: a passage"
    title = shapes.optional(passage, "title", str, "", what)
    document = Document("", shapes.field(passage, "text", str, what), title)
    return Candidate(document, int(shapes.optional(passage, "relevant", int, 0, what)))

"""MuSiQue (Trivedi et al. 2022): two to four hops, twenty paragraphs, supporting paragraphs.

Row shape: github.com/StonyBrookNLP/musique. ``version=full`` adds the unanswerable twins, which
have the id of their answerable row; here theirs ends in `UNANSWERABLE`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness.contract import Task
from harness.data import (
    UNANSWERABLE,
    Answer,
    Candidate,
    Document,
    Gold,
    HarnessError,
    Loaded,
    RawQuestion,
)
from harness.score.answers import score_musique
from tasks import shapes
from tasks.hub import Hub
from tasks.shapes import field

HUB = Hub("bdsaglam/musique", "answerable", "22873a405dd809893b22ada0b499299fb612d2df")
PART = {"validation": "dev", "train": "train"}
PARAGRAPH = ("title", "paragraph_text", "is_supporting")
HOPS = re.compile(r"(\d)hop")
"""How its ids begin."""


class MuSiQue(Task):
    """Questions of two to four hops over twenty paragraphs, supporting paragraphs known."""

    name = "musique"
    answer_metrics = ("EM", "F1", "Support-F1")
    ranking_metrics = ("nDCG@10", "R@5", "R@10", "RR@10", "AP")
    splits: tuple[str, ...] = ("validation", "train")
    group_by = "documents"
    submissions = ("musique", "trec")
    instruction = "Answer with a few words taken from the passages."
    licence = "CC BY 4.0"
    citation = "Trivedi et al. 2022, MuSiQue, TACL"

    def __init__(self, version: Literal["ans", "full"] = "ans") -> None:
        self.data_version = version

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads, for checksums."""
        if source is None and self.data_version == "full":
            raise HarnessError(
                "MuSiQue-Full is not on the hub.", "Give the official file with --from PATH."
            )
        official = f"musique_{self.data_version}_v1.0_{PART[split]}.jsonl"
        return shapes.split_files(source, split, HUB, (official,))

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions of a split; see `Task.load`."""
        return shapes.pooled(shapes.rows(self.files(source, split)), self.question, limit)

    def question(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion:
        """One row. An unanswerable question has no relevant paragraph and no answer."""
        answerable = shapes.optional(row, "answerable", bool, True, place)
        if not answerable:
            notes["unanswerable questions"] += 1
        candidates = tuple(
            Candidate(
                Document(
                    "",
                    field(paragraph, "paragraph_text", str, place),
                    field(paragraph, "title", str, place),
                ),
                int(answerable and field(paragraph, "is_supporting", bool, place)),
                shapes.reference(paragraph, "idx", place),
            )
            for paragraph in shapes.rows_of(row, "paragraphs", PARAGRAPH, place, ("idx",))
        )
        answer, aliases = (
            field(row, "answer", str, place),
            shapes.texts(row, "answer_aliases", place),
        )
        native = shapes.identifier(row, place)
        hops = HOPS.match(native)
        return RawQuestion(
            native + ("" if answerable else UNANSWERABLE),
            field(row, "question", str, place),
            candidates,
            answers=tuple(dict.fromkeys((answer, *aliases))) if answerable else (),
            answerable=answerable,
            where=place,
            labels={"hops": hops[1]} if hops else {},
        )

    def score(
        self,
        answer: Answer,
        support: Sequence[tuple[str, int]] | None,  # noqa: ARG002
        gold: Gold,
    ) -> dict[str, float]:
        """As evaluate_v1.0.py; support is compared by paragraph, here the document's id."""
        relevant = tuple((doc_id, 0) for doc_id, grade in gold.relevance.items() if grade > 0)
        named = answer.evidence
        paragraphs = None if named is None else [(each.doc_id, 0) for each in named]
        scores = score_musique(answer, paragraphs, replace(gold, sentences=relevant))
        scores.pop("SP-EM", None)  # the script does not report it
        if "SP-F1" in scores:
            scores["Support-F1"] = scores.pop("SP-F1")
        return scores

    examples = shapes.train_examples

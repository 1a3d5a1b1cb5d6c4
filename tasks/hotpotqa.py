"""HotpotQA (Yang et al. 2018): two-hop questions, ten paragraphs each, supporting sentences.

Row shape: github.com/hotpotqa/hotpot, "Data Structure"; the hub nests the same columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.contract import Task
from harness.data import Answer, Gold, Loaded, RawQuestion
from harness.score.answers import score_hotpotqa
from tasks import shapes
from tasks.hub import Hub
from tasks.shapes import field

HUB = Hub("hotpotqa/hotpot_qa", "distractor", "1908d6afbbead072334abe2965f91bd2709910ab")
OFFICIAL = {"validation": ("hotpot_dev_distractor_v1.json",), "train": ("hotpot_train_v1.1.json",)}
PARAGRAPHS = "validation_paragraphs"
"""A split whose paragraphs are one string each: no sentence-level support."""


class HotpotQA(Task):
    """Two-hop questions over ten paragraphs, supporting sentences known (distractor setting)."""

    name = "hotpotqa"
    answer_metrics = ("EM", "F1", "SP-EM", "SP-F1", "Joint-EM", "Joint-F1")
    ranking_metrics = ("nDCG@10", "R@2", "R@5", "RR@10", "AP")
    splits: tuple[str, ...] = ("validation", "train", PARAGRAPHS)
    group_by = "documents"
    submissions = ("hotpotqa", "trec")
    instruction = "Answer with a few words taken from the passages, or with yes or no."
    licence = "CC BY-SA 4.0"
    citation = "Yang et al. 2018, HotpotQA, EMNLP"

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads, for checksums."""
        return shapes.split_files(source, split, HUB, OFFICIAL.get(split, ()))

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions of a split; see `Task.load`."""
        rows = shapes.rows(self.files(source, split))
        return shapes.pooled(rows, partial(self.question, whole=split == PARAGRAPHS), limit)

    def question(
        self, row: Any, place: str, notes: Counter[str], whole: bool = False
    ) -> RawQuestion:
        """One row; sentences carry the spaces between them."""
        candidates, sentences = shapes.supported(row, place, notes, "", whole)
        return RawQuestion(
            shapes.identifier(row, place),
            field(row, "question", str, place),
            candidates,
            answers=(field(row, "answer", str, place),),
            sentences=sentences,
            where=place,
            labels=shapes.labels(row, place, question_type="type", level="level"),
        )

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """As hotpot_evaluate_v1.py; see `score_hotpotqa`."""
        return score_hotpotqa(answer, support, gold)

    examples = shapes.train_examples

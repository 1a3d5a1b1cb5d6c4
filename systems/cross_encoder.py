"""Reranks by a cross-encoder, which reads question and passage together (Nogueira and Cho 2019,
arXiv 1901.04085): any Hugging Face sequence classifier with one or two logits, such as BGE's.

What it does not do: windows over long passages (they are cut), lists of passages at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.corpus import Corpus
from harness.data import Brief, Query, Reply
from systems.models.classifier import Classifier
from systems.models.hub import OneModel, check_sizes
from systems.ranking import reranked


class CrossEncoder(OneModel):
    """Options: the model (shipped, on the hub or a folder) and its ``revision``; ``max_length`` in
    tokens of a question and its passage, of which the passage is cut; ``batch_size`` of pairs."""

    takes = "ForSequenceClassification"
    needs_pool = True

    def __init__(
        self,
        model: str = "mini-cross-encoder",
        max_length: int = 512,
        batch_size: int = 32,
        revision: str = "",
    ) -> None:
        check_sizes("cross-encoder", max_length=max_length, batch_size=batch_size)
        self.model, self.revision = model, revision
        self.max_length, self.batch_size = max_length, batch_size

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        self.corpus = corpus
        self.classifier = Classifier(
            self.folder(),
            max_length=self.max_length,
            batch_size=self.batch_size,
            device=brief.device,
            dtype=brief.dtype,
        )

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """The pool by score; ``counts`` says how many tokens were read."""
        return reranked(self.corpus, queries, k, self.classifier.judge)

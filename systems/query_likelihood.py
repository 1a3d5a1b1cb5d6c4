"""Reranks by query likelihood (Ponte and Croft 1998): log p(question | passage) under a causal
language model, as UPR (Sachan et al. 2022, arXiv 2204.07496).

What it does not do: training, a prior over passages, smoothing (the model is never sure of 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.corpus import Corpus
from harness.data import Brief, Document, Query, Reply
from systems.models.hub import OneModel, check_sizes
from systems.models.language import open_lm
from systems.models.prompts import Prompt
from systems.passages import with_text
from systems.ranking import Judged, reranked


class QueryLikelihood(OneModel):
    """Options: the model (shipped, on the hub or a folder) and its ``revision``; ``max_length``:
    tokens of a passage after which it is cut; ``batch_size`` of passages."""

    takes = "ForCausalLM"
    needs_pool = True

    def __init__(
        self,
        model: str = "mini-lm",
        max_length: int = 512,
        batch_size: int = 32,
        revision: str = "",
    ) -> None:
        check_sizes("query-likelihood", max_length=max_length, batch_size=batch_size)
        self.model, self.revision = model, revision
        self.max_length, self.batch_size = max_length, batch_size

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        self.corpus = corpus
        self.lm = open_lm(self.folder(), brief.device, brief.dtype)

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """The pool by likelihood; ``counts`` says how many tokens were read."""
        return reranked(self.corpus, queries, k, self._judged)

    def _judged(self, pairs: Sequence[tuple[str, Document]]) -> list[Judged]:
        prompts = [Prompt(None, [self._cut(passage)]) for _, passage in pairs]
        questions = [question for question, _ in pairs]
        found = self.lm.log_likelihood(prompts, questions, self.batch_size)
        return [Judged(each.log_p, each.prompt_tokens + each.tokens) for each in found]

    def _cut(self, passage: Document) -> Document:
        return with_text(passage, self.lm.clipped(passage.text, self.max_length))

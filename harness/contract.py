"""The two contracts: what a task is and what a system is.

A system is any class with some of the methods of `System`; the presence of a method is the
capability. Its options are the keyword parameters of its ``__init__``, checked against their
annotations. A task is any class with the members of `Task`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from harness.data import (
    Answer,
    Brief,
    Document,
    Example,
    Gold,
    GoldKind,
    Hit,
    Loaded,
    Query,
    Reply,
)

if TYPE_CHECKING:
    from harness.corpus import Corpus

Setting = Literal["pool", "corpus"]


class Task(Protocol):
    """A data set and its official scorer.

    metrics:    what the tables show, in order: answer metrics that `score` returns and
                ir-measures spellings (``nDCG@10``)
    settings:   the first is the default
    splits:     the first is the default
    group_by:   what intervals resample: each question, or questions joined by gold documents
    rel:        the lowest grade that RR, AP, P and R count as relevant
    """

    name: str
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    settings: tuple[Setting, ...]
    kind: GoldKind
    group_by: Literal["question", "documents"]
    rel: int
    instruction: str
    max_new_tokens: int
    licence: str
    citation: str
    version: str
    """Of the parser or generator; data prepared by another version is prepared again."""
    offline: bool
    """Whether `load` needs neither source nor network, so that `run` may prepare the task."""
    generated: bool
    """True for mini tasks; every table says so."""

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Parse ``source`` (a file or a folder), or the pinned hub revision when it is None.

        Raises `HarnessError` naming file, line and mend for anything unreadable.
        """
        ...

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """Answer metrics of one question in 0..1, as the official script computes them.

        support: the answer's evidence as (title, sentence), or None if the system gave none.
        A metric that this gold or this answer cannot fill is left out.
        """
        ...

    def examples(self, source: Path | None, seed: int) -> Iterator[Example]:
        """Training examples from the train split, in seeded order."""
        ...


class System:
    """Documents the methods a system may have; nobody needs to inherit from it."""

    def build(self, corpus: Corpus, folder: Path) -> None:
        """Write an index of ``corpus`` into the empty ``folder`` (kept only if this returns)."""

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        """Get ready to serve; ``folder`` is what `build` wrote, read-only."""

    def retrieve(self, queries: Sequence[Query], k: int) -> Sequence[Sequence[Hit]]:
        """At most ``k`` hits a query, by non-increasing score, inside ``query.pool`` if closed."""
        raise NotImplementedError

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> Sequence[Reply | Answer | str]:
        """One answer a query from the passages to read, best first."""
        raise NotImplementedError

    def solve(self, queries: Sequence[Query], k: int) -> Sequence[Reply]:
        """Hits and answer at once, for systems that cannot be cut in two."""
        raise NotImplementedError

    def files(self) -> Sequence[Path]:
        """Files and folders that the results depend on (checkpoints, runs from outside)."""
        return ()

    def external(self) -> dict[str, Reply]:
        """Results computed elsewhere, by native query id, with native document ids inside.

        The runner translates them; a system with this method has no other.
        """
        raise NotImplementedError

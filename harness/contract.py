"""The two contracts: what a task is and what a system is.

A system is any class with some of the methods of `System`; the presence of a method is the
capability. A task is any class with the members of `Task`; one that inherits from it needs only
a name and `load`. The options of both are the keyword parameters of their ``__init__``, checked
against their annotations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.data import (
    Answer,
    Brief,
    Document,
    Example,
    Explained,
    Gold,
    GoldKind,
    Hit,
    Lesson,
    Loaded,
    Query,
    Reply,
)

if TYPE_CHECKING:
    from harness.corpus import Corpus

Setting = Literal["pool", "corpus"]


class Task(Protocol):
    """A data set and its official scorer.

    answer_metrics:  those that `score` returns and the tables show, in order
    ranking_metrics: ir-measures spellings (``nDCG@10``) that the tables show, in order
    splits:         the first is the default
    settings:       the first is the default
    kind:           what its relevance judgements are
    group_by:       what intervals resample: questions, or groups that share a gold document
    rel:            the lowest grade that RR, AP, P and R count as relevant
    instruction:    what a reader is told about the form of answers
    max_new_tokens: how long an answer may be
    version:        of the parser or generator; data prepared by another one is prepared again
    offline:        `load` needs neither source nor network, so that `run` may prepare the task
    generated:      true for mini tasks; every table says so
    submissions:    formats of `harness.report.formats` that fit it, its own benchmark's first
    by_document:    its benchmark wants an answer for each document of a question (TriviaQA-Web)
    """

    name: str
    answer_metrics: tuple[str, ...] = ("EM", "F1")
    ranking_metrics: tuple[str, ...] = ("nDCG@10", "R@5", "RR@10", "AP")
    splits: tuple[str, ...] = ("test",)
    settings: tuple[Setting, ...] = ("pool", "corpus")
    kind: GoldKind = "official"
    group_by: Literal["question", "documents"] = "question"
    rel: int = 1
    instruction: str = "Answer in a few words."
    max_new_tokens: int = 32
    licence: str = "not stated"
    citation: str = ""
    version: str = "1"
    offline: bool = False
    generated: bool = False
    submissions: tuple[str, ...] = ("trec",)
    by_document: bool = False

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Parse ``source`` (a file or a folder), or the pinned hub revision when it is None.

        Raises `HarnessError` naming file, line and mend for anything unreadable.
        """
        ...

    def files(self, source: Path | None, split: str) -> Sequence[Path]:  # noqa: ARG002
        """The files that `load` reads, for their checksums."""
        return ()

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """Answer metrics of one question in 0..1, as the official script computes them.

        support: the answer's evidence as (title, sentence), or None if the system gave none.
        A metric that this gold or this answer cannot fill is left out.
        Unless overridden: EM and F1 of SQuAD, the maximum over accepted answers.
        """
        from harness.score.answers import score_squad

        return score_squad(answer, support, gold)

    def explained(self, split: str) -> Mapping[str, Explained]:  # noqa: ARG002
        """How questions of a split are answered, by their text; none where nobody knows."""
        return {}

    def judge(self, split: str) -> Any:  # noqa: ARG002
        """Who can say exactly what an answer claims and whether a text entails it (the methods
        `claims` and `check` of `harness.score.judging.Judge`); None where nobody can."""
        return None

    def examples(self, source: Path | None, seed: int) -> Iterator[Example]:  # noqa: ARG002
        """Training examples from the train split, in seeded order."""
        return iter(())


class System:
    """Documents the methods a system may have; nobody needs to inherit from it.

    A system is given no gold, no task name and no native id. The paths it is given are not a
    sandbox: one that walks the disk can find what lies there.
    """

    independent: bool
    """A question's result does not depend on its batch: only what is missing is asked again."""
    deterministic: bool
    """False: noted in the run's manifest."""
    needs_pool: bool
    """It only reranks: not to be put first in the corpus setting."""
    needs_prior: bool
    """It starts from the scores of a stage before it."""
    world: str
    """The version of the generated world that its checkpoint was made for; empty: it serves any
    task. Its option ``model`` names another checkpoint; or `model_option` says what does."""
    model_option: str
    shots: int
    """So many demonstrations stand in ``brief.examples`` when it is opened, 0 or no attribute:
    none. They are drawn by the brief's seed from the task's train split, the same for every system
    behind the same stages; their documents are what those retrieve for them, best first, as many
    as the system is given to read. The constructor sets it; a task without train questions is
    refused."""
    asked_depth: int | None
    """A system that has it is told its ``@n`` in the pipeline, None if there is none."""
    index_options: tuple[str, ...]
    """The options that its index depends on; all, if it does not say."""

    on_progress: Callable[[int, int], None]
    """Set by the runner before `build`: tells (done, total)."""

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        """Write an index of ``corpus`` into the empty ``folder`` (kept only if this returns).

        It must not depend on the brief beyond its device and dtype: tasks share indexes. A
        long one calls ``self.on_progress(done, total)``, which the runner sets, if it is there.
        """

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        """Get ready to serve; ``folder`` is what `build` wrote, read-only."""

    def retrieve(self, queries: Sequence[Query], k: int) -> Sequence[Sequence[Hit] | Reply]:
        """At most ``k`` hits a query, by non-increasing score, inside ``query.pool`` if closed.

        ``k`` is the pipeline's depth, or the largest pool of the batch. A `Reply` carries hits
        with more to say (``counts``, ``extras``).
        """
        raise NotImplementedError

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> Sequence[Reply | Answer | str | Exception]:
        """One answer a query from the passages to read, best first; an exception in a query's
        place is that query's error. (One that is raised makes the batch be asked one by one.)
        ``read`` of a `Reply` names passages among these: what looks for others has `solve`."""
        raise NotImplementedError

    def solve(self, queries: Sequence[Query], k: int) -> Sequence[Reply]:
        """Hits and answer at once, for systems that cannot be cut in two."""
        raise NotImplementedError

    def files(self) -> Sequence[Path]:
        """Files and folders that the results depend on (checkpoints, runs from outside)."""
        return ()

    def index_files(self) -> Sequence[Path]:
        """Those of `files` that the index depends on, if not all."""
        raise NotImplementedError

    def needs(self, documents: int) -> str:
        """What it will take of memory or disk on a corpus of so many, for ``run --dry-run``."""
        raise NotImplementedError

    def external(self) -> dict[str, Reply]:
        """Results computed elsewhere, by native query id, with native document ids inside.

        The runner translates them; a system with this method serves no queries itself.
        """
        raise NotImplementedError

    def rankings(self) -> dict[str, Reply]:
        """Rankings computed elsewhere that it works with, by native query id, with native document
        ids inside. The runner translates them and sets ``ranked``, by query id, before `open`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what `open` took."""


class Teacher(Protocol):
    """A task whose train split is generated: it teaches the checkpoints of the recipes.

    version: of the generator
    """

    version: str

    def known_words(self) -> Sequence[str]:
        """The words of its language that are not names."""
        ...

    def lesson(
        self, world: str, rng: random.Random, size: int, kinds: Mapping[str, float]
    ) -> Lesson:
        """A lesson of ``size`` passages, drawn with ``rng`` from the train world of that name.

        kinds: how often each kind of question is asked, relative to each other
        """
        ...


class Recipe(Protocol):
    """Makes a checkpoint, step by step; each step follows from the seed and the state before.

    steps: optimiser steps, unless somebody asks for another number
    done:  steps done so far

    There are two kinds. One is made from a `Teacher` (``Recipe(teacher, seed, steps)``), which its
    class spells as ``task``. The other is made from questions with what a pipeline retrieved for
    them (``Recipe(examples, seed, settings)``); its class has the ``tasks`` that it learns from and
    the pipeline (``first``) unless somebody names others, and ``options``, a class of settings. One
    that has ``explained = True`` learns from how they are answered (`Task.explained`), unless its
    settings say that they bring that along (``explains``). One with a method ``report() -> dict``
    has more to say in the checkpoint's about.json.
    """

    steps: int
    done: int

    def described(self) -> dict[str, Any]:
        """What a checkpoint should say of itself: ``world``, the version of the generator, and
        the settings of the recipe."""
        ...

    def step(self) -> dict[str, float]:
        """Do one step; its figures."""
        ...

    def keep(self, path: Path, notes: str) -> None:
        """Write all that the next step depends on, and ``notes``, to a file, in one go."""
        ...

    def resume(self, path: Path) -> str:
        """Go back to what `keep` wrote; its notes."""
        ...

    def save(self, folder: Path) -> None:
        """Write the checkpoint's files."""
        ...


def one_at_a_time(method: Callable[[Any, Query, Any], Any]) -> Callable[..., list[Any]]:
    """Lets `retrieve` and `answer` be written for one question: ``(query, k or documents)``."""

    @wraps(method)
    def many(self: Any, queries: Sequence[Query], rest: Any) -> list[Any]:
        each = rest if isinstance(rest, Sequence) else repeat(rest, len(queries))
        return [method(self, query, one) for query, one in zip(queries, each, strict=True)]

    return many

"""The words of the harness: what tasks, systems, runs and scores are made of.

Everything here is a plain frozen value without behaviour. Ids are opaque strings: a
document's id is a hash of its content, a query's id a hash of its text and pool, so that
neither tells a system which task, split or native row it comes from.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from harness.corpus import Corpus

DATA = Path(os.environ.get("HARNESS_DATA") or "data")
"""Where prepared data and indexes are kept if nobody says otherwise."""
UNANSWERABLE = ":unanswerable"
"""Behind the native id of a row that has the id of its answerable twin (MuSiQue-Full)."""
GoldKind = Literal["official", "sparse", "graded", "distant"]


class HarnessError(Exception):
    """A user's mistake or a broken input: one sentence, and a hint that says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    @property
    def sentences(self) -> list[str]:
        """What to tell the user, a line each."""
        return [str(self)]


class Mistakes(HarnessError):
    """Several mistakes of one command, told together."""

    def __init__(self, mistakes: Sequence[HarnessError]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(" ".join(map(str, mistakes)))

    @property
    def sentences(self) -> list[str]:
        """What to tell the user, a line each."""
        return list(dict.fromkeys(line for each in self.mistakes for line in each.sentences))


def raise_together(mistakes: Sequence[HarnessError]) -> None:
    """Raise the mistakes, if there are any, as one error."""
    if mistakes:
        raise mistakes[0] if len(mistakes) == 1 else Mistakes(mistakes)


# --- what a system sees ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """A passage. ``text == "".join(sentences)`` wherever sentences are known."""

    id: str
    text: str
    title: str = ""
    sentences: tuple[str, ...] = ()


class Hit(NamedTuple):
    """A ranked document and the score that ranked it (higher is better)."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Query:
    """A question. ``pool`` closes the candidates (ids in id order); ``prior`` is the ranking
    of the stage before, best first."""

    id: str
    text: str
    pool: tuple[str, ...] | None = None
    prior: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A pointer to what supports an answer: a document, a sentence (0-based) of it, or a
    ``(start, end)`` span of characters of its text."""

    doc_id: str
    sentence: int | None = None
    span: tuple[int, int] | None = None


Triple = tuple[str, str, str]
"""Subject, relation, object."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system answers. ``None`` means "does not say"; ``()`` means "says: none"."""

    text: str
    evidence: tuple[Evidence, ...] | None = None
    triples: tuple[Triple, ...] | None = None
    answerable: bool | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """All that a system may report of one question; ``Answer`` alone is enough.

    raw:    the text before the answer was extracted from it
    read:   ids of the passages that really fitted the prompt
    counts: numbers worth keeping (``prompt_tokens``, ``new_tokens``, ``passages_dropped``, …);
            these three are whole and not negative
    stop:   why generation ended (``"stop"``, ``"length"``)
    extras: anything else to look at later, as JSON (weights, a loss curve, sampled lists)
    """

    answer: Answer | None = None
    hits: tuple[Hit, ...] = ()
    raw: str = ""
    read: tuple[str, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    stop: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """A demonstration or training example (train split only); carries its own documents.

    aliases:     further accepted answers
    support:     ids of all documents that are known to give it, here or not
    retrieved:   ids that a stage before retrieved, if it was asked
    group:       questions that share a gold document have the same
    instruction: what a reader of the task is told
    explained:   how it is answered, if that is known
    family:      in a training, questions of one task have the same; no task is named by it
    """

    question: str
    documents: tuple[Document, ...]
    answer: str
    aliases: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    retrieved: tuple[str, ...] = ()
    group: str = ""
    instruction: str = ""
    explained: Explained | None = None
    family: str = ""


class Explained(NamedTuple):
    """How a training question is answered.

    clues:    what to look for, of which the question determines all
    evidence: the sentences that give the answer, in the order of its steps
    bridges:  names that lead from one step to the next: each stands in a sentence of the evidence,
              and is what to look for behind it
    """

    clues: tuple[str, ...]
    evidence: tuple[str, ...]
    bridges: tuple[str, ...] = ()


class Exercise(NamedTuple):
    """A question of a `Lesson`: its answer, and the places of the passages that give it."""

    question: str
    answer: str
    gold: tuple[int, ...]
    kind: str


class Lesson(NamedTuple):
    """Passages of a generated train world, and questions that they answer."""

    documents: Sequence[Document]
    exercises: Sequence[Exercise]


@dataclass(frozen=True, slots=True)
class Brief:
    """What every stage of a task is told, the same for every system; ``examples`` are the
    demonstrations of one that wants any (`harness.contract.System`)."""

    instruction: str = ""
    examples: tuple[Example, ...] = ()
    max_new_tokens: int = 32
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Questions:
    """What ``run`` sees of a prepared task. Gold is not in here and cannot be reached from here."""

    name: str
    split: str
    corpus: Corpus
    queries: tuple[Query, ...]
    fingerprint: str
    instruction: str = ""


# --- what a run writes ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One question's outcome in one pipeline; see `Reply`. ``error`` is empty if all went well."""

    id: str
    hits: tuple[Hit, ...] = ()
    answer: Answer | None = None
    raw: str = ""
    read: tuple[str, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    stop: str = ""
    error: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


# --- what score sees ------------------------------------------------------------------

GoldTriple = tuple[tuple[str, ...], str, tuple[str, ...]]
"""Accepted forms of the subject, the relation, accepted forms of the object."""


@dataclass(frozen=True, slots=True)
class Gold:
    """What is right for one question.

    relevance: document id → grade (0 is judged and not relevant); empty: no ranking metric
    answers:   accepted answers, the main one first; empty: no answer metric
    sentences: supporting facts as the official scripts compare them, (title, sentence);
               ``None``: the data has no sentence-level support
    triples:   gold evidence triples; ``None``: the data has none
    group:     the unit that intervals resample (questions that share a gold document, a world)
    """

    relevance: Mapping[str, int]
    answers: tuple[str, ...] = ()
    sentences: tuple[tuple[str, int], ...] | None = None
    triples: tuple[GoldTriple, ...] | None = None
    answerable: bool = True
    group: str = ""
    kind: GoldKind = "official"


# --- what a task's parser makes of raw rows, before `prepare` gives it ids ------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that came with a question, and its grade.

    ``document.id`` is empty: its identity is its title and text. ``native`` is what a submission
    calls it inside its question (a paragraph's number, a file name), where it has such a name.
    """

    document: Document
    grade: int = 0
    native: str = ""


@dataclass(frozen=True, slots=True)
class RawQuestion:
    """One question in native ids, and the place (``file:line``) it was read from.

    ``candidates`` makes the pool; ``relevance`` grades documents of a corpus with native ids, and
    a question uses one of the two. ``group`` is empty unless the data itself says which questions
    belong together. ``labels``: what its benchmark says of its sort (type, level, hops), for tables
    alone. The other fields are those of `Gold`.
    """

    id: str
    text: str
    candidates: tuple[Candidate, ...] = ()
    relevance: Mapping[str, int] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    sentences: tuple[tuple[str, int], ...] | None = None
    triples: tuple[GoldTriple, ...] | None = None
    answerable: bool = True
    where: str = ""
    group: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Loaded:
    """What `Task.load` returns; both streams are read once, documents first.

    documents: the corpus in native ids; empty where it is pooled from the questions
    notes:     counts of what was dropped or merged, by reason; filled while the streams run
    """

    questions: Iterable[RawQuestion]
    documents: Iterable[Document] = ()
    notes: Counter[str] = field(default_factory=Counter)

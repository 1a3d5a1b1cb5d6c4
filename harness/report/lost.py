"""Where an answer was lost: on the way from retrieving to reading to answering.

The classes of `CLASSES` part the questions of a pipeline: each falls into one, so that they sum to
the questions asked. What was read is what the system says that it read (`Row.read`), not what it
ranked: a passage that was ranked high and did not fit the prompt was not read.

Gold passages are those of a grade that counts as relevant. Where a benchmark names its passages
itself (kind ``official``), the answer takes all of them; of sparse, graded and distant gold any
one will do. It does not say *why* a passage that was read was not used, nor whether a right answer
came from what was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, get_args

from harness.data import Gold, Row
from harness.score.normalise import squad_normal
from harness.score.outputs import contains
from harness.spelling import parse_pipeline

Lost = Literal[
    "right",
    "worded otherwise",
    "not used",
    "not read",
    "not retrieved",
    "reading unknown",
    "no gold passage",
    "failed",
    "not judged",
]
CLASSES: tuple[Lost, ...] = get_args(Lost)
MEANING: dict[Lost, str] = {
    "right": "the answer is an accepted one",
    "worded otherwise": "it holds an accepted answer, or a part of one, and is not equal to it",
    "not used": "the gold passages were read, and the answer is another one",
    "not read": "they were retrieved, and ranked below what was read or did not fit the prompt",
    "not retrieved": "a gold passage that the answer takes was not among the hits",
    "reading unknown": "the system does not say what it read, or neither what it retrieved",
    "no gold passage": "the answer is another one, and no gold passage is known",
    "failed": "an error, or not answered yet",
    "not judged": "no accepted answer is known",
}
"""What each class says of a question, in words."""


def lost(row: Row | None, gold: Gold, right: float | None, rel: int, told: bool) -> Lost:
    """The class of one question.

    right: the first answer metric of its score, 1 for an accepted answer; None: it has none
    rel:   the lowest grade that makes a passage relevant
    told:  whether the pipeline says what it reads, see `tells`
    """
    if row is None or row.error:
        return "failed"
    if right is None:
        return "not judged"
    if right >= 1:
        return "right"
    if row.answer is not None and reworded(row.answer.text, gold.answers):
        return "worded otherwise"
    relevant = {doc_id for doc_id, grade in gold.relevance.items() if grade >= rel}
    if not relevant:
        return "no gold passage"
    if _has(row.read, relevant, gold):
        return "not used"
    if not _has({*row.read, *(hit.id for hit in row.hits)}, relevant, gold):
        return "not retrieved" if row.hits or told else "reading unknown"
    return "not read" if told else "reading unknown"


def _has(found: Collection[str], relevant: set[str], gold: Gold) -> bool:
    """Whether what an answer takes is there: all of it, or any where the gold is not complete."""
    inside = relevant.intersection(found)
    return inside == relevant if gold.kind == "official" else bool(inside)


def reworded(answer: str, accepted: Iterable[str]) -> bool:
    """Whether an answer holds an accepted one as whole words, or is held by it."""
    said = squad_normal(answer)
    words = [each for each in accepted if squad_normal(each)]
    return bool(said) and any(contains(said, [each]) or contains(each, [said]) for each in words)


def tells(system: str, rows: Iterable[Row]) -> bool:
    """Whether a pipeline says what it reads: some row does, or its spelling has it read nothing."""
    return parse_pipeline(system).stages[-1].depth == 0 or any(row.read for row in rows)

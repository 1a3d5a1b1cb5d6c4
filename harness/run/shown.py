"""Demonstrations: questions with their answers that a system is shown before it is asked.

A system says how many it wants (``shots``). They are drawn by the run's seed from the train split
of the same task, whatever is asked of the split that is evaluated and in whatever order. Each has
the passages that the stages before retrieve for it, as the system would be given them. None asks
what the evaluated split asks.

What it does not do: run the stages before (`harness.run.runner` does); choose demonstrations by
their likeness to a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.canonical import sample
from harness.corpus import Corpus
from harness.data import Example, Explained, Gold, HarnessError, Hit, Query, Row
from harness.registry import capabilities
from harness.run.stages import READ
from harness.score.normalise import squad_normal

TRAIN = "train"
"""The split that demonstrations are drawn from."""
SPARE = 8
"""Train questions that are asked beside those wanted: nothing may be retrieved for some."""


def shots_of(system: object) -> int:
    """How many demonstrations a system wants."""
    return int(getattr(system, "shots", 0))


def reads(system: object, depth: int | None) -> int | None:
    """How many passages of a ranking a system is given at ``@depth``; None: all."""
    can = capabilities(system)
    if "answer" not in can or "retrieve" in can or "solve" in can:
        return None
    return READ if depth is None else depth


def drawn(
    queries: Iterable[Query], gold: Mapping[str, Gold], count: int, seed: int
) -> tuple[Query, ...]:
    """Train questions in an order drawn from the seed: so many that have an answer, no two of the
    same text, and some to spare."""
    by_id = {query.id: query for query in queries}
    found: dict[str, Query] = {}
    for query_id in sample(by_id, None, seed):
        if gold[query_id].answerable and any(gold[query_id].answers[:1]):
            found.setdefault(_normal(by_id[query_id].text), by_id[query_id])
            if len(found) == count + SPARE:
                break
    return tuple(found.values())


def example_of(
    question: str,
    hits: Sequence[Hit],
    gold: Gold,
    corpus: Corpus,
    instruction: str,
    reads: int | None = None,
    explained: Explained | None = None,
) -> Example:
    """A question of a train split with its answer and what was retrieved for it, best first."""
    ids = tuple(hit.id for hit in hits)
    return Example(
        question,
        tuple(corpus[each] for each in ids[:reads]),
        gold.answers[0],
        aliases=gold.answers[1:],
        support=tuple(doc_id for doc_id, grade in gold.relevance.items() if grade > 0),
        retrieved=ids,
        group=gold.group,
        instruction=instruction,
        explained=explained,
    )


def usable(rows: Iterable[Row], count: int) -> list[Row]:
    """The first rows for which something was retrieved; `HarnessError` if they are too few, or one
    before them errored: asked again it might be another choice."""
    found: list[Row] = []
    for row in rows:
        if row.error:
            raise HarnessError(
                f"a train question errored ({row.error}).", "Mend that and run again."
            )
        found += [row] if row.hits else []
        if len(found) == count:
            break
    return found


def checked(
    examples: Sequence[Example], count: int, evaluated: Iterable[Query]
) -> tuple[Example, ...]:
    """The demonstrations; `HarnessError` if they are too few or one asks what is evaluated."""
    if len(examples) < count:
        raise HarnessError(
            f"only {len(examples)} of the {count} demonstrations can be had from the train "
            "questions that were drawn: others have no answer, or nothing is retrieved for them.",
            "Write fewer shots= (or bank=), or take another --seed.",
        )
    asked = {_normal(query.text) for query in evaluated}
    for each in examples:
        if _normal(each.question) in asked:
            raise HarnessError(
                f"the train question {each.question!r} is asked in the evaluated split, too.",
                "Take another --seed, or take it out of the train split.",
            )
    return tuple(examples)


def _normal(question: str) -> str:
    return squad_normal(question) or question

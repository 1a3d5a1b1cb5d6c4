"""Metrics of what a system wrote that no task has by itself; `--metric` asks for them.

Acc            an accepted answer stands in the answer, as whole words
AccOutput      it stands in anything that was written, evidence too: what a generator that quotes
               the corpus may be said to reach, and no accuracy
EvidenceR@k    the relevant documents among the first k that the answer's evidence names, in its
               order
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.data import Answer, Gold
from harness.score.normalise import squad_normal

OUTPUTS = re.compile(r"Acc|AccOutput|EvidenceR@[1-9]\d*")


def is_output(name: str) -> bool:
    """Whether a metric is one of these."""
    return OUTPUTS.fullmatch(name) is not None


def score_output(name: str, answer: Answer, raw: str, gold: Gold, rel: int = 1) -> float | None:
    """One of them for one question, in 0..1; None where answer or gold cannot fill it.

    raw: all that was written
    """
    if name.startswith("Acc"):
        said = answer.text if name == "Acc" else f"{raw}\n{answer.text}"
        return float(contains(said, gold.answers)) if gold.answers else None
    relevant = {doc_id for doc_id, grade in gold.relevance.items() if grade >= rel}
    if answer.evidence is None or not relevant:
        return None
    depth = int(name.partition("@")[2])
    named = list(dict.fromkeys(each.doc_id for each in answer.evidence))[:depth]
    return len(relevant.intersection(named)) / len(relevant)


def contains(text: str, answers: Iterable[str]) -> bool:
    """Whether one of the answers stands in a text as whole words ("no" does not in "know")."""
    words: Sequence[str] = [f" {squad_normal(each)} " for each in answers]
    said = f" {squad_normal(text)} "
    return any(each in said if each.strip() else not said.strip() for each in words)

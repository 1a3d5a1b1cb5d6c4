"""RAGChecker's eleven metrics from boolean entailment tables (Ru et al. 2024, arXiv 2408.08067).

An answer and the gold answer are broken into claims; each claim is checked against the other
answer and against each passage that was read. Who does that is a judge's business
(`harness.score.judging`); here are the formulas alone.

    precision, recall, f1    claims of the response that the gold answer entails; the reverse
    claim_recall             claims of the gold answer that some passage entails
    context_precision        passages that entail some claim of the gold answer ("relevant")
    context_utilization      of the gold claims in passages, those that the response entails
    noise_sensitivity_in_…   wrong claims of the response that a relevant passage entails; that only
                             an irrelevant one does
    hallucination            wrong claims that no passage entails
    self_knowledge           right claims that no passage entails
    faithfulness             claims of the response that some passage entails

Whatever is a share of nothing is 0, as in RAGChecker 0.1.9: a response without claims has no
hallucination either. Without passages, hallucination, self-knowledge, faithfulness and noise are 0,
and without gold claims noise is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Booleans = npt.NDArray[np.bool_]
OVERALL = ("precision", "recall", "f1")
METRICS = (
    *OVERALL,
    *("claim_recall", "context_precision", "context_utilization"),
    *("noise_sensitivity_in_relevant", "noise_sensitivity_in_irrelevant"),
    *("hallucination", "self_knowledge", "faithfulness"),
)
"""In RAGChecker's order. Noise sensitivities and hallucination are better when lower."""


class Tables(NamedTuple):
    """What entails what, of one question; named as in RAGChecker: reference first.

    answer2response:    of each claim of the response, whether the gold answer entails it
    response2answer:    of each claim of the gold answer, whether the response does
    retrieved2response: the same by each passage: (claims of the response, passages)
    retrieved2answer:   (claims of the gold answer, passages)
    """

    answer2response: Sequence[bool]
    response2answer: Sequence[bool]
    retrieved2response: Sequence[Sequence[bool]] = ()
    retrieved2answer: Sequence[Sequence[bool]] = ()


def claim_metrics(tables: Tables) -> dict[str, float]:
    """The eleven metrics of one question, in 0..1.

    `ValueError` if the tables do not belong together.
    """
    right, said = (np.array(each, dtype=bool) for each in tables[:2])
    passages = max((len(row) for table in tables[2:] for row in table), default=0)
    stated, there = _table(tables.retrieved2response, right), _table(tables.retrieved2answer, said)
    if {stated.shape[1], there.shape[1]} - {0, passages} or (
        len(right) and len(said) and stated.shape[1] != there.shape[1]
    ):
        raise ValueError("the tables are of different passages")
    useful = there.any(axis=0) if len(said) else np.zeros(passages, dtype=bool)
    found, faithful = there.any(axis=1), stated.any(axis=1)
    precision, recall = _share(right), _share(said)
    values = {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision and recall else 0.0,
        "claim_recall": _share(found),
        "context_precision": _share(useful),
        "context_utilization": _share(said[found]),
        **dict.fromkeys(METRICS[6:], 0.0),
    }
    if len(right) and passages:
        values["hallucination"] = _share(~faithful & ~right)
        values["self_knowledge"] = _share(~faithful & right)
        values["faithfulness"] = _share(faithful)
        if len(said):
            relevant = (stated & useful).any(axis=1)
            values["noise_sensitivity_in_relevant"] = _share(relevant & ~right)
            values["noise_sensitivity_in_irrelevant"] = _share(faithful & ~relevant & ~right)
    return values


def _table(rows: Sequence[Sequence[bool]], claims: Booleans) -> Booleans:
    """A table as (claims, passages); no row at all means no passages."""
    if rows and (len(rows) != len(claims) or len({len(row) for row in rows}) > 1):
        raise ValueError("a table has not one row a claim, or rows of different lengths")
    width = len(rows[0]) if rows else 0
    return np.array(list(rows), dtype=bool).reshape(len(claims), width)


def _share(which: Any) -> float:
    return float(which.mean()) if which.size else 0.0

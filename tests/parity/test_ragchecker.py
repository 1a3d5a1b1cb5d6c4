"""Our formulas against the package ragchecker, question by question: `tox -e ragchecker`.

Its tables are given to it, so that it asks no model: what it makes of a model's words it evaluates
as code, and nothing of ours goes that way.
"""

from __future__ import annotations

import random

import pytest
from claim_tables import drawn

from harness.score.claims import METRICS, claim_metrics

computation = pytest.importorskip(
    "ragchecker.computation", reason="needs the package ragchecker: tox -e ragchecker"
)


def labelled(table: object, rng: random.Random) -> object:
    """A table in its words, of which two mean the same to it."""
    if isinstance(table, list | tuple):
        return [labelled(each, rng) for each in table]
    return "Entailment" if table else rng.choice(["Neutral", "Contradiction"])


def test_a_thousand_random_tables_score_as_the_package_scores_them() -> None:
    from ragchecker.container import RAGResult

    rng = random.Random(11)
    for _ in range(1000):
        tables = drawn(rng)
        words = {name: labelled(table, rng) for name, table in tables._asdict().items()}
        result = RAGResult("", "", "", "", **words)
        for name in METRICS:
            computation.METRIC_FUNC_MAP[name](result)
        assert claim_metrics(tables) == pytest.approx(result.metrics), tables

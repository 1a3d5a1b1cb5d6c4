"""Random entailment tables, and RAGChecker's metrics by counting; needs numpy alone."""

from __future__ import annotations

import random

from harness.score.claims import METRICS, Tables


def drawn(rng: random.Random) -> Tables:
    """Random tables; each of the three sets is empty now and then."""
    said, right, passages = (rng.choice([0, 1, 2, 3, 5]) for _ in range(3))
    dense = rng.random()

    def row(size: int) -> list[bool]:
        return [rng.random() < dense for _ in range(size)]

    return Tables(
        row(said), row(right), [row(passages) for _ in range(said)],
        [row(passages) for _ in range(right)],
    )  # fmt: skip


def counted(tables: Tables) -> dict[str, float]:
    """The metrics by counting, claim by claim, with no array: from the definitions."""
    right, used, stated, there = tables
    passages = range(max(map(len, [*stated, *there]), default=0))
    relevant = {p for p in passages if any(row[p] for row in there)}
    tally = dict.fromkeys(METRICS[6:], 0)
    for ok, row in zip(right, stated, strict=True):
        inside = {p for p in passages if row[p]}
        kinds = {
            "faithfulness": bool(inside),
            "hallucination": not inside and not ok,
            "self_knowledge": not inside and ok,
            "noise_sensitivity_in_relevant": not ok and bool(inside & relevant),
            "noise_sensitivity_in_irrelevant": not ok and bool(inside) and not inside & relevant,
        }
        for name, holds in kinds.items():
            empty = not passages or ("noise" in name and not used)
            tally[name] += holds and not empty
    recalled = [any(row) for row in there]
    both = sum(a and b for a, b in zip(recalled, used, strict=True))

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    p, r = share(sum(right), len(right)), share(sum(used), len(used))
    return {
        "precision": p,
        "recall": r,
        "f1": 2 / (1 / p + 1 / r) if p and r else 0.0,
        "claim_recall": share(sum(recalled), len(recalled)),
        "context_precision": share(len(relevant), len(passages)),
        "context_utilization": share(both, sum(recalled)),
        **{name: share(count, len(right)) for name, count in tally.items()},
    }

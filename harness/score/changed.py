"""Which questions two files of rows do not answer alike, and in what they differ.

What it does not do: look at ``counts`` and ``extras``, which no score depends on; say whether a
change is for the better (that takes gold).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from harness.data import Hit, Row
from harness.run.store import asked_rows, read_rows

Kind = Literal["missing", "state", "answer", "ranking", "scores"]
TOLERANCE = 1e-6
"""Scores that differ by less, relative to the largest of their ranking, are rounded otherwise."""


class Changed(NamedTuple):
    """A question with other results than before.

    kinds: ``missing`` one file has no row of it, the other has; ``state`` one is an error and the
           other is not, or generation ended otherwise; ``answer`` the answer, or what was written,
           is another; ``ranking`` the documents ranked or read, or their order; ``scores`` the
           same ranking by other numbers
    off:   the largest difference of two scores of the same ranking, relative to its largest score
    """

    id: str
    kinds: tuple[Kind, ...]
    off: float = 0.0


def changed_rows(
    base: Path, new: Path, ids: Sequence[str], tolerance: float = TOLERANCE
) -> Iterator[Changed]:
    """Those of the asked questions whose rows differ. A question without a row in both files is
    not among them, nor is one whose error is told in other words.

    tolerance: relative to a ranking's largest score; up to it scores count as the same
    One row of each file is in memory at a time where both are in the same order, as a run leaves
    them; else a row waits until the other file comes to it. `HarnessError` for a broken file.
    """
    for query_id, one, other in _paired(base, new, ids):
        kinds, off = kinds_of(one, other, tolerance)
        if kinds:
            yield Changed(query_id, kinds, off)


def _paired(
    base: Path, new: Path, ids: Sequence[str]
) -> Iterator[tuple[str, Row | None, Row | None]]:
    """Every asked question with its two rows, as soon as both have been read."""
    waiting: tuple[dict[str, Row | None], dict[str, Row | None]] = ({}, {})
    for pair in zip(asked_rows(base, ids), asked_rows(new, ids), strict=True):
        for side, (query_id, row) in enumerate(pair):
            if query_id not in waiting[1 - side]:
                waiting[side][query_id] = row
                continue
            earlier = waiting[1 - side].pop(query_id)
            yield (query_id, row, earlier) if side == 0 else (query_id, earlier, row)


def scored_hash(path: Path) -> str:
    """A hash of all of a file of rows that scores depend on: rankings without their numbers,
    answers, errors. The order of rows, texts that were written and counts do not matter."""
    rows = (
        repr((row.id, [hit.id for hit in row.hits], row.answer, bool(row.error)))
        for row in read_rows(path)
    )
    hashes = sorted(blake2b(row.encode(), digest_size=16).digest() for row in rows)
    return blake2b(b"".join(hashes), digest_size=16).hexdigest()


def kinds_of(
    one: Row | None, other: Row | None, tolerance: float = TOLERANCE
) -> tuple[tuple[Kind, ...], float]:
    """In what two rows differ, and how far scores of the same ranking are apart."""
    if one is None or other is None:
        return (("missing",) if one is not other else ()), 0.0
    if one.error or other.error:
        return ((), 0.0) if one.error and other.error else (("state",), 0.0)
    same_ranking = [hit.id for hit in one.hits] == [hit.id for hit in other.hits]
    off = _apart(one.hits, other.hits) if same_ranking else 0.0
    differs: dict[Kind, bool] = {
        "state": one.stop != other.stop,
        "answer": (one.answer, one.raw) != (other.answer, other.raw),
        "ranking": not same_ranking or one.read != other.read,
        "scores": off > tolerance,
    }
    return tuple(kind for kind, is_so in differs.items() if is_so), off


def _apart(one: Sequence[Hit], other: Sequence[Hit]) -> float:
    """The largest difference of the scores of one ranking, relative to its largest score: what is
    near zero has no digits of its own."""
    differences = [abs(a.score - b.score) for a, b in zip(one, other, strict=True)]
    if not any(differences):
        return 0.0
    return max(differences) / max(abs(hit.score) for hit in (*one, *other))

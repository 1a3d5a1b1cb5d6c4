"""Can the shipped reader read? EM on fresh test worlds, kind by kind: with the gold passages, with
ten mined candidates among which they are, and with nothing. Intervals resample worlds.

    python benchmarks/fresh.py [--model mini-lm] [--profile standard] [--questions 1000] [--seed N]

The worlds are drawn when it starts, unless a seed is given. Exit code 1 if in the profile
`standard` the reader's EM on single-hop questions with their gold passages is below 0.8, or if its
interval on any kind does not lie above that of the same reader without passages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

from harness.data import Brief, Document, Gold, Query
from harness.score.answers import score_squad
from harness.score.intervals import cluster_intervals
from systems.reader import Reader
from tasks.mini.mining import pools
from tasks.mini.questions import Question, questions
from tasks.mini.world import World

KINDS = ("single", "bridge", "composed")
DOCUMENTS, WORLDS, POOL, BATCH = 2000, 20, 10, 50


def em(reader: Reader, asked: Sequence[Question], read: Sequence[list[Document]]) -> list[float]:
    """EM of each question, from the passages to read."""
    found = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        queries = [Query(question.id, question.text) for question in part]
        replies = reader.answer(queries, read[start : start + BATCH])
        for question, reply in zip(part, replies, strict=True):
            gold = Gold({}, (question.answer, *question.aliases))
            found.append(score_squad(reply.answer, None, gold)["EM"])
    return found


def measured(
    reader: Reader, kind: str, profile: Any, seeds: Sequence[int], count: int
) -> dict[str, Any]:
    """EM on each world's questions of a kind: with gold passages, with a mined pool that holds
    them, and with nothing; and each question's world."""
    found: dict[str, Any] = {"gold": [], "pool": [], "nothing": [], "world": []}
    for seed in seeds:
        world = World(DOCUMENTS, seed, "test", profile)
        asked = list(questions(world, [kind], count))
        reads = {
            "gold": [sorted(question.gold) for question in asked],
            "pool": pools(world, asked, POOL),
            "nothing": [[] for _ in asked],
        }
        for what, numbers in reads.items():
            passages = [[world.passage(number) for number in each] for each in numbers]
            read = [[Document("", p.text, p.title) for p in each] for each in passages]
            found[what] += em(reader, asked, read)
        found["world"] += [str(seed)] * len(asked)
    return found


def main() -> int:
    """Print a line a kind; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini-lm")
    parser.add_argument("--profile", default="standard", choices=("standard", "hard", "shift"))
    parser.add_argument("--questions", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    reader = Reader(model=options.model)
    reader.open(None, None, Brief(max_new_tokens=16))
    seeds = range(options.seed, options.seed + WORLDS)
    told = f"worlds from {options.seed}, {options.questions} questions a kind"
    print(f"{options.model}, {options.profile}, {told}")
    good = True
    for kind in KINDS:
        found = measured(reader, kind, options.profile, seeds, options.questions // WORLDS)
        values = np.array([found[what] for what in ("gold", "pool", "nothing")]).T
        mean, low, high, _ = cluster_intervals(values, found["world"])
        clear = low[0] > high[2] and (mean[0] >= 0.8 or kind != "single")
        good &= bool(clear)
        cells = (f"{m:.3f} ({a:.3f}–{b:.3f})" for m, a, b in zip(mean, low, high, strict=True))
        shown = map(" ".join, zip(("gold", "pool", "nothing"), cells, strict=True))
        print(kind.ljust(9), *shown, "ok" if clear else "TOO LOW", sep="  ", flush=True)
    return 0 if good or options.profile != "standard" else 1


if __name__ == "__main__":
    sys.exit(main())

"""Can the shipped reader read? Fresh test worlds, kind by kind, with gold passages and with none.

    python benchmarks/fresh.py [--model mini-lm] [--questions 1000] [--seed N]

The worlds are drawn when it starts, unless a seed is given. Exit code 1 if the reader's EM on
single-hop questions with their gold passages is below 0.8, or if its interval on any kind does not
lie above that of the same reader without passages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

from harness.data import Brief, Document, Gold, Query
from harness.score.answers import score_squad
from harness.score.intervals import cluster_intervals
from systems.reader import Reader
from tasks.mini.questions import Question, questions
from tasks.mini.world import World

KINDS = ("single", "bridge", "composed")
DOCUMENTS, WORLDS, BATCH = 2000, 10, 50


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


def asked_of(world: World, kind: str, count: int) -> tuple[list[Question], list[list[Document]]]:
    """Questions of a kind, and their gold passages in the order of their numbers."""
    asked = list(questions(world, [kind], count))
    read = []
    for question in asked:
        passages = [world.passage(number) for number in sorted(question.gold)]
        read.append([Document("", passage.text, passage.title) for passage in passages])
    return asked, read


def interval(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float, float]:
    """Mean and 95 % interval; questions with one first gold passage are one group."""
    mean, low, high, _ = cluster_intervals(np.array([values]).T, groups)
    return float(mean[0]), float(low[0]), float(high[0])


def main() -> int:
    """Print a line a kind; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini-lm")
    parser.add_argument("--questions", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    reader = Reader(model=options.model)
    reader.open(None, None, Brief(max_new_tokens=16))
    print(f"worlds {options.seed} to {options.seed + WORLDS - 1}, {options.model}")
    good = True
    for kind in KINDS:
        read_em, none_em, groups = [], [], []
        for number in range(WORLDS):
            world = World(DOCUMENTS, options.seed + number, "test")
            asked, read = asked_of(world, kind, options.questions // WORLDS)
            read_em += em(reader, asked, read)
            none_em += em(reader, asked, [[] for _ in asked])
            groups += [f"{number} {question.gold[0]}" for question in asked]
        mean, low, high = interval(read_em, groups)
        floor, _, most = interval(none_em, groups)
        clear = low > most and (kind != "single" or mean >= 0.8)
        good &= clear
        print(
            f"{kind:<12} gold {mean:.3f} ({low:.3f}–{high:.3f})  floor {floor:.3f}  "
            f"n={len(read_em)} ({len(set(groups))} groups)  {'ok' if clear else 'TOO LOW'}",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

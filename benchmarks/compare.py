"""What comparing costs, and whether its intervals and p-values are what they say.

    python benchmarks/compare.py [--sizes 7405 100000]        seconds and memory of `compare`
    python benchmarks/compare.py --coverage [--worlds 1000]   coverage of nominal 95 % intervals
    python benchmarks/compare.py --lost                       verdicts by lost answers of so many

Costs are those of a fresh process that compares two scored runs (written here: five documents
ranked, an answer, EM and F1), and, in the same call, of one that only reads both score files.
Coverage: EM of two systems with wins .14 and losses .05, that hang together within groups
(intraclass correlation about .24), of 1, 6 and 15 questions; beside ours the percentiles of the
cluster bootstrap and BCa.
Verdicts: one comparison of EM, nothing won, each question its own group.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import orjson

from harness.report.gate import Verdict, verdict
from harness.score import intervals
from harness.score.paired import paired
from harness.score.results import Sample

TRUE = 0.09
MEASURED = """
import resource, sys, time
from pathlib import Path
import numpy, scipy.stats
from harness.report.compare import compare
from harness.score.results import read_columns
start, what, base, new = time.perf_counter(), *sys.argv[1:]
if what == "compare":
    compare(base, new, metrics=["F1"])
else:
    columns = [read_columns(Path(each)) for each in (base, new)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - start, peak)
"""


def written(folder: Path, size: int, seed: int) -> Path:
    """A scored run of so many questions, as `run` and `score` would have left it."""
    rng = np.random.default_rng(seed)
    asked = Sample("toy", "test", "pool", "0" * 16, None, 0)
    entry = {**asked._asdict(), "system": "one", "key": "k", "rows": "rows.jsonl"}
    entry |= {"data": "nowhere", "generated": False, "ranks": True, "answers": True}
    entry |= {"answer_metrics": ["EM", "F1"], "ranking_metrics": []}
    folder.mkdir()
    (folder / "manifest.json").write_bytes(orjson.dumps({"format": 1, "pipelines": [entry]}))
    with (folder / "rows.jsonl").open("wb") as rows, (folder / "scores.jsonl").open("wb") as scores:
        for n in range(size):
            name, f1 = f"{n:016x}", float(rng.random())
            hits = [[f"{n:014x}{d:02x}", 1.0 / (1 + d)] for d in range(5)]
            row = {"id": name, "hits": hits, "answer": {"text": f"answer {f1}"}}
            rows.write(orjson.dumps(row) + b"\n")
            line = {"task": "toy", "sample": asked.digest, "system": "one", "id": name}
            line |= {"group": f"g{n}", "gold": "official", "state": ""}
            line |= {"metrics": {"EM": float(f1 > 0.5), "F1": f1}}
            scores.write(orjson.dumps(line) + b"\n")
    head = {**asked._asdict(), "sample": asked.digest, "questions": size, "generated": False}
    head |= {"answer_metrics": ["EM", "F1"], "ranking_metrics": [], "lines": size}
    head["systems"] = {"one": {"key": "k", "bytes": (folder / "rows.jsonl").stat().st_size}}
    (folder / "scores.json").write_bytes(orjson.dumps({"tables": [head]}))
    return folder


def costs(sizes: list[int]) -> None:
    print("| questions | compare, s | peak, MiB | reading alone, s | peak, MiB | ratio |")
    print("|--:|--:|--:|--:|--:|--:|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            runs = [str(written(Path(place) / name, size, n)) for n, name in enumerate("ab")]
            told = []
            for what in ("compare", "read"):
                command = [sys.executable, "-c", MEASURED, what, *runs]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                told += list(map(float, out.split()))
        seconds, peak, alone, least = told
        print(
            f"| {size:,} | {seconds:.1f} | {peak:.0f} | {alone:.1f} | {least:.0f} "
            f"| {seconds / alone:.1f} |"
        )


def drawn(rng: np.random.Generator, size: int, cluster: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of EM and the group of each."""
    groups = np.arange(size) // cluster
    count = groups[-1] + 1
    win, lose = np.full(count, 0.14), np.full(count, 0.05)
    if cluster > 1:
        win = rng.beta(0.14 * 3.2, 0.86 * 3.2, count)
        share = 0.05 / 0.86
        lose = (1 - win) * rng.beta(share * 3.2, (1 - share) * 3.2, count)
    luck = rng.random(size)
    won = luck < win[groups]
    lost = ~won & (luck < (win + lose)[groups])
    return won * 1.0 - lost * 1.0, groups


def coverage(worlds: int) -> None:
    intervals.RESAMPLES = 2000  # of the two that it is compared with
    print("| questions a group | questions | ours | percentiles or BCa | ours, groups ignored |")
    print("|--:|--:|--:|--:|--:|")
    for cluster in (1, 6, 15):
        for size in (43, 100, 500):
            hits = np.zeros(3)
            for world in range(worlds):
                rng = np.random.default_rng([world, cluster, size])
                apart, groups = drawn(rng, size, cluster)
                names, zeros = [str(each) for each in groups], np.zeros(size)
                found = paired(zeros, apart, names)
                alone = paired(zeros, apart, [str(n) for n in range(size)])
                _, low, high, _ = intervals.cluster_intervals(apart[:, None], names)
                ends = [(found.low, found.high), (low[0], high[0]), (alone.low, alone.high)]
                hits += [one <= TRUE <= other for one, other in ends]
            cells = " | ".join(f"{each:.3f}" for each in hits / worlds)
            print(f"| {cluster} | {size} | {cells} |", flush=True)


def said(size: int, lost: int, tolerance: float) -> Verdict:
    """The verdict if of so many questions so many are not answered any more."""
    apart = -(np.arange(size) < lost).astype(float)
    found = paired(np.zeros(size), apart, [str(n) for n in range(size)])
    return verdict(found, found.p, tolerance, same=False)[0]


def lost() -> None:
    tolerances = (0.01, 0.02, 0.05)
    print("| questions |" + "".join(f" tolerance {each} |" for each in tolerances))
    print("|--:|" + "--:|" * len(tolerances))
    for size in (100, 200, 400, 1000):
        cells = []
        for tolerance in tolerances:
            verdicts = [said(size, count, tolerance) for count in range(1, size // 4)]
            good = next(n for n, each in enumerate(verdicts) if each != "no regression")
            cells.append(f"{good} / {verdicts.index('regression') + 1}")
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[7405, 100_000])
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--lost", action="store_true")
    given = parser.parse_args()
    if given.lost:
        lost()
    elif given.coverage:
        coverage(given.worlds)
    else:
        costs(given.sizes)

"""How many passages should be read behind each ranker: tuned on dev worlds, written down.

    python benchmarks/depths.py [--questions 200] [--only dro] [--out results/reference/depths.json]

Every ranker of the default run with the default reader (DRO with its own generator), at each depth,
on the dev split of the five mini tasks; the depth with the highest EM, averaged over tasks, is what
the default run uses. ``--only`` measures some and leaves the others as they are in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from harness import api
from harness.cli import TASKS
from harness.run.progress import told

RANKERS = {
    **{
        name: f"{name}+reader@{{}}"
        for name in ("bm25", "e5", "cross-encoder", "query-likelihood", "rico")
    },
    "dro": "bm25@10+dro@{}",
}
DEPTHS = (1, 2, 3, 4, 5, 7, 10)
OUT = Path(__file__).parent.parent / "results" / "reference" / "depths.json"


def depths(ranker: str) -> Sequence[int]:
    """Those to try: a list of all ten candidates would choose nothing."""
    return DEPTHS[:-1] if ranker == "dro" else DEPTHS


def measured(questions: int, rankers: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """EM by ranker and depth, the mean over tasks."""
    tasks = [f"{task}:questions={questions}" for task in TASKS]
    systems = [RANKERS[ranker].format(depth) for ranker in rankers for depth in depths(ranker)]
    run = api.run(
        tasks, systems, split="dev", out=folder / "run", data=folder / "data", progress=told
    )
    api.score(run)
    found: dict[str, list[float]] = defaultdict(list)
    for record in api.records(run):
        if record.metric == "EM":
            found[record.system].append(record.value)
    return {
        ranker: {
            str(depth): round(fmean(found[RANKERS[ranker].format(depth)]), 4)
            for depth in depths(ranker)
        }
        for ranker in rankers
    }


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=RANKERS, default=list(RANKERS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    before = json.loads(options.out.read_text()) if options.out.exists() else {"EM": {}}
    if set(options.only) != set(RANKERS) and before["questions"] != options.questions * len(TASKS):
        parser.error(f"{options.out} was measured with other --questions")
    found = before["EM"]
    with tempfile.TemporaryDirectory() as name:
        found |= measured(options.questions, options.only, Path(name))
    kept = {
        "command": f"python benchmarks/depths.py --questions {options.questions}",
        "split": "dev",
        "questions": options.questions * len(TASKS),
        "EM": found,
        "depth": {ranker: int(max(each, key=each.__getitem__)) for ranker, each in found.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept["depth"]))


if __name__ == "__main__":
    main()

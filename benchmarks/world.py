"""How fast the mini world is generated, and in how much memory.

    python benchmarks/world.py [--documents 100000 1000000] [--profile standard]

A process each: the passages streamed, then a task's questions with their mined pools (another
pass). Limits: 100,000 documents in 20 seconds, 10⁶ in 500 MiB. Exit code 1 if one is broken.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from tasks.mini.tasks import MiniHotpotQA

SECONDS, MEBIBYTES = 20e-5, 500
"""The limits: of streaming, a document; of the whole process."""


def measured(documents: int, profile: str) -> bool:
    """Print a line for this process; whether it kept to the limits."""
    start = time.perf_counter()
    loaded = MiniHotpotQA(documents, profile=profile).load(None, "test", None)
    count = sum(1 for _ in loaded.documents)
    streamed = time.perf_counter() - start
    asked = sum(1 for _ in loaded.questions)
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count:>9,} documents in {streamed:6.1f} s; {asked} questions with pools in "
        f"{whole - streamed:6.1f} s; peak {peak:5.0f} MiB",
        flush=True,
    )
    return streamed < SECONDS * documents and peak < MEBIBYTES


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--profile", default="standard")
    given = parser.parse_args()
    if len(given.documents) == 1:
        sys.exit(not measured(given.documents[0], given.profile))
    each = [sys.executable, __file__, "--profile", given.profile, "--documents"]
    sys.exit(max(subprocess.call([*each, str(count)]) for count in given.documents))

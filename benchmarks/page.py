"""How large a page is, and what writing it takes: the default systems on one mini task.

    python benchmarks/page.py [--questions 1000] [--data DIR] [--keep DIR]

Texts are in the page, as of every generated task. It is written in a fresh process with one
thread, whose seconds (start and imports apart) are printed, by the clock and of CPU. Running the
systems before takes some minutes, or nothing where --keep has the run already. Exit code 1 if the
page of 1,000 questions and ten systems would be 5 MB or more (in proportion, of fewer questions).
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

from harness import api
from harness.cli import SYSTEMS

LIMIT = 5.0
"""MB of a page of 1,000 questions and ten systems."""
WRITE = """
import sys, time
import jinja2, numpy, harness.score.scoring
from harness.report.page import page
start, spent = time.perf_counter(), time.process_time()
made = page(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start, time.process_time() - spent, made.stat().st_size / 1e6)
"""


def main() -> int:
    """Run, write the page, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--keep", type=Path, help="the run's folder; else one that is deleted")
    asked = parser.parse_args()
    task = f"mini-hotpotqa:questions={asked.questions},documents={10 * asked.questions}"
    with tempfile.TemporaryDirectory() as place:
        folder = asked.keep or Path(place) / "run"
        api.score(api.run([task], SYSTEMS, out=folder, data=asked.data))
        words = [sys.executable, "-c", WRITE, str(folder), str(Path(place) / "page.html")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, spent, size = map(float, done.stdout.split())
    print(f"{task}, {len(SYSTEMS)} systems: {size:.1f} MB, {seconds:.1f} s ({spent:.1f} s of CPU)")
    return int(size * 1000 / asked.questions > LIMIT)


if __name__ == "__main__":
    sys.exit(main())

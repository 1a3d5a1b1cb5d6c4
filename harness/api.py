"""The harness from Python: prepare, run, score, report.

from harness import api
folder = api.run(tasks=["mini-hotpotqa"], systems=["random", "bm25"])
api.score(folder)
print(api.report(folder))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.contract import Task, one_at_a_time
from harness.data import DATA, HarnessError
from harness.prepare import prepare
from harness.registry import register
from harness.report.compare import Comparison, compare
from harness.report.latency import Latency
from harness.report.latency import records as latencies
from harness.report.tables import Record, records, report, tables
from harness.run import latency as timing
from harness.run import repeat as repeating
from harness.run import runner
from harness.run.plan import Plan, make_plan
from harness.run.progress import Progress, silent
from harness.score.scoring import score

__all__ = [
    "Comparison",
    "HarnessError",
    "Latency",
    "Plan",
    "Record",
    "Task",
    "compare",
    "latencies",
    "latency",
    "make_plan",
    "one_at_a_time",
    "prepare",
    "records",
    "register",
    "repeat",
    "report",
    "run",
    "score",
    "tables",
]


def run(
    tasks: Sequence[str],
    systems: Sequence[str],
    *,
    split: str | None = None,
    setting: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    data: Path | str = DATA,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 32,
    progress: Progress = silent,
) -> Path:
    """Run every pipeline on every task; returns the run's folder.

    tasks, systems: spellings, as on the command line
    limit:          questions a task, drawn with the seed; None for all
    overrides:      ``stage.option=value``, set wherever the stage occurs
    Raises `HarnessError`, before anything starts, with all mistakes at once.
    """
    plan = make_plan(
        tasks,
        systems,
        split=split,
        setting=setting,
        overrides=overrides,
        data=Path(data),
        limit=limit,
        seed=seed,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )
    return runner.run(plan, Path(out) if out else None, Path(data), progress)


def repeat(
    run: Path | str,
    out: Path | str | None = None,
    data: Path | str | None = None,
    progress: Progress = silent,
) -> repeating.Repeated:
    """Run a run again from its manifest alone, and compare the rows.

    out:  the new run's folder; by default one under ``results/runs``
    data: where prepared data is; by default where it was
    Raises `HarnessError`, before anything starts, with all reasons why it cannot be repeated.
    """
    again = repeating.resolve(Path(run), Path(out) if out else None, Path(data) if data else None)
    return repeating.repeat(again, progress)


def latency(
    tasks: Sequence[str],
    systems: Sequence[str],
    *,
    split: str | None = None,
    setting: str | None = None,
    questions: int = timing.FULL.questions,
    rounds: int = timing.FULL.rounds,
    patience: float = timing.FULL.patience,
    seed: int = 0,
    out: Path | str | None = None,
    data: Path | str = DATA,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "float32",
    progress: Progress = silent,
) -> Path:
    """Measure every pipeline's latency on every task; returns the folder that `latencies` and
    `report` read.

    questions: timed in each round, one at a time
    rounds:    fresh processes a pipeline; systems must be importable there
    patience:  seconds that opening a pipeline, or one question, may take
    The other parameters are those of `run`. Raises `HarnessError`, before anything starts, with
    all mistakes at once; a pipeline that fails is told in its record.
    """
    plan = make_plan(
        tasks,
        systems,
        split=split,
        setting=setting,
        overrides=overrides,
        data=Path(data),
        seed=seed,
        device=device,
        dtype=dtype,
    )
    protocol = timing.Protocol(questions, rounds, patience=patience)
    return timing.latency(plan, protocol, Path(out) if out else None, Path(data), progress)

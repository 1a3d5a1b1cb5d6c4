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
from harness.own_code import code_allowed
from harness.prepare import prepare
from harness.registry import register
from harness.report.bundle import pack
from harness.report.claims import ClaimRecord, claim_records, claims_report
from harness.report.compare import Comparison, compare
from harness.report.exports import Exported, export
from harness.report.latency import Latency
from harness.report.latency import records as latencies
from harness.report.leaderboard import leaderboard
from harness.report.page import page
from harness.report.show import show
from harness.report.submission import Submission
from harness.report.submission import submit as _submit
from harness.report.tables import Record, records, report, tables
from harness.run import latency as timing
from harness.run import repeat as repeating
from harness.run import runner
from harness.run.imported import Imported, import_files
from harness.run.plan import Plan, make_plan
from harness.run.progress import Progress, silent
from harness.score.checks import Report
from harness.score.judging import judge_run as claims
from harness.score.scoring import score
from harness.score.submitted import score_against
from harness.verify.checks import verify

__all__ = [
    "ClaimRecord",
    "Comparison",
    "Exported",
    "HarnessError",
    "Imported",
    "Latency",
    "Plan",
    "Record",
    "Report",
    "Submission",
    "Task",
    "claim_records",
    "claims",
    "claims_report",
    "code_allowed",
    "compare",
    "export",
    "import_files",
    "latencies",
    "latency",
    "leaderboard",
    "make_plan",
    "one_at_a_time",
    "pack",
    "page",
    "prepare",
    "records",
    "register",
    "repeat",
    "report",
    "run",
    "score",
    "score_file",
    "show",
    "submit",
    "tables",
    "verify",
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


def submit(
    run: Path | str,
    format: str,
    out: Path | str,
    *,
    system: str | None = None,
    task: str | None = None,
    split: str | None = None,
    setting: str | None = None,
    gold: Path | str | None = None,
    data: Path | str | None = None,
) -> Submission:
    """Write the file that a leaderboard takes from a run's rows, checked as its script would.

    format: hotpotqa, musique, 2wikimultihopqa, triviaqa, msmarco-passage, msmarco-qa or trec
    system, task, split, setting: which pipeline, where several of the run fit
    gold:   the official file whose rows (musique) or keys (triviaqa) are followed
    data:   where prepared data is kept, if it is not where it was when the run was made
    Raises `HarnessError` if nothing can be written.
    """
    given = {"system": system, "task": task, "split": split, "setting": setting}
    file = Path(gold) if gold else None
    return _submit(Path(run), Path(out), format, gold=file, data=data, **given)


def score_file(
    file: Path | str,
    task: str,
    *,
    format: str | None = None,
    split: str | None = None,
    data: Path | str = DATA,
    gold: Path | str | None = None,
    aliases: Path | str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Report:
    """Score a prediction file as its benchmark's official script does; needs no run.

    task:   as on the command line, or a benchmark of `harness.score.official` with ``gold``
    format: another one that fits the task (trec); else its benchmark's own
    gold:   the official gold file; None: the prepared data of the task
    limit, seed: draw the questions of that data, as those of a run
    Raises `HarnessError` for whatever the script refuses.
    """
    aliased = Path(aliases) if aliases else None
    return score_against(
        Path(file),
        task,
        format,
        split,
        Path(data),
        Path(gold) if gold else None,
        aliased,
        limit,
        seed,
    )

"""A prediction file, ours or anybody's, scored as its benchmark's official script scores it.

Needs no run: gold comes from a gold file or from a prepared task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import files, registry
from harness.canonical import sample
from harness.contract import Task
from harness.data import HarnessError, raise_together
from harness.prepare import checked_split, prepared
from harness.score.checks import Report
from harness.score.golds import CORPUS, SHAPES, Known, known, scored_rows
from harness.score.official import BENCHMARKS, read_files
from harness.score.validity import warnings
from harness.spelling import parse_spelled


def score_against(
    path: Path,
    name: str,
    fmt: str | None,
    split: str | None,
    data: Path,
    gold: Path | None,
    aliases: Path | None,
    limit: int | None = None,
    seed: int = 0,
) -> Report:
    """Score a prediction file against a gold file, or else against the prepared data of a task.

    name: a task; or, with a gold file, one of `BENCHMARKS`
    fmt:  one that fits the task, None for its benchmark's own
    split: of the prepared data, None for the task's first
    limit, seed: draw questions of the prepared data, as those of a run. They alone are scored, each
        of them: what the file has no answer to, the official script counts as ever
    Raises `HarnessError`, with all mistakes together, and for what the official script refuses.
    """
    _check_sample(limit, gold)
    if gold is not None and name in BENCHMARKS and fmt in (None, name):
        return _scored(name, read_files(name, path, gold, aliases))
    if _only_gold(name):
        raise HarnessError(f"{name} is not prepared as a task.", "Name its gold with --gold FILE.")
    spelled = parse_spelled(name)
    task = registry.task(spelled)
    mistakes: list[HarnessError] = []
    fmt = _fitting(fmt, name, task, mistakes)
    if aliases is not None and gold is None:
        mistakes.append(
            HarnessError(f"--aliases without --gold: {name} has its own.", "Leave it out.")
        )
    try:
        split = split if gold else checked_split(task, split)
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    options = {"metrics": task.ranking_metrics, "rel": task.rel} if fmt == "trec" else {}
    if gold is not None:
        return _scored(fmt, read_files(fmt, path, gold, aliases), **options)
    whole = known(fmt, task, prepared(spelled, task, str(split), data))
    questions = whole if limit is None else _drawn(whole, limit, seed)
    prediction = BENCHMARKS[fmt][1](path)
    if limit is not None and fmt in ASKED:
        prediction = ASKED[fmt](prediction, whole, questions)
    report = _against(questions, fmt, prediction, options)
    kind = task.kind if fmt in CORPUS else "official"
    return replace(report, gold=kind, seed=None if limit is None else seed)


def _against(questions: Known, fmt: str, prediction: Any, options: Mapping[str, Any]) -> Report:
    """A parsed file against questions of prepared data."""
    report = _scored(fmt, [prediction, *SHAPES[fmt](questions)], **options)
    kept = _without(report, _unfilled(fmt, questions))
    return replace(kept, questions=len(questions.questions))


def _fitting(fmt: str | None, name: str, task: Task, mistakes: list[HarnessError]) -> str:
    """The format, or the task's own; one that does not fit is a mistake."""
    if fmt is not None and fmt not in task.submissions:
        listed = ", ".join(task.submissions)
        mistakes.append(HarnessError(f"{fmt} does not fit {name}.", f"Formats that do: {listed}."))
    return fmt or task.submissions[0]


def origin(name: str, split: str | None, gold: Path | None, report: Report) -> str:
    """What a file is scored against, in words; of which split a gold file is, nobody checks."""
    if gold is not None:
        return f"split {split}, gold {gold}" if split else f"gold {gold}"
    split = checked_split(registry.task(parse_spelled(name)), split)
    drawn = "" if report.seed is None else f" drawn by seed {report.seed}"
    asked = f"{report.questions} question{'' if report.questions == 1 else 's'}{drawn}"
    return f"split {split}, {asked}, {report.gold} gold"


def generated(name: str, gold: Path | None) -> bool:
    """Whether a file is scored against a generated task, or against gold that bears its mark."""
    if gold is not None and files.is_generated(gold):
        return True
    return not _only_gold(name) and registry.task(parse_spelled(name)).generated


def _only_gold(name: str) -> bool:
    """Whether this is a benchmark that no task is made of."""
    return name in BENCHMARKS and name not in registry.table("tasks")


def _scored(fmt: str, values: Sequence[Any], **options: Any) -> Report:
    """What a scorer reports of parsed files, with what it does not say."""
    report = BENCHMARKS[fmt][0](*values, **options)
    return replace(report, warnings=tuple(warnings(fmt, values[0], values[1])))


# --- a sample -------------------------------------------------------------------------


def _check_sample(limit: int | None, gold: Path | None) -> None:
    if limit is not None and (gold is not None or limit < 1):
        raise HarnessError(
            "--limit draws one question or more from prepared data, as a run does.",
            "Leave out --gold, or --limit." if gold else "Write --limit 1 or more.",
        )


def _drawn(whole: Known, limit: int, seed: int) -> Known:
    """The questions that a run with this limit and seed asks."""
    ids = {*sample((named.id for named, _ in whole.questions), limit, seed)}
    return replace(whole, questions=tuple(each for each in whole.questions if each[0].id in ids))


def _rows_asked(rows: list[Any], whole: Known, drawn: Known) -> list[Any]:
    """The rows of drawn questions in a MuSiQue file of the whole split, by their place: twins have
    one id. A file of another length is taken for one of the sample, as it stands."""
    order, asked = (
        scored_rows(named.native for named, _ in each.questions) for each in (whole, drawn)
    )
    if len(rows) != len(order):
        return rows
    wanted = {*asked}
    return [row for row, native in zip(rows, order, strict=True) if native in wanted]


def _answers_asked(rows: list[Any], whole: Known, drawn: Known) -> list[Any]:
    """The rows of an MS MARCO file but for those of questions that were not drawn."""
    every, asked = ({named.native for named, _ in each.questions} for each in (whole, drawn))
    others = every - asked
    return [
        row for row in rows if not isinstance(row, dict) or str(row.get("query_id")) not in others
    ]


ASKED: dict[str, Callable[[Any, Known, Known], Any]] = {
    "musique": _rows_asked,
    "msmarco-qa": _answers_asked,
}
"""Formats whose official script refuses rows of other questions than it asks."""


def _unfilled(fmt: str, known: Known) -> dict[str, str]:
    """Prefixes of keys that some question's gold cannot fill, and what it lacks."""
    golds = [gold for _, gold in known.questions]
    found: dict[str, str] = {}
    if fmt in ("hotpotqa", "2wikimultihopqa") and any(g.sentences is None for g in golds):
        found |= {"sp_": "supporting sentences", "joint_": "supporting sentences"}
    if fmt == "2wikimultihopqa" and any(g.triples is None for g in golds):
        found |= {"evi_": "evidence triples", "joint_": "evidence triples"}
    return found


def _without(report: Report, prefixes: Mapping[str, str]) -> Report:
    if not prefixes:
        return report

    def kept(scores: Mapping[str, float]) -> dict[str, float]:
        return {k: v for k, v in scores.items() if not k.startswith(tuple(prefixes))}

    lacks = [f"The gold has no {what}: no {prefix} keys." for prefix, what in prefixes.items()]
    return replace(
        report,
        scores=kept(report.scores),
        printed=kept(report.printed),
        log=(*report.log, *lacks),
    )

"""Bundles of a folder side by side: each is verified when the board is made.

A table is one sample of questions, as in `harness.report.tables`. In it stand the pipelines of all
bundles without a finding, with their rank intervals (`harness.score.ranks`) on one metric: the
task's first answer metric (its first ranking metric, if it asks for no answers), or another that
was named. A pipeline without that metric stands there without a rank. Pipelines that answer every
question alike (`harness.score.changed.scored_hash`) are marked, count as one and share one rank:
nobody can see who copied whom, or whether two ran the same system. Bundles with findings are listed
with these. Latency is self-reported and ranks nothing. How it looks: `harness.report.board`.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness import registry
from harness.data import DATA, HarnessError
from harness.files import reading
from harness.report.latency import Latency
from harness.report.latency import records as latencies
from harness.report.tables import BOUNDS, VISIBLE, Record, Table, tables
from harness.report.training import not_zero_shot
from harness.run.progress import Progress, silent
from harness.score.changed import scored_hash
from harness.score.intervals import Floats
from harness.score.ranks import Ranks, rank_intervals
from harness.score.results import Sample, Scores, read_manifest, read_scores
from harness.spelling import parse_spelled
from harness.verify.checks import examine
from harness.verify.report import Report

SHOWN = 3
"""Others of equal rows that are named."""


@dataclass(frozen=True)
class Line:
    """A pipeline of a bundle in a table.

    rank: None where it has not the metric that ranks
    same: others of the table that answer every question alike
    """

    report: Report
    task: str
    system: str
    cells: Mapping[str, Record]
    ended: Counter[str]
    rank: Ranks | None = None
    trained: bool = False
    same: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its submitter calls it."""
        return str(self.report.submission["system"])

    @property
    def marks(self) -> list[str]:
        """What has been shown of it, and what to know."""
        errors = self.ended["error"] + self.ended["missing"]
        told = [f"errors={errors}"] if errors else []
        if self.same:
            more = f" and {len(self.same) - SHOWN} more" if len(self.same) > SHOWN else ""
            told.append(f"same rows as {', '.join(self.same[:SHOWN])}{more}")
        zero = ["not zero-shot"] if self.trained else []
        badge = self.report.badge_of(self.task, self.system)
        return [badge, *zero, *self.report.unchecked(self.system), *told]


@dataclass(frozen=True)
class Ranked:
    """One table: best first. bounds: floor and ceiling, where somebody ranks documents."""

    title: str
    sample: Sample
    metric: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    bounds: Mapping[str, Mapping[str, Record]]

    @property
    def note(self) -> str:
        """What ranks it, and on what data."""
        ranks = any(line.rank for line in self.lines)
        by = f"Ranked by {self.metric}" if ranks else f"Not ranked: nobody has {self.metric}"
        return f"{by}; data {self.sample.fingerprint}."


@dataclass(frozen=True)
class Timed:
    """What a bundle says of the time that a pipeline takes, beside its quality as computed here.

    quality: of the metric that ranks its table; None where it has not that one
    """

    report: Report
    latency: Latency
    metric: str
    quality: Record | None


@dataclass(frozen=True)
class Board:
    """All that a leaderboard shows.

    seed:     drew the questions that were asked again, if any
    left_out: names in the folder that are no bundles
    """

    tables: tuple[Ranked, ...]
    accepted: tuple[Report, ...]
    refused: tuple[Report, ...]
    timed: tuple[Timed, ...]
    seed: int | None = None
    left_out: tuple[str, ...] = ()


@dataclass
class _Pile:
    """What the bundles bring to one table. rows: hash of what a pipeline of a bundle answers."""

    tables: list[tuple[Report, Table]] = field(default_factory=list)
    rows: dict[tuple[str, str], str] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)


def leaderboard(
    folder: Path,
    data: Path = DATA,
    metric: str | None = None,
    again: int = 0,
    seed: int | None = None,
    progress: Progress = silent,
    published: str | None = None,
) -> Board:
    """Verify the bundles of a folder and rank them; `HarnessError` if there are none.

    metric: ranks every table that has it; None: each task's own
    again:  how many questions of each pipeline to ask again, drawn by ``seed``
    published: the seed of a challenge, which ranks no bundle that is not of it
    """
    bundles, left_out = _bundles(folder)
    if again and seed is None:
        seed = secrets.randbits(32)
    reports: list[Report] = []
    timed: list[Timed] = []
    piles: dict[Sample, _Pile] = {}
    for bundle in bundles:
        with tempfile.TemporaryDirectory(prefix="harness-board-") as place:
            report = examine(bundle, Path(place), data, again, seed, progress, published)
            reports.append(report)
            if not report.findings:
                run = Path(place) / "run"
                found = tables(run)
                _pile(report, run, found, metric, piles)
                timed += _timed(report, run, found, metric)
    if metric is not None and piles and not any(pile.values for pile in piles.values()):
        known = dict.fromkeys(
            m for p in piles.values() for _, table in p.tables for m in table.shown()
        )
        raise HarnessError(f"no table has {metric!r}.", f"They have {', '.join(known)}.")
    return Board(
        tuple(_ranked(sample, pile, metric) for sample, pile in _ordered(piles)),
        tuple(each for each in reports if not each.findings),
        tuple(each for each in reports if each.findings),
        tuple(timed),
        seed if again else None,
        left_out,
    )


def _bundles(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The bundles of a folder, and the names of all else in it."""
    with reading(folder):
        entries = sorted(folder.iterdir())
    bundles = [each for each in entries if each.suffix.lower() == ".zip" and each.is_file()]
    if not bundles:
        raise HarnessError(f"{folder} has no bundles (*.zip).", "`submit --bundle` writes one.")
    return bundles, tuple(each.name for each in entries if each not in bundles)


def _ordered(piles: Mapping[Sample, _Pile]) -> Iterable[tuple[Sample, _Pile]]:
    return sorted(piles.items(), key=lambda item: [str(part) for part in item[0]])


def _timed(
    report: Report, run: Path, found: Sequence[Table], metric: str | None
) -> Iterator[Timed]:
    """The times of a verified run, each with the quality of its pipeline."""
    cells = {
        (*table.sample[:3], line.system): (_primary(table.sample, metric), line.cells)
        for table in found
        for line in table.lines
    }
    for each in latencies(run):
        name, there = cells[each.task, each.split, each.setting, each.system]
        yield Timed(report, each, name, there.get(name))


def _pile(
    report: Report,
    run: Path,
    found: Sequence[Table],
    metric: str | None,
    piles: dict[Sample, _Pile],
) -> None:
    """Add a verified run to the tables that it belongs to."""
    scores = {each.sample: each for each in read_scores(run)}
    for entry in read_manifest(run)["pipelines"]:
        pile = piles.setdefault(Sample.of(entry), _Pile())
        pile.rows[report.bundle, entry["system"]] = scored_hash(run / entry["rows"])
    for table in found:
        pile = piles.setdefault(table.sample, _Pile())
        pile.tables.append((report, table))
        for line in table.lines:
            if line.system not in BOUNDS:
                _values(report, scores[table.sample], line.system, metric, pile)


def _values(report: Report, scores: Scores, system: str, metric: str | None, pile: _Pile) -> None:
    """The metric that ranks, question by question, if the system has it."""
    name = _primary(scores.sample, metric)
    rows = scores.lines[system]
    found = {row["id"]: float(row["metrics"][name]) for row in rows if name in row["metrics"]}
    if found:
        pile.values[report.bundle, system] = found
        pile.groups |= {row["id"]: str(row["group"]) for row in rows}


def _primary(sample: Sample, metric: str | None) -> str:
    """The metric that ranks a table; it depends on the task alone, never on who takes part."""
    if metric is not None:
        return metric
    task = registry.task(parse_spelled(sample.task))
    return next(iter((*task.answer_metrics, *task.ranking_metrics)))


def _ranked(sample: Sample, pile: _Pile, metric: str | None) -> Ranked:
    """One table, best mean first; those without the metric come last."""
    ranks, same = _ranks(pile), _same(pile)
    primary = _primary(sample, metric)
    lines = [
        Line(
            report,
            sample.task,
            line.system,
            line.cells,
            line.ended,
            ranks.get((report.bundle, line.system)),
            not_zero_shot(report.submission["training_data"], sample.task),
            same[report.bundle, line.system],
        )
        for report, table in pile.tables
        for line in table.lines
        if line.system not in BOUNDS
    ]

    def best_first(line: Line) -> tuple[float, str, str]:
        cell = line.cells.get(primary)
        return -cell.value if cell else 1.0, line.name, line.report.bundle

    every = [table for _, table in pile.tables]
    bounds = {
        line.system: line.cells
        for table in every
        for line in table.lines
        if line.system in BOUNDS and line.system != VISIBLE
    }
    metrics = dict.fromkeys(name for table in every for name in table.shown())
    ordered = tuple(sorted(lines, key=best_first))
    first = [primary] if primary in metrics else []
    shown = tuple(dict.fromkeys([*first, *metrics]))
    return Ranked(every[0].title, sample, primary, shown, ordered, bounds)


def _ranks(pile: _Pile) -> dict[tuple[str, str], Ranks]:
    """Of every pipeline; those that answer alike take part once."""
    ids = sorted(pile.groups)
    groups = [pile.groups[query_id] for query_id in ids]
    values: dict[str, Floats] = {
        pile.rows[pair]: np.array([found.get(query_id, np.nan) for query_id in ids])
        for pair, found in pile.values.items()
    }
    ranks = rank_intervals(values, groups)
    return {pair: ranks[pile.rows[pair]] for pair in pile.values}


def _same(pile: _Pile) -> dict[tuple[str, str], tuple[str, ...]]:
    """The others that answer as a pipeline does, as "name: pipeline (bundle)"."""
    names = {report.bundle: report.submission["system"] for report, _ in pile.tables}
    alike: dict[str, list[tuple[str, str]]] = {}
    for pair, hashed in pile.rows.items():
        alike.setdefault(hashed, []).append(pair)
    return {
        pair: tuple(
            f"{names[bundle]}: {system} ({bundle})"
            for bundle, system in sorted(alike[hashed])
            if (bundle, system) != pair
        )
        for pair, hashed in pile.rows.items()
    }

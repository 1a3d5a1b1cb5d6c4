"""The drawings of a page as coordinates; the template turns them into SVG.

Nothing is drawn that does not stand in a table beside it: a drawing is for the eye, the table for
everybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.report.lost import CLASSES, Lost
from harness.report.tables import BOUNDS, Table
from harness.score.results import CEILING, FLOOR

WIDTH, HEIGHT = 600, 320
"""Of a drawing's plane, in its own units."""


@dataclass(frozen=True)
class Whisker:
    """A mean with its interval, as shares of the axis from 0 to 1."""

    system: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """One metric of all systems; floor and ceiling are None where there are none."""

    metric: str
    most: float
    whiskers: tuple[Whisker, ...]
    floor: float | None
    ceiling: float | None


@dataclass(frozen=True)
class Point:
    """A pipeline by its p50 and its quality; x and y in `WIDTH` and `HEIGHT`, y downwards."""

    system: str
    ms: float
    value: float
    x: float
    y: float
    best: bool


@dataclass(frozen=True)
class Tradeoff:
    """Quality against milliseconds, the latter on a logarithmic axis.

    ticks: (x, label); marks: (y, label); front: points of the Pareto line, from fast to slow
    """

    metric: str
    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]

    @property
    def front(self) -> list[Point]:
        """The pipelines that none is both faster and better than."""
        return sorted((each for each in self.points if each.best), key=lambda each: each.ms)


@dataclass(frozen=True)
class Bar:
    """A part of a stacked bar, from ``start`` on, in hundredths."""

    name: Lost
    count: int
    start: float
    width: float


def intervals(table: Table, metric: str) -> Intervals:
    """One metric of a table; the axis ends at 1, or at what lies above it."""
    cells = {line.system: line.cells[metric] for line in table.lines if metric in line.cells}
    own = [cell for system, cell in cells.items() if system not in BOUNDS]
    most = max([1.0, *(cell.high or cell.value for cell in own)])
    return Intervals(
        metric,
        most,
        tuple(
            Whisker(
                cell.system,
                cell.value / most,
                (cell.value if cell.low is None else cell.low) / most,
                (cell.value if cell.high is None else cell.high) / most,
            )
            for cell in own
        ),
        cells[FLOOR].value / most if FLOOR in cells else None,
        cells[CEILING].value / most if CEILING in cells else None,
    )


def pareto(points: Iterable[tuple[str, float, float]]) -> set[str]:
    """Of (name, milliseconds, quality), those that none is at least as fast and as good as, and
    better in one of the two."""
    all_ = list(points)
    return {
        name
        for name, ms, value in all_
        if not any(
            fast <= ms and good >= value and (fast < ms or good > value) for _, fast, good in all_
        )
    }


def tradeoff(metric: str, quality: Mapping[str, float], ms: Mapping[str, float]) -> Tradeoff | None:
    """The pipelines that have both; None if there are none."""
    both = [(name, ms[name], quality[name]) for name in quality if ms.get(name, 0) > 0]
    if not both:
        return None
    logs = [math.log10(each) for _, each, _ in both]
    left, right = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    top = max([1.0, *(value for *_, value in both)])
    best = pareto(both)

    def x(log: float) -> float:
        return round(WIDTH * (log - left) / (right - left), 1)

    points = tuple(
        Point(n, t, v, x(math.log10(t)), round(HEIGHT * (1 - v / top), 1), n in best)
        for n, t, v in both
    )
    ticks = tuple((x(power), f"{10.0**power:g}") for power in range(left, right + 1))
    marks = tuple((HEIGHT * (1 - n / 4), f"{top * n / 4:.2f}") for n in range(5))
    return Tradeoff(metric, points, ticks, marks)


def bars(classes: Sequence[Lost | None]) -> list[Bar]:
    """How often each class occurs, one behind the other, as a bar of width 100."""
    found, start = [], 0.0
    for name in CLASSES:
        count = sum(each == name for each in classes)
        width = 100 * count / len(classes) if classes else 0.0
        if count:
            found.append(Bar(name, count, round(start, 3), round(width, 3)))
        start += width
    return found

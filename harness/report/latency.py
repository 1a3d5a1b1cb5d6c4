"""From latency.jsonl to what people see: milliseconds first, then two ratios.

A table has the pipelines that were measured on the same questions, machine and device. Steady
state pools the questions of all rounds; cold start and first question are medians over rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.report.sheet import Folders, Sheet, Style, listed, titled, written
from harness.run.stages import READ
from harness.run.timings import NAME, Measured, Timing, read_timings
from harness.spelling import Pipeline, Spelled, Stage, parse_pipeline

BM25 = Spelled("bm25")

NOISY = 0.1
"""The spread of the rounds' medians, over their median, from which a cell is called noisy."""
ENOUGH = 200
"""Different questions that a 95th percentile needs."""
KEY = (
    "Batch 1, one thread, a fresh process a round. cold: process start to systems open. "
    "first: the first question. p50, p95: text in to text out after warming up, over all rounds "
    f"(p95 from {ENOUGH} different questions). retrieval, answer: inside the systems that do it. "
    "tokens: read and written, all stages. answer ms a new token: all of answering, reading the "
    "prompt too, over tokens written. peak: the process's resident memory. ×bm25: p50 of retrieval "
    "over bm25's. ×bm25+reader: p50 over that of bm25 and the same reader at the same depth. "
    "adapt once: what a system spends on adapting itself when it opens (part of cold; median over "
    "rounds). adapt p50: what it spends on that for each question (part of p50 and of answer). "
    f"noisy: the p50 of rounds differ by more than {NOISY:.0%}; one round cannot tell."
)


@dataclass(frozen=True)
class Latency:
    """A pipeline's latency on one task. ms: milliseconds, p50 and p95 percentiles.

    None is what cannot be known: of a pipeline that failed or that does not answer, or without
    the pipeline to compare with. ``questions``: different ones that were timed. ``spread``:
    (most − least) / median of the rounds' p50; of one round None.
    """

    task: str
    split: str
    setting: str
    system: str
    rounds: int
    questions: int
    index_seconds: float | None
    index_bytes: float | None
    cold_ms: float | None
    first_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    retrieval_p50_ms: float | None
    answer_p50_ms: float | None
    tokens: float | None
    answer_ms_per_new_token: float | None
    peak_bytes: float | None
    before_bytes: float | None
    spread: float | None
    errors: int
    failed: str
    generated: bool
    over_bm25: float | None = None
    over_bm25_reader: float | None = None
    adapt_once_ms: float | None = None
    adapt_p50_ms: float | None = None

    @property
    def remark(self) -> str:
        """What to know before believing it."""
        noisy = self.spread is not None and self.spread > NOISY
        said = [
            f"failed: {self.failed}" if self.failed else "",
            f"errors={self.errors}" if self.errors else "",
            f"noisy: rounds differ by {self.spread:.0%}" if noisy else "",
            "one round" if self.rounds == 1 else "",
        ]
        return "; ".join(filter(None, said))


COLUMNS: dict[str, Callable[[Latency], float | None]] = {
    "index\ns": lambda cell: cell.index_seconds,
    "index\nMB": lambda cell: _mega(cell.index_bytes),
    "cold\nms": lambda cell: cell.cold_ms,
    "adapt\nonce ms": lambda cell: cell.adapt_once_ms,
    "first\nms": lambda cell: cell.first_ms,
    "p50\nms": lambda cell: cell.p50_ms,
    "p95\nms": lambda cell: cell.p95_ms,
    "retrieval\np50 ms": lambda cell: cell.retrieval_p50_ms,
    "answer\np50 ms": lambda cell: cell.answer_p50_ms,
    "adapt\np50 ms": lambda cell: cell.adapt_p50_ms,
    "tokens a\nquestion": lambda cell: cell.tokens,
    "answer ms a\nnew token": lambda cell: cell.answer_ms_per_new_token,
    "peak\nMB": lambda cell: _mega(cell.peak_bytes),
    "×bm25": lambda cell: cell.over_bm25,
    "×bm25\n+reader": lambda cell: cell.over_bm25_reader,
}


def alone(folder: Path) -> bool:
    """Whether a folder has latencies and no run."""
    return (folder / NAME).exists() and not (folder / "manifest.json").exists()


def records(folders: Folders) -> list[Latency]:
    """Every pipeline's latency in these runs."""
    return [cell for each in passes(folders) for cell in each]


def passes(folders: Folders) -> list[list[Latency]]:
    """The same, together what one pass measured: only those can be compared."""
    return [_cells(bench) for bench in _benches(folders)]


def report(folders: Folders, style: Style = "table") -> str:
    """The latency tables of one or more runs as text; empty if none was measured."""
    found = [written(each, style) for each in sheets(folders)]
    return "\n\n".join([*found, KEY] if found else [])


def sheets(folders: Folders) -> list[Sheet]:
    """Its tables, in the order of `passes`."""
    return [_sheet(bench) for bench in _benches(folders)]


def by_stage(folders: Folders) -> list[Sheet]:
    """p50 of each stage and span of a pipeline, a table a pass, in the order of `passes`."""
    return [_stages(bench) for bench in _benches(folders)]


def as_json(folders: Folders) -> list[dict[str, Any]]:
    """The records as plain values, with their remark."""
    return [{**asdict(cell), "remark": cell.remark} for cell in records(folders)]


def _benches(folders: Folders) -> list[list[Timing]]:
    """Timings that can be compared; a pipeline that two runs measured is taken from the last."""
    found: dict[str, dict[str, list[Timing]]] = {}
    for folder in listed(folders):
        new: dict[tuple[str, str], list[Timing]] = {}
        for timing in read_timings(folder):
            new.setdefault((timing.bench, timing.system), []).append(timing)
        for (bench, system), timings in new.items():
            found.setdefault(bench, {})[system] = timings
    return [[each for timings in cells.values() for each in timings] for cells in found.values()]


def _sheet(bench: Sequence[Timing]) -> Sheet:
    """One table; columns that no pipeline can fill are left out, but never the percentiles."""
    cells, about = _cells(bench), bench[0]
    always = {"p50\nms", "p95\nms"}
    heads = [h for h, of in COLUMNS.items() if h in always or any(of(c) is not None for c in cells)]
    rows = [(c.system, *(_number(COLUMNS[head](c)) for head in heads), c.remark) for c in cells]
    title = titled(about, about.generated, "latency")
    return Sheet(title, ("pipeline", *heads, "note"), tuple(rows), (_conditions(bench),), 9)


def _stages(bench: Sequence[Timing]) -> Sheet:
    """Stages by their place in the pipeline, then spans by name."""
    measured = _done(bench)
    names = list(dict.fromkeys(name for each in measured for name in each.spans))
    most = max((len(each.stages) for each in measured), default=0)
    rows = []
    for system in dict.fromkeys(timing.system for timing in bench):
        done = _done([timing for timing in bench if timing.system == system])
        stages = [_at_stage(done, place) for place in range(most)]
        spans = [_inside(done, name) for name in names]
        rows.append((system, *(_number(_median(each)) for each in (*stages, *spans))))
    places = [f"stage {n}\nms" for n in range(1, most + 1)]
    title = "Latency by stage and span, p50"
    return Sheet(title, ("pipeline", *places, *(f"{n}\nms" for n in names)), tuple(rows))


def _at_stage(done: Sequence[Measured], place: int) -> list[float]:
    """Milliseconds of the stage at a place; none where the pipeline is shorter."""
    return [ms for each in done if place < len(each.stages) for ms in each.stages[place]]


def _conditions(bench: Sequence[Timing]) -> str:
    """Under what conditions a table was measured."""
    done, about = [each.measured for each in bench if each.measured], bench[0]
    machine = "{cpu}, {cores} cores, {system}, Python {python}".format(**about.machine)
    where = machine if about.device == "cpu" else f"{about.device} at {machine}"
    if not done:
        return f"Nothing was measured. {where}."
    sizes = sorted({len(each.ids) + each.errors for each in done})
    asked = "–".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
    rounds = max(each.round for each in bench) + 1
    different = len({question for each in done for question in each.ids})
    in_all = f" ({different} different ones)" if different > sizes[-1] else ""
    loads = [load for each in done for load in each.load]
    before = statistics.median(each.before for each in done) / 1e6
    return (
        f"{asked} questions × {rounds} rounds{in_all}, seed {about.seed}, {about.dtype}; {where}; "
        f"load {min(loads):.1f}–{max(loads):.1f}; {before:.0f} MB before systems open."
    )


# --- cells ----------------------------------------------------------------------------


def _cells(bench: Sequence[Timing]) -> list[Latency]:
    """A record a pipeline, with its ratios."""
    by_system: dict[str, list[Timing]] = {}
    for timing in bench:
        by_system.setdefault(timing.system, []).append(timing)
    cells = {system: _cell(timings) for system, timings in by_system.items()}
    pipelines = {system: parse_pipeline(system).canonical for system in cells}
    speaking = {system for system, timings in by_system.items() if any(map(_speaks, timings))}
    retrieval = {system: cell.retrieval_p50_ms for system, cell in cells.items()}
    whole = {system: cells[system].p50_ms for system in speaking}
    bm25 = retrieval.get(_bm25(pipelines, speaking))
    both = {system: whole.get(_bm25_reader(pipelines[system], pipelines)) for system in speaking}
    return [
        replace(
            cell,
            over_bm25=_ratio(retrieval[system], bm25),
            over_bm25_reader=_ratio(cell.p50_ms, both.get(system)),
        )
        for system, cell in cells.items()
    ]


def _cell(timings: Sequence[Timing]) -> Latency:
    """A pipeline's rounds together, without its ratios."""
    done, about = _done(timings), timings[0]
    whole = [ms for each in done for ms in each.whole]
    index = next((each.index for each in timings if each.index), {})
    questions = len({question for each in done for question in each.ids})
    return Latency(
        task=about.task,
        split=about.split,
        setting=about.setting,
        system=about.system,
        rounds=len(done),
        questions=questions,
        index_seconds=index.get("seconds"),
        index_bytes=index.get("bytes"),
        cold_ms=_median([each.cold for each in done]),
        first_ms=_median([each.first for each in done if each.first is not None]),
        p50_ms=_median(whole),
        p95_ms=float(np.percentile(whole, 95)) if questions >= ENOUGH else None,
        retrieval_p50_ms=_median(_inside(done, "retrieve")),
        answer_p50_ms=_median(_inside(done, "answer")),
        tokens=_tokens(done),
        answer_ms_per_new_token=_answer_ms_per_new_token(done),
        peak_bytes=max((float(each.peak) for each in done), default=None),
        before_bytes=_median([each.before for each in done]),
        spread=_spread([statistics.median(each.whole) for each in done if each.whole]),
        errors=sum(each.errors for each in done),
        failed=next((each.failed for each in timings if each.failed), ""),
        generated=about.generated,
        adapt_once_ms=_median([each.opening["adapt"] for each in done if "adapt" in each.opening]),
        adapt_p50_ms=_median(_inside(done, "adapt")),
    )


def _done(timings: Sequence[Timing]) -> list[Measured]:
    return [each.measured for each in timings if each.measured]


def _inside(done: Sequence[Measured], name: str) -> list[float]:
    """Milliseconds in a span; none where no question went through it."""
    return [ms for each in done for ms in each.spans.get(name, ())]


def _speaks(timing: Timing) -> bool:
    return bool(timing.measured and {"answer", "solve"} & timing.measured.spans.keys())


def _spread(middles: Sequence[float]) -> float | None:
    """How far the rounds' medians lie apart, over their median; one round cannot tell."""
    if len(middles) < 2:
        return None
    return (max(middles) - min(middles)) / statistics.median(middles)


def _tokens(done: Sequence[Measured]) -> float | None:
    """Tokens a question, read and written by all stages, of the questions that say either."""
    known = [
        (read or 0) + (new or 0)
        for each in done
        for read, new in zip(each.counts["prompt_tokens"], each.counts["new_tokens"], strict=True)
        if read is not None or new is not None
    ]
    return statistics.fmean(known) if known else None


def _answer_ms_per_new_token(done: Sequence[Measured]) -> float | None:
    """Milliseconds of answering, reading the prompt too, over the tokens that were written while
    answering, all questions together."""
    spent = written = 0.0
    for each in done:
        tokens = each.counts.get("answer_tokens", ())
        for ms, new in zip(_inside([each], "answer"), tokens, strict=False):
            spent, written = spent + ms * bool(new), written + (new or 0)
    return spent / written if written else None


# --- ratios ---------------------------------------------------------------------------


def _bm25(pipelines: dict[str, Pipeline], answering: set[str]) -> str:
    """The pipeline that retrieves with plain bm25 and nothing else; empty if there is none."""
    fitting = [
        (len(pipeline.stages), system)
        for system, pipeline in pipelines.items()
        if pipeline.stages[0].system == BM25 and len(pipeline.stages) == 1 + (system in answering)
    ]
    return min(fitting, default=(0, ""))[1]


def _bm25_reader(own: Pipeline, pipelines: dict[str, Pipeline]) -> str:
    """``bm25+reader`` with the very reader of ``own``, at the same depth; empty if there is none.

    What does not end in a reader of that name is compared with the only one there is.
    """
    last = own.stages[-1]
    fitting = {
        pipeline.stages[1].system: system
        for system, pipeline in pipelines.items()
        if len(pipeline.stages) == 2
        and pipeline.stages[0].system == BM25
        and pipeline.stages[1].system.name == "reader"
        and _depth(pipeline.stages[1]) == _depth(last)
    }
    if last.system.name != "reader" and len(fitting) == 1:
        return next(iter(fitting.values()))
    return fitting.get(last.system, "")


def _depth(stage: Stage) -> int:
    return READ if stage.depth is None else stage.depth


def _ratio(value: float | None, over: float | None) -> float | None:
    return value / over if value is not None and over else None


# --- numbers --------------------------------------------------------------------------


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _mega(size: float | None) -> float | None:
    return None if size is None else size / 1e6


def _number(value: float | None) -> str:
    """Three digits or more; – for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

"""The process that measures one pipeline in one round: ``python -m harness.run.measure FOLDER NS``.

It reads FOLDER/spec.json and writes FOLDER/result.json. Threads are fixed by the environment it
is started with; NS is the monotonic clock when it was started. Every question goes alone through
the door that the quality run uses, `Station.rows`, and is asked once. The garbage collector stays
on, as it would in a server, but passes over all that was there after warming up.

What it does not do: build indexes, read gold, know the task.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness import registry
from harness.corpus import Corpus
from harness.data import Brief, HarnessError, Query, Row
from harness.own_code import code_allowed
from harness.run.indexes import close_system, open_system
from harness.run.spans import recorded
from harness.run.stages import Station
from harness.run.timings import Measured
from harness.spelling import parse_pipeline

TOKENS = ("prompt_tokens", "new_tokens")
"""The counts of replies that are kept."""
ANSWERED = "answer_tokens"
"""The new tokens of the last stage alone."""


@dataclass(frozen=True)
class Spec:
    """What to measure.

    classes:  ``module:Class`` of systems that were registered in the process that asks
    indexes:  the folder of each stage's index, None where it has none
    briefs:   what each stage is told
    queries:  the first question, ``warm`` more to warm up, and those to time
    patience: seconds that opening, one question, or closing may take
    parent:   the process that asks; without it nothing is measured further
    code_allowed: stages may be classes of files (`harness.own_code`)
    """

    pipeline: str
    classes: dict[str, str]
    corpus: Path
    indexes: list[Path | None]
    briefs: list[Brief]
    queries: tuple[Query, ...]
    warm: int
    patience: float
    parent: int
    code_allowed: bool = False


@dataclass(frozen=True)
class Asked:
    """One question: its row, the tokens of all its stages, the clock before and after each stage,
    spans; nanoseconds."""

    row: Row
    counts: Mapping[str, float]
    ticks: Sequence[int]
    spans: Mapping[str, int]


def measure(spec: Spec, started: int) -> Measured:
    """Open the pipeline and ask; `HarnessError` if it cannot be opened or closed.

    started: nanoseconds of the monotonic clock when this process was started
    """
    load, before = os.getloadavg()[0], peak_memory()
    _wait(spec)
    with recorded() as opening:
        stations = _opened(spec)
    cold = (time.monotonic_ns() - started) / 1e6
    _one_thread()
    first, *_ = [_ask(stations, query, spec) for query in spec.queries[: spec.warm + 1]]
    gc.collect()
    gc.freeze()
    asked = [_ask(stations, query, spec) for query in spec.queries[spec.warm + 1 :]]
    peak = peak_memory()
    _close(stations, spec)
    good = [each for each in asked if not each.row.error]
    errors = [each.row.error for each in asked if each.row.error]
    return Measured(
        cold=round(cold, 3),
        first=None if first.row.error else _ms(first.ticks[-1] - first.ticks[0]),
        before=before,
        peak=peak,
        ids=[each.row.id for each in good],
        whole=[_ms(each.ticks[-1] - each.ticks[0]) for each in good],
        stages=[[_ms(e.ticks[n + 1] - e.ticks[n]) for e in good] for n in range(len(stations))],
        spans={name: [_ms(each.spans.get(name, 0)) for each in good] for name in _spanned(good)},
        counts={name: [each.counts.get(name) for each in good] for name in (*TOKENS, ANSWERED)},
        errors=len(errors),
        error=next(iter(errors), ""),
        load=[round(load, 2), round(os.getloadavg()[0], 2)],
        opening={name: _ms(spent) for name, spent in opening.items()},
    )


def _opened(spec: Spec) -> list[Station]:
    """Every stage ready to serve."""
    for name, target in spec.classes.items():
        module, _, path = target.partition(":")
        cls: Any = reduce(getattr, path.split("."), import_module(module))
        registry.register("systems", name)(cls)
    corpus, stations = Corpus(spec.corpus), []
    told = zip(spec.indexes, spec.briefs, strict=True)
    for stage, (index, brief) in zip(parse_pipeline(spec.pipeline).stages, told, strict=True):
        system = registry.create("systems", stage.system)
        open_system(system, stage.system, corpus, index, brief)
        stations.append(Station(str(stage.system), system, corpus, stage.depth))
    return stations


def _close(stations: Sequence[Station], spec: Spec) -> None:
    """Let every system go of what it took, in the time that a question has."""
    _wait(spec)
    for stage, station in zip(parse_pipeline(spec.pipeline).stages, stations, strict=True):
        close_system(station.system, stage.system)
    faulthandler.cancel_dump_traceback_later()


def _ask(stations: Sequence[Station], query: Query, spec: Spec) -> Asked:
    """Ask one question, alone, through all stages."""
    _wait(spec)
    rows: list[Row] = []
    with recorded() as spans:
        ticks = [time.perf_counter_ns()]
        for station in stations:
            rows += station.rows([query], rows[-1:])
            ticks.append(time.perf_counter_ns())
    return Asked(rows[-1], _counts(rows), ticks, spans)


def _counts(rows: Sequence[Row]) -> dict[str, float]:
    """The tokens of all stages together, where one says them, and those that the last wrote."""
    said = [(name, row.counts[name]) for row in rows for name in TOKENS if name in row.counts]
    counts = {name: sum(n for other, n in said if other == name) for name, _ in said}
    last = rows[-1].counts
    return counts | ({ANSWERED: last["new_tokens"]} if "new_tokens" in last else {})


def _wait(spec: Spec) -> None:
    """Give what comes next its time: end this process if it takes longer, or if it is an orphan."""
    if os.getppid() != spec.parent:
        sys.exit("nobody waits for this measurement any more")
    faulthandler.dump_traceback_later(spec.patience, exit=True)


def _one_thread() -> None:
    """Fix what the environment cannot."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _spanned(asked: Sequence[Asked]) -> list[str]:
    """Every span that some question went through."""
    return list(dict.fromkeys(name for each in asked for name in each.spans))


def _ms(nanoseconds: int) -> float:
    """Milliseconds, to the microsecond."""
    return round(nanoseconds / 1e6, 3)


def peak_memory() -> int:
    """The most memory, in bytes, that this process had resident so far.

    On Linux not from `getrusage`: there a fresh process inherits the peak of the one that
    started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_spec(spec: Spec, folder: Path) -> None:
    """Tell a process what to measure."""
    (folder / "spec.json").write_bytes(TypeAdapter(Spec).dump_json(spec))


def read_result(folder: Path) -> Measured | None:
    """What a process measured; None if it ended before it could write it."""
    path = folder / "result.json"
    return TypeAdapter(Measured).validate_json(path.read_bytes()) if path.exists() else None


def main() -> int:
    """Measure what the folder's spec.json says; say why if it cannot be."""
    folder, started = Path(sys.argv[1]), int(sys.argv[2])
    spec = TypeAdapter(Spec).validate_json((folder / "spec.json").read_bytes())
    try:
        with code_allowed(spec.code_allowed):
            measured = measure(spec, started)
    except HarnessError as error:
        print(error)
        return 1
    (folder / "result.json").write_bytes(TypeAdapter(Measured).dump_json(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())

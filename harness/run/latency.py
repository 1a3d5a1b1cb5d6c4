"""The latency pass: a fresh process per pipeline and round, the order of pipelines rotated.

It adds to ``RUN/latency.jsonl`` what is missing there (`harness.run.timings` has the format) and
does nothing when all is there; a line that failed is measured again. Quality runs never feed it.
Indexes are built before, by the code that builds them for a run, and never inside a measurement.

What it does not do: several questions at once, several threads, results from outside.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from harness import manifest, registry
from harness.canonical import corpus_folder, read_about
from harness.data import DATA, HarnessError, raise_together
from harness.own_code import is_code_allowed
from harness.provenance import THREADS
from harness.run import measure
from harness.run.external import from_outside
from harness.run.indexes import build_index, index_about
from harness.run.measure import Spec, read_result, write_spec
from harness.run.plan import Job, Plan
from harness.run.progress import Progress, silent
from harness.run.runner import brief_of
from harness.run.store import one_writer
from harness.run.timings import Measured, Timing, append, read_timings, this_machine, tidy
from harness.run.work import RUNS, Node, Work, indexes_of, run_name, work_of

WARM = 5
"""Questions to warm up with, after the first; fewer where a task has few."""
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in THREADS} | {
    "VECLIB_MAXIMUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Protocol:
    """How much is measured.

    questions: timed in each round, after the first and those to warm up; fewer if the task has,
               and then each round spends others on that, so that over the rounds all are timed
    rounds:    fresh processes a pipeline
    tasks:     how many of the plan's tasks; None for all
    patience:  seconds that opening a pipeline, one question, or closing may take
    """

    questions: int = 200
    rounds: int = 5
    tasks: int | None = None
    patience: float = 600.0


FULL = Protocol()
SHORT = Protocol(questions=30, rounds=2, tasks=1)


def latency(
    plan: Plan,
    protocol: Protocol = FULL,
    out: Path | None = None,
    data: Path = DATA,
    progress: Progress = silent,
) -> Path:
    """Measure every pipeline of a plan; returns the run's folder. Its limit and batch size do
    not count: questions are asked one at a time.

    out: the run's folder; by default that of a `run` of the same plan
    Raises `HarnessError`, before anything starts, for what a fresh process could not measure.
    A pipeline that fails leaves the others alone; `failures` tells.
    """
    raise_together(unmeasurable(plan))
    folder = out or RUNS / run_name(plan)
    with one_writer(folder):
        for job in plan.jobs[: protocol.tasks]:
            _measure_job(job, plan, protocol, folder, data, progress)
    return folder


def failures(folder: Path, plan: Plan, protocol: Protocol) -> dict[str, str]:
    """Pipelines that could not be measured, or not on every question, and why.

    Of what plan and protocol ask for, here and now: what failed under others is not told.
    """
    found: dict[str, str] = {}
    for timing in read_timings(folder):
        why = timing.failed
        if timing.measured and timing.measured.errors:
            why = f"{timing.measured.errors} errors, first: {timing.measured.error}"
        if why and _asked_for(timing, plan, protocol):
            found.setdefault(f"{timing.task} {timing.system}: latency", why)
    return found


def _asked_for(timing: Timing, plan: Plan, protocol: Protocol) -> bool:
    """Whether a line of the file is one that a plan and a protocol ask for, on this machine."""
    places = [
        (str(job.spelled), job.split, job.setting, read_about(job.folder)["fingerprint"])
        for job in plan.jobs[: protocol.tasks]
    ]
    how = (timing.asked, timing.seed, timing.device, timing.dtype, timing.machine)
    return (
        (timing.task, timing.split, timing.setting, timing.fingerprint) in places
        and how == (protocol.questions, plan.seed, plan.device, plan.dtype, this_machine())
        and timing.system in map(str, plan.pipelines)
        and timing.round < protocol.rounds
    )


def unmeasurable(plan: Plan) -> list[HarnessError]:
    """Systems that a fresh process cannot know, or whose results were made elsewhere."""
    stages = {stage.system: stage for each in plan.pipelines for stage in each.stages}
    found = []
    for spelled in stages:
        system = registry.create("systems", spelled)
        if from_outside(system):
            found.append(
                HarnessError(
                    f"{spelled} is or needs a result from elsewhere and has no latency.",
                    "Leave it out here.",
                )
            )
        elif spelled.name in registry.registered("systems") and not _importable(type(system)):
            found.append(
                HarnessError(
                    f"{spelled.name} is known in this process alone; latency is measured in "
                    "fresh ones.",
                    "Put its class at the top of a module that can be imported.",
                )
            )
    return found


def _importable(cls: type) -> bool:
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        return False
    try:
        return find_spec(cls.__module__) is not None
    except ValueError:
        return False


# --- one job --------------------------------------------------------------------------


def _measure_job(
    job: Job, plan: Plan, protocol: Protocol, folder: Path, data: Path, progress: Progress
) -> None:
    """Measure what is missing of one job, round by round."""
    plan = replace(plan, batch_size=1, limit=protocol.questions + 1 + WARM)
    work = work_of(job, plan, folder)
    nodes = {_key(node, protocol): node for node in work.nodes.values() if node.asked}
    blank = [_blank(key, node, work, plan, protocol) for key, node in nodes.items()]
    there = tidy(folder, {(timing.bench, timing.system): timing.key for timing in blank})
    done = {(timing.key, timing.round) for timing in there}
    todo = [
        replace(timing, round=number)
        for number in range(protocol.rounds)
        for timing in _rotated(blank, number)
        if (timing.key, number) not in done
    ]
    ready = {
        key: _ready(nodes[key], work, plan, protocol, data, progress)
        for key in dict.fromkeys(timing.key for timing in todo)
    }
    if todo:
        _measure(todo, ready, folder, progress, len(blank) * protocol.rounds)


def _measure(
    todo: Sequence[Timing],
    ready: Mapping[str, Ready | HarnessError],
    folder: Path,
    progress: Progress,
    total: int,
) -> None:
    """Measure cell by cell; a pipeline that failed is not tried again in this pass."""
    failed: set[str] = set()
    label = f"{todo[0].task} {todo[0].split}, {todo[0].setting}: latency"
    with progress(label, total, total - len(todo)) as advance:
        for timing in todo:
            if timing.key not in failed:
                timing = _filled(timing, ready[timing.key])
                append(folder, timing)
                failed |= {timing.key} if timing.failed else set()
            advance(1)


def _rotated(timings: Sequence[Timing], number: int) -> list[Timing]:
    """The pipelines of a round: each round begins with another one."""
    start = number % len(timings)
    return [*timings[start:], *timings[:start]]


def _key(node: Node, protocol: Protocol) -> str:
    """What makes timings of a pipeline the same measurement, together with their `bench`."""
    parts = {
        "stages": node.key,
        "machine": this_machine(),
        "questions": protocol.questions,
        "warm": WARM,
        "sources": manifest.sources(measure.__name__),
    }
    return manifest.digest(parts)


def _blank(key: str, node: Node, work: Work, plan: Plan, protocol: Protocol) -> Timing:
    """A line of the file but for its round and what is measured."""
    job = work.job
    stages = [part.parts["versions"] for part in node.chain]
    return Timing(
        task=str(job.spelled),
        split=job.split,
        setting=job.setting,
        fingerprint=work.questions.fingerprint,
        generated=job.task.generated,
        asked=protocol.questions,
        seed=plan.seed,
        device=plan.device,
        dtype=plan.dtype,
        machine=this_machine(),
        system=str(node.pipeline),
        key=key,
        round=0,
        versions={name: version for found in stages for name, version in found.items()},
    )


# --- one pipeline ---------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A pipeline whose indexes are there: what to tell a process, and what the indexes cost."""

    spec: Spec
    index: dict[str, float] | None


def _ready(
    node: Node, work: Work, plan: Plan, protocol: Protocol, data: Path, progress: Progress
) -> Ready | HarnessError:
    """Build the indexes of a pipeline that are missing, and draw its demonstrations."""
    corpus = work.questions.corpus
    indexes: list[Path | None] = []
    briefs, classes = [], {}
    for part in node.chain:
        stage = part.pipeline.stages[-1]
        system, name = registry.create("systems", stage.system), stage.system.name
        if name in registry.registered("systems"):
            classes[name] = f"{type(system).__module__}:{type(system).__qualname__}"
        try:
            brief = brief_of(part, work, plan, data, progress)
            place = indexes_of(work.job, data)
            indexes.append(build_index(system, stage.system, corpus, place, brief, progress))
        except HarnessError as error:
            return error
        briefs.append(brief)
    spec = Spec(
        pipeline=str(node.pipeline),
        classes=classes,
        corpus=corpus_folder(work.job.folder).absolute(),
        indexes=[index and index.absolute() for index in indexes],
        briefs=briefs,
        queries=work.asked,
        warm=_warm(len(work.asked) - 1, protocol),
        patience=protocol.patience,
        parent=os.getpid(),
        code_allowed=is_code_allowed(),
    )
    return Ready(spec, _cost([index for index in indexes if index]))


def _warm(rest: int, protocol: Protocol) -> int:
    """How many of the questions after the first warm up; of too few, a quarter at most."""
    return max(rest - protocol.questions, min(WARM, rest // 4))


def _cost(indexes: Sequence[Path]) -> dict[str, float] | None:
    """Seconds and bytes of a pipeline's indexes together."""
    about = list(map(index_about, indexes))
    cost = {name: float(sum(each[name] for each in about)) for name in ("seconds", "bytes")}
    return cost if about else None


def _filled(timing: Timing, ready: Ready | HarnessError) -> Timing:
    """The line with what a fresh process measured, or with why there is nothing."""
    if isinstance(ready, HarnessError):
        return replace(timing, failed=str(ready))
    outcome = _spawned(_turned(ready.spec, timing))
    if isinstance(outcome, str):
        return replace(timing, index=ready.index, failed=outcome)
    return replace(timing, index=ready.index, measured=outcome)


def _turned(spec: Spec, timing: Timing) -> Spec:
    """The spec of one round. If the task has no questions to spare, each round begins with other
    ones: over the rounds every question is timed, and still none comes twice in a process."""
    spent = spec.warm + 1
    if len(spec.queries) - spent >= timing.asked:
        return spec
    start = timing.round * spent % len(spec.queries)
    return replace(spec, queries=(*spec.queries[start:], *spec.queries[:start]))


def _spawned(spec: Spec) -> Measured | str:
    """Measure in a fresh process; why it failed, if it did. It never outlives this call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_spec(spec, folder)
        command = [sys.executable, "-P", "-m", measure.__name__, name]
        with (folder / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                [*command, str(time.monotonic_ns())],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = process.wait(spec.patience * (len(spec.queries) + 2))
            except subprocess.TimeoutExpired:
                return f"took more than {spec.patience:g} s a question"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if measured := read_result(folder) if code == 0 else None:
            return measured
        return _why(code, (folder / "said.txt").read_text(encoding="utf-8", errors="replace"), spec)


def _environment() -> dict[str, str]:
    """Ours, with one thread for every library, and a path that finds what ours finds."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": path}


def _why(code: int, said: str, spec: Spec) -> str:
    """Why a process failed, from its exit code and what it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code == 0:
        return "its process ended before it had measured"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    if any(line.startswith("Timeout (") for line in lines):
        return f"took more than {spec.patience:g} s to open, for one question or to close"
    return lines[-1] if lines else f"its process ended with exit code {code}"

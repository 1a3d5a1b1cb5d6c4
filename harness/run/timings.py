"""What the latency pass measured, on disk: ``RUN/latency.jsonl``, a line a pipeline and round.

    {"task":…,"system":…,"key":…,"round":0,…,"machine":{…},"index":{…},"measured":{…},"failed":""}

A line has the milliseconds of every question, so that any percentile can be computed later.
Under one ``key`` (stages, data, machine, protocol, the sources that measure) rounds add up.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.data import HarnessError
from harness.manifest import digest

NAME = "latency.jsonl"


@dataclass(frozen=True)
class Measured:
    """One process that measured one pipeline. Times are milliseconds, memory is bytes.

    cold:   from the start of the process until its systems are open
    first:  the first question; None if it errored
    before: resident memory, at most, until systems are opened; ``peak``: until the end
    ids:    the timed questions, (n,), without those that errored
    whole:  text in to text out, (n,);  stages: each stage, (stages, n)
    spans:  by name, (n,)
    counts: tokens of all stages by name, (n,), None where no reply says; ``answer_tokens``:
            those that the last stage wrote
    errors: how many timed questions errored, the first being ``error``
    load:   the machine's load average over a minute, before and after
    opening: spans while systems were opened, by name
    """

    cold: float
    first: float | None
    before: int
    peak: int
    ids: list[str]
    whole: list[float]
    stages: list[list[float]]
    spans: dict[str, list[float]]
    counts: dict[str, list[float | None]]
    errors: int
    error: str
    load: list[float]
    opening: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """One line: a pipeline in one round (from 0), or why it could not be measured.

    asked: questions that were wanted (the task may have fewer); ``seed`` draws them
    index: seconds and bytes of all its indexes; None if it has none
    """

    task: str
    split: str
    setting: str
    fingerprint: str
    generated: bool
    asked: int
    seed: int
    device: str
    dtype: str
    machine: dict[str, str | int]
    system: str
    key: str
    round: int
    versions: dict[str, str]
    index: dict[str, float] | None = None
    measured: Measured | None = None
    failed: str = ""

    @property
    def bench(self) -> str:
        """What pipelines share that can be compared: questions, machine, device."""
        shared = (self.task, self.split, self.setting, self.fingerprint, self.asked, self.seed)
        return digest([*shared, self.device, self.dtype, self.machine])


@cache
def _form() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Timing)


def read_timings(folder: Path) -> list[Timing]:
    """The timings of a run, none if it has none, but for a torn last line.

    `HarnessError` for a whole line that cannot be read.
    """
    return [timing for _, timing in _lines(folder / NAME) if timing is not None]


def _lines(path: Path) -> Iterator[tuple[bytes, Timing | None]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line, _form().validate_json(line) if line.endswith(b"\n") else None
            except ValueError as error:
                raise HarnessError(
                    f"{path}:{number} is not a timing that can be read.",
                    "Delete that line and run the same command again: it measures anew.",
                ) from error


def tidy(folder: Path, current: Mapping[tuple[str, str], str]) -> list[Timing]:
    """Take out a torn last line, and of the pipelines in ``current`` (bench, system) → key those
    that failed or have another key; returns the rest. Nothing is written if all is well."""

    def stays(timing: Timing | None) -> bool:
        if timing is None:
            return False
        key = current.get((timing.bench, timing.system))
        return key is None or (key == timing.key and not timing.failed)

    path = folder / NAME
    lines = list(_lines(path))
    kept = [(line, timing) for line, timing in lines if stays(timing)]
    if len(kept) < len(lines):
        part = path.with_suffix(".part")
        part.write_bytes(b"".join(line for line, _ in kept))
        part.replace(path)
    return [timing for _, timing in kept if timing is not None]


def append(folder: Path, timing: Timing) -> None:
    """Add a line, in one write."""
    path, line = folder / NAME, _form().dump_json(timing) + b"\n"
    with path.open("ab", buffering=0) as file:
        if file.write(line) != len(line):
            raise HarnessError(f"{path}: the disk is full.", "Free some room, start again.")


def cpu_model() -> str:
    """What the processor calls itself, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def this_machine() -> dict[str, str | int]:
    """What a timing depends on beside the code: timings of two machines share no table."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }

"""The scores of a run on disk, and the runs that they belong to.

    RUN/scores.jsonl  {"task":…,"split":…,"setting":…,"sample":…,"system":…,"id":…,"group":…,
                       "gold":…,"state":…,"metrics":{…}}
    RUN/scores.json   the scorer, and each table: the questions asked, its metrics, and which rows
                      were scored

A table holds the pipelines that were asked the very same questions (`Sample`); ``sample`` is its
digest. Two systems that nobody ran stand beside the others: `FLOOR` and `CEILING`.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness import manifest
from harness.data import HarnessError

FLOOR = "(floor: random order, closed form)"
CEILING = "(ceiling: ideal ranking)"


class Sample(NamedTuple):
    """Which questions were asked; pipelines that differ in any of this share no table."""

    task: str
    split: str
    setting: str
    fingerprint: str
    limit: int | None
    seed: int

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Sample:
        """That of a manifest's entry, or of a table in scores.json."""
        return cls(*(entry[name] for name in cls._fields))

    @property
    def digest(self) -> str:
        """What ties a line of scores.jsonl to its table."""
        return manifest.digest(self._asdict())


@dataclass(frozen=True)
class Scores:
    """What was scored in one table: the lines of each system, in order."""

    sample: Sample
    questions: int
    generated: bool
    answer_metrics: tuple[str, ...]
    ranking_metrics: tuple[str, ...]
    lines: dict[str, list[dict[str, Any]]]


@dataclass
class Columns:
    """The scores of one system: a question a place; NaN where it has no value of a metric.

    golds: the kinds of gold of its questions' documents
    """

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    values: dict[str, array[float]] = field(default_factory=dict)
    golds: set[str] = field(default_factory=set)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line of scores.jsonl."""
        for metric, value in line["metrics"].items():
            if metric not in self.values:
                self.values[metric] = array("d", [math.nan] * len(self.ids))
            self.values[metric].append(value)
        self.ids.append(line["id"])
        self.groups.append(str(line["group"]))
        self.golds.add(str(line["gold"]))
        for column in self.values.values():
            if len(column) < len(self.ids):
                column.append(math.nan)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run; `HarnessError` if the folder is not a run."""
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        for entry in found["pipelines"]:
            Sample.of(entry)
    except FileNotFoundError:
        why = "it does not exist"
        if folder.is_dir():
            timed = (folder / "latency.jsonl").exists()
            why = "it holds latency alone" if timed else "it has no manifest.json"
        raise HarnessError(
            f"{folder} is not the folder of a run: {why}.", "Give the folder that run printed."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"{folder} is not the folder of a run ({error}).", "Give the folder that run printed."
        ) from None
    return found


def present(folder: Path) -> dict[str, dict[str, Any]]:
    """Key of the last stage and size of the rows of each system, by sample, as they are now."""
    found: dict[str, dict[str, Any]] = {}
    for entry in read_manifest(folder)["pipelines"]:
        path = folder / entry["rows"]
        size = path.stat().st_size if path.exists() else 0
        systems = found.setdefault(Sample.of(entry).digest, {})
        systems[entry["system"]] = {"key": entry["key"], "bytes": size}
    return found


def read_scores(folder: Path) -> list[Scores]:
    """The scores of a run, a table each; `HarnessError` if there are none or rows changed since."""
    heads = score_heads(folder)
    found = {digest: _scores(head) for digest, head in heads.items()}
    for line in score_lines(folder, heads):
        found[line["sample"]].lines.setdefault(line["system"], []).append(line)
    return list(found.values())


def score_heads(folder: Path) -> dict[str, dict[str, Any]]:
    """What scores.json says of each table, by the digest of its sample; raises as `read_scores`."""
    again = _again(folder)
    now = present(folder)
    try:
        heads = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["tables"]
        found = {head["sample"]: head for head in heads if isinstance(head["lines"], int)}
        scored = {head["sample"]: head["systems"] for head in heads if _scores(head)}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        raise HarnessError(f"{folder} is not scored yet.", again) from None
    if scored != now:
        raise HarnessError(f"{folder}: scores are older than the rows.", again)
    return found


def score_lines(folder: Path, heads: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of scores.jsonl, one in memory at a time; `HarnessError` at a broken one, or at
    the end if some are missing."""
    left = {digest: head["lines"] for digest, head in heads.items()}
    try:
        with (folder / "scores.jsonl").open(encoding="utf-8") as file:
            for line in map(json.loads, file):
                left[line["sample"]] -= 1
                _ = line["system"], line["metrics"]
                yield line
    except (OSError, ValueError, KeyError, TypeError):
        left = {"": 1}
    if any(left.values()):
        raise HarnessError(f"{folder / 'scores.jsonl'} is broken or cut off.", _again(folder))


def read_columns(folder: Path) -> dict[tuple[str, str], Columns]:
    """The scores of each system, by the digest of its sample and its name; raises as
    `read_scores`. Takes 8 bytes a number beside the ids."""
    found: dict[tuple[str, str], Columns] = {}
    for line in score_lines(folder, score_heads(folder)):
        found.setdefault((line["sample"], line["system"]), Columns()).add(line)
    return found


def _again(folder: Path) -> str:
    return f"Score it: `python -m harness score {folder}`."


def _scores(head: Mapping[str, Any]) -> Scores:
    """A table of scores.json, its lines still to come."""
    answers, ranked = tuple(head["answer_metrics"]), tuple(head["ranking_metrics"])
    return Scores(Sample.of(head), head["questions"], head["generated"], answers, ranked, {})

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
from collections.abc import Mapping
from dataclasses import dataclass
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
    again = f"Score it: `python -m harness score {folder}`."
    now = present(folder)
    try:
        heads = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["tables"]
        found = {head["sample"]: _scores(head) for head in heads}
        scored = {head["sample"]: head["systems"] for head in heads}
        counts = {head["sample"]: head["lines"] for head in heads}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        raise HarnessError(f"{folder} is not scored yet.", again) from None
    if scored != now:
        raise HarnessError(f"{folder}: scores are older than the rows.", again)
    try:
        with (folder / "scores.jsonl").open(encoding="utf-8") as file:
            for line in map(json.loads, file):
                found[line["sample"]].lines.setdefault(line["system"], []).append(line)
    except (OSError, ValueError, KeyError, TypeError):
        counts.clear()
    if {key: sum(map(len, each.lines.values())) for key, each in found.items()} != counts:
        raise HarnessError(f"{folder / 'scores.jsonl'} is broken or cut off.", again)
    return list(found.values())


def _scores(head: Mapping[str, Any]) -> Scores:
    """A table of scores.json, its lines still to come."""
    answers, ranked = tuple(head["answer_metrics"]), tuple(head["ranking_metrics"])
    return Scores(Sample.of(head), head["questions"], head["generated"], answers, ranked, {})

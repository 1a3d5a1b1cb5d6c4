"""What judges said of a run, on disk.

RUN/claims.jsonl  a question and pipeline a line: its claims, entailment tables and metrics
RUN/claims.json   each judge: its prompt's hash, its replies and how many could not be read,
                  and which rows it judged
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data import HarnessError
from harness.files import json_value
from harness.score.results import Sample, present

KEY = ("judge", "prompt", "sample", "system")
COUNTS = ("judged", "failed", "replies", "unread")
DAMAGED = ".damaged"
"""Behind the names of files that could not be read and were judged again."""


def key_of(line: Mapping[str, Any]) -> tuple[str, ...]:
    """What ties a line of claims.jsonl to what claims.json says."""
    return tuple(line[name] for name in KEY)


def read_claims(folder: Path) -> list[dict[str, Any]]:
    """What claims.json says of each judge and pipeline; nothing if nobody judged the run.

    Raises `HarnessError` for one that is damaged.
    """
    path = folder / "claims.json"
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json_value(path)
        well = isinstance(found, list) and all(map(_is_head, found))
    except (HarnessError, KeyError, TypeError):
        well = False
    if not well:
        raise _damaged(path)
    return found


def claim_lines(folder: Path, heads: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of claims.jsonl, one in memory at a time; `HarnessError` at a broken one, or at the
    end if there are not as many as all that claims.json says (``heads``) tell."""
    path = folder / "claims.jsonl"
    left = {key_of(head): head["judged"] for head in heads}
    try:
        with path.open(encoding="utf-8") as file:
            for line in map(json.loads, file):
                left[key_of(line)] -= 1
                _ = line["id"], line["group"], line["state"]
                sum(line["metrics"].values())
                yield line
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None
    if any(left.values()):
        raise _damaged(path)


def write_claims(
    folder: Path, heads: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]
) -> None:
    """Put what was judged in the place of what the same judge said of the same pipelines; files
    that are damaged are set aside. The order is the manifest's."""
    new = {key_of(head): head for head in heads}
    part, index, rows = (folder / f"claims.{end}" for end in ("part", "json", "jsonl"))
    try:
        old = read_claims(folder)
        before = claim_lines(folder, old) if old else ()
        stay = [line for line in before if key_of(line) not in new]
    except HarnessError:
        old, stay = [], []
        for path in filter(Path.exists, (index, rows)):
            path.replace(path.with_name(path.name + DAMAGED))
    places = {key: place for place, key in enumerate(_pipelines(folder))}
    every = {**{key_of(head): head for head in old}, **new}.values()
    told = sorted(every, key=lambda h: places.get((h["sample"], h["system"]), len(places)))
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in (*stay, *lines))
        index.unlink(missing_ok=True)
        part.replace(rows)
        part.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(index)
    finally:
        part.unlink(missing_ok=True)


def _pipelines(folder: Path) -> Iterator[tuple[str, str]]:
    """Sample and system of each pipeline, as the manifest has them."""
    for sample, systems in present(folder).items():
        yield from ((sample, system) for system in systems)


def _is_head(head: Mapping[str, Any]) -> bool:
    texts = all(isinstance(head[name], str) for name in KEY)
    counts = all(isinstance(head[name], int) for name in COUNTS)
    return (
        texts
        and counts
        and Sample.of(head).digest == head["sample"]
        and {"rows", "generated"} <= head.keys()
    )


def _damaged(path: Path) -> HarnessError:
    again = f"Judge again: `python -m harness claims {path.parent}`."
    return HarnessError(f"{path} is broken or cut off.", again)

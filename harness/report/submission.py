"""From a run to the file that a leaderboard takes; no system runs again and no gold is read.

What rows say in each format is in `harness.report.formats`. A file appears under its name only when
it is whole and its official script would take it.
"""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from sys import intern
from typing import Any

from harness import registry
from harness.canonical import open_corpus, read_about, sample
from harness.data import Answer, HarnessError, raise_together
from harness.files import taken
from harness.report.formats import FORMATS, Export, encoded
from harness.report.sheet import MINI
from harness.run.store import asked_rows
from harness.score.golds import SHAPES, known
from harness.score.msmarco import SLOTS
from harness.score.official import BENCHMARKS
from harness.score.results import read_manifest
from harness.score.scoring import data_of, given
from harness.score.validity import validate
from harness.spelling import is_named, parse_spelled

Entry = Mapping[str, Any]
"""What a manifest says of one pipeline on one task."""
PARTS = ("task", "split", "setting", "system")
SHAPED = ("musique", "triviaqa")
"""Formats that follow a gold file where there is one."""
PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
FAILED = "questions of the run failed or have no row: they score 0"
CUT = f"rankings cut to their first {SLOTS} passages"


@dataclass(frozen=True)
class Submission:
    """A file that was written, of which pipeline, and what to know of it, a sentence each."""

    path: Path
    task: str
    system: str
    notes: tuple[str, ...]


def submit(
    folder: Path,
    out: Path,
    fmt: str | None,
    *,
    gold: Path | None = None,
    data: Path | str | None = None,
    **wanted: str | None,
) -> Submission:
    """Write the file that a leaderboard takes from the rows of one pipeline of a run.

    fmt:    one of `FORMATS`
    gold:   the benchmark's own gold file, whose rows (MuSiQue) or keys (TriviaQA) are followed
    data:   where prepared data is kept, if it is not where it was when the run was made
    wanted: system, task, split and setting of the pipeline, where several fit
    Raises `HarnessError`, with all mistakes together, if nothing can be written.
    """
    mistakes = [*_mistakes(fmt, gold), *taken(out)]
    entries: list[Entry] = []
    try:
        entries = read_manifest(folder)["pipelines"]
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    assert fmt is not None  # or it is among the mistakes
    entry = choose(entries, fmt, wanted)
    export = _export(folder, entry, fmt, gold, data)
    if not export.answers and not any(export.ranked.values()):
        raise HarnessError(
            f"{entry['system']} has no {FORMATS[fmt].needs} to any question of {entry['task']}.",
            f"`python -m harness report {folder}` says how its questions ended.",
        )
    shape = (export.gold,) if gold else SHAPES[fmt](export.known)
    warnings = _place(out, fmt, encoded(FORMATS[fmt].write(export)), shape)
    counted = (f"{count} {what}" for what, count in export.counts.items() if count)
    return Submission(out, entry["task"], entry["system"], (*export.notes, *counted, *warnings))


def _mistakes(fmt: str | None, gold: Path | None) -> list[HarnessError]:
    every = f"Formats: {', '.join(FORMATS)}."
    if fmt is None:
        return [HarnessError("submit needs --format.", every)]
    if fmt not in FORMATS:
        close = get_close_matches(fmt, FORMATS, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        return [HarnessError(f"there is no format {fmt!r}.", f"{guess}{every}")]
    if gold is not None and fmt not in SHAPED:
        return [HarnessError(f"{fmt} needs no --gold.", "Leave it out.")]
    return []


# --- which pipeline -------------------------------------------------------------------


def choose(entries: Sequence[Entry], fmt: str, wanted: Mapping[str, str | None]) -> Entry:
    """The one pipeline of a run that is meant; `HarnessError` if none fits, or several."""
    asked = matching(entries, wanted)
    fitting = [entry for entry in asked if fmt in _formats(entry)]
    if not fitting:
        tasks = ", ".join(dict.fromkeys(entry["task"] for entry in asked))
        fit = dict.fromkeys(each for entry in asked for each in _formats(entry))
        raise HarnessError(f"{fmt} does not fit {tasks}.", f"Formats that do: {', '.join(fit)}.")
    needs = FORMATS[fmt].needs
    able = [entry for entry in fitting if entry["answers" if needs == "answers" else "ranks"]]
    if not able:
        systems = ", ".join(dict.fromkeys(entry["system"] for entry in fitting))
        raise HarnessError(f"{systems} gives no {needs}.", f"{fmt} needs a pipeline that does.")
    return only(able, fmt)


def matching(entries: Sequence[Entry], wanted: Mapping[str, str | None]) -> list[Entry]:
    """The pipelines of a run that were typed; `HarnessError` if there is none."""
    typed = {name: value for name, value in wanted.items() if value is not None}
    asked = [entry for entry in entries if all(_is(entry, *each) for each in typed.items())]
    if not asked:
        said = " ".join(f"--{name} {value}" for name, value in typed.items())
        raise HarnessError(
            f"the run has no pipeline {said}.".replace("  ", " "),
            f"It has {_told(entries, typed)}.",
        )
    return asked


def only(entries: Sequence[Entry], fmt: str) -> Entry:
    """The one pipeline that is left; `HarnessError` with what tells them apart, if several are."""
    if len(entries) > 1:
        raise HarnessError(
            f"{len(entries)} pipelines of the run fit {fmt}.", f"Choose: {_told(entries, PARTS)}."
        )
    return entries[0]


def _is(entry: Entry, name: str, value: str) -> bool:
    """Whether a part of an entry is what was typed; a task may be named without its options."""
    return is_named(entry[name], value) if name == "task" else entry[name] == value


def _told(entries: Iterable[Entry], names: Iterable[str]) -> str:
    """The values of those parts of entries that differ, as options."""
    listed = {name: dict.fromkeys(str(entry[name]) for entry in entries) for name in names}
    options = [f"--{name} {' or '.join(values)}" for name, values in listed.items() if values]
    several = [
        f"--{name} {' or '.join(values)}" for name, values in listed.items() if len(values) > 1
    ]
    return "; ".join(several or options)


def _formats(entry: Entry) -> tuple[str, ...]:
    return registry.task(parse_spelled(entry["task"])).submissions


# --- from rows to a file --------------------------------------------------------------


def _export(
    folder: Path, entry: Entry, fmt: str, gold: Path | None, home: Path | str | None
) -> Export:
    """All that the writer of a format is given; notes say what of the run is not in the file."""
    data = data_of(entry, "native.jsonl", home)
    task = registry.task(parse_spelled(entry["task"]))
    questions = known(fmt, task, data, blank=True)
    ids = sample((named.id for named, _ in questions.questions), entry["limit"], entry["seed"])
    path = folder / entry["rows"]
    answers: dict[str, Answer] = {}
    ranked: dict[str, list[str]] = {}
    cut = 0
    for query_id, row in asked_rows(path, ids):
        if row is None or row.error:
            continue
        if FORMATS[fmt].needs == "ranking":
            ranked[query_id] = [intern(hit.id) for hit in row.hits[:SLOTS]]
            cut += len(row.hits) > SLOTS
        elif row.answer is not None:
            answers[query_id] = row.answer
    read = BENCHMARKS[fmt][2](gold) if gold else None
    gives = given(path, entry, ids)
    export = Export(
        entry["system"], questions, answers, ranked, gives, data, open_corpus(data), read
    )
    export.counts[FAILED] = len(ids) - len(answers) - len(ranked)
    export.counts[CUT] = cut
    export.notes += [MINI] * bool(entry["generated"])
    export.notes += _partial(data, len(ids), len(questions.questions))
    return export


def _partial(data: Path, asked: int, prepared: int) -> list[str]:
    """What a submission lacks because the run, or its data, is not the whole split."""
    about, found = read_about(data), []
    if asked < prepared:
        found.append(f"the run asked {asked} of {prepared} questions: the others score 0")
    if about["limit"]:
        found.append(f"the task was prepared with --limit {about['limit']}: no whole split")
    dropped = {reason: n for reason, n in about["notes"].items() if "dropped" in reason}
    return [*found, *(f"not in the prepared data: {n} {reason}" for reason, n in dropped.items())]


def _place(out: Path, fmt: str, content: Iterable[bytes], shape: Sequence[Any]) -> list[str]:
    """Write a file, and give it its name once the official script would take it; warnings."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".part-{out.name}")
    opened = PACKED.get(out.suffix, open)
    try:
        with opened(part, "wb") as file:
            file.writelines(content)
        warnings = validate(fmt, part, shape)
        part.rename(out)
    except HarnessError as error:
        raise HarnessError(error.message.replace(str(part), str(out)), error.hint) from None
    finally:
        part.unlink(missing_ok=True)
    return warnings

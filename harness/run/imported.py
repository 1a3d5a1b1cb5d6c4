"""A run folder from files of somebody else: rankings, answers, or both.

Their rows pass the same door as those of any system, so that everything that works on rows works on
them. What the manifest cannot know, how they came about, is not in it: an imported pipeline has an
``origin`` (the files with their hashes, and when they were read) and neither stages nor sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from shutil import rmtree
from typing import Any

from harness import registry
from harness.canonical import native_documents, natives_hash, open_questions, sample
from harness.contract import Task
from harness.data import DATA, Answer, HarnessError, Questions, Reply, Row, raise_together
from harness.files import has_rows
from harness.manifest import digest
from harness.provenance import BLANK, FORMAT, import_key, pruned
from harness.run.external import NOT_IN_FILE, translate
from harness.run.plan import Job, job_of
from harness.run.readers import READERS, Prepared, read
from harness.run.sessions import Place, place_of, source_of, write_manifest
from harness.run.stages import Station
from harness.run.store import one_writer, row_line
from harness.run.work import RUNS, home_of, safe
from harness.score.results import read_manifest
from harness.spelling import parse_pipeline

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
GENERAL = ("trec", "predictions")
"""Formats that fit every task."""


@dataclass(frozen=True)
class Imported:
    """A pipeline that was imported, in the folder of which run, and what to know of it, a sentence
    each. errors: questions whose ranking no run could have written; they score 0."""

    folder: Path
    system: str
    notes: tuple[str, ...]
    errors: int


def import_files(
    file: Path | str,
    task: str,
    name: str,
    fmt: str | None = None,
    *,
    rankings: Path | str | None = None,
    answers_only: bool = False,
    split: str | None = None,
    setting: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    data: Path | str = DATA,
) -> Imported:
    """Make a run folder of a file that answers or ranks a task's questions under native ids.

    name:         stands in tables, as ``imported:NAME``
    fmt:          one that fits the task; None: predictions of a .json or .jsonl, else trec
    rankings:     a TREC run that goes with a file of answers
    answers_only: leave evidence and whatever else stands beside answers
    limit, seed:  draw the questions, as those of a run
    out:          a folder, also that of a run, which the import joins; None: under results/runs
    The same import again finds it done. Raises `HarnessError`; then nothing is written.
    """
    file, second, mistakes = Path(file), Path(rankings) if rankings else None, []
    if not NAME.fullmatch(name):
        mistakes.append(
            HarnessError(
                f"{name!r} is no name for a system.", "Write at most 60 letters, digits and . _ -"
            )
        )
    try:
        job = job_of(task, split, setting, Path(data))
        fmt = _format(fmt, file, job.task, second)
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    assert fmt is not None  # or it is among the mistakes
    paths = {file: fmt, **({second: "trec"} if second else {})}
    prepared = Prepared(job.folder, job.task.by_document, answers_only)
    told = _joined([read(each, path, prepared) for path, each in paths.items()])
    questions = open_questions(job.folder, job.task, job.split, job.setting)
    ids = sample((query.id for query in questions.queries), limit, seed)
    rows = _rows(told, prepared, questions, ids, f"imported:{name}")
    entry = _entry(job, f"imported:{name}", rows, {"limit": limit, "seed": seed}, paths)
    folder = Path(out) if out else RUNS / f"imported-{name}-{digest([entry['key'], limit, seed])}"
    _write(folder, job, entry, rows)
    notes = tuple(_notes(file, told, prepared, rows))
    return Imported(folder, entry["system"], notes, entry["errors"])


def _format(fmt: str | None, file: Path, task: Task, rankings: Path | None) -> str:
    """The format of the first file; `HarnessError` if it does not fit the task, or the second."""
    fits = [*dict.fromkeys((*GENERAL, *(each for each in task.submissions if each in READERS)))]
    as_json = has_rows(file) or ".json" in file.suffixes
    fmt = fmt or ("predictions" if as_json else "trec")
    if fmt not in fits:
        raise HarnessError(
            f"{fmt} does not fit {task.name}.", f"Formats that do: {', '.join(fits)}."
        )
    if rankings is not None and fmt in ("trec", "msmarco-passage"):
        raise HarnessError(f"{file} is a ranking, and --rankings another.", "Name answers first.")
    return fmt


# --- from replies to rows -------------------------------------------------------------


def _joined(found: Sequence[Mapping[str, Reply]]) -> dict[str, Reply]:
    """The replies of a file, with the rankings of a second one."""
    told = dict(found[0])
    for query, ranked in found[1].items() if len(found) > 1 else ():
        reply = told.get(query, Reply())
        if reply.hits:
            raise HarnessError(
                f"{query} is ranked in both files.", "Leave --rankings out, or the hits."
            )
        told[query] = replace(reply, hits=ranked.hits)
    return told


def _rows(
    told: Mapping[str, Reply],
    prepared: Prepared,
    questions: Questions,
    ids: Iterable[str],
    system: str,
) -> list[Row]:
    """A row for each question that is asked, through the door that all rankings pass."""
    pointed = _pointing(told, prepared)
    ours = translate(pointed, prepared.folder, prepared.corpus)
    stage = registry.create("systems", parse_pipeline(system).stages[0].system)
    station = Station(system, stage, questions.corpus, translated=ours)
    by_id = {query.id: query for query in questions.queries}
    rows = station.rows([by_id[query_id] for query_id in ids], None)
    there = [row for row in rows if row.counts != NOT_IN_FILE.counts]
    if not there:
        raise HarnessError("the file answers none of the drawn questions.", "Leave --limit out.")
    if all(row.error for row in there):
        raise HarnessError(
            f"no ranking of the file can be used: {there[0].error.partition(': ')[2]}.",
            "If it ranks the whole corpus, write --setting corpus.",
        )
    return rows


def _pointing(told: Mapping[str, Reply], prepared: Prepared) -> dict[str, Reply]:
    """Replies with the documents of their evidence in our ids, and no place that is not there."""
    asked = {query: reply for query, reply in told.items() if query in prepared.named}
    named = {each.doc_id for reply in asked.values() for each in _evidence(reply)}
    known = native_documents(prepared.folder, prepared.corpus, named) if named else {}
    found = dict(told)
    for query, reply in asked.items():
        if not _evidence(reply):
            continue
        pointers = []
        for each in _evidence(reply):
            pointer = replace(each, doc_id=known.get(each.doc_id, each.doc_id))
            if not _there(pointer.doc_id, pointer.sentence, pointer.span, prepared):
                raise HarnessError(
                    f"the evidence of {query} points at no place of the corpus "
                    f"({[each.doc_id, each.sentence, each.span]}).",
                    "Check that it belongs to this task's corpus, or write --answers-only.",
                )
            pointers.append(pointer)
        answer: Any = reply.answer
        found[query] = replace(reply, answer=replace(answer, evidence=tuple(pointers)))
    return found


def _evidence(reply: Reply) -> Sequence[Any]:
    return (reply.answer.evidence or ()) if isinstance(reply.answer, Answer) else ()


def _there(
    doc_id: str, sentence: int | None, span: tuple[int, int] | None, prepared: Prepared
) -> bool:
    try:
        document = prepared.corpus[doc_id]
    except KeyError:
        return False
    if sentence is not None:
        return sentence < len(document.sentences)
    return span is None or span[0] <= span[1] <= len(document.text)


def _notes(
    file: Path, told: Mapping[str, Reply], prepared: Prepared, rows: Sequence[Row]
) -> Iterator[str]:
    """What of the file is not in the rows, and of the rows not in the file."""
    strange = [query for query in told if query not in prepared.named]
    if strange:
        yield (
            f"{len(strange)} ids of {file} are no questions of the task and were left out, "
            f"such as {strange[0]!r}"
        )
    lacking = sum(row.counts == NOT_IN_FILE.counts for row in rows)
    if lacking:
        yield f"{lacking} of {len(rows)} questions are not in {file}: missing, they score 0"
    errors = [row.error for row in rows if row.error]
    if errors:
        yield f"{len(errors)} questions are errors and score 0, first: {errors[0]}"


# --- the folder -----------------------------------------------------------------------


def _entry(
    job: Job, system: str, rows: Sequence[Row], drawn: Mapping[str, Any], paths: Mapping[Path, str]
) -> dict[str, Any]:
    """What the manifest says of the imported pipeline."""
    files = [
        {"name": path.name, "sha256": _sha256(path), "format": fmt} for path, fmt in paths.items()
    ]
    natives, read_at = natives_hash(job.folder), datetime.now(UTC).isoformat(timespec="seconds")
    entry = {
        "task": str(job.spelled),
        "split": job.split,
        "setting": job.setting,
        "system": system,
        "generated": job.task.generated,
        "answer_metrics": list(job.task.answer_metrics),
        "ranking_metrics": list(job.task.ranking_metrics),
        "ranks": any(row.hits or row.error for row in rows),
        "answers": any(row.answer for row in rows),
        "fingerprint": job.folder.name,
        "data": str(job.folder),
        **drawn,
        **BLANK,
        "questions": len(rows),
        "errors": sum(bool(row.error) for row in rows),
        "train": None,
        "origin": {"files": files, "natives": natives, "read": read_at},
    }
    key = import_key(entry)
    home = Path(home_of(job), f"{safe(system)}-{key[:8]}")
    return {**entry, "key": key, "rows": str(home / "rows.jsonl")}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write(folder: Path, job: Job, entry: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Rows first, then the manifest that names them; what fails leaves the folder as it was."""
    with _undone(folder), one_writer(folder):
        old = _manifest(folder)
        if _done(old, entry, folder):
            return
        place = folder / str(entry["rows"])
        with _undone(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            with part.open("wb") as file:
                file.writelines(map(row_line, rows))
            part.replace(place)
            _record(folder, old, job, entry)


@contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """Takes a new folder away again if what fills it fails."""
    there = folder.exists()
    try:
        yield
    except BaseException:
        if not there:
            rmtree(folder, ignore_errors=True)
        raise


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the folder, or that of a new one."""
    told: dict[str, Any] = {"pipelines": []}
    if (folder / "manifest.json").exists():
        told = read_manifest(folder)
    elif any(each.name != ".lock" for each in folder.iterdir()):
        raise HarnessError(f"{folder} is not the folder of a run.", "Give a new one with -o.")
    blank = {"format": FORMAT, "pipelines": [], "sessions": [], "stages": {}, "facts": {}}
    return {**blank, **told, "format": FORMAT}


def _done(old: Mapping[str, Any], entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether this very import stands there; `HarnessError` if another one of its name does."""
    by_place: dict[Place, Mapping[str, Any]] = {place_of(each): each for each in old["pipelines"]}
    there = by_place.get(place_of(entry))
    if there is None:
        return False
    if all(there[name] == entry[name] for name in ("key", "limit", "seed")):
        return (folder / str(entry["rows"])).exists()
    raise HarnessError(
        f"{folder} has another {entry['system']} on {entry['task']} already.",
        "Give it another --name, or another folder with -o.",
    )


def _record(folder: Path, old: dict[str, Any], job: Job, entry: Mapping[str, Any]) -> None:
    """Put the import into the manifest, beside what else is in it."""
    source = source_of(job)
    others = [each for each in old["pipelines"] if place_of(each) != place_of(entry)]
    told = {**entry, "source": digest(source)}
    facts = {**old["facts"], told["source"]: source}
    write_manifest(folder, pruned({**old, "pipelines": [*others, told], "facts": facts}))

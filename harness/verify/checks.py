"""One rule after the other over a bundle; the rules are `harness.verify.findings.RULES`.

Without a finding it is proven that the claimed scores follow from the rows and from our gold, that
the rows are of exactly the questions that were asked, and that bundle and manifest do not
contradict themselves. It is not proven that the system made these rows: gold is public.
`harness.verify.rerun` is about that.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category, combining, normalize

from harness import registry
from harness.canonical import open_questions, read_about, read_gold, sample
from harness.contract import Task
from harness.data import DATA, Gold, HarnessError
from harness.files import reading
from harness.prepare import checked_split, prepared, slug
from harness.provenance import (
    BLANK,
    altered,
    import_key,
    imported,
    loose,
    missing,
    parts_of,
    strange,
)
from harness.provenance import FORMAT as MANIFEST
from harness.report.bundle import ALWAYS, FORMAT, LATENCY, wrong_fields
from harness.run.progress import Progress, silent
from harness.run.store import read_rows
from harness.score.results import Sample
from harness.spelling import Pipeline, Spelled, parse_pipeline, parse_spelled
from harness.verify import challenge, claims, gold, rows
from harness.verify.archive import Unpacked, unpack
from harness.verify.findings import Findings, counted, printable, told
from harness.verify.report import Report
from harness.verify.rerun import Rerun, rerun
from harness.verify.strict import Unreadable, loads
from harness.verify.times import wrong_sessions

NAME = re.compile(r"[\w-]{1,60}")
"""Of a split."""
SIZE = re.compile(r"[0-9]{1,9}", re.ASCII)
"""A number of documents or questions as a run writes it."""
LARGEST = {"documents": 200_000, "questions": 20_000}
"""Of a generated task that a bundle makes us generate."""
WORLDS = 40
"""Generated tasks of a bundle."""
FORMULA = tuple("=+-@")
TAG = re.compile(r"<[a-zA-Z/!?]")
BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Letters, marks and signs that show nothing."""
MARKS = 4
"""Marks above and below one letter."""
NAME_LONG = 100
"""Characters of a system's name."""
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that do not show, or turn the text around them."""
SHARED = ("setting", "seed", "device", "dtype", "batch_size", "fingerprint")
"""What a pipeline's entry and each of its stages both say."""


@dataclass(frozen=True)
class Job:
    """One pipeline of the manifest, understood, with the verifier's own data."""

    entry: Mapping[str, Any]
    task: Task
    pipeline: Pipeline
    systems: rows.Systems
    folder: Path


@dataclass
class Case:
    """A bundle that is being examined in a folder of ours.

    published: the seed of a challenge, if the bundle has to be one
    run:       where its rows, under our names, are scored
    """

    place: Path
    data: Path
    published: str | None = None
    found: Findings = field(default_factory=Findings)
    notices: dict[str, None] = field(default_factory=dict)
    unknown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unasked: dict[tuple[str, str], str] = field(default_factory=dict)
    files: dict[str, Unpacked] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    submission: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """A run's folder."""
        return self.place / "run"

    def value(self, name: str) -> Any:
        """What a JSON file of the bundle says; None, with a finding, if it cannot be read."""
        try:
            return loads(self.files[name].path.read_bytes())
        except Unreadable as error:
            self.found.add("json", name, f"{error}.")
            return None


def verify(
    bundle: Path,
    data: Path = DATA,
    again: int = 0,
    seed: int | None = None,
    progress: Progress = silent,
    published: str | None = None,
) -> Report:
    """Check a bundle; it changes nothing but that mini tasks are prepared under ``data``.

    again:     how many questions of each pipeline to ask again
    seed:      what draws these; None: nobody knows it before
    published: the seed of the challenge that it has to be a bundle of; None: of any, or of none
    """
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as place:
        return examine(bundle, Path(place), data, again, seed, progress, published)


def examine(
    bundle: Path,
    place: Path,
    data: Path = DATA,
    again: int = 0,
    seed: int | None = None,
    progress: Progress = silent,
    published: str | None = None,
) -> Report:
    """As `verify`; ``place/run`` is then the folder of a scored run, if nothing was found."""
    if seed is not None and not again:
        raise HarnessError(
            "a seed alone does nothing: it draws the questions to ask again.", "Add --rerun N."
        )
    case = Case(place, data, published)
    with reading(bundle):
        (place / "files").mkdir(parents=True)
        case.files = unpack(bundle, place / "files", case.found)
    for step in (_listed, _opened, _resolved, _rows_read, _scored, _others):
        if not case.found:
            step(case)
    reruns: tuple[Rerun, ...] = ()
    if again and not case.found:
        seed = secrets.randbits(32) if seed is None else seed
        reruns = _again(case, again, seed, progress)
    findings, notices = tuple(case.found), tuple(case.notices)
    drawn = seed if again else None
    told = (case.submission, case.unknown, case.unasked)
    return Report(bundle.name, findings, notices, reruns, drawn, *told)


# --- what the bundle says of itself ---------------------------------------------------


def _listed(case: Case) -> None:
    """bundle.json has every other file, with its size and hash."""
    if "bundle.json" not in case.files:
        case.found.add("checksum", "bundle.json", "it is missing.")
        return
    told = case.value("bundle.json")
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        case.found.add("checksum", "bundle.json", f"it is not of the format {FORMAT}.")
        return
    listed = told.get("files")
    listed = listed if isinstance(listed, dict) else {}
    for name in sorted({*listed, *ALWAYS, *case.files} - {"bundle.json"}):
        file = case.files.get(name)
        if file is None:
            case.found.add("checksum", name, "it is missing.")
        elif listed.get(name) != {"bytes": file.size, "blake2b": file.blake2b}:
            case.found.add("checksum", name, "it is not the file that bundle.json lists.")


def _opened(case: Case) -> None:
    """manifest.json and submission.json are whole."""
    about, submission = case.value("manifest.json"), case.value("submission.json")
    if case.found:
        return
    for wrong in wrong_fields(submission):
        case.found.add("submission", "submission.json", wrong)
    if not case.found:
        case.submission = submission
        _texts_are_plain(case)
    for lacking in missing(about) if isinstance(about, dict) else ["all of it"]:
        case.found.add("provenance", "manifest.json", f"{lacking} is missing or of a wrong type.")
    if case.found:
        return
    for key in strange(about):
        case.found.add("provenance", "manifest.json", f"{printable(key)}: no run writes that.")
    if about["format"] != MANIFEST:
        case.found.add("manifest", "manifest.json", f"it is not of the format {MANIFEST}.")
    case.about = about
    for name in altered(about):
        case.found.add("keys", "manifest.json", f"{name} is not what it hashes to.")
    for name in loose(about):
        case.found.add("provenance", "manifest.json", f"nothing points at {printable(name)}.")
    named = {entry["rows"] for entry in about["pipelines"]}
    for name in case.files:
        if name.endswith("/rows.jsonl") and name not in named:
            case.found.add("name", name, "no pipeline of the manifest has these rows.")
    for wrong in wrong_sessions(about["sessions"]):
        case.found.add("manifest", "manifest.json", wrong)
    if len(named) < len(about["pipelines"]):
        case.found.add("manifest", "manifest.json", "two pipelines have the same rows.")


def _texts_are_plain(case: Case) -> None:
    for name, value in case.submission.items():
        for text in value if isinstance(value, list) else [value]:
            if wrong := _unplain(text) or (_no_name(text) if name == "system" else ""):
                case.found.add("text", f"submission.json, {name}", wrong)


def _unplain(text: str) -> str:
    """What a text has that a page or a table would not show as it stands; empty: nothing."""
    begins = normalize("NFKC", text)
    if begins.startswith("\t") or begins.lstrip().startswith(FORMULA):
        return "it begins as a formula does (= + - @ or a tab)."
    if TAG.search(text):
        return "it has markup."
    if BLANKS.search(text) or any(category(c) in HIDDEN and c != "\n" for c in text):
        return "it has characters that do not show."
    marks = "".join("m" if combining(c) else "." for c in normalize("NFD", text))
    return "a letter has a tower of marks." if "m" * (MARKS + 1) in marks else ""


def _no_name(text: str) -> str:
    """Why a text is no name of a system; empty if it is one."""
    if "\n" in text or text != text.strip() or len(text) > NAME_LONG:
        return f"a name is one line of at most {NAME_LONG} characters, without blanks around it."
    return ""


# --- what was run ---------------------------------------------------------------------


def _resolved(case: Case) -> None:
    """Each pipeline of the manifest is one that could have been run, on data that we have."""
    seen = set()
    for number, entry in enumerate(case.about["pipelines"]):
        where = f"manifest.json, pipeline {number + 1}"
        try:
            spelled, pipeline = _spelled(entry)
            if lacking := _unprepared(case, spelled, entry["split"]):
                case.found.add("data", where, lacking)
                continue
            task = _understood(entry, spelled, pipeline)
            systems = tuple(_known(stage.system.name) for stage in pipeline.stages)
        except HarnessError as error:
            case.found.add("manifest", where, str(error))
            continue
        for wrong in _contradictions(case.about, entry, task, pipeline, systems):
            case.found.add(*wrong[:1], where, wrong[1])
        if (known := (Sample.of(entry), str(pipeline.canonical))) in seen:
            case.found.add("manifest", where, "it stands twice.")
        seen.add(known)
        if entry["rows"] not in case.files:
            case.found.add("coverage", entry["rows"], "the rows of a pipeline are missing.")
        elif folder := _own_data(case, where, spelled, task, entry):
            case.jobs.append(Job(entry, task, pipeline, systems, folder))
            _note(case, case.jobs[-1])


def _spelled(entry: Mapping[str, Any]) -> tuple[Spelled, Pipeline]:
    """The task and the pipeline of an entry; `HarnessError` if no run spells them so."""
    spelled, pipeline = parse_spelled(entry["task"]), parse_pipeline(entry["system"])
    for text, value in ((entry["task"], spelled), (entry["system"], pipeline)):
        if text != str(value):
            raise HarnessError(f"a run spells {text[:80]!r} otherwise.", f"As {value!s:.80}.")
    return spelled, pipeline


def _unprepared(case: Case, spelled: Spelled, split: str) -> str:
    """Why a task of a bundle is not even made; empty if it is generated or we prepared it.

    To make one may be to read the file that its spelling names: any file of this machine.
    """
    if getattr(registry.find("tasks", spelled.name), "generated", False):
        return ""
    if NAME.fullmatch(split) and (case.data / slug(spelled) / f"{split}.json").exists():
        return ""
    how = f"`python -m harness prepare {spelled} --split {split}` does it."
    return printable(f"{spelled} ({split}) is not prepared under {case.data}. {how}", 400)


def _understood(entry: Mapping[str, Any], spelled: Spelled, pipeline: Pipeline) -> Task:
    """The task of an entry; `HarnessError` if it was not asked so."""
    task = registry.task(spelled)
    checked_split(task, entry["split"])
    if entry["setting"] not in task.settings:
        raise HarnessError(f"{task.name} has no setting {entry['setting']!r}.")
    if any(entry[name] is not None and entry[name] < 1 for name in ("limit", "batch_size")):
        raise HarnessError("its limit or its batch size is less than 1.")
    if imported(entry) != ("imported" in {stage.system.name for stage in pipeline.stages}):
        raise HarnessError("what is imported has an origin and is called so, and nothing else.")
    if imported(entry) and not all(entry.get(name) == value for name, value in BLANK.items()):
        raise HarnessError("an import knows nothing of stages and sizes.")
    return task


def _known(name: str) -> type | None:
    """The class of a system; None if it cannot be used here."""
    try:
        return registry.find("systems", name)
    except HarnessError:
        return None


def _contradictions(
    about: Mapping[str, Any],
    entry: Mapping[str, Any],
    task: Task,
    pipeline: Pipeline,
    systems: rows.Systems,
) -> Iterator[tuple[str, str]]:
    """(rule, sentence) where an entry does not agree with its task or its stages."""
    said = [entry["generated"], entry["answer_metrics"], entry["ranking_metrics"]]
    if said != [task.generated, list(task.answer_metrics), list(task.ranking_metrics)]:
        yield "manifest", "its metrics, or whether it is generated, are not the task's."
    for stage, system in zip(pipeline.stages, systems, strict=True):
        if system is not None and (wrong := _wrong_options(stage.system, system)):
            yield "manifest", wrong
    if imported(entry):
        if len(pipeline.stages) > 1 or entry["key"] != import_key(entry):
            yield "keys", "its key is not that of an import, or it has a second stage."
        return
    if not any(_asked_in(session["command"], entry) for session in about["sessions"]):
        yield "manifest", "no session asked it: this task, these sizes, this pipeline."
    if len(entry["stages"]) != len(pipeline.stages):
        yield "keys", "it has another number of stages than its pipeline."
        return
    if entry["key"] != entry["stages"][-1]:
        yield "keys", "its key is not that of its last stage."
    before = None
    for key, stage in zip(entry["stages"], pipeline.stages, strict=True):
        parts = about["stages"][key]["parts"]
        if parts["stage"] != str(stage.canonical) or parts["after"] != before:
            yield "keys", f"the stage {key} is not {stage}, or not at its place."
        for name in SHARED:
            if parts[name] != entry[name]:
                yield "keys", f"the stage {key} says of {name} {told(parts[name])}."
        if parts["instruction"] != task.instruction:
            yield "keys", f"the stage {key} was told something else than the task's instruction."
        if parts["max_new_tokens"] != task.max_new_tokens:
            yield "keys", f"the stage {key} may write more or less than the task allows."
        if not _same_files(parts["files"], about["stages"][key]["files"]):
            yield "keys", f"the files that the stage {key} names are not those of its key."
        if not _installed(parts_of(about, key)["versions"], about):
            yield "provenance", f"no session had the packages that the stage {key} was made by."
        before = key


def _same_files(hashes: Sequence[str], named: Sequence[Any]) -> bool:
    """Whether the files of a stage, by name, are those whose hashes are in its key. Files of a
    folder have its name before theirs, and their hashes are in the key as one."""
    if not all(isinstance(each, list) and [*map(type, each)] == [str, str] for each in named):
        return False
    alone = Counter(content for name, content in named if "/" not in name)
    folders = any("/" in name for name, _ in named)
    return alone <= Counter(hashes) and (alone == Counter(hashes)) != folders


def _installed(versions: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Whether a session had the packages that a stage was made by, in these versions."""
    wanted = {name: each for name, each in versions.items() if name != "python"}
    told = (about["facts"][each["packages"]]["numeric"] for each in about["sessions"])
    return any(wanted.items() <= each.items() for each in told)


def _wrong_options(spelled: Spelled, system: type) -> str:
    """What a system that is installed here does not take; it is not made for that."""
    try:
        registry.check_options(spelled, system)
    except HarnessError as error:
        return str(error)
    return ""


def _asked_in(command: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a command, as it was resolved, asked for a pipeline."""
    job = {name: entry[name] for name in ("task", "split", "setting")}
    sizes = ("limit", "seed", "device", "dtype", "batch_size")
    return (
        job in command["jobs"]
        and entry["system"] in command["systems"]
        and all(command[name] == entry[name] for name in sizes)
    )


def _own_data(
    case: Case, where: str, spelled: Spelled, task: Task, entry: Mapping[str, Any]
) -> Path | None:
    """Our own prepared data; None, with a finding, if there is none or it is not the same.

    Only generated tasks are prepared here: what another one would read may be up to the bundle.
    """
    split = entry["split"]
    for option, most in LARGEST.items():
        size = dict(spelled.options).get(option, "0")
        if task.generated and (not SIZE.fullmatch(size) or int(size) > most):
            case.found.add("size", where, f"{option}={size:.20} is more than {most}.")
            return None
    worlds = {job.entry["task"] for job in case.jobs if job.task.generated}
    if task.generated and len(worlds | {entry["task"]}) > WORLDS:
        case.found.add("size", where, f"it needs more than {WORLDS} generated worlds.")
        return None
    try:
        folder = prepared(spelled, task, split, case.data)
    except HarnessError as error:
        case.found.add("data", where, str(error))
        return None
    if folder.name != entry["fingerprint"]:
        case.found.add(
            "fingerprint", where, f"our {spelled} is {folder.name}, not {entry['fingerprint']}."
        )
        return None
    source, ours = case.about["facts"][entry["source"]], read_about(folder)
    for name in ("fingerprint", "corpus", "documents", "questions"):
        if source[name] != ours[name]:
            case.found.add("provenance", where, f"its source has other {name} than our {spelled}.")
    return folder


def _note(case: Case, job: Job) -> None:
    """What to know of a pipeline although it is no finding."""
    entry, name = job.entry, printable(job.entry["system"])
    if entry["limit"] is not None:
        drawn = counted(entry["questions"], "question")
        case.notices[f"{name}: {drawn} drawn by seed {entry['seed']}."] = None
    if imported(entry):
        for file in entry["origin"]["files"]:
            told = f"{file['name']:.60} ({file['format']:.20}, SHA-256 {file['sha256']:.12}…)"
            case.notices[f"{name}: imported from {printable(told)}; nobody ran it here."] = None
    elif not entry["deterministic"]:
        case.notices[f"{name}: a repeat may give other rows."] = None
    for stage, system in zip(job.pipeline.stages, job.systems, strict=True):
        if system is None:
            each = printable(stage.system.name)
            there = case.unknown.setdefault(entry["system"], ())
            case.unknown[entry["system"]] = tuple(dict.fromkeys((*there, each)))
            case.notices[f"{name}: {each} is not known here: its options are not checked."] = None
    for key, stage, system in zip(entry["stages"], job.pipeline.stages, job.systems, strict=False):
        if hasattr(system, "external") or case.about["stages"][key]["parts"]["natives"]:
            told = printable(stage.system.name)
            case.notices[f"{name}: {told} takes results from a file."] = None


# --- rows and scores ------------------------------------------------------------------


def _rows_read(case: Case) -> None:
    """Every row is one that a run could have written; no gold stands in what it was told."""
    golds: dict[Path, dict[str, Gold]] = {}
    for job in case.jobs:
        entry = job.entry
        asked = open_questions(job.folder, job.task, entry["split"], entry["setting"])
        by_id = {query.id: query for query in asked.queries}
        ids = sample(by_id, entry["limit"], entry["seed"])
        golds.setdefault(job.folder, {}).update(
            {i: each for i, each in read_gold(job.folder).items() if i in set(ids)}
        )
        against = rows.Asked(
            {query_id: by_id[query_id] for query_id in ids},
            asked.corpus,
            entry,
            job.pipeline,
            job.systems,
        )
        name = entry["rows"]
        rows.check(case.files[name].path, name, against, case.found)
    gold.check(case.about, case.submission, golds.values(), case.found)


def _scored(case: Case) -> None:
    """The claimed scores are those of the rows, computed here."""
    entries = []
    for number, job in enumerate(case.jobs):
        place = case.run / f"{number}"
        place.mkdir(parents=True)
        shutil.copyfile(case.files[job.entry["rows"]].path, place / "rows.jsonl")
        ours = {"rows": f"{number}/rows.jsonl", "data": str(job.folder.resolve())}
        entries.append({**job.entry, **ours})
    text = json.dumps({**case.about, "pipelines": entries}, ensure_ascii=False)
    (case.run / "manifest.json").write_text(text, encoding="utf-8")
    heads = case.value("scores.json")
    if not case.found:
        claims.check(case.run, heads, case.files["scores.jsonl"].path, case.found)


def _others(case: Case) -> None:
    """latency.jsonl and challenge.json, if they are there."""
    if LATENCY in case.files:
        claims.check_latency(case.run, case.files[LATENCY].path, case.found)
    if "challenge.json" in case.files:
        told = case.value("challenge.json")
        if not case.found and (
            notice := challenge.check(told, case.about, case.found, case.published)
        ):
            case.notices[notice] = None
    elif case.published is not None:
        case.found.add("challenge", "challenge.json", "it is missing: this answers no challenge.")


def _again(case: Case, again: int, seed: int, progress: Progress) -> tuple[Rerun, ...]:
    """Ask some questions once more of every pipeline that can be asked here."""
    done = []
    facts, sessions = case.about["facts"], case.about["sessions"]
    sessions = [{**each, "machine": facts[each["machine"]]} for each in sessions]
    for number, job in enumerate(case.jobs):
        entry = job.entry
        parts = [parts_of(case.about, key) for key in entry["stages"]]
        rows_file = case.run / f"{number}" / "rows.jsonl"
        ids = set(sample((row.id for row in read_rows(rows_file)), again, seed))
        claimed = {row.id: row for row in read_rows(rows_file) if row.id in ids}
        place = case.place / "again" / f"{number}"
        try:
            one = rerun(entry, job.pipeline, parts, claimed, sessions, place, case.data, progress)
        except HarnessError as error:
            case.unasked[entry["task"], entry["system"]] = printable(str(error), 400)
            continue
        done.append(one)
        if one.sentence:
            case.found.add("rerun", entry["rows"], one.sentence)
    return tuple(done)

"""What the manifest of a run must hold so that the run can be repeated, and what each field is for.

    manifest.json  {"format": 2, "pipelines": […], "sessions": […], "stages": {key: …},
                    "facts": {digest: …}}

A pipeline points at its stages by their keys, and an imported one says from which files it was
read (``origin``) and has no stages; a session is one start of a command that had
something to do. What many of them share (a machine, the hashes of modules) stands once, among the
facts, under its digest. `harness.run.sessions` writes the file; here it is only judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, NamedTuple

from harness.manifest import digest, stage_key

FORMAT = 2
"""Of the manifest; 1 had the pipelines alone."""


class Field(NamedTuple):
    """A field of the manifest.

    path:  keys with dots between them: ``[]`` each item of a list, ``{}`` each value of a map,
           ``*`` what the digest or key there points at, ``!`` of a pipeline that was run,
           ``?`` of one that was imported
    kinds: the types that it may have
    why:   what it is for
    empty: whether an empty list, map or text says something, too
    """

    path: str
    kinds: tuple[type, ...]
    why: str
    empty: bool = False


TEXT, NUMBER, TRUTH = (str,), (int,), (bool,)
LIST, MAP = (list,), (dict,)
MAYBE_NUMBER, MAYBE_TEXT = (int, NoneType), (str, NoneType)
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM", "RAYON")
"""Libraries that read from the environment how many threads they may use."""
ENDINGS = ("finished", "errors", "interrupted")
"""How a session ends that was not killed."""


def _source(place: str) -> tuple[Field, ...]:
    """The fields of what prepared data was made from."""
    return (
        Field(place, MAP, "a fact"),
        Field(f"{place}.from", TEXT, "a file's name, hub, or the task itself"),
        Field(f"{place}.files", MAP, "SHA-256 of the files that were read", empty=True),
        Field(f"{place}.version", TEXT, "of the parser or generator"),
        Field(f"{place}.limit", MAYBE_NUMBER, "how many rows were read; null: all"),
        Field(f"{place}.fingerprint", TEXT, "the questions, corpus and gold, as one hash"),
        Field(f"{place}.corpus", TEXT, "the corpus, as one hash"),
        Field(f"{place}.documents", NUMBER, "how many it has"),
        Field(f"{place}.questions", NUMBER, "how many questions were loaded"),
        Field(f"{place}.notes", MAP, "what was dropped or merged, and why", empty=True),
        Field(f"{place}.licence", TEXT, "of the data"),
    )


FIELDS = (
    Field("format", NUMBER, "how to read the rest"),
    Field("pipelines", LIST, "what was run"),
    Field("pipelines[]", MAP, "one pipeline on one task"),
    Field("pipelines[].task", TEXT, "the task as it is spelled"),
    Field("pipelines[].split", TEXT, "which of its questions"),
    Field("pipelines[].setting", TEXT, "pool or corpus"),
    Field("pipelines[].system", TEXT, "the pipeline as it is spelled, overrides within"),
    Field("pipelines[].generated", TRUTH, "whether the task is a mini one"),
    Field("pipelines[].answer_metrics", LIST, "the columns of its answers", empty=True),
    Field("pipelines[].ranking_metrics", LIST, "the columns of its rankings", empty=True),
    Field("pipelines[].ranks", TRUTH, "whether it has a ranking to score"),
    Field("pipelines[].answers", TRUTH, "whether it has an answer to score"),
    Field("pipelines[]!.deterministic", TRUTH, "whether a repeat must give the same rows"),
    Field("pipelines[].fingerprint", TEXT, "the questions, corpus and gold, as one hash"),
    Field("pipelines[].data", TEXT, "where the prepared data lay"),
    Field("pipelines[].limit", MAYBE_NUMBER, "how many questions were asked; null: all"),
    Field("pipelines[].seed", NUMBER, "draws the questions, the demonstrations and what is random"),
    Field("pipelines[]!.device", TEXT, "where models ran"),
    Field("pipelines[]!.dtype", TEXT, "the numbers that models ran in"),
    Field("pipelines[]!.batch_size", NUMBER, "questions a batch"),
    Field("pipelines[].questions", NUMBER, "how many were asked"),
    Field(
        "pipelines[].errors",
        MAYBE_NUMBER,
        "how many have no good row; null: no start has come to its end",
    ),
    Field("pipelines[].key", TEXT, "what its rows depend on, as one hash"),
    Field("pipelines[].rows", TEXT, "where its rows are"),
    Field("pipelines[].source", TEXT, "what its data was made from"),
    *_source("pipelines[].source*"),
    Field("pipelines[].train", MAYBE_TEXT, "the same of the split it is shown; null: none"),
    *_source("pipelines[].train*"),
    Field("pipelines[]!.stages", LIST, "the keys of its stages, first to last"),
    Field("pipelines[]!.stages[]", TEXT, "the key of one"),
    Field("pipelines[]!.stages[]*", MAP, "what that key was made of"),
    Field("pipelines[]?.origin", MAP, "what an imported one was read from"),
    Field("pipelines[]?.origin.files", LIST, "its files"),
    Field("pipelines[]?.origin.files[]", MAP, "one"),
    Field("pipelines[]?.origin.files[].name", TEXT, "without its folder"),
    Field("pipelines[]?.origin.files[].sha256", TEXT, "of its bytes"),
    Field("pipelines[]?.origin.files[].format", TEXT, "how it was read"),
    Field("pipelines[]?.origin.natives", TEXT, "the native ids, as one hash"),
    Field("pipelines[]?.origin.read", TEXT, "when, in UTC"),
    Field("facts", MAP, "what others point at by its digest"),
    Field("stages", MAP, "every stage, and those that retrieve for demonstrations"),
    Field("stages{}", MAP, "one stage"),
    Field("stages{}.parts", MAP, "all that its key is the hash of"),
    Field("stages{}.parts.fingerprint", TEXT, "its data"),
    Field("stages{}.parts.natives", MAYBE_TEXT, "the native ids, if it comes from outside"),
    Field("stages{}.parts.setting", TEXT, "pool or corpus"),
    Field("stages{}.parts.stage", TEXT, "system, options and depth; lengths are options"),
    Field("stages{}.parts.after", MAYBE_TEXT, "the key of the stage before it"),
    Field("stages{}.parts.after*", MAP, "what that key was made of"),
    Field("stages{}.parts.instruction", TEXT, "what a reader is told", empty=True),
    Field("stages{}.parts.max_new_tokens", NUMBER, "how long an answer may be"),
    Field("stages{}.parts.seed", NUMBER, "of what is random in it"),
    Field("stages{}.parts.device", TEXT, "where its models ran"),
    Field("stages{}.parts.dtype", TEXT, "the numbers that its models ran in"),
    Field("stages{}.parts.batch_size", NUMBER, "questions a batch"),
    Field("stages{}.parts.files", LIST, "hashes of checkpoints and files from outside", empty=True),
    Field("stages{}.parts.files[]", TEXT, "one"),
    Field("stages{}.parts.sources", TEXT, "the modules that it is made of"),
    Field("stages{}.parts.sources*", MAP, "their hashes; prompts and templates are modules"),
    Field("stages{}.parts.versions", TEXT, "the numeric packages that it reaches"),
    Field("stages{}.parts.versions*", MAP, "their versions"),
    Field("stages{}.shown", (dict, NoneType), "what its demonstrations depend on; null: none"),
    Field("stages{}.shown.train", TEXT, "the data that they are drawn from"),
    Field("stages{}.shown.count", NUMBER, "how many"),
    Field("stages{}.shown.after", MAYBE_TEXT, "the key of what retrieves for them"),
    Field("stages{}.shown.after*", MAP, "what that key was made of"),
    Field("stages{}.shown.sources", MAP, "hashes of the modules that choose them"),
    Field("stages{}.files", LIST, "name and hash of each file of them, tokenizers too", empty=True),
    Field("stages{}.demonstrations", LIST, "digests of the questions it is shown", empty=True),
    Field("sessions", LIST, "every start that had something to do"),
    Field("sessions[]", MAP, "one start"),
    Field("sessions[].command", MAP, "what was asked for"),
    Field("sessions[].command.argv", (list, NoneType), "as it was typed; null: from Python"),
    Field("sessions[].command.argv[]", TEXT, "a word", empty=True),
    Field("sessions[].command.jobs", LIST, "tasks, splits and settings"),
    Field("sessions[].command.jobs[]", MAP, "one"),
    Field("sessions[].command.jobs[].task", TEXT, "the task as it is spelled"),
    Field("sessions[].command.jobs[].split", TEXT, "resolved"),
    Field("sessions[].command.jobs[].setting", TEXT, "resolved"),
    Field("sessions[].command.systems", LIST, "pipelines, overrides within"),
    Field("sessions[].command.overrides", LIST, "--set, as it was given", empty=True),
    Field("sessions[].command.limit", MAYBE_NUMBER, "questions a task; null: all"),
    Field("sessions[].command.seed", NUMBER, "of the sample and of what is random"),
    Field("sessions[].command.device", TEXT, "where models ran"),
    Field("sessions[].command.dtype", TEXT, "the numbers that models ran in"),
    Field("sessions[].command.batch_size", NUMBER, "questions a batch"),
    Field("sessions[].started", TEXT, "when, in UTC"),
    Field("sessions[].ended", MAYBE_TEXT, "when; null: it was killed"),
    Field("sessions[].ended_how", MAYBE_TEXT, f"{', '.join(ENDINGS)}; null: it was killed"),
    Field("sessions[].threads", MAP, "threads of each library"),
    *(
        Field(f"sessions[].threads.{each}_NUM_THREADS", MAYBE_TEXT, "null: not set", empty=True)
        for each in THREADS
    ),
    Field("sessions[].threads.torch", MAYBE_NUMBER, "as it says; null: not loaded"),
    Field("sessions[].threads.numba", MAYBE_NUMBER, "as it says; null: not loaded"),
    Field("sessions[].machine", TEXT, "what it ran on"),
    Field("sessions[].machine*", MAP, "a fact"),
    Field("sessions[].machine*.system", TEXT, "operating system, kernel and architecture"),
    Field("sessions[].machine*.python", TEXT, "implementation and version"),
    Field("sessions[].machine*.cpu", TEXT, "the processor: sums are rounded otherwise on another"),
    Field(
        "sessions[].machine*.flags", TEXT, "its instruction sets, which choose kernels", empty=True
    ),
    Field("sessions[].machine*.cores", NUMBER, "how many it has"),
    Field("sessions[].machine*.usable_cores", NUMBER, "how many the process may use"),
    Field("sessions[].machine*.memory", NUMBER, "bytes"),
    Field("sessions[].machine*.gpus", LIST, "name, driver and memory of each", empty=True),
    Field("sessions[].code", TEXT, "which state of the harness"),
    Field("sessions[].code*", MAP, "a fact"),
    Field("sessions[].code*.version", TEXT, "of the package"),
    Field("sessions[].code*.commit", MAYBE_TEXT, "the checkout it ran from"),
    Field("sessions[].code*.diff", MAYBE_TEXT, "hash of `git diff HEAD`; null: none"),
    Field("sessions[].code*.changed", LIST, "files that differ from the commit", empty=True),
    Field("sessions[].code*.changed[]", TEXT, "one"),
    Field("sessions[].code*.reason", TEXT, "why there is no commit", empty=True),
    Field("sessions[].packages", TEXT, "what was installed"),
    Field("sessions[].packages*", MAP, "a fact"),
    Field("sessions[].packages*.numeric", MAP, "packages that can change a score"),
    Field("sessions[].packages*.others", MAP, "all the others", empty=True),
)
"""Every field that a manifest must have."""

BLANK: Mapping[str, Any] = {
    "stages": [],
    "device": None,
    "dtype": None,
    "batch_size": None,
    "deterministic": None,
}
"""What the entry of an imported pipeline says of what nobody knows of it."""
OF_RUNS = ("sessions", "stages")
"""Fields that are empty where every pipeline was imported."""
ABSENT = object()


def missing(manifest: Mapping[str, Any]) -> list[str]:
    """The fields that are absent, empty or of a wrong type, by their place; none: it is whole."""
    pipelines = manifest.get("pipelines")
    none_ran = isinstance(pipelines, list) and all(map(imported, pipelines))
    found: dict[str, None] = {}
    for field in FIELDS:
        empty = field.empty or (none_ran and field.path in OF_RUNS)
        for place, value in _reached(manifest, field.path.split("."), "", manifest):
            if type(value) not in field.kinds or (not empty and value in ("", [], {})):
                found[place] = None
    return list(found)


def strange(manifest: Mapping[str, Any]) -> list[str]:
    """The keys that no run writes, by their place. Maps whose keys are names (of files, packages,
    modules) may have any."""
    paths = {re.sub(r"[!?]", "", field.path) for field in FIELDS}
    known: dict[str, set[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition(".")
        known.setdefault(parent, set()).add(name.rstrip("[]{}*"))

    def walk(value: Any, path: str, place: str) -> Iterator[str]:
        if isinstance(value, str) and f"{path}*" in paths:
            yield from walk(manifest["facts"].get(value), f"{path}*", f"{place}*")
        for number, each in enumerate(value if isinstance(value, list) else ()):
            yield from walk(each, f"{path}[]", f"{place}[{number}]")
        for key, each in value.items() if isinstance(value, dict) else ():
            here = f"{place}.{key}" if place else key
            if f"{path}{{}}" in paths:
                yield from walk(each, f"{path}{{}}", here)
            elif path in known and key not in known[path]:
                yield here
            elif path in known:
                yield from walk(each, f"{path}.{key}" if path else key, here)

    return sorted(set(walk(manifest, "", "")))


def imported(entry: object) -> bool:
    """Whether a pipeline of a manifest was read from files, and not run."""
    return isinstance(entry, dict) and "origin" in entry


def import_key(entry: Mapping[str, Any]) -> str:
    """What the rows of an imported pipeline depend on, as one hash."""
    same = ("task", "split", "setting", "system", "fingerprint")
    return digest([*(entry[name] for name in same), {**entry["origin"], "read": None}])


def altered(manifest: Mapping[str, Any]) -> list[str]:
    """Facts and stages of a whole manifest that are not what their digest or key says."""
    facts = {key for key, fact in manifest["facts"].items() if digest(fact) != key}
    stages = {key for key in manifest["stages"] if stage_key(parts_of(manifest, key)) != key}
    return [*(f"facts.{key}" for key in sorted(facts)), *(f"stages.{k}" for k in sorted(stages))]


def pruned(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without the stages and facts that nothing points at."""
    entries, stages = manifest["pipelines"], manifest["stages"]
    keys: set[str] = set()
    ahead = [key for entry in entries for key in entry.get("stages", ())]
    while ahead:
        key = ahead.pop()
        if key in stages and key not in keys:
            keys.add(key)
            ahead += [stages[key]["parts"]["after"], (stages[key]["shown"] or {}).get("after")]
    facts = {
        *(entry.get(name) for entry in entries for name in ("source", "train")),
        *(stages[key]["parts"][name] for key in keys for name in SHARED),
        *(each[name] for each in manifest["sessions"] for name in ("machine", "code", "packages")),
    }
    return {
        **manifest,
        "stages": {key: stage for key, stage in stages.items() if key in keys},
        "facts": {key: fact for key, fact in manifest["facts"].items() if key in facts},
    }


def loose(manifest: Mapping[str, Any]) -> list[str]:
    """The stages and facts of a whole manifest that nothing points at."""
    left = pruned(manifest)
    tables = ("stages", "facts")
    return [
        f"{table}.{key}" for table in tables for key in manifest[table] if key not in left[table]
    ]


def parts_of(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Everything that a stage's key is the hash of, as `harness.manifest.stage_key` takes it."""
    stage, facts = manifest["stages"][key], manifest["facts"]
    parts = {**stage["parts"], **{name: facts[stage["parts"][name]] for name in SHARED}}
    return {**parts, "shown": stage["shown"]} if stage["shown"] else parts


SHARED = ("sources", "versions")
"""Those parts of a stage that stand among the facts: many stages have the same."""


def _reached(
    value: Any, steps: list[str], place: str, manifest: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What a path leads to, each with its place; nothing where its beginning is wrong: that is
    told of the field that ends there."""
    if not steps:
        yield place, value
        return
    name = steps[0].rstrip("[]{}*!?")
    marks, here = steps[0][len(name) :], f"{place}.{name}" if place else name
    if not isinstance(value, dict):
        return
    found = [(here, value.get(name, ABSENT))]
    for mark in marks.replace("[]", "[").replace("{}", "{"):
        found = [each for one in found for each in _inside(mark, *one, manifest)]
    for here, each in found:
        yield from _reached(each, steps[1:], here, manifest)


def _inside(
    mark: str, place: str, value: Any, manifest: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The items of a list, the values of a map, what a digest or key points at, or what is there
    if it was run or imported."""
    if mark == "[" and isinstance(value, list):
        yield from ((f"{place}[{number}]", each) for number, each in enumerate(value))
    elif mark == "{" and isinstance(value, dict):
        yield from ((f"{place}.{key}", each) for key, each in value.items())
    elif mark in "!?" and imported(value) == (mark == "?"):
        yield place, value
    elif mark == "*" and isinstance(value, str):
        tables = (manifest.get("facts"), manifest.get("stages"))
        known = [each[value] for each in tables if isinstance(each, dict) and value in each]
        yield f"{place}*", known[0] if known else ABSENT

"""A challenge on worlds that nobody could train on.

1. `register` writes down what a pipeline is made of, before the worlds exist. Its digest has to be
   published (an issue, a mailing list, a time stamp), for the time inside it is only claimed.
2. A random number appears that nobody controls, say of a randomness beacon: the seed.
3. `run` asks the registered pipelines on the worlds that the seed gives; the bundle carries
   registration and seed, and `check` compares. Whether that seed is the published one, only who
   read it where it was published can say.

A world's seed is a hash of the published seed and of the task's name, and of nothing that a
submitter chooses: whoever registers many variants, or one after the seed is known, still meets the
same worlds as everybody, and all systems share one table. For the same reason sizes, split and seed
are those that a task and a run begin with; a profile may be named, for there are but a few. What
that leaves open is a registration after the seed; its published digest tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import DATA, HarnessError, raise_together
from harness.files import json_value
from harness.manifest import digest
from harness.report.bundle import pack, read_submission
from harness.run import runner, work
from harness.run.external import from_outside
from harness.run.plan import make_plan
from harness.run.progress import Progress, silent
from harness.score.scoring import score
from harness.spelling import Pipeline, parse_pipeline, parse_spelled
from harness.verify.findings import Findings
from harness.verify.times import impossible

FORMAT = 1
SIZES = ("seed", "device", "dtype", "batch_size")
"""What a pipeline is asked with; registered, too."""
SEED = re.compile(r"[!-~]{1,200}")
"""A seed: what shows, without a space, so that it is copied as it was published."""
FIELDS = {"format", "time", "tasks", "asked", "pipelines", "digest"}
STAGE = {"stage": str, "files": list, "sources": str, "versions": str}
"""What is registered of a stage, and of which type it is."""
USUAL = (("profile", "standard"),)
"""The profile of a task that names none."""


def world(seed: str, task: str) -> str:
    """The registered task on the world that a published seed gives it."""
    spelled = parse_spelled(task)
    drawn = blake2b(f"{seed}\0{spelled.name}".encode(), digest_size=6).hexdigest()
    return str(replace(spelled, options=(*spelled.options, ("seed", str(int(drawn, 16))))))


def _bare(text: str) -> str:
    """A task as it is registered: its name, and its profile if that is not the usual one.

    Raises `HarnessError` for tasks that are not generated, and for all other options.
    """
    spelled = parse_spelled(text)
    if dict(spelled.options).keys() - {"profile"} or not registry.task(spelled).generated:
        raise HarnessError(
            f"{text} is no task of a challenge.",
            "Name a mini task with no option but profile=, so that everybody meets the same world.",
        )
    return spelled.name if spelled.options == USUAL else str(spelled)


def register(
    systems: Sequence[str], tasks: Sequence[str], out: Path, setting: str | None = None
) -> Path:
    """Write what pipelines are made of, to be run on worlds of these tasks; returns ``out``.

    Raises `HarnessError`, with all mistakes together, for tasks that are not generated or have
    other options than a profile, and for pipelines that take results from a file.
    """
    mistakes = []
    if out.exists():
        mistakes.append(HarnessError(f"{out} exists.", "Name another file with -o."))
    pipelines: list[Pipeline] = []
    bare: dict[str, None] = {}
    for text in tasks:
        try:
            bare[_bare(text)] = None
        except HarnessError as error:
            mistakes.append(error)
    for text in systems:
        pipelines.append(parse_pipeline(text))
        for stage in pipelines[-1].stages:
            if from_outside(registry.create("systems", stage.system)):
                mistakes.append(
                    HarnessError(f"{text} takes results from a file.", "Name what makes them.")
                )
    raise_together(mistakes)
    asked = {"setting": setting, "seed": 0, "device": "cpu", "dtype": "float32", "batch_size": 32}
    told = {
        "format": FORMAT,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tasks": list(bare),
        "asked": asked,
        "pipelines": {str(each): [_stage(stage) for stage in each.stages] for each in pipelines},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**told, "digest": digest(told)}, indent=1) + "\n"
    out.write_text(text, encoding="utf-8")
    return out


def _stage(stage: Any) -> dict[str, Any]:
    """What a stage is made of, as far as it is known before it is asked anything."""
    parts = work.made_of(registry.create("systems", stage.system))
    hashed = {name: digest(parts[name]) for name in ("sources", "versions")}
    return {"stage": str(stage.canonical), "files": parts["files"], **hashed}


def run(
    registration: Path,
    seed: str,
    submission: Path | None,
    out: Path,
    data: Path = DATA,
    progress: Progress = silent,
) -> Path:
    """Ask the registered pipelines on the worlds of a seed, score, and pack; returns ``out``.

    Raises `HarnessError`, with all mistakes together, before anything is asked.
    """
    _, mistakes = read_submission(submission, out)
    told = json_value(registration)
    if why := _unsound(told):
        mistakes.append(
            HarnessError(f"{registration}: {why}", "Register again: `challenge register`.")
        )
    if not SEED.fullmatch(seed):
        mistakes.append(
            HarnessError(f"{seed!r} is no seed.", "Copy the published one, without spaces.")
        )
    raise_together(mistakes or _changed(told["pipelines"]))
    asked = dict(told["asked"])
    tasks = [world(seed, task) for task in told["tasks"]]
    plan = make_plan(tasks, list(told["pipelines"]), data=data, **asked)
    folder = work.RUNS / f"challenge-{digest([seed, told['digest']])}"
    runner.run(plan, folder, data, progress)
    note = folder / "challenge.json"
    text = json.dumps({"seed": seed, "registration": told}, indent=1, ensure_ascii=False)
    note.write_text(text + "\n", encoding="utf-8")
    return pack(score(folder), submission, out, note)


def _changed(pipelines: Mapping[str, Any]) -> list[HarnessError]:
    """What is wrong with registered pipelines that are not made here of what was registered."""
    mistakes = []
    for text, stages in pipelines.items():
        try:
            if [_stage(stage) for stage in parse_pipeline(text).stages] == stages:
                continue
            message = f"{text} is not made of what was registered."
            hint = "Take the code, packages and files of then, or register again."
            mistakes.append(HarnessError(message, hint))
        except HarnessError as error:
            mistakes.append(error)
    return mistakes


def check(
    told: Any, about: Mapping[str, Any], found: Findings, published: str | None = None
) -> str:
    """Note where a bundle is not the registered pipelines on the worlds of its seed.

    published: the seed, from somebody who read it where it was published
    Returns what to know of a bundle of which nothing is noted.
    """
    where = "challenge.json"
    seed = told.get("seed") if isinstance(told, dict) else None
    if not isinstance(seed, str) or not SEED.fullmatch(seed):
        found.add("challenge", where, "it has no seed, or one with spaces or hidden characters.")
        return ""
    if published not in (None, seed):
        found.add("challenge", where, f"its seed is {seed}, not the published {published}.")
    registration: Any = told.get("registration")
    if why := _unsound(registration):
        found.add("challenge", where, why)
        return ""
    _agrees(seed, registration, about, found)
    checked = "" if published else " is the one that was published (--challenge-seed), and"
    return (
        f"A challenge on the worlds of seed {seed}, by the registration {registration['digest']} "
        f"of {registration['time']}. Look whether the seed{checked} came after that digest."
    )


def _agrees(
    seed: str, registration: Mapping[str, Any], about: Mapping[str, Any], found: Findings
) -> None:
    where = "challenge.json"
    worlds = {world(seed, task) for task in registration["tasks"]}
    wanted = {(task, system) for task in worlds for system in registration["pipelines"]}
    there = {(entry["task"], entry["system"]) for entry in about["pipelines"]}
    for task, system in sorted(there - wanted):
        found.add("challenge", where, f"{system} on {task} is not what seed and registration give.")
    for task, system in sorted(wanted - there):
        found.add("challenge", where, f"{system} on {task} is left out.")
    for entry in about["pipelines"]:
        _same(entry, about, registration, found)
    if any(session["started"] < registration["time"] for session in about["sessions"]):  # in UTC
        found.add("challenge", where, "it was run before it was registered.")


def _same(
    entry: Mapping[str, Any],
    about: Mapping[str, Any],
    registration: Mapping[str, Any],
    found: Findings,
) -> None:
    """The stages of a pipeline are the registered ones, and asked as was registered."""
    where = f"challenge.json, {entry['system']}"
    asked = registration["asked"]
    for name in SIZES:
        if entry[name] != asked[name]:
            found.add("challenge", where, f"{name} is not as registered.")
    if entry["limit"] is not None:
        found.add("challenge", where, "not all questions were asked.")
    task = registry.task(parse_spelled(entry["task"]))
    if entry["setting"] != (asked["setting"] or task.settings[0]):
        found.add("challenge", where, "the setting is not as registered.")
    if entry["split"] != task.splits[0]:
        found.add("challenge", where, f"the split is not {task.splits[0]}.")
    stages = registration["pipelines"].get(entry["system"], ())
    if len(stages) != len(entry["stages"]):
        found.add("challenge", where, "other stages are registered.")
    for key, stage in zip(entry["stages"], stages, strict=False):
        parts = about["stages"][key]["parts"]
        for name in STAGE:
            if parts[name] != stage[name]:
                found.add("challenge", where, f"{name} of {parts['stage']} are not as registered.")


def _unsound(told: Any) -> str:
    """Why a value is no registration; empty if it is one."""
    if not isinstance(told, dict) or told.keys() != FIELDS or told["format"] != FORMAT:
        return f"it is no registration of the format {FORMAT}."
    if digest({name: told[name] for name in told if name != "digest"}) != told["digest"]:
        return "the registration is not what it hashes to."
    if why := impossible(told["time"]):
        return f"the time of the registration {why}."
    if not _askable(told["asked"]):
        return "its asked is not what `challenge register` writes."
    tasks, pipelines = told["tasks"], told["pipelines"]
    if not (isinstance(tasks, list) and tasks and all(isinstance(task, str) for task in tasks)):
        return "its tasks are no list of tasks."
    if not isinstance(pipelines, dict) or not pipelines:
        return "its pipelines are no map of pipelines to stages."
    try:
        if tasks != list(dict.fromkeys(map(_bare, tasks))):
            return "its tasks are not spelled as `challenge register` spells them."
        for text, stages in pipelines.items():
            if not _staged(text, stages):
                return f"its stages of {text!r} are not what `challenge register` writes."
    except HarnessError as error:
        return str(error)
    return ""


def _askable(asked: Any) -> bool:
    """Whether a value says how pipelines are asked: nothing else, and with no seed of its own."""
    return (
        isinstance(asked, dict)
        and asked.keys() == {"setting", *SIZES}
        and asked["setting"] in (None, "pool", "corpus")
        and all(isinstance(asked[name], str) for name in ("device", "dtype"))
        and all(type(asked[name]) is int for name in ("seed", "batch_size"))
        and asked["seed"] == 0
    )


def _staged(text: str, stages: Any) -> bool:
    """Whether a value says what the stages of this pipeline are made of."""
    if not isinstance(stages, list):
        return False
    for stage in stages:
        if not isinstance(stage, dict) or stage.keys() != STAGE.keys():
            return False
        if not all(isinstance(stage[name], kind) for name, kind in STAGE.items()):
            return False
    pipeline = parse_pipeline(text)
    spelled = [str(stage.canonical) for stage in pipeline.stages]
    return text == str(pipeline) and spelled == [stage["stage"] for stage in stages]

"""A challenge on worlds that nobody could train on.

1. `register` writes down what a pipeline is made of, before the worlds exist. Its digest has to be
   published (an issue, a mailing list, a time stamp), for the time inside it is only claimed.
2. A random number appears that nobody controls, say of a randomness beacon: the seed.
3. `run` asks the registered pipelines on the worlds that the seed gives; the bundle carries
   registration and seed, and `check` compares. Whether that seed is the published one, only who
   read it where it was published can say.

A world's seed is a hash of the published seed and of the task, and not of the registration: a
submitter who registers many variants, or one after the seed is known, still meets the same worlds
as everybody, so that there is nothing to choose from, and all systems share one table. What that
leaves open is a registration after the seed; its published digest tells.
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
from harness.run import runner
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


def world(seed: str, task: str) -> str:
    """The task on the world that a published seed gives it."""
    spelled = parse_spelled(task)
    drawn = blake2b(f"{seed}\0{spelled.canonical}".encode(), digest_size=6).hexdigest()
    return str(replace(spelled, options=(*spelled.options, ("seed", str(int(drawn, 16))))))


def register(
    systems: Sequence[str], tasks: Sequence[str], out: Path, setting: str | None = None
) -> Path:
    """Write what pipelines are made of, to be run on worlds of these tasks; returns ``out``.

    Raises `HarnessError`, with all mistakes together, for tasks that are not generated or have a
    seed already, and for pipelines that take results from a file.
    """
    mistakes = []
    if out.exists():
        mistakes.append(HarnessError(f"{out} exists.", "Name another file with -o."))
    pipelines: list[Pipeline] = []
    for text in tasks:
        spelled = parse_spelled(text)
        if not registry.task(spelled).generated or "seed" in dict(spelled.options):
            why = "is not generated" if "seed" not in dict(spelled.options) else "has a seed"
            mistakes.append(HarnessError(f"{text} {why}.", "Name mini tasks without seed=."))
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
        "tasks": [str(parse_spelled(task)) for task in tasks],
        "asked": asked,
        "pipelines": {str(each): [_stage(stage) for stage in each.stages] for each in pipelines},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**told, "digest": digest(told)}, indent=1) + "\n"
    out.write_text(text, encoding="utf-8")
    return out


def _stage(stage: Any) -> dict[str, Any]:
    """What a stage is made of, as far as it is known before it is asked anything."""
    parts = runner.made_of(registry.create("systems", stage.system))
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
    raise_together(mistakes)
    asked = dict(told["asked"])
    tasks = [world(seed, task) for task in told["tasks"]]
    plan = make_plan(tasks, list(told["pipelines"]), data=data, **asked)
    folder = runner.RUNS / f"challenge-{digest([seed, told['digest']])}"
    runner.run(plan, folder, data, progress)
    note = folder / "challenge.json"
    text = json.dumps({"seed": seed, "registration": told}, indent=1, ensure_ascii=False)
    note.write_text(text + "\n", encoding="utf-8")
    return pack(score(folder), submission, out, note)


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
        if entry[name] != asked.get(name):
            found.add("challenge", where, f"{name} is not as registered.")
    if entry["limit"] is not None:
        found.add("challenge", where, "not all questions were asked.")
    if asked.get("setting") not in (None, entry["setting"]):
        found.add("challenge", where, "the setting is not as registered.")
    stages = registration["pipelines"].get(entry["system"], ())
    if len(stages) != len(entry["stages"]):
        found.add("challenge", where, "other stages are registered.")
    for key, stage in zip(entry["stages"], stages, strict=False):
        parts = about["stages"][key]["parts"]
        for name in ("stage", "files", "sources", "versions"):
            if parts[name] != stage.get(name):
                found.add("challenge", where, f"{name} of {parts['stage']} are not as registered.")


def _unsound(told: Any) -> str:
    """Why a value is no registration; empty if it is one."""
    if not isinstance(told, dict) or told.keys() != FIELDS or told["format"] != FORMAT:
        return f"it is no registration of the format {FORMAT}."
    if digest({name: told[name] for name in told if name != "digest"}) != told["digest"]:
        return "the registration is not what it hashes to."
    if why := impossible(told["time"]):
        return f"the time of the registration {why}."
    tasks, pipelines = told["tasks"], told["pipelines"]
    well = (
        isinstance(told["asked"], dict)
        and isinstance(tasks, list)
        and bool(tasks)
        and all(isinstance(task, str) for task in tasks)
        and isinstance(pipelines, dict)
        and bool(pipelines)
        and all(isinstance(each, list) for each in pipelines.values())
        and all(isinstance(stage, dict) for each in pipelines.values() for stage in each)
    )
    if not well:
        return "a field of the registration is of a wrong type."
    try:
        for task in tasks:
            parse_spelled(task)
    except HarnessError as error:
        return str(error)
    return ""

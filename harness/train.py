"""Training a checkpoint by its recipe: progress, a curve, a state that a killed run goes on from.

A recipe is taught by a generated world (`harness.contract.Teacher`), or by questions of a train
split with what a pipeline retrieved for them (`harness.examples`).

DIR/config.json model.safetensors words.json   the checkpoint, when it is whole (or its parts)
DIR/about.json      name, seed, steps, version of the world, recipe, the curve
DIR/.unfinished     the state of a run that is not: weights, optimiser, curve
DIR/.first          what the pipeline retrieved for it, meanwhile
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import registry
from harness.contract import Recipe
from harness.data import DATA, HarnessError, raise_together
from harness.examples import explains, retrieved_examples, train_plan
from harness.run.plan import Job
from harness.run.progress import Progress, silent
from harness.run.store import one_writer
from harness.spelling import Spelled, parse_spelled

EVERY, SECONDS, DEAR = 200, 600.0, 5.0
"""Steps between two points of the curve, where the state is kept; seconds after which it is kept in
between, where steps are long; and those that keeping may take, to be done at every point."""
STATE, ABOUT, FIRST = ".unfinished", "about.json", ".first"


def train(
    name: str, out: Path, seed: int = 0, steps: int | None = None, progress: Progress = silent
) -> Path:
    """Make the checkpoint ``name`` in the folder ``out``, or go on with what was begun there.

    Gives the folder. The weights follow from name, seed and steps alone (on one machine, with
    one thread), however often the run was killed. A folder that is whole is left as it is; one
    that holds other files is refused.

    steps: optimiser steps in all; those of the recipe if None
    """
    cls: Any = registry.find("recipes", name)
    if by_questions(cls):
        raise HarnessError(f"{name} is trained on tasks.", "Call train_on.")
    total = cls.steps if steps is None else steps
    if total < 1:
        raise HarnessError(f"{total} steps are too few.", "Write --steps 1 or more.")
    teacher = registry.task(parse_spelled(cls.task))
    asked = {"name": name, "seed": seed, "steps": total}
    with _room(out):
        _whole(cls(teacher, seed, total), out, asked, progress)
    return out


def train_on(
    name: str,
    out: Path,
    seed: int = 0,
    *,
    tasks: Sequence[str] = (),
    first: str = "",
    options: Mapping[str, str] | None = None,
    setting: str | None = None,
    data: Path = DATA,
    progress: Progress = silent,
) -> Path:
    """`train` for a recipe that is taught by questions.

    tasks:   whose train split it learns from; those of the recipe if none is named
    first:   the pipeline that retrieves for them; that of the recipe if empty
    options: the recipe's own, as text
    setting: ``pool`` (of each question) or ``corpus``; that of each task if None
    data:    where prepared tasks are
    """
    cls: Any = registry.find("recipes", name)
    if not by_questions(cls):
        raise HarnessError(
            f"{name} is taught by the generated world alone.",
            "Write --out, --seed and --steps only.",
        )
    given = Spelled(name, tuple((options or {}).items()))
    settings = cls.options(**registry.check_options(given, cls.options)).checked()
    tasks, first = list(tasks or cls.tasks), first or cls.first
    plan = train_plan(tasks, first, settings.world, setting, data)
    how = getattr(cls, "explained", False)
    if how and not settings.explains:
        raise_together([_unexplained(job) for job in plan.jobs if not explains(job)])
    asked = {"name": name, "seed": seed, "tasks": tasks, "first": first}
    asked |= {"setting": setting} if setting else {}
    with _room(out):
        if (out / ABOUT).exists():
            _same(_about(out / ABOUT), {**asked, "recipe": asdict(settings)}, out)
            return out
        recipe = cls(
            retrieved_examples(plan, out / FIRST, data, progress, explained=how), seed, settings
        )
        _whole(recipe, out, {**asked, "steps": recipe.steps}, progress)
        shutil.rmtree(out / FIRST, ignore_errors=True)
    return out


def _unexplained(job: Job) -> HarnessError:
    return HarnessError(
        f"{job.spelled} does not say how its questions are answered.",
        'Give --explanations FILE, rows {"question": …, "clues": […], "evidence": […]}.',
    )


def by_questions(cls: Any) -> bool:
    """Whether a recipe is taught by questions of a train split (else by a generated world)."""
    return hasattr(cls, "options")


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """Only this training writes to the folder, and it holds nothing else."""
    with one_writer(out):
        if not (out / ABOUT).exists() and not (out / STATE).exists():
            _empty(out)
        yield


def _whole(recipe: Recipe, out: Path, asked: dict[str, Any], progress: Progress) -> None:
    """Do what is left to do of a training."""
    asked = {**asked, **recipe.described()}
    if (out / ABOUT).exists():
        _same(_about(out / ABOUT), asked, out)
        (out / STATE).unlink(missing_ok=True)
        return
    curve = _go_on(recipe, out / STATE, asked)
    _steps(recipe, out / STATE, {**asked, "curve": curve}, progress)
    recipe.save(out)
    _write(out / ABOUT, {**asked, **_reported(recipe), "curve": curve})
    (out / STATE).unlink()


def _reported(recipe: Recipe) -> dict[str, Any]:
    """What else a recipe has to say at the end."""
    found: dict[str, Any] = getattr(recipe, "report", dict)()
    return found


def _same(found: Mapping[str, Any], asked: Mapping[str, Any], out: Path) -> None:
    """`HarnessError` if the folder holds something else than what is asked for."""
    other = [key for key, value in asked.items() if found.get(key) != json.loads(json.dumps(value))]
    if {"name", "seed", "steps"} & set(other):
        named = "{name} (seed {seed}, {steps} steps)".format
        what = f"{named(**found)}, not {named(**{'steps': found['steps'], **asked})}"
    else:
        what = f"{asked['name']} of another {' and '.join(other)}"
    if other:
        raise HarnessError(
            f"{out} holds {what}.", "Choose another folder with --out, or remove this one."
        )


def _about(path: Path) -> dict[str, Any]:
    """What a whole checkpoint says of itself."""
    try:
        return _described(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HarnessError(
            f"{path} is no checkpoint's ({error}).",
            "Remove it, or choose another folder with --out.",
        ) from error


def _described(text: str) -> dict[str, Any]:
    """An object with what a checkpoint says of itself; `ValueError` if it is none."""
    found = json.loads(text)
    if not isinstance(found, dict) or not {"name", "seed", "steps", "curve"} <= found.keys():
        raise ValueError("it has no name, seed, steps and curve")
    return found


def _empty(out: Path) -> None:
    """`HarnessError` if the folder holds files that a training would overwrite or mix with its."""
    ours = {".lock", f"{STATE}.part", FIRST}
    if foreign := sorted({each.name for each in out.iterdir()} - ours):
        raise HarnessError(
            f"{out} holds other files ({foreign[0]}).", "Choose a new or empty folder with --out."
        )


def _go_on(recipe: Recipe, state: Path, asked: Mapping[str, Any]) -> list[dict[str, float]]:
    """Take up an unfinished run if there is one; its curve so far."""
    if not state.exists():
        return []
    from safetensors import SafetensorError

    try:
        kept = _described(recipe.resume(state))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise HarnessError(
            f"{state} is broken or of another recipe ({registry.described(error)}).",
            "Remove it to begin anew, or choose another folder with --out.",
        ) from error
    _same(kept, asked, state.parent)
    curve: list[dict[str, float]] = kept["curve"]
    return curve


def _steps(recipe: Recipe, state: Path, kept: dict[str, Any], progress: Progress) -> None:
    """Do the steps that are left; every `EVERY` of them a point of the curve. The state is kept now
    and then, and at an interruption."""
    curve = kept["curve"]
    spent, begun = curve[-1]["cpu_s"] if curve else 0.0, time.process_time()
    figures: list[Mapping[str, float]] = []
    keeper = _Keeper(recipe, state, kept)
    with progress(kept["name"], kept["steps"], recipe.done) as advance, _waiting() as interrupted:
        while recipe.done < kept["steps"]:
            figures.append(recipe.step())
            advance(1)
            if interrupted:
                keeper.keep()
                raise KeyboardInterrupt
            point = recipe.done % EVERY == 0 or recipe.done >= kept["steps"]
            if point:
                cpu = round(spent + time.process_time() - begun, 1)
                curve.append({"step": recipe.done, "cpu_s": cpu, **_means(figures)})
                figures.clear()
            if keeper.due(point):
                keeper.keep()


class _Keeper:
    """Keeps the state of a training: at each point of the curve, and after `SECONDS` without; only
    then, where it is dear."""

    def __init__(self, recipe: Recipe, state: Path, kept: Mapping[str, Any]) -> None:
        self.recipe, self.state, self.kept = recipe, state, kept
        self.last, self.cost = time.monotonic(), 0.0

    def due(self, point: bool) -> bool:
        whole = self.recipe.done >= self.kept["steps"]
        late = time.monotonic() - self.last > SECONDS
        return whole or late or (point and self.cost <= DEAR)

    def keep(self) -> None:
        begun = time.monotonic()
        self.recipe.keep(self.state, json.dumps(self.kept))
        self.last = time.monotonic()
        self.cost = self.last - begun


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the steps that have it."""
    names = dict.fromkeys(name for each in figures for name in each)
    return {name: round(fmean(each[name] for each in figures if name in each), 4) for name in names}


@contextmanager
def _waiting() -> Iterator[list[int]]:
    """Let an interruption wait for the end of a step: it is put on the list. (Only the main thread
    is ever interrupted.)"""
    interrupted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _write(path: Path, value: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)

"""Training a checkpoint by its recipe: progress, a curve, a state that a killed run goes on from.

DIR/config.json model.safetensors words.json   the checkpoint, when it is whole
DIR/about.json      name, seed, steps, version of the world, recipe, the curve
DIR/.unfinished     the state of a run that is not: weights, optimiser, curve
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import registry
from harness.contract import Recipe
from harness.data import HarnessError
from harness.run.progress import Progress, silent
from harness.run.store import one_writer
from harness.spelling import parse_spelled

EVERY = 200
"""Steps between two points of the curve, where the state is kept."""
STATE, ABOUT = ".unfinished", "about.json"


def train(
    name: str, out: Path, seed: int = 0, steps: int | None = None, progress: Progress = silent
) -> Path:
    """Make the checkpoint ``name`` in the folder ``out``, or go on with what was begun there.

    Gives the folder. The weights follow from name, seed and steps alone (on one machine, with
    one thread), however often the run was killed. A folder that is whole is left as it is.

    steps: optimiser steps in all; those of the recipe if None
    """
    cls: Any = registry.find("recipes", name)
    total = cls.steps if steps is None else steps
    if total < 1:
        raise HarnessError(f"{total} steps are too few.", "Write --steps 1 or more.")
    recipe: Recipe = cls(registry.task(parse_spelled(cls.task)), seed, total)
    asked = {"name": name, "seed": seed, "steps": total, **recipe.described()}
    with one_writer(out):
        if (out / ABOUT).exists():
            _same(json.loads((out / ABOUT).read_text()), asked, out)
            return out
        curve = _go_on(recipe, out / STATE, asked)
        _steps(recipe, out / STATE, {**asked, "curve": curve}, progress)
        recipe.save(out)
        _write(out / ABOUT, {**asked, "curve": curve})
        (out / STATE).unlink()
    return out


def _same(found: Mapping[str, Any], asked: Mapping[str, Any], out: Path) -> None:
    """`HarnessError` if the folder holds something else than what is asked for."""
    other = [key for key, value in asked.items() if found.get(key) != json.loads(json.dumps(value))]
    if other:
        raise HarnessError(
            f"{out} holds {found.get('name')} with another {', '.join(other)}.",
            "Choose another folder with --out, or remove this one.",
        )


def _go_on(recipe: Recipe, state: Path, asked: Mapping[str, Any]) -> list[dict[str, float]]:
    """Take up an unfinished run if there is one; its curve so far."""
    if not state.exists():
        return []
    kept: dict[str, Any] = json.loads(recipe.resume(state))
    _same(kept, asked, state.parent)
    curve: list[dict[str, float]] = kept["curve"]
    return curve


def _steps(recipe: Recipe, state: Path, kept: dict[str, Any], progress: Progress) -> None:
    """Do the steps that are left; every `EVERY` of them a point of the curve, and the state."""
    curve = kept["curve"]
    spent, begun = curve[-1]["cpu_s"] if curve else 0.0, time.process_time()
    figures: list[Mapping[str, float]] = []
    with progress(kept["name"], kept["steps"], recipe.done) as advance:
        while recipe.done < kept["steps"]:
            figures.append(recipe.step())
            advance(1)
            if recipe.done % EVERY and recipe.done < kept["steps"]:
                continue
            cpu = round(spent + time.process_time() - begun, 1)
            mean = {key: round(fmean(each[key] for each in figures), 4) for key in figures[-1]}
            curve.append({"step": recipe.done, "cpu_s": cpu, **mean})
            figures.clear()
            recipe.keep(state, json.dumps(kept))


def _write(path: Path, value: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)

"""A run as a file: what would else be typed behind ``python -m harness run``.

    tasks: [mini-hotpotqa, mini-msmarco]
    systems: [bm25, bm25@100+cross-encoder]
    limit: 200
    report: table.md

It is the same run: same folder, same keys, same rows as with the options typed. Paths in it are,
as typed ones, those of the folder in which the command is started. It cannot allow code to be run
(`harness.own_code`), and does not say how to look at a run (``dry_run``): both are for who starts
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from harness.data import HarnessError
from harness.forms import Form, read_form

OPTIONS = {"tasks": "task", "systems": "system", "metrics": "metric", "set": "overrides"}
"""Keys that the parameter of the command has another name for."""


class Experiment(Form):
    """The keys of a file; what is left out is as if it were not typed."""

    tasks: list[str] = Field(min_length=1)
    systems: list[str] = Field(min_length=1)
    split: str | None = None
    setting: str | None = None
    limit: int | None = Field(None, ge=1)
    seed: int | None = None
    out: str | None = None
    set: list[str] | None = None
    metrics: list[str] | None = None
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = Field(None, ge=1)
    latency: str | None = None
    report: str | None = None
    data: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_code(cls, value: Any) -> Any:
        if isinstance(value, dict) and {"allow_code", "allow-code"} & value.keys():
            raise HarnessError(
                "an experiment cannot allow that code is run.", "Type --allow-code yourself."
            )
        return value


def parameters(path: Path) -> dict[str, Any]:
    """Values for the parameters of the command ``run``, by name.

    Raises `HarnessError` with all mistakes: keys that there are not, values of another kind.
    """
    told = read_form(path, Experiment).model_dump(exclude_unset=True, exclude_none=True)
    return {OPTIONS.get(name, name): value for name, value in told.items()}

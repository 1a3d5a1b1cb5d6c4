"""What a training keeps, so that a killed run goes on: tensors by name, and notes, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from systems.models.hub import writing


def write(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a file of tensors and notes, in one go."""
    part = path.with_suffix(".part")
    with writing(path):
        save_file({name: each.contiguous() for name, each in tensors.items()}, part, dict(notes))
    part.chmod(0o644)
    part.replace(path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write` wrote."""
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return found, dict(file.metadata())


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, under the rest of their names."""
    return {name[len(prefix) :]: each for name, each in tensors.items() if name.startswith(prefix)}


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that begin with the prefix."""
    return {prefix + name: each.detach() for name, each in tensors.items()}


def moments(optimiser: Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, by ``<place>.<name>``."""
    kept: dict[int, dict[str, Tensor]] = optimiser.state_dict()["state"]
    return {f"{place}.{name}": each for place, part in kept.items() for name, each in part.items()}


def remember(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `moments` took; its settings stay."""
    state: dict[int, dict[str, Any]] = {}
    for name, each in tensors.items():
        place, _, moment = name.partition(".")
        state.setdefault(int(place), {})[moment] = each
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})

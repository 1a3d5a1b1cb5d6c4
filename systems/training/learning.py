"""What the trainings on questions share: optimiser steps, and which questions are kept apart."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from harness.data import Example, HarnessError
from systems.models.tuning import Tunable

T = TypeVar("T")
RAMP = 10
"""Steps of a model in which its learning rate rises."""
BETAS, CLIP = (0.9, 0.98), 1.0
"""Of AdamW and of the gradient's norm."""


class Learner:
    """A model in training: its optimiser, and how many steps it made."""

    def __init__(self, tunable: Tunable, rate: float, decay: float) -> None:
        self.tunable, self.rate, self.steps = tunable, rate, 0
        names = tunable.weights
        self.optimiser = torch.optim.AdamW(names.values(), rate, BETAS, weight_decay=decay)

    def step(self, losses: Iterable[Tensor], pace: float = 1.0) -> float:
        """One step down the sum of some losses, each of which is computed when it is asked for.
        ``pace``: of the learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * pace * min(1.0, (self.steps + 1) / RAMP)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.tunable.weights.values(), CLIP)
        self.optimiser.step()
        self.steps += 1
        return total


def precision(device: str, dtype: str) -> AbstractContextManager[object]:
    """In what a training computes: bfloat16 with weights in float32, or float32."""
    if dtype == "float32":
        return nullcontext()
    cast: AbstractContextManager[object] = torch.autocast(device.partition(":")[0], torch.bfloat16)
    return cast


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Items, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def fill(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Give weights other values."""
    for name, each in weights.items():
        each.data.copy_(values[name])


def parted(examples: Sequence[Example], dev: int) -> tuple[list[Example], list[Example]]:
    """Those to train on and about ``dev`` to judge by, in whole groups, as intervals resample them:
    questions with the same first gold document are on one side. (Chains that share a later one can
    be on both.)"""
    for each in examples:
        if foreign := {one.id for one in each.documents} - set(each.retrieved):
            raise HarnessError(
                f"the candidates of {each.question[:60]!r} hold {min(foreign)}, which the stage "
                "before did not retrieve.",
                "Candidates come only from there, gold or not.",
            )
    groups: dict[str, list[Example]] = {}
    for each in examples:
        groups.setdefault(each.group or each.question, []).append(each)
    apart: list[Example] = []
    for name in sorted(groups, key=lambda name: random.Random(name).random()):
        if len(apart) >= dev:
            break
        apart += groups.pop(name)
    train = [each for group in groups.values() for each in group]
    if not train:
        raise HarnessError(
            f"there are {len(examples)} questions to learn from, and dev={dev} of them are kept "
            "apart.",
            "Take a larger task or a smaller dev=.",
        )
    return train, apart

"""What a base adapter is trained on: questions of a task, alone or behind others of the same task.

Reading demonstrations is learned from short rows first: rows of several questions begin with one
passage each, and get more as answers behind demonstrations are given well enough. Until they have
all, there are no others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from harness.data import Example, HarnessError
from systems.models.language import Asked

if TYPE_CHECKING:
    from systems.raggd.interface import Interface

LEVELS: tuple[int | None, ...] = (1, 2, 3, None)
"""Passages of a question in a row of several; None: all."""
ENOUGH, STAY, MEMORY = -0.4, 40, 0.05
"""How sure of the first token of an answer behind demonstrations (mean log p) rows get longer, the
fewest steps before, and the weight of a step in the running mean."""


class Told(NamedTuple):
    """A row and its answers that count, as places (start, end) in it; the first is where what is
    judged of the row begins."""

    asked: Asked
    answers: tuple[tuple[int, int], ...]


def told(interface: Interface, examples: Sequence[Example]) -> Told:
    """A question behind others, of which the foremost are left out where the model cannot read all.
    Every answer counts that stands in the row as it would stand at the end of a shorter one."""
    try:
        rows = [interface.demonstration(each, examples[:n]) for n, each in enumerate(examples)]
    except HarnessError:
        if len(examples) == 1:
            raise
        return told(interface, examples[1:])
    whole = rows[-1]
    spans = ((row.start, len(row.ids)) for row in rows if whole.ids[: len(row.ids)] == row.ids)
    answers = tuple(spans)
    return Told(whole._replace(start=answers[0][0]), answers)


class Growing:
    """How many passages the questions of a row of several have, by competence."""

    def __init__(self) -> None:
        self.level, self.stayed, self.sure = 0, 0, -10.0

    @property
    def grown(self) -> bool:
        """Whether rows have all of their passages."""
        return self.level + 1 == len(LEVELS)

    def shortened(self, example: Example, rng: random.Random) -> Example:
        """An example with as many passages as rows have by now, one that supports it among them."""
        size = LEVELS[self.level]
        if size is None or len(example.documents) <= size:
            return example
        by_support = sorted(example.documents, key=lambda each: each.id not in example.support)
        return replace(example, documents=tuple(rng.sample(by_support[:size], size)))

    def note(self, sure: float) -> None:
        """Go on if that is enough."""
        self.stayed += 1
        self.sure += MEMORY * (sure - self.sure)
        if not self.grown and self.stayed > STAY and self.sure > ENOUGH:
            self.level, self.stayed = self.level + 1, 0

    def state(self) -> list[float]:
        """All of it, for `resume`."""
        return [self.level, self.stayed, self.sure]

    def resume(self, state: Sequence[float]) -> None:
        """Go back to what `state` gave."""
        self.level, self.stayed, self.sure = int(state[0]), int(state[1]), state[2]

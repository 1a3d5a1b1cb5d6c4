"""What the recipes share: optimiser, curriculum, and a state that a killed run goes on from.

A step is a function of the seed, its number and the state before. The curriculum goes by
competence, never by time: lessons grow when they are answered well enough, because recall has to
appear on short texts before long ones teach anything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.contract import Teacher
from harness.data import Lesson
from systems.models.words import OpenWords
from systems.training import state

WARM_UP = 100
"""Steps in which the learning rate rises."""
HELD, LEAST = 0.5, 0.02
"""Share of the steps after which the learning rate falls, and what is left of it at the end."""
WORLD = 4
"""Steps that one train world serves."""
EASIER = 0.4
"""Share of the steps whose lessons are smaller than the curriculum allows."""
UNTITLED = 0.3
"""Share of the lessons whose passages have no title, as those of MS MARCO."""
STAY, MEMORY = 60, 0.05
"""The fewest steps at one size, and the weight of a step in the running mean of right answers."""
BETAS, DECAY, CLIP = (0.9, 0.98), 0.05, 1.0
"""Of AdamW and of the gradient's norm."""


class Recipe:
    """Makes one checkpoint; see `harness.contract.Recipe`. A subclass says how.

    rate:    learning rate
    lessons: of a step, times their passages and two for the questions
    sizes:   passages of a lesson as the curriculum goes on
    kinds:   kinds of questions, how often, and the fewest passages that they are asked of
    enough:  share of right answers (running mean) from which the curriculum goes on
    """

    name: ClassVar[str]
    task = "mini-hotpotqa"
    steps: int = 8_000
    rate: ClassVar[float] = 2.5e-3
    lessons: ClassVar[int] = 30
    sizes: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 6, 8, 10)
    kinds: ClassVar[Mapping[str, tuple[float, int]]]
    enough: ClassVar[float] = 0.65
    numbers: ClassVar[Sequence[str]] = ()
    """Words that it knows beside those of the teacher."""
    further: ClassVar[Mapping[str, Any]] = {}
    """What else makes this recipe, for the record."""
    config: dict[str, Any]

    def __init__(self, teacher: Teacher, seed: int, steps: int) -> None:
        self.teacher, self.seed, self.steps = teacher, seed, steps
        self.words = OpenWords.of((*teacher.known_words(), *self.numbers))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self.new_model()
        self.optimiser = torch.optim.AdamW(self._groups(), lr=self.rate, betas=BETAS)
        self.done = self.level = self.stayed = 0
        self.right = 0.0

    # --- what a subclass says ---------------------------------------------------------

    def new_model(self) -> nn.Module:
        """The model with its first weights."""
        raise NotImplementedError

    def loss(self, lessons: list[Lesson], rng: random.Random) -> tuple[Tensor, float]:
        """The loss of a step, and the share of questions answered right."""
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """What goes into the checkpoint, under Hugging Face's names."""
        raise NotImplementedError

    # --- the contract -----------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        recipe = {
            "task": self.task,
            "rate": self.rate,
            "lessons": self.lessons,
            "sizes": list(self.sizes),
            "kinds": {kind: list(how) for kind, how in self.kinds.items()},
            "enough": self.enough,
            "pace": [WARM_UP, HELD, LEAST],
            "world": WORLD,
            "easier": EASIER,
            "untitled": UNTITLED,
            "stay": [STAY, MEMORY],
            "optimiser": [*BETAS, DECAY, CLIP],
            **self.further,
        }
        return {"world": self.teacher.version, "recipe": recipe}

    def step(self) -> dict[str, float]:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # numbers near zero cost much time and mean nothing
        rng = random.Random(f"{self.seed} {self.done}")
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * self._pace()
        loss, right = self.loss(self._lessons(rng), rng)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimiser.step()
        self.done += 1
        figures = {"passages": float(self.sizes[self.level]), "loss": loss.item(), "right": right}
        self._grow(right)
        return figures

    def keep(self, path: Path, notes: str) -> None:
        weights = state.named("model.", dict(self.model.named_parameters()))
        moments = state.named("optimiser.", state.moments(self.optimiser))
        said = {"state": json.dumps(self._state()), "notes": notes}
        state.write(path, {**weights, **moments}, said)

    def resume(self, path: Path) -> str:
        found, notes = state.read(path)
        self.done, self.level, self.stayed, self.right = json.loads(notes["state"])
        for name, each in self.model.named_parameters():
            each.data.copy_(found[f"model.{name}"])
        state.remember(self.optimiser, state.under("optimiser.", found))
        return notes["notes"]

    def save(self, folder: Path) -> None:
        self.words.write(folder)
        (folder / "config.json").write_text(json.dumps(self.config, indent=1) + "\n")
        halved = {name: each.half() for name, each in self.weights().items()}
        state.write(folder / "model.safetensors", halved, {"format": "pt"})

    # --- how --------------------------------------------------------------------------

    def _state(self) -> list[float]:
        return [self.done, self.level, self.stayed, self.right]

    def _pace(self) -> float:
        """Of the learning rate: it rises, is held, and falls to `LEAST`."""
        return min(1.0, (self.done + 1) / WARM_UP) * falling(self.done, self.steps)

    def _grow(self, right: float) -> None:
        """Go on to larger lessons if these are answered well enough."""
        self.stayed += 1
        self.right += MEMORY * (right - self.right)
        if self.level + 1 < len(self.sizes) and self.stayed > STAY and self.right > self.enough:
            self.level, self.stayed = self.level + 1, 0

    def _lessons(self, rng: random.Random) -> list[Lesson]:
        """The lessons of this step, all of one size, from a world that some steps share."""
        size = self.sizes[self.level]
        if self.level > 1 and rng.random() < EASIER:
            size = rng.choice(self.sizes[: self.level])
        kinds = {kind: often for kind, (often, least) in self.kinds.items() if size >= least}
        world = f"{self.seed} {self.done // WORLD}"
        count = max(3, round(self.lessons / (size + 2)))
        lessons = (self.teacher.lesson(world, rng, size, kinds) for _ in range(count))
        return [_untitled(each) if rng.random() < UNTITLED else each for each in lessons]

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for the matrices between layers, and for nothing else."""
        decayed: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, each in self.model.named_parameters():
            matrix = each.dim() > 1 and "words" not in name and "conv" not in name
            (decayed if matrix else rest).append(each)
        return [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]


def falling(done: int, steps: int) -> float:
    """Of a learning rate: it is held, and falls to `LEAST`."""
    return max(LEAST, 1 - max(0.0, done / steps - HELD) / (1 - HELD))


def _untitled(lesson: Lesson) -> Lesson:
    """The lesson with passages that have no title."""
    return lesson._replace(documents=[replace(each, title="") for each in lesson.documents])

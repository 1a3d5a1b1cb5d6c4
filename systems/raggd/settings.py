"""What a training of RAG-GD can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

from harness.data import HarnessError
from systems.models.hub import about, base_folder, check_least, checked_device, model_folder
from systems.models.words import has_open_words

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""Of every attention layer: what LoRA is put on."""
Feature = Literal["end", "answer", "both", "none"]


@dataclass(frozen=True)
class Shape:
    """What a predictor is made of.

    feature: of a demonstration: the hidden state at its ``end`` (as in the paper), the mean over
             its ``answer``, or ``both``; ``none``: all demonstrations look alike, so that what is
             learned is the best constant update (a control)
    rank:    of the update
    hidden, code: the widths of the MLP and of what it gives (z)
    trunk:   heads share so many directions, which z weighs; 0: each head has its own full matrix,
             as in the paper
    start:   standard deviation of the heads' first weights
    """

    feature: Feature = "end"
    rank: int = 16
    hidden: int = 256
    code: int = 64
    trunk: int = 0
    start: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """What a training can be told; what is None is as in the paper, or as suits the mini models
    (`PAPER`, `MINI`).

    model:         to begin with: shipped, on the hub or a folder; an adapter of this kind is
                   trained further
    lora:          rank of the base adapter; its scale is 2
    base_steps, base_rate, base_batch: of training it (W0) on questions of all tasks
    shown:         share of its rows that have demonstrations of their task in the prompt, whose
                   answers count too, so that reading these is nothing new (`systems.raggd.rows`)
    shots:         demonstrations of a support (N)
    steps_of_descent: K, or several with commas: a predictor for each
    descent_rate:  of these steps (η)
    predictor_steps, predictor_rate, predictor_batch: of training predictors, on supports
    pool:          supports that are drawn, each used many times; 0: new ones in every step
    norm_weight:   of the norms in the loss (λ)
    noise:         on normalised features
    feature, update_rank, hidden, code, trunk, start: see `Shape`
    rivals:        ``all``: HyperTuning (the same predictor, by the loss of answers) and prompt
                   tuning are trained, too
    rival_steps, rival_rate: of HyperTuning, on a step's supports with a question each
    prompt_tokens, prompt_steps, prompt_rate: of prompt tuning, on single questions
    decay:         of AdamW
    micro:         rows at once, as memory allows
    device, dtype: bfloat16 on CUDA computes in it
    four_bit:      the model's own weights in NF4, on CUDA
    """

    model: str = "mini-llama"
    lora: int = 16
    base_steps: int | None = None
    base_rate: float | None = None
    base_batch: int | None = None
    shown: float | None = None
    shots: int = 3
    steps_of_descent: str = "5"
    descent_rate: float | None = None
    predictor_steps: int | None = None
    predictor_rate: float | None = None
    predictor_batch: int | None = None
    pool: int | None = None
    norm_weight: float = 0.1
    noise: float | None = None
    feature: Feature | None = None
    update_rank: int | None = None
    hidden: int = 256
    code: int = 64
    trunk: int | None = None
    start: float | None = None
    rivals: Literal["none", "all"] = "none"
    rival_steps: int | None = None
    rival_rate: float | None = None
    prompt_tokens: int = 20
    prompt_steps: int | None = None
    prompt_rate: float | None = None
    decay: float = 0.01
    micro: int | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    four_bit: bool = False

    def checked(self) -> Filled:
        """With what is None filled in; `HarnessError` for what is wrong."""
        mini = has_open_words(base_folder(model_folder(self.model)))
        told = {key: each for key, each in asdict(self).items() if each is not None}
        found = Filled(**{**(MINI if mini else PAPER), **told})
        _check(found)
        return found


PAPER: Mapping[str, Any] = {
    "base_steps": 3000,
    "base_rate": 1e-4,
    "base_batch": 4,
    "shown": 0.0,
    "descent_rate": 1e-2,
    "predictor_steps": 3000,
    "predictor_rate": 5e-4,
    "predictor_batch": 4,
    "pool": 0,
    "noise": 0.0,
    "feature": "end",
    "update_rank": 16,
    "trunk": 0,
    "start": 1e-3,
    "rival_steps": 3000,
    "rival_rate": 5e-4,
    "prompt_steps": 3000,
    "prompt_rate": 1e-3,
    "micro": 1,
}
MINI: Mapping[str, Any] = {
    "base_steps": 1500,
    "base_rate": 6e-3,
    "base_batch": 16,
    "shown": 0.4,
    "descent_rate": 0.05,
    "predictor_steps": 1000,
    "predictor_rate": 1e-3,
    "predictor_batch": 32,
    "pool": 600,
    "noise": 0.05,
    "feature": "both",
    "update_rank": 2,
    "trunk": 0,
    "start": 0.1,
    "rival_steps": 300,
    "rival_rate": 1e-3,
    "prompt_steps": 400,
    "prompt_rate": 3e-2,
    "micro": 60,
}


@dataclass(frozen=True)
class Filled(Settings):
    """Settings of which none is None."""

    base_steps: int = 0
    base_rate: float = 0.0
    base_batch: int = 0
    shown: float = 0.0
    descent_rate: float = 0.0
    predictor_steps: int = 0
    predictor_rate: float = 0.0
    predictor_batch: int = 0
    pool: int = 0
    noise: float = 0.0
    feature: Feature = "end"
    update_rank: int = 0
    trunk: int = 0
    start: float = 0.0
    rival_steps: int = 0
    rival_rate: float = 0.0
    prompt_steps: int = 0
    prompt_rate: float = 0.0
    micro: int = 0

    @property
    def world(self) -> str:
        """The generated world that the model is of; empty: none."""
        return str(about(base_folder(model_folder(self.model))).get("world", ""))

    @property
    def shape(self) -> Shape:
        """What predictors are made of."""
        return Shape(self.feature, self.update_rank, self.hidden, self.code, self.trunk, self.start)

    @property
    def descents(self) -> tuple[int, ...]:
        """The numbers of steps of descent, each once."""
        found = tuple(int(each) for each in self.steps_of_descent.split(",") if each.isdecimal())
        if not found or min(found) < 1 or len(set(found)) != self.steps_of_descent.count(",") + 1:
            raise HarnessError(
                f"raggd:steps_of_descent={self.steps_of_descent} is wrong.",
                "Give a number of 1 or more, or different ones with commas, such as 1,5,10.",
            )
        return found


def _check(s: Filled) -> None:
    """`HarnessError` for a setting with which nothing could be learned."""
    least = {"lora": 1, "base_batch": 1, "shots": 1, "predictor_batch": 1, "micro": 1}
    least |= {"update_rank": 1, "hidden": 1, "code": 1, "prompt_tokens": 1}
    least |= {
        "base_steps": 0,
        "predictor_steps": 1,
        "rival_steps": 1,
        "prompt_steps": 1,
        "pool": 0,
        "trunk": 0,
    }
    check_least("raggd", asdict(s), least | {"decay": 0, "noise": 0, "norm_weight": 0})
    rates = ("base_rate", "descent_rate", "predictor_rate", "rival_rate", "prompt_rate", "start")
    for name in rates:
        if not 0 < getattr(s, name) < inf:
            raise HarnessError(f"raggd:{name}={getattr(s, name)} is wrong.", "Give one above 0.")
    if not 0 <= s.shown < 1:
        raise HarnessError(f"raggd:shown={s.shown} is wrong.", "Give a share, 0 or more, below 1.")
    folder = model_folder(s.model)
    if s.base_steps == 0 and base_folder(folder) == folder:
        raise HarnessError(
            "raggd:base_steps=0 leaves the base adapter with B = 0, where A has no gradient.",
            "Give 50 or more, or a model that is such an adapter.",
        )
    _ = s.descents
    checked_device(s.device)

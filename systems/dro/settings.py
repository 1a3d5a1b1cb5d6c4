"""What a training of DRO can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

from harness.data import HarnessError
from systems.dro.em import Norm
from systems.models.hub import about, base_folder, check_least, checked_device, model_folder
from systems.models.words import has_open_words


@dataclass(frozen=True)
class Settings:
    """What a training can be told; what is None is as in the paper, or as suits the mini models
    (`PAPER`, `MINI`).

    selector, generator: the models to begin with: shipped, on the hub or a folder
    keep:        passages of a list (K)
    samples:     lists a question (m)
    iterations:  of EM, at most
    questions:   of each iteration, another part of all in each; 0: all
    temperature, top_p: of drawing lists
    norm:        the likelihood in the weights: its mean over tokens, its sum, or none at all (a
                 control: all lists weigh alike)
    aliases:     the answer that counts: the first, or the likeliest of those accepted
    selector_warm_up, generator_warm_up: steps of supervised training before: the selector on
                 the candidates that hold the support, then those ranked best; the generator behind
                 random lists, half of which hold the support
    selector_rate, generator_rate, decay: of AdamW
    selector_epochs, generator_epochs: of each M-step
    batch:       questions a step; micro: at once, as memory allows
    lora:        rank; 0: all weights
    without:     which of the two is not trained by EM
    dev:         questions of the train split that are kept apart
    patience:    iterations without a better F1 on them after which it stops; 0: never
    shown:       of them, whose lists and weights are noted after each iteration
    max_new_tokens: of an answer on them
    device, dtype: bfloat16 on CUDA computes in it, with weights in float32
    """

    selector: str = "mini-selector"
    generator: str = "mini-llama"
    keep: int | None = None
    samples: int = 8
    iterations: int = 5
    questions: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    norm: Norm | None = None
    aliases: Literal["first", "best"] = "first"
    selector_warm_up: int = 0
    generator_warm_up: int | None = None
    selector_rate: float | None = None
    generator_rate: float | None = None
    decay: float = 0.01
    selector_epochs: int | None = None
    generator_epochs: int = 1
    batch: int | None = None
    micro: int | None = None
    lora: int | None = None
    without: Literal["none", "selector", "generator"] = "none"
    dev: int = 100
    patience: int = 1
    shown: int = 2
    max_new_tokens: int = 16
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def checked(self) -> Filled:
        """With what is None filled in; `HarnessError` for what is wrong."""
        folders = [base_folder(model_folder(each)) for each in (self.selector, self.generator)]
        told = {key: each for key, each in asdict(self).items() if each is not None}
        preset = MINI if has_open_words(folders[0]) else PAPER
        found = Filled(**{**preset, **told})
        _check(found)
        return found


PAPER: Mapping[str, Any] = {
    "keep": 5,
    "temperature": 0.7,
    "top_p": 0.95,
    "norm": "mean",
    "lora": 0,
    "questions": 0,
    "generator_warm_up": 0,
    "selector_rate": 1e-5,
    "generator_rate": 1e-5,
    "selector_epochs": 1,
    "batch": 128,
    "micro": 1,
}
MINI: Mapping[str, Any] = {
    "keep": 2,
    "temperature": 1.0,
    "top_p": 1.0,
    "norm": "sum",
    "lora": 16,
    "questions": 400,
    "generator_warm_up": 40,
    "selector_rate": 1.5e-3,
    "generator_rate": 1e-3,
    "selector_epochs": 2,
    "batch": 16,
    "micro": 16,
}


@dataclass(frozen=True)
class Filled(Settings):
    """Settings of which none is None."""

    keep: int = 0
    questions: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    generator_warm_up: int = 0
    selector_rate: float = 0.0
    generator_rate: float = 0.0
    selector_epochs: int = 0
    norm: Norm = "mean"
    lora: int = 0
    batch: int = 0
    micro: int = 0

    @property
    def world(self) -> str:
        """The generated world that both models are of; empty: none."""
        return _world(self)


def _world(s: Settings) -> str:
    folders = (base_folder(model_folder(each)) for each in (s.selector, s.generator))
    worlds = {str(about(each).get("world", "")) for each in folders}
    if len(worlds) > 1:
        raise HarnessError(
            f"{s.selector} and {s.generator} are not of one world.",
            "Take two mini models, or two that are none.",
        )
    return worlds.pop()


def _check(s: Filled) -> None:
    """`HarnessError` for a setting with which nothing could be learned."""
    least = {"keep": 1, "samples": 1, "batch": 1, "micro": 1, "max_new_tokens": 1, "dev": 0}
    least |= {"iterations": 0, "questions": 0, "patience": 0, "shown": 0, "lora": 0, "decay": 0}
    least |= {"selector_warm_up": 0, "generator_warm_up": 0}
    least |= {"selector_epochs": 1, "generator_epochs": 1}
    check_least("dro", asdict(s), least)
    for name in ("selector_rate", "generator_rate"):
        if not 0 < getattr(s, name) < inf:
            raise HarnessError(f"dro:{name}={getattr(s, name)} is wrong.", "Give one above 0.")
    if not 0 < s.top_p <= 1 or not 0 < s.temperature < inf:
        raise HarnessError(
            f"dro: temperature={s.temperature}, top_p={s.top_p} draws nothing.",
            "Give a temperature above 0 and a top_p of 0 to 1.",
        )
    checked_device(s.device)
    _world(s)

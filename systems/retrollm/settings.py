"""What a training of RetroLLM can be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

from harness.data import HarnessError
from systems.models.hub import about, base_folder, check_least, checked_device, model_folder
from systems.models.words import has_open_words

Layers = Literal["attention", "all"]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Settings:
    """What a training can be told; what is None is as in the paper, or as suits the mini models.

    model:         to begin with: shipped, on the hub or a folder
    explanations:  a file with clues and evidence of the questions, where the task has none: rows
                   ``{"question": …, "clues": […], "evidence": […]}``, with "bridges" if there are
    scorer:        the cross-encoder that ranks the sentences that could be evidence
    evidences:     sentences kept of them (k_e); of questions in several steps twice as many
    without_clues: share of the sequences whose clues are empty, so that this is nothing new
    again:         whether clues are written again behind an evidence that names a bridge
    masked:        share of an evidence's tokens, in its middle, that is left out of the loss
    answer_weight: what a token of the answer counts (γ)
    epochs:        over all questions
    rate, decay:   of AdamW
    batch:         questions a step; micro: at once, as memory allows
    lora, alpha:   rank and scale; rank 0: all weights
    layers:        that LoRA is put on: those of ``attention``, or ``all`` linear ones
    device, dtype: bfloat16 on CUDA computes in it, with weights in float32
    """

    model: str = "mini-llama"
    explanations: str = ""
    scorer: str = "mini-cross-encoder"
    evidences: int = 5
    without_clues: float | None = None
    again: bool = False
    masked: float | None = None
    answer_weight: float = 2.0
    epochs: int | None = None
    rate: float | None = None
    decay: float = 0.01
    batch: int | None = None
    micro: int | None = None
    lora: int | None = None
    alpha: int | None = None
    layers: Layers | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def checked(self) -> Filled:
        """With what is None filled in; `HarnessError` for what is wrong."""
        mini = has_open_words(base_folder(model_folder(self.model)))
        told = {key: each for key, each in asdict(self).items() if each is not None}
        found = replace(MINI if mini else PAPER, **told)
        if about(model_folder(self.scorer)).get("world", "") != found.world:
            raise HarnessError(
                f"{self.model} and the scorer {self.scorer} are not of one world.",
                "Name another one: --scorer BAAI/bge-reranker-base.",
            )
        _check(found)
        return found


@dataclass(frozen=True)
class Filled(Settings):
    """Settings of which none is None: those of the paper, where it states them. (It does not state
    learning rate, batch and the layers of LoRA.)"""

    without_clues: float = 0.0
    masked: float = 0.8
    epochs: int = 3
    rate: float = 1e-4
    batch: int = 64
    micro: int = 1
    lora: int = 16
    alpha: int = 64
    layers: Layers = "attention"

    @property
    def explains(self) -> bool:
        """Whether they say how questions are answered."""
        return bool(self.explanations)

    @property
    def world(self) -> str:
        """The generated world that the model is of; empty: none."""
        return str(about(base_folder(model_folder(self.model))).get("world", ""))


PAPER = Filled()
MINI = Filled(
    without_clues=0.1, masked=0.0, epochs=15, rate=2e-3, batch=64, micro=64, alpha=32, layers="all"
)


def _check(s: Filled) -> None:
    """`HarnessError` for a setting with which nothing could be learned."""
    least = {"evidences": 1, "epochs": 1, "batch": 1, "micro": 1, "lora": 0, "decay": 0}
    check_least("retrollm", asdict(s), {**least, "alpha": 1})
    for name in ("without_clues", "masked"):
        if not 0 <= getattr(s, name) <= 1:
            raise HarnessError(f"retrollm:{name}={getattr(s, name)} is wrong.", "Give 0 to 1.")
    for name in ("rate", "answer_weight"):
        if not 0 < getattr(s, name) < inf:
            raise HarnessError(f"retrollm:{name}={getattr(s, name)} is wrong.", "Give one above 0.")
    if s.explanations and not Path(s.explanations).expanduser().is_file():
        raise HarnessError(f"{s.explanations} does not exist.", "Check the path.")
    checked_device(s.device)

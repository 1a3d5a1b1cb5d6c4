"""Prompt tuning: vectors that stand before every prompt, trained in place of an adapter (Lester et
al. 2021, arXiv 2104.08691)."""

# mypy: allow-subclassing-any
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.data import HarnessError
from systems.models.backends import Read, Stepwise
from systems.models.hub import writing


class SoftPrompt(nn.Module):
    """Vectors (n, d) that a model reads before anything else."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    @classmethod
    def drawn(cls, lm: Stepwise, count: int) -> SoftPrompt:
        """It begins as embeddings of random words of the model."""
        known = lm.vocabulary.known.detach()
        return cls(known[torch.randint(len(known), (count,), device=known.device)].float().clone())

    def read(self, lm: Stepwise, rows: int) -> Read:
        """What a model has read of it, for so many rows."""
        known = lm.vocabulary.known
        vectors = self.vectors.to(known.device, known.dtype).expand(rows, -1, -1)
        found: Read = lm.network(vectors, None, None, True)[1]
        return found

    def save(self, file: Path, notes: Mapping[str, object], precision: torch.dtype) -> None:
        """Write it, with notes, to a file."""
        with writing(file):
            save_file(
                {"vectors": self.vectors.detach().to(precision).contiguous()},
                file,
                {"format": "pt", "about": json.dumps(dict(notes))},
            )


class Begun:
    """A soft prompt as what prompts start from."""

    def __init__(self, soft: SoftPrompt, lm: Stepwise) -> None:
        self.soft, self.lm = soft, lm

    def rows(self, places: Sequence[int]) -> Read:
        """For some prompts; a `Read` is spent when it is used, so each is made anew."""
        return self.soft.read(self.lm, len(places))


def load_soft(file: Path) -> SoftPrompt:
    """What `SoftPrompt.save` wrote."""
    try:
        with safe_open(file, "pt") as found:
            made = SoftPrompt(found.get_tensor("vectors").float())
    except (OSError, RuntimeError, SafetensorError) as error:
        raise HarnessError(
            f"{file} is no soft prompt that can be read ({error}).",
            "Make one with `python -m harness train raggd --rivals all --out DIR`.",
        ) from error
    made.vectors.requires_grad_(False)
    return made

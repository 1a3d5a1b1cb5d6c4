"""The predictor g of RAG-GD: from encoded demonstrations to the update that gradient descent on
them would have made (arXiv 2605.26356, section 5, Eq. 9).

    h̄ = mean over demonstrations;  z = MLP(h̄);  U, V of each projection from z;  Δ̃ = U Vᵀ

What it does not do: read the demonstrations (`Interface.features`), see an answer's loss.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu

from harness.data import HarnessError
from systems.models.hub import writing
from systems.raggd.interface import Factors, inner
from systems.raggd.settings import Shape

EPS = 1e-8
LEAST = 1e-4
"""Of a feature's deviation: one that never varies says nothing."""


class Distance(NamedTuple):
    """How far updates are from their targets, means over projections, (n,) each."""

    cosine: Tensor
    log_ratio: Tensor


class Predictor(nn.Module):
    """g: features (n, 2 d) of supports to `Factors` (n, o, r) and (n, r, i).

    shapes: by projection, (o, i)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], width: int, shape: Shape) -> None:
        super().__init__()
        self.shapes, self.width, self.shape = dict(shapes), width, shape
        read = {"end": width, "answer": width, "both": 2 * width, "none": 1}[shape.feature]
        self.register_buffer("mean", torch.zeros(read))
        self.register_buffer("deviation", torch.ones(read))
        self.first = nn.Linear(read, shape.hidden)
        self.second = nn.Linear(shape.hidden, shape.code)
        self.trunk = nn.Linear(shape.code, shape.trunk) if shape.trunk else nn.Identity()
        outs, ins = (sum(side) * shape.rank for side in zip(*shapes.values(), strict=True))
        self.left, self.right = (nn.Linear(shape.trunk or shape.code, n) for n in (outs, ins))
        for head in (self.left, self.right):
            nn.init.normal_(head.weight, std=shape.start)
            nn.init.normal_(head.bias, std=shape.start)

    def chosen(self, features: Tensor) -> Tensor:
        """The part of features (n, 2 d) that it reads."""
        match self.shape.feature:
            case "end":
                return features[:, : self.width]
            case "answer":
                return features[:, self.width :]
            case "both":
                return features
            case _:
                return features.new_zeros(len(features), 1)

    def scale_by(self, features: Tensor) -> None:
        """Take mean and deviation of features (n, 2 d), by which all are normalised."""
        read = self.chosen(features)
        self.mean.copy_(read.mean(dim=0))
        self.deviation.copy_(read.std(dim=0, correction=0).clamp(min=LEAST))

    def forward(self, features: Tensor, noise: float = 0.0) -> Factors:
        """``noise``: standard deviation of what is added to normalised features."""
        read = (self.chosen(features) - self.mean) / self.deviation
        if noise:
            read = read + noise * torch.randn_like(read)
        code = self.trunk(gelu(self.second(gelu(self.first(read)))))
        rank = self.shape.rank
        outs, ins = zip(*self.shapes.values(), strict=True)
        lefts = self.left(code).split([n * rank for n in outs], dim=1)
        rights = self.right(code).split([n * rank for n in ins], dim=1)
        return {
            name: (left.unflatten(1, (-1, rank)), right.unflatten(1, (rank, -1)))
            for name, left, right in zip(self.shapes, lefts, rights, strict=True)
        }

    def save(self, file: Path, notes: Mapping[str, object], precision: torch.dtype) -> None:
        """Write it, with notes, to a file; in bfloat16 but for mean and deviation, of which that
        would keep too few digits."""
        told = {"shape": asdict(self.shape), "width": self.width, "shapes": self.shapes, **notes}
        exact = ("mean", "deviation") if precision == torch.bfloat16 else ()
        weights = {
            name: each.to(torch.float32 if name in exact else precision).contiguous()
            for name, each in self.state_dict().items()
        }
        with writing(file):
            save_file(weights, file, {"format": "pt", "about": json.dumps(told)})


def load_predictor(file: Path, device: str) -> tuple[Predictor, dict[str, object]]:
    """What `Predictor.save` wrote, and its notes."""
    try:
        with safe_open(file, "pt") as found:
            told = json.loads(found.metadata()["about"])
            weights = {name: found.get_tensor(name).float() for name in found.keys()}  # noqa: SIM118
        shapes = {name: (int(o), int(i)) for name, (o, i) in told["shapes"].items()}
        made = Predictor(shapes, int(told["width"]), Shape(**told["shape"]))
        made.load_state_dict(weights)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise HarnessError(
            f"{file} is no predictor that can be read ({error}).",
            "Make one with `python -m harness train raggd --out DIR`.",
        ) from error
    return made.to(device).eval().requires_grad_(False), told


def distance(found: Factors, target: Factors) -> Distance:
    """The cosine of updates and their targets, and |log of the ratio of their norms|: Eq. 9 with
    the absolute value, without which the least loss would be that of no update at all."""
    cosines, ratios = [], []
    for name, pair in found.items():
        ours, theirs = (inner(each, each).clamp(min=EPS**2).sqrt() for each in (pair, target[name]))
        cosines.append(inner(pair, target[name]) / (ours * theirs).clamp(min=EPS**2))
        ratios.append((ours / theirs).log().abs())
    return Distance(torch.stack(cosines).mean(dim=0), torch.stack(ratios).mean(dim=0))

"""Weights of documents: h(α) = h₀ + Σ αᵢ hᵢ, learned from the question alone.

Symbols: n documents of a question, b questions, s numbers of the SSM states that are kept.

    h₀  (s,)  what the documents are added to
    hᵢ  (s,)  the state of document i
    αᵢ        its weight, one number for all layers and heads; free: of any sign, with any sum
    L         the mean negative log-likelihood of the question's tokens behind h(α)

    ∂L/∂αᵢ = ⟨∂L/∂h, hᵢ⟩         so that one backward pass scores all documents (section 3)
    αᵢ ← αᵢ - η ∂L/∂αᵢ           so that one step ranks as the gradient does, whatever η > 0
    η = c / (n maxᵢ |∂L/∂αᵢ|)    of the first gradient: the first step moves no weight by more
                                 than c/n, whatever the model's scale

What it does not do: other parametrisations of α (behind a softmax, one step ranks otherwise than
the gradient), other optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from harness.data import HarnessError

Loss = Callable[[Tensor, Sequence[int]], Tensor]
"""``loss(h, places) -> L``: of the questions at these places, (m,), from states (m, s)."""


class Pool(Protocol):
    """The states of a question's documents, of which there are ``len``."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some at a time: which they are, and (m, s) in float32 or better."""
        ...


@dataclass
class Learned:
    """What was learned for one question.

    weights:  (n,) in float64
    gradient: (n,) in float64, before the first step; zeros if there was none
    losses:   L before each step; where it would have risen, it ends there
    """

    weights: Tensor
    gradient: Tensor
    losses: list[float] = field(default_factory=list)


def uniform(n: int) -> Tensor:
    """1/n each, (n,): the mean of all states."""
    return torch.full((n,), 1 / n, dtype=torch.float64)


def by_scores(scores: Sequence[float]) -> Tensor:
    """A softmax of standardised scores, (n,): how BM25's scores become first weights."""
    found = torch.tensor(scores, dtype=torch.float64)
    found = found - found.mean()
    return (found / found.std(correction=0).clamp(min=1e-12)).softmax(0)


def add_mixed(point: Tensor, pool: Pool, weights: Tensor) -> None:
    """Add Σ αᵢ hᵢ to a point (s,), in place."""
    for here, rows in pool.blocks():
        point.addmv_(rows.mT, weights[here].to(rows))


def products(pool: Pool, slope: Tensor) -> Tensor:
    """∂L/∂αᵢ = ⟨slope, hᵢ⟩ of each document, (n,); `HarnessError` if one is no number."""
    found = torch.cat([rows @ slope for _, rows in pool.blocks()]).double().cpu()
    if not found.isfinite().all():
        raise HarnessError(
            "the gradient has entries that are no numbers.",
            "Use --dtype float32, or check the model's weights.",
        )
    return found


def descend(
    pools: Sequence[Pool],
    base: Tensor,
    weights: Sequence[Tensor],
    loss: Loss,
    steps: int,
    rate: float,
) -> list[Learned]:
    """Gradient descent on the weights of each question's documents, all questions at once.

    A step that turns out to have raised a question's loss is taken back, and its descent ends.
    (The last one is not looked at, which would cost another forward pass.)

    base:    h₀ of each question, (b, s)
    weights: of each question to begin with, (n,)
    steps:   0 leaves them as they are
    rate:    c
    """
    found = [Learned(each.double(), torch.zeros(len(each)).double()) for each in weights]
    before, eta = [each.weights for each in found], [0.0] * len(found)
    going = list(range(len(found)))
    for _ in range(steps):
        point = base[going]
        for row, place in zip(point, going, strict=True):
            add_mixed(row, pools[place], found[place].weights)
        losses, slopes = slope(loss, point, going)
        still = []
        for place, now, direction in zip(going, losses, slopes, strict=True):
            mine = found[place]
            if mine.losses and now > mine.losses[-1]:
                mine.weights = before[place]
                continue
            gradient = products(pools[place], direction)
            if not mine.losses:
                mine.gradient = gradient
                eta[place] = rate / (len(gradient) * float(gradient.abs().max()) or 1.0)
            mine.losses.append(now)
            before[place] = mine.weights
            mine.weights = mine.weights - eta[place] * gradient
            still.append(place)
        going = still
        if not going:
            break
    return found


def slope(loss: Loss, point: Tensor, places: Sequence[int]) -> tuple[list[float], Tensor]:
    """L of some questions at states (m, s), and ∂L/∂h there, (m, s)."""
    with torch.enable_grad():
        point.requires_grad_()
        losses = loss(point, places)
        (found,) = torch.autograd.grad(losses.sum(), point)
    return losses.detach().tolist(), found

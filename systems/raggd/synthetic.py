"""Random regression tasks with retrieved documents, on which one step of gradient descent and a
layer that was trained are compared (arXiv 2605.26356, section 4.1 and appendix C.1).

A task is N examples and a query. Its inputs z = (x1, x2) and targets y = w z + W2 x, scalar:

    projection  x1 = x ~ U(−1, 1); x2 = the mean of k documents ~ U(−½, ½), each example its own;
                w ~ N(0, I) on both parts; descent starts from W1 = W2 = 0
    dot         x1 = x2 = x; k documents d ~ U(−½, ½) of the task; w ~ N(0, I) on x1, 0 on x2;
                W2 = Wz (Σ d dᵀ) Mᵀ, from which descent starts (`Reader`)

Layers see the documents of the dot-product interface as further keys and values, one token
(0, M d, Wz d) each, mapped by no matrix: attention of weight 1 to them adds W2 x. A layer's change
of a query is linear in the query, so that every method is, task by task, one row of weights
(b, d) with ŷ = weights · z; they are also the sensitivities ∂ŷ/∂z.

What the text at hand does not say, and what was chosen: how k documents become one feature (their
mean, as a mean of encodings); whether targets hang on documents (yes, or nothing is to be had from
them; ``useful=False``: no); σ of Wz and M (1/√inputs, a usual start of a linear map); f of the
documents' token; what the shift α scales (x at test time, not the documents).

b tasks, d = 2 · inputs numbers of z, t = d + 1 numbers of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from systems.raggd.linear import Layer

Array = npt.NDArray[Any]
RATES = np.arange(0.1, 4, 0.1)
"""Where the line search looks first."""


class Setting(NamedTuple):
    """What tasks are drawn from."""

    interface: Literal["projection", "dot"] = "projection"
    documents: int = 10
    useful: bool = True
    examples: int = 10
    inputs: int = 10


class Reader(NamedTuple):
    """How documents are read in the dot-product interface: Wz (1, inputs), M (inputs, inputs)."""

    wz: Array
    metric: Array


class Tasks(NamedTuple):
    """Inputs (b, N + 1, d) and targets (b, N + 1), the query last; the weights (b, d) that descent
    starts from; documents as tokens (b, k, t), no one (k = 0) for a projection."""

    inputs: Array
    targets: Array
    start: Array
    documents: Array

    def context(self) -> Array:
        """Tokens (b, N, t) of the examples."""
        seen: Array = np.concatenate([self.inputs, self.targets[..., None]], 2)[:, :-1]
        return seen

    def query(self) -> Array:
        """Tokens (b, 1, t) of the queries, whose y is 0."""
        asked: Array = np.pad(self.inputs[:, -1:], ((0, 0), (0, 0), (0, 1)))
        return asked


def reader(setting: Setting, rng: np.random.Generator) -> Reader:
    """Of normal numbers of variance 1 / inputs."""
    size, sigma = setting.inputs, setting.inputs**-0.5
    return Reader(rng.normal(0, sigma, (1, size)), rng.normal(0, sigma, (size, size)))


def draw(
    setting: Setting, read: Reader, rng: np.random.Generator, tasks: int, shift: float = 1.0
) -> Tasks:
    """Fresh tasks; ``shift`` scales x."""
    size, shape = setting.inputs, (tasks, setting.examples + 1, setting.inputs)
    x = shift * rng.uniform(-1, 1, shape)
    if setting.interface == "projection":
        feature = np.zeros(shape)
        for _ in range(setting.documents):
            feature += rng.uniform(-0.5, 0.5, shape) / setting.documents
        w = rng.normal(size=(tasks, 1, 2 * size))
        w[..., size:] *= setting.useful
        z = np.concatenate([x, feature], 2)
        start, tokens = np.zeros((tasks, 2 * size)), np.zeros((tasks, 0, 2 * size + 1))
        return Tasks(z, (w * z).sum(2), start, tokens)
    found = rng.uniform(-0.5, 0.5, (tasks, setting.documents, size))
    tokens = np.concatenate([np.zeros_like(found), found @ read.metric.T, found @ read.wz.T], 2)
    w1 = rng.normal(size=(tasks, 1, size))
    w2 = tokens[..., -1:].mT @ tokens[..., size:-1]  # as `dotted`, (tasks, 1, size)
    start = np.concatenate([np.zeros((tasks, size)), w2[:, 0]], 1)
    return Tasks(np.concatenate([x, x], 2), ((w1 + setting.useful * w2) * x).sum(2), start, tokens)


def said(weights: Array, inputs: Array) -> Array:
    """Predictions (b,) of weights (b, d) at inputs (b, d)."""
    found: Array = np.einsum("bd,bd->b", weights, inputs)
    return found


def descended(tasks: Tasks, rates: float | Sequence[float], steps: int = 1) -> Array:
    """Weights (b, d) after steps of gradient descent on the examples, of one rate or of one each;
    `systems.raggd.linear.descended` for many tasks."""
    seen, weights = tasks.inputs[:, :-1], tasks.start
    for rate in np.broadcast_to(np.asarray(rates), (steps,)):
        wrong = np.einsum("bnd,bd->bn", seen, weights) - tasks.targets[:, :-1]
        weights = weights - rate / seen.shape[1] * np.einsum("bn,bnd->bd", wrong, seen)
    return weights


def solved(tasks: Tasks) -> Array:
    """Weights (b, d) where descent ends: of least squares, the nearest to the start."""
    seen = tasks.inputs[:, :-1]
    wrong = tasks.targets[:, :-1] - np.einsum("bnd,bd->bn", seen, tasks.start)
    found: Array = tasks.start + np.einsum("bdn,bn->bd", np.linalg.pinv(seen), wrong)
    return found


def loss(weights: Array, tasks: Tasks, of: Any = np.mean) -> float:
    """The mean squared error at queries over the mean squared target (1: ŷ = 0), or medians."""
    y = tasks.targets[:, -1]
    return float(of((said(weights, tasks.inputs[:, -1]) - y) ** 2) / of(y**2))


def line_search(tasks: Tasks, steps: int = 1) -> float:
    """The one rate η, for all steps, of the smallest loss at the queries: to a thousandth."""
    rates, apart = RATES, RATES[0]
    while apart > 1e-4:
        best = min(rates, key=lambda rate: loss(descended(tasks, rate, steps), tasks))
        rates, apart = best + apart * np.linspace(-0.9, 0.9, 19), apart / 10
    return float(best)


def attend(layer: Layer, tokens: Any, seen: Any, documents: Any) -> Any:
    """`Layer` for tasks, arrays or tensors: tokens (b, n, t) look at a context (b, N, t) and at
    documents (b, k, t), whose keys and values are what they are."""
    asked = tokens @ layer.query.mT
    found = asked @ layer.key @ seen.mT @ seen @ layer.value.mT + asked @ documents.mT @ documents
    return tokens + found @ layer.output.mT


def answered(layers: Sequence[Layer], asked: Any, seen: Any, documents: Any) -> Any:
    """ŷ (b, n) of layers stacked: what they took away from the y of queries (b, n, t)."""
    for layer in layers[:-1]:
        before = seen
        seen = attend(layer, before, before, documents)
        asked = attend(layer, asked, before, documents)
    return -attend(layers[-1], asked, seen, documents)[..., -1]


def weights_of(layers: Sequence[Layer], tasks: Tasks) -> Array:
    """What layers make of a task, as weights (b, d): ŷ at each unit vector."""
    size = tasks.inputs.shape[2]
    units = np.broadcast_to(np.eye(size, size + 1), (len(tasks.inputs), size, size + 1))
    found: Array = answered(layers, units, tasks.context(), tasks.documents)
    return found


def sensitivity(setting: Setting, weights: Array) -> Array:
    """∂ŷ/∂x (b, inputs): that of x1, and of x2 too where x is both."""
    first, second = weights[:, : setting.inputs], weights[:, setting.inputs :]
    return first + second if setting.interface == "dot" else first


def compared(setting: Setting, tasks: Tasks, one: Array, other: Array) -> dict[str, float]:
    """Of the weights (b, d) of two methods, means over tasks: |ŷ − ŷ'| and its share of the mean
    |ŷ'|; cosine and ℓ2 distance of ∂ŷ/∂x and the share of ‖∂ŷ'/∂x‖; cosine of ∂ŷ/∂z."""
    asked = tasks.inputs[:, -1]
    apart = np.abs(said(one - other, asked)).mean()
    here, there = sensitivity(setting, one), sensitivity(setting, other)
    away = np.linalg.norm(here - there, axis=1).mean()
    return {
        "difference": float(apart),
        "relative_difference": float(apart / np.abs(said(other, asked)).mean()),
        "cosine": cosine(here, there),
        "distance": float(away),
        "relative_distance": float(away / np.linalg.norm(there, axis=1).mean()),
        "cosine_all": cosine(one, other),
    }


def cosine(one: Array, other: Array) -> float:
    """The mean over rows (b, d)."""
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(1) / np.maximum(sizes, 1e-30)))

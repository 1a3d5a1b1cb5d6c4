"""The linear theory of RAG-GD: one layer of linear self-attention makes the step that gradient
descent on the context would make (arXiv 2605.26356, section 3, Lemma 1).

A retrieval-augmented predictor is ŷ = W1 x1 + W2 x2 in both interfaces (`projected`, `dotted`).
Over a context of N examples its loss is L = 1/(2N) Σ |W1 x1 + W2 x2 − y|², and a step of rate η

    ΔWk = −η/N Σ (W1 x1 + W2 x2 − y) xkᵀ

which shifts the prediction at a query by ΔW1 x1 + ΔW2 x2. Tokens are rows (x1, x2, y); a layer with

    WK = WQ = diag(I, I, 0)     WV: zero but for the rows of y, (W1, W2, −I)     P = ∓η/N on y

adds that shift to the y of each token (`sign=1`, as the paper has it), or takes it away (−1). The
latter leaves the residual that a further step needs, so that equal layers stacked are as many
steps, exactly; of the former only the first layer is a step.

n tokens, p outputs, k1 and k2 inputs of the two parts; all in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Predictor(NamedTuple):
    """ŷ = W1 x1 + W2 x2: (p, k1) and (p, k2)."""

    w1: Array
    w2: Array

    def __call__(self, x1: Array, x2: Array) -> Array:
        """Predictions (n, p) at inputs (n, k1) and (n, k2)."""
        found: Array = x1 @ self.w1.T + x2 @ self.w2.T
        return found


class Context(NamedTuple):
    """Examples: inputs (n, k1) and (n, k2), and what is right (n, p)."""

    x1: Array
    x2: Array
    y: Array


def projected(w1: Array, wd: Array) -> Predictor:
    """Documents are read by a projection of the question's weights: W2 = W1 Wd (k1, k2); x1 is the
    question, x2 the feature of its documents."""
    return Predictor(w1, w1 @ wd)


def dotted(w1: Array, wz: Array, documents: Array, metric: Array) -> Predictor:
    """Documents (m, k) are read by their products with the question: W2 = Wz (Σ d dᵀ) Mᵀ; x1 and x2
    are both the question. M is WqᵀWd of a dense retriever; symmetric if it has one encoder."""
    return Predictor(w1, wz @ (documents.T @ documents) @ metric.T)


def step(predictor: Predictor, context: Context, rate: float) -> Predictor:
    """The update (ΔW1, ΔW2) of one step of gradient descent."""
    wrong = predictor(context.x1, context.x2) - context.y
    scale = -rate / len(wrong)
    return Predictor(scale * wrong.T @ context.x1, scale * wrong.T @ context.x2)


def descended(predictor: Predictor, context: Context, rate: float, steps: int) -> Predictor:
    """The predictor after some steps."""
    for _ in range(steps):
        update = step(predictor, context, rate)
        predictor = Predictor(predictor.w1 + update.w1, predictor.w2 + update.w2)
    return predictor


class Layer(NamedTuple):
    """A layer of linear self-attention, e ← e + P V Kᵀ q: (t, t) for tokens of t numbers."""

    query: Array
    key: Array
    value: Array
    output: Array

    def __call__(self, tokens: Array, context: int) -> Array:
        """Tokens (n, t), of which the first ``context`` are looked at."""
        seen = tokens[:context]
        products = (tokens @ self.query.T) @ (seen @ self.key.T).T  # (n, context)
        found: Array = tokens + products @ (seen @ self.value.T) @ self.output.T
        return found


def constructed(predictor: Predictor, rate: float, context: int, sign: int = 1) -> Layer:
    """The layer of Lemma 1 for a context of so many examples."""
    outputs, inputs = len(predictor.w1), predictor.w1.shape[1] + predictor.w2.shape[1]
    same = np.diag(np.r_[np.ones(inputs), np.zeros(outputs)])
    value = np.zeros((inputs + outputs, inputs + outputs))
    value[inputs:] = np.hstack([predictor.w1, predictor.w2, -np.eye(outputs)])
    only = np.diag(np.r_[np.zeros(inputs), np.ones(outputs)])
    return Layer(same, same, value, -sign * rate / context * only)


def tokens_of(context: Context, x1: Array, x2: Array) -> Array:
    """A context and queries (n, k1), (n, k2), whose y is 0, as tokens."""
    asked = np.hstack([x1, x2, np.zeros((len(x1), context.y.shape[1]))])
    return np.vstack([np.hstack(context), asked])


def shifted(
    predictor: Predictor, context: Context, x1: Array, x2: Array, rate: float, layers: int = 1
) -> Array:
    """What some layers shift the predictions at queries by, (n, p): as much as so many steps of
    gradient descent, without a gradient."""
    tokens, size = tokens_of(context, x1, x2), len(context.y)
    layer = constructed(predictor, rate, size, -1)
    for _ in range(layers):
        tokens = layer(tokens, size)
    found: Array = -tokens[size:, -context.y.shape[1] :]
    return found

"""RAG-GD: the linear theory."""

from __future__ import annotations

import numpy as np
import pytest

from systems.raggd.linear import (
    Context,
    Predictor,
    constructed,
    descended,
    dotted,
    projected,
    shifted,
    step,
    tokens_of,
)

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def projection(outputs: int) -> tuple[Predictor, Context, np.ndarray, np.ndarray]:
    predictor = projected(draw(outputs, 6), draw(6, 4))
    context = Context(draw(10, 6), draw(10, 4), draw(10, outputs))
    return predictor, context, draw(3, 6), draw(3, 4)


def products(outputs: int) -> tuple[Predictor, Context, np.ndarray, np.ndarray]:
    predictor = dotted(draw(outputs, 5), draw(outputs, 5), draw(7, 5), draw(5, 5))
    x, asked = draw(10, 5), draw(3, 5)
    return predictor, Context(x, x, draw(10, outputs)), asked, asked


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("interface", [projection, products])
def test_a_step_is_that_of_the_loss(interface, outputs: int) -> None:
    """By central differences of L."""
    predictor, context, _, _ = interface(outputs)

    def loss(w1: np.ndarray, w2: np.ndarray) -> float:
        wrong = Predictor(w1, w2)(context.x1, context.x2) - context.y
        return float((wrong**2).sum() / (2 * len(wrong)))

    update = step(predictor, context, 0.3)
    for part, found in enumerate(update):
        for place in np.ndindex(found.shape):
            moved = [each.copy() for each in predictor]
            moved[part][place] += 1e-5
            up = loss(*moved)
            moved[part][place] -= 2e-5
            slope = (up - loss(*moved)) / 2e-5
            assert found[place] == pytest.approx(-0.3 * slope, abs=1e-8)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("interface", [projection, products])
def test_the_construction_makes_the_step(interface, outputs: int) -> None:
    predictor, context, x1, x2 = interface(outputs)
    update = step(predictor, context, 0.1)
    layer, size = constructed(predictor, 0.1, len(context.y)), len(context.y)
    before = tokens_of(context, x1, x2)
    after = layer(before, size)
    inputs = before.shape[1] - outputs
    assert np.array_equal(after[:, :inputs], before[:, :inputs])
    assert np.abs(after[size:, inputs:] - update(x1, x2)).max() < 1e-12
    shift = update(context.x1, context.x2)
    assert np.abs(after[:size, inputs:] - context.y - shift).max() < 1e-12


@pytest.mark.parametrize("layers", [1, 2, 5, 20])
@pytest.mark.parametrize("interface", [projection, products])
def test_stacked_layers_are_as_many_steps(interface, layers: int) -> None:
    predictor, context, x1, x2 = interface(2)
    rate = 1e-3  # of a longer one twenty steps run away, in both
    made = descended(predictor, context, rate, layers)
    expected = made(x1, x2) - predictor(x1, x2)
    assert np.abs(shifted(predictor, context, x1, x2, rate, layers) - expected).max() < 1e-12


def test_of_layers_with_the_papers_sign_only_the_first_is_a_step() -> None:
    predictor, context, x1, x2 = projection(1)
    layer, size = constructed(predictor, 0.05, len(context.y)), len(context.y)
    tokens = layer(layer(tokens_of(context, x1, x2), size), size)
    made = descended(predictor, context, 0.05, 2)
    assert np.abs(tokens[size:, -1:] - (made(x1, x2) - predictor(x1, x2))).max() > 1e-3

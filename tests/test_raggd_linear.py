"""RAG-GD: the random tasks, and layers that are trained on them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from systems.raggd import linear
from systems.raggd.linear import Context, Layer, Predictor, constructed, dotted, tokens_of
from systems.raggd.synthetic import (
    Reader,
    Setting,
    Tasks,
    answered,
    compared,
    descended,
    draw,
    line_search,
    loss,
    reader,
    said,
    sensitivity,
    solved,
    weights_of,
)

SETTINGS = [Setting(face, k, inputs=4) for face, k in product(("projection", "dot"), (2, 5))]


def drawn(setting: Setting, tasks: int = 3, shift: float = 1.0) -> tuple[Tasks, Reader]:
    read = reader(setting, np.random.default_rng(0))
    return draw(setting, read, np.random.default_rng(1), tasks, shift), read


def one(tasks: Tasks, task: int) -> tuple[Predictor, Context, tuple[np.ndarray, np.ndarray]]:
    """A task in the words of `systems.raggd.linear`."""
    size = tasks.inputs.shape[2] // 2
    start, z, y = tasks.start[task, None], tasks.inputs[task], tasks.targets[task, :, None]
    context = Context(z[:-1, :size], z[:-1, size:], y[:-1])
    return Predictor(start[:, :size], start[:, size:]), context, (z[-1:, :size], z[-1:, size:])


def random_layers(setting: Setting, depth: int) -> list[Layer]:
    rng, width = np.random.default_rng(2), 2 * setting.inputs + 1
    return [Layer(*0.3 * rng.normal(size=(4, width, width))) for _ in range(depth)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_tasks_are_drawn_from_what_the_paper_says(setting: Setting) -> None:
    tasks, read = drawn(setting, 4000)
    size, k = setting.inputs, setting.documents
    x, second = tasks.inputs[..., :size], tasks.inputs[..., size:]
    assert np.abs(x).max() <= 1 and x.var() == pytest.approx(1 / 3, rel=0.02)
    if setting.interface == "projection":
        assert second.var() == pytest.approx(1 / (12 * k), rel=0.02)
        assert np.mean(tasks.targets**2) == pytest.approx(size * (1 / 3 + 1 / (12 * k)), rel=0.1)
        assert not tasks.start.any() and not tasks.documents.size
    else:
        assert np.array_equal(x, second) and tasks.documents.shape == (4000, k, 2 * size + 1)
        own = tasks.targets - np.einsum("bnd,bd->bn", tasks.inputs, tasks.start)
        assert np.mean(own**2) == pytest.approx(size / 3, rel=0.1)
        key = np.linalg.solve(read.metric, tasks.documents[..., size:-1].reshape(-1, size).T).T
        assert np.abs(key).max() < 0.5 + 1e-9 and key.var() == pytest.approx(1 / 12, rel=0.02)
        theory = dotted(np.zeros((1, size)), read.wz, key[:k], read.metric)
        assert np.abs(np.hstack(theory) - tasks.start[0]).max() < 1e-9
    shifted, _ = drawn(setting, 4000, 2.0)
    assert np.array_equal(shifted.inputs[..., :size], 2 * x)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_descent_is_that_of_the_theory(setting: Setting, steps: int) -> None:
    tasks, _ = drawn(setting)
    found = descended(tasks, 0.3, steps)
    for task in range(3):
        predictor, context, _ = one(tasks, task)
        made = linear.descended(predictor, context, 0.3, steps)
        assert np.abs(found[task] - np.hstack(made)[0]).max() < 1e-12


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_layers_of_many_tasks_are_the_layer_of_one(setting: Setting, depth: int) -> None:
    """The constructed ones, and any other; documents are tokens that no matrix maps."""
    tasks, _ = drawn(setting)
    bare = tasks._replace(documents=tasks.documents[:, :0])
    for task in range(3):
        predictor, context, asked = one(tasks, task)
        made = [constructed(predictor, 0.3, len(context.y), -1)] * depth
        for layers in (made, random_layers(setting, depth)):
            tokens = tokens_of(context, *asked)
            for layer in layers:
                tokens = layer(tokens, len(context.y))
            found = answered(layers, bare.query(), bare.context(), bare.documents)
            assert found[task, 0] == pytest.approx(-tokens[-1, -1], rel=1e-9)
        moved = said(descended(tasks, 0.3, depth) - tasks.start, tasks.inputs[:, -1])[task]
        found = answered(made, bare.query(), bare.context(), bare.documents)
        assert found[task, 0] == pytest.approx(moved, rel=1e-9)


def test_attention_to_documents_is_the_first_prediction() -> None:
    setting = SETTINGS[-1]
    tasks, _ = drawn(setting)
    width = 2 * setting.inputs + 1
    same = np.diag(np.r_[np.ones(width - 1), 0])
    blind = Layer(same, 0 * same, np.eye(width), same - np.eye(width))
    assert np.abs(weights_of([blind], tasks) - tasks.start).max() < 1e-12


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_sensitivities_are_finite_differences(setting: Setting, depth: int) -> None:
    tasks, _ = drawn(setting)
    layers, size = random_layers(setting, depth), setting.inputs
    context, asked = tasks.context(), tasks.query()
    found = weights_of(layers, tasks)
    for place in range(size):
        moved = np.zeros(2 * size + 1)
        moved[place] = moved[place + size] = 1e-4
        if setting.interface == "projection":
            moved[place + size] = 0
        up, down = (
            answered(layers, asked + sign * moved, context, tasks.documents)[:, 0]
            for sign in (1, -1)
        )
        slope = (up - down) / 2e-4
        assert sensitivity(setting, found)[:, place] == pytest.approx(slope, rel=1e-6, abs=1e-6)
    predictions = answered(layers, asked, context, tasks.documents)[:, 0]
    assert said(found, tasks.inputs[:, -1]) == pytest.approx(predictions, rel=1e-9)


def test_tensors_answer_as_arrays() -> None:
    setting = SETTINGS[-1]
    tasks, _ = drawn(setting)
    layers = random_layers(setting, 2)
    arrays = (tasks.query(), tasks.context(), tasks.documents)
    tensors = [Layer(*map(torch.from_numpy, layer)) for layer in layers]
    found = answered(tensors, *map(torch.from_numpy, arrays))
    assert found.numpy() == pytest.approx(answered(layers, *arrays), rel=1e-9)


def test_the_line_search_finds_the_least_of_a_parabola() -> None:
    """At one step the loss is quadratic in η."""
    tasks, _ = drawn(SETTINGS[0], 500)
    y = tasks.targets[:, -1]
    moved = said(descended(tasks, 1.0), tasks.inputs[:, -1])
    assert line_search(tasks) == pytest.approx(moved @ y / (moved @ moved), abs=1e-3)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_agreement_can_fail(setting: Setting) -> None:
    """A method agrees with itself; a rate shows in differences; other labels, in the cosine."""
    tasks, _ = drawn(setting, 500)
    step = descended(tasks, 0.3)
    same = compared(setting, tasks, step, step)
    assert same["cosine"] == pytest.approx(1) and same["difference"] == same["distance"] == 0
    longer = compared(setting, tasks, descended(tasks, 0.6), step)
    assert longer["relative_difference"] > 0.1 and longer["relative_distance"] > 0.1
    other = tasks._replace(targets=np.roll(tasks.targets, 1, 0))
    assert compared(setting, tasks, descended(other, 0.3), step)["cosine"] < 0.7


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_descent_ends_where_least_squares_is(setting: Setting) -> None:
    tasks, _ = drawn(setting._replace(examples=3))
    ended = descended(tasks, 0.5, 4000)
    assert np.abs(ended - solved(tasks)).max() < 1e-3
    assert loss(tasks.start * 0, tasks) == 1

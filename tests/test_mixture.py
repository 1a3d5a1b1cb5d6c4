"""Learning the weights of documents: gradients, descent, and the bound on leaving one out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from test_mamba2 import TINY, drawn, made

from harness.data import HarnessError
from systems.models import mamba2
from systems.models.mamba2 import Mamba2Config
from systems.rico.mixture import (
    Learned,
    add_mixed,
    by_scores,
    descend,
    products,
    slope,
    uniform,
)
from systems.rico.states import Layout

DEEP = Mamba2Config(**{**TINY.__dict__, "layers": 3})


class Rows:
    """States at hand, in blocks of two."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Any]]:
        for start in range(0, len(self.rows), 2):
            here = slice(start, min(start + 2, len(self.rows)))
            yield here, self.rows[here]


def mixed(pool: Rows, weights: Any) -> Any:
    """Σ αᵢ hᵢ."""
    point = torch.zeros(pool.rows.shape[1]).double()
    add_mixed(point, pool, weights)
    return point


class Case(NamedTuple):
    """Questions of a model of three layers in float64: their pools, and their loss."""

    pools: list[Rows]
    loss: Callable[[Any, Sequence[int]], Any]


def case(sizes: Sequence[int] = (4, 1, 6), lengths: Sequence[int] = (5, 9, 3)) -> Case:
    model, layout = made(DEEP), Layout(DEEP, (0, 1, 2))
    draw = torch.Generator().manual_seed(5)
    pools = [
        Rows(layout.row(drawn(model, n, seed))[:, : layout.ssm]) for seed, n in enumerate(sizes)
    ]
    questions = [torch.randint(0, DEEP.vocab_size, (n,), generator=draw) for n in lengths]

    def loss(h: Any, places: Sequence[int]) -> Any:
        ids = torch.nn.utils.rnn.pad_sequence([questions[p] for p in places], batch_first=True)
        mask = (torch.arange(ids.shape[1]) < torch.tensor([[lengths[p]] for p in places])).double()
        conv = h.new_zeros(len(h), layout.size - layout.ssm)
        hidden, _ = model(model.embed(ids), mask, layout.state(h, conv), want_state=False)
        scores = model.logits(hidden)[:, :-1].log_softmax(-1)
        found = scores.gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
        return -found.sum(1) / mask[:, 1:].sum(1)

    return Case(pools, loss)


def learned(each: Case, steps: int, rate: float = 0.5, start: Any = None) -> list[Learned]:
    base = torch.zeros(len(each.pools), each.pools[0].rows.shape[1]).double()
    first = [uniform(len(pool)) for pool in each.pools] if start is None else start
    return descend(each.pools, base, first, each.loss, steps, rate)


def test_the_gradient_is_that_of_the_loss() -> None:
    """Against central differences, every weight by itself."""
    pools, loss = case()
    draw = torch.Generator().manual_seed(8)
    for place, pool in enumerate(pools):
        weights = torch.rand(len(pool), generator=draw, dtype=torch.float64)

        def at(changed: Any, pool: Any = pool, place: int = place) -> float:
            return float(loss(mixed(pool, changed)[None], [place]).detach())

        _, slopes = slope(loss, mixed(pool, weights)[None], [place])
        found = products(pool, slopes[0])
        for n in range(len(pool)):
            step = torch.zeros(len(pool)).double()
            step[n] = 1e-5
            expected = (at(weights + step) - at(weights - step)) / 2e-5
            assert abs(float(found[n]) - expected) < 1e-7
        assert found.abs().max() > 1e-4


def test_questions_together_are_questions_alone() -> None:
    together = case()
    found = learned(together, 7)
    for place, (pool, mine) in enumerate(zip(together.pools, found, strict=True)):
        alone = Case([pool], lambda h, _, place=place: together.loss(h, [place]))
        (single,) = learned(alone, 7)
        assert torch.allclose(mine.weights, single.weights, rtol=0, atol=1e-12)
        assert mine.losses == pytest.approx(single.losses, abs=1e-12)
        assert len(mine.losses) > 2


@pytest.mark.parametrize("eta", [1e-6, 1.0, 1e3])
def test_one_step_ranks_as_the_gradient(eta: float) -> None:
    (pool, *_), loss = case((9, 1, 1))
    (mine, *_) = learned(Case([pool], loss), 0)
    assert torch.equal(mine.weights, uniform(9)) and not mine.losses and not mine.gradient.any()
    (first,) = learned(Case([pool], loss), 1)
    scale = 9 * float(first.gradient.abs().max())
    (mine,) = learned(Case([pool], loss), 1, rate=eta * scale)
    assert torch.allclose(mine.weights, uniform(9) - eta * mine.gradient, rtol=1e-12, atol=0)
    assert torch.equal(mine.weights.argsort(), (-mine.gradient).argsort())
    assert len(set(mine.weights.tolist())) == 9


def test_the_first_step_moves_no_weight_by_more_than_its_share() -> None:
    pools, loss = case()
    for pool, mine in zip(pools, learned(Case(pools, loss), 1, rate=0.5), strict=True):
        moved = (mine.weights - 1 / len(pool)).abs().max()
        assert float(moved) == pytest.approx(0.5 / len(pool))


def test_the_loss_falls_and_a_step_that_raises_it_is_taken_back() -> None:
    pools, loss = case()
    for mine in learned(Case(pools, loss), 10):
        assert all(b <= a for a, b in pairwise(mine.losses))
    wild = learned(Case(pools, loss), 10, rate=1e4)
    assert any(len(mine.losses) < 10 for mine in wild)
    for place, (pool, mine) in enumerate(zip(pools, wild, strict=True)):
        assert all(b <= a for a, b in pairwise(mine.losses))
        if len(mine.losses) < 10:
            at = float(loss(mixed(pool, mine.weights)[None], [place]).detach())
            assert at == pytest.approx(mine.losses[-1], abs=1e-12)


def test_leaving_a_document_out_costs_no_more_than_its_product() -> None:
    """Proposition 3.1 where the loss is convex: one layer, read out by a linear map and a softmax.

    L(h) - L(h - αᵢhᵢ) ≤ αᵢ ⟨∇L(h), hᵢ⟩, for 10,000 drawn worlds.
    """
    draw = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    worlds, documents, size, words, length = 10_000, 4, 6, 7, 3
    states, weights = normal(worlds, documents, size), normal(worlds, documents)
    read, said = normal(worlds, length, words, size), normal(worlds, length, words)
    asked = torch.randint(0, words, (worlds, length, 1), generator=draw)

    def loss(h: Any, places: Sequence[int]) -> Any:
        where = list(places)
        scores = said[where] + torch.einsum("wlvs,ws->wlv", read[where], h)
        return -scores.log_softmax(-1).gather(-1, asked[where])[..., 0].mean(1)

    every = range(worlds)
    points = torch.stack([mixed(Rows(s), w) for s, w in zip(states, weights, strict=True)])
    _, slopes = slope(loss, points, every)
    losses = loss(points, every)
    scores = torch.stack([products(Rows(s), g) for s, g in zip(states, slopes, strict=True)])
    broken, tight = 0, 0.0
    for n in range(documents):
        without = loss(points - weights[:, n, None] * states[:, n], every)
        slack = weights[:, n] * scores[:, n] - (losses - without)
        broken += int((slack < -1e-12).sum())
        tight = max(tight, float((slack > 1e-3).double().mean()))
    assert broken == 0 and tight > 0.5


def test_an_empty_document_has_no_gradient_and_twins_have_the_same() -> None:
    (pool, *_), loss = case((5, 1, 1))
    rows = torch.cat([pool.rows, torch.zeros_like(pool.rows[:1]), pool.rows[:1]])
    (mine,) = learned(Case([Rows(rows)], loss), 1)
    assert float(mine.gradient[5]) == 0 and float(mine.gradient[0]) != 0
    assert float(mine.gradient[6]) == pytest.approx(float(mine.gradient[0]), rel=1e-12)


def test_what_is_no_number_is_an_error() -> None:
    (pool, *_), loss = case()
    pool.rows[0, 0] = torch.nan
    with pytest.raises(HarnessError, match="no numbers"):
        learned(Case([pool], loss), 1)


def test_first_weights_by_scores() -> None:
    found = by_scores([3.0, 1.0, 2.0])
    assert float(found.sum()) == pytest.approx(1) and found.argsort().tolist() == [1, 2, 0]
    assert torch.equal(found, by_scores([30.0, 10.0, 20.0]))
    assert by_scores([4.0, 4.0]).tolist() == [0.5, 0.5] and by_scores([4.0]).tolist() == [1.0]


def on_a_gpu() -> bool:
    """Whether the CUDA kernel of mamba_ssm can be used here."""
    return torch.cuda.is_available() and mamba2._kernel() is not None


@pytest.mark.skipif(
    not on_a_gpu(), reason="needs a CUDA GPU and mamba-ssm (pip install -e .[cuda])"
)
def test_the_kernel_gives_the_same_step(capsys: pytest.CaptureFixture[str]) -> None:
    """At the shape of mamba2-130m, ten documents, a question of 32 tokens."""
    torch.manual_seed(0)
    config = Mamba2Config(vocab_size=50_288, hidden_size=768, layers=24, tie=True)
    model = mamba2.Mamba2(config).cuda().eval().requires_grad_(False)
    layout = Layout(config, tuple(range(24)))
    pool = Rows(0.1 * torch.randn(10, layout.ssm, device="cuda"))
    ids = torch.randint(0, 50_000, (1, 32), device="cuda")

    def loss(h: Any, _: Sequence[int]) -> Any:
        conv = h.new_zeros(1, layout.size - layout.ssm)
        hidden, _end = model(model.embed(ids), None, layout.state(h, conv), want_state=False)
        scores = model.logits(hidden)[:, :-1].log_softmax(-1)
        return -scores.gather(-1, ids[:, 1:, None])[..., 0].mean(1)

    found, spent = [], []
    for kernel in (True, False):
        model.kernel = kernel
        for _ in range(3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            (mine,) = descend(
                [pool], torch.zeros(1, layout.ssm).cuda(), [uniform(10)], loss, 1, 0.5
            )
            torch.cuda.synchronize()
        spent.append(1000 * (time.perf_counter() - start))
        found.append(mine.gradient)
    with capsys.disabled():
        print(f"\na step on the GPU: {spent[0]:.1f} ms with the kernel, {spent[1]:.1f} ms without")
    scale = float(found[1].abs().max())
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-3 * scale)

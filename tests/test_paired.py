"""Paired differences: identities, exact p-values, coverage, and sabotage of the grouping."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from harness.score import paired as module
from harness.score.paired import draws_for, holm, paired, sign_flip

Floats = np.ndarray


def named(groups: Floats) -> list[str]:
    return [f"g{each}" for each in groups]


def skewed(seed: int, n: int, cluster: int) -> tuple[Floats, Floats, list[str]]:
    """EM of two systems whose wins and losses hang together within groups; true difference .09."""
    rng = np.random.default_rng([seed, n, cluster])
    groups = np.arange(n) // cluster
    count = groups[-1] + 1
    win, lose = np.full(count, 0.14), np.full(count, 0.05)
    if cluster > 1:  # intraclass correlation about .24
        win = rng.beta(0.14 * 3.2, 0.86 * 3.2, count)
        share = 0.05 / 0.86
        lose = (1 - win) * rng.beta(share * 3.2, (1 - share) * 3.2, count)
    drawn, base = rng.random(n), rng.random(n) < 0.5
    won, lost = drawn < win[groups], (drawn >= win[groups]) & (drawn < (win + lose)[groups])
    base = np.where(won, False, np.where(lost, True, base))
    new = np.where(won, True, np.where(lost, False, base))
    return base.astype(float), new.astype(float), named(groups)


def test_wins_ties_losses_and_the_mean_over_questions() -> None:
    base = np.array([0, 1, 0.5, 0, np.nan, 1])
    new = np.array([1, 1, 0.25, 1, 1, np.nan])
    found = paired(base, new, list("aabbcc"))
    assert (found.wins, found.ties, found.losses, found.n, found.groups) == (2, 1, 1, 4, 2)
    assert found.difference == pytest.approx(1.75 / 4)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no question"):
        paired(np.array([np.nan, 1.0]), np.array([1.0, np.nan]), ["a", "b"])


@pytest.mark.parametrize("size", [1, 4, 9, 12])
def test_p_is_that_of_all_flips(size: int) -> None:
    rng = np.random.default_rng(size)
    groups = np.repeat(np.arange(size), 3)
    base, new = rng.random(3 * size).round(1), rng.random(3 * size).round(1)
    totals = np.array([(new - base)[groups == each].sum() for each in range(size)])
    flipped = [abs(np.dot(signs, totals)) for signs in product((-1, 1), repeat=size)]
    share = np.mean([each >= abs(totals.sum()) - 1e-9 for each in flipped])
    assert paired(base, new, named(groups)).p == pytest.approx(share)


@pytest.mark.parametrize("kind", ["few values", "all values apart"])
def test_drawn_flips_agree_with_the_normal_law(kind: str) -> None:
    rng = np.random.default_rng(5)
    apart = rng.normal(0.02, 0.3, 500)
    apart = apart.round(1) if kind == "few values" else apart
    found = paired(np.zeros(500), apart, named(np.arange(500)))
    normal = 2 * stats.norm.sf(abs(apart.sum()) / np.sqrt((apart**2).sum()))
    assert found.p == pytest.approx(normal, abs=0.02)


@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize("draws", [10_000, 1_000_000])
def test_more_flips_tell_smaller_ps(count: int, draws: int) -> None:
    """Of equal differences the number of positive ones is binomial; both ways to draw."""
    seen = []
    for more in range(count // 2, count):
        exact = 2 * stats.binom.sf(more - 1, count, 0.5)
        apart = np.where(np.arange(count) < more, 1.0, -1.0)
        if 1e-7 < exact < 0.5:
            p = paired(np.zeros(count), apart, named(np.arange(count)), draws=draws).p
            assert p >= 1 / (1 + draws)
            assert exact / 2 < p < max(4 * exact, 1.1 / draws), exact
            seen.append(p)
    assert (min(seen) < 1e-5) is (draws > 10_000)


def test_flips_stop_when_enough_are_as_far_and_memory_stays_small(monkeypatch) -> None:
    drawn: list[int] = []
    real = module._flipped
    monkeypatch.setattr(
        module, "_flipped", lambda *a: (drawn.append(len(s)) or s for s in real(*a))
    )
    rng, groups, flips = np.random.default_rng(1), np.arange(2000), {}
    for far in (1.0, 3.5, 4.0, 6.0):
        apart = rng.normal(0, 1, 2000)
        apart += far * np.sqrt((apart**2).sum()) / 2000 - apart.mean()
        drawn.clear()
        tracemalloc.start()
        sign_flip(np.zeros(2000), apart, groups, draws=300_000)
        flips[far] = sum(drawn), tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert flips[1.0][0] == module.RESAMPLES
    assert module.RESAMPLES < flips[3.5][0] < 150_000
    assert 150_000 < flips[4.0][0] <= 310_000
    assert flips[6.0][0] == 0  # the bound alone says that no flip of so many would be as far
    assert all(peak < 30e6 for _, peak in flips.values())


def test_the_bound_is_never_below_the_share_of_all_flips() -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 3, 8, 12):
        signs = np.array(list(product((-1, 1), repeat=size)))
        for sizes in (np.ones(size), *rng.random((20, size)), *rng.pareto(1, (20, size))):
            sums = np.abs(signs @ sizes)
            for least in np.unique(sums.round(9)):
                assert (sums >= least).mean() <= module._bound(sizes, least) + 1e-12


def test_so_many_flips_tell_the_strictest_comparison() -> None:
    assert draws_for(1, 0.05) == module.RESAMPLES
    for count in (24, 501, 780, 23_809):
        assert module.ENOUGH / (1 + draws_for(count, 0.05)) < 0.05 / count
    assert draws_for(10**9, 0.05) == module.MOST


def test_p_is_uniform_if_nothing_differs_but_by_chance() -> None:
    rng = np.random.default_rng(6)
    for size in (12, 60):
        ps = [
            paired(rng.random(size), rng.random(size), named(np.arange(size))).p for _ in range(400)
        ]
        assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_p_never_is_zero_and_the_same_answers_have_one() -> None:
    base = np.zeros(200)
    assert paired(base, base + 1, named(np.arange(200))).p == pytest.approx(1 / 10_001)
    same = paired(base, base, named(np.arange(200)))
    assert (same.p, same.difference, same.ties) == (1.0, 0.0, 200)
    assert same.high == -same.low == pytest.approx(3 / 200, rel=0.03)
    assert np.isnan(same.visible)


def test_a_difference_that_is_the_same_everywhere_has_an_interval_that_few_groups_widen() -> None:
    base = np.full(300, 0.5)
    widths = []
    for count in (2, 10, 100):
        found = paired(base, base - 0.1, named(np.arange(300) % count))
        share = 1 - 0.05 ** (1 / count)  # of groups that may be otherwise, at most
        assert found.low == pytest.approx((1 - share) * -0.1 - share)
        assert found.high == pytest.approx((1 - share) * -0.1 + share)
        assert np.isnan(found.visible)
        widths.append(found.high - found.low)
    assert widths[0] > 1.5 > widths[1] > widths[2] and widths[2] < 0.06
    assert np.isnan(paired(base, base - 0.1, ["one"] * 300).low)


def test_holm_is_as_its_definition_says() -> None:
    rng = np.random.default_rng(7)
    for size in rng.integers(1, 12, 10_000):
        ps = rng.random(size).round(2).tolist()
        order = np.argsort(ps, kind="stable")
        expected = np.empty(size)
        for rank, place in enumerate(order):
            steps = [min(1.0, (size - j) * ps[order[j]]) for j in range(rank + 1)]
            expected[place] = max(steps)
        assert holm(ps) == pytest.approx(expected.tolist())
    assert holm([]) == [] and holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_order_and_names_of_groups_do_not_matter_and_swapping_turns_the_sign() -> None:
    base, new, groups = skewed(1, 200, 6)
    found = paired(base, new, groups)
    places = np.random.default_rng(8).permutation(200)
    shuffled = paired(base[places], new[places], [f"x{groups[each]}" for each in places])
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high))
    back = paired(new, base, groups)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert back.p == pytest.approx(found.p, abs=0.02)
    assert (back.wins, back.losses) == (found.losses, found.wins)


def test_many_groups_are_resampled_and_agree_with_few() -> None:
    """On both sides of the border, and whether groups are alike or not."""
    for seed, decimals in ((1, 1), (2, 12)):
        apart = np.random.default_rng(seed).normal(0.05, 0.4, module.MANY).round(decimals)
        zeros = np.zeros(module.MANY)
        found = paired(zeros, apart, named(np.arange(module.MANY)))
        fewer = paired(zeros[1:], apart[1:], named(np.arange(module.MANY - 1)))
        assert found.low == pytest.approx(fewer.low, abs=0.006) and found.low != fewer.low
        assert found.high == pytest.approx(fewer.high, abs=0.006)


@pytest.mark.parametrize(("n", "cluster"), [(43, 1), (43, 6), (100, 6), (100, 15), (500, 15)])
def test_intervals_cover_what_they_say(n: int, cluster: int) -> None:
    hits = []
    for seed in range(400):
        found = paired(*skewed(seed, n, cluster))
        hits.append(found.low <= 0.09 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.975  # two standard errors around 93 to 97 %


def test_without_groups_they_would_not() -> None:
    hits = []
    for seed in range(200):
        base, new, _ = skewed(seed, 500, 15)
        found = paired(base, new, named(np.arange(500)))
        hits.append(found.low <= 0.09 <= found.high)
    assert np.mean(hits) < 0.8


def test_a_visible_difference_is_seen_four_times_in_five() -> None:
    rng, seen, expected = np.random.default_rng(9), [], []
    for _ in range(300):
        apart = rng.normal(0.084, 0.3, 100)  # 2.8 standard errors
        found = paired(np.zeros(100), apart, named(np.arange(100)))
        seen.append(found.low > 0)
        expected.append(found.visible)
    assert np.mean(expected) == pytest.approx(0.085, abs=0.004)
    assert 0.73 < np.mean(seen) < 0.87


def test_one_question_of_many_that_differs_says_little_of_how_many_would() -> None:
    """The exact bound says that up to 2.75 % of such questions may be lost (Clopper-Pearson)."""
    old, new = np.ones(200), np.ones(200)
    new[3] = 0.0
    found = paired(old, new, named(np.arange(200)))
    assert -0.035 < found.low < -0.02 and found.high > 0

"""Intervals: coverage, identities, and what is said where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest

from harness.score.intervals import cluster_intervals


def test_the_mean_is_over_questions_and_low_below_high() -> None:
    values = np.random.default_rng(0).random((300, 2))
    mean, low, high, groups = cluster_intervals(values, [str(i) for i in range(300)])
    assert mean == pytest.approx(values.mean(0))
    assert (low < mean).all() and (mean < high).all()
    assert groups.tolist() == [300, 300]


def test_large_samples_agree_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=(2000, 1))
    _, low, high, _ = cluster_intervals(values, [str(i) for i in range(2000)])
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert high[0] - low[0] == pytest.approx(2 * half, rel=0.05)


def test_columns_with_values_in_other_questions_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((150, 2))
    values[:60, 1] = np.nan
    names = [str(i) for i in range(150)]
    both = cluster_intervals(values, names)
    alone = cluster_intervals(values[60:, 1:], names[60:])
    assert [each[1] for each in both] == pytest.approx([each[0] for each in alone])


@pytest.mark.parametrize("size", [5, 60, 200])
def test_all_zeros_or_all_ones_are_bounded_by_the_rule_of_three(size: int) -> None:
    """The bound is where a sample of groups like these has a chance of one in twenty."""
    names = [str(i % size) for i in range(3 * size)]
    values = np.tile([0.0, 1.0], (3 * size, 1))
    mean, low, high, groups = cluster_intervals(values, names)
    assert mean.tolist() == [0, 1] and groups.tolist() == [size, size]
    assert low[0] == 0 and (1 - high[0]) ** size == pytest.approx(0.05)
    assert high[1] == 1 and low[1] ** size == pytest.approx(0.05)
    assert high[0] == pytest.approx(3 / size, rel=0.5 if size == 5 else 0.03)
    narrow = cluster_intervals(values, names, level=0.5)
    assert narrow[2][0] < high[0] and narrow[1][1] > low[1]


@pytest.mark.parametrize("size", [5, 200])
def test_other_columns_whose_groups_are_all_alike_have_no_interval(size: int) -> None:
    halves, mixed = np.full(2 * size, 0.5), np.tile([0.0, 1.0], size)
    above = np.full(2 * size, 1.5)
    names = [str(i // 2) for i in range(2 * size)]
    mean, low, high, _ = cluster_intervals(np.stack([halves, mixed, above], axis=1), names)
    assert mean.tolist() == [0.5, 0.5, 1.5]
    assert np.isnan(low).all() and np.isnan(high).all()


def test_official_scores_above_one_are_not_clamped() -> None:
    values = np.array([[1.5], [2.0], [1.0]] * 50)
    mean, low, high, _ = cluster_intervals(values, [str(i) for i in range(150)])
    assert mean[0] == 1.5 and 1 < low[0] < 1.5 < high[0] < 2


def test_questions_weigh_the_same_whatever_the_size_of_their_group() -> None:
    values = np.array([[1.0], [0.0], [0.0], [0.0]])
    mean, *_ = cluster_intervals(values, ["small", "large", "large", "large"])
    assert mean[0] == 0.25


def test_one_group_has_no_interval_and_no_values_have_no_mean() -> None:
    mean, low, high, groups = cluster_intervals(
        np.array([[1.0, np.nan], [0.0, np.nan]]), ["g", "g"]
    )
    assert mean[0] == 0.5 and np.isnan(low[0]) and np.isnan(high[0])
    assert np.isnan(mean[1])
    assert groups.tolist() == [1, 0]


@pytest.mark.parametrize("groups", [40, 150])
def test_intervals_cover_the_truth_when_questions_share_a_world(groups: int) -> None:
    """Over questions alone, this setup would be covered about two times in three."""
    rng = np.random.default_rng(3)
    covered, rounds = 0, 200
    names = [str(g) for g in range(groups) for _ in range(5)]
    for _ in range(rounds):
        shared = rng.normal(size=groups).repeat(5)
        values = (shared + 0.3 * rng.normal(size=groups * 5))[:, None]
        _, low, high, _ = cluster_intervals(values, names)
        covered += bool(low[0] <= 0 <= high[0])
    assert 0.90 <= covered / rounds <= 0.99


def test_bca_follows_the_skew_of_few_groups() -> None:
    values = np.array([0.0] * 15 + [1.0])[:, None]
    mean, low, high, _ = cluster_intervals(values, [str(i) for i in range(16)])
    assert high[0] - mean[0] > mean[0] - low[0]

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


def test_a_constant_column_has_an_interval_of_no_width() -> None:
    for size in (5, 200):
        mean, low, high, _ = cluster_intervals(np.ones((size, 1)), [str(i) for i in range(size)])
        assert mean[0] == low[0] == high[0] == 1


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

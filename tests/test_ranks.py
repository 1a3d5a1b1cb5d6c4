"""Rank intervals: what may change them and what may not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from harness.score.paired import paired
from harness.score.ranks import Ranks, rank_intervals

GROUPS = [f"g{n // 2}" for n in range(60)]


def systems(seed: int, count: int) -> dict[str, np.ndarray]:
    """Scores of systems of different strength on questions of different difficulty."""
    rng = np.random.default_rng(seed)
    hard = rng.random(len(GROUPS))
    skills = np.sort(rng.random(count))[::-1]
    found = {}
    for number, skill in enumerate(skills):
        chance = np.clip(0.5 + 0.9 * (skill - hard) + 0.1 * rng.standard_normal(len(hard)), 0, 1)
        found[f"s{number}"] = (rng.random(len(hard)) < chance).astype(float)
    return found


def flags(values: list[float]) -> np.ndarray:
    return np.array(values * (len(GROUPS) // len(values)), dtype=float)


def test_clear_differences_give_single_ranks_and_none_gives_all() -> None:
    good, fair, bad = flags([1.0]), flags([1.0, 0.0, 0.0]), flags([0.0])
    found = rank_intervals({"bad": bad, "good": good, "fair": fair}, GROUPS)
    assert found == {"good": Ranks(1, 1), "fair": Ranks(2, 2), "bad": Ranks(3, 3)}
    same = rank_intervals({"a": fair, "b": fair.copy(), "c": fair.copy()}, GROUPS)
    assert set(same.values()) == {Ranks(1, 3)}
    assert rank_intervals({"alone": fair}, GROUPS) == {"alone": Ranks(1, 1)}
    assert (str(Ranks(2, 2)), str(Ranks(1, 3))) == ("2", "1–3")


@pytest.mark.parametrize("seed", range(6))
def test_neither_order_nor_names_matter(seed: int) -> None:
    given = systems(seed, 4)
    first = rank_intervals(given, GROUPS)
    for order in list(permutations(given))[::5]:
        assert rank_intervals({name: given[name] for name in order}, GROUPS) == first
    renamed = {f"z{9 - int(name[1:])}": values for name, values in given.items()}
    again = rank_intervals(renamed, GROUPS)
    assert all(again[f"z{9 - int(name[1:])}"] == ranks for name, ranks in first.items())


@pytest.mark.parametrize("seed", range(30))
def test_a_system_that_joins_improves_nobody_above_it_and_no_worse_end(seed: int) -> None:
    given = systems(seed, 6)
    before = rank_intervals(given, GROUPS)
    rng = np.random.default_rng(seed + 1000)
    for skill in (0.0, 0.1, 0.4, 0.9):
        joined = (rng.random(len(GROUPS)) < skill).astype(float)
        after = rank_intervals({**given, "joined": joined}, GROUPS)
        for name, old in before.items():
            new = after[name]
            assert new.worst >= old.worst
            if given[name].mean() > joined.mean():
                assert new.best >= old.best


def test_flooding_a_table_with_bad_systems_takes_no_significance_from_others() -> None:
    """With Holm over all pairs for everybody the beaten one would be lifted: it is, without us."""
    rng = np.random.default_rng(5)
    strong = (rng.random(60) < 0.8).astype(float)
    weak = np.where(rng.random(60) < 0.25, 0.0, strong)
    p = paired(weak, strong, GROUPS).p
    assert p < 0.05
    given = {"strong": strong, "weak": weak}
    flood = {f"bad{n}": (rng.random(60) < 0.3).astype(float) * (weak > 0) for n in range(8)}
    assert all(values.mean() < weak.mean() for values in flood.values())
    assert p * len(flood) * (len(flood) - 1) / 2 > 0.05  # the price over all pairs
    for some in ({}, flood):
        found = rank_intervals({**given, **some}, GROUPS)
        assert found["weak"].best == 2
        assert found["strong"].best == 1


def test_among_equals_few_are_placed_below_others() -> None:
    """Of 40 tables of six equal systems, about the nominal share has a last one that is beaten."""
    beaten = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        given = {f"s{n}": (rng.random(60) < 0.5).astype(float) for n in range(6)}
        found = rank_intervals(given, GROUPS)
        last = min(given, key=lambda name: given[name].mean())
        beaten += found[last].best > 1
    assert beaten <= 5  # 2 expected at most; more than 5 by chance one time in 70


def test_groups_count_not_questions() -> None:
    """Thirty questions of one group are one observation."""
    better, worse = np.array([1.0] * 30), np.array([0.0] * 30)
    assert rank_intervals({"a": better, "b": worse}, ["g"] * 30)["b"] == Ranks(1, 2)
    groups = [f"g{n}" for n in range(30)]
    assert rank_intervals({"a": better, "b": worse}, groups)["b"] == Ranks(2, 2)


def crowd(count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """So many systems that answer a third or less of 120 questions, no two the same, and one that
    answers most of them."""
    rng = np.random.default_rng(11)
    values = {
        f"s{n}": (rng.random(120) < 0.1 + 0.2 * n / count).astype(float) for n in range(count)
    }
    return {**values, "best": (rng.random(120) < 0.75).astype(float)}, [f"g{n}" for n in range(120)]


def test_among_many_systems_a_clearly_better_one_is_first() -> None:
    """Of 820 pairs Holm asks for less than 10,000 flips can say."""
    values, groups = crowd(40)
    assert rank_intervals(values, groups)["best"] == Ranks(1, 1)


def test_how_many_join_below_does_not_change_what_is_decided_above() -> None:
    """More pairs, more flips; but a decision that fewer flips allowed stays as it was."""
    values, groups = crowd(40)
    names = sorted(values, key=lambda name: -values[name].mean())
    all_ = rank_intervals(values, groups)
    for count in (3, 12, 25):
        few = rank_intervals({name: values[name] for name in names[:count]}, groups)
        assert all(few[name].best == all_[name].best for name in names[:count])

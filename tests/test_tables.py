"""Tables join what was asked the same questions, say what is missing, and mix nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Toy, toy_questions
from test_scoring import a_run, entry, first, queries

from harness import registry
from harness.data import Answer, Row
from harness.prepare import prepare
from harness.report.tables import KEY, VISIBLE, records, report, tables
from harness.score.intervals import cluster_intervals
from harness.score.results import CEILING, FLOOR
from harness.score.scoring import score


def run_of(system: str, name: str, rows: Any = ..., **parts: Any) -> Path:
    """A scored run of one system."""
    described = entry(system, **parts)
    if rows is ...:
        rows = [first(query) for query in queries(described["task"])]
    return score(a_run((described, rows), name=name))


def systems(table: Any) -> list[str]:
    return [line.system for line in table.lines]


def test_runs_of_the_same_questions_stand_in_one_table_with_the_bounds_last() -> None:
    found = tables([run_of("one", "a"), run_of("two", "b")])
    assert [systems(table) for table in found] == [["one", "two", FLOOR, CEILING]]
    assert found[0].notes == ()
    assert found[0].title == "toy · test · pool"


@pytest.mark.parametrize("other", [{"limit": 20}, {"seed": 1}, {"setting": "corpus"}])
def test_runs_of_other_questions_or_settings_stand_in_tables_of_their_own(other: Any) -> None:
    found = tables([run_of("one", "a"), run_of("two", "b", **other)])
    assert [systems(table) for table in found] == [
        ["one", FLOOR, CEILING],
        ["two", FLOOR, CEILING],
    ]
    assert len({(table.title, table.notes) for table in found}) == 2


def test_runs_of_other_data_under_the_same_name_stand_in_tables_of_their_own() -> None:
    before = run_of("one", "a")

    class Renewed(Toy):
        version = "2"

        def __init__(self, count: int = 30) -> None:
            super().__init__(count)

    registry.register("tasks", "toy")(Renewed)
    after = run_of("two", "b")
    found = tables([before, after])
    assert [systems(table)[0] for table in found] == ["one", "two"]
    assert found[0].sample.fingerprint in report([before, after], "markdown")
    assert prepare("toy").name == found[1].sample.fingerprint


def test_the_title_says_the_sample_when_it_is_one() -> None:
    (table,) = tables(run_of("one", "a", limit=12, seed=4))
    assert table.title == "toy · test · pool · 12 questions, seed 4"
    (table,) = tables(run_of("one", "b", limit=500))
    assert table.title.endswith("40 questions, seed 0")


@pytest.mark.parametrize("style", ["table", "markdown", "latex"])
def test_the_later_run_of_a_system_replaces_the_earlier_and_a_line_says_so(style: Any) -> None:
    rows = [first(query) for query in queries()]
    worse = [replace(row, hits=()) for row in rows]
    runs = [run_of("one", "a", rows), run_of("one", "b", worse)]
    for order, value in ((runs, 0.0), (runs[::-1], tables(runs[0])[0].lines[0].cells["RR"].value)):
        (table,) = tables(order)
        assert systems(table) == ["one", FLOOR, CEILING]
        assert table.lines[0].cells["RR"].value == value
        note = f"one: from {order[1]}, not from {order[0]}."
        assert table.notes == (note,)
        assert note in report(order, style)
    assert tables([runs[0], runs[0]])[0].notes == ()


def test_bounds_of_joined_runs_have_the_metrics_of_both() -> None:
    for name in ("a", "b"):
        run_of(name, name)
    score(Path("a"), ["P@3"])
    score(Path("b"), ["P@2"])
    (table,) = tables(["a", "b"])
    bounds = {line.system: line.cells for line in table.lines[2:]}
    assert {"P@3", "P@2"} <= bounds[FLOOR].keys() & bounds[CEILING].keys()
    assert table.shown()[-2:] == ["P@3", "P@2"]


def test_an_interrupted_run_does_not_look_whole() -> None:
    folder = run_of("one", "a", [first(query) for query in queries()][:25])
    (line, *_) = tables(folder)[0].lines
    assert line.cells["nDCG@10"].n == 40
    assert "missing=15" in report(folder)
    assert "missing" not in report(run_of("one", "b"))


def test_json_has_its_columns_and_no_bounds() -> None:
    rows = [replace(first(query), answer=Answer("gate")) for query in queries()]
    rows[3] = Row(rows[3].id, error="broke")
    folder = run_of("one", "a", rows, answers=True, limit=None)
    found = json.loads(report(folder, "json"))
    keys = "task split setting profile system metric value low high n groups gold errors"
    keys = [*keys.split(), "generated"]
    assert [list(record) for record in found] == [keys] * 8
    assert {record["system"] for record in found} == {"one"}
    assert {record["errors"] for record in found} == {1}


def test_gold_is_official_for_answers_and_the_tasks_kind_for_rankings() -> None:
    class Sparse(Toy):
        kind = "sparse"

    registry.register("tasks", "toy")(Sparse)
    rows = [replace(first(query), answer=Answer("gate")) for query in queries()]
    gold = {
        record.metric: record.gold for record in records(run_of("one", "a", rows, answers=True))
    }
    assert gold == {"EM": "official", "F1": "official"} | dict.fromkeys(
        Toy.ranking_metrics, "sparse"
    )


def test_columns_that_a_system_cannot_fill_are_dashes() -> None:
    rows = [first(query) for query in queries()]
    told = [Row(row.id, answer=Answer("gate")) for row in rows]
    folder = score(a_run((entry("ranker"), rows), (entry("solver", answers=True), told)))
    for text in report(folder, "markdown").splitlines():
        cells = [cell.strip() for cell in text.split("|")]
        if "ranker" in text:
            assert cells[2:4] == ["–", "–"] and "–" not in cells[4:]
        if "solver" in text:
            assert cells[4:10] == ["–"] * 6
    alone = score(a_run((entry("solver", answers=True), told), name="alone"))
    (table,) = tables(alone)
    assert (systems(table), table.shown()) == (["solver"], ["EM", "F1"])


def test_columns_without_variation_are_not_shown_as_certain() -> None:
    rows = [Row(query["id"], answer=Answer("nothing of it")) for query in queries()]
    found = records(run_of("one", "a", rows, ranks=False, answers=True))
    (exact,) = [record for record in found if record.metric == "EM"]
    assert (exact.value, exact.low) == (0, 0)
    assert exact.high == pytest.approx(3 / 40, rel=0.05)
    assert "exact bound" in KEY


def test_generated_tables_are_headed_as_such() -> None:
    class Generated(Toy):
        generated = True

    registry.register("tasks", "toy")(Generated)
    assert "says nothing about the real datasets" in tables(run_of("one", "a"))[0].title


def test_the_smallest_difference_to_be_seen_is_half_its_interval() -> None:
    """Two systems that differ on half of the questions, and one that never differs."""
    asked = queries("toy")
    answers = {raw.text: raw.answers[0] for raw in toy_questions()}
    right = [Row(query["id"], answer=Answer(answers[query["text"]])) for query in asked]
    half = [row if place % 2 else Row(row.id, answer=Answer("")) for place, row in enumerate(right)]
    runs = {"best": right, "half": half, "same": right}
    folder = a_run(*((entry(n, ranks=False, answers=True), rows) for n, rows in runs.items()))
    (table,) = tables(score(folder))
    (seen,) = [line for line in table.lines if line.system == VISIBLE]
    apart = np.array([[float(place % 2 == 0)] for place in range(len(asked))])
    _, low, high, _ = cluster_intervals(apart, [query["id"] for query in asked])
    assert seen.cells["EM"].value == pytest.approx(float(high[0] - low[0]) / 2)
    assert "(smallest difference to be seen)" in report(folder, "markdown")
    assert VISIBLE not in {record.system for record in records(folder)}


@pytest.mark.parametrize("count", [1, 40])
def test_without_an_interval_there_is_no_smallest_difference_to_be_seen(count: int) -> None:
    """One question has no interval, and neither has a difference that is always the same."""
    asked = queries("toy")[:count]
    words = {raw.text: raw.answers[0].split() for raw in toy_questions()}
    runs = {
        name: [Row(each["id"], answer=Answer(" ".join(words[each["text"]][::-step])))
               for each in asked]
        for name, step in (("best", 1), ("half", 2))
    }  # fmt: skip
    folder = a_run(
        *((entry(n, ranks=False, answers=True, limit=count), rows) for n, rows in runs.items())
    )
    (table,) = tables(score(folder))
    assert len({line.cells["F1"].value for line in table.lines}) == 2
    assert systems(table) == ["best", "half"]
    assert VISIBLE not in report(folder)


def test_a_damaged_latency_file_does_not_hide_the_scores() -> None:
    folder = run_of("one", "a")
    (folder / "latency.jsonl").write_text("{}\n")
    text = report(folder)
    assert "nDCG@10" in text and "latency.jsonl:1 is not a timing" in text


def test_a_narrow_screen_gets_its_columns_below_each_other(monkeypatch: Any) -> None:
    folder = run_of("one", "a")
    wide = report(folder)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(
        "harness.report.sheet.get_terminal_size", lambda: os.terminal_size((80, 24))
    )
    narrow = report(folder).partition(KEY)[0].splitlines()
    assert max(map(len, narrow)) <= 80 < max(map(len, wide.partition(KEY)[0].splitlines()))
    for metric in ("nDCG@10", "R@2", "RR@10", "AP"):
        assert sum(metric in line for line in narrow) == sum(metric in x for x in wide.splitlines())
    assert sum("ended" in line for line in narrow) == 1

"""Scores are those of exactly the questions that were asked, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Toy, toy_questions

from harness import registry
from harness.canonical import read_gold, read_lines, sample
from harness.data import Answer, Evidence, Gold, HarnessError, Hit, Loaded, Row
from harness.prepare import prepare
from harness.run.store import row_line
from harness.score import ranking, scoring
from harness.score.results import CEILING, FLOOR, read_scores
from harness.score.scoring import score
from harness.spelling import parse_spelled

Rows = Sequence[Row | bytes] | None


def first(query: Mapping[str, Any]) -> Row:
    """A row that ranks the pool as it stands."""
    hits = tuple(Hit(doc_id, -float(place)) for place, doc_id in enumerate(query["pool"]))
    return Row(query["id"], hits)


def queries(task: str = "toy", limit: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The questions of a prepared task that a run would ask, in order."""
    every = {row["id"]: row for row in read_lines(prepare(task) / "queries.jsonl")}
    return [every[query_id] for query_id in sample(every, limit, seed)]


def entry(system: str, task: str = "toy", **parts: Any) -> dict[str, Any]:
    """What the manifest says of one pipeline."""
    data = prepare(task)
    made = registry.task(parse_spelled(task))
    return {
        "task": task,
        "split": "test",
        "setting": "pool",
        "system": system,
        "generated": made.generated,
        "answer_metrics": list(made.answer_metrics),
        "ranking_metrics": list(made.ranking_metrics),
        "ranks": True,
        "answers": False,
        "fingerprint": data.name,
        "data": str(data),
        "limit": None,
        "seed": 0,
        "key": f"key-{system}",
        "rows": f"{system}/rows.jsonl",
        **parts,
    }


def a_run(*pipelines: tuple[dict[str, Any], Rows], name: str = "run") -> Path:
    """A run's folder as the runner would leave it; rows ``None`` writes no file."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    for described, rows in pipelines:
        if rows is not None:
            path = folder / described["rows"]
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (row_line(row) if isinstance(row, Row) else row for row in rows)
            path.write_bytes(b"".join(lines))
    manifest = {"format": 1, "pipelines": [described for described, _ in pipelines]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def lines_of(folder: Path, system: str) -> list[dict[str, Any]]:
    """The lines of one system, in whatever table it stands."""
    return [line for table in read_scores(folder) for line in table.lines.get(system, [])]


# --- the questions --------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_questions_may_hold_line_separators(mark: str) -> None:
    class Odd(Toy):
        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            return Loaded([replace(q, text=f"{q.text}{mark}Say.") for q in toy_questions(4)])

    registry.register("tasks", "odd")(Odd)
    asked = queries("odd")
    assert mark in asked[0]["text"]
    folder = score(a_run((entry("one", "odd"), [first(q) for q in asked])))
    assert len(lines_of(folder, "one")) == 4


def test_score_returns_the_folder_of_the_run() -> None:
    folder = a_run((entry("one"), [first(q) for q in queries()]))
    assert score(str(folder)) == folder


def test_rows_beyond_the_sample_are_not_scored() -> None:
    rows = [first(query) for query in queries()]
    foreign = Row("0123456789abcdef", rows[0].hits)
    folder = score(a_run((entry("one", limit=6, seed=3), [foreign, *rows])))
    asked = {query["id"] for query in queries(limit=6, seed=3)}
    for system in ("one", FLOOR, CEILING):
        assert {line["id"] for line in lines_of(folder, system)} == asked
        assert len(lines_of(folder, system)) == 6


@pytest.mark.parametrize("kept", [0, 1, 25, 39, None])
def test_asked_questions_without_a_row_are_missing_and_score_zero(kept: int | None) -> None:
    rows = None if kept is None else [first(query) for query in queries()[:kept]]
    folder = score(a_run((entry("one"), rows)))
    lines = lines_of(folder, "one")
    assert len(lines) == 40
    missing = [line for line in lines if line["state"] == "missing"]
    assert len(missing) == 40 - (kept or 0)
    for line in missing:
        assert set(line["metrics"]) == set(Toy.ranking_metrics)
        assert set(line["metrics"].values()) == {0.0}


def test_a_torn_last_line_is_a_missing_question() -> None:
    *rows, last = [first(query) for query in queries()]
    folder = score(a_run((entry("one"), [*rows, row_line(last)[:-1]])))
    assert [line["id"] for line in lines_of(folder, "one") if line["state"]] == [last.id]


def test_a_question_that_a_file_from_outside_does_not_know_is_missing() -> None:
    rows = [first(query) for query in queries()]
    rows[7] = Row(rows[7].id, counts={"not_in_file": 1})
    folder = score(a_run((entry("one"), rows)))
    (line,) = [line for line in lines_of(folder, "one") if line["state"]]
    assert (line["id"], line["state"]) == (rows[7].id, "missing")
    assert set(line["metrics"].values()) == {0.0}


def test_a_missing_answer_scores_zero_in_every_answer_metric() -> None:
    rows = [Row(query["id"], answer=Answer("by the gate")) for query in queries()[:-1]]
    folder = score(a_run((entry("one", ranks=False, answers=True), rows)))
    lines = lines_of(folder, "one")
    assert lines[-1]["state"] == "missing"
    assert lines[-1]["metrics"] == {"EM": 0.0, "F1": 0.0}
    assert lines[0]["metrics"]["F1"] > 0


def test_a_question_that_stands_twice_counts_once_with_its_first_row() -> None:
    rows = [first(query) for query in queries()]
    again = Row(rows[0].id, rows[0].hits[::-1])
    once = score(a_run((entry("one"), rows), name="once"))
    twice = score(a_run((entry("one"), [*rows, again]), name="twice"))
    assert lines_of(once, "one") == lines_of(twice, "one")


def test_pipelines_that_were_asked_other_questions_share_no_table() -> None:
    rows = [first(query) for query in queries()]
    folder = score(
        a_run(
            (entry("ten", limit=10), rows),
            (entry("six", limit=6), rows),
            (entry("other", limit=6, seed=1), rows),
        )
    )
    found = {table.sample[-2:]: table for table in read_scores(folder)}
    assert list(found) == [(10, 0), (6, 0), (6, 1)]
    for (limit, _), table in found.items():
        assert table.questions == limit
        assert len(table.lines) == 3
        assert {len(lines) for lines in table.lines.values()} == {limit}
        ids = [{line["id"] for line in lines} for lines in table.lines.values()]
        assert ids[0] == ids[1] == ids[2]


def test_a_table_is_loaded_once_and_ranked_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [first(query) for query in queries()]
    whole = score(a_run((entry("one"), rows), (entry("two"), rows), name="whole"))
    loads, sizes = [], []
    evaluate = ranking.evaluate
    monkeypatch.setattr(scoring, "read_gold", lambda f: loads.append(f) or read_gold(f))
    monkeypatch.setattr(scoring, "CHUNK", 7)
    monkeypatch.setattr(
        ranking, "evaluate", lambda r, *rest: sizes.append(len(r)) or evaluate(r, *rest)
    )
    parts = score(a_run((entry("one"), rows), (entry("two"), rows), name="parts"))
    assert len(loads) == 1
    assert max(sizes) == 7
    for system in ("one", "two", FLOOR, CEILING):
        assert lines_of(parts, system) == lines_of(whole, system)


# --- the columns ----------------------------------------------------------------------


def columns(folder: Path, system: str) -> set[str]:
    return {name for line in lines_of(folder, system) for name in line["metrics"]}


@pytest.mark.parametrize("errors", [0, 3])
def test_a_system_that_answers_and_never_ranks_has_no_ranking_columns(errors: int) -> None:
    rows = [Row(query["id"], answer=Answer("gate")) for query in queries()]
    rows[:errors] = [Row(row.id, error="solver: broke") for row in rows[:errors]]
    folder = score(a_run((entry("solver", answers=True), rows)))
    assert columns(folder, "solver") == {"EM", "F1"}
    assert not lines_of(folder, FLOOR)


def test_a_system_of_which_nothing_went_well_scores_zero_in_all_that_it_should_fill() -> None:
    rows = [Row(query["id"], error="solver: broke") for query in queries()]
    folder = score(a_run((entry("solver", answers=True), rows)))
    assert columns(folder, "solver") == {"EM", "F1", *Toy.ranking_metrics}
    assert {v for line in lines_of(folder, "solver") for v in line["metrics"].values()} == {0.0}


def test_a_retriever_that_finds_nothing_scores_zero() -> None:
    folder = score(a_run((entry("one"), [Row(query["id"]) for query in queries()])))
    assert {v for line in lines_of(folder, "one") for v in line["metrics"].values()} == {0.0}


class Named(Toy):
    """A task whose scorer has its own names."""

    answer_metrics = ("Accuracy",)
    ranking_metrics = ("RR@10",)
    names: tuple[str, ...] = ("Accuracy", "Length")

    def score(self, answer: Answer, support: object, gold: Gold) -> dict[str, float]:
        return dict.fromkeys(self.names, 0.25)


def answered() -> list[Row]:
    return [replace(first(query), answer=Answer("gate")) for query in queries("named")]


def test_a_task_metric_named_like_one_of_ir_measures_stays_the_tasks() -> None:
    registry.register("tasks", "named")(Named)
    folder = score(a_run((entry("one", "named", answers=True), answered())), ["P@1", "MRR@10"])
    (table,) = read_scores(folder)
    assert table.answer_metrics == ("Accuracy",)
    assert table.ranking_metrics == ("RR@10", "P@1")
    for line in table.lines["one"]:
        assert list(line["metrics"]) == ["Accuracy", "Length", "RR@10", "P@1"]
        assert line["metrics"]["Accuracy"] == line["metrics"]["Length"] == 0.25


@pytest.mark.parametrize("declared", [("RR@10",), ("Accuracy",)])
def test_one_name_for_an_answer_and_a_ranking_metric_is_refused(declared: tuple[str, ...]) -> None:
    class Twice(Named):
        answer_metrics = declared
        names = ("RR@10",)

    registry.register("tasks", "named")(Twice)
    with pytest.raises(HarnessError, match="RR@10 is an answer metric of"):
        score(a_run((entry("one", "named", answers=True), answered())))
    if "RR@10" in declared:
        with pytest.raises(HarnessError, match="RR@10 is an answer metric of"):
            score(a_run((entry("retriever", "named"), answered())))


def test_metrics_that_cannot_be_computed_are_refused_before_anything_is_read() -> None:
    with pytest.raises(HarnessError, match="'ERR@10' cannot be computed"):
        score("nowhere", ["ERR@10"])


def test_who_gives_evidence_once_is_held_to_have_given_none_elsewhere() -> None:
    class Supported(Toy):
        def score(self, answer: Answer, support: Any, gold: Gold) -> dict[str, float]:
            return {"EM": 1.0} | ({} if support is None else {"SP": float(len(support))})

    registry.register("tasks", "named")(Supported)
    rows = answered()
    folder = score(a_run((entry("one", "named", answers=True), rows), name="without"))
    assert "SP" not in columns(folder, "one")
    told = (Evidence(rows[-1].hits[0].id, 0), Evidence("nowhere", 0))
    rows[-1] = replace(rows[-1], answer=Answer("gate", told))
    rows[0] = Row(rows[0].id, error="broke")
    folder = score(a_run((entry("one", "named", answers=True), rows), name="with"))
    assert [line["metrics"]["SP"] for line in lines_of(folder, "one")] == [0.0] * 39 + [2.0]
    assert lines_of(folder, "one")[0]["metrics"]["EM"] == 0.0


# --- the files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\n",
        b"[1]\n",
        b'{"hits":[]}\n',
        b'{"id":7}\n',
        b'{"id":"q","hits":[["d"]]}\n',
        b'{"id":"q","hits":[[3,1.0]]}\n',
        b'{"id":"q","hits":[["d",2.0],["d",1.0]]}\n',
        b'{"id":"q","answer":{"text":5}}\n',
        b'{"id":"q","answer":{"text":"a","evidence":[[3,0,null]]}}\n',
        b'{"id":"q","answer":{"text":"a","evidence":[["d","0",null]]}}\n',
        b'{"id":"q","answer":{"text":"a","triples":[["s","r",4]]}}\n',
        b'{"id":"q","counts":null}\n',
        b'{"id":"q","error":1}\n',
        b'{"id":"q","hi{"id":"r"}\n',
        b"\xff\xfe\n",
    ],
)
@pytest.mark.parametrize("answers", [False, True])
def test_a_line_that_is_no_row_is_named_with_its_place(line: bytes, answers: bool) -> None:
    rows: list[Row | bytes] = [first(query) for query in queries()]
    folder = a_run((entry("one", answers=answers), [*rows[:3], line, *rows[3:]]))
    with pytest.raises(HarnessError) as error:
        score(folder)
    assert f"{folder / 'one' / 'rows.jsonl'}:4: " in error.value.message
    assert not (folder / "scores.json").exists()


def test_scores_of_rows_that_changed_since_are_refused() -> None:
    rows = [first(query) for query in queries()]
    told = entry("one")
    folder = score(a_run((told, rows[:-1])))
    assert len(read_scores(folder)) == 1
    changes = [
        [(told, rows)],
        [({**told, "key": "another"}, rows[:-1])],
        [({**told, "limit": 5}, rows[:-1])],
        [(told, rows[:-1]), (entry("two"), rows)],
        [({**told, "rows": "nowhere/rows.jsonl"}, None)],
    ]
    for change in changes:
        a_run(*change)
        with pytest.raises(HarnessError, match="scores are older than the rows") as error:
            read_scores(folder)
        assert f"python -m harness score {folder}" in error.value.hint
        score(folder)
        read_scores(folder)
        score(a_run((told, rows[:-1])))


@pytest.mark.parametrize("name", ["scores.json", "scores.jsonl"])
def test_scores_that_are_not_there_or_not_whole_are_told_so(name: str) -> None:
    folder = score(a_run((entry("one"), [first(query) for query in queries()])))
    text = (folder / name).read_text()
    for broken in (text[: len(text) // 2], None):
        (folder / name).unlink()
        if broken is not None:
            (folder / name).write_text(broken)
        with pytest.raises(HarnessError) as error:
            read_scores(folder)
        assert f"python -m harness score {folder}" in error.value.hint
        (folder / name).write_text(text)


def test_scoring_that_could_not_be_finished_leaves_no_scores_that_look_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = score(a_run((entry("one"), [first(query) for query in queries()])))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "scores.part")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(HarnessError, match="No space left on device"):
            score(folder, ["P@3"])
    with pytest.raises(HarnessError, match="not scored yet"):
        read_scores(folder)


def test_what_scores_json_says_of_a_table() -> None:
    told = entry("one", limit=5, seed=2)
    folder = score(a_run((told, [first(query) for query in queries()])), ["MRR@3"])
    (head,) = json.loads((folder / "scores.json").read_text())["tables"]
    sample_id = head.pop("sample")
    assert head == {
        **{name: told[name] for name in ("task", "split", "setting", "fingerprint", "generated")},
        "limit": 5,
        "seed": 2,
        "questions": 5,
        "lines": 15,
        "answer_metrics": ["EM", "F1"],
        "ranking_metrics": [*Toy.ranking_metrics, "RR@3"],
        "systems": {
            "one": {"key": "key-one", "bytes": (folder / "one" / "rows.jsonl").stat().st_size}
        },
    }
    lines = [json.loads(line) for line in (folder / "scores.jsonl").open()]
    assert {line["sample"] for line in lines} == {sample_id}


def test_scores_that_are_cut_off_are_not_shown() -> None:
    folder = score(a_run((entry("one"), [first(query) for query in queries()])))
    whole = (folder / "scores.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    for broken in ("", "".join(lines[:-1]), whole[:-9], "[]\n" + whole):
        (folder / "scores.jsonl").write_text(broken)
        with pytest.raises(HarnessError, match="broken or cut off"):
            read_scores(folder)
    (folder / "scores.jsonl").write_text(whole)
    assert read_scores(folder)
    for broken in ("[]", "{}", '{"tables": 5}', '{"tables": [{"sample": 1}]}'):
        (folder / "scores.json").write_text(broken)
        with pytest.raises(HarnessError, match="not scored yet"):
            read_scores(folder)


def test_gold_that_is_not_whole_is_told_so() -> None:
    folder = a_run((entry("one"), [first(query) for query in queries()]))
    gold = Path(json.loads((folder / "manifest.json").read_text())["pipelines"][0]["data"])
    text = (gold / "gold.jsonl").read_text().splitlines(keepends=True)
    (gold / "gold.jsonl").write_text("".join(text[:-1]))
    with pytest.raises(HarnessError, match="has no line for the question"):
        score(folder)

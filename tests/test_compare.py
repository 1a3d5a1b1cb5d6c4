"""Comparing runs: what is compared, what is not, and what is told of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Toy, toy_questions
from gating import cli, edit, refused, run
from knowing import Knows, Ordered, Solves, like

from harness import api, registry
from harness.cli import main
from harness.data import Document, Hit, Loaded, Query
from harness.report.compare import compare
from harness.report.verdicts import written_comparisons
from harness.score.paired import holm
from harness.score.results import read_columns, read_manifest, read_scores

BARE = "mini-hotpotqa:documents=600,questions={}"


# --- what is compared -----------------------------------------------------------------


def test_the_same_run_twice_changes_no_row(capsys: Any) -> None:
    base, new = run("a"), run("b")
    (found,) = compare(base, new)
    assert (found.verdict, found.found.difference, found.changed) == ("no regression", 0, {})
    assert cli("a", "b", "--fail-on-regression") == 0
    out = capsys.readouterr().out
    assert "no regression 1 (1: every row is the same)" in out
    assert "+0.000" not in out  # nothing is inferred


def test_differences_worst_questions_and_changed_rows() -> None:
    base, new = run("a", range(10, 40)), run("b", range(20))
    (found,) = compare(base, new)
    assert (found.metric, found.base, found.new) == ("EM", "ordered+knows", "ordered+knows")
    assert (found.found.wins, found.found.ties, found.found.losses) == (20, 170, 10)
    assert found.base_mean == pytest.approx(0.85) and found.new_mean == pytest.approx(0.9)
    assert found.changed == {"answer": 30} and len(found.changed_ids) == 30
    assert len(found.worst) == 10 and all(each.new < each.base for each in found.worst)
    worst = found.worst[0]
    assert worst.new_answer == "nowhere" and "gate" in worst.base_answer
    assert worst.text.startswith("Where stands the")
    values = {
        line["id"]: line["metrics"]["EM"] for line in read_scores(new)[0].lines["ordered+knows"]
    }
    assert values[worst.id] == worst.new == 0


def test_the_worst_questions_show_what_the_metric_judges() -> None:
    """A ranking beside a ranking, also of readers; no answer is no ranking."""

    class Reversed(Ordered):
        def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
            pools = [(query.pool or ())[::-1] for query in queries]
            return [[Hit(d, -float(p)) for p, d in enumerate(pool)][:k] for pool in pools]

    registry.register("systems", "knows")(like(Knows))
    registry.register("systems", "ordered")(Ordered)
    systems = ["ordered+knows", "ordered"]
    api.score(api.run(["toy"], systems, out=Path("a")))
    registry.register("systems", "ordered")(Reversed)
    api.score(api.run(["toy"], systems, out=Path("b")))
    read, ranked = (each.worst for each in compare("a", "b", metrics=["nDCG@10"]))
    assert read == ranked and len(read) > 0
    assert all(len(each.base_answer.split()) == 5 for each in read)
    assert all(each.new_answer.split() != each.base_answer.split() for each in read)
    rows = next(Path("b").glob("*/*knows*/rows.jsonl"))
    rows.write_text(re.sub(',"answer":{[^}]*}', "", rows.read_text()))
    api.score(Path("b"))
    (found,) = compare("a", "b", metrics=["EM"], systems=["ordered+knows"])
    assert {each.new_answer for each in found.worst} == {"(no answer)"}
    assert all("gate" in each.base_answer for each in found.worst)


def test_more_metrics_are_adjusted_together() -> None:
    base, new = run("a"), run("b", range(12))
    found = compare(base, new, metrics=["EM", "F1", "nDCG@10"])
    assert [each.metric for each in found] == ["EM", "F1", "nDCG@10"]
    assert [each.p for each in found] == holm([each.found.p for each in found])
    assert found[0].p > found[0].found.p
    assert found[2].found.ties == 200


def test_all_systems_against_one_baseline(capsys: Any) -> None:
    registry.register("systems", "ordered")(Ordered)
    made = api.run(["toy:count=60"], ["random", "bm25", "ordered"], out=Path("a"))
    api.score(made)
    found = compare(made, made, baseline="random")
    assert [each.new for each in found] == ["bm25", "ordered"]
    assert {each.base for each in found} == {"random"} and {each.changed for each in found} == {
        None
    }
    assert found[0].found.difference > 0 and "better" in found[0].because
    assert cli("a", "a", "--baseline", "random", "--json", "--system", "bm25") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["new"] == "bm25" and told["found"]["n"] == 60


def test_latency_is_compared_within_one_pass_only(capsys: Any) -> None:
    words = ("run", "--task", "toy", "--system", "bm25", "random", "--latency", "short")
    assert main([*words, "--out", "a"]) == 0
    (found,) = compare("a", "a", baseline="random")
    assert found.p50_ms is not None and min(found.p50_ms) > 0
    assert "one pass" in written_comparisons([found])
    assert main([*words, "--out", "b"]) == 0
    assert {each.p50_ms for each in compare("a", "b")} == {None}


def test_groups_are_those_of_the_scores_whatever_the_order_of_the_rows() -> None:
    made = api.run([BARE.format(80)], ["random", "bm25"], out=Path("a"))
    api.score(made)
    (found,) = compare(made, made, baseline="random")
    lines = read_scores(made)[0].lines
    groups = {line["id"]: line["group"] for line in lines["bm25"]}
    assert found.found.groups == len(set(groups.values())) < found.found.n == 80
    rows = next(made.glob("*/bm25-*/rows.jsonl"))
    rows.write_text("".join(reversed(rows.read_text().splitlines(keepends=True))))
    api.score(made)
    assert [line["id"] for line in read_scores(made)[0].lines["bm25"]] != list(groups)
    (again,) = compare(made, made, baseline="random")
    assert [each.id for each in again.worst] == [each.id for each in found.worst]
    lost = [each.new - each.base for each in found.worst]
    assert lost == sorted(lost) and lost[0] < lost[-1] < 0 and len(lost) == 10
    values = {line["id"]: line["metrics"]["nDCG@10"] for line in lines["bm25"]}
    before = {line["id"]: line["metrics"]["nDCG@10"] for line in lines["random"]}
    assert lost[0] == min(values[each] - before[each] for each in values)
    assert (again.found.wins, again.found.difference) == (
        found.found.wins,
        pytest.approx(found.found.difference),
    )


def test_columns_are_the_scores_and_errored_questions_count() -> None:
    def breaks(self: Knows, query: Query, read: Sequence[Document]) -> str:
        if query.text.endswith("3?"):
            raise ValueError("broken")
        return Knows._said(self, query, read)

    base, new = run("a"), run("b", parts={"_said": breaks})
    (table,) = read_scores(new)
    columns = read_columns(new)[table.sample.digest, "ordered+knows"]
    lines = table.lines["ordered+knows"]
    assert columns.ids == [line["id"] for line in lines]
    for metric, values in columns.values.items():
        told = [line["metrics"].get(metric, np.nan) for line in lines]
        assert np.array_equal(values, told, equal_nan=True)
    (found,) = compare(base, new)
    assert found.found.losses == found.changed["state"] > 0  # type: ignore[index]
    assert "(error:" in found.worst[0].new_answer


def test_a_task_may_be_named_without_its_options(capsys: Any) -> None:
    run("a", task="toy:count=60")
    run("a", task="toy:count=80")
    assert [each.task for each in compare("a", "a", tasks=["toy"])] == [
        "toy:count=60",
        "toy:count=80",
    ]
    assert [each.task for each in compare("a", "a", tasks=["toy:count=80"])] == ["toy:count=80"]
    told = refused(capsys, "a", "a", "--task", "toy:count=8")
    assert "no task 'toy:count=8' is in these runs. There are: toy:count=60, toy:count=80" in told


def test_what_only_the_new_run_has_is_told(capsys: Any) -> None:
    for folder, systems in (("a", ["bm25"]), ("b", ["bm25", "random"])):
        api.score(api.run(["toy"], systems, out=Path(folder)))
    assert cli("a", "b") == 0
    assert capsys.readouterr().err == "only in b, so not compared: random on toy\n"
    assert cli("a", "b", "--system", "bm25") == 0
    assert cli("b", "b", "--baseline", "random") == 0
    assert capsys.readouterr().err == ""


def test_a_metric_that_a_ranker_has_not_is_a_dash(capsys: Any) -> None:
    base, new = run("a"), run("b", range(60))
    for folder in (base, new):
        api.score(api.run(["toy:count=200"], ["random", "bm25"], out=folder))
    found = {each.new: each for each in compare(base, new, metrics=["EM"])}
    assert found["ordered+knows"].verdict == "regression"
    assert found["ordered+knows"].p == found["ordered+knows"].found.p  # adjusted for itself alone
    assert found["bm25"].verdict is None and found["bm25"].found.n == 0
    table = written_comparisons(list(found.values()), "markdown")
    (line,) = (line for line in table.splitlines() if line.startswith("| bm25 "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["bm25", "EM", *["–"] * 7, "it has no EM"]
    assert cli("a", "b", "--metric", "EM", "--fail-on-regression") == 1
    assert "p: sign-flip test. 80 %" in capsys.readouterr().out
    assert cli("a", "b", "--metric", "EM", "--json") == 0
    told = {each["new"]: each for each in json.loads(capsys.readouterr().out)}
    assert told["bm25"]["verdict"] is told["bm25"]["base_mean"] is told["bm25"]["p"] is None
    api.score(api.run(["toy:count=200"], ["random+knows"], out=base))
    against = compare(base, base, baseline="ordered+knows", metrics=["EM"])
    assert {each.because for each in against if not each.found.n} == {"not both have EM"}
    assert {each.new: each.found.n for each in against} == {
        "random": 0,
        "bm25": 0,
        "random+knows": 200,
    }
    assert "no system that is compared has EM" in refused(
        capsys, "a", "a", "--baseline", "bm25", "--metric", "EM"
    )


# --- what is not ----------------------------------------------------------------------


def test_other_questions_seeds_and_limits_are_not_comparable(capsys: Any) -> None:
    run("a", limit=100)
    run("b", limit=120)
    assert "because b has it with limit 120 and not 100" in refused(capsys, "a", "b")
    run("c", limit=100, seed=1)
    assert "seed 1 and not 0" in refused(capsys, "a", "c")


def test_other_data_is_not_comparable(capsys: Any) -> None:
    def load(self: Toy, source: Path | None, split: str, limit: int | None) -> Loaded:
        return Loaded(toy_questions(self.count)[1:])

    run("a")
    parts = {"__module__": Toy.__module__, "version": "2", "load": load}
    registry.register("tasks", "toy")(type("Toy", (Toy,), parts))
    run("b")
    assert "because b has it with fingerprint" in refused(capsys, "a", "b")


def test_other_dtypes_lengths_and_instructions_are_not_comparable(capsys: Any) -> None:
    run("a")
    run("b", dtype="bfloat16")
    assert "dtype 'float32' and 'bfloat16'" in refused(capsys, "a", "b")

    def longer(told: Any) -> None:
        for stage in told["stages"].values():
            stage["parts"]["max_new_tokens"] = 7

    run("c")
    edit(Path("c/manifest.json"), longer)
    assert "length of answers 32 and 7" in refused(capsys, "a", "c")


def test_other_depths_are_not_comparable_where_a_ranking_is_judged(capsys: Any) -> None:
    made = api.run(["toy"], ["bm25@2", "bm25", "random"], out=Path("a"))
    api.score(made)
    told = refused(capsys, "a", "a", "--baseline", "bm25", "--metric", "nDCG@10")
    assert "k differs: they rank 2 and 5 documents" in told and "random" not in told


def test_other_scorers_are_not_comparable_if_it_makes_a_difference(capsys: Any) -> None:
    run("a", range(9))
    run("b", range(9))
    edit(Path("a/scores.json"), lambda told: told.update(scorer={"sources": "older"}))
    assert cli("a", "b") == 0
    text = Path("a/scores.jsonl").read_text()
    Path("a/scores.jsonl").write_text(text.replace('"EM": 0.0', '"EM": 1.0', 1))
    capsys.readouterr()
    assert "because the scorers differ: scored again, a has other values of EM" in refused(
        capsys, "a", "b"
    )
    edit(Path("b/manifest.json"), lambda told: told["pipelines"][0].update(data="gone"))
    edit(Path("a/manifest.json"), lambda told: told["pipelines"][0].update(data="gone"))
    assert "cannot be scored again" in refused(capsys, "a", "b")


def test_a_system_that_is_gone_is_told(capsys: Any) -> None:
    for folder, systems in (("a", ["bm25", "random"]), ("b", ["bm25"])):
        api.score(api.run(["toy"], systems, out=Path(folder)))
    assert "random on toy is not comparable, because b does not have it" in refused(
        capsys, "a", "b"
    )
    assert cli("a", "b", "--system", "bm25") == 0
    assert cli("b", "a") == 0  # a new one has nothing to be compared with


def test_a_metric_of_one_run_alone_is_told(capsys: Any) -> None:
    for folder in ("a", "b"):
        api.score(api.run(["toy"], ["bm25", "random"], out=Path(folder)))
    api.score(Path("a"), ["P@3"])
    edit(Path("b/scores.json"), lambda told: told.update(scorer={"sources": "older"}))
    told = refused(capsys, "a", "b", "--metric", "P@3")
    assert "no system that is compared has P@3" in told


def test_a_system_is_not_compared_with_itself(capsys: Any) -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out=Path("a")))
    api.score(api.run(["toy"], ["bm25"], out=Path("b")))
    words = ("--baseline", "bm25", "--system", "bm25")
    for again in ("a", str(Path("a").resolve())):
        told = refused(capsys, "a", again, *words)
        assert "bm25 would be compared with itself. a has random beside it" in told.replace(
            str(Path("a").resolve()), "a"
        )
    assert "b has no other system" in refused(capsys, "b", "b", "--baseline", "bm25")
    assert "b has no random. It has bm25 on toy" in refused(capsys, "b", "a", "--system", "random")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "nowhere"), "does not exist"),
        (("a", "a", "--system", "bm52"), "no system 'bm52'.*There are: bm25, random"),
        (("a", "a", "--task", "tyo"), "no task 'tyo'.*There are: toy"),
        (("a", "a", "--baseline", "bm52"), "no baseline 'bm52' is in a"),
        (("a", "a", "--metric", "EM"), "no system that is compared has EM.*Both have: nDCG@10"),
        (("a", "a", "--tolerance-file", "none.yaml"), "cannot read the tolerances"),
        (("a", "a", "--accept", "--reason", "why"), "is the base itself"),
        (("a", "a", "--acept"), "Did you mean --accept"),
        (("a", "a", "--reason", "why"), "accepted without --accept.*leave --reason out"),
    ],
)
def test_mistakes_are_sentences(words: tuple[str, ...], said: str, capsys: Any) -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out=Path("a")))
    assert re.search(said, refused(capsys, *words), re.DOTALL)


def test_tables_in_markdown_and_names_of_two_systems() -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out=Path("a")))
    text = written_comparisons(compare("a", "a", baseline="random"), "markdown")
    assert "| bm25 " in text and "bm25 against random, nDCG@10" in text


def test_replies_are_compared_too() -> None:
    registry.register("systems", "solves")(Solves)
    for folder in ("a", "b"):
        made = api.score(api.run(["toy"], ["solves"], out=Path(folder)))
        assert [each["errors"] for each in read_manifest(made)["pipelines"]] == [0]
    (found,) = compare("a", "b")
    assert found.metric == "EM" and found.verdict == "no regression"


def test_rows_that_are_the_same_are_not_tested() -> None:
    base, new = run("a"), run("b", range(12))
    for folder in (base, new):
        api.score(api.run(["toy:count=200"], ["random", "bm25"], out=folder))
    found = {each.new: each for each in compare(base, new)}
    assert len(found) == 3 and found["ordered+knows"].p == found["ordered+knows"].found.p

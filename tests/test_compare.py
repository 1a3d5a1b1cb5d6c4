"""Comparing runs: what is compared, what is not, the gate under sabotage, and accepted bases."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Toy, toy_questions

from harness import api, registry
from harness.cli import main
from harness.data import Document, Hit, Loaded, Query, Reply
from harness.report.compare import compare
from harness.report.gate import Tolerance, read_tolerances, tolerance_for, verdict
from harness.report.snapshot import ACCEPTED
from harness.report.verdicts import written_comparisons
from harness.score import normalise
from harness.score.paired import holm, paired
from harness.score.results import read_columns, read_scores

BARE = "mini-hotpotqa:documents=600,questions={}"


class Knows:
    """Answers toy questions right, but for those whose number is in ``wrong``."""

    wrong: frozenset[int] = frozenset()
    says = "by the {} gate"

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> list[Any]:
        return [self._said(query, read) for query, read in zip(queries, documents, strict=True)]

    def _said(self, query: Query, read: Sequence[Document]) -> str:
        number = int(re.sub(r"\D", "", query.text))
        word = next(
            text.partition("by the ")[2].split()[0]
            for text in (each.text for each in read)
            if "stands by the" in text
        )
        return "nowhere" if number in self.wrong else self.says.format(word)


class Ordered:
    """Ranks the pool as it stands."""

    independent = True

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        return [[Hit(d, -float(p)) for p, d in enumerate(q.pool or ())][:k] for q in queries]


def run(
    folder: str, wrong: Sequence[int] = (), task: str = "toy:count=200", **options: Any
) -> Path:
    """A scored run of `Knows`."""
    registry.register("systems", "ordered")(Ordered)
    kind = type("Knows", (Knows,), {"wrong": frozenset(wrong), **options.pop("parts", {})})
    registry.register("systems", "knows")(kind)
    made = api.run([task], ["ordered+knows"], out=Path(folder), **options)
    api.score(made)
    return made


def cli(*words: str) -> int:
    return main(["compare", *words])


def file(tolerance: float, reason: str = "seen", day: date = date(2026, 1, 5)) -> tuple[str, str]:
    Path("gate.yaml").write_text(
        f"tolerances: [{{tolerance: {tolerance}, date: {day}, reason: {reason}}}]"
    )
    return "--tolerance-file", "gate.yaml"


# --- what is compared -----------------------------------------------------------------


def test_the_same_run_twice_changes_no_row(capsys: Any) -> None:
    base, new = run("a"), run("b")
    (found,) = compare(base, new)
    assert (found.verdict, found.found.difference, found.changed) == ("no regression", 0, {})
    assert cli("a", "b", "--fail-on-regression") == 0
    assert "no regression 1 (1: every row is the same)" in capsys.readouterr().out


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
    class Breaks(Knows):
        def _said(self, query: Query, read: Sequence[Document]) -> str:
            if query.text.endswith("3?"):
                raise ValueError("broken")
            return super()._said(query, read)

    base = run("a")
    registry.register("systems", "knows")(Breaks)
    new = api.run(["toy:count=200"], ["ordered+knows"], out=Path("b"))
    api.score(new)
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
    assert cells == ["bm25", "EM", *["–"] * 7, "they do not both have EM"]
    assert cli("a", "b", "--metric", "EM", "--fail-on-regression") == 1
    assert "Holm over 1 comparisons" in capsys.readouterr().out
    assert cli("a", "b", "--metric", "EM", "--json") == 0
    told = {each["new"]: each for each in json.loads(capsys.readouterr().out)}
    assert told["bm25"]["verdict"] is told["bm25"]["base_mean"] is told["bm25"]["p"] is None
    api.score(api.run(["toy:count=200"], ["random+knows"], out=base))
    against = compare(base, base, baseline="ordered+knows", metrics=["EM"])
    assert {each.new: each.found.n for each in against} == {
        "random": 0,
        "bm25": 0,
        "random+knows": 200,
    }
    assert "no system that is compared has EM" in refused(
        capsys, "a", "a", "--baseline", "bm25", "--metric", "EM"
    )


# --- what is not ----------------------------------------------------------------------


def refused(capsys: Any, *words: str) -> str:
    """What is said against a comparison; no number with it."""
    assert cli(*words) == 2
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    return str(told.err)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_other_questions_seeds_and_limits_are_not_comparable(capsys: Any) -> None:
    run("a", limit=100)
    run("b", limit=120)
    assert "because b has it with limit 120 and not 100" in refused(capsys, "a", "b")
    run("c", limit=100, seed=1)
    assert "seed 1 and not 0" in refused(capsys, "a", "c")


def test_other_data_is_not_comparable(capsys: Any) -> None:
    class Other(Toy):
        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            return Loaded(toy_questions(self.count)[1:])

    run("a")
    registry.register("tasks", "toy")(type("Toy", (Other,), {"version": "2"}))
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
    ],
)
def test_mistakes_are_sentences(words: tuple[str, ...], said: str, capsys: Any) -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out=Path("a")))
    assert re.search(said, refused(capsys, *words), re.DOTALL)


# --- the gate -------------------------------------------------------------------------


def test_three_verdicts_and_their_exit_codes(capsys: Any) -> None:
    for folder, wrong in (("a", 0), ("much", 30), ("little", 3)):
        run(folder, range(wrong))
    words = ("--fail-on-regression", "--tolerance-file", "gate.yaml")
    entry = "{tolerance: %s, date: 2026-01-05, reason: seen}"
    Path("gate.yaml").write_text(f"tolerances: [{entry % 0.02}]")
    assert cli("a", "much", *words) == 1
    assert "more than the 0.02 tolerated is lost" in capsys.readouterr().out
    assert cli("a", "much") == 0
    assert cli("a", "little", *words) == 4
    assert "neither show a loss of more than 0.02 nor exclude it" in capsys.readouterr().out
    assert cli("much", "a", *words) == 0
    assert "better" in capsys.readouterr().out
    Path("gate.yaml").write_text(f"tolerances: [{entry % 0.05}]")
    assert cli("a", "little", *words) == 0


def sample(seed: int, drop: float) -> tuple[Any, Any]:
    """EM of two runs of 500 questions that differ by chance in one of ten, and by a drop."""
    rng = np.random.default_rng(seed)
    base = rng.random(500) < 0.55
    noise = rng.random(500) < 0.1
    new = np.where(noise, rng.random(500) < 0.55, base) & (rng.random(500) >= drop / 0.55)
    return base.astype(float), new.astype(float)


def judged(drop: float, *tolerances: float) -> list[list[str]]:
    """The verdicts of 400 resamplings at each tolerance."""
    groups = [str(each) for each in range(500)]
    found = [paired(*sample(seed, drop), groups) for seed in range(400)]
    return [[verdict(each, each.p, t, same=False)[0] for each in found] for t in tolerances]


def test_noise_is_not_flagged_and_a_planted_drop_is_found() -> None:
    for quiet in judged(0.0, 0.0, 0.02):
        assert quiet.count("regression") <= 0.05 * 400
    (planted,) = judged(0.05, 0.02)
    assert planted.count("regression") >= 0.8 * 400


def test_noise_leaves_the_gate_green() -> None:
    """An answer or two of a hundred that another processor rounds otherwise, for good or bad."""
    run("base", range(0, 200, 10))
    for folder, wrong in (("lost", (1, 2)), ("won", ()), ("both", (1,))):
        run(folder, [*range(0, 200 - 10 * (folder != "lost"), 10), *wrong])
        assert gate(Path("base"), Path(folder), 0.05) == 0


def gate(base: Path, new: Path, tolerance: float = 0.02) -> int:
    return cli(str(base), str(new), "--fail-on-regression", *file(tolerance))


def mini(folder: str, system: str, questions: int, sub: str = "data") -> Path:
    made = api.run([BARE.format(questions)], [system], out=Path(folder), data=Path(sub))
    api.score(made)
    return made


def test_bm25_without_idf_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from systems.bm25 import BM25

    base, built = mini("base", "bm25", 600), BM25._index

    def without_idf(self: BM25, texts: Any) -> Any:
        """An index in which every word weighs alike."""
        scores = (index := built(self, texts)).scores
        sizes = np.diff(scores["indptr"])
        idf = np.log(1 + (scores["num_docs"] - sizes + 0.5) / (sizes + 0.5))
        scores["data"] = (scores["data"] / np.repeat(idf, sizes)).astype(np.float32)
        return index

    monkeypatch.setattr(BM25, "_index", without_idf)
    assert gate(base, mini("new", "bm25", 600, "other")) == 1  # its index is not that of the base


def test_rico_with_its_sign_flipped_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from systems.rico import mixture

    base, products = mini("base", "rico:steps=1", 60), mixture.products
    assert gate(base, mini("twin", "rico:steps=1", 60)) == 0
    monkeypatch.setattr(mixture, "products", lambda *given: -products(*given))
    assert gate(base, mini("new", "rico:steps=1", 60)) == 1


def test_a_reader_that_drops_its_last_token_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from systems.reader import Reader

    base, written = mini("base", "bm25+reader@10", 60), Reader._written

    def shorter(self: Reader, prompts: Any) -> Any:
        return [replace(t, text=" ".join(t.text.split()[:-1])) for t in written(self, prompts)]

    monkeypatch.setattr(Reader, "_written", shorter)
    assert gate(base, mini("new", "bm25+reader@10", 60)) == 1


def test_a_scorer_that_skips_articles_is_red(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Whether the code of the scorer is known to be another one or not."""
    parts = {"says": "by {} gate"}
    base = run("base", parts=parts)
    monkeypatch.setattr(normalise, "_ARTICLES", re.compile("(?!)"))
    new = run("new", parts=parts)
    assert gate(base, new) == 2
    assert "EM of 200 rows that are the same is another one" in capsys.readouterr().err
    edit(new / "scores.json", lambda told: told.update(scorer={"sources": "newer"}))
    capsys.readouterr()
    assert gate(base, new) == 2
    assert "scored again, base has other values of EM" in capsys.readouterr().err


# --- tolerances -----------------------------------------------------------------------


def rule(tolerance: float, **parts: str) -> Tolerance:
    return Tolerance(tolerance, date(2026, 1, 5), "why", **parts)


def test_the_last_tolerance_that_fits_counts() -> None:
    given = [rule(0.1), rule(0.2, task="toy"), rule(0.3, system="bm25*", metric="EM")]
    assert tolerance_for(given, "mini-x", "rico", "EM").tolerance == 0.1
    assert tolerance_for(given, "toy:count=3", "rico", "EM").tolerance == 0.2
    assert tolerance_for(given, "toy", "bm25+reader@5", "EM").tolerance == 0.3
    assert tolerance_for(given, "toy", "bm25+reader@5", "F1").tolerance == 0.2
    assert tolerance_for([rule(0.1, task="no")], "toy", "bm25", "EM").tolerance == 0.01


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no list of tolerances"),
        ("tolerances: []", "no list of tolerances"),
        ("tolerances: [3]", "entry 1: it is no"),
        ("tolerance: []", "no list of tolerances"),
        ("tolerances: [", "cannot read"),
        ("tolerances: [{tolerance: 0.1, date: 2026-01-05}]", "it has no reason"),
        ("tolerances: [{tolerance: 0.1, date: 2026-01-05, reason: ' '}]", "it has no reason"),
        ("tolerances: [{tolerance: 0.1, reason: x}]", "it has no date"),
        ("tolerances: [{tolerance: 0.1, date: soon, reason: x}]", "its date cannot be read"),
        ("tolerances: [{tolerance: 2, date: 2026-01-05, reason: x}]", "not in 0..1"),
        ("tolerances: [{tolerance: .nan, date: 2026-01-05, reason: x}]", "not in 0..1"),
        ("tolerances: [{date: 2026-01-05, reason: x}]", "not in 0..1"),
        ("tolerances: [{tolerance: 0.1, date: 2026-01-05, reason: x, tsk: y}]", "has tsk, which"),
        ("tolerances: [{tolerance: 0.1, date: 2026-01-05, reason: 3}]", "reason cannot be read"),
    ],
)
def test_a_wrong_tolerance_file_is_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(api.HarnessError, match=said):
        read_tolerances(path)


TODAY = date.today()
EARLIER = TODAY - timedelta(days=2)


def test_loosening_a_tolerance_needs_a_reason(capsys: Any) -> None:
    run("new", range(5))
    run("later", range(6))
    assert cli("base", "new", "--accept", "--reason", "first", *file(0.02)) == 0
    assert cli("base", "later", *file(0.02)) == 0
    assert cli("base", "later", *file(0.01)) == 0
    capsys.readouterr()
    for loose in (("seen",), ("seen", TODAY), ("of its own", EARLIER)):
        told = refused(capsys, "base", "later", *file(0.05, *loose))
        assert "may fall by 0.05, by 0.02 when the base" in told
        assert f"a date from {TODAY} on" in told
    assert cli("base", "later", *file(0.05, "of its own", TODAY)) == 0


def test_a_base_accepted_without_tolerances_was_held_to_the_default(capsys: Any) -> None:
    run("new", range(5))
    run("later", range(6))
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    capsys.readouterr()
    told = refused(capsys, "base", "later", *file(0.5, "of its own", EARLIER))
    assert "may fall by 0.5, by 0.01 when the base was accepted" in told
    assert cli("base", "later", *file(0.5, "of its own", TODAY)) == 0


def test_a_tolerance_cannot_be_dated_in_the_future(capsys: Any) -> None:
    run("a")
    told = refused(capsys, "a", "a", *file(0.02, day=TODAY + timedelta(days=3)))
    assert "entry 1: its date is in the future" in told
    assert cli("a", "a", *file(0.02, day=TODAY)) == 0


def test_tolerances_that_fit_nothing_are_refused_and_those_that_decide_nothing_told(
    capsys: Any,
) -> None:
    run("a", range(5))
    entry = "{%s, tolerance: 0.3, date: 2026-01-05, reason: seen}"
    words = ("--tolerance-file", "gate.yaml")
    for wrong in ("task: tyo", "metric: em", "system: 'knows*'", "task: toy, metric: Joint-EM"):
        Path("gate.yaml").write_text(f"tolerances: [{entry % wrong}]")
        told = refused(capsys, "a", "a", *words)
        assert (
            f"the tolerance {{{wrong.replace(chr(39), '')}, tolerance: 0.3}} fits nothing" in told
        )
        assert "There are tasks toy:count=200; systems ordered+knows; metrics EM" in told
        assert cli("base", "a", "--accept", "--reason", "first", *words) == 2
        assert not Path("base").exists() and "fits nothing" in capsys.readouterr().err
    entries = [entry % part for part in ("metric: EM", "metric: F1", "task: toy")]
    Path("gate.yaml").write_text(f"tolerances: [{', '.join(entries)}]")
    assert cli("a", "a", *words) == 0
    assert capsys.readouterr().err.splitlines() == [
        "decides nothing here: {metric: EM, tolerance: 0.3}",
        "decides nothing here: {metric: F1, tolerance: 0.3}",
    ]


# --- accepted bases -------------------------------------------------------------------


def test_accepting_replaces_the_base_and_keeps_a_log(capsys: Any) -> None:
    base, new = Path("base"), run("new", range(30))
    old = run("old")
    assert cli("base", "old", "--accept", "--reason", "the first") == 0
    assert cli("base", "new", "--fail-on-regression") == 1
    assert cli("base", "new", "--accept") == 2
    assert "for a reason" in capsys.readouterr().err
    assert compare(base, old)[0].changed == {}
    assert cli("base", "new", "--accept", "--reason", "a worse reader, wanted") == 0
    assert cli("base", "new", "--fail-on-regression") == 0
    assert compare(base, new)[0].changed == {}
    log = [json.loads(line) for line in (base / ACCEPTED).read_text().splitlines()]
    assert [each["reason"] for each in log] == ["the first", "a worse reader, wanted"]
    told = json.loads((base / "manifest.json").read_text())
    whole = json.loads((new / "manifest.json").read_text())
    assert "sessions" in whole and "sessions" not in told
    assert told["facts"].items() < whole["facts"].items()
    assert {path.name for path in Path().glob("base*")} == {"base"}


def accepting(capsys: Any, *words: str) -> str:
    """What is said against accepting."""
    return refused(capsys, *words, "--accept", "--reason", "why")


def test_nothing_but_an_accepted_base_is_replaced(capsys: Any) -> None:
    run("new")
    run("mine", range(9))
    for folder in ("thesis", "base.old", "base.part"):
        Path(folder).mkdir()
        Path(folder, "thesis.txt").write_text("years of work")
    assert "thesis is no accepted base" in accepting(capsys, "thesis", "new")
    assert "mine is no accepted base" in accepting(capsys, "mine", "new")
    assert len(compare("mine", "new")[0].changed or ()) == 1
    for folder in ("new", "mine"):
        assert cli("base", folder, "--accept", "--reason", "why") == 0
    for folder in ("thesis", "base.old", "base.part"):
        assert Path(folder, "thesis.txt").read_text() == "years of work"
    Path("base.accepting").mkdir()
    Path("base.accepting/thesis.txt").write_text("years of work")
    capsys.readouterr()
    assert cli("base", "new", "--accept", "--reason", "why") == 2
    assert "base.accepting is in the way" in capsys.readouterr().err
    assert Path("base.accepting/thesis.txt").exists() and Path("base", ACCEPTED).exists()


def test_a_base_is_replaced_as_a_whole_from_outside(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new")
    for part in (["--system", "ordered+knows"], ["--task", "toy"], ["--metric", "F1"]):
        assert "replaces the whole base" in accepting(capsys, "base", "new", *part)
        assert not Path("base").exists()
    assert "replaces the whole" in accepting(capsys, "base", "new", "--baseline", "ordered+knows")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    run("base/new")
    capsys.readouterr()
    assert "base/new is in base, which is replaced" in accepting(capsys, "base", "base/new")
    monkeypatch.chdir("base")
    assert "the folder that you are in is the base" in accepting(capsys, ".", "../new")
    monkeypatch.chdir("new")
    assert "the folder that you are in is in the base" in accepting(capsys, "..", "../../new")


def accepted(reason: str) -> bool:
    """Whether the base is whole, was accepted for this reason last, and nothing lies beside it."""
    log = Path("base", ACCEPTED).read_text().splitlines()
    whole = compare("base", "base")[0].verdict == "no regression"
    return whole and reason in log[-1] and {p.name for p in Path().glob("base*")} == {"base"}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("fatal", [False, True])
def test_interrupted_while_it_accepts_the_old_base_stays(
    step: int, fatal: bool, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the old base is put aside, or between that and the new one's coming; by Ctrl-C, or
    killed."""
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    rename, done = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == step:
            if fatal:
                os._exit(9)
            raise KeyboardInterrupt
        return rename(self, target)

    words = ("base", "new", "--accept", "--reason", "second")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        if not fatal:
            assert cli(*words) == 130
        elif not (child := os.fork()):
            cli(*words)
            os._exit(0)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            assert Path("base").exists() is (step == 1) and Path("base.accepting").exists()
    if not fatal:
        assert accepted("first") and "goes on" not in capsys.readouterr().err
    assert cli("base", "new") == 0
    assert ("it is back" in capsys.readouterr().err) is (fatal and step == 2)
    assert cli(*words) == 0
    assert accepted("second")


def test_on_a_full_disk_the_old_base_stays(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    copies = []

    def full(source: Path, copy: Path) -> None:
        copies.append(copy)
        if len(copies) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(copy))

    monkeypatch.setattr("shutil.copyfile", full)
    assert cli("base", "new", "--accept", "--reason", "second") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert accepted("first")


def test_accepting_leaves_json_alone_on_the_output(capsys: Any) -> None:
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first", "--json") == 0
    assert capsys.readouterr().out == ""
    assert cli("base", "new", "--accept", "--reason", "second", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["verdict"] == "no regression" and "accepted new" in err


def test_tables_in_markdown_and_names_of_two_systems() -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out=Path("a")))
    text = written_comparisons(compare("a", "a", baseline="random"), "markdown")
    assert "| bm25 " in text and "bm25 against random, nDCG@10" in text


def test_replies_are_compared_too() -> None:
    class Solves:
        def solve(self, queries: Sequence[Query], k: int) -> list[Reply]:
            return [Reply(hits=[Hit((query.pool or ("",))[0], 1.0)]) for query in queries]

    registry.register("systems", "solves")(Solves)
    for folder in ("a", "b"):
        api.score(api.run(["toy"], ["solves"], out=Path(folder)))
    (found,) = compare("a", "b")
    assert found.metric == "EM" and found.verdict == "no regression"


def test_the_example_workflow_runs(capsys: Any) -> None:
    """Its own commands with the tolerances beside it, for a system from outside, on fewer
    questions: the first base, a run that is as good, and one that is not."""
    examples = Path(__file__).parent.parent / "examples" / "ci"
    workflow = (examples / "gate.yml").read_text()
    Path("gate.yaml").write_text((examples / "gate.yaml").read_text())
    steps = yaml.safe_load(workflow)["jobs"]["gate"]["steps"]
    (first,) = re.findall(r"# +python -m (harness compare .*--accept.*)", workflow)
    commands = [step["run"] for step in steps if "-m harness " in step.get("run", "")]
    accept, run, compared = (
        shlex.split(each.partition("harness ")[2]) for each in (first, *commands)
    )
    registry.register("systems", "mine")(Ordered)
    assert main([*run, "--limit", "20"]) == 0
    assert main(accept) == 0
    assert main(compared) == 0
    assert "every row is the same" in capsys.readouterr().out

    class Backwards(Ordered):
        def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
            return [[]] * len(queries)

    registry.register("systems", "mine")(Backwards)
    shutil.rmtree("new")
    assert main([*run, "--limit", "20"]) == 0
    assert main(compared) == 1


def test_a_system_that_breaks_altogether_is_a_regression() -> None:
    class Broken(Ordered):
        def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
            raise ValueError("broken")

    for folder, kind in (("a", Ordered), ("b", Broken)):
        registry.register("systems", "ordered")(kind)
        api.score(api.run(["toy"], ["ordered"], out=Path(folder)))
    (found,) = compare("a", "b")
    assert found.verdict == "regression" and found.changed == {"state": 40}


def test_accepting_without_tolerances_keeps_those_that_were_accepted() -> None:
    run("new", range(5))
    run("later", range(6))
    Path("gate.yaml").write_text("tolerances: [{tolerance: 0.02, date: 2026-01-05, reason: x}]")
    words = ("--tolerance-file", "gate.yaml")
    assert cli("base", "new", "--accept", "--reason", "first", *words) == 0
    assert cli("base", "later", "--accept", "--reason", "second") == 0
    Path("gate.yaml").write_text("tolerances: [{tolerance: 0.5, date: 2026-01-05, reason: x}]")
    assert cli("base", "new", *words) == 2


def test_rows_that_are_the_same_are_not_tested() -> None:
    base, new = run("a"), run("b", range(12))
    for folder in (base, new):
        api.score(api.run(["toy:count=200"], ["random", "bm25"], out=folder))
    found = {each.new: each for each in compare(base, new)}
    assert len(found) == 3 and found["ordered+knows"].p == found["ordered+knows"].found.p

"""The gate: its verdicts, what turns it red, and the tolerances that it is held to."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from gating import cli, edit, file, refused, run
from knowing import Ordered, like

from harness import api, registry
from harness.cli import main
from harness.data import Hit, Query
from harness.report.compare import compare
from harness.report.gate import Tolerance, read_tolerances, tolerance_for, verdict
from harness.score import normalise
from harness.score.paired import paired

BARE = "mini-hotpotqa:documents=600,questions={}"


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


def gate(base: Path, new: Path, tolerance: float = 0.02) -> int:
    return cli(str(base), str(new), "--fail-on-regression", *file(tolerance))


def test_noise_leaves_the_gate_green() -> None:
    """An answer or two of a hundred that another processor rounds otherwise, for good or bad."""
    run("base", range(0, 200, 10))
    for folder, wrong in (("lost", (1, 2)), ("won", ()), ("both", (1,))):
        run(folder, [*range(0, 200 - 10 * (folder != "lost"), 10), *wrong])
        assert gate(Path("base"), Path(folder), 0.05) == 0


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


def test_a_system_that_breaks_altogether_is_a_regression() -> None:
    def retrieve(self: Ordered, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        raise ValueError("broken")

    for folder, kind in (("a", Ordered), ("b", like(Ordered, retrieve=retrieve))):
        registry.register("systems", "ordered")(kind)
        api.score(api.run(["toy"], ["ordered"], out=Path(folder)))
    (found,) = compare("a", "b")
    assert found.verdict == "regression" and found.changed == {"state": 40}


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

    registry.register("systems", "mine")(
        like(Ordered, retrieve=lambda _, queries, k: [[]] * len(queries))
    )
    shutil.rmtree("new")
    assert main([*run, "--limit", "20"]) == 0
    assert main(compared) == 1


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


def test_accepting_without_tolerances_keeps_those_that_were_accepted() -> None:
    run("new", range(5))
    run("later", range(6))
    Path("gate.yaml").write_text("tolerances: [{tolerance: 0.02, date: 2026-01-05, reason: x}]")
    words = ("--tolerance-file", "gate.yaml")
    assert cli("base", "new", "--accept", "--reason", "first", *words) == 0
    assert cli("base", "later", "--accept", "--reason", "second") == 0
    assert cli("base", "new", *words) == 0
    Path("gate.yaml").write_text("tolerances: [{tolerance: 0.5, date: 2026-01-05, reason: x}]")
    assert cli("base", "new", *words) == 2

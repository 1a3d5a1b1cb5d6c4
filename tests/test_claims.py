"""Claim-level metrics: the formulas, the mini world's exact judge, what is written and shown."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from answering import Answering
from claim_tables import counted, drawn

from harness import api, registry
from harness.cli import main
from harness.data import Document, HarnessError, Reply
from harness.report.claims import claim_sheets
from harness.run.store import read_rows
from harness.score.claims import METRICS, OVERALL, Tables, claim_metrics
from harness.score.judging import Case, asked, chosen, judged
from harness.score.results import read_manifest
from harness.spelling import parse_spelled
from tasks.mini.judge import stated
from tasks.mini.reading import statements

TASK = "mini-hotpotqa:documents=300,questions=30,comparisons=true"
PLAIN = "mini-triviaqa:documents=300,questions=20"


# --- the formulas ---------------------------------------------------------------------


def test_a_thousand_random_tables_score_as_counting_does() -> None:
    rng = random.Random(5)
    for _ in range(1000):
        tables = drawn(rng)
        assert claim_metrics(tables) == pytest.approx(counted(tables)), tables


def test_a_worked_example() -> None:
    tables = Tables(
        [True, False, False, False],
        [True, False],
        [[True, False], [True, False], [False, True], [False, False]],
        [[True, False], [False, False]],
    )
    assert claim_metrics(tables) == pytest.approx(
        dict(zip(METRICS, [0.25, 0.5, 1 / 3, 0.5, 0.5, 1, 0.25, 0.25, 0.25, 0, 0.75], strict=True))
    )


@pytest.mark.parametrize(
    ("tables", "above"),
    [
        (Tables([], [], [], []), {}),
        (Tables([], [False], [], [[True, False]]), {"claim_recall": 1, "context_precision": 0.5}),
        (
            Tables([True, False], [], [[True], [False]], []),
            {"precision": 0.5, "hallucination": 0.5, "faithfulness": 0.5},
        ),
        (
            Tables([True, False], [True], [[], []], [[]]),
            {"precision": 0.5, "recall": 1, "f1": 2 / 3},
        ),
    ],
)
def test_a_share_of_nothing_is_0_as_in_ragchecker(tables: Tables, above: dict[str, float]) -> None:
    assert claim_metrics(tables) == pytest.approx({**dict.fromkeys(METRICS, 0), **above})


@pytest.mark.parametrize(
    "tables",
    [
        Tables([True], [True], [[True, False]], [[True]]),
        Tables([True, True], [True], [[True]], [[True]]),
        Tables([True, True], [], [[True], [True, False]], []),
    ],
)
def test_tables_of_different_shapes_are_refused(tables: Tables) -> None:
    with pytest.raises(ValueError):
        claim_metrics(tables)


# --- the exact judge ------------------------------------------------------------------


class World:
    """A prepared mini task, its judge and its questions."""

    def __init__(self, task: str = TASK) -> None:
        from harness.canonical import open_corpus, read_gold, read_lines
        from harness.prepare import prepare

        folder = prepare(task)
        self.judge = registry.task(parse_spelled(task)).judge("test")
        texts = {row["id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
        self.golds = {texts[i]: gold for i, gold in read_gold(folder).items() if gold.answers}
        self.corpus = open_corpus(folder)

    def score(
        self, question: str, response: str, passages: Sequence[Document] = ()
    ) -> dict[str, float]:
        case = Case("", question, self.golds[question].answers[0], response, tuple(passages))
        return claim_metrics(judged(self.judge, case).tables)

    def read(self, question: str) -> list[Document]:
        grades = self.golds[question].relevance
        return [self.corpus[doc_id] for doc_id, grade in grades.items() if grade]


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        *(
            f"mini-{name}:documents=300,questions=20"
            for name in ("triviaqa", "2wikimultihopqa", "musique", "msmarco", "forms")
        ),
        "mini-triviaqa:documents=300,questions=20,profile=shift",
    ],
)
def test_the_gold_answer_has_f1_1_and_a_contradicting_one_0(task: str) -> None:
    world = World(task)
    for question, gold in world.golds.items():
        right = world.score(question, gold.answers[0], world.read(question))
        assert (right["f1"], right["hallucination"]) == (1, 0)
        assert right["claim_recall"] == right["faithfulness"] == 1, question
        wrong = {"yes": "no", "no": "yes"}.get(gold.answers[0], "Brunzolo Zarpim")
        found = world.score(question, wrong, world.read(question))
        assert (found["precision"], found["f1"], found["hallucination"]) == (0, 0, 1)
        assert found["claim_recall"] == 1 and found["context_utilization"] == 0


def test_without_gold_passages_a_right_answer_is_self_knowledge() -> None:
    world = World(PLAIN)
    question, gold = next(iter(world.golds.items()))
    others = [d for d in world.corpus[:20] if not gold.relevance.get(d.id)]
    found = world.score(question, gold.answers[0], others)
    assert (found["self_knowledge"], found["faithfulness"], found["claim_recall"]) == (1, 0, 0)


def test_sentences_claim_what_they_state_and_each_error_costs_precision() -> None:
    world = World(PLAIN)
    question, gold = next(iter(world.golds.items()))
    (passage,) = world.read(question)
    text = gold.answers[0] + "."
    other = next(
        d for d in world.corpus[:40] if d.id != passage.id and len(statements(d.text)[0]) == 1
    )
    beside = other.text.partition(". ")[0] + "."
    noisy = world.score(question, f"{text} {beside}", [passage, other])
    assert noisy["noise_sensitivity_in_irrelevant"] == 0.5 and noisy["precision"] == 0.5
    last = {"precision": 1.1, "f1": 1.1, "hallucination": -0.1, "faithfulness": 1.1}
    for errors in range(4):
        planted = "".join(
            f" Zarp{'ab'[n % 2]}o Brun{'aei'[n]} was a painter." for n in range(errors)
        )
        found = world.score(question, text + planted, [passage])
        assert found["recall"] == 1
        assert found["hallucination"] == pytest.approx(errors / (errors + 1))
        for name in ("precision", "f1", "faithfulness"):
            assert found[name] < last[name]
        last = found


def test_no_answer_claims_nothing() -> None:
    world = World(PLAIN)
    question = next(iter(world.golds))
    for nothing in ("", "No Answer Present.", "."):
        found = world.score(question, nothing, world.read(question))
        assert found.pop("claim_recall") == found.pop("context_precision") == 1
        assert set(found.values()) == {0}


def test_a_nickname_is_the_name() -> None:
    world = World("mini-triviaqa:documents=300,questions=60,profile=hard")
    named = [(q, g.answers[-1]) for q, g in world.golds.items() if len(g.answers) == 3]
    assert named
    for question, nickname in named:
        assert world.score(question, nickname)["f1"] == 1


def test_a_text_that_gives_a_nickname_states_its_facts_under_the_name() -> None:
    held = stated("Varn is also known as Zed. Zed is found in Norland.")
    assert ("Varn", "country", "Norland") in held


def test_a_wrong_choice_claims_the_predicate_of_what_it_chose() -> None:
    judge = World().judge
    chosen = [q for q, (one, _) in judge.asked.items() if one.kind == "comparison"]
    assert chosen
    for question in chosen:
        right, other = (judge._named(step) for step in judge.asked[question][0].steps)
        assert judge.claims(question, other[0]) == [(other[0], *right[1:])]


# --- a run ----------------------------------------------------------------------------


@pytest.fixture
def run() -> Path:
    registry.register("systems", "answering")(Answering)
    return api.run([TASK], ["bm25+answering@3", "bm25+answering@0", "bm25"])


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run."""
    place = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        kinds: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        patch.setattr(registry, "_registered", {**kinds, "systems": {"answering": Answering}})
        ran = api.run([TASK], ["bm25+answering@3"], out=place / "run", data=place / "data")
        return api.score(ran)


@pytest.fixture
def scored(once: Path) -> Path:
    """The same for a test alone."""
    registry.register("systems", "answering")(Answering)
    return Path(shutil.copytree(once, "scored"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "claims.jsonl").read_text().splitlines()]


def test_a_run_is_judged_into_files_of_its_own_and_report_shows_them(run: Path, capsys) -> None:
    api.score(run)
    before = (run / "scores.jsonl").read_bytes(), (run / "scores.json").read_bytes()
    assert main(["claims", str(run)]) == 0
    assert "claims by exact (no prompt) — mechanism test" in capsys.readouterr().out
    assert before == ((run / "scores.jsonl").read_bytes(), (run / "scores.json").read_bytes())
    assert main(["report", str(run)]) == 0
    assert "claims by exact (no prompt)" in capsys.readouterr().out
    found = lines(run)
    assert {each["system"] for each in found} == {"bm25+answering@3", "bm25+answering@0"}
    assert {tuple(each["metrics"]) for each in found if each["system"].endswith("@3")} == {METRICS}
    assert {len(each["metrics"]) for each in found if each["system"].endswith("@0")} == {3}
    scores = {
        (line["system"], line["id"]): line["metrics"]["EM"]
        for line in map(json.loads, before[0].splitlines())
        if "EM" in line["metrics"]
    }
    assert all(each["metrics"]["f1"] == scores[each["system"], each["id"]] for each in found)
    errored = [each for each in found if each["state"] == "error"]
    assert errored and all(set(each["metrics"].values()) == {0} for each in errored)


class Saying(Answering):
    """Says that it read the second passage alone."""

    def answer(self, queries, documents):
        told = super().answer(queries, documents)
        return [
            each if isinstance(each, Exception) else Reply(each, read=(read[1].id,))
            for each, read in zip(told, documents, strict=True)
        ]


def test_passages_are_those_that_were_read(run: Path) -> None:
    registry.register("systems", "saying")(Saying)
    other = api.run([TASK], ["bm25+saying@3"])
    (mine,) = chosen(other, None, None)
    (given,) = chosen(run, None, "bm25+answering@3")
    says = {each.id: each.case.passages for each in asked(other, mine)}
    for each in asked(run, given):
        assert len(each.case.passages) == (0 if each.state else 3)
        assert says[each.id] == each.case.passages[1:2]


def test_what_an_import_read_is_not_made_up_from_its_ranking(run: Path) -> None:
    system = "bm25+answering@3"
    answers = api.submit(run, "hotpotqa", "answers.json", system=system).path
    ranking = api.submit(run, "trec", "ranking.run", system=system).path
    other = api.import_files(answers, TASK, "theirs", "hotpotqa", rankings=ranking).folder
    (entry,) = chosen(other, None, None)
    assert any(row.hits for row in read_rows(other / entry["rows"]))
    assert not any(each.case.passages for each in asked(other, entry))
    api.claims(other)
    assert {tuple(each["metrics"]) for each in lines(other)} == {OVERALL}


def test_records_are_the_means_of_the_lines(run: Path, capsys) -> None:
    assert main(["claims", str(run), "--json", "--system", "bm25+answering@3"]) == 0
    cells = {each["metric"]: each for each in json.loads(capsys.readouterr().out)}
    found = lines(run)
    assert list(cells) == list(METRICS)
    for name, cell in cells.items():
        assert cell["value"] == pytest.approx(sum(e["metrics"][name] for e in found) / len(found))
    errors = sum(each["state"] == "error" for each in found)
    assert {cell["unanswered"] for cell in cells.values()} == {errors} and errors


def test_heads_say_n_gold_and_the_sample_as_those_of_the_scores(scored: Path) -> None:
    api.claims(scored)
    ((_, sheet),), _ = claim_sheets(scored, "markdown")
    cells = api.claim_records(scored)
    count = f"{cells[0].n} ({cells[0].groups})"
    assert [cell.gold for cell in cells] == ["official"] * 10 + [""]
    wanted = [f"{name}\n{count}\nofficial" for name in METRICS[:-1]]
    assert list(sheet.heads[1:-1]) == [*wanted, f"faithfulness\n{count}\nno gold"]
    assert "seed" not in sheet.title
    ((_, terminal),), _ = claim_sheets(scored, "table")
    assert terminal.heads[4] == f"claim\nrecall\n{count}\nofficial"


def test_a_limited_sample_is_told_with_its_seed() -> None:
    registry.register("systems", "answering")(Answering)
    run = api.run([TASK], ["bm25+answering@0"], limit=7, seed=3)
    (head,) = api.claims(run)
    assert head["judged"] == 7
    assert "· 7 questions with a gold answer, seed 3 · claims by exact" in api.claims_report(run)


def test_judging_again_replaces_and_changed_rows_are_not_shown(run: Path, capsys) -> None:
    api.claims(run)
    first = (run / "claims.jsonl").read_text(), (run / "claims.json").read_text()
    api.claims(run, system="bm25+answering@3")
    assert sorted(lines(run), key=str) == sorted(map(json.loads, first[0].splitlines()), key=str)
    rows = next(path for path in run.rglob("rows.jsonl") if "answering@3" in str(path))
    rows.write_text(rows.read_text() + "\n")
    shown = api.claims_report(run)
    assert "answering@3" not in shown and "answering@0" in shown and "judge again" in shown


def test_the_command_shows_what_it_judged_and_report_all_in_the_manifest_s_order(
    run: Path, capsys
) -> None:
    three, none = systems = ["bm25+answering@3", "bm25+answering@0"]
    api.claims(run, system=none)
    api.claims(run)
    api.claims(run, Agreeing())
    for system in systems:
        assert main(["claims", str(run), "--system", system]) == 0
        out = capsys.readouterr().out
        assert out.count("claims by exact") == 1 and "Agreeing" not in out
        assert [system in out for system in systems] == [system == each for each in systems]
        assert main(["claims", str(run), "--system", system, "--json"]) == 0
        cells = json.loads(capsys.readouterr().out)
        assert {(cell["system"], cell["judge"]) for cell in cells} == {(system, "exact")}
        shown = api.claims_report(run)
        first, second = shown.index("claims by exact"), shown.index("claims by Agreeing")
        assert first < shown.index(three) < shown.index(none) < second
        heads = json.loads((run / "claims.json").read_text())
        assert list(dict.fromkeys(head["system"] for head in heads)) == systems


def test_data_that_was_moved_is_found_by_its_task_and_fingerprint(run: Path, capsys) -> None:
    system = "bm25+answering@3"
    words = ["claims", str(run), "--system", system]
    shutil.move("data", "moved")
    assert main(words) == 2
    assert "nor under data. This needs the very data" in capsys.readouterr().err
    assert main([*words, "--data", "moved"]) == 0
    assert main([*words, "--data", "moved", "--export", "out.json"]) == 0
    assert len(json.loads(Path("out.json").read_text())["results"]) == len(lines(run)) == 30
    Path(read_manifest(run)["pipelines"][0]["data"].replace("data/", "moved/", 1)).rename("x")
    capsys.readouterr()
    assert main([*words, "--data", "moved"]) == 2
    assert "nor under moved" in capsys.readouterr().err


def _cut(run: Path) -> None:
    kept = (run / "claims.jsonl").read_text().splitlines(keepends=True)
    (run / "claims.jsonl").write_text("".join(kept[:-1]))


def _in_first(name: str, value: object, file: str = "claims.json") -> Callable[[Path], object]:
    def changed(run: Path) -> None:
        heads = json.loads((run / "claims.json").read_text())
        heads[0][name] = value
        (run / "claims.json").write_text(json.dumps(heads))

    def changed_line(run: Path) -> None:
        found = lines(run)
        found[0][name] = value
        (run / "claims.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))

    return changed if file == "claims.json" else changed_line


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (lambda run: (run / "claims.json").write_text("[{}]"), "claims.json"),
        (lambda run: (run / "claims.json").write_text("{}"), "claims.json"),
        (lambda run: (run / "claims.json").write_text("[3]"), "claims.json"),
        (lambda run: (run / "claims.json").write_text("[{"), "claims.json"),
        (_in_first("replies", "many"), "claims.json"),
        (_in_first("seed", 3), "claims.json"),
        (lambda run: (run / "claims.jsonl").unlink(), "claims.jsonl"),
        (lambda run: (run / "claims.jsonl").write_text("[]\n"), "claims.jsonl"),
        (_cut, "claims.jsonl"),
        (_in_first("metrics", {"f1": "x"}, "claims.jsonl"), "claims.jsonl"),
        (_in_first("metrics", [], "claims.jsonl"), "claims.jsonl"),
    ],
)
def test_damaged_files_cost_no_scores_and_are_mended_by_judging_again(
    scored: Path, damage: Callable[[Path], object], file: str, capsys
) -> None:
    run = scored
    api.claims(run, Agreeing())
    damage(run)
    left = {path.name: path.read_bytes() for path in run.glob("claims.*")}
    note = f"No claims of {run} are shown: {run / file} is broken or cut off. Judge again"
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out
    assert "EM" in out and note in out and "claims by" not in out
    html = unescape(api.page(run.resolve(), Path("p.html")).read_text())
    assert note.replace(str(run), run.name) in html and str(run.resolve().parent) not in html
    assert main(["claims", str(run), "--system", "bm25+answering@3"]) == 0
    out = capsys.readouterr().out
    assert "claims by exact" in out and note not in out
    assert {n.removesuffix(".damaged"): (run / n).read_bytes() for n in kept(run)} == left


def kept(run: Path) -> list[str]:
    """The names of files that were set aside."""
    return [path.name for path in run.glob("claims.*.damaged")]


class Agreeing:
    """Takes every answer for one claim, and every claim for true."""

    prompt, replies, unread = "", 0, 0

    def open(self, task, split, folder) -> None: ...

    def claims(self, question, text):
        return [("it", "is", text)]

    def check(self, question, claims, references):
        return [[True] * len(claims) for _ in references]


class Failing(Agreeing):
    """Cannot judge one question in a few."""

    every = 4

    def claims(self, question, text):
        self.replies += 1
        if self.replies % self.every == 0:
            raise HarnessError("the judge is ill.")
        return super().claims(question, text)


def test_any_object_judges_beside_another(run: Path) -> None:
    api.claims(run)
    api.claims(run, Agreeing())
    assert {each["judge"] for each in lines(run)} == {"exact", "Agreeing"}
    mine = [each for each in lines(run) if each["judge"] == "Agreeing" and not each["state"]]
    assert all(each["metrics"]["recall"] == (1 if each["response_claims"] else 0) for each in mine)


def test_questions_that_a_judge_fails_on_are_counted_and_left_out(run: Path, capsys) -> None:
    registry.register("judges", "failing")(Failing)
    assert main(["claims", str(run), "--judge", "failing"]) == 3
    out, err = capsys.readouterr()
    heads = json.loads((run / "claims.json").read_text())
    assert all(head["failed"] and head["judged"] for head in heads)
    assert f"failed={heads[0]['failed']}" in out and "the judge is ill" in err
    assert sum(head["judged"] for head in heads) == len(lines(run))


def test_a_judge_that_keeps_failing_is_not_asked_on(run: Path, monkeypatch) -> None:
    monkeypatch.setattr(Failing, "every", 1)
    judge = Failing()
    with pytest.raises(HarnessError, match="is ill"):
        api.claims(run, judge)
    assert judge.replies == 3 and not (run / "claims.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge", "exakt"], "Did you mean 'exact'"),
        (["--judge", "exact:x=1"], "exact has no option"),
        (["--system", "e5"], "no such pipeline that answers"),
    ],
)
def test_a_mistake_is_one_sentence(run: Path, words: list[str], said: str, capsys) -> None:
    assert main(["claims", str(run), *words]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_real_tasks_have_no_exact_judge(capsys) -> None:
    registry.register("systems", "answering")(Answering)
    folder = api.run(["toy"], ["bm25+answering:solves=false@3"])
    assert main(["claims", str(folder)]) == 2
    assert "toy is no generated world" in capsys.readouterr().err


def test_a_run_without_gold_answers_has_nothing_to_judge(run: Path, monkeypatch) -> None:
    monkeypatch.setattr("harness.score.judging.asked", lambda *given: [])
    assert [head["judged"] for head in api.claims(run)] == [0, 0]
    assert "judged=0" in api.claims_report(run)

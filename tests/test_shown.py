"""Demonstrations: train questions with what the stages before retrieve for them, and no others."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timed_systems
from conftest import Toy, toy_questions

from harness import api, manifest, registry
from harness.cli import main
from harness.data import Brief, Example, HarnessError, Hit, Loaded, RawQuestion
from harness.run.plan import make_plan
from harness.run.store import read_rows

TAUGHT = toy_questions(60)[40:]
"""The questions of the train split."""


class School(Toy):
    """The toy task with a train split. ``changed``: a train question is left out; ``repeats``: all
    train questions ask what the test asks, in other signs; ``odd``: two of three have no answer,
    or cannot be answered; ``same``: both splits have the same questions."""

    name = "school"
    splits = ("test", "train")

    def __init__(
        self,
        count: int = 12,
        changed: bool = False,
        repeats: bool = False,
        odd: bool = False,
        same: bool = False,
    ) -> None:
        super().__init__(count)
        self.changed, self.repeats, self.odd, self.same = changed, repeats, odd, same

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        if split == "test" or self.same:
            return super().load(source, split, limit)
        taught = TAUGHT[int(self.changed) :]
        if self.repeats:
            tests = [f"THE {each.text.lower()} ?!" for each in toy_questions(12)]
            taught = [replace(each, text=text) for each, text in zip(taught, tests, strict=False)]
        if self.odd:
            taught = [_odd(number, each) for number, each in enumerate(taught)]
        return Loaded(taught)


def _odd(number: int, question: RawQuestion) -> RawQuestion:
    changes: list[dict[str, Any]] = [{}, {"answers": ()}, {"answerable": False}]
    return replace(question, **changes[number % 3])


class Pupil:
    """Keeps what it is told when it is opened."""

    told: Brief

    def __init__(self, shots: int = 3, name: str = "") -> None:
        self.shots = shots

    def open(self, corpus: Any, folder: Any, brief: Brief) -> None:
        type(self).told = brief

    def answer(self, queries: Any, documents: Any) -> list[str]:
        return ["gate"] * len(queries)


@pytest.fixture(autouse=True)
def _known() -> None:
    registry.register("tasks", "school")(School)
    registry.register("systems", "pupil")(Pupil)


def shown(system: str, task: str = "school", **more: Any) -> tuple[Example, ...]:
    """The demonstrations of the last stage of a pipeline, in a run of its own."""
    shown.runs += 1  # type: ignore[attr-defined]
    api.run([task], [system], out=f"run{shown.runs}", **more)  # type: ignore[attr-defined]
    return Pupil.told.examples


shown.runs = 0  # type: ignore[attr-defined]


def questions(examples: tuple[Example, ...]) -> list[str]:
    return [each.question for each in examples]


# --- which ----------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["pool", "corpus"])
def test_demonstrations_are_train_questions_with_what_the_stages_before_retrieve(
    setting: str,
) -> None:
    found = shown("bm25@3+random@2+pupil", setting=setting)
    answers = {each.text: each.answers[0] for each in TAUGHT}
    assert len(set(questions(found))) == 3
    assert all(answers[each.question] == each.answer for each in found)
    run = api.run(["school"], ["bm25@3+random@2"], split="train", setting=setting, out="t")
    (about,) = json.loads((run / "manifest.json").read_text())["pipelines"]
    lines = Path(about["data"], "queries.jsonl").read_text().splitlines()
    texts = {row["id"]: row["text"] for row in map(json.loads, lines)}
    ranked = {texts[r.id]: [hit.id for hit in r.hits] for r in read_rows(run / about["rows"])}
    for each in found:
        assert [document.id for document in each.documents] == ranked[each.question]
        assert len(each.documents) == 2


def test_they_have_the_passages_that_the_stage_is_given_to_read() -> None:
    assert [len(each.documents) for each in shown("bm25+pupil@2")] == [2] * 3
    assert [len(each.retrieved) for each in Pupil.told.examples] == [5] * 3
    assert [len(each.documents) for each in shown("bm25+pupil")] == [5] * 3
    assert [each.documents for each in shown("bm25+pupil@0")] == [()] * 3
    alone = shown("pupil@0")
    assert [each.documents for each in alone] == [()] * 3
    assert questions(alone) == questions(shown("bm25+pupil@2"))


def test_the_seed_draws_them_and_nothing_that_is_asked_does() -> None:
    found = shown("bm25@3+pupil")
    assert shown("bm25@3+pupil", limit=2) == found
    assert shown("bm25@3+pupil", batch_size=1) == found
    assert shown("bm25@3+pupil", "school:count=30") == found
    assert shown("bm25@3+pupil:name=other") == found
    assert shown("bm25@3+pupil:shots=2") == found[:2]
    assert questions(shown("bm25@3+pupil", seed=1)) != questions(found)


def test_a_system_that_wants_none_is_shown_none() -> None:
    api.run(["toy"], ["bm25+pupil:shots=0"])
    assert Pupil.told.examples == ()


def test_questions_without_answer_or_passages_are_passed_over() -> None:
    class Shy:
        def retrieve(self, queries: Any, k: int) -> list[list[Hit]]:
            return [[] if "1" in q.text else [Hit(q.pool[0], 1.0)] for q in queries]

    registry.register("systems", "shy")(Shy)
    good = {each.text for each in TAUGHT[::3]}
    assert set(questions(shown("bm25+pupil:shots=6", "school:odd=true"))) <= good
    found = shown("shy+pupil:shots=4", "school:odd=true")
    assert set(questions(found)) <= {text for text in good if "1" not in text}


def test_a_system_may_rank_with_them_too() -> None:
    class Ranks:
        def __init__(self, shots: int = 2) -> None:
            self.shots = shots

        def open(self, corpus: Any, folder: Any, brief: Brief) -> None:
            Pupil.told = brief

        def retrieve(self, queries: Any, k: int) -> list[list[Hit]]:
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "ranks")(Ranks)
    assert [len(each.documents) for each in shown("bm25@4+ranks@1")] == [4, 4]
    assert [len(each.documents) for each in shown("ranks@1+bm25")] == [0, 0]


# --- what is refused ------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(["run", *words]) == code
    return " ".join(capsys.readouterr().err.split())


def test_a_train_question_that_the_test_asks_too_is_exit_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = refused(
        capsys, "--task", "school:repeats=true", "--system", "bm25@3+pupil", "--limit", "1"
    )
    assert "is asked in the evaluated split, too. Take another --seed" in told
    assert "bm25@3+pupil on school:repeats=true" in told
    for seed in range(1, 5):  # whether or not it is the one that is asked
        with pytest.raises(HarnessError, match="is asked in the evaluated split"):
            api.run(["school:repeats=true"], ["bm25@3+pupil"], limit=1, seed=seed)


def test_train_itself_and_tasks_without_it_are_refused_with_the_other_mistakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    systems = ["--system", "bm25@3+pupil", "bm52"]
    told = refused(capsys, "--task", "school", "--split", "train", *systems)
    assert "train is what is asked. Write --split with one of: test." in told and "bm52" in told
    told = refused(capsys, "--task", "toy", *systems)
    assert "toy has no split train. Leave shots= out" in told and "bm52" in told
    told = refused(capsys, "--task", "school", "--system", "bm25+pupil@2+pupil")
    assert "both want demonstrations" in told
    assert not Path("results").exists() and not Path("data").exists()


def test_a_train_split_that_is_not_prepared_or_the_same_is_refused() -> None:
    class Distant(School):
        name, offline = "distant", False

    registry.register("tasks", "distant")(Distant)
    api.prepare("distant")
    make_plan(["distant"], ["bm25+pupil:shots=0"])
    with pytest.raises(HarnessError, match=r"distant \(train\).*prepare distant --split train"):
        make_plan(["distant"], ["bm25+pupil"])
    with pytest.raises(HarnessError, match="train and test are the same questions"):
        make_plan(["school:same=true"], ["bm25+pupil"])


def test_too_few_train_questions_are_one_sentence_and_cost_no_other_system() -> None:
    with pytest.raises(HarnessError, match=r"only 20 of the 21 demonstrations.*fewer shots=") as e:
        api.run(["school"], ["bm25+pupil:shots=21", "bm25"], out="r")
    assert len(e.value.sentences) == 1
    (path,) = Path("r").glob("school*/*/rows.jsonl")
    assert len(list(read_rows(path))) == 12
    with pytest.raises(HarnessError, match="only 7 of the 8"):
        api.run(["school:odd=true"], ["pupil:shots=8@0"])


def test_a_train_question_that_errors_is_told_and_asked_again() -> None:
    broken = True

    class Moody:
        def retrieve(self, queries: Any, k: int) -> list[list[Hit]]:
            if broken and any(q.text in {each.text for each in TAUGHT} for q in queries):
                raise RuntimeError("not today")
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "moody")(Moody)
    with pytest.raises(HarnessError, match=r"a train question errored.*not today"):
        api.run(["school"], ["moody@2+pupil"], out="r")
    broken = False
    api.run(["school"], ["moody@2+pupil"], out="r")
    assert len(Pupil.told.examples) == 3


# --- keys, files, gold ----------------------------------------------------------------


def parts(folder: Path) -> dict[str, Any]:
    """What the key of the last pipeline was made of, and what stands beside it."""
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][-1]
    found = json.loads((folder / entry["rows"]).with_name("stage.json").read_text())
    shown = found.pop("demonstrations", None)
    assert manifest.stage_key(found) == entry["key"]
    return {**found, "demonstrations": shown, "key": entry["key"]}


def test_the_key_depends_on_the_train_split_only_where_it_is_shown() -> None:
    tasks = ["school", "school:changed=true"]
    pipelines = [(0, "bm25@3+pupil:shots=0"), (3, "bm25@3+pupil"), (3, "pupil@0")]
    for shots, system in pipelines:
        found = [parts(api.run([task], [system], out=f"{task}{system}")) for task in tasks]
        assert found[0]["fingerprint"] == found[1]["fingerprint"]
        assert (found[0]["key"] == found[1]["key"]) == (not shots)
        assert ("shown" in found[0]) == bool(shots)
        told = [manifest.digest(each.question) for each in Pupil.told.examples]
        assert found[1]["demonstrations"] == (told or None)


def test_the_key_depends_on_the_count_and_the_stages_before() -> None:
    systems = ["bm25@3+pupil", "bm25@3+pupil:shots=2", "bm25:k1=1@3+pupil", "bm25@2+pupil"]
    found = [parts(api.run(["school"], [each], out=f"r{n}")) for n, each in enumerate(systems)]
    assert len({each["key"] for each in found}) == 4
    assert len({(each["shown"]["after"], each["shown"]["count"]) for each in found}) == 4


def test_their_rows_are_in_the_run_and_in_no_manifest_or_table() -> None:
    systems = ["bm25@3+pupil", "bm25@3"]
    folder = api.run(["school"], systems)
    api.score(folder)
    entries = json.loads((folder / "manifest.json").read_text())["pipelines"]
    assert sorted(each["system"] for each in entries) == sorted(systems)
    assert {record.split for record in api.records(folder)} == {"test"}
    (rows,) = folder.glob("shown/school.train.pool/bm25@3-*/rows.jsonl")
    ids = {row.id for row in read_rows(rows)}
    tests = {row.id for path in folder.glob("school*/*/rows.jsonl") for row in read_rows(path)}
    assert 3 <= len(ids) <= 3 + 8 and not ids & tests
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    api.run(["school"], systems)
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    assert after == before


def test_what_was_retrieved_for_them_is_not_retrieved_again() -> None:
    asked: list[str] = []

    class Counting:
        def retrieve(self, queries: Any, k: int) -> list[list[Hit]]:
            asked.extend(q.text for q in queries)
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "counting")(Counting)
    systems = ["counting@3+pupil", "counting@3+pupil:name=other", "counting@3+pupil:shots=2"]
    api.run(["school"], systems)
    assert len(asked) == len(set(asked)) == 12 + 3 + 8


def test_gold_of_what_is_asked_is_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    test, train = api.prepare("school"), api.prepare("school", split="train")
    opened: list[str] = []
    real = io.open

    def noted(file: Any, *rest: Any, **named: Any) -> Any:
        opened.append(str(file))
        return real(file, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", noted)
        api.run(["school"], ["bm25@3+pupil"])
    assert {name for name in opened if "gold" in name} == {str(train / "gold.jsonl")}
    (test / "gold.jsonl").unlink()
    (test / "gold.jsonl").mkdir()
    assert len(shown("bm25@3+pupil")) == 3


def test_nothing_that_a_system_is_told_names_task_or_split() -> None:
    shown("bm25@3+pupil")
    told = repr(Pupil.told)
    assert "school" not in told and "train" not in told and "native" not in told


# --- latency --------------------------------------------------------------------------


def test_latency_shows_what_the_run_shows_and_asks_the_stages_before_no_more() -> None:
    registry.register("systems", "pupil")(timed_systems.Pupil)
    log = Path("shown.jsonl").absolute()
    system = f"bm25@3+pupil:shots=3,log={log}"
    api.run(["school"], [system], out="r")
    rows = {path: path.read_bytes() for path in Path("r").rglob("rows.jsonl")}
    api.latency(["school"], [system], questions=3, rounds=2, out="r")
    ran, *measured = log.read_text().splitlines()
    assert measured == [ran] * 2
    assert [len(documents) for _, _, documents in json.loads(ran)] == [3, 3, 3]
    assert {path: path.read_bytes() for path in Path("r").rglob("rows.jsonl")} == rows


def test_latency_draws_them_itself_and_says_why_it_cannot() -> None:
    registry.register("systems", "pupil")(timed_systems.Pupil)
    log = Path("shown.jsonl").absolute()
    systems = [f"bm25@3+pupil:shots=3,log={log}", "bm25@3+pupil:shots=21"]
    folder = api.latency(["school"], systems, questions=3, rounds=1)
    one, other = api.latencies(folder)
    assert one.failed == "" and len(json.loads(log.read_text())) == 3
    assert "only 20 of the 21" in other.failed


def test_a_folder_of_ones_own_shows_its_train_split(tmp_path: Path) -> None:
    place = tmp_path / "own"
    place.mkdir()
    rows = {
        name: [
            {"id": f"{name}{n}", "question": f"Who built the {w}?", "golden_answers": [w]}
            for n, w in enumerate(words)
        ]
        for name, words in (("dev", ("tower", "gate")), ("train", ("mill", "barn", "well")))
    }
    rows["corpus"] = [
        {"id": str(n), "contents": f'"{w}"\nThe {w} was built by the {w}.'}
        for n, w in enumerate(("tower", "gate", "mill", "barn", "well"))
    ]
    for name, lines in rows.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen: list[Example] = []

    @api.register("systems", "watching")
    class Watching:
        shots = 2

        def open(self, corpus: Any, folder: Any, brief: Brief) -> None:
            seen.extend(brief.examples)

        def answer(self, queries: Any, documents: Any) -> list[str]:
            return ["none"] * len(queries)

    api.run([f"jsonl:{place},split=dev"], ["bm25+watching@1"])
    assert len(seen) == 2 and {each.answer for each in seen} <= {"mill", "barn", "well"}
    assert all(each.documents[0].title == each.answer for each in seen)
    (place / "train.jsonl").unlink()
    with pytest.raises(HarnessError, match="has no split train"):
        make_plan([f"jsonl:{place},split=dev"], ["bm25+watching@1"])

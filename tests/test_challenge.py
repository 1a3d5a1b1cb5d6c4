"""A challenge: registered before the seed, run on the worlds of the seed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forging import SUBMISSION, edit, forged, packed

from harness.cli import main
from harness.data import HarnessError
from harness.manifest import digest
from harness.report.bundle import pack
from harness.verify.challenge import register, run, world
from harness.verify.checks import verify
from tasks.mini.tasks import Mini

TASKS = ["mini-hotpotqa", "mini-musique"]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Mini tasks are small if they name no size, as those of a challenge cannot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mini.__init__, "__defaults__", (300, 12, 0, "standard", False))
        yield


@pytest.fixture(scope="module")
def made(small: None, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("challenge")
    told = place / "submission.json"
    told.write_text(json.dumps(SUBMISSION))
    registration = register(["random", "bm25@3"], TASKS, place / "registration.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        bundle = run(registration, "8f3a11", told, place / "good.zip", place / "data")
    return SimpleNamespace(place=place, data=place / "data", good=bundle, told=told)


def found(bundle: Path, made: SimpleNamespace) -> dict[str, str]:
    return {each.rule: each.sentence for each in verify(bundle, made.data).findings}


def test_a_registered_run_on_the_worlds_of_the_seed_is_accepted(made) -> None:
    report = verify(made.good, made.data, again=3)
    assert [str(each) for each in report.findings] == []
    assert report.badge == "re-run (12, 100%; all must agree)"


def challenge(change: Callable[[dict[str, Any]], object], again: bool = True) -> Any:
    """Change challenge.json; ``again``: and give the registration the digest that it now has."""

    def changed(told: dict[str, Any]) -> None:
        change(told)
        if again and isinstance(told.get("registration"), dict):
            told["registration"].pop("digest", None)
            told["registration"]["digest"] = digest(told["registration"])

    return lambda files: edit(files, "challenge.json", changed)


def registered(told: dict[str, Any], system: str = "bm25@3") -> dict[str, Any]:
    return told["registration"]["pipelines"][system][0]


FORGED = {
    "another seed": challenge(lambda told: told.update(seed="9")),
    "no seed": challenge(lambda told: told.update(seed="")),
    "a seed of spaces": challenge(lambda told: told.update(seed="  ")),
    "a seed with a space": challenge(lambda told: told.update(seed="8f3a11 ")),
    "a seed with what does not show": challenge(lambda told: told.update(seed="8f3a11\u200b")),
    "a seed that is a number": challenge(lambda told: told.update(seed=9)),
    "other code": challenge(lambda told: registered(told).update(sources="0" * 16)),
    "other packages": challenge(lambda told: registered(told).update(versions="0" * 16)),
    "another checkpoint": challenge(lambda told: registered(told).update(files=["0" * 16])),
    "other options": challenge(lambda told: registered(told).update(stage="bm25@4")),
    "a stage more": challenge(
        lambda told: told["registration"]["pipelines"]["bm25@3"].append(registered(told))
    ),
    "a pipeline left out": challenge(
        lambda told: told["registration"]["pipelines"].update({"bm25@9": [registered(told)]})
    ),
    "a pipeline more": challenge(lambda told: told["registration"]["pipelines"].pop("bm25@3")),
    "a task left out": challenge(
        lambda told: told["registration"]["tasks"].append("mini-triviaqa")
    ),
    "a task more": challenge(lambda told: told["registration"]["tasks"].pop()),
    "a real task": challenge(lambda told: told["registration"]["tasks"].append("hotpotqa")),
    "a task of another size": challenge(
        lambda told: told["registration"]["tasks"].append("mini-hotpotqa:questions=20")
    ),
    "the usual profile, named": challenge(
        lambda told: told["registration"].update(tasks=["mini-hotpotqa:profile=standard", TASKS[1]])
    ),
    "a task twice": challenge(lambda told: told["registration"]["tasks"].append(TASKS[0])),
    "no task of the harness": challenge(lambda told: told["registration"]["tasks"].append("<b>")),
    "asked otherwise": challenge(lambda told: told["registration"]["asked"].update(batch_size=3)),
    "asked of nothing": challenge(lambda told: told["registration"].update(asked={})),
    "another setting": challenge(
        lambda told: told["registration"]["asked"].update(setting="corpus")
    ),
    "registered after it was run": challenge(
        lambda told: told["registration"].update(time="2999-01-01T00:00:00+00:00")
    ),
    "registered at no time": challenge(lambda told: told["registration"].update(time="yesterday")),
    "a changed registration": challenge(lambda told: registered(told).update(files=["x"]), False),
    "a registration of wrong types": challenge(
        lambda told: told["registration"].update(pipelines=[1])
    ),
    "a stage of wrong types": challenge(lambda told: registered(told).update(files="x")),
    "a stage that says more": challenge(lambda told: registered(told).update(foo=1)),
    "a stage that says less": challenge(lambda told: registered(told).pop("sources")),
    "no registration": challenge(lambda told: told.pop("registration")),
    "a list": lambda files: files.update({"challenge.json": b"[]"}),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_not_the_registered_challenge_is_refused(name: str, made) -> None:
    assert set(found(forged(made.good, FORGED[name]), made)) == {"challenge"}


def test_seed_and_registration_are_shown_and_can_be_held_against_the_published_one(made) -> None:
    told = json.loads((made.place / "registration.json").read_text())
    (notice,) = verify(made.good, made.data).notices
    for each in ("8f3a11", told["digest"], told["time"], "--challenge-seed"):
        assert each in notice
    report = verify(made.good, made.data, published="8f3a11")
    assert not report.findings and "--challenge-seed" not in report.notices[0]
    (finding,) = verify(made.good, made.data, published="8f3a12").findings
    assert finding.rule == "challenge" and "8f3a12" in finding.sentence
    plain = forged(made.good, lambda files: files.pop("challenge.json"))
    assert not verify(plain, made.data).findings
    (finding,) = verify(plain, made.data, published="8f3a11").findings
    assert (finding.rule, finding.where) == ("challenge", "challenge.json")


def test_nothing_is_asked_before_all_that_is_needed_is_there(made) -> None:
    registration = made.place / "registration.json"
    Path("there.zip").touch()
    Path("blank.json").write_text("{}")
    for seed, told, out, said in (
        ("", made.told, "x.zip", ["'' is no seed"]),
        (" ", made.told, "x.zip", ["' ' is no seed"]),
        ("8f3a11\n", made.told, "x.zip", ["is no seed"]),
        ("1", None, "x.zip", ["needs --submission"]),
        ("1", Path("nowhere.json"), "there.zip", ["nowhere.json", "there.zip exists"]),
        ("1", Path("blank.json"), "x.zip", ["system is missing", "licence is missing"]),
    ):
        with pytest.raises(HarnessError) as error:
            run(registration, seed, told, Path(out), made.data)
        assert all(each in str(error.value) for each in said)
        assert not Path("results").exists()


def test_part_of_the_questions_is_no_challenge(made) -> None:
    """The registered pipelines on the right worlds, but on a sample of their own."""
    told = json.loads((made.place / "registration.json").read_text())
    worlds = [world("8f3a11", task) for task in told["tasks"]]
    packed(made.place, made.data, worlds, ["random", "bm25@3"], name="part", limit=5)
    note = Path("challenge.json")
    note.write_text(json.dumps({"seed": "8f3a11", "registration": told}))
    bundle = pack(made.place / "part", made.told, Path("part.zip"), note)
    assert found(bundle, made) == {"challenge": "not all questions were asked."}


def test_another_split_or_setting_is_no_challenge(made) -> None:
    """A world's splits are worlds of their own, of which one could keep the best."""
    told = json.loads((made.place / "registration.json").read_text())
    worlds = [world("8f3a11", task) for task in told["tasks"]]
    note = Path("challenge.json")
    note.write_text(json.dumps({"seed": "8f3a11", "registration": told}))
    how = {"split": "dev", "setting": "corpus"}
    packed(made.place, made.data, worlds, ["random", "bm25@3"], name="other", **how)
    bundle = pack(made.place / "other", made.told, Path("other.zip"), note)
    sentences = {each.sentence for each in verify(bundle, made.data).findings}
    assert {"the setting is not as registered.", "the split is not test."} <= sentences


def test_worlds_follow_from_the_seed_and_the_name_of_a_task_alone(made) -> None:
    assert world("a", TASKS[0]) == world("a", TASKS[0])
    worlds = {world(seed, task) for seed in ("a", "b") for task in TASKS}
    assert len({each.rpartition("=")[2] for each in worlds}) == 4
    hard = world("a", f"{TASKS[0]}:profile=hard")
    assert hard == world("a", TASKS[0]).replace(":", ":profile=hard,")
    usual = [f"{TASKS[0]}:profile=standard", TASKS[0], f"{TASKS[0]}:profile=hard", TASKS[1]]
    other = register(["bm25@7"], usual, Path("other.json"))
    tasks = json.loads(other.read_text())["tasks"]
    assert tasks == [TASKS[0], f"{TASKS[0]}:profile=hard", TASKS[1]]


HAND_EDITED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a field more": (lambda told: told["asked"].update(foo=1), "its asked is not"),
    "a limit": (lambda told: told["asked"].update(limit=3), "its asked is not"),
    "a word for a number": (lambda told: told["asked"].update(batch_size="x"), "its asked is not"),
    "yes for a number": (lambda told: told["asked"].update(batch_size=True), "its asked is not"),
    "a number for a word": (lambda told: told["asked"].update(dtype=16), "its asked is not"),
    "no such setting": (lambda told: told["asked"].update(setting=["pool"]), "its asked is not"),
    "no seed": (lambda told: told["asked"].pop("seed"), "its asked is not"),
    "a seed of its own": (lambda told: told["asked"].update(seed=3), "its asked is not"),
    "a list of how": (lambda told: told.update(asked=[]), "its asked is not"),
    "no such device": (lambda told: told["asked"].update(device="abacus"), "no device 'abacus'"),
    "no stages": (lambda told: told.update(pipelines={"bm25": []}), "its stages of 'bm25'"),
    "an empty stage": (lambda told: told.update(pipelines={"bm25": [{}]}), "its stages of 'bm25'"),
    "stages of another": (
        lambda told: told["pipelines"].update(bm25=told["pipelines"]["random"]),
        "its stages of 'bm25'",
    ),
    "no pipelines": (lambda told: told.update(pipelines={}), "its pipelines are"),
    "a list of pipelines": (lambda told: told.update(pipelines=["bm25"]), "its pipelines are"),
    "no pipeline": (lambda told: told["pipelines"].update({"bm25+": []}), "an empty stage"),
    "no tasks": (lambda told: told.update(tasks=[]), "its tasks are no list"),
    "a task of no type": (lambda told: told.update(tasks=[3]), "its tasks are no list"),
    "a task of another size": (
        lambda told: told.update(tasks=["mini-hotpotqa:questions=20"]),
        "mini-hotpotqa:questions=20 is no task of a challenge",
    ),
    "other code": (
        lambda told: told["pipelines"]["bm25@3"][0].update(sources="0" * 16),
        "bm25@3 is not made of what was registered",
    ),
    "a system that is not here": (
        lambda told: told["pipelines"].update(
            bm52=[{**told["pipelines"]["random"][0], "stage": "bm52"}]
        ),
        "no system 'bm52'",
    ),
}


@pytest.mark.parametrize("name", HAND_EDITED)
def test_a_registration_edited_by_hand_asks_nothing(name: str, made, capsys) -> None:
    change, said = HAND_EDITED[name]
    told = json.loads((made.place / "registration.json").read_text())
    told.pop("digest")
    change(told)
    Path("r.json").write_text(json.dumps({**told, "digest": digest(told)}))
    words = ["challenge", "run", "r.json", "--seed", "8f3a11", "--submission", str(made.told)]
    assert main([*words, "-o", "x.zip", "--data", str(made.data)]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not Path("results").exists() and not Path("x.zip").exists()


def test_a_registration_says_what_a_pipeline_is_made_of(made) -> None:
    told = json.loads((made.place / "registration.json").read_text())
    assert told["digest"] == digest({k: v for k, v in told.items() if k != "digest"})
    reader = register(["bm25+reader@2"], TASKS[:1], Path("reader.json"))
    stage = json.loads(reader.read_text())["pipelines"]["bm25+reader@2"][1]
    assert stage["stage"] == "reader@2" and stage["files"]


@pytest.mark.parametrize(
    ("systems", "tasks", "said"),
    [
        (["bm25"], ["hotpotqa"], "hotpotqa is no task of a challenge"),
        (["bm25"], ["jsonl"], "jsonl needs dir="),
        (["bm25"], ["x.yaml"], "is no task of a challenge"),
        (["bm25"], ["mini-hotpotqa:seed=3"], "is no task of a challenge"),
        (["bm25"], ["mini-hotpotqa:20"], "is no task of a challenge"),
        (["bm25"], ["mini-hotpotqa:profile=hard,questions=20"], "is no task of a challenge"),
        (["bm25"], ["mini-hotpotqa:profile=harder"], "profile=harder is wrong"),
        (["trec:file=x.run"], TASKS, "takes results from a file"),
        (["bm52"], TASKS, "no system 'bm52'"),
    ],
)
def test_what_cannot_be_registered(systems, tasks, said) -> None:
    with pytest.raises(HarnessError) as error:
        register(systems, tasks, Path("x.json"))
    assert said in str(error.value)
    assert not Path("x.json").exists()


def test_on_the_command_line(made, capsys) -> None:
    told = str(made.told)
    words = ["challenge", "register", "--system", "random", "bm25@3", "--task", *TASKS]
    assert main([*words, "-o", "r.json"]) == 0
    assert set(json.loads(Path("r.json").read_text())["pipelines"]) == {"random", "bm25@3"}
    assert main([*words, "-o", "r.json"]) == 2
    again = ["challenge", "run", "r.json", "--seed", "8f3a11", "--submission", told]
    assert main([*again, "-o", "c.zip", "--data", str(made.data)]) == 0
    verify_ = ["verify", "c.zip", "--data", str(made.data)]
    assert main(verify_) == 0
    assert "seed 8f3a11" in capsys.readouterr().out
    assert main([*verify_, "--challenge-seed", "8f3a11"]) == 0
    assert main([*verify_, "--challenge-seed", "7"]) == 1
    Path("board").mkdir()
    Path("c.zip").rename("board/c.zip")
    board = ["leaderboard", "board", "-o", "b.html", "--data", str(made.data), "--challenge-seed"]
    for seed, refused in (("8f3a11", ""), ("7", "c.zip: not ranked")):
        assert main([*board, seed]) == 0
        err = capsys.readouterr().err
        assert refused in err if refused else "not ranked" not in err
    assert main(["challenge", "run", "r.json", "--seed", "1", "-o", "e.zip"]) == 2
    assert "--submission" in capsys.readouterr().err
    Path("r.json").write_text(Path("r.json").read_text().replace("bm25@3", "bm25@4"))
    assert main([*again, "-o", "d.zip", "--data", str(made.data)]) == 2
    assert "not what it hashes to" in capsys.readouterr().err

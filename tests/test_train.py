"""Training: a killed run ends with the same weights, and a folder is never mixed up."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness import registry
from harness.cli import main
from harness.data import HarnessError
from harness.train import ABOUT, STATE, train, train_on
from systems.training.recipe import Recipe

RECIPES = (
    "mini-lm",
    "mini-lm-mixtures",
    "mini-llama",
    "mini-selector",
    "mini-e5",
    "mini-cross-encoder",
)


@pytest.fixture(autouse=True)
def every_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.train.EVERY", 2)


def bytes_of(folder: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "config.json", "words.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Kill training in the step that is named."""
    at: list[int] = []
    whole = Recipe.step

    def step(self: Recipe) -> dict[str, float]:
        if self.done in at:
            at.remove(self.done)
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Recipe, "step", step)
    yield at


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_weights_come_twice_and_after_a_kill(
    name: str, tmp_path: Path, killed: list[int]
) -> None:
    first = bytes_of(train(name, tmp_path / "a", seed=3, steps=5))
    assert bytes_of(train(name, tmp_path / "b", seed=3, steps=5)) == first
    killed.extend([3, 4])  # after a kept state, and again right after going on
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(name, tmp_path / "c", seed=3, steps=5)
        assert not (tmp_path / "c" / ABOUT).exists()
    assert bytes_of(train(name, tmp_path / "c", seed=3, steps=5)) == first
    assert not (tmp_path / "c" / STATE).exists()
    curve = json.loads((tmp_path / "c" / ABOUT).read_text())["curve"]
    assert [point["step"] for point in curve] == [2, 4, 5]
    assert bytes_of(train(name, tmp_path / "d", seed=4, steps=5)) != first


def test_training_changes_every_weight_and_lowers_the_loss(tmp_path: Path) -> None:
    train("mini-lm", tmp_path / "one", steps=1)
    train("mini-lm", tmp_path / "many", steps=40)
    one, many = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "many"))
    same = [name for name in one if torch.equal(one[name], many[name])]
    assert not same
    about = json.loads((tmp_path / "many" / ABOUT).read_text())
    assert about["curve"][-1]["loss"] < about["curve"][0]["loss"] - 0.5
    assert about["name"] == "mini-lm"
    assert about["world"] == registry.find("tasks", "mini-hotpotqa").version


def test_a_whole_checkpoint_is_left_alone_and_another_is_refused(tmp_path: Path) -> None:
    out = train("mini-e5", tmp_path, steps=1)
    before = (out / "model.safetensors").stat().st_mtime_ns
    train("mini-e5", tmp_path, steps=1)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(HarnessError) as caught:
        train("mini-lm", tmp_path, seed=5, steps=2)
    said = f"{tmp_path} holds mini-e5 (seed 0, 1 steps), not mini-lm (seed 5, 2 steps)."
    assert said in str(caught.value)
    about = json.loads((out / ABOUT).read_text())
    (out / ABOUT).write_text(json.dumps(about | {"world": "mini-0"}))
    with pytest.raises(HarnessError, match="holds mini-e5 of another world"):
        train("mini-e5", tmp_path, steps=1)


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors", "config.json"])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(HarnessError, match=f"other files .{name}.*new or empty folder"):
        train("mini-e5", tmp_path, steps=1)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "mini-e5"}'])
@pytest.mark.parametrize("name", [ABOUT, STATE])
def test_a_broken_file_is_named_and_no_traceback(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(HarnessError, match=f"{tmp_path / name} is .*[Rr]emove it"):
        train("mini-e5", tmp_path, steps=1)


def test_another_recipes_state_is_refused(tmp_path: Path, killed: list[int]) -> None:
    killed.append(3)
    with pytest.raises(KeyboardInterrupt):
        train("mini-e5", tmp_path, steps=5)
    with pytest.raises(HarnessError, match=f"{STATE} is broken or of another recipe"):
        train("mini-lm", tmp_path, steps=5)
    with pytest.raises(HarnessError, match=r"mini-e5 \(seed 0, 5 .*, not mini-e5 \(seed 1, 5"):
        train("mini-e5", tmp_path, seed=1, steps=5)


def test_killed_while_the_checkpoint_is_written_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("harness.train._write", killed)
        train("mini-e5", tmp_path, steps=2)
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / STATE).exists()
    state = (tmp_path / STATE).read_bytes()
    train("mini-e5", tmp_path, steps=2)
    (tmp_path / STATE).write_bytes(state)  # killed before it could remove the state
    train("mini-e5", tmp_path, steps=2)
    assert not (tmp_path / STATE).exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "mini-lm", "--out", str(tmp_path / "m"), "--steps", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "m")
    assert main(["train", "mini-ml", "--out", str(tmp_path / "n")]) == 2
    assert "mini-lm" in capsys.readouterr().err
    assert main(["train", "mini-lm", "--out", str(tmp_path / "n"), "--steps", "0"]) == 2
    assert not (tmp_path / "n").exists()


def test_where_steps_are_long_the_state_is_kept_between_points(
    tmp_path: Path, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.train.EVERY", 100)
    monkeypatch.setattr("harness.train.SECONDS", 0.0)
    killed.append(3)
    with pytest.raises(KeyboardInterrupt):
        train("mini-e5", tmp_path / "m", seed=3, steps=5)
    assert (tmp_path / "m" / STATE).exists()
    again = bytes_of(train("mini-e5", tmp_path / "m", seed=3, steps=5))
    assert again == bytes_of(train("mini-e5", tmp_path / "n", seed=3, steps=5))


def test_where_keeping_is_dear_it_waits(
    tmp_path: Path, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.train.EVERY", 1)
    monkeypatch.setattr("harness.train.DEAR", 0.0)
    whole, kept = Recipe.keep, []

    def keep(self: Recipe, path: Path, notes: str) -> None:
        kept.append(self.done)
        whole(self, path, notes)

    monkeypatch.setattr(Recipe, "keep", keep)
    train("mini-e5", tmp_path / "m", seed=3, steps=4)
    assert kept == [1, 4]


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("systems.training.state.save_file", full)
    assert main(["train", "mini-e5", "--out", str(tmp_path / "m"), "--steps", "2"]) == 2
    (told,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert told.startswith(f"harness: cannot write or read {tmp_path / 'm' / STATE}")
    assert "No space left on device" in told


def test_each_kind_of_recipe_has_its_own_door(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="dro is trained on tasks"):
        train("dro", tmp_path / "m")
    with pytest.raises(HarnessError, match="taught by the generated world alone"):
        train_on("mini-e5", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_interrupted_run_keeps_the_step_it_was_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = Recipe.step, []

    def step(self: Recipe) -> dict[str, float]:
        done.append(self.done)
        if self.done == 2:
            signal.raise_signal(signal.SIGINT)
        return whole(self)

    monkeypatch.setattr(Recipe, "step", step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train("mini-e5", tmp_path, seed=3, steps=5)
    assert signal.getsignal(signal.SIGINT) is before
    train("mini-e5", tmp_path, seed=3, steps=5)
    assert done == [0, 1, 2, 3, 4]

"""The shipped checkpoints: small, of this world and these recipes, able to do what they are for.

How well they do it is measured by ``benchmarks/fresh.py`` and ``benchmarks/reference.py``; here is
only what turns red when one of them is broken.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.cli import main
from harness.data import Brief, Document, Gold, Query
from harness.manifest import digest, file_hash
from harness.registry import find, task
from harness.score.answers import score_squad
from harness.spelling import parse_spelled
from systems.dro.settings import Settings
from systems.dro.training import Dro
from systems.raggd.settings import Settings as RaggdSettings
from systems.raggd.training import RagGd
from systems.reader import Reader
from systems.retrollm.settings import Settings as RetroSettings
from systems.retrollm.training import RetroLLM
from systems.training import CHECKPOINTS as TAUGHT
from tasks.mini.questions import questions
from tasks.mini.world import VERSION, World

CHECKPOINTS = Path(__file__).parent.parent / "systems" / "checkpoints"
NAMES = sorted(TAUGHT)
TRAINED = {"mini-dro": Dro, "mini-retrollm": RetroLLM, "mini-raggd": RagGd}
"""Systems that were trained on tasks, by the name of their checkpoint."""
LANGUAGE = ("mini-lm", "mini-lm-mixtures", "mini-llama")


def about(name: str) -> dict:
    return json.loads((CHECKPOINTS / name / "about.json").read_text())


def test_all_are_shipped_and_together_small() -> None:
    folders = {each.name for each in CHECKPOINTS.iterdir() if each.is_dir()}
    assert folders == {*NAMES, *TRAINED}
    size = sum(file.stat().st_size for file in CHECKPOINTS.rglob("*") if file.is_file())
    assert size <= 7_050_000


@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_their_recipe_makes_of_this_world(name: str) -> None:
    """A change of the recipe or of the world asks for new checkpoints."""
    cls, said = find("recipes", name), about(name)
    assert (said["name"], said["seed"], said["steps"]) == (name, 0, cls.steps)
    assert said["world"] == VERSION
    recipe = cls(task(parse_spelled(cls.task)), 0, 1)
    assert said["recipe"] == json.loads(json.dumps(recipe.described()["recipe"]))
    folder = CHECKPOINTS / name
    assert json.loads((folder / "config.json").read_text()) == json.loads(json.dumps(recipe.config))
    assert json.loads((folder / "words.json").read_text())["known"] == list(recipe.words.known)


def test_dro_is_what_its_command_makes_without_options() -> None:
    said = about("mini-dro")
    assert (said["name"], said["seed"], said["world"]) == ("dro", 0, VERSION)
    assert (said["tasks"], said["first"]) == (list(Dro.tasks), Dro.first)
    assert said["recipe"] == asdict(Settings().checked())
    begun = {"selector": "mini-selector", "generator": "mini-llama"}
    for part, base in begun.items():
        weights = CHECKPOINTS / base / "model.safetensors"
        assert said["start"][part] == digest([file_hash(weights)])
        adapter = json.loads((CHECKPOINTS / "mini-dro" / part / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == base
    best = said["iterations"][said["iterations"][-1]["best"]]
    assert best["dev_EM"] > said["iterations"][0]["dev_EM"] + 0.1


def test_retrollm_is_what_its_command_makes_without_options() -> None:
    said, folder = about("mini-retrollm"), CHECKPOINTS / "mini-retrollm"
    assert (said["name"], said["seed"], said["world"]) == ("retrollm", 0, VERSION)
    assert (said["tasks"], said["first"]) == (list(RetroLLM.tasks), RetroLLM.first)
    assert said["recipe"] == asdict(RetroSettings().checked())
    weights = CHECKPOINTS / "mini-llama" / "model.safetensors"
    assert said["start"] == digest([file_hash(weights)])
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "mini-llama"
    assert said["curve"][-1]["answer"] > -0.05


def test_raggd_is_what_its_command_makes_without_options() -> None:
    said, folder = about("mini-raggd"), CHECKPOINTS / "mini-raggd"
    assert (said["name"], said["seed"], said["world"]) == ("raggd", 0, VERSION)
    assert (said["tasks"], said["first"]) == (list(RagGd.tasks), RagGd.first)
    assert said["recipe"] == asdict(RaggdSettings().checked())
    weights = CHECKPOINTS / "mini-llama" / "model.safetensors"
    assert said["start"] == digest([file_hash(weights)])
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "mini-llama"
    assert sorted(adapter["target_modules"]) == ["k_proj", "q_proj", "v_proj"]
    assert {each.name for each in folder.glob("predictor-*")} == {"predictor-5.safetensors"}
    assert 0.3 < said["curve"][-1]["cosine_5"] <= 1


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_reader_answers_on_worlds_it_never_saw(name: str) -> None:
    world = World(400, "checkpoints", "test")
    asked = list(questions(world, ["single"], 100))
    reader = Reader(model=name)
    reader.open(None, None, Brief(max_new_tokens=16))
    found = {}
    for what in ("gold", "nothing"):
        read = [
            [_document(world, number) for number in question.gold] if what == "gold" else []
            for question in asked
        ]
        replies = reader.answer([Query(question.id, question.text) for question in asked], read)
        right = [
            score_squad(reply.answer, None, Gold({}, (question.answer, *question.aliases)))["EM"]
            for question, reply in zip(asked, replies, strict=True)
        ]
        found[what] = sum(right) / len(right)
    assert found["gold"] >= 0.7
    assert found["nothing"] <= 0.15


def _document(world: World, number: int) -> Document:
    passage = world.passage(number)
    return Document("", passage.text, passage.title)


@pytest.mark.parametrize(
    "system", ["reader", "e5", "bm25@10+cross-encoder", "bm25@10+query-likelihood"]
)
def test_they_refuse_real_tasks_and_name_the_option(
    system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    system = "bm25+reader" if system == "reader" else system
    name = system.rpartition("+")[2]
    assert main(["run", "--task", "hotpotqa", "--system", system]) == 2
    assert f"Write {name}:model=ORG/NAME." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "fitting"),
    [
        ("e5:model=mini-lm", "mini-e5"),
        ("bm25+cross-encoder:model=mini-e5", "mini-cross-encoder"),
        (
            "bm25+reader:model=mini-cross-encoder",
            "mini-llama, mini-lm, mini-lm-mixtures, mini-raggd, mini-retrollm, mini-selector",
        ),
        (
            "bm25+query-likelihood:model=mini-e5",
            "mini-llama, mini-lm, mini-lm-mixtures, mini-raggd, mini-retrollm, mini-selector",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_before_anything_starts(
    system: str, fitting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--task", "mini-hotpotqa", "--system", system]) == 2
    assert f"Shipped are {fitting}." in capsys.readouterr().err
    assert not Path("results").exists()

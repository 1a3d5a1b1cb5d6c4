"""What is refused before a run starts: checkpoints of another world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError
from harness.run.plan import make_plan
from systems.models import hub


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints by the default names, made for the world mini-9."""
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "checkpoints")
    for name in ("mini-lm", "mini-e5", "mini-cross-encoder"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        (folder / "about.json").write_text('{"world": "mini-9"}')
    return tmp_path / "checkpoints"


SYSTEMS = ("e5", "cross-encoder", "query-likelihood", "bm25+reader")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_shipped_checkpoint_refuses_real_tasks_and_says_which_option_mends_it(
    system: str, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--task", "hotpotqa", "--system", system]) == 2
    told = " ".join(capsys.readouterr().err.split())
    name = system.rpartition("+")[2]
    assert f"the checkpoint of {name} was made for the generated world mini-9" in told
    assert f"Write {name}:model=ORG/NAME." in told


@pytest.mark.parametrize("version, refused", [("mini-9", False), ("mini-8", True)])
def test_a_checkpoint_serves_its_own_world_alone(
    version: str, refused: bool, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class World(registry.task(make_plan(["toy"], ["bm25"]).jobs[0].spelled).__class__):  # type: ignore[misc]
        name, generated = "toy", True

    World.version = version
    api.register("tasks", "toy")(World)
    if not refused:
        make_plan(["toy"], list(SYSTEMS))
        return
    with pytest.raises(HarnessError, match=r"toy is of mini-8\. Train it again") as caught:
        make_plan(["toy"], list(SYSTEMS))
    assert len(caught.value.sentences) == len(SYSTEMS)


def test_all_refusals_are_told_together(shipped: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        make_plan(["toy"], [*SYSTEMS, "bm25:k1=-1"])
    assert len(caught.value.sentences) == len(SYSTEMS) + 1


def test_other_checkpoints_serve_any_task(shipped: Path) -> None:
    (shipped / "mini-lm" / "about.json").unlink()
    made: Any = make_plan(["toy"], ["bm25+reader"])
    assert len(made.jobs) == 1

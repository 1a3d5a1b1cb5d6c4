"""What the README shows works as it stands."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from readme_table import PLACE, first_table

from harness import api
from harness.cli import main
from harness.registry import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=["five lines", "a system", "a task"])
def test_its_python_runs_and_prints_a_table(code: str, capsys) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert "nDCG@10" in capsys.readouterr().out


@pytest.mark.parametrize("code", BLOCKS[1:])
def test_a_system_and_a_task_are_twenty_lines_each(code: str) -> None:
    body = re.split(r"\n(?=@api|CAPITALS)", code, maxsplit=1)[1].rpartition("print(")[0]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20


def test_its_map_has_every_benchmark() -> None:
    told = README.partition("\nbenchmarks/ ")[2].partition("\nresults/")[0]
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(re.findall(r"\w+\.py", told)) == scripts


def test_extras_are_installed_in_one_way() -> None:
    modules = [p for name in ("harness", "tasks", "systems") for p in (ROOT / name).rglob("*.py")]
    told = []
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *modules):
        text = " ".join(path.read_text(encoding="utf-8").split())
        told += [(path, each) for each in re.findall(r"pip install [^`\"]*?\[\w+\]", text)]
    assert len(told) > 5
    for path, each in told:
        assert each.startswith("pip install -c constraints.txt -e '.["), path


def test_it_names_every_task_and_system() -> None:
    for kind in ("tasks", "systems"):
        for name in table(kind):
            if name not in ("toy", "jsonl") and not name.startswith("mini"):
                assert f"`{name}`" in README or f"`{name.removeprefix('msmarco')}`" in README, name


def test_its_submission_is_written_and_scored(capsys) -> None:
    block = README.partition("## Submissions")[2].partition("```\n")[2].partition("```")[0]
    commands = [shlex.split(line)[3:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["run", "submit", "score-file"]
    assert [main(words) for words in commands] == [0, 0, 0]
    assert "joint_f1: 0.0" in capsys.readouterr().out


def test_a_plugged_in_package_is_used_by_the_same_path(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "their_package.py").write_text(BLOCKS[1].rpartition("print(")[0])
    info = tmp_path / "their_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[harness.systems]\ntheirs = their_package:Overlap\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = api.run(["toy"], ["theirs:shortest=2"])
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][0]
    stage = json.loads((folder / entry["rows"]).with_name("stage.json").read_text())
    assert entry["system"] == "theirs:shortest=2"
    assert "their_package" in stage["sources"]


def test_its_table_is_what_its_command_prints(tmp_path: Path) -> None:
    """Other processors may round otherwise and turn an answer or two, and no more."""
    found = PLACE.search(README)
    assert found is not None
    number = re.compile(r"\d+\.\d{3}|(?<=abstained=)\d+")
    shown, now = found[0], first_table(tmp_path)
    assert re.sub(r"\s+|-+", " ", number.sub("", shown)) == re.sub(
        r"\s+|-+", " ", number.sub("", now)
    )
    for one, other in zip(number.findall(shown), number.findall(now), strict=True):
        assert math.isclose(float(one), float(other), abs_tol=0.011 if "." in one else 3)

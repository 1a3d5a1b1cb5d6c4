"""Every example runs by the command that stands in it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from harness import api
from harness.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = {
    "own_system/pyproject.toml": 1,
    "own_system_file/rerank.py": 1,
    "own_task/task.yaml": 1,
    "experiment/experiment.yaml": 1,
    "adapters/pyterrier_style.py": 1,
    "adapters/mteb_style.py": 1,
}
"""The examples with commands of the harness in them, and how many."""
COMMAND = re.compile(r"^#? *python -m harness ((?:[^\n\\]|\\\n)*)", re.MULTILINE)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as a user has them, in a folder of the test's own."""
    shutil.copytree(EXAMPLES, "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys, "path", list(sys.path))


def commands(name: str) -> list[list[str]]:
    """The commands of an example, on few questions of a small world."""
    found = COMMAND.findall((EXAMPLES / name).read_text().replace("[--limit 20 …]", ""))
    words = [shlex.split(text.replace("\\\n", " ")) for text in found]
    small = {"mini-hotpotqa": "mini-hotpotqa:documents=300,questions=40"}
    return [[small.get(word, word) for word in each] for each in words]


def entries(run: str) -> dict[str, dict]:
    told = json.loads((Path(run) / "manifest.json").read_text())["pipelines"]
    return {each["system"]: each for each in told}


def run(name: str, *more: str) -> dict[str, dict]:
    (words,) = commands(name)
    assert main([*words, "--limit", "8", "--out", "run", *more]) == 0
    assert all(each["errors"] == 0 for each in entries("run").values())
    return entries("run")


def test_each_has_its_command() -> None:
    assert {name: len(commands(name)) for name in FILES} == FILES


def test_a_system_in_a_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip lays it out: the module and its entry points on the path."""
    told = tomllib.loads(Path("examples/own_system/pyproject.toml").read_text())["project"]
    (group,) = told["entry-points"].items()
    info = Path(f"site/{told['name'].replace('-', '_')}-{told['version']}.dist-info")
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n"
    )
    lines = [f"[{group[0]}]", *(f"{name} = {target}" for name, target in group[1].items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    shutil.copy("examples/own_system/own_system.py", "site")
    monkeypatch.syspath_prepend(str(Path("site").absolute()))
    found = run("own_system/pyproject.toml")
    stage = json.loads(
        (Path("run") / found["overlap:shortest=4"]["rows"]).with_name("stage.json").read_text()
    )
    assert "own_system" in stage["sources"]
    code = [line for line in Path("site/own_system.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 20


def test_a_system_in_a_file() -> None:
    assert "bm25@5+examples/own_system_file/rerank.py:Opening:words=12" in run(
        "own_system_file/rerank.py"
    )


def test_a_task_of_ten_lines_and_a_folder() -> None:
    text = (EXAMPLES / "own_task/task.yaml").read_text().splitlines()
    assert len([line for line in text if line.strip() and not line.startswith("#")]) <= 10
    run("own_task/task.yaml")
    cells = {(cell.system, cell.metric): cell for cell in api.records("run")}
    assert {metric for _, metric in cells} == {"nDCG@10", "R@3"}
    assert all((cell.n, cell.groups) == (8, 4) for cell in cells.values())
    assert cells["bm25", "R@3"].value > cells["random", "R@3"].value
    answers = {"q1": "1911", "q2": "the Hedda", "q3": "in Brome"}
    Path("p.json").write_text(json.dumps(answers))
    told = api.run(["examples/own_task/task.yaml"], ["predictions:p.json"])
    means = {cell.metric: cell.value for cell in api.records(api.score(told))}
    assert means == {"EM": 2 / 8, "F1": pytest.approx(2 / 8)}


def test_an_experiment_makes_its_tables(tmp_path: Path) -> None:
    path = Path("examples/experiment/experiment.yaml")
    told = yaml.safe_load(path.read_text())
    told["tasks"][0] += ":documents=300,questions=40"
    path.write_text(yaml.safe_dump(told))
    found = run("experiment/experiment.yaml")
    assert list(found) == told["systems"]
    table = Path(told["report"]).read_text()
    assert table.count("| bm25:stemmer=none@5") == 2
    assert "P@1" in table


def test_a_pyterrier_style_object() -> None:
    found = run("adapters/pyterrier_style.py")
    assert len(found) == 2


def test_an_mteb_style_object() -> None:
    pytest.importorskip("datasets", reason="mteb's objects are handed data sets of datasets")
    assert len(run("adapters/mteb_style.py")) == 2

"""A run as a file is the run that its options would be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import main, spread

WHOLE = {
    "tasks": ["toy", "toy:count=12"],
    "systems": ["bm25", "bm25@3+random@2"],
    "split": "test",
    "setting": "pool",
    "limit": 9,
    "seed": 3,
    "set": ["bm25.k1=0.9"],
    "metrics": ["P@1"],
    "dtype": "float32",
    "batch_size": 4,
    "latency": "none",
    "data": "elsewhere",
}
TYPED = "--task toy toy:count=12 --system bm25 bm25@3+random@2 --split test --setting pool"
TYPED += " --limit 9 --seed 3 --set bm25.k1=0.9 --metric P@1 --dtype float32 --batch-size 4"
TYPED += " --latency none --data elsewhere"


def written(**keys: Any) -> str:
    Path("e.yaml").write_text(yaml.safe_dump(keys))
    return "e.yaml"


def entries(run: str) -> list[dict[str, Any]]:
    return json.loads((Path(run) / "manifest.json").read_text())["pipelines"]


def test_it_is_the_same_command_by_options() -> None:
    path = written(**WHOLE, out="one", report="tables/one.md")
    assert main(["run", path]) == 0
    assert main(["run", *TYPED.split(), "--out", "two", "--report", "tables/two.md"]) == 0
    assert entries("one") == entries("two")
    assert len(entries("one")) == 4
    assert Path("one/scores.jsonl").read_text() == Path("two/scores.jsonl").read_text()
    assert "| P@1" in Path("tables/one.md").read_text()
    assert Path("tables/one.md").read_text() == Path("tables/two.md").read_text()


def test_without_out_it_goes_on_in_the_folder_of_the_typed_command(capsys) -> None:
    assert main(["run", "--experiment", written(**WHOLE)]) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    sessions = json.loads((Path(first) / "manifest.json").read_text())["sessions"]
    assert main(["run", *TYPED.split()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first
    assert json.loads((Path(first) / "manifest.json").read_text())["sessions"] == sessions


def test_what_is_typed_beside_it_counts() -> None:
    words = ["--limit", "2", "--system", "random", "--out", "two", "--set", "random.x=1"]
    path = written(**WHOLE, out="one")
    assert main(["run", path, *words]) == 2
    assert main(["run", path, *words[:6]]) == 2
    plain = written(**{key: value for key, value in WHOLE.items() if key != "set"}, out="one")
    assert main(["run", plain, *words[:6]]) == 0
    assert {(each["system"], each["limit"], each["seed"]) for each in entries("two")} == {
        ("random", 2, 3)
    }
    assert not Path("one").exists()


def test_it_cannot_allow_code_and_who_starts_it_can(capsys) -> None:
    Path("own.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\n"
        "class Own:\n    def retrieve(self, queries, k):\n        return [[] for _ in queries]\n"
    )
    told = {"tasks": ["toy"], "systems": ["own.py:Own"], "out": "r"}
    assert main(["run", written(**told, allow_code=True)]) == 2
    assert "Type --allow-code yourself" in capsys.readouterr().err
    assert main(["run", written(**told)]) == 2
    assert not Path("ran").exists()
    assert main(["run", "e.yaml", "--allow-code"]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"task": ["toy"]},
            "e.yaml has the key 'task', which nothing reads. Did you mean 'tasks'?",
        ),
        ({"tasks": None}, "e.yaml has no 'tasks'."),
        ({"systems": "bm25"}, "e.yaml: systems is 'bm25'. Write a list: systems: [bm25]."),
        ({"systems": ["bm26"]}, "there is no system 'bm26'. Did you mean 'bm25'?"),
        ({"limit": 0}, "e.yaml: limit is 0. Write a whole number from 1."),
        ({"limit": "many"}, "e.yaml: limit is 'many'. Write a whole number."),
        ({"tasks": []}, "e.yaml: tasks is []. Name at least one: tasks: [ONE, TWO]."),
        ({"systems": [{"bm25": "k1=3"}]}, "e.yaml: entry 1 of systems is {'bm25': 'k1=3'}. Write"),
        ({"metrics": {}}, "e.yaml: metrics is {}. Write a list: metrics: [ONE, TWO]."),
        ({"seed": 1.5}, "e.yaml: seed is 1.5. Write a whole number."),
        ({"data": 3}, "e.yaml: data is 3. Write text, in quotes if YAML takes it for something"),
        ({"latency": "long"}, "--latency long is wrong."),
        ({"report": "table.doc"}, "table.doc does not say in which format tables are wanted."),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_run(change, said, capsys) -> None:
    told = {"tasks": ["toy"], "systems": ["bm25"], "out": "r", **change}
    assert main(["run", written(**{k: v for k, v in told.items() if v is not None})]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("r").exists()


def test_all_mistakes_are_told_together(capsys) -> None:
    assert main(["run", written(task=["toy"], limits=3, name="x", licence="y")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 5
    assert "nothing reads 'licence', 'name'. Keys: tasks, systems" in told[-1]


def test_a_file_that_is_not_there(capsys) -> None:
    assert main(["run", "none.yaml"]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err


def test_only_the_word_behind_run_may_be_an_experiment() -> None:
    assert spread(["run", "e.yaml", "--limit", "5"]) == [
        "run",
        "--experiment",
        "e.yaml",
        "--limit",
        "5",
    ]
    assert spread(["run", "--task", "e.yaml"]) == ["run", "--task", "e.yaml"]


@pytest.mark.parametrize("name", ["t.md", "t.csv", "t.tex", "t.json", "t.txt"])
def test_tables_are_written_in_the_format_of_the_name(name: str) -> None:
    assert main(["run", "--task", "toy", "--system", "bm25", "--out", "r", "--report", name]) == 0
    text = Path(name).read_text()
    marks = {"md": "|", "csv": "task,split", "tex": "\\begin{tab", "json": '"metric"', "txt": "┃"}
    assert marks[name.partition(".")[2]] in text

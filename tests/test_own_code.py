"""A system of a file is run where the user said so, and nowhere else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from forging import packed

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError
from harness.own_code import code_allowed

SYSTEM = '''
"""Ranks a pool by the length of its passages."""
from pathlib import Path

from harness.data import Hit

Path("ran").touch()


class Longest:
    def __init__(self, sign: int = 1):
        self.sign = sign

    def open(self, corpus, folder, brief):
        self.corpus = corpus

    def retrieve(self, queries, k):
        return [self._one(query.pool)[:k] for query in queries]

    def _one(self, pool):
        scored = {d: self.sign * len(self.corpus[d].text) for d in pool}
        return [Hit(d, scored[d]) for d in sorted(scored, key=lambda d: (-scored[d], d))]


class Nothing:
    pass
'''
RUN = ["run", "--task", "toy", "--limit", "6", "--out", "r", "--system"]


@pytest.fixture(autouse=True)
def _file(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my").mkdir()
    Path("my/file.py").write_text(SYSTEM)


def entry(system: str) -> dict:
    found = json.loads(Path("r/manifest.json").read_text())["pipelines"]
    return next(each for each in found if each["system"] == system)


def test_without_the_flag_nothing_of_it_is_run_and_one_sentence_says_what_would_be(capsys) -> None:
    assert main([*RUN, "bm25+my/file.py:Longest"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run that file" in line
    assert "--allow-code" in line
    assert not Path("ran").exists()


def test_the_flag_ends_with_its_command() -> None:
    assert main([*RUN, "my/file.py:Longest", "--allow-code"]) == 0
    Path("ran").unlink()
    with pytest.raises(HarnessError, match="--allow-code"):
        registry.find("systems", "my/file.py:Longest")
    assert main(["repeat", "r", "-o", "again"]) == 2
    assert main(["repeat", "r", "-o", "again", "--allow-code"]) == 0


def test_it_stands_in_a_pipeline_with_depth_and_options_under_a_plain_name_on_disk(capsys) -> None:
    spelled = "bm25@3+my/file.py:Longest:sign=-1@2"
    assert main([*RUN, "bm25@3+./my//file.py:Longest@2", "--allow-code",
                 "--set", "./my/file.py:Longest.sign=-1"]) == 0  # fmt: skip
    rows = [json.loads(line) for line in (Path("r") / entry(spelled)["rows"]).open()]
    assert {len(row["hits"]) for row in rows} == {2}
    assert all(score < 0 for row in rows for _, score in row["hits"])
    assert "my/file.py" in capsys.readouterr().out
    assert not [p for p in Path("r").rglob("*") if set(p.name) & set(" :/%*?\"'<>|")]


def test_a_path_with_signs_of_the_spelling_in_it() -> None:
    Path("my/file.py").rename("my/a+b @1,=.py")
    spelled = "my/a%2Bb %401%2C%3D.py:Longest"
    assert main([*RUN, f"{spelled}:1@2", "--allow-code"]) == 0
    assert entry(f"{spelled}:1@2")["errors"] == 0


def test_a_changed_file_is_another_stage_and_a_changed_comment_is_not() -> None:
    with code_allowed():
        keys = []
        for text in (SYSTEM, SYSTEM + "# more\n", SYSTEM.replace("len(", "-len(")):
            Path("my/file.py").write_text(text)
            api.run(["toy"], ["my/file.py:Longest"], limit=6, out="r")
            keys.append(entry("my/file.py:Longest")["key"])
    assert keys[0] == keys[1] != keys[2]
    rows = [json.loads(line) for line in (Path("r") / entry("my/file.py:Longest")["rows"]).open()]
    assert all(score < 0 for row in rows for _, score in row["hits"])


def test_the_manifest_has_the_hash_of_the_file_and_of_what_it_imports_beside_it() -> None:
    Path("my/beside_it_1.py").write_text("SIGN = -1\n")
    Path("my/file.py").write_text(
        SYSTEM.replace("from pathlib", "import beside_it_1\nfrom pathlib")
    )
    assert main([*RUN, "my/file.py:Longest", "--allow-code"]) == 0
    stage = json.loads(
        (Path("r") / entry("my/file.py:Longest")["rows"]).with_name("stage.json").read_text()
    )
    assert {"my/file.py", "beside_it_1"} <= stage["sources"].keys()


def test_fresh_processes_of_the_latency_pass_know_it_too(capsys) -> None:
    words = ["latency", "--task", "toy", "--questions", "3", "--rounds", "1", "--out", "r",
             "--system", "bm25@3+my/file.py:Longest"]  # fmt: skip
    assert main(words) == 2
    assert main([*words, "--allow-code"]) == 0
    (cell,) = api.latencies("r")
    assert cell.questions == 3


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("my/none.py:Longest", "my/none.py does not exist."),
        ("my/file.py:Longst", "no class 'Longst'. Did you mean Longest?"),
        ("my/file.py:Hit", "only imports Hit from harness.data"),
        ("my/file.py:Nothing", "has none of retrieve, answer"),
        ("my/file.py:Longest:sing=1", "Did you mean 'sign'?"),
        ("my/file.py", "names no class. Write my/file.py:Class."),
        ("my/file.py:", "names no class"),
        (
            "my/raises.py:X",
            "(ZeroDivisionError: division by zero, at raises.py:2)",
        ),
        ("my/typo.py:X", "my/typo.py cannot be loaded (SyntaxError"),
        ("my/imports.py:X", "my/imports.py cannot be loaded (ModuleNotFoundError: No module"),
        ("my/exits.py:X", "my/exits.py cannot be loaded (SystemExit: 3, at exits.py:2)"),
        ("my/folder.py:X", "my/folder.py is a folder"),
    ],
)
def test_a_mistake_is_one_sentence(system: str, said: str, capsys) -> None:
    Path("my/raises.py").write_text("x = 1\nx / 0\n")
    Path("my/typo.py").write_text("class X\n")
    Path("my/imports.py").write_text("import no_such_module_anywhere\n")
    Path("my/exits.py").write_text("import sys\nsys.exit(3)\n")
    Path("my/folder.py").mkdir()
    assert main([*RUN, f"bm25+{system}", "--allow-code"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_a_bundle_names_is_not_run_by_who_verifies_it() -> None:
    task, data = "mini-hotpotqa:documents=300,questions=40", Path("data").absolute()
    with code_allowed():
        anywhere = f"{Path('my/file.py').absolute()}:Longest"
        bundle = packed(Path(), data, [task], ["my/file.py:Longest", anywhere], limit=4)
    Path("ran").unlink()
    report = api.verify(bundle, data, again=2)
    assert report.findings == () and report.badge == "arithmetic verified"
    assert all("is code in a file" in each for each in report.unasked.values())
    assert len(report.unasked) == 2 and not Path("ran").exists()


def test_a_mistake_of_ones_own_code_has_its_line(capsys) -> None:
    Path("my/file.py").write_text(SYSTEM.replace("for d in pool}", "for d in pool.all}"))
    assert main([*RUN, "my/file.py:Longest", "--allow-code"]) == 3
    line = SYSTEM.splitlines().index(next(x for x in SYSTEM.splitlines() if "in pool}" in x)) + 1
    assert f"has no attribute 'all', at file.py:{line}" in capsys.readouterr().err
    Path("my/file.py").write_text(SYSTEM.replace("self.corpus = corpus", "corpus.open()"))
    assert main([*RUN, "my/file.py:Longest", "--allow-code"]) == 2
    assert ", at file.py:15)" in capsys.readouterr().err

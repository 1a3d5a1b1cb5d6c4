"""The command line as a user meets it: exit codes, sentences, what is (not) imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main, spread
from harness.registry import register

ROOT = Path(__file__).parent.parent


class Speaker:
    def answer(self, queries, documents):
        return [f"read {len(passages)}" for passages in documents]


def harness(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=cwd, capture_output=True, text=True
    )


def test_list_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.cli import main; main(['list', '--json']);"
        "heavy = {'torch', 'pandas', 'transformers', 'numba', 'datasets'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    names = {task["name"] for task in listed["tasks"]}
    assert {"hotpotqa", "musique", "2wikimultihopqa", "triviaqa", "msmarco-dl19"} <= names
    assert {"random", "bm25", "e5", "trec", "reader"} <= {s["name"] for s in listed["systems"]}
    assert not any("unusable" in entry for kind in listed.values() for entry in kind)


def test_all_mistakes_of_one_command_are_told_together(capsys) -> None:
    code = main(
        ["run", "--task", "toi", "--system", "bm52", "bm25:k3=1", "--metric", "nDGC@10", "--limt=3"]
    )
    err = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(err) == 5
    for wrong, right in [
        ("--limt", "--limit"),
        ("bm52", "bm25"),
        ("k3", "k1"),
        ("toi", "toy"),
        ("nDGC@10", "nDCG@10"),
    ]:
        assert sum(wrong in line and right in line for line in err) == 1, wrong
    assert not any("Traceback" in line for line in err)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--task", "toy", "--split", "dev"], "no split 'dev'"),
        (["run", "--task", "toy", "--setting", "open"], "no setting 'open'"),
        (["run", "--task", "toy", "--system", "speaker"], "nothing to read"),
        (["run", "--task", "toy", "--system", "bm25+speaker@1+bm25"], "answers before the end"),
        (["run", "--task", "toy", "--system", "bm25@0+random"], "passes no documents on"),
        (["run", "--task", "toy", "--system", "reader:model=x"], "Shipped are mini-"),
        (["run", "--task", "toy", "--system", "reader:model=a/x"], "hf download a/x"),
        (["run", "--task", "toy", "--dtype", "int3"], "no dtype 'int3'"),
        (["run", "--task", "toy", "--device", "tpu"], "no device 'tpu'"),
        (["run", "--task", "toy", "--system", "bm25:k1=nan"], "k1=nan"),
        (["run", "--task", "toy", "--system", "bm25:stemmer=klingon"], "stemmer=klingon"),
        (["run", "--task", "toy", "--system", "trec:x.run,file=y.run"], "gives file twice"),
        (["run", "--task", "toy", "--system", "bm25:k1=high"], "bm25:k1=high is wrong"),
        (["run", "--task", "toy", "--system", "trec"], "trec needs file="),
        (["run", "--task", "toy", "--system", "trec:file=no.run"], "no.run does not exist"),
        (["run", "--task", "toy", "--set", "bm25k1=2"], "is not stage.option=value"),
        (["run", "--task", "toy", "--set", "e5.model=x"], "no pipeline has that stage"),
        (["run", "--task", "hotpotqa", "--system", "bm25"], "prepare hotpotqa"),
        (["prepare", "toy", "--split", "dev"], "no split 'dev'"),
        (["score", "nowhere"], "not the folder of a run"),
        (["report", "nowhere"], "not the folder of a run"),
        (["report", "nowhere", "--format", "pdf"], "no format 'pdf'"),
        (["repeat", "nowhere"], "not the folder of a run"),
        (["page", "nowhere", "-o", "x.html"], "not the folder of a run"),
        (["show", "nowhere", "x"], "not the folder of a run"),
        (["claims", "nowhere"], "not the folder of a run"),
        (["list", "metrics"], "no list of 'metrics'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, said, capsys) -> None:
    register("systems", "speaker")(Speaker)
    if words[0] == "run" and "--system" not in words:
        words = [*words, "--system", "bm25"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_with_its_own_tasks_py_is_told_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit('ran the wrong file')")
    done = harness("list", cwd=tmp_path)
    assert done.returncode == 2
    assert "tasks.py hides the package 'tasks'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "wrong file" not in done.stdout + done.stderr


def test_a_run_prints_tables_and_its_folder_last_and_report_reads_it(capsys) -> None:
    assert main(["run", "--task", "toy", "--system", "bm25", "random", "--limit", "20"]) == 0
    out = capsys.readouterr().out
    folder = out.strip().splitlines()[-1]
    assert Path(folder, "scores.jsonl").exists()
    assert "nDCG@10" in out and "floor" in out and "20 (20)" in out
    for style in ("table", "markdown", "csv", "latex", "json"):
        assert main(["report", folder, "--format", style]) == 0
        text = capsys.readouterr().out
        assert "bm25" in text
    keys = "task split setting profile system metric value low high n groups gold errors"
    keys = [*keys.split(), "generated"]
    assert [list(cell) for cell in json.loads(_json(folder, capsys))] == [keys] * 12


def _json(folder: str, capsys) -> str:
    main(["report", folder, "--format", "json"])
    return capsys.readouterr().out


def test_without_gold_run_still_succeeds_and_says_what_it_could_not_do(capsys) -> None:
    main(["prepare", "toy"])
    prepared = Path(capsys.readouterr().out.strip().splitlines()[-1])
    (prepared / "gold.jsonl").unlink()
    assert main(["run", "--task", "toy", "--system", "bm25"]) == 0
    out, err = capsys.readouterr()
    assert "written but not scored" in err
    assert Path(out.strip().splitlines()[-1], "manifest.json").exists()


def test_interrupted_it_says_how_to_go_on(capsys, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.runner.run", interrupted)
    assert main(["run", "--task", "toy", "--system", "bm25"]) == 130
    assert "same command goes on" in capsys.readouterr().err


def test_interrupted_where_nothing_is_kept_it_does_not_say_so(capsys, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.report.compare.compare", interrupted)
    monkeypatch.setattr("harness.verify.checks.verify", interrupted)
    for words in (["compare", "a", "b"], ["verify", "x.zip"]):
        assert main(words) == 130
        assert capsys.readouterr().err == "harness: interrupted.\n"


def test_unscored_runs_are_told_how_to_be_scored(capsys) -> None:
    from harness import api

    folder = api.run(["toy"], ["bm25"])
    assert main(["report", str(folder)]) == 2
    assert f"harness score {folder}" in capsys.readouterr().err
    assert main(["score", str(folder), "--metric", "P@1", "Success@2"]) == 0
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    assert "Success@2" in capsys.readouterr().out


def test_a_system_can_be_asked_without_passages(capsys) -> None:
    register("systems", "speaker")(Speaker)
    assert main(["run", "--task", "toy", "--system", "speaker@0", "bm25+speaker@2"]) == 0
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    texts = {path.parent.name: path.read_text() for path in folder.rglob("rows.jsonl")}
    assert all("read 0" in text for name, text in texts.items() if name.startswith("speaker"))
    assert any("read 2" in text for text in texts.values())


def test_options_that_take_many_words() -> None:
    assert spread(["run", "--system=a", "b"]) == ["run", "--system=a", "--system", "b"]
    words = ["run", "--system", "a", "b", "--limit", "3", "--task", "t", "u"]
    assert spread(words) == [
        "run", "--system", "a", "--system", "b", "--limit", "3", "--task", "t", "--task", "u",
    ]  # fmt: skip
    one = ["score-file", "--task", "t", "file"]
    assert spread(one) == one


def test_doctor_says_what_is_usable(capsys) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "scores, tables, bm25" in out and "GPU" in out and "disk" in out
    assert "mini-dro, mini-e5" in out  # a pair of models is a checkpoint, too

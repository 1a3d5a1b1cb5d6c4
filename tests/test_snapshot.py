"""Accepted bases: what is replaced, what never is, and what an interruption leaves."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from gating import cli, refused, run

from harness.report.compare import compare
from harness.report.snapshot import ACCEPTED
from harness.run.store import one_writer


def test_accepting_replaces_the_base_and_keeps_a_log(capsys: Any) -> None:
    base, new = Path("base"), run("new", range(30))
    old = run("old")
    assert cli("base", "old", "--accept", "--reason", "the first") == 0
    assert cli("base", "new", "--fail-on-regression") == 1
    assert cli("base", "new", "--accept") == 2
    assert "for a reason" in capsys.readouterr().err
    assert compare(base, old)[0].changed == {}
    assert cli("base", "new", "--accept", "--reason", "a worse reader, wanted") == 0
    assert cli("base", "new", "--fail-on-regression") == 0
    assert compare(base, new)[0].changed == {}
    log = [json.loads(line) for line in (base / ACCEPTED).read_text().splitlines()]
    assert [each["reason"] for each in log] == ["the first", "a worse reader, wanted"]
    told = json.loads((base / "manifest.json").read_text())
    whole = json.loads((new / "manifest.json").read_text())
    assert "sessions" in whole and "sessions" not in told
    assert told["facts"].items() < whole["facts"].items()
    assert {path.name for path in Path().glob("base*")} == {"base"}


def accepting(capsys: Any, *words: str) -> str:
    """What is said against accepting."""
    return refused(capsys, *words, "--accept", "--reason", "why")


def test_nothing_but_an_accepted_base_is_replaced(capsys: Any) -> None:
    run("new")
    run("mine", range(9))
    for folder in ("thesis", "base.old", "base.part"):
        Path(folder).mkdir()
        Path(folder, "thesis.txt").write_text("years of work")
    assert "thesis is no accepted base" in accepting(capsys, "thesis", "new")
    assert "mine is no accepted base" in accepting(capsys, "mine", "new")
    assert len(compare("mine", "new")[0].changed or ()) == 1
    for folder in ("new", "mine"):
        assert cli("base", folder, "--accept", "--reason", "why") == 0
    for folder in ("thesis", "base.old", "base.part"):
        assert Path(folder, "thesis.txt").read_text() == "years of work"
    Path("base/notes.txt").write_text("why we trust it")
    capsys.readouterr()
    assert "base/notes.txt is not from accepting" in accepting(capsys, "base", "new")
    Path("base/notes.txt").rename("notes.txt")
    Path("base.accepting").mkdir()
    Path("base.accepting/thesis.txt").write_text("years of work")
    capsys.readouterr()
    assert cli("base", "new", "--accept", "--reason", "why") == 2
    assert "base.accepting is in the way" in capsys.readouterr().err
    assert Path("base.accepting/thesis.txt").exists() and Path("base", ACCEPTED).exists()


def test_a_base_is_replaced_as_a_whole_from_outside(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new")
    for part in (["--system", "ordered+knows"], ["--task", "toy"], ["--metric", "F1"]):
        assert "replaces the whole base" in accepting(capsys, "base", "new", *part)
        assert not Path("base").exists()
    assert "replaces the whole" in accepting(capsys, "base", "new", "--baseline", "ordered+knows")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    run("base/new")
    capsys.readouterr()
    assert "base/new is in base, which is replaced" in accepting(capsys, "base", "base/new")
    monkeypatch.chdir("base")
    assert "the folder that you are in is the base" in accepting(capsys, ".", "../new")
    monkeypatch.chdir("new")
    assert "the folder that you are in is in the base" in accepting(capsys, "..", "../../new")


def accepted(reason: str) -> bool:
    """Whether the base is whole, was accepted for this reason last, and nothing lies beside it."""
    log = Path("base", ACCEPTED).read_text().splitlines()
    whole = compare("base", "base")[0].verdict == "no regression"
    return whole and reason in log[-1] and {p.name for p in Path().glob("base*")} == {"base"}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("fatal", [False, True])
def test_interrupted_while_it_accepts_the_old_base_stays(
    step: int, fatal: bool, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the old base is put aside, or between that and the new one's coming; by Ctrl-C, or
    killed."""
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    rename, done = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == step:
            if fatal:
                os._exit(9)
            raise KeyboardInterrupt
        return rename(self, target)

    words = ("base", "new", "--accept", "--reason", "second")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        if not fatal:
            assert cli(*words) == 130
        elif not (child := os.fork()):
            cli(*words)
            os._exit(0)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            assert Path("base").exists() is (step == 1) and Path("base.accepting").exists()
    if not fatal:
        assert accepted("first") and "goes on" not in capsys.readouterr().err
    assert cli("base", "new") == 0
    assert ("it is back" in capsys.readouterr().err) is (fatal and step == 2)
    assert cli(*words) == 0
    assert accepted("second")


@pytest.mark.parametrize("step", [1, 2])
def test_a_second_process_neither_accepts_nor_restores_meanwhile(
    step: int, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first is about to put the old base aside, or has just done so."""
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    rename, done, codes = Path.rename, [], []

    def meanwhile(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == step:
            words = ("base", "new", "--accept", "--reason", "third")
            if not (child := os.fork()):
                os._exit(cli(*words))
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", meanwhile)
        assert cli("base", "new", "--accept", "--reason", "second") == 0
    assert codes == [2] and accepted("second")
    log = [json.loads(line)["reason"] for line in Path("base", ACCEPTED).read_text().splitlines()]
    assert log == ["first", "second"]


def test_who_comes_second_is_told_to_wait(capsys: Any) -> None:
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    capsys.readouterr()
    with one_writer(Path("base.accepting")):
        assert cli("base", "new", "--accept", "--reason", "why") == 2
    assert "A run is being accepted as base: wait for that" in capsys.readouterr().err
    assert cli("base", "new", "--accept", "--reason", "second") == 0
    assert accepted("second")


def test_on_a_full_disk_the_old_base_stays(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first") == 0
    copies = []

    def full(source: Path, copy: Path) -> None:
        copies.append(copy)
        if len(copies) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(copy))

    monkeypatch.setattr("shutil.copyfile", full)
    assert cli("base", "new", "--accept", "--reason", "second") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert accepted("first")


def test_accepting_leaves_json_alone_on_the_output(capsys: Any) -> None:
    run("new")
    assert cli("base", "new", "--accept", "--reason", "first", "--json") == 0
    assert capsys.readouterr().out == ""
    assert cli("base", "new", "--accept", "--reason", "second", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["verdict"] == "no regression" and "accepted new" in err

"""A run is repeated from its manifest alone; its rows are the same, or it says which are not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Toy, toy_questions
from test_provenance import Pupil, Taught, manifest_of

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError, Hit, Loaded, Reply
from harness.run.store import read_rows, row_line

SHIPPED = Path(__file__).parent.parent / "systems" / "checkpoints" / "mini-lm"


class Speaker:
    """Says how many it read, and ``says`` to some; scores by ``plus``; may die."""

    independent = True
    deterministic = True
    says = plus = 0.0
    dies = False

    def retrieve(self, queries: Any, k: int) -> list[Reply]:
        hits = [[Hit(d, 2.0 - n + self.plus) for n, d in enumerate(q.pool[:k])] for q in queries]
        return [Reply(hits=tuple(each)) for each in hits]

    def answer(self, queries: Any, documents: Any) -> list[str | Exception]:
        told: list[str | Exception] = []
        for query, passages in zip(queries, documents, strict=True):
            some = bool(self.says) and "amber" in query.text
            fails = self.dies and "birch" in query.text
            told.append(RuntimeError("no") if fails else f"{len(passages)} {some}")
        return told


@pytest.fixture(autouse=True)
def _speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register("systems", "speaker")(Speaker)
    for name in ("says", "plus", "dies", "deterministic"):
        monkeypatch.setattr(Speaker, name, getattr(Speaker, name))


def test_a_mini_run_with_a_reader_is_the_same(capsys) -> None:
    task = "mini-hotpotqa:documents=300,questions=40"
    words = ["--system", "random", "bm25", "bm25+reader@3", "--limit", "20", "--seed", "2"]
    assert main(["run", "--task", task, *words, "--batch-size", "8", "--out", "r"]) == 0
    capsys.readouterr()
    assert main(["repeat", "r", "-o", "again"]) == 0
    out = capsys.readouterr().out.strip().splitlines()
    assert out[-1] == "again"
    assert [line for line in out if line.startswith("differs")] == []
    assert sum("20 of 20 rows the same" in line for line in out) == 3
    one, two = manifest_of("r"), manifest_of("again")
    assert [each["key"] for each in one["pipelines"]] == [each["key"] for each in two["pipelines"]]
    assert two["sessions"][0]["command"]["argv"] == ["repeat", "r", "-o", "again"]
    rows = [sorted(p.read_bytes() for p in Path(n).rglob("rows.jsonl")) for n in ("r", "again")]
    assert rows[0] == rows[1]


def test_a_system_that_answers_otherwise_is_told_with_its_questions(monkeypatch, capsys) -> None:
    folder = api.run(["toy"], ["bm25", "speaker@2"], out="r")
    monkeypatch.setattr(Speaker, "says", 1.0)
    assert main(["repeat", "r"]) == 1
    out = capsys.readouterr().out.strip().splitlines()
    new = Path(out[-1])
    assert new == Path("results/runs/repeat-r")
    assert "toy test, pool: bm25: 40 of 40 rows the same" in out
    assert "toy test, pool: speaker@2: 36 of 40 rows the same; answer changed in 4" in out
    entry = manifest_of(folder)["pipelines"][1]["rows"]
    pairs = zip(read_rows(folder / entry), read_rows(new / entry), strict=True)
    changed = [one.id for one, two in pairs if one.answer != two.answer]
    assert len(changed) == 4
    assert [line for line in out if line.startswith("  ")] == [f"  {i}: answer" for i in changed]


@pytest.mark.parametrize(
    ("plus", "code", "said"),
    [(1e-8, 0, "40 of them by rounding"), (1e-3, 1, "scores changed in 40")],
)
def test_scores_may_be_rounded_otherwise_and_no_more(plus, code, said, monkeypatch, capsys) -> None:
    api.run(["toy"], ["speaker@2"], out="r")
    monkeypatch.setattr(Speaker, "plus", plus)
    assert main(["repeat", "r"]) == code
    assert said in capsys.readouterr().out


def test_more_changed_questions_than_are_shown_are_counted(monkeypatch, capsys) -> None:
    api.run(["toy"], ["speaker@2"], out="r")
    monkeypatch.setattr(Speaker, "plus", 1e-3)
    main(["repeat", "r"])
    out = capsys.readouterr().out.splitlines()
    assert sum(line.endswith(": scores") for line in out) == 5
    assert "  and 35 more" in out


def test_a_pipeline_that_is_not_deterministic_is_told_and_not_counted(monkeypatch, capsys) -> None:
    monkeypatch.setattr(Speaker, "deterministic", False)
    api.run(["toy"], ["bm25", "speaker@2"], out="r")
    monkeypatch.setattr(Speaker, "says", 1.0)
    assert main(["repeat", "r"]) == 0
    out = capsys.readouterr().out
    assert "answer changed in 4; not deterministic: not counted" in out


def test_an_error_that_was_none_and_a_row_that_is_gone_are_changes(monkeypatch, capsys) -> None:
    folder = api.run(["toy"], ["speaker@2"], out="r")
    (path,) = folder.rglob("rows.jsonl")
    rows = list(read_rows(path))[:-1]
    path.write_bytes(b"".join(map(row_line, rows)))
    monkeypatch.setattr(Speaker, "dies", True)
    assert main(["repeat", "r"]) == 1
    out = capsys.readouterr().out
    assert "state changed in 4" in out and "missing changed in 1" in out


def test_all_sessions_of_a_run_are_repeated_as_they_were_asked() -> None:
    registry.register("tasks", "toy")(Taught)
    registry.register("systems", "pupil")(Pupil)
    api.run(["toy"], ["bm25", "random"], out="r", limit=7, seed=1)
    api.run(["toy"], ["random"], out="r", limit=7, seed=1, setting="corpus")
    api.run(["toy:count=30"], ["random"], out="r", limit=7, seed=1)
    api.run(["toy:count=30", "toy"], ["bm25@3+pupil@2"], out="r", batch_size=4)
    api.run(["toy"], ["speaker"], out="r", setting="corpus", limit=5)
    api.run(["toy"], ["bm25"], out="r", overrides=["bm25.k1=1"], dtype="float16", limit=3)
    done = api.repeat("r", "new")
    assert done.same and done.folder == Path("new")
    old, new = manifest_of("r"), manifest_of("new")
    assert len(done.pipelines) == len(old["pipelines"]) == 8
    drop = ("source", "train")

    def told(found: dict[str, Any]) -> list[str]:
        kept = [{n: v for n, v in e.items() if n not in drop} for e in found["pipelines"]]
        return sorted(json.dumps(each, sort_keys=True) for each in kept)

    assert told(old) == told(new)


def test_spellings_of_one_pipeline_are_each_compared() -> None:
    api.run(["toy"], ["bm25:k1=1,b=0.5"], out="r")
    api.run(["toy"], ["bm25:b=0.5,k1=1"], out="r")
    done = api.repeat("r")
    assert done.same and len(done.pipelines) == 2


def test_data_is_where_it_was_or_where_one_says(capsys) -> None:
    api.run(["toy"], ["bm25"], out="r", data="mine")
    assert api.repeat("r", "one").same
    assert not Path("data").exists()
    shutil.move("mine", "theirs")
    assert main(["repeat", "r", "-o", "two", "--data", "theirs"]) == 0
    assert not Path("mine").exists()


# --- what cannot be repeated ----------------------------------------------------------


def refused(capsys, *words: str) -> list[str]:
    """The sentences of a repeat that is refused; nothing is run."""
    capsys.readouterr()
    assert main(["repeat", *words]) == 2
    assert not Path("results/runs").exists()
    err: list[str] = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in err)
    return err


def test_a_missing_checkpoint_and_other_data_are_told_together(monkeypatch, capsys) -> None:
    shutil.copytree(SHIPPED, "model")
    task = "mini-hotpotqa:documents=300,questions=40"
    api.run([task], ["bm25+reader:model=model@1"], out="r", limit=2)
    api.run(["toy"], ["bm25"], out="r")
    assert api.repeat("r", "fine").same
    shutil.move("model", "elsewhere")

    class Renewed(Toy):
        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            asked = toy_questions(self.count)
            return Loaded([replace(each, text=f"{each.text} Say.") for each in asked])

    registry.register("tasks", "toy")(Renewed)
    err = refused(capsys, "r")
    assert len(err) == 2
    assert "model is no folder" in err[0]
    assert "toy (test): its data is" in err[1] and "--data" in err[1]


def test_another_checkpoint_or_file_from_outside_is_refused_by_name(capsys) -> None:
    registry.register("systems", "pupil")(Pupil)
    registry.register("tasks", "toy")(Taught)
    Path("model.bin").write_bytes(b"weights")
    api.run(["toy"], ["bm25+pupil"], out="r")
    Path("model.bin").write_bytes(b"others")
    (told,) = refused(capsys, "r")
    assert "pupil: its files are not those of the run (model.bin)" in told
    Path("model.bin").write_bytes(b"weights")
    assert main(["repeat", "r"]) == 0


def test_other_train_questions_are_refused(capsys) -> None:
    registry.register("systems", "pupil")(Pupil)
    registry.register("tasks", "toy")(Taught)
    api.run(["toy"], ["bm25+pupil"], out="r")

    class Later(Taught):
        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            if split == "test":
                return super().load(source, split, limit)
            return Loaded(toy_questions(80)[60:])

    registry.register("tasks", "toy")(Later)
    (told,) = refused(capsys, "r")
    assert "toy (train): its data is" in told


def test_an_old_manifest_the_run_itself_and_no_run_are_refused(capsys) -> None:
    api.run(["toy"], ["bm25"], out="r")
    assert "is the run itself" in refused(capsys, "r", "-o", str(Path("r").resolve()))[0]
    assert "not the folder of a run" in refused(capsys, "nowhere")[0]
    old = {**manifest_of("r"), "format": 1, "sessions": []}
    Path("r/manifest.json").write_text(json.dumps(old))
    (told,) = refused(capsys, "r")
    assert "does not hold what a repeat needs: sessions." in told


def test_a_system_that_cannot_start_is_2_and_the_others_are_compared(monkeypatch, capsys) -> None:
    api.run(["toy"], ["bm25", "speaker@2"], out="r")

    def broken(self: Any, *_: Any) -> None:
        raise KeyError("klingon")

    monkeypatch.setattr(Speaker, "open", broken, raising=False)
    assert main(["repeat", "r"]) == 2
    out, err = capsys.readouterr()
    assert "klingon" in err
    assert "bm25: 40 of 40 rows the same" in out and "missing changed in 40" in out


def test_interrupted_the_same_command_goes_on(monkeypatch, capsys) -> None:
    api.run(["toy"], ["bm25", "speaker@2"], out="r")
    with monkeypatch.context() as patched:

        def stopped(self: Any, *_: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(Speaker, "retrieve", stopped)
        assert main(["repeat", "r"]) == 130
    assert main(["repeat", "r"]) == 0
    assert "was there already" in capsys.readouterr().out
    sessions = manifest_of("results/runs/repeat-r")["sessions"]
    assert [each["ended_how"] for each in sessions] == ["interrupted", "finished"]


# --- what differs ---------------------------------------------------------------------


def test_what_differs_now_is_told_before_it_runs(monkeypatch, capsys) -> None:
    from harness import manifest
    from harness.run import repeat

    api.run(["toy"], ["bm25"], out="r")
    installed, here, state = repeat.packages(), repeat.machine(), repeat.code()
    installed["numeric"]["numpy"] = "0.1"
    installed["others"] |= {f"package-{n}": "1" for n in range(9)}
    monkeypatch.setattr(repeat, "packages", lambda: installed)
    monkeypatch.setattr(repeat, "machine", lambda: here | {"cpu": "An abacus", "flags": ""})
    told = state | {"commit": None, "reason": "not a git checkout"}
    monkeypatch.setattr(repeat, "code", lambda: told)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    walked = manifest._walked.__wrapped__

    def otherwise(*modules: str) -> dict[str, Any]:
        found = walked(*modules)
        return {
            n: ("0", names) if n == "systems.bm25" else (h, names)
            for n, (h, names) in found.items()
        }

    manifest.sources.cache_clear()
    monkeypatch.setattr(manifest, "_walked", otherwise)
    try:
        assert main(["repeat", "r"]) == 0
    finally:
        manifest.sources.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    differs = [line.removeprefix("differs: ") for line in lines if line.startswith("differs: ")]
    assert any(line.startswith("cpu: An abacus, was ") for line in differs)
    assert any(line.startswith("flags of the processor: ") for line in differs)
    assert any(line.startswith("OMP_NUM_THREADS: 64, was ") for line in differs)
    assert any(
        line.startswith("code: version") and "not a git checkout" in line for line in differs
    )
    assert any(line.startswith("packages (numeric): numpy 0.1, was ") for line in differs)
    assert any("package-0 1, was none" in line and "and 4 more" in line for line in differs)
    assert "stages, made of other: systems.bm25" in differs
    assert lines.index("toy test, pool: bm25: 40 of 40 rows the same") >= len(differs)


def test_sessions_on_several_machines_are_told(monkeypatch) -> None:
    from harness.run.repeat import resolve

    api.run(["toy"], ["bm25"], out="r", limit=5)
    with monkeypatch.context() as patched:
        patched.setattr(
            "harness.run.sessions.packages", lambda: {"numeric": {"a": "1"}, "others": {}}
        )
        api.run(["toy"], ["bm25"], out="r", limit=6)
    api.run(["toy"], ["bm25"], out="r", limit=7)
    (told,) = [each for each in resolve(Path("r")).differences if "sessions" in each]
    assert told == "packages: the sessions of the run had 2; compared with the last"


def test_other_instructions_are_told(monkeypatch) -> None:
    from harness.run.repeat import resolve

    api.run(["toy"], ["bm25"], out="r")
    monkeypatch.setattr(Toy, "max_new_tokens", 7)
    assert "stages, made of other: max_new_tokens of toy" in resolve(Path("r")).differences


def test_from_python_a_refusal_is_an_error() -> None:
    with pytest.raises(HarnessError, match="not the folder of a run"):
        api.repeat("nowhere")

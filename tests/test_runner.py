"""Resume is not a mode: killed, torn, extended or whole, the same command ends the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import api, registry
from harness.data import HarnessError, Hit
from harness.run.store import RowFile, one_writer, parse_row, read_rows, row_line

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from conftest import Toy
from harness import api, registry
from systems.bm25 import BM25

class Slow(BM25):
    def retrieve(self, queries, k):
        time.sleep(0.004 * len(queries))
        return super().retrieve(queries, k)

registry.register("tasks", "toy")(Toy)
registry.register("systems", "slow")(Slow)
print("ready", flush=True)
api.run(["toy:count=300"], ["slow@3+random", "slow"], out=sys.argv[1], batch_size=4)
"""


def rows_of(folder: Path) -> dict[str, bytes]:
    """Rows files of a run by their pipeline's folder."""
    return {p.parent.name: p.read_bytes() for p in sorted(folder.rglob("rows.jsonl"))}


def test_killed_at_random_moments_and_torn_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script)]
    subprocess.run([*command, "whole"], check=True, capture_output=True)
    rng, kills = random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen([*command, "killed"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        for path in Path("killed").rglob("rows.jsonl"):
            with path.open("ab") as file:
                file.write(b'{"id":"torn","hi')
    subprocess.run([*command, "killed"], check=True, capture_output=True)
    assert rows_of(Path("killed")) == rows_of(Path("whole"))
    assert len(rows_of(Path("whole"))) == 3


def test_a_start_after_the_end_writes_nothing() -> None:
    folder = api.run(["toy"], ["bm25@3+random", "random"])
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    opened = {p.name for p in folder.iterdir()}
    assert api.run(["toy"], ["bm25@3+random", "random"]) == folder
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    assert {p: s for p, s in after.items() if p.name != ".lock"} == {
        p: s for p, s in before.items() if p.name != ".lock"
    }
    assert opened == {p.name for p in folder.iterdir()}


def test_errored_questions_are_asked_again_and_good_ones_are_not() -> None:
    asked: list[str] = []
    broken = True

    class Moody:
        def retrieve(self, queries, k):
            asked.extend(q.text for q in queries)
            if broken and any("3" in q.text for q in queries):
                raise RuntimeError("not today")
            return [[Hit(q.pool[0], 1.0)] for q in queries]

    registry.register("systems", "moody")(Moody)
    folder = api.run(["toy"], ["moody"], batch_size=1)
    errors = sum(bool(row.error) for row in _rows(folder))
    assert errors == 13
    order = [row.id for row in _rows(folder)]
    asked.clear()
    broken = False
    api.run(["toy"], ["moody"], batch_size=1)
    assert len(asked) == 13
    assert [row.id for row in _rows(folder)] == order
    assert not any(row.error for row in _rows(folder))


def test_an_error_of_an_early_stage_reaches_the_end_and_is_mended_there_too() -> None:
    broken = True

    class Moody:
        def retrieve(self, queries, k):
            if broken and any("3" in q.text for q in queries):
                raise RuntimeError("not today")
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "moody")(Moody)
    folder = api.run(["toy"], ["moody@3+random", "moody@3"])
    for path in folder.rglob("rows.jsonl"):
        errors = [row.error for row in read_rows(path) if row.error]
        assert len(errors) == 13
        assert all(error.startswith("moody: RuntimeError") for error in errors)
    broken = False
    api.run(["toy"], ["moody@3+random", "moody@3"])
    for path in folder.rglob("rows.jsonl"):
        rows = list(read_rows(path))
        assert len(rows) == 40
        assert not any(row.error for row in rows)


def test_a_larger_limit_adds_questions_and_keeps_the_others() -> None:
    folder = api.run(["toy"], ["bm25"], limit=10, out="r")
    few = [row.id for row in _rows(folder)]
    api.run(["toy"], ["bm25"], limit=25, out="r")
    many = [row.id for row in _rows(folder)]
    assert many[:10] == few
    assert len(many) == 25


def test_the_sample_depends_on_the_seed_alone() -> None:
    first = [row.id for row in _rows(api.run(["toy"], ["bm25"], limit=10))]
    other = [row.id for row in _rows(api.run(["toy"], ["bm25"], limit=10, seed=1))]
    assert first != other


def test_a_changed_option_or_data_is_another_key() -> None:
    keys = set()
    for number, (task, system, sizes) in enumerate(
        [
            ("toy", "bm25", {}),
            ("toy:count=39", "bm25", {}),
            ("toy", "bm25:k1=1", {}),
            ("toy", "bm25", {"batch_size": 8}),
            ("toy", "bm25", {"dtype": "float16"}),
            ("toy", "bm25", {"setting": "corpus"}),
            ("toy", "bm25@3", {}),
            ("toy", "bm25", {"seed": 1}),
        ]
    ):
        folder = api.run([task], [system], out=f"r{number}", **sizes)
        keys.add(json.loads((folder / "manifest.json").read_text())["pipelines"][0]["key"])
    assert len(keys) == 8


def test_changed_source_is_another_key(tmp_path: Path, monkeypatch) -> None:
    from harness import manifest

    module = tmp_path / "own_system.py"
    keys = []
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("LIMIT = 1\n", "LIMIT = 2\n"):
        module.write_text(text)
        manifest.sources.cache_clear()
        keys.append(manifest.sources("own_system", manifest.RUNNER)["own_system"])
    assert keys[0] != keys[1]
    assert "systems.ranking" in manifest.sources("systems.bm25")
    assert "harness.run.stages" in manifest.sources("own_system", manifest.RUNNER)


def test_stages_shared_by_two_pipelines_run_once() -> None:
    asked = []

    class Counting:
        def retrieve(self, queries, k):
            asked.extend(queries)
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "counting")(Counting)
    api.run(["toy"], ["counting@3+random", "counting@3+bm25", "counting@3"])
    assert len(asked) == 40


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with one_writer(tmp_path / "r"):
        code = (
            "from pathlib import Path\nfrom harness.run.store import one_writer\n"
            f"with one_writer(Path({str(tmp_path / 'r')!r})): pass"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"process {os.getpid()} on" in done.stderr
    assert done.returncode != 0


def test_gold_is_never_opened_by_run() -> None:
    folder = api.prepare("toy")
    (folder / "gold.jsonl").unlink()
    (folder / "gold.jsonl").mkdir()
    run = api.run(["toy"], ["bm25"])
    assert len(_rows(run)) == 40


def test_a_full_disk_is_one_sentence_and_keeps_what_was_done(monkeypatch) -> None:
    wrote = RowFile.append

    def full(self, rows):
        if len(self) >= 8:
            raise OSError(28, "No space left on device")
        wrote(self, rows)

    monkeypatch.setattr(RowFile, "append", full)
    with pytest.raises(HarnessError, match="No space left"):
        api.run(["toy"], ["bm25"], batch_size=4, out="r")
    monkeypatch.setattr(RowFile, "append", wrote)
    assert sum(1 for p in Path("r").rglob("rows.jsonl") for _ in read_rows(p)) == 8
    api.run(["toy"], ["bm25"], batch_size=4, out="r")
    assert sum(1 for p in Path("r").rglob("rows.jsonl") for _ in read_rows(p)) == 40


def test_an_index_is_built_once_and_half_an_index_is_never_used() -> None:
    built = []

    class Indexed:
        def build(self, corpus, folder, brief):
            built.append(folder)
            (folder / "half").write_text("x")
            if len(built) == 1:
                raise RuntimeError("died while building")

        def open(self, corpus, folder, brief):
            assert (folder / "half").exists()

        def retrieve(self, queries, k):
            return [[] for _ in queries]

    registry.register("systems", "indexed")(Indexed)
    with pytest.raises(RuntimeError):
        api.run(["toy"], ["indexed"])
    assert not any(Path("data/indexes").iterdir())
    api.run(["toy"], ["indexed"])
    api.run(["toy"], ["indexed"], setting="corpus")
    assert len(built) == 2


def test_rows_read_back_as_they_were_written() -> None:
    from harness.data import Answer, Evidence, Row

    row = Row(
        "q",
        (Hit("a", 0.1 + 0.2), Hit("b", -1e-300)),
        Answer("é\u2028", (Evidence("a", 1, (2, 3)), Evidence("b")), (("s", "r", "o"),), False),
        "raw\n",
        ("a",),
        {"tokens": 3},
        "length",
        "",
    )
    assert parse_row(row_line(row)) == row
    assert row_line(row).count(b"\n") == 1


def _rows(folder: Path):
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][-1]
    return list(read_rows(folder / entry["rows"]))

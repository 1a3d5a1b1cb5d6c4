"""Resume is not a mode: killed, torn, extended or whole, the same command ends the same."""

from __future__ import annotations

import io
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


def test_one_torn_line_costs_one_question() -> None:
    folder = api.run(["toy"], ["bm25"])
    (path,) = folder.rglob("rows.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for spoiled in (
        whole[:-7],
        whole + b'{"id":"torn',
        b"".join([*lines[:5], b"garbage\n", *lines[6:]]),
        b"".join([*lines[:5], *lines[3:]]),
    ):
        path.write_bytes(spoiled)
        api.run(["toy"], ["bm25"])
        assert path.read_bytes() == whole


class Batched:
    """Its scores depend on the whole batch, as padding makes them with a real model."""

    def retrieve(self, queries, k):
        together = float(sum(len(q.text) * (n + 1) for n, q in enumerate(queries)))
        return [[Hit(d, together) for d in q.pool] for q in queries]


def test_resumed_or_enlarged_a_run_has_the_batches_that_it_would_have_had() -> None:
    registry.register("systems", "batched")(Batched)
    whole = rows_of(api.run(["toy"], ["batched"], batch_size=8, out="whole"))
    (path,) = api.run(["toy"], ["batched"], batch_size=8, out="torn").rglob("rows.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], *lines[5:20]]))
    assert rows_of(api.run(["toy"], ["batched"], batch_size=8, out="torn")) == whole
    api.run(["toy"], ["batched"], batch_size=8, limit=11, out="grown")
    assert rows_of(api.run(["toy"], ["batched"], batch_size=8, out="grown")) == whole


def test_a_smaller_limit_loses_no_errored_question_of_a_larger_one() -> None:
    class Broken:
        def retrieve(self, queries, k):
            raise RuntimeError("always")

    registry.register("systems", "broken")(Broken)
    api.run(["toy"], ["broken"], limit=20, out="r")
    folder = api.run(["toy"], ["broken"], limit=5, out="r")
    (path,) = folder.rglob("rows.jsonl")
    assert len(list(read_rows(path))) == 20


def test_a_changed_checkpoint_or_earlier_stage_is_another_key(tmp_path: Path) -> None:
    class Checkpointed:
        def __init__(self, weights: Path) -> None:
            self.weights = weights

        def files(self):
            return [self.weights]

        def retrieve(self, queries, k):
            return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]

    registry.register("systems", "checkpointed")(Checkpointed)
    weights, keys = tmp_path / "weights", set()
    for text, first in (("one", "bm25@3"), ("other", "bm25@3"), ("other", "random@3")):
        weights.write_text(text)
        folder = api.run(["toy"], [f"{first}+checkpointed:weights={weights}"], out=f"{text}{first}")
        keys.add(json.loads((folder / "manifest.json").read_text())["pipelines"][0]["key"])
    assert len(keys) == 3


def test_a_class_that_was_typed_in_has_its_code_in_its_key() -> None:
    keys = []
    for score in ("0.0", "1.0"):
        scope: dict[str, type] = {"__name__": "__typed__"}
        exec(
            "from harness.data import Hit\nclass Typed:\n    def retrieve(self, queries, k):\n"
            f"        return [[Hit(d, {score}) for d in q.pool] for q in queries]\n",
            scope,
        )
        registry.register("systems", "typed")(scope["Typed"])
        folder = api.run(["toy"], ["typed"], out="r")
        keys.append(json.loads((folder / "manifest.json").read_text())["pipelines"][0]["key"])
        entry = json.loads((folder / "manifest.json").read_text())["pipelines"][0]
        (row, *_) = read_rows(folder / entry["rows"])
        assert row.hits[0].score == float(score)
    assert keys[0] != keys[1]


def test_a_comment_changes_no_key(tmp_path: Path, monkeypatch) -> None:
    from harness import manifest

    module = tmp_path / "commented_system.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for text in ("LIMIT = 1\n", '"""Says more."""\n# and more\nLIMIT = 1\n'):
        module.write_text(text)
        manifest._walked.cache_clear()
        manifest.sources.cache_clear()
        found.append(manifest.sources("commented_system"))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["e5", "reader", "cross_encoder", "query_likelihood"])
def test_packages_that_are_imported_by_name_are_in_the_key(name: str, monkeypatch) -> None:
    from harness import manifest

    monkeypatch.setattr(manifest, "version", lambda package: f"that of {package}")
    found = manifest.versions.__wrapped__(f"systems.{name}")
    assert {"torch", "transformers", "tokenizers", "safetensors"} <= found.keys()
    assert ("mamba-ssm" in found) == (name in ("reader", "query_likelihood"))
    assert "transformers" not in manifest.versions.__wrapped__("systems.bm25")


def test_a_system_that_cannot_start_leaves_the_others_alone() -> None:
    class Dead:
        def open(self, corpus, folder, brief):
            raise KeyError("klingon")

        def retrieve(self, queries, k):
            return []

    registry.register("systems", "dead")(Dead)
    with pytest.raises(HarnessError, match=r"dead cannot be started.*klingon"):
        api.run(["toy"], ["dead+random", "dead", "bm25"], out="r")
    (path,) = Path("r").rglob("rows.jsonl")
    assert path.parent.name.startswith("bm25")
    api.score("r")
    counts = {r.system: (r.n, r.value) for r in api.records("r") if r.metric == "RR"}
    assert counts["bm25"] == (40, 1.0)
    assert counts["dead"] == (40, 0.0)


def test_two_systems_that_differ_only_in_searching_share_an_index() -> None:
    api.run(["toy"], ["bm25", "bm25:idf=pool", "bm25:k1=1"])
    about = [json.loads(path.read_text()) for path in Path("data/indexes").rglob("*.json")]
    built = [each for each in about if "seconds" in each]
    assert len(built) == 2
    assert all(each["documents"] == 200 and each["bytes"] > 0 for each in built)


def test_a_start_after_the_end_writes_nothing() -> None:
    folder = api.run(["toy"], ["bm25@3+random", "random"])
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    opened = {p.name for p in folder.iterdir()}
    assert api.run(["toy"], ["bm25@3+random", "random"]) == folder
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    assert after == before
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
            ("toy:asks=Explain at length.", "bm25", {}),
        ]
    ):
        folder = api.run([task], [system], out=f"r{number}", **sizes)
        keys.add(json.loads((folder / "manifest.json").read_text())["pipelines"][0]["key"])
    assert len(keys) == 9


def test_changed_source_is_another_key(tmp_path: Path, monkeypatch) -> None:
    from harness import manifest

    module = tmp_path / "edited_system.py"
    keys = []
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("LIMIT = 1\n", "LIMIT = 2\n"):
        module.write_text(text)
        manifest._walked.cache_clear()
        manifest.sources.cache_clear()
        keys.append(manifest.sources("edited_system", *manifest.RUNNER)["edited_system"])
    assert keys[0] != keys[1]
    assert "systems.ranking" in manifest.sources("systems.bm25")
    assert "harness.run.stages" in manifest.sources("edited_system", *manifest.RUNNER)


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


def test_gold_is_never_opened_by_run(monkeypatch) -> None:
    folder = api.prepare("toy")
    opened: list[str] = []
    real = io.open

    def noted(file, *rest, **named):
        opened.append(str(file))
        return real(file, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", noted)
        run = api.run(["toy"], ["bm25"])
    assert any("queries.jsonl" in name for name in opened)
    assert not any("gold" in name for name in opened)
    (folder / "gold.jsonl").unlink()
    (folder / "gold.jsonl").mkdir()
    assert len(_rows(api.run(["toy"], ["random"]))) == 40
    assert len(_rows(run)) == 40


def test_a_full_disk_is_one_sentence_and_keeps_what_was_done(monkeypatch) -> None:
    wrote = RowFile.append

    def full(self, rows, label):
        if len(self) >= 8:
            raise OSError(28, "No space left on device")
        wrote(self, rows, label)

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
    with pytest.raises(HarnessError, match=r"indexed cannot be started.*died while building"):
        api.run(["toy"], ["indexed"])
    assert not [path for path in Path("data/indexes").rglob("*") if path.is_file()]
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

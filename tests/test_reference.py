"""What is committed under results/reference is what the shipped checkpoints do today."""

from __future__ import annotations

import json
import math
from pathlib import Path

from harness import api
from harness.cli import SYSTEMS, TASKS

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
RECORDS = json.loads((REFERENCE / "records.json").read_text())
DEPTHS = json.loads((REFERENCE / "depths.json").read_text())["depth"]
AGAIN = "mini-msmarco"


def test_it_has_every_cell() -> None:
    cells = {(r["task"].partition(":")[0], r["profile"], r["system"]) for r in RECORDS}
    for task in TASKS:
        for profile in ("standard", "hard", "shift"):
            assert {system for t, p, system in cells if (t, p) == (task, profile)} >= set(SYSTEMS)
    assert {0, 1, 2} <= {r["training_seed"] for r in RECORDS}
    assert not any(r["errors"] for r in RECORDS)


def test_the_default_run_reads_as_deep_as_was_tuned() -> None:
    depths = dict(name.rpartition("@")[::2] for name in SYSTEMS if "@" in name)
    # All but the floor, and raggd, which reads as many as in its training.
    assert len(DEPTHS) == len(depths) - 2
    for ranker, depth in DEPTHS.items():
        name = "bm25@10+dro" if ranker == "dro" else f"{ranker}+reader"
        assert int(depths[name]) == depth


def test_one_task_comes_out_the_same_today(tmp_path: Path) -> None:
    """Other processors may round otherwise and turn an answer or two, and no more."""
    committed = {
        (r["system"], r["metric"]): r
        for r in RECORDS
        if r["task"].startswith(f"{AGAIN}:")
        and r["profile"] == "standard"
        and r["training_seed"] == 0
    }
    task = next(r["task"] for r in committed.values())
    run = api.run([task], SYSTEMS, out=tmp_path / "run", data=tmp_path / "data")
    api.score(run)
    for record in api.records(run):
        kept = committed[record.system, record.metric]
        assert math.isclose(record.value, kept["value"], abs_tol=0.01), (record, kept)
        assert (record.n, record.groups) == (kept["n"], kept["groups"])

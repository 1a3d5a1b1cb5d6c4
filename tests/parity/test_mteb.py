"""mteb's own class reads the result that `export --format mteb` writes: `tox -e peers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

results = pytest.importorskip("mteb.results", reason="needs the package mteb: tox -e peers")


def test_mteb_reads_our_result_and_its_main_score(tmp_path: Path) -> None:
    from harness import api

    folder = api.score(api.run(["toy"], ["bm25"]), ["nDCG@3"])
    made = api.export(folder, "mteb", tmp_path / "m.json")
    read = results.TaskResult.from_disk(made.path, load_historic_data=False)
    (ours,) = (r.value for r in api.records(folder) if r.metric == "nDCG@10")
    assert read.get_score() == read.main_score == pytest.approx(ours, abs=1e-6)
    assert read.get_score(splits=["test"], languages=["eng"]) == read.main_score
    assert (read.task_name, read.mteb_version) == ("toy", None)
    read.to_disk(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    told = json.loads(made.path.read_text())
    assert again.items() <= told.items()

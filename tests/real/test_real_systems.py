"""Systems that shipped checkpoints cannot serve, on real data: models of random weights in the
official format. Rows are valid; what they say means nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models

from harness import api
from harness.run.store import read_rows
from harness.score.results import read_manifest
from harness.train import train_on


@pytest.mark.parametrize(
    ("task", "file", "split"),
    [
        ("hotpotqa", "hotpotqa/validation.jsonl.gz", "validation"),
        ("musique", "musique/validation.jsonl.gz", "validation"),
        ("2wikimultihopqa", "2wikimultihopqa/validation.jsonl.gz", "validation"),
        ("msmarco-qa", "msmarco/v1.1.jsonl.gz", "validation"),
        ("triviaqa", "triviaqa", "validation"),
    ],
)
def test_dro_chooses_from_real_passages_and_answers(
    real_data: Path, task: str, file: str, split: str, tmp_path: Path
) -> None:
    selector = tiny_models.make_llama(tmp_path / "selector", positions=8192)
    generator = tiny_models.make_qwen2(tmp_path / "generator", seed=1, positions=8192)
    api.prepare(task, real_data / file, split)
    system = f"bm25@20+dro:selector={selector},generator={generator}@5"
    folder = api.run([task], [system], setting="pool", limit=4, split=split)
    api.score(folder)
    (entry,) = read_manifest(folder)["pipelines"]
    rows = list(read_rows(folder / entry["rows"]))
    assert len(rows) == 4 and not any(row.error for row in rows)
    for row in rows:
        ids = [hit.id for hit in row.hits]
        chosen = row.extras["list"]
        assert len(set(chosen)) == min(5, len(ids)) and ids[: len(chosen)] == chosen
        assert row.answer is not None and row.extras["log_p"] < 0
        assert list(row.read) == chosen[: len(row.read)]


def test_dro_is_trained_on_real_questions(real_data: Path, tmp_path: Path) -> None:
    models = {
        "selector": str(tiny_models.make_llama(tmp_path / "selector", positions=4096)),
        "generator": str(tiny_models.make_qwen2(tmp_path / "generator", positions=4096)),
    }
    api.prepare("musique", real_data / "musique", "train")
    sizes = {"iterations": "1", "questions": "2", "batch": "2", "samples": "3", "dev": "2"}
    options = {**models, **sizes, "lora": "2", "max_new_tokens": "4"}
    made = train_on("dro", tmp_path / "dro", tasks=["musique"], first="bm25@20", options=options)
    last = json.loads((made / "about.json").read_text())["iterations"][-1]
    assert last["iteration"] == 1 and last["ess"] >= 1
    api.prepare("musique", real_data / "musique", "validation")
    system = f"bm25@20+dro:checkpoint={made}@5"
    folder = api.run(["musique"], [system], setting="pool", limit=2, split="validation")
    (entry,) = read_manifest(folder)["pipelines"]
    assert [row.error for row in read_rows(folder / entry["rows"])] == ["", ""]

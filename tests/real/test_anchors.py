"""Figures that were measured apart from this code, reproduced on real data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness import api


def value(task: str, system: str, metric: str, **options) -> tuple[float, int]:
    folder = api.run([task], [system], **options)
    api.score(folder)
    (cell,) = [r for r in api.records(folder) if r.metric == metric]
    assert cell.errors == 0
    assert cell.low is not None and cell.high is not None and cell.low < cell.value < cell.high
    return cell.value, cell.n


@pytest.mark.parametrize(
    ("task", "file", "expected", "n", "recall"),
    [
        ("hotpotqa", "hotpotqa/validation.jsonl.gz", 0.8199, 171, 0.7807),
        ("musique", "musique/validation.jsonl.gz", 0.5777, 107, 0.4984),
        ("2wikimultihopqa", "2wikimultihopqa/validation.jsonl.gz", 0.8592, 78, 0.7244),
        ("msmarco-qa", "msmarco/v1.1.jsonl.gz", 0.5806, 91, 0.7418),
    ],
)
def test_bm25_over_pools_with_idf_of_the_corpus(
    real_data: Path, task: str, file: str, expected: float, n: int, recall: float
) -> None:
    api.prepare(task, real_data / file, "validation")
    assert value(task, "bm25", "nDCG@10", setting="pool") == (pytest.approx(expected, abs=0.003), n)
    assert value(task, "bm25", "R@5", setting="pool") == (pytest.approx(recall, abs=0.003), n)
    other, _ = value(task, "bm25:idf=pool", "nDCG@10", setting="pool")
    assert abs(other - expected) > 0.003


@pytest.mark.parametrize(
    ("folder", "prefix", "expected", "n", "recall"),
    [
        ("hotpotqa", "", 0.7797, 365, 0.8877),
        ("musique", "", 0.5273, 107, 0.5646),
        ("2wikimultihopqa", "", 0.7034, 334, 0.7051),
        ("msmarco", "v1.1_", 0.5363, 91, 0.8956),
        ("triviaqa", "", 0.8044, 417, 0.9248),
    ],
)
def test_bm25_over_whole_corpora(
    real_data: Path, folder: str, prefix: str, expected: float, n: int, recall: float
) -> None:
    task = f"jsonl:dir={real_data / folder}" + (f",prefix={prefix}" if prefix else "")
    assert value(task, "bm25", "nDCG@10") == (pytest.approx(expected, abs=0.003), n)
    assert value(task, "bm25", "R@10") == (pytest.approx(recall, abs=0.003), n)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("bm25", 0.5058),
        ("bm25_rm3", 0.5216),
        ("distilbert_tasb", 0.7210),
        ("openai_ada2", 0.7035),
        ("splade_pp_ed", 0.7308),
    ],
)
def test_first_stage_runs_of_trec_dl_2019(real_data: Path, run: str, expected: float) -> None:
    with (
        gzip.open(real_data / "msmarco" / "dl19_runs.jsonl.gz", "rt") as rows,
        Path("first.run").open("w") as file,
    ):
        for row in map(json.loads, rows):
            if row["run"] == run:
                file.write(f"{row['qid']} Q0 {row['docid']} {row['rank']} {row['score']} {run}\n")
    api.prepare("msmarco-dl19", real_data / "msmarco")
    found = value("msmarco-dl19", "trec:file=first.run", "nDCG@10")
    assert found == (pytest.approx(expected, abs=0.0001), 43)

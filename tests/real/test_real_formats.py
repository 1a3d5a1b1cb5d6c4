"""Real data out and in again, and no text of MS MARCO where nobody asked for it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from forging import SUBMISSION
from official_files import put
from test_exports import grams, measured, scores_of, written

from harness import api
from harness.canonical import open_corpus
from harness.report.bundle import pack
from harness.score.results import read_manifest


def five_words(texts: Iterator[str]) -> set[tuple[str, ...]]:
    return {gram for text in texts for gram in grams(text)}


def test_no_five_words_of_ms_marco_stand_in_a_bundle_a_page_or_rows(real_data: Path) -> None:
    """The words that our own pages are made of stand in a page of the toy task, too."""
    api.prepare("msmarco-qa", real_data / "msmarco/v1.1.jsonl.gz", "validation")
    folder = api.run(["msmarco-qa"], ["bm25", "random"], split="validation", out="run")
    ranked = api.submit(folder, "trec", "x.run", system="bm25").path
    api.import_files(ranked, "msmarco-qa", "theirs", split="validation", out=folder)
    api.score(folder)
    bundle = pack(folder, put(Path("s.json"), SUBMISSION), Path("x.zip"))
    page = api.page(folder, "page.html")
    corpus = open_corpus(Path(read_manifest(folder)["pipelines"][0]["data"]))
    theirs = five_words(document.text for document in corpus)
    with gzip.open(real_data / "msmarco/v1.1.jsonl.gz", "rt", encoding="utf-8") as file:
        theirs |= five_words(json.loads(line)["query"] for line in file)
    assert len(theirs) > 20_000
    toy = api.score(api.run(["toy"], ["bm25"], out="toy"))
    ours = grams(api.page(toy, "toy.html").read_text())
    assert (grams(written(folder, page, bundle)) - ours) & theirs == set()
    texts = api.page(folder, "texts.html", texts=True)
    assert len(grams(texts.read_text()) & theirs) > 1_000


def test_dl19_is_scored_by_ir_measures_as_here_and_comes_back(real_data: Path) -> None:
    api.prepare("msmarco-dl19", real_data / "msmarco")
    folder = api.score(api.run(["msmarco-dl19"], ["bm25@100"], out="run"))
    qrels = api.export("msmarco-dl19", "trec-qrels", "qrels").path
    run = api.submit(folder, "trec", "x.run").path
    ours = scores_of(folder)
    theirs = measured(qrels, run, next(iter(ours.values())))
    assert len(theirs) == 43
    for query, found in theirs.items():
        assert found == pytest.approx(ours[query], abs=1e-9, rel=0)
    made = api.import_files(run, "msmarco-dl19", "theirs")
    assert scores_of(api.score(made.folder)) == ours


def test_hotpotqa_goes_out_as_beir_and_comes_back(real_data: Path) -> None:
    source = real_data / "hotpotqa/validation.jsonl.gz"
    api.prepare("hotpotqa", source, "validation")
    asked = {"split": "validation", "setting": "corpus"}
    folder = api.score(api.run(["hotpotqa"], ["bm25"], out="run", **asked))
    api.export("hotpotqa", "beir", "beir", split="validation")
    back = api.score(api.run(["jsonl:dir=beir,split=validation"], ["bm25"], out="back"))
    ours, theirs = scores_of(folder), scores_of(back)
    assert len(theirs) == len(ours) > 50
    for query, found in theirs.items():
        for metric in ("nDCG@10", "RR@10", "AP"):
            assert found[metric] == pytest.approx(ours[query][metric], abs=1e-9)

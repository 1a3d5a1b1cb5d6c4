"""The page of runs on real data has no text of it unless asked, and its numbers and sorts."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_page import Parsed, grams

from harness import api, registry
from harness.canonical import corpus_folder, read_gold, read_lines
from harness.data import Answer, Reply
from harness.report.page import page
from harness.report.tables import tables
from harness.score.results import read_manifest

LIMIT = 20
SORTS = {"hotpotqa": "question type", "musique": "hops", "2wikimultihopqa": "question type",
         "msmarco-qa": "query type"}  # fmt: skip
"""What each benchmark says of its questions."""


class Quoting:
    """Whatever a system can write down, this one takes from what it reads and was asked."""

    def answer(self, queries: Any, documents: Any) -> list[Any]:
        return [self._one(*each) for each in zip(queries, documents, strict=True)]

    def _one(self, query: Any, read: Any) -> Any:
        text = f"{query.text} {read[0].title} {read[0].text}"
        if int(query.id[:2], 16) % 2:
            return RuntimeError(text)
        triples = ((text, text, text),)
        extras = {"clues": [text], text: 1, "windows": [[read[0].id, 0, 20, 0.5]]}
        return Reply(
            Answer(text, triples=triples),
            raw=text,
            read=(read[0].id,),
            counts={text: 1.0},
            extras=extras,
        )


def texts(data: Path, docs: set[str]) -> set[tuple[str, ...]]:
    """The runs of five words of questions, accepted answers, and passages with their titles."""
    said = [row["text"] for row in read_lines(data / "queries.jsonl")]
    for row in read_lines(corpus_folder(data) / "documents.jsonl"):
        said += [row["text"], row.get("title", "")] if row["id"] in docs else []
    for gold in read_gold(data).values():
        said += [*gold.answers, *(part for s, r, o in gold.triples or () for part in (*s, r, *o))]
    return {each for each in grams(said) if not all(word.isdigit() for word in each)}


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("hotpotqa", "hotpotqa/validation.jsonl.gz"),
        ("musique", "musique/validation.jsonl.gz"),
        ("2wikimultihopqa", "2wikimultihopqa/validation.jsonl.gz"),
        ("msmarco-qa", "msmarco/v1.1.jsonl.gz"),
        ("triviaqa", "triviaqa"),
    ],
)
def test_the_page_of_a_real_run_has_no_text_of_it(real_data: Path, task: str, file: str) -> None:
    registry.register("systems", "quoting")(Quoting)
    empty = api.score(api.run(["toy"], ["bm25", "bm25@2+quoting@1"], out=Path("toy")))
    ours = grams([unescape(page(empty, "toy.html").read_text())])
    data = api.prepare(task, real_data / file, "validation")
    folder = api.run([task], ["bm25", "bm25@2+quoting@1"], split="validation", limit=LIMIT,
                     setting="pool")  # fmt: skip
    api.score(folder)
    html = page(folder, "page.html").read_text()
    found = Parsed(html)
    (payload,) = json.loads(found.scripts[0])
    secret = texts(data, set(payload["docs"])) - ours
    assert len(secret) > 2_000
    assert not grams([unescape(html), json.dumps(payload)]) & secret
    assert "texts" not in payload and "mechanism test" not in html
    assert [len(each["said"]) for each in payload["systems"]] == [LIMIT] * 2
    assert any("error" in each["state"] for each in payload["systems"])
    (table,) = tables(folder)
    assert table.title in found.tables and payload["title"] == table.title
    assert len(payload["questions"]) == read_manifest(folder)["pipelines"][0]["questions"] == LIMIT
    if task in SORTS:
        heads = found.tables[f"By {SORTS[task]}"][0]
        labels = {each["labels"][SORTS[task]] for each in payload["questions"]}
        assert set(heads[2:]) == labels and len(labels) > 1

    asked = page(folder, "asked.html", texts=True).read_text()
    assert len(grams([json.dumps(json.loads(Parsed(asked).scripts[0]))]) & secret) > 1000

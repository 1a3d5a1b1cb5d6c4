"""What the harness costs beside the system it runs; ratios and limits of one process.

    python benchmarks/overhead.py [--documents 100000] [--questions 1000]

1. Harness minus system, a question at batch 1, rows on disk included: limit 0.2 ms. (Starting
   up, once a process, is left out: a run of one question goes before.)
2. A whole `run` with bm25 over bare bm25s doing the same: reading the corpus, tokenising,
   indexing, retrieving 100 documents a question. Limit 1.5.
3. The same without indexing (the index is there already), over bare retrieval; no limit.

Exit code 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import bm25s
import numpy as np
import Stemmer

from harness import api
from harness.corpus import Corpus
from harness.data import Hit
from systems.bm25 import NUMBA_FROM
from systems.passages import words_of

DEPTH = 100


class Timed:
    """Ranks a fixed list, and knows how long it took itself."""

    spent = 0.0

    def open(self, corpus, folder, brief) -> None:  # noqa: ARG002
        self.hits = [Hit(corpus.id(p), -float(p)) for p in range(min(DEPTH, len(corpus)))]

    def retrieve(self, queries, k):
        start = time.perf_counter()
        found = [self.hits[:k] for _ in queries]
        Timed.spent += time.perf_counter() - start
        return found


def write_folder(folder: Path, documents: int, questions: int) -> None:
    """A BEIR-shaped folder of random words with Zipf's frequencies."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{n:x}" for n in range(30_000)])
    weights = 1 / np.arange(1, 30_001)
    weights /= weights.sum()

    def text(length: int) -> str:
        return " ".join(words[rng.choice(30_000, length, p=weights)])

    with (folder / "corpus.jsonl").open("w") as file:
        for n in range(documents):
            file.write(
                json.dumps({"_id": f"d{n}", "title": "", "text": text(20 + n * 7 % 81)}) + "\n"
            )
    with (folder / "queries.jsonl").open("w") as file:
        for n in range(questions):
            file.write(json.dumps({"_id": f"q{n}", "text": text(10)}) + "\n")
    (folder / "qrels").mkdir()
    with (folder / "qrels" / "test.tsv").open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"q{n}\td{n % documents}\t1\n" for n in range(questions))


def bare(corpus: Corpus, queries: list[str]) -> tuple[float, float]:
    """Seconds that bm25s alone takes for everything, and for retrieval."""
    start = time.perf_counter()
    stemmer = Stemmer.Stemmer("english")
    backend = "numba" if len(corpus) >= NUMBA_FROM else "numpy"
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend=backend)
    texts = [words_of(document) for document in corpus]
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index.index(tokens, show_progress=False)
    indexed = time.perf_counter()
    asked = bm25s.tokenize(
        queries, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False
    )
    index.retrieve(asked, k=min(DEPTH, len(corpus)), show_progress=False)
    end = time.perf_counter()
    return end - start, end - indexed


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path("beir").mkdir()
        write_folder(Path("beir"), given.documents, given.questions)
        prepared = api.prepare("jsonl:beir")
        about = json.loads((prepared / "about.json").read_text())
        corpus = Corpus(Path("data/corpora") / about["corpus"])
        rows = (prepared / "queries.jsonl").read_text().splitlines()
        queries = [json.loads(row)["text"] for row in rows]
        api.register("systems", "timed")(Timed)

        api.run(["jsonl:beir"], ["timed"], limit=1, out="zero")
        Timed.spent = 0.0
        whole = timed(lambda: api.run(["jsonl:beir"], ["timed"], batch_size=1, out="one"))
        cost = (whole - Timed.spent) / len(queries) * 1000
        bare(corpus, queries[:2])  # numba compiles, once a process, for both
        everything, retrieval = bare(corpus, queries)
        ratio = timed(lambda: api.run(["jsonl:beir"], ["bm25"], out="two")) / everything
        again = timed(lambda: api.run(["jsonl:beir"], ["bm25"], out="three")) / retrieval
    print(f"{given.documents} documents, {len(queries)} questions, {DEPTH} hits a question")
    print(f"1. harness minus system at batch 1: {cost:.3f} ms a question (limit 0.2)")
    print(f"2. run over bare bm25s, indexing included: {ratio:.2f} (limit 1.5)")
    print(f"3. run over bare bm25s, index there already: {again:.2f}")
    return int(cost > 0.2 or ratio > 1.5)


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Toy, toy_questions

from harness import api, registry
from harness.corpus import content_id
from harness.data import Document, HarnessError, Hit, Loaded
from harness.run.latency import unmeasurable
from harness.run.plan import make_plan
from harness.run.store import read_rows
from systems.external import Predictions, Trec


def test_a_trec_run_is_ranked_by_score_whatever_its_rank_column_says(tmp_path: Path) -> None:
    file = tmp_path / "x.run"
    file.write_text("q1 Q0 d2 1 0.5 t\nq1 Q0 d1 2 0.9 t\n\nq2\tQ0\td9\t1\t1\tt\n")
    found = Trec(file).external()
    assert set(found["q1"].hits) == {Hit("d1", 0.9), Hit("d2", 0.5)}
    assert found["q2"].hits == (Hit("d9", 1.0),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q Q0 d 1 0.5\n", ":1: 5 columns"),
        ("q Q0 d 1 high t\n", ":1: 'high' is not a score"),
        ("q Q0 d 1 nan t\n", ":1: 'nan' is not a score"),
        ("q Q0 d 1 2 t\nq Q0 d 2 1 t\n", ":2: d is ranked twice"),
        ("", "is empty"),
    ],
)
def test_a_broken_trec_run_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.run").write_text(text)
    with pytest.raises(HarnessError) as error:
        Trec(tmp_path / "x.run").external()
    assert said in str(error.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p("x.json", json.dumps({"a": "one", "b": "two"})),
        lambda p: p("x.json", json.dumps({"answer": {"a": "one", "b": "two"}})),
        lambda p: p("x.json", json.dumps([{"id": "a", "pred": "one"}, {"id": "b", "pred": "two"}])),
        lambda p: p("x.jsonl", '{"id":"a","predicted_answer":"one"}\n{"_id":"b","answer":"two"}\n'),
    ],
)
def test_predictions_are_read_in_the_usual_shapes(tmp_path: Path, write) -> None:
    def put(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    found = Predictions(write(put)).external()
    assert {key: reply.answer.text for key, reply in found.items()} == {"a": "one", "b": "two"}


def test_native_ids_of_a_run_are_translated_and_its_score_is_that_of_the_ranking() -> None:
    corpus = Path("beir")
    corpus.mkdir()
    docs = [{"_id": f"D{i}", "title": "", "text": f"text {i}"} for i in range(5)]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    (corpus / "queries.jsonl").write_text('{"_id":"Q1","text":"a"}\n{"_id":"Q2","text":"b"}\n')
    (corpus / "qrels").mkdir()
    (corpus / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nQ1\tD3\t1\nQ2\tD0\t1\n")
    with gzip.open("x.run.gz", "wt") as file:
        file.write("Q1 Q0 D1 1 3 t\nQ1 Q0 D3 2 2 t\nother Q0 D1 1 1 t\n")
    folder = api.run(["jsonl:beir"], ["trec:file=x.run.gz", "trec:file=x.run.gz@1"])
    api.score(folder)
    values = {(r.system, r.metric): r.value for r in api.records(folder)}
    assert values["trec:file=x.run.gz", "RR@10"] == pytest.approx((1 / 2 + 0) / 2)
    assert values["trec:file=x.run.gz@1", "RR@10"] == 0


def test_ties_stand_as_in_trec_eval_in_32_bit_and_by_falling_native_id() -> None:
    import pytrec_eval

    folder = Path("beir")
    folder.mkdir()
    ids = [f"D{n}" for n in range(9)]
    docs = "".join(json.dumps({"_id": d, "text": f"text {d}"}) + "\n" for d in ids)
    (folder / "corpus.jsonl").write_text(docs)
    queries = [f"Q{n}" for n in range(9)]
    lines = "".join(json.dumps({"_id": q, "text": f"asks {q}"}) + "\n" for q in queries)
    (folder / "queries.jsonl").write_text(lines)
    qrels = {q: {ids[n // 5]: 1} for n, q in enumerate(queries)}
    judged = [f"{q}\t{d}\t1\n" for q, grades in qrels.items() for d in grades]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    run = {q: {d: 1 + n % 3 * 1e-9 + n % 2 for n, d in enumerate(ids)} for q in queries}
    rows = [f"{q} Q0 {d} 1 {score!r} t\n" for q in queries for d, score in run[q].items()]
    Path("x.run").write_text("".join(rows))
    found = api.run(["jsonl:beir"], ["trec:file=x.run"])
    api.score(found)
    values = {r.metric: r.value for r in api.records(found)}
    official = pytrec_eval.RelevanceEvaluator(qrels, {"map", "ndcg_cut_10"}).evaluate(run)
    for name, theirs in (("AP", "map"), ("nDCG@10", "ndcg_cut_10")):
        assert values[name] == pytest.approx(sum(official[q][theirs] for q in queries) / 9)


def test_other_native_ids_are_another_key_for_results_from_outside() -> None:
    registry.register("tasks", "renamed")(Renamed)
    right = toy_questions()[0].answers[0]
    Path("p.json").write_text(json.dumps({"first": right, "second": "no"}))
    values = []
    for name in ("first", "second"):
        Renamed.first = name
        api.prepare("renamed")
        folder = api.run(["renamed"], ["predictions:file=p.json"], out="r")
        api.score(folder)
        values.append({r.metric: r.value for r in api.records(folder)}["EM"])
    assert values[0] > values[1] == 0


class Renamed(Toy):
    """The toy task with another native id for its first question."""

    name = "renamed"
    first = ""

    def load(self, source, split, limit):
        one, *rest = toy_questions(3)
        return Loaded([replace(one, id=self.first), *rest])


def test_a_run_of_another_task_is_refused() -> None:
    Path("x.run").write_text("other Q0 D1 1 1 t\n")
    with pytest.raises(HarnessError, match="knows none of the task"):
        api.run(["toy"], ["trec:file=x.run"])
    Path("y.run").write_text("native-1 Q0 D1 1 1 t\n")
    with pytest.raises(HarnessError, match="ranks 1 documents that the corpus does not have"):
        api.run(["toy"], ["trec:file=y.run"])


def test_a_system_is_handed_the_rankings_it_wants_in_our_ids() -> None:
    @api.register("systems", "wanting")
    class Wanting:
        """Ranks as a file from elsewhere does, backwards."""

        def __init__(self, file: Path) -> None:
            self.run = Trec(file)

        def files(self):
            return self.run.files()

        def rankings(self):
            return self.run.external()

        def open(self, corpus, folder, brief):
            assert self.ranked

        def retrieve(self, queries, k):
            found = [self.ranked[query.id].hits[::-1] for query in queries]
            return [[Hit(hit.id, -float(n)) for n, hit in enumerate(hits)] for hits in found]

    lines = []
    for question in toy_questions(3):
        ids = [content_id(c.document.title, c.document.text) for c in question.candidates]
        lines += [f"{question.id} Q0 {name} 1 {-n} t" for n, name in enumerate(ids)]
    Path("x.run").write_text("\n".join(lines))
    folder = api.run(["toy:count=3"], ["wanting:file=x.run", "trec:file=x.run"])
    api.score(folder)
    values = {r.system: r.value for r in api.records(folder) if r.metric == "RR"}
    assert values == {"trec:file=x.run": 1.0, "wanting:file=x.run": pytest.approx(0.2)}
    plan = make_plan(["toy:count=3"], ["wanting:file=x.run"])
    (mistake,) = unmeasurable(plan)
    assert "needs a result from elsewhere" in str(mistake)


def test_predictions_are_scored_and_what_is_missing_scores_zero() -> None:
    Path("p.json").write_text(json.dumps({"native-0": "by the kelp gate", "native-1": "no"}))
    folder = api.run(["toy"], ["predictions:file=p.json"])
    api.score(folder)
    cells = {r.metric: r for r in api.records(folder)}
    assert set(cells) == {"EM", "F1"}
    assert cells["EM"].n == 40
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][0]
    rows = list(read_rows(folder / entry["rows"]))
    assert sum(row.counts.get("not_in_file", 0) for row in rows) == 38


def test_document_text_of_corpus_stays_out_of_rows() -> None:
    folder = api.run(["toy"], ["bm25"])
    text = "".join(p.read_text() for p in folder.rglob("*.json*"))
    assert "stands by" not in text
    assert Document("x", "y").sentences == ()

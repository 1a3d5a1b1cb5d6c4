"""The one door: whatever a system does wrong is a row that says so, and only that row."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness import api, registry
from harness.cli import main
from harness.data import Answer, Evidence, Hit, Reply
from harness.run.store import read_rows


def wrong_rankings(query, real):
    other = "f" * 16
    first, *rest = real
    return {
        "nan": [Hit(first.id, math.nan)],
        "infinite": [Hit(first.id, math.inf)],
        "twice": [first, first],
        "foreign": [Hit(other, 1.0)],
        "integer id": [Hit(7, 1.0)],
        "rising": [Hit(first.id, 1.0), Hit(rest[0].id, 2.0)],
        "too many": [*real, *real],
        "none": None,
        "not hits": [(first.id, 1.0)],
        "text": "abc",
        "no number": [Hit(first.id, "high")],
    }


class Wrong:
    """Ranks well, but does the ``fault``-th wrong thing on the third question."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def open(self, corpus, folder, brief) -> None:
        self.seen = 0

    def retrieve(self, queries, k):
        found = []
        for query in queries:
            real = [Hit(d, float(-n)) for n, d in enumerate(query.pool)][:k]
            if "7 " in query.text or query.text.endswith("7?"):
                if self.fault == "raises":
                    raise RuntimeError("the index is gone")
                found.append(wrong_rankings(query, real)[self.fault])
            else:
                found.append(real)
        return found


FAULTS = [*wrong_rankings(None, [Hit("a", 1.0), Hit("b", 1.0)]), "raises"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("batch_size", [1, 32])
def test_every_fault_is_an_error_row_that_scores_zero(fault: str, batch_size: int) -> None:
    registry.register("systems", "wrong")(Wrong)
    system = f"wrong:fault={fault}"
    folder = api.run(tasks=["toy"], systems=[system], batch_size=batch_size)
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][0]
    rows = list(read_rows(folder / entry["rows"]))
    bad = [row for row in rows if row.error]
    assert len(rows) == 40
    assert len(bad) == 4, [row.error for row in bad]
    assert all(system in row.error and not row.hits for row in bad)
    api.score(folder)
    (cell,) = [r for r in api.records(folder) if r.metric == "nDCG@10"]
    assert (cell.n, cell.errors) == (40, 4)
    lines = [json.loads(line) for line in (folder / "scores.jsonl").open()]
    zero = [line for line in lines if line["state"] == "error"]
    assert [set(line["metrics"].values()) for line in zero] == [{0.0}] * 4


def test_errors_end_with_exit_code_3_and_are_named(capsys) -> None:
    registry.register("systems", "wrong")(Wrong)
    assert main(["run", "--task", "toy", "--system", "wrong:fault=raises"]) == 3
    out, err = capsys.readouterr()
    assert "errors=4" in out
    assert "RuntimeError: the index is gone" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("where", ["__init__", "open", "retrieve", "close"])
@pytest.mark.parametrize("kind", ["os", "exit", "mute"])
def test_whatever_a_system_raises_wherever_the_others_go_on(where: str, kind: str) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("cannot even say")

    error = {"os": FileNotFoundError("weights.bin"), "exit": SystemExit(5), "mute": Mute()}[kind]

    class Bad:
        def __init__(self) -> None:
            self.fail("__init__")

        def fail(self, place: str) -> None:
            if place == where:
                raise error

        def open(self, corpus, folder, brief) -> None:
            self.fail("open")

        def retrieve(self, queries, k):
            self.fail("retrieve")
            return [[] for _ in queries]

        def close(self) -> None:
            self.fail("close")

    registry.register("systems", "bad")(Bad)
    code = main(["run", "--task", "toy", "--system", "bad", "bm25", "--out", "r"])
    assert code == (3 if where == "retrieve" else 2)
    if where != "__init__":
        assert {r.value for r in api.records("r") if r.system == "bm25" and r.metric == "RR"} == {1}


def test_a_document_outside_the_corpus_is_foreign_too() -> None:
    class Foreign:
        def retrieve(self, queries, k):
            return [[Hit("f" * 16, 1.0)] for _ in queries]

    registry.register("systems", "foreign")(Foreign)
    rows = _rows(api.run(["toy"], ["foreign"], setting="corpus"))
    assert {row.error for row in rows} == {
        "foreign: ranks ffffffffffffffff, which is not in the corpus"
    }


def test_errors_of_questions_that_are_not_asked_now_are_not_told_now() -> None:
    broken = True

    class Moody:
        def retrieve(self, queries, k):
            if broken:
                raise RuntimeError("not today")
            return [[Hit(d, 0.0) for d in q.pool] for q in queries]

    registry.register("systems", "moody")(Moody)
    command = ["run", "--task", "toy", "--out", "r", "--system"]
    assert main([*command, "moody", "--limit", "20"]) == 3
    broken = False
    assert main([*command, "moody", "--limit", "5"]) == 0
    assert main([*command, "bm25"]) == 0


def test_wrong_number_of_results_is_the_fault_of_the_system() -> None:
    class Lazy:
        def retrieve(self, queries, k):
            return []

    registry.register("systems", "lazy")(Lazy)
    folder = api.run(tasks=["toy"], systems=["lazy"])
    rows = _rows(folder)
    assert {row.error for row in rows} == {"lazy: returned 0 results for 1 questions"}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (None, "expected a string"),
        (7, "expected a string"),
        (Reply(), "expected a string"),
        (Answer(7), "the answer is int, not str"),
        (Answer("x", evidence=("doc",)), "the evidence is str, not Evidence"),
        (Answer("x", evidence=(Evidence("d", None, (3,)),)), "malformed"),
        (Answer("x", evidence=(Evidence("d", "one"),)), "malformed"),
        (Answer("x", triples=(("a", "b"),)), "malformed"),
        (Answer("half a pair: \ud83d"), "cannot be written"),
        (Reply(Answer("x"), raw=5), "raw is int, not str"),
        (Reply(Answer("x"), read=(1,)), "an id in read is int, not str"),
        (Reply(Answer("x"), counts={"tokens": math.nan}), "a count is nan"),
        (Reply(Answer("x"), extras={"it": object()}), "cannot be written"),
        (Reply(Answer("x"), extras={"large": 2**70}), "cannot be written"),
    ],
)
def test_wrong_answers_are_error_rows(reply, error: str) -> None:
    class Speaker:
        def answer(self, queries, documents):
            return [reply] * len(queries)

    registry.register("systems", "speaker")(Speaker)
    rows = _rows(api.run(tasks=["toy"], systems=["bm25+speaker"]))
    assert all(error in row.error and row.hits for row in rows)


def test_answers_of_all_accepted_kinds_are_rows() -> None:
    class Speaker:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def answer(self, queries, documents):
            text = documents[0][0].text
            made = {
                "text": text,
                "answer": Answer(text, evidence=(Evidence(documents[0][0].id),)),
                "reply": Reply(Answer(text), read=(documents[0][0].id,), stop="length"),
            }
            return [made[self.kind]] * len(queries)

    registry.register("systems", "speaker")(Speaker)
    for kind in ("text", "answer", "reply"):
        rows = _rows(api.run(tasks=["toy"], systems=[f"bm25+speaker:kind={kind}@1"], batch_size=1))
        assert all(row.answer and row.answer.text and row.hits and not row.error for row in rows)


def test_numbers_of_numpy_and_torch_are_written_as_plain_ones() -> None:
    class Speaker:
        def answer(self, queries, documents):
            evidence = (Evidence(documents[0][0].id, np.int64(1), (np.int32(0), np.int64(2))),)
            answer = Answer("x", evidence, (("a", "r", "b"),), np.bool_(True))
            counts = {"tokens": np.float32(3), "steps": np.int64(2)}
            return [Reply(answer, counts=counts, extras={"curve": [1, 2.5]})] * len(queries)

        def retrieve(self, queries, k):
            return [[Hit(d, np.float32(-n)) for n, d in enumerate(q.pool)] for q in queries]

    registry.register("systems", "speaker")(Speaker)
    folder = api.run(tasks=["toy"], systems=["speaker"], batch_size=1)
    for row in _rows(folder):
        assert row.error == ""
        assert row.answer.evidence[0].span == (0, 2)
        assert row.counts == {"tokens": 3.0, "steps": 2}
        assert row.extras == {"curve": [1, 2.5]}
        assert row.answer.answerable is True
    api.score(folder)


def test_a_retriever_may_say_more_than_its_hits() -> None:
    class Weigher:
        def retrieve(self, queries, k):
            hits = [tuple(Hit(d, 0.0) for d in q.pool) for q in queries]
            return [Reply(hits=each, extras={"weights": [0.5, 0.5]}) for each in hits]

    registry.register("systems", "weigher")(Weigher)
    rows = _rows(api.run(tasks=["toy"], systems=["weigher"]))
    assert all(row.hits and row.extras == {"weights": [0.5, 0.5]} for row in rows)


def test_an_errored_answer_keeps_its_ranking_in_the_row_and_scores_zero_in_all() -> None:
    class Mute:
        def answer(self, queries, documents):
            raise RuntimeError("no voice")

    registry.register("systems", "mute")(Mute)
    folder = api.run(tasks=["toy"], systems=["bm25+mute"])
    assert all(row.error and row.hits for row in _rows(folder))
    api.score(folder)
    cells = {r.metric: r.value for r in api.records(folder)}
    assert {"EM", "F1", "nDCG@10", "RR"} <= set(cells)
    assert set(cells.values()) == {0.0}


def test_whole_pools_are_ranked_when_the_pipeline_does_not_say_how_deep() -> None:
    asked = []

    class Asked:
        def retrieve(self, queries, k):
            asked.append((k, max(len(q.pool) for q in queries)))
            return [[] for _ in queries]

    registry.register("systems", "asked")(Asked)
    api.run(tasks=["toy"], systems=["asked"])
    assert all(k == size == 5 for k, size in asked)
    asked.clear()
    api.run(tasks=["toy"], systems=["asked@2"])
    assert {k for k, _ in asked} == {2}


def test_options_may_take_a_capability_away() -> None:
    class Both:
        def __init__(self, part: str = "both") -> None:
            if part == "selector":
                self.solve = None

        def retrieve(self, queries, k):
            return [[Hit(d, 0.0) for d in q.pool] for q in queries]

        def solve(self, queries, k):
            return [Reply(Answer("solved")) for _ in queries]

    registry.register("systems", "both")(Both)
    selected = _rows(api.run(tasks=["toy"], systems=["both:part=selector"]))
    assert all(row.answer is None and row.hits for row in selected)
    assert all(row.answer.text == "solved" for row in _rows(api.run(["toy"], ["both"])))


def test_reading_depth_and_ranking_depth_are_two_numbers() -> None:
    sizes = []

    class Speaker:
        def answer(self, queries, documents):
            sizes.extend(map(len, documents))
            return [""] * len(queries)

    registry.register("systems", "speaker")(Speaker)
    rows = _rows(api.run(tasks=["toy"], systems=["bm25@4+speaker@2"]))
    assert {len(row.hits) for row in rows} == {4}
    assert set(sizes) == {2}


def test_a_later_stage_is_closed_to_what_went_on_and_keeps_the_order_before() -> None:
    seen = []

    class Second:
        def retrieve(self, queries, k):
            seen.extend(queries)
            return [q.prior for q in queries]

    registry.register("systems", "second")(Second)
    rows = _rows(api.run(tasks=["toy"], systems=["bm25@3+second"]))
    assert all(q.pool == tuple(sorted(h.id for h in q.prior)) and len(q.pool) == 3 for q in seen)
    assert sorted(row.id for row in rows) == sorted(q.id for q in seen)


def _rows(folder: Path):
    entry = json.loads((folder / "manifest.json").read_text())["pipelines"][-1]
    return list(read_rows(folder / entry["rows"]))

"""What was computed elsewhere stands beside our own runs: the same rows and scores, its origin
shown, and nothing claimed that nobody knows."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official_files
import pytest
from answering import Answering
from conftest import Toy, toy_questions
from forging import SUBMISSION, edit, edit_row, forged
from official_files import lines, put

from harness import api, registry
from harness.canonical import named_questions, open_corpus
from harness.cli import main
from harness.corpus import content_id
from harness.data import (
    Answer,
    Candidate,
    Document,
    Evidence,
    HarnessError,
    Loaded,
    RawQuestion,
    Row,
)
from harness.provenance import missing
from harness.report.bundle import pack
from harness.run import imported
from harness.run.store import read_rows
from harness.score.results import read_manifest, read_scores
from harness.score.scoring import support_of
from harness.verify.checks import verify

MINI = "documents=300,questions=20,comparisons=true"
SYSTEM = "bm25+answering@3"
PLAIN = "bm25+answering:solves=false@3"


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def entry_of(folder: Path, system: str) -> dict[str, Any]:
    return next(e for e in read_manifest(folder)["pipelines"] if e["system"] == system)


def rows_of(folder: Path, system: str) -> dict[str, Row]:
    return {row.id: row for row in read_rows(folder / entry_of(folder, system)["rows"])}


def metrics_of(folder: Path, system: str) -> dict[str, dict[str, float]]:
    """The scores of each question."""
    (table,) = read_scores(folder)
    return {line["id"]: line["metrics"] for line in table.lines[system]}


def same_scores(folder: Path, system: str, made: imported.Imported) -> dict[str, float]:
    """Every score of the import is that of the run, question by question; the means."""
    ours, theirs = metrics_of(folder, system), metrics_of(api.score(made.folder), made.system)
    assert theirs.keys() == ours.keys()
    total: Counter[str] = Counter()
    for query_id, found in theirs.items():
        assert found.keys() <= ours[query_id].keys()
        assert found == pytest.approx({m: ours[query_id][m] for m in found}, abs=1e-9, rel=0)
        total.update(found)
    return {metric: value / len(ours) for metric, value in total.items()}


# --- out and in again -----------------------------------------------------------------

ANSWERS = {
    "hotpotqa": (official_files.hotpotqa, "hotpotqa"),
    "2wikimultihopqa": (official_files.wiki2, "2wikimultihopqa"),
    "musique": (official_files.musique, "musique"),
    "full": (lambda place: official_files.musique(place, full=True), "musique:version=full"),
    "triviaqa": (official_files.triviaqa, "triviaqa"),
    "web": (lambda place: official_files.triviaqa(place, "Web"), "triviaqa:config=rc.web"),
    "msmarco-qa": (official_files.msmarco_qa, "msmarco-qa"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_were_written_for_a_leaderboard_come_back_as_they_were(name: str) -> None:
    make, task = ANSWERS[name]
    fmt = {"full": "musique", "web": "triviaqa"}.get(name, name)
    api.prepare(task, make(Path("source"))[0], "validation")
    folder = api.score(api.run([task], [PLAIN], split="validation", out="run"))
    file = api.submit(folder, fmt, "made.json").path
    made = api.import_files(file, task, "theirs", fmt, split="validation")
    means = same_scores(folder, PLAIN, made)
    assert 0 < means["F1"] < 1
    assert ("SP-F1" in means) == (fmt in ("hotpotqa", "2wikimultihopqa"))
    assert ("Support-F1" in means) == (fmt == "musique")
    corpus = open_corpus(Path(entry_of(folder, PLAIN)["data"]))
    ours, theirs = rows_of(folder, PLAIN), rows_of(made.folder, made.system)
    assert list(theirs) == list(ours)
    for query_id, row in ours.items():
        if row.error:
            assert theirs[query_id].counts == {"not_in_file": 1} or not theirs[query_id].answer.text
            continue
        told = theirs[query_id].answer
        if not (fmt == "msmarco-qa" and row.answer.answerable is False):
            assert told.text == row.answer.text
        if "SP-F1" in means:
            facts = support_of(row.answer, corpus.__getitem__) or ()
            assert set(support_of(told, corpus.__getitem__)) == set(facts)
    again = api.submit(made.folder, fmt, "again.json").path
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("fmt", ["hotpotqa", "2wikimultihopqa", "musique", "triviaqa"])
def test_so_do_those_to_mini_tasks_and_their_triples(fmt: str) -> None:
    task = f"mini-{fmt}:{MINI}"
    folder = api.score(api.run([task], [SYSTEM], out="run"))
    file = api.submit(folder, fmt, "made.json").path
    means = same_scores(folder, SYSTEM, api.import_files(file, task, "theirs", fmt))
    assert means["F1"] > 0
    assert ("Evi-F1" in means) == (fmt == "2wikimultihopqa")


@pytest.mark.parametrize("fmt", ["trec", "msmarco-passage"])
def test_a_ranking_comes_back_document_by_document(fmt: str) -> None:
    source, _ = official_files.msmarco_passage(Path("source"))
    api.prepare("msmarco-dev", source, "dev")
    folder = api.score(api.run(["msmarco-dev"], ["bm25@7"], out="run"))
    file = api.submit(folder, fmt, "made.run").path
    made = api.import_files(file, "msmarco-dev", "theirs", fmt)
    assert 0 < same_scores(folder, "bm25@7", made)["RR@10"] < 1
    ours, theirs = rows_of(folder, "bm25@7"), rows_of(made.folder, made.system)
    assert {i: [h.id for h in row.hits] for i, row in ours.items()} == {
        i: [h.id for h in row.hits] for i, row in theirs.items()
    }


def test_answers_and_rankings_of_two_files_are_one_system() -> None:
    task = f"mini-hotpotqa:{MINI}"
    folder = api.score(api.run([task], [SYSTEM], out="run", limit=15))
    answers = api.submit(folder, "hotpotqa", "a.json", system=SYSTEM).path
    ranked = api.submit(folder, "trec", "r.run", system=SYSTEM).path
    made = api.import_files(answers, task, "x", "hotpotqa", rankings=ranked, limit=15)
    means = same_scores(folder, SYSTEM, made)
    assert {"EM", "SP-F1", "nDCG@10"} <= means.keys()
    entry = entry_of(made.folder, "imported:x")
    assert [each["format"] for each in entry["origin"]["files"]] == ["hotpotqa", "trec"]


def ids_of(number: int) -> list[str]:
    """The documents of a toy question, the right one first."""
    candidates = toy_questions()[number].candidates
    return [content_id(each.document.title, each.document.text) for each in candidates]


def test_plain_predictions_may_rank_point_and_doubt() -> None:
    right, wrong = ids_of(0)[:2]
    told = [
        {"id": "native-0", "answer": "x", "hits": [[wrong, 0.5], [right, 2]], "answerable": False},
        {"id": "native-1", "pred": "", "hits": ids_of(1)[:2], "evidence": [ids_of(1)[0]]},
        {"_id": "native-2", "answer": "z", "evidence": [[ids_of(2)[1], None, [2, 5]]]},
    ]
    made = api.import_files(put(Path("p.jsonl"), lines(told)), "toy", "x")
    by_native = rows_of(made.folder, "imported:x")
    rows = {row.answer.text: row for row in by_native.values() if row.answer}
    assert [hit.id for hit in rows["x"].hits] == [right, wrong]
    assert rows["x"].answer == Answer("x", answerable=False)
    assert [hit.id for hit in rows[""].hits] == ids_of(1)[:2]
    assert rows[""].answer.evidence == (Evidence(ids_of(1)[0]),)
    assert rows["z"].answer.evidence == (Evidence(ids_of(2)[1], None, (2, 5)),)
    cells = {r.metric: r for r in api.records(api.score(made.folder))}
    assert cells["nDCG@10"].n == cells["EM"].n == 40
    assert cells["EM"].errors == 37
    assert made.notes == ("37 of 40 questions are not in p.jsonl: missing, they score 0",)


@pytest.mark.parametrize("name", ["p.json.bz2", "p.jsonl.gz", "x.run.bz2"])
def test_packed_files_are_known_by_their_names(name: str) -> None:
    text = f"native-0 Q0 {ids_of(0)[0]} 1 1 t" if "run" in name else '{"id":"native-0","pred":"x"}'
    text = f"[{text}]" if ".json." in name else text
    packed = {".gz": gzip, ".bz2": bz2}[Path(name).suffix].compress(text.encode())
    Path(name).write_bytes(packed)
    made = api.import_files(name, "toy", "x")
    assert sum(not row.counts for row in rows_of(made.folder, "imported:x").values()) == 1


# --- what is refused, and what is counted ---------------------------------------------

HOT = {"answer": {}, "sp": {}}
BAD: dict[str, tuple[str, Any, str]] = {
    "number": ("p.json", {"native-0": 3}, "the answer is int, not text"),
    "null": ("p.json", {"native-0": None}, "the answer is null, not text"),
    "null in a row": ("p.jsonl", [{"id": "native-0", "answer": None}], "the answer is null"),
    "twice in an object": ("p.json", ['{"native-0":"x","native-0":"y"}'], "native-0 stands twice"),
    "nothing": ("p.json", {}, "it has none at all"),
    "twice": ("p.jsonl", [{"id": 1, "answer": "x"}] * 2, "1 is answered twice"),
    "no id": ("p.jsonl", [{"answer": "x"}], "a row needs 'id'"),
    "facts": ("p.json", HOT, "also holds sp"),
    "foreign": ("p.json", {"other": "x"}, "knows none of the task's questions"),
    "hit": ("p.jsonl", [{"id": "native-0", "hits": [["d", "high"]]}], "is no hit"),
    "nan": ("p.jsonl", ['{"id":"native-0","hits":[["d",NaN]]}'], "is no hit"),
    "ranked twice": ("p.jsonl", [{"id": "native-0", "hits": ["d", "d"]}], "d is ranked twice"),
    "document": ("p.jsonl", [{"id": "native-0", "hits": ["d"]}], "that the corpus does not have"),
    "evidence": ("p.jsonl", [{"id": "native-0", "answer": "", "evidence": ["d"]}], "no place of"),
    "no span": (
        "p.jsonl",
        [{"id": "native-0", "answer": "", "evidence": [[ids_of(0)[0], None, [0, 999]]]}],
        "points at no place of the corpus",
    ),
    "half a span": (
        "p.jsonl",
        [{"id": "native-0", "answer": "", "evidence": [["d", None, 5]]}],
        "is no evidence",
    ),
    "a number for a span": (
        "p.jsonl",
        [{"id": "native-0", "answer": "", "evidence": [["d", 0, 0]]}],
        "is no",
    ),
    "both": (
        "p.jsonl",
        [{"id": "native-0", "answer": "", "evidence": [["d", 0, [0, 5]]]}],
        "is no evidence",
    ),
    "pointer": ("p.jsonl", [{"id": "native-0", "answer": "", "evidence": [3]}], "is no evidence"),
    "doubt": ("p.jsonl", [{"id": "native-0", "answer": "", "answerable": "no"}], "true or false"),
    "score": ("x.run", ["native-0 Q0 d 1 nan t"], "'nan' is not a score"),
    "two runs": ("x.run", ["native-0 Q0 d 1 1 a", "native-1 Q0 d 1 1 b"], "x.run:2: a second run"),
    "two lines": ("x.run", ["native-0 Q0 d 1 2 t", "native-0 Q0 d 2 1 t"], "is ranked twice"),
    "columns": ("x.run", ["native-0 d 1"], "3 columns, expected 6"),
    "empty": ("x.run", [], "is empty"),
    "pool": ("x.run", [f"native-0 Q0 {ids_of(1)[0]} 1 1 t"], "--setting corpus"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_no_run_can_be_made_of_is_one_sentence_and_nothing_stays(name, capsys) -> None:
    file, content, said = BAD[name]
    put(Path(file), lines(content) if isinstance(content, list) else content)
    assert main(["import", file, "--task", "toy", "--name", "x", "-o", "R"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1 and "Traceback" not in told
    assert not Path("R").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.json"], "no.json does not exist"),
        (["p.json", "--name", "a b"], "is no name for a system"),
        (
            ["p.json", "--format", "musique"],
            "musique does not fit toy. Formats that do: trec, pred",
        ),
        (["p.json", "--format", "csv"], "csv does not fit toy"),
        (["p.json", "--task", "ty"], "there is no task 'ty'. Did you mean 'toy'?"),
        (["p.json", "--split", "dev"], "toy has no split 'dev'"),
        (["h.jsonl", "--rankings", "x.run"], "native-0 is ranked in both files"),
        (["x.run", "--rankings", "x.run"], "x.run is a ranking, and --rankings another"),
        (["p.json", "--limit", "1", "--seed", "3"], "answers none of the drawn questions"),
        (["p.json", "-o", "kept"], "kept is not the folder of a run"),
    ],
)
def test_wrong_words_are_one_sentence_too(words: list[str], said: str, capsys) -> None:
    put(Path("p.json"), {"native-0": "x"})
    put(Path("x.run"), f"native-0 Q0 {ids_of(0)[0]} 1 1 t\n")
    put(Path("h.jsonl"), lines([{"id": "native-0", "hits": ids_of(0)}]))
    put(Path("kept/notes.txt"), "mine")
    assert main(["import", "--task", "toy", "--name", "x", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert sorted(path.name for path in Path("kept").iterdir()) == ["notes.txt"]


def test_facts_that_nothing_can_point_at_are_refused_and_can_be_left_out(capsys) -> None:
    source, _ = official_files.hotpotqa(Path("source"))
    api.prepare("hotpotqa", source, "validation")
    told = {"answer": {"hot0": "x"}, "sp": {"hot0": [["Nowhere", 0]], "new": [["?", 1]]}}
    file = str(put(Path("hot.json"), told))
    words = ["import", file, "--format", "hotpotqa", "--task", "hotpotqa", "--name", "x"]
    words += ["--split", "validation", "-o", "R"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "1 supporting facts are no sentence of the data, such as ['Nowhere', 0]" in said
    assert main([*words, "--answers-only"]) == 0
    (row,) = (row for row in rows_of(Path("R"), "imported:x").values() if row.answer)
    assert row.answer == Answer("x")


class Namesakes(Toy):
    """Two questions with passages of one title and other sentences."""

    name = "namesakes"
    submissions = ("trec", "hotpotqa")

    def load(self, source, split, limit):
        return Loaded([self.question(n) for n in range(4)])

    def question(self, number: int) -> RawQuestion:
        sentences = tuple(f"{number} {place} stands. " for place in range(number + 1))
        document = Document("", "".join(sentences), "Same", sentences)
        other = Document("", f"Other {number}.", "Other", (f"Other {number}.",))
        return RawQuestion(
            f"q{number}", f"which {number}?", (Candidate(document, 1), Candidate(other)),
            answers=("x",), sentences=(("Same", 0),), where="here",
        )  # fmt: skip


def test_a_fact_is_looked_for_in_the_pool_of_its_question_first() -> None:
    registry.register("tasks", "namesakes")(Namesakes)
    facts = {f"q{n}": [["Same", 0], ["Same", 3], ["Same", 0]] for n in range(4)}
    file = put(Path("h.json"), {"answer": {}, "sp": facts})
    made = api.import_files(file, "namesakes", "x", "hotpotqa")
    data = Path(entry_of(made.folder, made.system)["data"])
    corpus, names = open_corpus(data), named_questions(data)
    for query_id, row in rows_of(made.folder, made.system).items():
        first, last = row.answer.evidence
        assert corpus[first.doc_id].text.startswith(f"{names[query_id].native[1]} 0")
        assert corpus[last.doc_id].text.startswith("3 0") and last.sentence == 3


def test_musique_rows_of_one_id_are_told_apart_by_their_turn_and_no_third_is_taken() -> None:
    source, gold = official_files.musique(Path("source"), full=True)
    api.prepare("musique:version=full", source, "validation")
    blank = {"predicted_support_idxs": [], "predicted_answerable": True}
    rows = [
        {"id": json.loads(line)["id"], "predicted_answer": f"{n}", **blank}
        for n, line in enumerate(gold.read_text().splitlines())
    ]

    def made(rows: list[Any]) -> Path:
        file = put(Path("m.jsonl"), lines(rows))
        task = "musique:version=full"
        return api.import_files(file, task, "x", "musique", split="validation", out="R").folder

    texts = [row.answer.text for row in rows_of(made(rows), "imported:x").values()]
    assert sorted(texts, key=int) == [str(n) for n in range(len(rows))]
    with pytest.raises(HarnessError, match="is answered twice"):
        made([*rows, rows[0]])
    with pytest.raises(HarnessError, match="there is no paragraph 99"):
        made([{**rows[0], "predicted_support_idxs": [99]}, *rows[1:]])


def test_a_question_with_two_answers_is_refused() -> None:
    source, _ = official_files.triviaqa(Path("source"), "Web")
    api.prepare("triviaqa:config=rc.web", source, "validation")
    file = put(Path("t.json"), {"tq_0--0/0.txt": "x", "tq_0--0/1.txt": "y"})
    with pytest.raises(HarnessError, match="tq_0 has other answers for other documents"):
        api.import_files(file, "triviaqa:config=rc.web", "x", "triviaqa", split="validation")


def test_a_ranking_that_leaves_its_pool_is_an_error_row_and_told(capsys) -> None:
    run = [f"native-{n} Q0 {ids_of(0)[0]} 1 1 t" for n in (0, 1)] + ["other Q0 d 1 1 t"]
    file = str(put(Path("x.run"), lines(run)))
    assert main(["import", file, "--task", "toy", "--name", "x", "-o", "R"]) == 3
    said = capsys.readouterr()
    assert "1 questions are errors and score 0, first: imported:x: ranks" in said.err
    assert (
        "1 ids of x.run are no questions of the task and were left out, such as 'other'" in said.err
    )
    assert "38 of 40 questions are not in x.run" in said.err
    assert "errors=1, missing=38" in said.out
    assert said.out.splitlines()[-1] == "R"


# --- the folder -----------------------------------------------------------------------


@pytest.fixture
def given() -> Path:
    """A file of two answers."""
    return put(Path("p.json"), {"native-0": "x", "native-1": "y"})


def test_its_manifest_is_whole_and_claims_nothing_that_nobody_knows(given: Path) -> None:
    folder = api.import_files(given, "toy", "x").folder
    told = read_manifest(folder)
    assert missing(told) == []
    (entry,) = told["pipelines"]
    assert told["sessions"] == [] and told["stages"] == {} and entry["stages"] == []
    assert [entry[name] for name in ("device", "dtype", "batch_size")] == [None] * 3
    (file,) = entry["origin"]["files"]
    assert file["name"] == "p.json" and len(file["sha256"]) == 64
    assert str(Path.cwd()) not in json.dumps(told)
    for name in list(file):
        kept = file.pop(name)
        assert missing(told) == [f"pipelines[0].origin.files[0].{name}"]
        file[name] = kept
    for name in list(entry["origin"]):
        kept = entry["origin"].pop(name)
        assert missing(told) == [f"pipelines[0].origin.{name}"]
        entry["origin"][name] = kept
    del entry["origin"]
    assert {"sessions", "stages", "pipelines[0].device"} <= set(missing(told))


def test_the_same_import_again_changes_nothing_and_another_of_its_name_is_refused(given) -> None:
    def found() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in Path("R").rglob("*") if p.is_file()}

    api.import_files(given, "toy", "x", out=Path("R"))
    before = found()
    api.import_files(given, "toy", "x", out=Path("R"))
    assert found() == before
    put(given, {"native-0": "other"})
    with pytest.raises(HarnessError, match="R has another imported:x on toy already"):
        api.import_files(given, "toy", "x", out=Path("R"))
    with pytest.raises(HarnessError, match="R has another imported:x on toy already"):
        api.import_files(given, "toy", "x", out=Path("R"), limit=39)
    assert found() == before
    api.import_files(given, "toy", "y", out=Path("R"))
    assert {e["system"] for e in read_manifest(Path("R"))["pipelines"]} == {
        "imported:x",
        "imported:y",
    }
    assert api.import_files(given, "toy", "x").folder != api.import_files(given, "toy", "y").folder


def test_its_file_may_stand_behind_its_options(given: Path) -> None:
    assert main(["import", "--name", "x", "--task", "toy", str(given), "-o", "R"]) == 0
    assert main(["export", "--format", "trec-qrels", "-o", "q.txt", "--task", "toy", "R"]) == 0
    assert len(Path("q.txt").read_text().splitlines()) == 200


def test_it_joins_a_run_and_the_run_goes_on(given: Path) -> None:
    folder = api.run(["toy"], ["bm25"], out="R")
    api.import_files(given, "toy", "x", out=folder)
    api.run(["toy"], ["bm25", "random"], out="R")
    told = read_manifest(folder)
    assert missing(told) == []
    assert [each["system"] for each in told["pipelines"]] == ["bm25", "imported:x", "random"]
    assert len(told["sessions"]) == 2
    assert missing({**told, "sessions": []}) == ["sessions"]
    systems = {record.system for record in api.records(api.score(folder))}
    assert systems == {"bm25", "imported:x", "random"}


def test_what_fails_half_way_leaves_the_folder_as_it_was(given: Path, monkeypatch) -> None:
    folder = api.run(["toy"], ["bm25"], out="R")
    before = sorted(str(path) for path in folder.rglob("*"))

    def full(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(imported, "write_manifest", full)
    for out in (folder, Path("new")):
        assert main(["import", str(given), "--task", "toy", "--name", "x", "-o", str(out)]) == 130
    assert sorted(str(path) for path in folder.rglob("*")) == before
    assert not Path("new").exists()


def test_it_cannot_be_run_repeated_timed_or_registered(given: Path, capsys) -> None:
    folder = str(api.import_files(given, "toy", "x").folder)
    cannot = "imported:x was read from a file and cannot be run"
    register = "challenge register --system imported:x -o c --task mini-musique".split()
    for words, said in (
        (["run", "--task", "toy", "--system", "imported:x"], cannot),
        (["latency", "--task", "toy", "--system", "imported:x"], cannot),
        (["repeat", folder], "imported:x was read from a file"),
        (register, "imported:x takes results from a file"),
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, words


# --- where it stands ------------------------------------------------------------------


def imported_run(right: int, out: str) -> Path:
    """An import that answers so many of the toy's questions rightly."""
    told = {
        each.id: each.answers[0] if n < right else "no" for n, each in enumerate(toy_questions())
    }
    made = api.import_files(put(Path("p.json"), told), "toy", "theirs", out=Path(out))
    return api.score(made.folder)


def test_it_stands_in_tables_pages_comparisons_and_the_gate(capsys) -> None:
    old, new = imported_run(40, "old"), imported_run(10, "new")
    assert "imported:theirs" in api.report(new)
    page = api.page(new, Path("p.html")).read_text()
    assert "imported:theirs" in page
    assert "imported:theirs" in api.show(new, "native-3")
    assert main(["compare", str(old), str(new), "--fail-on-regression"]) == 1
    assert main(["compare", str(old), str(old), "--fail-on-regression"]) == 0
    assert main(["compare", "base", str(old), "--accept", "--reason", "first"]) == 0
    assert main(["compare", "base", str(new), "--fail-on-regression"]) == 1
    capsys.readouterr()
    own = api.score(api.run(["toy"], ["bm25"], out="own"))
    theirs = api.import_files(api.submit(own, "trec", "x.run").path, "toy", "theirs")
    (found,) = api.compare(own, api.score(theirs.folder), baseline="bm25")
    assert found.new_mean == found.base_mean > 0


@pytest.fixture
def bundle(given: Path) -> Path:
    folder = api.score(api.import_files(given, "toy", "x").folder)
    return pack(folder, put(Path("s.json"), SUBMISSION), Path("x.zip"))


def test_its_bundle_says_that_nobody_ran_it_and_is_not_asked_again(bundle: Path, capsys) -> None:
    report = verify(bundle)
    assert not report.findings
    assert report.badge == "arithmetic verified"
    (note,) = report.notices
    assert note.startswith("imported:x: imported from p.json (predictions, SHA-256")
    again = verify(bundle, again=3)
    assert not again.findings and again.badge == "arithmetic verified"
    assert "takes its results from a file" in str(again.unasked.values())
    Path("board").mkdir()
    shutil.copy(bundle, "board/x.zip")
    assert main(["leaderboard", "board", "-o", "b.md", "--format", "markdown"]) == 0
    assert "imported:x" in Path("b.md").read_text()


def in_entry(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda about: about["pipelines"][0].update(values)


def run_anew(about: dict[str, Any]) -> None:
    del about["pipelines"][0]["origin"]


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another file": (
        lambda about: about["pipelines"][0]["origin"]["files"][0].update(sha256="0" * 64),
        "keys",
    ),
    "another name": (in_entry(system="imported:y"), "keys"),
    "as if it was run": (in_entry(system="bm25"), "manifest"),
    "no origin": (run_anew, "provenance"),
    "a device": (in_entry(device="cpu"), "manifest"),
    "a second stage": (in_entry(system="imported:x+reader"), "keys"),
    "an origin that is none": (in_entry(origin={}), "provenance"),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_import_that_is_made_up_is_found(bundle: Path, name: str) -> None:
    change, rule = FORGED[name]
    bad = forged(bundle, lambda files: edit(files, "manifest.json", change))
    assert rule in {finding.rule for finding in verify(bad).findings}


def test_its_rows_are_checked_as_any(bundle: Path) -> None:
    def ranks(row: dict[str, Any]) -> None:
        told = {"id": row["id"], "hits": [["0" * 16, 1.0]]}
        row.clear()
        row.update(told)

    bad = forged(bundle, lambda files: edit_row(files, ranks, "imported"))
    assert {finding.rule for finding in verify(bad).findings} >= {"pool", "manifest"}


def test_a_shorter_import_says_how_to_cut_what_it_is_compared_with(capsys) -> None:
    run = api.score(api.run(["toy"], ["bm25", "bm25@2"], out="R"))
    whole = Path(api.submit(run, "trec", "whole.run", system="bm25").path).read_text()
    short = [line for line in whole.splitlines() if int(line.split()[3]) <= 2]
    Path("short.run").write_text("\n".join(short) + "\n")
    api.score(api.import_files("short.run", "toy", "short", out=run).folder)
    words = ["compare", "R", "R", "--system", "imported:short", "--metric", "nDCG@10"]
    assert main([*words, "--baseline", "bm25"]) == 2
    assert "Write @2 behind bm25, which was run" in capsys.readouterr().err
    assert main([*words, "--baseline", "bm25@2"]) == 0
    api.score(api.import_files("whole.run", "toy", "whole", out=run).folder)
    capsys.readouterr()
    assert main([*words, "--baseline", "imported:whole"]) == 2
    told = capsys.readouterr().err
    assert "Import as many of both" in told and "which was run" not in told

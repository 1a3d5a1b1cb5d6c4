"""What is exported is read by the tools that it is written for, with the scores of the run; and
nothing else that is written holds a text of the corpus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import official_files
import pytest
from conftest import Toy, toy_questions
from forging import SUBMISSION
from official_files import lines, put

from harness import api, registry
from harness.canonical import named_questions, open_corpus, read_gold
from harness.cli import main
from harness.data import Candidate, Document, HarnessError, Loaded, RawQuestion
from harness.prepare import prepare
from harness.report import exports, formats
from harness.report.bundle import pack
from harness.report.mteb import NAMES
from harness.report.sheet import MINI
from harness.run import readers
from harness.score import submitted
from harness.score.results import read_manifest, read_scores
from harness.spelling import parse_spelled

SMALL = "documents=300,questions=20"


def scores_of(folder: Path, system: str = "") -> dict[str, dict[str, float]]:
    """Native question id → the scores of a pipeline, or of the only one."""
    (table,), entries = read_scores(folder), read_manifest(folder)["pipelines"]
    (entry,) = (each for each in entries if system in ("", each["system"]))
    names = named_questions(Path(entry["data"]))
    return {names[line["id"]].native: line["metrics"] for line in table.lines[entry["system"]]}


def measured(qrels: Path, run: Path, metrics: Iterable[str]) -> dict[str, dict[str, float]]:
    """What the command line of ir-measures says of each question."""
    words = ["--by_query", "--places", "12", "--no_summary", str(qrels), str(run), *metrics]
    done = subprocess.run(
        [sys.executable, "-m", "ir_measures", *words], capture_output=True, text=True, check=True
    )
    found: dict[str, dict[str, float]] = {}
    for line in done.stdout.splitlines():
        query, metric, value = line.split("\t")
        found.setdefault(query, {})[metric] = float(value)
    return found


@pytest.mark.parametrize("task", [f"mini-msmarco:{SMALL}", f"mini-musique:{SMALL}"])
def test_ir_measures_scores_our_run_against_our_qrels_as_we_do(task: str) -> None:
    folder = api.score(api.run([task], ["bm25@6"], limit=15))
    qrels = api.export(folder, "trec-qrels", "qrels.txt").path
    run = api.submit(folder, "trec", "x.run").path
    ours = {q: m for q, m in scores_of(folder).items() if m}
    assert len(ours) > 10
    metrics = list(next(iter(ours.values())))
    theirs = measured(qrels, run, metrics)
    assert theirs.keys() == ours.keys()
    for query, found in ours.items():
        assert theirs[query] == pytest.approx(found, abs=1e-9, rel=0)
    made = api.import_files(run, task, "back", limit=15)
    back = scores_of(api.score(made.folder))
    for query, found in ours.items():
        assert back[query] == pytest.approx(found, abs=1e-9, rel=0)


# --- BEIR and FlashRAG ----------------------------------------------------------------


def native_texts(data: Path) -> dict[str, tuple[str, str]]:
    """Native id → title and text of every document; its own id where it has no other."""
    with (data / "natives.txt").open(encoding="utf-8") as file:
        pairs = zip(open_corpus(data), file, strict=True)
        return {line.strip() or d.id: (d.title, d.text) for d, line in pairs}


def test_a_beir_folder_is_read_back_as_the_same_task() -> None:
    api.prepare("msmarco-dev", official_files.msmarco_passage(Path("source"))[0], "dev")
    folder = api.score(api.run(["msmarco-dev"], ["bm25"], out="run"))
    made = api.export("msmarco-dev", "beir", "beir")
    back = api.score(api.run(["jsonl:dir=beir,split=dev"], ["bm25"], out="back"))
    ours, theirs = scores_of(folder), scores_of(back)
    assert len(ours) == official_files.COUNT
    for query, found in theirs.items():
        assert {"RR@10": ours[query]["RR@10"]}.items() <= found.items()
    data = [Path(read_manifest(each)["pipelines"][0]["data"]) for each in (folder, back)]
    assert native_texts(data[0]) == native_texts(data[1])
    assert any("licence" in note for note in made.notes)
    head, *rows = (Path("beir") / "qrels" / "dev.tsv").read_text().splitlines()
    assert head == "query-id\tcorpus-id\tscore"
    assert len(rows) == 2 * official_files.COUNT


class Odd(Toy):
    """A task with every document and question that a folder could get wrong."""

    name = "odd"
    settings = ("corpus",)
    documents = (
        Document("a", "one line"),
        Document("b", "two\nlines"),
        Document("c", '"in quotes"'),
        Document("d", "text", 'A "title"'),
        Document("e", "first\nsecond", "Title"),
        Document("f", " \u2028 it\u0085 ends \u202e", "é\U0001f600"),
        Document("g", '"half', ""),
    )

    def load(self, source, split, limit):
        questions = [
            RawQuestion("q 1", "which?", relevance={"a": 2, "b": 0}, answers=("x", "y")),
            RawQuestion("q2", "who?", answers=("z",)),
        ]
        return Loaded(questions, self.documents)


@pytest.mark.parametrize("fmt", ["beir", "flashrag"])
def test_odd_texts_and_ids_come_back_as_they_were(fmt: str) -> None:
    registry.register("tasks", "odd")(Odd)
    api.export("odd", fmt, "out")
    data = prepare("jsonl:dir=out")
    assert native_texts(data) == {d.id: (d.title, d.text) for d in Odd.documents}
    names, golds = named_questions(data), read_gold(data)
    found = {names[query].native: gold for query, gold in golds.items()}
    assert {query: gold.answers for query, gold in found.items()} == {
        "q 1": ("x", "y"),
        "q2": ("z",),
    }
    graded = sorted(found["q 1"].relevance.values())
    assert graded == ([0, 2] if fmt == "beir" else [])
    with pytest.raises(HarnessError, match="'q 1' is no id for this file"):
        api.export("odd", "trec-qrels", "q.txt")
    assert not Path("q.txt").exists()


def test_what_a_format_has_no_place_for_is_told() -> None:
    hot = api.export(f"mini-hotpotqa:{SMALL}", "flashrag", "hot")
    said = " ".join(hot.notes)
    for what in ("gold sentences have", "no pools", "judgements have no place", "licence: gen"):
        assert what in said
    assert api.export(f"mini-msmarco:{SMALL}", "trec-qrels", "q.gz").notes == (MINI,)
    assert not api.export("toy", "trec-qrels", "toy.gz").notes


@pytest.mark.parametrize("fmt", ["beir", "flashrag"])
def test_what_is_exported_of_a_mini_task_stays_mini(fmt: str, capsys) -> None:
    assert MINI in api.export(f"mini-hotpotqa:{SMALL}", fmt, "out").notes
    registry.register("tasks", "odd")(Odd)
    assert MINI not in api.export("odd", fmt, "odd").notes
    put(Path("t.yaml"), f"name: mine\nformat: {fmt}\npath: out\nmetrics: [EM]\n")
    for task in ("jsonl:dir=out", "t.yaml"):
        (table,) = api.tables(api.score(api.run([task], ["bm25"], limit=5)))
        assert table.generated and MINI in table.title
        again = api.export(task, fmt, Path("again") / task.partition(":")[0])
        assert MINI in again.notes
        assert registry.task(parse_spelled(f"jsonl:dir={again.path}")).generated
    assert main(["run", "--task", "t.yaml", "--system", "e5"]) == 2
    assert "not for yaml:t.yaml. Write e5:model=ORG/NAME" in " ".join(
        capsys.readouterr().err.split()
    )
    for task in ("jsonl:dir=odd", "jsonl:dir=nowhere"):
        assert not registry.task(parse_spelled(task)).generated
    assert not registry.find("tasks", "jsonl").generated  # which `verify` asks


def test_gold_of_a_mini_task_stays_mini_in_a_file(capsys) -> None:
    tasks = {f"mini-msmarco:{SMALL}": True, "toy": False}
    for number, (task, mini) in enumerate(tasks.items()):
        run = api.submit(api.run([task], ["bm25"]), "trec", f"{number}.run").path
        gold = api.export(task, "trec-qrels", f"{number}.txt").path
        assert main(["score-file", str(run), "--task", "trec", "--gold", str(gold)]) == 0
        assert (MINI in capsys.readouterr().out) == mini
    words = ["score-file", "1.run", "--task", "mini-msmarco", "--format", "trec", "--gold"]
    assert main([*words, "1.txt"]) == 0
    assert MINI in capsys.readouterr().out
    row = {"id": "q", "answer": "x", "answer_aliases": [], "answerable": True}
    row |= {"paragraphs": [{"idx": 0, "is_supporting": True}]}
    for about, mini in (({"generated": True}, True), ({"generated": "no"}, False), (3, False)):
        put(Path("gold.jsonl"), lines([{**row, "metadata": about}]))
        assert submitted.generated("musique", Path("gold.jsonl")) == mini


class Graded(Toy):
    """A task that counts grades from 2."""

    name, rel = "graded", 2
    ranking_metrics = ("nDCG@10", "RR@10", "R@5")


def test_where_grades_count_from_two_other_tools_are_told() -> None:
    registry.register("tasks", "graded")(Graded)
    folder = api.score(api.run(["graded"], ["bm25"]))
    (note,) = api.export(folder, "trec-qrels", "q.txt").notes
    assert "write RR(rel=2)@10" in note
    made = api.export(folder, "mteb", "m.json")
    assert any("mteb has no RR(rel=2)@10, R(rel=2)@5: left out" in each for each in made.notes)
    ((scores,),) = json.loads(Path("m.json").read_text())["scores"].values()
    assert not scores.keys() & {"mrr_at_10", "recall_at_5"}


def test_judged_documents_without_text_are_told_and_kept() -> None:
    place = Path("beir")
    put(place / "corpus.jsonl", lines([{"_id": "d", "title": "", "text": "x"}]))
    put(place / "queries.jsonl", lines([{"_id": "q", "text": "x?"}]))
    put(place / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq\td\t1\nq\tgone\t1\n")
    made = api.export("jsonl:dir=beir,missing=keep", "trec-qrels", "q.txt")
    assert sorted(Path("q.txt").read_text().splitlines()) == ["q 0 d 1", "q 0 gone 1"]
    assert made.notes == (f"1 {exports.NO_TEXT}",)


def test_of_a_run_the_questions_that_it_asked_are_exported() -> None:
    folder = api.run(["toy"], ["bm25", "random"], limit=7)
    api.export(folder, "trec-qrels", "q.txt")
    queries = {line.split()[0] for line in Path("q.txt").read_text().splitlines()}
    assert len(queries) == 7
    api.export(folder, "beir", "beir")
    rows = [json.loads(line) for line in Path("beir/queries.jsonl").read_text().splitlines()]
    assert {row["_id"] for row in rows} == queries
    order = [each.id for each in toy_questions()]
    assert [row["_id"] for row in rows] == [each for each in order if each in queries]


def test_what_reads_a_runs_data_finds_it_where_it_was_moved_to() -> None:
    run = api.score(api.run(["toy"], ["bm25"], limit=7))
    told, query = put(Path("s.json"), SUBMISSION), next(iter(scores_of(run)))
    works = {
        "score": lambda home: api.score(run, data=home),
        "page": lambda home: api.page(run, "page.html", data=home),
        "show": lambda home: api.show(run, query, data=home),
        "qrels": lambda home: api.export(run, "trec-qrels", "q.txt", data=home),
        "mteb": lambda home: api.export(run, "mteb", "m.json", data=home),
        "submit": lambda home: api.submit(run, "trec", "x.run", data=home),
        "bundle": lambda home: api.pack(run, told, Path("x.zip"), data=home),
    }
    Path("data").rename("moved")
    for work in works.values():
        with pytest.raises(HarnessError, match=r"nor under elsewhere\. This needs the very data"):
            work("elsewhere")
    made = {name: work("moved") for name, work in works.items()}
    assert made["show"].startswith("toy · test · pool") and Path("page.html").exists()
    assert made["submit"].path.exists() and made["bundle"].exists()
    commands = [
        ["score", str(run)],
        ["page", str(run), "-o", "again.html"],
        ["show", str(run), query],
        ["submit", str(run), "--format", "trec", "-o", "again.run"],
        ["submit", str(run), "--bundle", "--submission", str(told), "-o", "again.zip"],
        ["export", str(run), "--format", "trec-qrels", "-o", "again.txt"],
    ]
    for words in commands:
        assert main(words) == 2, words
        assert main([*words, "--data", "moved"]) == 0, words


# --- mteb -----------------------------------------------------------------------------

FIELDS = {
    "dataset_revision", "task_name", "mteb_version", "scores", "evaluation_time",
    "kg_co2_emissions", "date", "evaluation_phases",
}  # fmt: skip
"""Of mteb.results.TaskResult."""


def test_mtebs_json_has_the_runs_scores_under_the_tasks_own_name() -> None:
    task = f"mini-msmarco:{SMALL}"
    folder = api.score(api.run([task], ["bm25", "random"]), ["P@3", "Success@5", "nDCG@3"])
    made = api.export(folder, "mteb", "m.json", system="bm25")
    told = json.loads(Path("m.json").read_text())
    assert told.keys() >= FIELDS
    assert told["task_name"] == task and told["generated"] is True
    assert told["mteb_version"] is None and told["evaluation_time"] is None
    assert told["dataset_revision"] == read_manifest(folder)["pipelines"][0]["fingerprint"]
    assert told["system"] == "bm25"
    ((scores,),) = told["scores"].values()
    ours = {r.metric: r.value for r in api.records(folder) if r.system == "bm25"}
    assert scores.pop("main_score") == scores["ndcg_at_10"] == round(ours["nDCG@10"], 6)
    assert (scores.pop("hf_subset"), scores.pop("languages")) == ("default", ["eng-Latn"])
    for name, value in scores.items():
        measure, _, cut = name.partition("_at_")
        (mine,) = (ours for ours, theirs in NAMES.items() if theirs == measure)
        assert value == round(ours[f"{mine}@{cut}"], 6)
    assert {"ndcg_at_3"} <= scores.keys()
    assert not any("rel" in name for name in scores)
    assert any("mechanism test" in note for note in made.notes)


def test_mteb_wants_a_scored_run_that_ranks() -> None:
    with pytest.raises(HarnessError, match="toy is no run"):
        api.export("toy", "mteb", "m.json")
    folder = api.run(["toy"], ["bm25"])
    with pytest.raises(HarnessError, match="is not scored yet"):
        api.export(folder, "mteb", "m.json")
    answers = put(Path("p.json"), {"native-0": "x"})
    theirs = api.score(api.import_files(answers, "toy", "x").folder)
    with pytest.raises(HarnessError, match="ranks nothing"):
        api.export(theirs, "mteb", "m.json")
    assert not Path("m.json").exists()


# --- mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["toy", "--format", "bier"], "there is no format 'bier' to export"),
        (["tyo", "--format", "beir"], "there is no task 'tyo'"),
        (["toy", "--format", "beir", "--split", "dev"], "toy has no split 'dev'"),
        (["toy", "--format", "beir", "--system", "bm25"], "--system choose in a run"),
        (["two", "--format", "mteb"], "2 pipelines of the run fit mteb. Choose: --system bm25 or"),
        (["two", "--format", "beir", "--task", "odd"], "the run has no pipeline --task odd"),
        (["hotpotqa", "--format", "beir"], "is not prepared under"),
    ],
)
def test_wrong_words_are_one_sentence_and_write_nothing(words, said, capsys) -> None:
    api.score(api.run(["toy"], ["bm25", "random"], out="two"))
    assert main(["export", *words, "-o", "out"]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not Path("out").exists()


def test_what_exists_is_kept_and_what_fails_leaves_nothing(monkeypatch, capsys) -> None:
    put(Path("out/notes.txt"), "mine")
    assert main(["export", "toy", "--format", "beir", "-o", "out"]) == 2
    assert "out exists" in capsys.readouterr().err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exports.Part, "judgements", interrupted)
    before = sorted(path.name for path in Path().iterdir())
    for fmt in ("beir", "trec-qrels"):
        assert main(["export", "toy", "--format", fmt, "-o", "new"]) == 130
    assert {"data"} == {path.name for path in Path().iterdir()} - set(before)


# --- no text of the corpus where nobody asked for it ----------------------------------


def grams(text: str) -> set[tuple[str, ...]]:
    """Every five words in a row; numbers are none, as any two files share some."""
    words = re.findall(r"[^\W\d_]{2,}", text.lower())
    return set(zip(*(words[n:] for n in range(5)), strict=False))


def written(folder: Path, page: Path, bundle: Path) -> str:
    """All that a run, its page and its bundle hold as text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_text(encoding="utf-8") for path in (*files, page)]
    with ZipFile(bundle) as packed:
        texts += [packed.read(name).decode() for name in packed.namelist()]
    return "\n".join(texts)


class Planted(Toy):
    """Passages of words that stand nowhere else; not generated, as far as anybody knows."""

    name = "planted"

    def load(self, source, split, limit):
        return Loaded([planted(*each) for each in enumerate(toy_questions(10))])


def planted(number: int, question: RawQuestion) -> RawQuestion:
    words = " ".join(f"{'ab'[n % 2] * (number + 1)}{'xyz'[n % 3] * (n + 1)}" for n in range(12))
    first, *rest = question.candidates
    text = f"{first.document.text} {words}"
    return replace(
        question, candidates=(Candidate(replace(first.document, text=text), first.grade), *rest)
    )


def test_bundle_page_and_rows_have_no_five_words_of_the_corpus_in_a_row() -> None:
    registry.register("tasks", "planted")(Planted)
    run = api.run(["planted"], ["bm25"], out="run")
    ranked = api.submit(run, "trec", "x.run").path
    answers = put(Path("p.json"), {each.id: each.answers[0] for each in toy_questions(10)})
    folder = api.import_files(answers, "planted", "x", rankings=ranked, out=run).folder
    api.score(folder)
    bundle = pack(folder, put(Path("s.json"), SUBMISSION), Path("x.zip"))
    corpus = open_corpus(Path(read_manifest(folder)["pipelines"][0]["data"]))
    theirs = grams("\n".join(document.text for document in corpus))
    assert len(theirs) > 100
    page = api.page(folder, "page.html")
    assert not theirs & grams(written(folder, page, bundle))
    told = api.page(folder, "texts.html", texts=True)
    assert len(theirs & grams(told.read_text())) > 50


def test_a_bundle_of_what_quotes_says_so(capsys) -> None:
    class Quoter:
        def answer(self, queries, documents):
            return [passages[0].text for passages in documents]

    registry.register("tasks", "planted")(Planted)
    registry.register("systems", "quoter")(Quoter)
    run = api.score(api.run(["planted"], ["bm25", "bm25+quoter@1"], out="run"))
    put(Path("s.json"), SUBMISSION)
    assert main(["submit", "run", "--bundle", "--submission", "s.json", "-o", "x.zip"]) == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("bm25+quoter@1 on planted: its rows hold what it wrote itself")
    assert run == Path("run")


# --- the page -------------------------------------------------------------------------

DOCS = (Path(__file__).parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_work_on_a_smaller_world(capsys) -> None:
    block = DOCS.partition("```\n")[2].partition("```")[0]
    block = block.replace("mini-hotpotqa", "mini-hotpotqa:documents=300,questions=20")
    block = block.replace("--limit 50", "--limit 10").replace("--limit 20", "--limit 5")
    commands = [line.split()[3:] for line in block.splitlines()]
    assert len(commands) > 8
    for words in commands:
        assert main(words) == 0, words
    out = capsys.readouterr().out
    assert "imported:words" in out and "imported:both" in out
    ours, theirs = scores_of(Path("RUN"), "bm25"), scores_of(Path("THEIRS"), "imported:both")
    means = measured(Path("qrels.txt"), Path("bm25.run"), ["nDCG@10"])
    assert len(means) == 10
    for query, found in means.items():
        assert ours[query]["nDCG@10"] == pytest.approx(found["nDCG@10"], abs=1e-9)
        assert theirs[query]["nDCG@10"] == ours[query]["nDCG@10"]


def test_the_page_names_every_format() -> None:
    table = DOCS.partition("| what | out | in |")[2].partition("\n\n")[0]
    named = set(re.findall(r"[a-z0-9][a-z0-9-]+", table))
    assert {*exports.FORMATS, *formats.FORMATS, *readers.READERS, "mteb", "jsonl"} <= named


def test_nobody_is_told_to_delete_a_folder(capsys) -> None:
    run = api.score(api.run(["toy"], ["bm25"], limit=3, out="R"))
    Path("file").touch()
    for out, said in (("R", "Name another one with -o.\n"), ("file", "with -o, or delete it.\n")):
        assert main(["export", str(run), "--format", "beir", "-o", out]) == 2
        assert capsys.readouterr().err.endswith(said)

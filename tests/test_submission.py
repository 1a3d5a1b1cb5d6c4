"""What `submit` writes scores in the official scorer as the run scores in the harness."""

from __future__ import annotations

import bz2
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import official_files
import pytest
from answering import Answering
from official_files import COUNT, put

from harness import api, registry
from harness.canonical import named_questions, open_corpus, read_gold, sample, source_order
from harness.cli import main
from harness.data import UNANSWERABLE, Answer, Evidence, HarnessError
from harness.run.store import read_rows, row_line
from harness.score import msmarco, official
from harness.score.answers import score_squad
from harness.score.results import read_manifest, read_scores
from harness.score.submitted import origin
from harness.score.validity import validate

SMALL = "documents=1000,questions=40,comparisons=true"
SYSTEM = "bm25+answering@3"
PLAIN = "bm25+answering:solves=false@3"
BARE = "bm25+answering:solves=false,plain=true@3"


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def a_run(task: str, *systems: str, lost: int = 0, **options: Any) -> Path:
    """A scored run, of which the last ``lost`` rows of each pipeline are missing."""
    folder = api.run([task], systems or ["random", "bm25", SYSTEM], out="run", **options)
    for entry in read_manifest(folder)["pipelines"]:
        path = folder / entry["rows"]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: len(lines) - lost]))
    return api.score(folder)


def means(folder: Path, system: str) -> dict[str, float]:
    """The harness's mean of each metric of a system."""
    (table,) = read_scores(folder)
    found: dict[str, list[float]] = {}
    for line in table.lines[system]:
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def loaded(path: Path) -> Any:
    """A submission, parsed without a word of the harness."""
    text = path.read_text(encoding="ascii")
    return (
        json.loads(text)
        if text.startswith("{\n")
        else [json.loads(x) for x in text.split("\n")[:-1]]
    )


PARTS = {"": "", "sp_": "SP-", "evi_": "Evi-", "joint_": "Joint-"}
NAMES = {"em": "EM", "f1": "F1", "prec": "Precision", "recall": "Recall"}
SECTIONS = {f"{p}{n}": f"{part}{name}" for p, part in PARTS.items() for n, name in NAMES.items()}
MUSIQUE = {"answer_em": "EM", "answer_f1": "F1", "support_f1": "Support-F1"}
SCRIPTS: dict[str, tuple[Mapping[str, str], int, int]] = {
    "hotpotqa": (SECTIONS, 1, 12),
    "2wikimultihopqa": (SECTIONS, 100, 16),
    "musique": (MUSIQUE, 1, 3),
    "triviaqa": ({"exact_match": "EM", "f1": "F1"}, 100, 2),
    "msmarco-passage": ({"MRR @10": "RR@10"}, 1, 1),
}
"""Format → official key → our metric; the official scale; how many keys there are to compare."""


def same(scores: Mapping[str, float], ours: Mapping[str, float], fmt: str) -> None:
    """The official script's numbers are ours, name by name, on its scale."""
    names, scale, count = SCRIPTS[fmt]
    compared = {key: ours[names[key]] * scale for key in scores if key in names}
    assert len(compared) == count
    assert {key: scores[key] for key in compared} == pytest.approx(compared, abs=1e-9, rel=0)


# --- the same scores ------------------------------------------------------------------


@pytest.mark.parametrize("lost", [0, 3])
@pytest.mark.parametrize("fmt", ["hotpotqa", "2wikimultihopqa", "musique", "triviaqa"])
def test_a_mini_run_scores_in_its_file_as_in_the_harness(fmt: str, lost: int) -> None:
    task = f"mini-{fmt}:{SMALL}"
    folder = a_run(task, lost=lost)
    made = api.submit(folder, fmt, "made.jsonl")
    ours = means(folder, SYSTEM)
    assert 0 < ours["F1"] < 1
    same(api.score_file(made.path, task).scores, ours, fmt)


@pytest.mark.parametrize("lost", [0, 3])
@pytest.mark.parametrize("fmt", ["hotpotqa", "2wikimultihopqa", "musique", "triviaqa"])
def test_a_sample_is_scored_as_the_run_that_drew_it(fmt: str, lost: int) -> None:
    """The file is of the sample, or of all questions; what it lacks of the sample scores 0."""
    task = f"mini-{fmt}:{SMALL}"
    ours = means(folder := a_run(task, SYSTEM, lost=lost, limit=15, seed=4), SYSTEM)
    made = api.submit(folder, fmt, "sample.jsonl")
    report = api.score_file(made.path, task, limit=15, seed=4)
    same(report.scores, ours, fmt)
    assert (report.questions, report.seed) == (15, 4)
    assert api.score_file(made.path, task).scores != report.scores
    assert api.score_file(made.path, task, limit=15, seed=5).scores != report.scores
    if not lost:
        whole = api.submit(a_run(task, SYSTEM), fmt, "whole.jsonl").path
        same(api.score_file(whole, task, limit=15, seed=4).scores, ours, fmt)


def test_a_ranking_of_a_sample_is_scored_as_the_run_that_drew_it() -> None:
    task = f"mini-hotpotqa:{SMALL}"
    ours = means(a_run(task, "bm25", limit=15, seed=4), "bm25")
    made = api.submit("run", "trec", "sample.run")
    found = api.score_file(made.path, task, format="trec", limit=15, seed=4)
    assert found.scores == pytest.approx({name: ours[name] for name in found.scores}, abs=1e-9)
    assert api.score_file(made.path, task, format="trec").scores["AP"] < found.scores["AP"]


def test_a_whole_file_of_musique_full_gives_the_drawn_rows(tmp_path: Path) -> None:
    """Twins have one id: which row is the drawn one, its place says. A sample of single twins is no
    MuSiQue-Full, and its answerable rows alone are scored."""
    _, made, gold = full()
    task, data = "musique:version=full", tmp_path / "data"
    names = named_questions(next(data.glob("musique*/*/native.jsonl")).parent)
    ids = sample(names, 9, 2)
    asked = [names[each].native for each in ids if UNANSWERABLE not in names[each].native]
    assert 0 < len(asked) < len(ids)
    rows = {row["id"]: row for row in map(json.loads, gold.open()) if row["answerable"]}
    order = [each for each in rows if each in asked]
    theirs = {each["id"]: each for each in reversed(loaded(made.path))}  # the answerable one
    by_hand = official.musique([theirs[e] for e in order], [rows[e] for e in order])
    found = api.score_file(made.path, task, limit=9, seed=2)
    assert found.scores == by_hand.scores and found.scores.keys() == MUSIQUE.keys()
    assert found.questions == 9


def test_answers_of_a_sample_to_ms_marco(monkeypatch) -> None:
    monkeypatch.setattr(msmarco, "tokenised", str.lower)
    api.prepare("msmarco-qa", official_files.msmarco_qa(Path("source"))[0], "validation")
    a_run("msmarco-qa", BARE)
    whole = api.submit("run", "msmarco-qa", "whole.json").path
    one, other = (api.score_file(whole, "msmarco-qa", limit=n, seed=3) for n in (9, COUNT))
    assert one.scores != other.scores and other.scores == api.score_file(whole, "msmarco-qa").scores
    rows = loaded(whole)
    names = named_questions(Path(read_manifest(Path("run"))["pipelines"][0]["data"]))
    asked = {int(names[each].native) for each in sample(names, 9, 3)}
    kept = [row for row in rows if row["query_id"] in asked]
    put(Path("sample.json"), official_files.lines(kept))
    assert api.score_file("sample.json", "msmarco-qa", limit=9, seed=3).scores == one.scores
    answerable = next(row for row in kept if row["query_id"] % 6)
    put(Path("less.json"), official_files.lines(row for row in kept if row is not answerable))
    with pytest.raises(HarnessError, match="is in the reference file alone"):
        api.score_file("less.json", "msmarco-qa", limit=9, seed=3)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"limit": 0}, "Write --limit 1 or more"), ({"limit": 3, "gold": "g"}, "Leave out --gold")],
)
def test_a_sample_is_drawn_from_prepared_data_alone(given: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        api.score_file("f", "hotpotqa", **given)


@pytest.mark.parametrize(("limit", "said"), [(1, "1 question drawn"), (7, "7 questions drawn")])
def test_a_sample_is_told(limit: int, said: str, capsys) -> None:
    task = f"mini-hotpotqa:{SMALL}"
    a_run(task, SYSTEM, limit=limit, seed=3)
    made = api.submit("run", "hotpotqa", "made.json")
    report = api.score_file(made.path, task, limit=limit, seed=3)
    against = f"split test, {said} by seed 3, official gold"
    assert origin(task, None, None, report) == against
    words = ["score-file", "made.json", "--task", task, "--limit", str(limit), "--seed", "3"]
    code, out, _ = told(words, capsys)
    assert code == 0 and against in out
    assert {f"{key}: {value}" for key, value in report.printed.items()} <= set(out.splitlines())


OFFICIAL = {
    "hotpotqa": (official_files.hotpotqa, "hotpotqa", "validation"),
    "2wikimultihopqa": (official_files.wiki2, "2wikimultihopqa", "validation"),
    "musique": (official_files.musique, "musique", "validation"),
    "triviaqa": (official_files.triviaqa, "triviaqa", "validation"),
    "msmarco-passage": (official_files.msmarco_passage, "msmarco-dev", "dev"),
}


@pytest.mark.parametrize("fmt", OFFICIAL)
def test_the_official_gold_file_the_prepared_data_and_the_harness_agree(fmt: str) -> None:
    make, task, split = OFFICIAL[fmt]
    source, gold = make(Path("source"))
    api.prepare(task, source, split)
    systems = ["bm25", PLAIN] if fmt != "msmarco-passage" else ["bm25", "random"]
    folder = a_run(task, *systems, lost=2, setting=None)
    (system,) = {"bm25"} if fmt == "msmarco-passage" else {PLAIN}
    made = api.submit(folder, fmt, "made.json", system=system)
    aliases = Path("source/id_aliases.json") if fmt == "2wikimultihopqa" else None
    by_file = api.score_file(made.path, task, gold=gold, aliases=aliases)
    by_data = api.score_file(made.path, task)
    assert by_file.scores == pytest.approx(dict(by_data.scores), abs=1e-9, rel=0)
    ours = means(folder, system)
    assert 0 < ours["RR@10" if fmt == "msmarco-passage" else "F1"] < 1
    same(by_file.scores, ours, fmt)


def test_answers_to_ms_marco_read_back_score_as_in_the_harness() -> None:
    source, gold = official_files.msmarco_qa(Path("source"))
    api.prepare("msmarco-qa", source, "validation")
    folder = a_run("msmarco-qa", BARE, lost=2)
    made = api.submit(folder, "msmarco-qa", "made.json")
    rows = loaded(made.path)
    references = [json.loads(line) for line in gold.read_text().splitlines()]
    assert {row["query_id"] for row in rows} == {row["query_id"] for row in references}
    assert msmarco.compare(rows, references).f1 < 1
    assert all(len(row["answers"]) == 1 for row in rows)
    none = "No Answer Present."  # which the official script replaces by nothing
    said = {row["query_id"]: row["answers"][0].replace(none, "") for row in rows}
    assert "" in said.values()
    data = Path(read_manifest(folder)["pipelines"][0]["data"])
    names, golds = named_questions(data), read_gold(data)
    scored = [
        score_squad(Answer(said[int(names[query_id].native)]), None, each)
        for query_id, each in golds.items()
    ]
    ours = means(folder, BARE)
    assert ours["F1"] > 0
    for name in ("EM", "F1"):
        values = [each[name] for each in scored if each]
        assert sum(values) / len(values) == pytest.approx(ours[name], abs=1e-9)


def test_ms_marco_answers_that_a_system_takes_back_are_left_out() -> None:
    source, _ = official_files.msmarco_qa(Path("source"))
    said = {official_files.question(n): Answer(f"{n}", answerable=n != 3) for n in range(COUNT)}
    said[official_files.question(4)] = Answer(" ")
    rows, told = scripted("msmarco-qa", source, said, "msmarco-qa")
    found = {row["query_id"]: row["answers"] for row in rows}
    none = {900_000 + n * 5 % COUNT for n in (3, 4)}
    assert {query for query, given in found.items() if given == ["No Answer Present."]} == none
    assert found[900_010] == ["2"]
    assert any(note.startswith("1 answers are left out") for note in told.notes)


def test_the_official_scorer_of_ms_marcos_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own functions over what the rows say, with words apart by spaces for spaCy's."""
    monkeypatch.setattr(msmarco, "tokenised", lambda text: text.lower())
    source, gold = official_files.msmarco_qa(Path("source"))
    api.prepare("msmarco-qa", source, "validation")
    made = api.submit(a_run("msmarco-qa", PLAIN), "msmarco-qa", "made.json")
    report = api.score_file(made.path, "msmarco-qa")
    by_file = api.score_file(made.path, "msmarco-qa", gold=gold).scores
    assert report.scores == pytest.approx(dict(by_file), abs=1e-9)
    said = {row["query_id"]: row["answers"][0] for row in loaded(made.path)}
    kept = [
        (
            said[row["query_id"]].replace("No Answer Present.", "").lower(),
            list(map(str.lower, row["answers"])),
        )
        for row in map(json.loads, gold.read_text().splitlines())
        if row["answers"] != ["No Answer Present."]
    ]
    rouge = [msmarco.rouge_l(*pair) for pair in kept]
    assert report.scores["rouge_l"] == pytest.approx(sum(rouge) / len(rouge), abs=1e-9)
    assert report.scores["bleu_1"] == pytest.approx(msmarco.bleu(*zip(*kept))[0], abs=1e-9)  # noqa: B905
    assert set(report.scores) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "F1"}


@pytest.mark.parametrize("task", [f"mini-musique:{SMALL}", f"mini-msmarco:{SMALL}"])
@pytest.mark.parametrize("system", ["random", "bm25", SYSTEM])
def test_a_trec_run_scores_as_in_the_harness_and_can_be_run_again(task: str, system: str) -> None:
    folder = a_run(task, lost=2)
    made = api.submit(folder, "trec", "made.run", system=system)
    ours = means(folder, system)
    report = api.score_file(made.path, task, format="trec")
    assert len(report.scores) >= 4
    assert report.scores == pytest.approx({k: ours[k] for k in report.scores}, abs=1e-9, rel=0)
    again = api.score(api.run([task], ["trec:file=made.run"], out="again"))
    found = means(again, "trec:file=made.run")
    assert found == pytest.approx({k: ours[k] for k in found}, abs=1e-9, rel=0)


# --- what stands in each file ---------------------------------------------------------


def squeezed(text: str) -> str:
    return "".join(text.split())


class Scripted:
    """Answers what a test says, by the question's text."""

    said: Mapping[str, Answer] = {}

    def open(self, corpus, folder, brief) -> None:
        self.by_text = {squeezed(document.text): document.id for document in corpus}

    def answer(self, queries, documents):
        return [self._with_ids(self.said.get(query.text)) for query in queries]

    def _with_ids(self, answer):
        if answer is None:
            return RuntimeError("nothing to say")
        pointed = answer.evidence
        if pointed is not None:
            pointed = tuple(
                Evidence(self.by_text[squeezed(e.doc_id)], e.sentence, e.span) for e in pointed
            )
        return Answer(answer.text, pointed, answer.triples, answer.answerable)


def scripted(task: str, source: Path, said: Mapping[str, Answer], fmt: str, **options: Any):
    """The submission of a system that answers so; evidence names documents by their text."""
    registry.register("systems", "scripted")(type("Now", (Scripted,), {"said": said}))
    api.prepare(task, source, "validation")
    folder = a_run(task, "bm25+scripted@1")
    made = api.submit(folder, fmt, "made.json", **options)
    return loaded(made.path), made


def text_of(number: int, place: int) -> str:
    return "".join(official_files.passages(number)[place][1])


def pointing(number: int, *places: int, **more: Any) -> Answer:
    evidence = tuple(Evidence(text_of(number, place), 0) for place in places)
    return Answer(f"answer {number}", evidence, **more)


def test_musique_numbers_are_those_of_the_row_where_titles_are_equal() -> None:
    said = {official_files.question(n): pointing(n, 3, 1) for n in range(COUNT)}
    said[official_files.question(5)] = pointing(5, 0, 0, 2)
    del said[official_files.question(0)]
    source, _ = official_files.musique(Path("source"))
    rows, made = scripted("musique", source, said, "musique")
    order = [json.loads(line) for line in source.read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in order]
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    by_number = dict(zip(reversed(range(COUNT)), rows, strict=True))
    assert by_number[7]["predicted_support_idxs"] == [27, 29]
    assert by_number[5]["predicted_support_idxs"] == [30, 28]  # 30 and 26 are one passage
    assert by_number[0] == {
        "id": "2hop__0",
        "predicted_answer": "",
        "predicted_support_idxs": [],
        "predicted_answerable": False,
    }
    assert all(type(row["predicted_answerable"]) is bool for row in rows)
    assert any("stand twice" in note for note in made.notes)


def test_musique_cannot_name_what_is_no_paragraph_of_the_question() -> None:
    said = {official_files.question(n): pointing(n, 1) for n in range(COUNT)}
    elsewhere = tuple(Evidence(text_of(*place), 0) for place in ((8, 0), (7, 2)))
    said[official_files.question(7)] = Answer("x", elsewhere)
    source, _ = official_files.musique(Path("source"))
    rows, made = scripted("musique", source, said, "musique")
    found = {row["id"]: row["predicted_support_idxs"] for row in rows}
    assert found[f"2hop__{7 * 5 % COUNT}"] == [28]
    assert any(note.startswith("1 pointers to passages that are no") for note in made.notes)


def full(**options: Any) -> tuple[list[Any], Any, Path]:
    said = {
        official_files.question(n): pointing(n, 3, answerable=bool(n % 3)) for n in range(COUNT)
    }
    source, gold = official_files.musique(Path("source"), full=True)
    rows, made = scripted("musique:version=full", source, said, "musique", **options)
    return rows, made, gold


def test_musique_full_has_both_rows_of_a_pair_and_its_group_scores() -> None:
    rows, made, gold = full()
    order = [json.loads(line) for line in gold.read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in order]
    assert len(rows) == 2 * COUNT
    by_file = api.score_file(made.path, "musique:version=full", gold=gold).scores
    assert by_file == api.score_file(made.path, "musique:version=full").scores
    assert len(by_file) == 5
    flags = {}
    for row, expected in zip(rows, order, strict=True):
        flags.setdefault(row["id"], {})[expected["answerable"]] = row["predicted_answerable"]
    assert {tuple(sorted(each.items())) for each in flags.values()} >= {
        ((False, True), (True, True)),
        ((False, False), (True, False)),
    }
    twins = {row["id"]: row for row in rows[COUNT:]}
    assert twins["2hop__5"]["predicted_support_idxs"] == [29]  # the last but two of three


def test_musique_follows_the_rows_of_a_gold_file() -> None:
    source, gold = official_files.musique(Path("source"), full=True)
    order = [json.loads(line) for line in source.read_text().splitlines()][::-1]
    order += [{**order[0], "id": "new", "answerable": each} for each in (True, False)]
    other = put(Path("other.jsonl"), official_files.lines(order))
    rows, made, _ = full(gold=other)
    assert [row["id"] for row in rows] == [row["id"] for row in order]
    assert rows[-1]["predicted_answer"] == ""
    assert any(note.startswith("2 rows of the gold file") for note in made.notes)
    assert api.score_file(made.path, "musique", gold=other).scores["answer_f1"] >= 0
    with pytest.raises(HarnessError, match=r"36 gold rows"):
        api.score_file(made.path, "musique", gold=gold)


def test_2wiki_says_nothing_twice_that_the_scripts_bugs_would_count_twice() -> None:
    source, _ = official_files.wiki2(Path("source"))
    rows = json.loads(source.read_text())
    for place, title in ((0, "Kiln"), (1, "KILN")):
        rows[0]["context"][place][0] = title
    rows[0]["supporting_facts"] = [["Kiln", 0], ["Other", 1]]
    put(source, rows)
    triples = (("The kiln", "keeper", "a"), ("the KILN!", "keeper", "a."), ("x", "keeper", "a"))
    said = {official_files.question(0): pointing(0, 0, 1, 0, triples=triples)}
    made, told = scripted("2wikimultihopqa", source, said, "2wikimultihopqa")
    assert made["sp"] == {"hot0": [["Kiln", 0]]}
    assert made["evidence"] == {"hot0": [["The kiln", "keeper", "a"], ["x", "keeper", "a"]]}
    assert sum(note.startswith("1 ") for note in told.notes) == 2
    scores = api.score_file(told.path, "2wikimultihopqa").scores
    assert scores["sp_recall"] == pytest.approx(100 / 2 / COUNT)


def test_hotpotqa_leaves_out_what_failed_and_says_what_a_system_does_not_give() -> None:
    source, _ = official_files.hotpotqa(Path("source"))
    said = {official_files.question(n): Answer(f"answer {n}") for n in range(2, COUNT)}
    made, told = scripted("hotpotqa", source, said, "hotpotqa")
    assert set(made) == {"answer", "sp"}
    assert made["sp"] == {}
    assert len(made["answer"]) == COUNT - 2
    assert made["answer"]["hot14"] == "answer 2"
    assert any("sp is {} and the scorer gives 0" in note for note in told.notes)
    assert any(note.startswith("2 questions of the run failed") for note in told.notes)
    scores = api.score_file(told.path, "hotpotqa").scores
    assert scores["sp_f1"] == scores["joint_f1"] == 0 < scores["f1"]


def test_hotpotqa_names_sentences_by_title_and_number_from_pointers_and_spans() -> None:
    source, _ = official_files.hotpotqa(Path("source"))
    length = len(official_files.passages(4)[1][1][0])
    evidence = (
        Evidence(text_of(4, 0), 1),
        Evidence(text_of(4, 1), span=(length - 1, length + 1)),
        Evidence(text_of(4, 0), 1),
        Evidence(text_of(4, 2)),
    )
    said = {
        official_files.question(4): Answer("x", evidence),
        official_files.question(5): Answer("y"),
    }
    made, _ = scripted("hotpotqa", source, said, "hotpotqa")
    title = official_files.passages(4)[0][0]
    assert made["sp"] == {
        f"hot{4 * 7 % COUNT}": [[title, 1], ["Twin 4", 0], ["Twin 4", 1]],
        f"hot{5 * 7 % COUNT}": [],
    }


def test_triviaqa_web_has_a_key_for_every_document() -> None:
    source, gold = official_files.triviaqa(Path("source"), "Web")
    said = {official_files.question(n): Answer(f"{n}") for n in range(COUNT - 1)}
    task = "triviaqa:config=rc.web"
    made, told = scripted(task, source, said, "triviaqa")
    assert made["tq_10--2/0.txt"] == made["tq_10--2/4.txt"] == "2"
    assert len(made) == 5 * (COUNT - 1)
    assert any("have no key" in note for note in told.notes)
    missing = api.score_file(told.path, task, gold=gold)
    assert any("blank.txt" in line for line in missing.log)
    (entry,) = read_manifest(Path("run"))["pipelines"]
    assert entry["task"] == task
    whole = api.submit("run", "triviaqa", "whole.json", gold=gold)
    assert set(loaded(whole.path)) == {*made, "tq_0--blank.txt"}
    report = api.score_file(whole.path, task, gold=gold)
    assert report.scores["common"] == 5 * (COUNT - 1) + 1


def test_triviaqa_wikipedia_has_a_key_for_every_question() -> None:
    source, gold = official_files.triviaqa(Path("source"))
    said = {official_files.question(n): Answer(f"{n}") for n in range(COUNT)}
    made, _ = scripted("triviaqa", source, said, "triviaqa")
    assert made == {f"tq_{n * 5 % COUNT}": str(n) for n in range(COUNT)}
    by_gold = api.submit("run", "triviaqa", "gold.json", gold=gold)
    assert loaded(by_gold.path) == made


def passage_run(**options: Any) -> Path:
    source, _ = official_files.msmarco_passage(Path("source"))
    api.prepare("msmarco-dev", source, "dev")
    return a_run("msmarco-dev", "bm25", "random", **options)


def test_ms_marco_passages_have_native_ids_in_the_order_of_the_ranking() -> None:
    made = api.submit(passage_run(), "msmarco-passage", "made.tsv", system="bm25")
    texts = dict(
        line.split("\t") for line in Path("source/collection.tsv").read_text().splitlines()
    )
    found: dict[str, list[str]] = {}
    for line in made.path.read_text().splitlines():
        query, passage, rank = line.split("\t")
        found.setdefault(query, []).append(passage)
        assert int(rank) == len(found[query])
    assert set(found) == {str(900_000 + n) for n in range(COUNT)}
    entry = next(e for e in read_manifest(Path("run"))["pipelines"] if e["system"] == "bm25")
    data = Path(entry["data"])
    names, corpus = named_questions(data), open_corpus(data)
    for row in read_rows(Path("run") / entry["rows"]):
        ranked = [corpus[hit.id].text for hit in row.hits]
        assert [texts[passage] for passage in found[names[row.id].native]] == ranked
    assert len({tuple(ranked) for ranked in found.values()}) > COUNT / 2


def test_the_reference_of_graded_judgements_has_the_relevant_grades_alone() -> None:
    source, qrels = official_files.msmarco_passage(Path("source"))
    judged = [line.split("\t") for line in qrels.read_text().splitlines()]
    graded = [f"{q} 0 {d} {1 + n % 3}" for n, (q, _, d, _) in enumerate(judged)]
    put(source / "2019qrels-pass.txt", official_files.lines(graded))
    (source / "queries.dev.small.tsv").rename(source / "msmarco-test2019-queries.tsv")
    api.prepare("msmarco-dl19", source)
    folder = api.score(api.run(["msmarco-dl19"], ["bm25"], out="run"), metrics=["RR@10"])
    made = api.submit(folder, "msmarco-passage", "made.tsv")
    relevant = {line.split()[0] for line in graded if not line.endswith(" 1")}
    (table,) = read_scores(folder)
    names = named_questions(Path(read_manifest(folder)["pipelines"][0]["data"]))
    values = [
        line["metrics"]["RR(rel=2)@10"]
        for line in table.lines["bm25"]
        if names[line["id"]].native in relevant
    ]
    report = api.score_file(made.path, "msmarco-dl19")
    assert 0 < report.scores["MRR @10"] < 1
    assert report.scores["MRR @10"] == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_a_name_that_ends_in_bz2_or_gz_is_packed() -> None:
    folder = passage_run()
    plain = api.submit(folder, "msmarco-passage", "made.tsv", system="bm25")
    packed = api.submit(folder, "msmarco-passage", "dev.txt.bz2", system="bm25")
    assert bz2.decompress(packed.path.read_bytes()) == plain.path.read_bytes()
    report = api.score_file(plain.path, "msmarco-dev")
    assert report == api.score_file(packed.path, "msmarco-dev")
    gz = api.submit(folder, "msmarco-passage", "dev.txt.gz", system="bm25")
    assert api.score_file(gz.path, "msmarco-dev") == report


def test_a_ranking_is_cut_to_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("harness.report.submission.SLOTS", "harness.report.formats.SLOTS"):
        monkeypatch.setattr(place, 3)
    folder = passage_run()
    made = api.submit(folder, "msmarco-passage", "made.tsv", system="bm25")
    ranks = [int(line.split("\t")[2]) for line in made.path.read_text().splitlines()]
    assert max(ranks) == 3 and len(ranks) == 3 * COUNT
    assert any("cut to their first" in note for note in made.notes)


def test_ids_that_a_file_cannot_hold_are_refused() -> None:
    folder = Path("beir")
    docs = ({"_id": f"D{n}", "text": f"text {n}"} for n in range(3))
    put(folder / "corpus.jsonl", official_files.lines(docs))
    put(folder / "queries.jsonl", official_files.lines([{"_id": "Q 1", "text": "text 1"}]))
    put(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nQ 1\tD1\t1\n")
    run = a_run("jsonl:beir", "bm25")
    with pytest.raises(HarnessError, match=r"'D\d' is no id for this file: MS MARCO's are whole"):
        api.submit(run, "msmarco-passage", "x.tsv")
    with pytest.raises(HarnessError, match="'Q 1' is no id for this file: a TREC run is cut"):
        api.submit(run, "trec", "x.run")
    assert [path.name for path in Path().iterdir() if "x." in path.name] == []


def test_a_trec_run_falls_strictly_and_its_tag_has_no_space() -> None:
    registry.register("systems", "spaced out")(Answering)
    folder = a_run(f"mini-musique:{SMALL}", "bm25")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["pipelines"][0]["system"] = "bm25:method=a b"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = api.submit(folder, "trec", "made.run")
    last: dict[str, tuple[int, float]] = {}
    for line in made.path.read_text().splitlines():
        query, q0, _, rank, score, tag = line.split(" ")
        assert (q0, tag) == ("Q0", "bm25:method=a_b")
        before = last.get(query, (0, float("inf")))
        assert int(rank) == before[0] + 1 and float(score) < before[1]
        last[query] = int(rank), float(score)
    assert len(last) == 40 and any("harness's own" in note for note in made.notes)


def test_answers_are_text_that_any_encoding_reads() -> None:
    source, _ = official_files.hotpotqa(Path("source"))
    said = {official_files.question(3): Answer("Ørn\t\n“bay” \U0001f3ee")}
    made, told = scripted("hotpotqa", source, said, "hotpotqa")
    assert list(made["answer"].values()) == ["Ørn\t\n“bay” \U0001f3ee"]
    assert told.path.read_bytes().isascii()


# --- what is said ---------------------------------------------------------------------


def test_a_part_of_a_split_is_said_to_be_one() -> None:
    task = f"mini-hotpotqa:{SMALL}"
    made = api.submit(a_run(task, SYSTEM, limit=10), "hotpotqa", "made.json")
    assert "the run asked 10 of 40 questions: the others score 0" in made.notes
    api.prepare("musique", official_files.musique(Path("source"))[0], "validation", limit=5)
    folder = api.run(["musique"], [PLAIN], out="part", split="validation")
    made = api.submit(folder, "musique", "part.jsonl")
    assert any("prepared with --limit 5" in note for note in made.notes)
    assert len(loaded(made.path)) == 5


def test_a_run_that_failed_on_everything_is_no_submission() -> None:
    folder = a_run(f"mini-hotpotqa:{SMALL}", "random", "bm25+answering:errors=1@3")
    for fmt, system in (("hotpotqa", None), ("trec", "random")):
        for entry in read_manifest(folder)["pipelines"]:
            if entry["system"] == "random":
                (folder / entry["rows"]).unlink(missing_ok=True)
        with pytest.raises(HarnessError, match=r"has no \w+ to any question of mini-hotpotqa"):
            api.submit(folder, fmt, "made.json", system=system)


def test_a_split_beside_a_gold_file_is_its_label(capsys) -> None:
    gold = put(Path("g.json"), [{"_id": "a", "answer": "x", "supporting_facts": []}])
    put(Path("p.json"), {"answer": {"a": "x"}, "sp": {"a": []}})
    words = [
        "score-file",
        "p.json",
        "--task",
        "hotpotqa",
        "--gold",
        str(gold),
        "--split",
        "fullwiki",
    ]
    assert told(words, capsys) == (
        0,
        "hotpotqa: official script's arithmetic, split fullwiki, gold g.json; "
        "not a leaderboard entry\n"
        + "".join(f"{key}: {value}\n" for key, value in PERFECT.items()),
        "",
    )


PERFECT = {
    f"{part}{name}": float(part == "" or name == "em")
    for part in ("", "sp_", "joint_")
    for name in ("em", "f1", "prec", "recall")
}
"""The answer is right; support that is empty on both sides has EM 1 and F1 0, officially."""


def test_data_without_the_order_of_its_rows_is_to_be_prepared_again() -> None:
    task = f"mini-musique:{SMALL}"
    folder = a_run(task, SYSTEM)
    data = Path(read_manifest(folder)["pipelines"][0]["data"])
    assert len(source_order(data)) == 40
    (data / "order.txt").unlink()
    with pytest.raises(HarnessError, match=r"in which order its rows came\. Prepare it again"):
        api.submit(folder, "musique", "made.jsonl")


def test_a_submission_needs_no_gold() -> None:
    for fmt in ("hotpotqa", "2wikimultihopqa", "musique", "triviaqa"):
        task = f"mini-{fmt}:documents=300,questions=12"
        folder = api.run([task], [SYSTEM], out=f"run-{fmt}")
        whole = api.submit(folder, fmt, f"{fmt}.json").path.read_bytes()
        Path(read_manifest(folder)["pipelines"][0]["data"], "gold.jsonl").unlink()
        assert api.submit(folder, fmt, f"{fmt}-again.json").path.read_bytes() == whole


def test_what_the_official_script_would_refuse_is_not_left_behind(monkeypatch) -> None:
    folder = a_run(f"mini-hotpotqa:{SMALL}", SYSTEM)
    writer = "harness.report.submission.FORMATS"
    from harness.report.formats import FORMATS, Format

    broken = {**FORMATS, "hotpotqa": Format("answers", lambda export: {"answer": {}})}
    monkeypatch.setattr(writer, broken)
    with pytest.raises(HarnessError, match="has no 'sp'"):
        api.submit(folder, "hotpotqa", "made.json")
    assert not list(Path().glob("*made.json*"))


HOTPOTQA = {"answer": {"a": "x", "b": "y"}, "sp": {"a": [["T", 0]], "b": []}}


@pytest.mark.parametrize(
    ("fmt", "content", "said"),
    [
        ("hotpotqa", HOTPOTQA, []),
        ("hotpotqa", HOTPOTQA | {"sp": {"a": [["T", "0"]]}}, ["1 of 2 ids", "never match"]),
        ("hotpotqa", HOTPOTQA | {"sp": {"a": ["ab", "T"]}}, ["1 of 2 ids", "2 supporting"]),
        ("musique", [("a", True), ("b", False)], []),
        ("musique", [("a", True), ("a", "true")], ["1 values of predicted_answerable"]),
        ("triviaqa", {"a": "x"}, []),
        ("msmarco-passage", "1\t5\t1\n2\t6\t1\n", []),
        ("msmarco-qa", [{"query_id": 1, "answers": ["x"]}], []),
        ("trec", "q Q0 d 1 0.5 t\n", []),
    ],
)
def test_a_file_of_anybodys_is_checked_by_itself(fmt: str, content: Any, said: list[str]) -> None:
    if fmt == "musique":
        keys = ("predicted_answer", "predicted_support_idxs")
        content = [
            {"id": i, **dict.fromkeys(keys, ""), "predicted_answerable": f} for i, f in content
        ]
    text = official_files.lines(content) if isinstance(content, list) else content
    found = validate(fmt, put(Path("f.json"), text))
    assert len(found) == len(said)
    assert all(each in line for each, line in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("fmt", "content"),
    [
        ("hotpotqa", {"answer": {"a": "x"}}),
        ("hotpotqa", []),
        ("hotpotqa", HOTPOTQA | {"answer": {"a": None}}),
        ("2wikimultihopqa", HOTPOTQA),
        ("2wikimultihopqa", HOTPOTQA | {"evidence": {"a": [["x", None, "y"]]}}),
        ("musique", [{"id": "a", "predicted_answer": "x", "predicted_answerable": True}]),
        ("triviaqa", {"a": 3}),
        ("triviaqa", ["a"]),
        ("msmarco-passage", "1 5 1\n"),
        ("msmarco-passage", "1\t5\t1001\n"),
        ("msmarco-passage", "1\t5\t1\n\n1\t6\t2\n"),
        ("msmarco-qa", [{"query_id": 1, "answers": ["x", "y"]}]),
        ("msmarco-qa", [{"answers": ["x"]}]),
        ("msmarco-qa", [{"query_id": [1], "answers": ["x"]}]),
        ("msmarco-qa", [{"query_id": 1, "answers": ["No Answer Present."]}]),
        ("trec", "q Q0 d 1 0.5 my run\n"),
    ],
)
def test_what_the_official_script_refuses_is_refused(fmt: str, content: Any) -> None:
    text = official_files.lines(content) if isinstance(content, list) else content
    with pytest.raises(HarnessError) as caught:
        validate(fmt, put(Path("f.json"), text))
    assert caught.value.hint


def test_the_other_style_of_keys_and_other_ids_are_warned_of() -> None:
    _, gold = official_files.triviaqa(Path("source"), "Web")
    by_question = put(Path("p.json"), {f"tq_{n}": "x" for n in range(COUNT)})
    report = api.score_file(by_question, "triviaqa", gold=gold)
    assert report.scores["common"] == 0
    (warning,) = report.warnings
    assert "all score 0: the data's keys are <question id>--<file name>" in warning
    _, gold = official_files.triviaqa(Path("other"))
    (warning,) = api.score_file(
        put(Path("q.json"), {"tq_0--a": ""}), "triviaqa", gold=gold
    ).warnings
    assert warning.endswith("keys are question ids")
    found = api.score_file(
        put(Path("q.json"), {"tq_0": "", "zz": ""}), "triviaqa", gold=gold
    ).warnings
    assert [line.split(" ids")[0] for line in found] == [f"{COUNT - 1} of {COUNT}", "1"]


# --- the command line -----------------------------------------------------------------


def told(words: list[str], capsys) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_submit_and_score_file_by_the_command_line(capsys) -> None:
    task = f"mini-hotpotqa:{SMALL}"
    folder = str(a_run(task))
    code, out, err = told(["submit", folder, "--format", "hotpotqa", "-o", "to/x.json"], capsys)
    assert (code, out) == (0, "to/x.json\n")
    assert "questions of the run failed or have no row" in err
    code, out, err = told(["score-file", "--task", task, "to/x.json"], capsys)
    assert code == 0
    said = "split test, 40 questions, official gold; not a leaderboard entry; mechanism test"
    assert f"official script's arithmetic, {said}" in out
    ours = means(Path(folder), SYSTEM)
    assert f"\njoint_f1: {api.score_file('to/x.json', task).printed['joint_f1']}\n" in out
    assert "more such lines" in err
    code, out, _ = told(["score-file", "to/x.json", "--task", task, "--json"], capsys)
    same(json.loads(out)["scores"], ours, "hotpotqa")
    assert len(json.loads(out)["log"]) > 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "x"], ["submit needs --format", "hotpotqa, musique"]),
        (["-o", "x", "--format", "musik"], ["no format 'musik'", "Did you mean 'musique'"]),
        (
            ["-o", "x", "--format", "hotpotqa"],
            ["2 pipelines", f"--system random+answering@2 or {SYSTEM}"],
        ),
        (["-o", "x", "--format", "hotpotqa", "--system", "bm25"], ["gives no answers"]),
        (["-o", "x", "--format", "trec", "--task", "mini-musique"], ["4 pipelines"]),
        (
            ["-o", "x", "--format", "triviaqa"],
            ["does not fit mini-hotpotqa", "hotpotqa, trec, musique"],
        ),
        (
            ["-o", "x", "--format", "hotpotqa", "--task", "mini-x"],
            ["no pipeline --task mini-x", "mini-hotpotqa"],
        ),
        (["-o", "x", "--format", "hotpotqa", "--gold", "g"], ["needs no --gold"]),
        (["-o", "old", "--format", "trec"], ["old exists"]),
    ],
)
def test_a_mistake_is_one_sentence_with_what_to_type(words, said, capsys) -> None:
    tasks = [f"mini-{each}:documents=300,questions=4" for each in ("hotpotqa", "musique")]
    api.run(tasks, ["random", "bm25", "random+answering@2", SYSTEM], out="run")
    put(Path("old"), "kept")
    code, out, err = told(["submit", "run", *words], capsys)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert all(each in err for each in said), err
    assert Path("old").read_text() == "kept" and not Path("x").exists()


def test_all_mistakes_are_told_together(capsys) -> None:
    put(Path("old"), "kept")
    code, _, err = told(["submit", "nowhere", "-o", "old", "--format", "x"], capsys)
    assert code == 2
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["nowhere", "--task", "toy", "--format", "hotpotqa"],
            "does not fit toy. Formats that do: trec",
        ),
        (["nowhere", "--task", "toy", "--split", "dev"], "no split 'dev'"),
        (["nowhere", "--task", "toy"], "nowhere does not exist"),
        (["nowhere", "--task", "squad"], "Name its gold with --gold"),
        (["nowhere", "--task", "toi"], "Did you mean 'toy'"),
        (["nowhere", "--task", "musique"], "is not prepared"),
        (["f", "--task", "2wikimultihopqa", "--gold", "f"], "--aliases"),
        (["f", "--task", "mini-hotpotqa", "--aliases", "f"], "--aliases without --gold"),
        (["f", "--task", "mini-hotpotqa"], "has no 'answer'"),
    ],
)
def test_a_mistake_with_a_file_is_one_sentence(words, said, capsys) -> None:
    put(Path("f"), {})
    code, out, err = told(["score-file", *words], capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_gold_without_sentences_fills_no_key_of_theirs() -> None:
    source, _ = official_files.hotpotqa(Path("source"))
    api.prepare("hotpotqa", source, "validation_paragraphs")
    folder = a_run("hotpotqa", PLAIN, split="validation_paragraphs")
    made = api.submit(folder, "hotpotqa", "made.json")
    report = api.score_file(made.path, "hotpotqa", split="validation_paragraphs")
    assert set(report.scores) == set(report.printed) == {"em", "f1", "prec", "recall"}
    assert any("no supporting sentences" in line for line in report.log)


def test_an_aggregate_of_rows_is_that_of_their_file() -> None:
    """The rows decide: another answer in one of them is another file and another score."""
    task = f"mini-triviaqa:{SMALL}"
    folder = a_run(task)
    before = api.score_file(api.submit(folder, "triviaqa", "a.json").path, task).scores["f1"]
    entry = next(e for e in read_manifest(folder)["pipelines"] if e["system"] == SYSTEM)
    rows = list(read_rows(folder / entry["rows"]))
    place = next(n for n, row in enumerate(rows) if row.answer and row.answer.text)
    rows[place] = type(rows[place])(rows[place].id, answer=Answer("nothing of the sort"))
    (folder / entry["rows"]).write_bytes(b"".join(map(row_line, rows)))
    after = api.score_file(api.submit(folder, "triviaqa", "b.json").path, task).scores["f1"]
    assert before - after == pytest.approx(100 / 40)
    assert official.BENCHMARKS.keys() > SCRIPTS.keys()

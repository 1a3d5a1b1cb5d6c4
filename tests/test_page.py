"""The page of a run: its numbers are the scores', its texts stay texts, and it asks for nothing."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, chromium
from conftest import Toy, toy_questions
from test_lost import planted
from test_scoring import a_run, entry, queries

from harness import api, registry
from harness.canonical import read_gold
from harness.cli import main
from harness.data import Answer, Document, Evidence, HarnessError, Loaded, Row
from harness.prepare import prepare
from harness.report.breakdown import UNLABELLED, question_word
from harness.report.charts import bars, pareto, tradeoff
from harness.report.page import LONGEST, as_json, fingerprint, page
from harness.report.sheet import Folders
from harness.report.show import show, visible
from harness.report.tables import tables
from harness.run.store import row_line
from harness.score.scoring import score

KINDS = ("right", "worded otherwise", "not used", "not read", "not retrieved", "failed")
ODD = (
    "<script>document.title='run'</script>",
    "</script><img src=x onerror=\"document.title='run'\">",
    "<!-- <b>&amp;&lt; {{ 7 * 7 }} {% raw %} ]]>",
    "\u202eright to left\u2066 אבג \u2028 and \u2029 on",
    "🦉 👩‍👩‍👧 e\u0301 \x07\x1b[31m",
    "long " * 17_600,
    "a (b) [c] \\ ^ $ | ? * + . {2} /x-y/",
)


class Mini(Toy):
    """The toy task as a generated one: its page has its texts."""

    name = "made"
    generated = True


class Odd(Mini):
    """Questions, passages and answers that want to be more than text."""

    name = "odd"

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        found = []
        for question, odd in zip(toy_questions(len(ODD)), ODD, strict=True):
            passages = (
                replace(each, document=Document("", odd + each.document.text, odd[:90]))
                for each in question.candidates
            )
            found.append(
                replace(question, text=odd, candidates=tuple(passages), answers=(odd[:300],))
            )
        return Loaded(found)


def rows_of(task: str, shift: int = 0) -> list[Row]:
    """Rows of which every sixth is lost in the same way."""
    golds = read_gold(prepare(task))
    return [
        planted(query, golds[query["id"]], KINDS[(n + shift) % 6])
        for n, query in enumerate(queries(task))
    ]


def a_scored_run(
    task: str = "made",
    name: str = "run",
    change: Any = None,
    ranker: bool = False,
    answering: int = 2,
) -> Path:
    """Two pipelines on a task, lost in different places; and one that ranks alone."""
    for each in (Mini, Odd):
        registry.register("tasks", each.name)(each)
    pipelines = []
    for shift, system in enumerate(("bm25+one@2", "bm25:k1=1.1+two@2")[:answering]):
        rows = rows_of(task, shift)
        if change:
            rows = [change(row) for row in rows]
        path = f"{shift}/rows.jsonl"
        pipelines.append((entry(system, task, answers=True, rows=path), rows))
    if ranker:
        rows = [replace(row, answer=None, raw="", read=()) for row in rows_of(task)]
        pipelines.append((entry("bm25:k1=1.2", task, answers=False, rows="2/rows.jsonl"), rows))
    return score(a_run(*pipelines, name=name))


class Parsed(HTMLParser):
    """A page's tables by caption, its scripts, and all of its tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._rows: list[list[str]] = []
        self._text: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("caption", "th", "td", "script"):
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        text, what = self._text or "", tag
        if what == "caption":
            self.tables.setdefault(text.strip(), self._rows)
        if what in ("th", "td"):
            self._rows[-1].append(text)
        if what == "script":
            self.scripts.append(text)
        if what in ("caption", "th", "td", "script"):
            self._text = None


def parsed(folder: Path | list[Path], **options: Any) -> tuple[Parsed, list[dict[str, Any]]]:
    """The page of a run, and the questions in it."""
    found = Parsed(page(folder, "page.html", **options).read_text())
    return found, json.loads(found.scripts[0])


# --- numbers --------------------------------------------------------------------------


def test_its_numbers_are_those_of_the_scores() -> None:
    folder = a_scored_run()
    _, (table,) = parsed(folder)
    found = {
        (system["name"], question["id"], metric): values[places[n]]
        for system in table["systems"]
        for metric, (values, places) in system["metrics"].items()
        for n, question in enumerate(table["questions"])
        if places[n] is not None
    }
    lines = map(json.loads, (folder / "scores.jsonl").read_text().splitlines())
    meant = {
        (line["system"], line["id"], metric): value
        for line in lines
        if not line["system"].startswith("(")
        for metric, value in line["metrics"].items()
    }
    assert found == meant
    assert len(set(found.values())) > 2


def test_its_table_is_that_of_the_report() -> None:
    folder = a_scored_run()
    found, _ = parsed(folder)
    (table,) = tables(folder)
    heads, *rows = found.tables[table.title]
    assert heads[0] == "system" and "mechanism test" in table.title
    shown = {row[0]: row[1:] for row in rows}
    for line in table.lines:
        for metric, cell in zip(table.shown(), shown[line.system], strict=False):
            record = line.cells.get(metric)
            assert cell.startswith("–" if record is None else f"{record.value:.3f}")
            if record is not None and record.low is not None:
                assert f"({record.low:.3f}–{record.high:.3f})" in cell


def test_the_classes_of_each_system_sum_to_its_questions() -> None:
    found, (table,) = parsed(a_scored_run())
    heads, *rows = found.tables["Where the answer was lost"]
    assert heads == ["system", *KINDS, "questions"]
    for row in rows:
        counts = dict(zip(heads[1:-1], map(int, row[1:-1]), strict=True))
        assert sum(counts.values()) == int(row[-1]) == len(table["questions"]) == 40
        assert set(counts.values()) == {6, 7}


def test_kinds_of_questions_have_their_own_means_with_n() -> None:
    found, _ = parsed(a_scored_run())
    heads, *rows = found.tables["By rank of the first gold passage"]
    assert heads == ["system", "metric", "1", "not among the hits"]
    by_metric = {row[1]: row[2:] for row in rows if row[0] == "bm25+one@2"}
    assert by_metric["nDCG@10"][1].startswith("0.000") and by_metric["nDCG@10"][1].endswith("n=6")
    assert by_metric["nDCG@10"][0].startswith("0.8") and by_metric["nDCG@10"][0].endswith("n=34")


def test_runs_are_joined_as_in_the_report_and_never_generated_with_real() -> None:
    made, real = a_scored_run(), a_scored_run("toy", "other")
    found, payload = parsed([made, real])
    titles = [table["title"] for table in payload]
    assert ["mechanism test" in title for title in titles] == [True, False]
    assert all(title in found.tables for title in titles)


def test_a_pipeline_of_two_runs_is_taken_from_the_last_as_in_the_report() -> None:
    one = a_scored_run()
    other = a_scored_run("made", "other", lambda row: replace(row, answer=Answer("nowhere")))
    for order, n in (([one, other], 0), ([other, one], 13)):
        found, (table,) = parsed(order)
        heads, *rows = found.tables["Where the answer was lost"]
        right = [int(row[heads.index("right")]) if "right" in heads else 0 for row in rows]
        assert sum(right) == n
        em = [system["metrics"]["EM"] for system in table["systems"]]
        assert sum(values[place] for values, places in em for place in places) == n


def test_the_pareto_line_is_what_nobody_beats_in_both() -> None:
    draw = random.Random(4)
    for _ in range(200):
        points = [(str(n), draw.randint(1, 6), draw.randint(0, 5)) for n in range(7)]
        best = pareto(points)
        for name, ms, value in points:
            beaten = [
                other
                for other, fast, good in points
                if (fast <= ms and good >= value) and (fast, good) != (ms, value)
            ]
            assert (name in best) == (not beaten)


def test_quality_is_drawn_where_there_is_a_time() -> None:
    chart = tradeoff("EM", {"a": 0.5, "b": 1.0, "c": 0.9}, {"a": 1.0, "b": 100.0})
    assert chart is not None
    assert [(each.system, each.x, each.y) for each in chart.front] == [("a", 0, 160), ("b", 600, 0)]
    assert tradeoff("EM", {"c": 0.9}, {"a": 1.0}) is None


def test_what_was_timed_stands_by_stage_and_is_drawn_beside_its_own_task() -> None:
    folder = a_scored_run()
    (folder / "latency.jsonl").write_text("".join(_timings("made") + _timings("toy")))
    found, (table,) = parsed([folder])
    heads, *rows = found.tables["Latency by stage and span, p50"]
    assert heads == ["pipeline", "stage 1ms", "stage 2ms", "answerms"]
    assert rows == [["bm25+one@2", "2.00", "7.00", "6.00"]]
    (title,) = [title for title in found.tables if "latency" in title]
    assert title.startswith("made")
    labels = [a["aria-label"] or "" for tag, a in found.tags if a.get("class") == "scatter"]
    assert len(labels) == 1 and "bm25+one@2: 9.0 ms, 0.175, on the Pareto line" in labels[0]
    first = table["questions"][0]["id"]
    assert [system["ms"][0] for system in table["systems"]] == [9.0, None]
    assert f"bm25+one@2: {KINDS[0]}, 9.00 ms" in show(folder, first)


def _timings(task: str) -> list[str]:
    """Three rounds of one pipeline on two questions."""
    described = entry("bm25+one@2", task)
    shared = {name: described[name] for name in ("task", "split", "setting", "fingerprint")}
    ids = [query["id"] for query in queries(task)[:2]]
    measured = {
        "cold": 100.0, "first": 10.0, "before": 1, "peak": 2, "ids": ids, "whole": [9.0, 9.0],
        "stages": [[2.0, 2.0], [7.0, 7.0]], "spans": {"answer": [6.0, 6.0]},
        "counts": {"prompt_tokens": [1, 1], "new_tokens": [1, 1]},
        "errors": 0, "error": "", "load": [0.1, 0.1],
    }  # fmt: skip
    timing = {
        **shared, "generated": task == "made", "asked": 2, "seed": 0, "device": "cpu",
        "dtype": "float32", "machine": {"cpu": "c", "cores": 1, "system": "s", "python": "3"},
        "system": "bm25+one@2", "key": "k", "versions": {}, "measured": measured,
    }  # fmt: skip
    return [json.dumps({**timing, "round": n}) + "\n" for n in range(3)]


def test_bars_are_as_long_as_all_questions() -> None:
    parts = bars(["right", "not read", "right", "failed"])
    assert [(each.name, each.count, each.start) for each in parts] == [
        ("right", 2, 0),
        ("not read", 1, 50),
        ("failed", 1, 75),
    ]
    assert sum(each.width for each in parts) == 100


@pytest.mark.parametrize(
    ("text", "word"),
    [("In which town?", "which"), ("How many are there", "how many"), ("Name whatnot.", "other")],
)
def test_the_first_question_word_counts(text: str, word: str) -> None:
    assert question_word(text) == word


class Labelled(Mini):
    """Every third question is a comparison; of the first it is not known."""

    name = "labelled"

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        types = ("comparison", "bridge", "bridge")
        found = [
            replace(each, labels={"question type": types[n % 3], "level": "hard"} if n else {})
            for n, each in enumerate(toy_questions())
        ]
        return Loaded(found)


def test_what_a_benchmark_says_of_its_questions_has_tables() -> None:
    registry.register("tasks", "labelled")(Labelled)
    folder = a_scored_run("labelled")
    found, (table,) = parsed(folder)
    heads, *rows = found.tables["By question type"]
    assert heads == ["system", "metric", "bridge", "comparison", "not known"]
    for row in rows:
        assert [cell.rpartition("n=")[2] for cell in row[2:]] == ["26", "13", "1"]
    types = {q["id"]: q.get("labels", {}).get("question type") for q in table["questions"]}
    lines = map(json.loads, (folder / "scores.jsonl").read_text().splitlines())
    em = [
        line["metrics"]["EM"]
        for line in lines
        if line["system"] == "bm25+one@2" and types[line["id"]] == "bridge"
    ]
    assert len(em) == 26 and 0 < sum(em) < 26
    (shown,) = [row for row in rows if row[:2] == ["bm25+one@2", "EM"]]
    assert shown[2].startswith(f"{sum(em) / 26:.3f} (")
    query_id = next(each for each, name in types.items() if name == "comparison")
    assert "question type: comparison, level: hard" in show(folder, query_id)


def test_data_prepared_before_labels_were_kept_says_that_they_are_not_known() -> None:
    folder = a_scored_run()
    found, _ = parsed(folder)
    assert UNLABELLED not in unescape(Path("page.html").read_text())
    (prepare("made") / "labels.jsonl").unlink()
    without, _ = parsed(folder)
    assert without.tables == found.tables
    assert UNLABELLED in unescape(Path("page.html").read_text())
    asked = queries("made")[0]["id"]
    assert f"question {asked} (native-" in show(folder, asked)


# --- texts ----------------------------------------------------------------------------


def test_json_in_a_script_is_plain_ascii_that_ends_nothing() -> None:
    for text in (*ODD, "\ud800 half", "<>&"):
        written = as_json({"x": text})
        assert written.isascii() and not set("<>&\n") & set(written)
        assert json.loads(written) == {"x": text}


def test_whatever_stands_in_the_data_stays_text() -> None:
    folder = a_scored_run("odd")
    found, (table,) = parsed(folder)
    assert len(found.scripts) == 2
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert "img" not in {tag for tag, _ in found.tags}
    texts = {question["text"] for question in table["questions"]}
    assert {text for text in ODD if len(text) <= LONGEST} < texts
    (long,) = [text for text in texts if text.startswith("long")]
    assert long.endswith(f"({88_000 - LONGEST:,} more characters)")
    html = Path("page.html").read_text()
    assert "\u202e" not in html and "<script>document" not in html


WRITTEN = ("half </script><script>x</script>", "", "\u202etfel", "<!--", "\x00 &amp; 🦉")


def written(row: Row) -> Row:
    """Whatever a system may write, everywhere; half a surrogate pair no row can hold."""
    text = WRITTEN[int(row.id[:6], 16) % len(WRITTEN)]
    if row.error:
        return replace(row, error=text or "empty", answer=None)
    triples = ((text, text, text),)
    return replace(
        row, answer=Answer(text, triples=triples), raw=text * 2, extras={"clues": [text]}
    )


def test_whatever_a_system_writes_stays_text_and_an_empty_answer_is_one() -> None:
    folder = a_scored_run(change=written)
    found, (table,) = parsed(folder)
    assert len(found.scripts) == 2 and [tag for tag, _ in found.tags].count("script") == 2
    said = [each for system in table["systems"] for each in system["said"] if "answer" in each]
    assert {each["answer"] for each in said} == set(WRITTEN)
    assert {each["extras"]["clues"][0] for each in said} == set(WRITTEN)
    assert "\u202e" not in Path("page.html").read_text()
    for question in table["questions"][:12]:
        show(folder, question["id"]).encode()


def test_half_a_surrogate_pair_ends_in_no_row_and_no_page() -> None:
    class Half:
        def answer(self, queries: Any, documents: Any) -> list[str]:
            return ["\ud800" if n % 2 else "whole" for n, _ in enumerate(queries)]

    registry.register("systems", "half")(Half)
    folder = api.score(api.run(["toy"], ["bm25@2+half@1"], limit=6))
    _, (table,) = parsed(folder)
    states = table["systems"][0]["state"]
    assert sum(each == "error" for each in states) == 3 and len(states) == 6
    with pytest.raises(TypeError):
        row_line(Row("a", raw="\ud800"))


def test_a_pipeline_s_name_is_escaped_in_tables_too() -> None:
    registry.register("tasks", "made")(Mini)
    name = "trec:file=<script>x</script>.run"
    found, _ = parsed(score(a_run((entry(name, "made", rows="a/rows.jsonl"), rows_of("made")))))
    assert len(found.scripts) == 2
    assert name in {row[0] for rows in found.tables.values() for row in rows}


def grams(texts: Any, n: int = 5) -> set[tuple[str, ...]]:
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return {tuple(each[at : at + n]) for each in words for at in range(len(each) - n + 1)}


def test_the_page_of_real_data_has_no_text_of_it_unless_asked() -> None:
    def talks(row: Row) -> Row:
        """As RetroLLM does: what it writes is the corpus's."""
        (text, clue) = ("The larch stands by the old gate today", ["stands by the old gate"])
        extras = {"clues": clue, "list": list(row.read), "losses": [0.51234567, 0.25], text: 1}
        said = replace(row, raw=text, extras=extras, counts={text: 1.0, "tokens": 2.0})
        return replace(row, error=text) if row.error else said

    folder = a_scored_run("toy", change=talks)
    _, (table,) = parsed(folder)
    data = [
        *(query["text"] for query in queries()),
        *(document["text"] for document in _documents()),
        "The larch stands by the old gate today",
    ]
    html = Path("page.html").read_text()
    assert not grams(data) & grams([html])
    assert not any(each["text"] in html for each in _documents())
    assert "by the" not in json.dumps(table)
    assert table["systems"][0]["said"][0]["extras"].keys() == {"list", "losses"}
    assert "--texts" in html
    _, (table,) = parsed(folder, texts=True)
    assert {query["text"] for query in queries()} == {q["text"] for q in table["questions"]}
    assert table["systems"][0]["said"][0]["extras"]["clues"] == ["stands by the old gate"]
    assert grams(data) & grams([Path("page.html").read_text()])
    assert "--texts" not in Path("page.html").read_text()


def looking(row: Row) -> Row:
    """As RetroLLM does: says which places it looked into, here in a passage that nobody ranks."""
    return replace(row, extras={"windows": [[other_than(row), 4, 9, 0.87654321]]})


def other_than(row: Row) -> str:
    used = {hit.id for hit in row.hits} | set(row.read)
    return next(each["id"] for each in _documents() if each["id"] not in used)


def test_what_was_looked_into_is_pointed_at_with_and_without_texts() -> None:
    folder = a_scored_run("toy", change=looking)
    texts = {each["id"]: each["text"] for each in _documents()}
    for given in (False, True):
        _, (table,) = parsed(folder, texts=given)
        doc_id, *rest = table["systems"][0]["said"][0]["extras"]["windows"][0]
        assert doc_id in table["docs"] and rest == [4, 9, 0.8765]
        if given:
            assert table["texts"][table["docs"].index(doc_id)][1] == texts[doc_id]
    told = show(folder, table["questions"][0]["id"])
    assert re.search(
        rf"  window: {doc_id} Title .* 4–9 0.8765: {texts[doc_id][4:9]}\n", told + "\n"
    )
    assert "windows" not in told


def test_show_has_the_texts_that_were_read_the_triples_and_what_was_written() -> None:
    def change(row: Row, raw: str) -> Row:
        said = Answer("x", triples=(("a", "b", "c"),))
        return replace(row, answer=said, error="", raw=raw, read=(other_than(row),))

    texts = {each["id"]: each["text"] for each in _documents()}
    for raw, written in (("", 0), ("x", 0), ("it is x", 2)):
        folder = a_scored_run("toy", change=partial(change, raw=raw))
        _, (table,) = parsed(folder)
        told = show(folder, table["questions"][0]["id"])
        (read,) = table["systems"][0]["read"][0]
        doc_id = table["docs"][read]
        assert re.search(rf"^read passage {doc_id} Title .*\n    {texts[doc_id]}$", told, re.M)
        assert told.count("\n  triple: a · b · c\n") == 2
        assert told.count("  written: ") == told.count("  written: 'it is x'") == written


def test_a_page_names_runs_by_folders_and_not_by_where_they_are() -> None:
    folders = [a_scored_run(name=name).resolve() for name in ("one", "two")]
    found = page(folders, "page.html").read_text()
    assert "bm25+one@2: from two, not from one." in found
    assert str(folders[0].parent) not in found


@pytest.mark.parametrize(
    "odd", ["x", [3], [["d", 1, 2]], [["d", "1", 2, 3.0]], [[1, 1, 2, 3.0]], {}]
)
def test_windows_of_another_form_are_shown_as_they_are(odd: object) -> None:
    folder = a_scored_run(change=lambda row: replace(row, extras={"windows": odd}))
    _, (table,) = parsed(folder)
    assert table["systems"][0]["said"][0]["extras"]["windows"] == odd
    assert "  windows: " in show(folder, table["questions"][0]["id"])


def drawing(row: Row) -> Row:
    """As DRO does: says which lists it drew and their weights, here with a passage nobody ranks."""
    gold, other = row.hits[0].id, other_than(row)
    drawn = [[[gold, other], 5, -0.51234567, -1.5, 0.87654321], [[other, gold], 1, -2.0, -3, 0.125]]
    return replace(row, extras={"samples": drawn, "effective_samples": 2.5})


def test_lists_that_were_drawn_are_told_with_and_without_texts() -> None:
    folder = a_scored_run("toy", change=drawing)
    rows = {row.id: drawing(row) for row in rows_of("toy")}
    for given in (False, True):
        _, (table,) = parsed(folder, texts=given)
        for question, said in zip(table["questions"], table["systems"][0]["said"], strict=True):
            (ids, *_), _ = rows[question["id"]].extras["samples"]
            first, second = map(table["docs"].index, ids)
            assert said["samples"] == [
                [[first, second], 5, -0.5123, -1.5, 0.8765],
                [[second, first], 1, -2, -3, 0.125],
            ]
            assert said["extras"] == {"effective_samples": 2.5}
            assert not given or table["texts"][second]
    told = show(folder, queries("toy")[0]["id"])
    ids = rows[queries("toy")[0]["id"]].extras["samples"][0][0]
    assert "  drawn 5×: log p -0.5123, of the answer -1.5, weight 0.8765\n" in told
    listed = re.findall(r"^       (\w+) Title \d+ \d(.*)$", told, re.MULTILINE)
    assert listed[:2] == [(ids[0], "  (gold, read)"), (ids[1], "")]
    assert "samples: [" not in told and "  effective_samples: 2.5" in told


@pytest.mark.parametrize(
    "odd",
    ["x", [3], [[["d"], 1, -1.0, -1.0]], [["d", 1, -1.0, -1.0, 1.0]], [[["d"], 1.5, -1.0, 0, 1]],
     [[["d"], 1, "", 0, 1]], {}],
)  # fmt: skip
def test_samples_of_another_form_are_shown_as_they_are(odd: object) -> None:
    folder = a_scored_run(change=lambda row: replace(row, extras={"samples": odd}))
    _, (table,) = parsed(folder)
    said = table["systems"][0]["said"][0]
    assert said["extras"]["samples"] == odd and "samples" not in said
    assert "  samples: " in show(folder, table["questions"][0]["id"])


def _documents() -> list[dict[str, Any]]:
    from harness.canonical import corpus_folder

    lines = (corpus_folder(prepare("toy")) / "documents.jsonl").read_text().splitlines()
    return list(map(json.loads, lines))


def test_it_has_no_address_to_ask_and_only_its_own_script_may_run() -> None:
    found, _ = parsed(a_scored_run())
    for tag, attributes in found.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    html = Path("page.html").read_text()
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|innerHTML|http://(?!www\.w3\.org)", html)
    (policy,) = [a["content"] for t, a in found.tags if a.get("http-equiv")]
    assert "default-src 'none'" in policy and fingerprint(found.scripts[1]) in policy


def test_tables_have_captions_and_heads_have_scopes() -> None:
    found, _ = parsed(a_scored_run())
    tags = [tag for tag, _ in found.tags]
    assert tags.count("table") == tags.count("caption") == 3
    assert all(a.get("scope") in ("col", "row") for t, a in found.tags if t == "th")
    assert all(a.get("aria-label") for t, a in found.tags if t == "svg" and a.get("role") == "img")


def test_it_is_small_enough_to_be_sent() -> None:
    """1,000 questions and ten systems that say much."""

    class Many(Mini):
        name = "many"

        def __init__(self, count: int = 1000) -> None:
            super().__init__(count)

    registry.register("tasks", "many")(Many)
    rows = rows_of("many")
    extras = {"losses": [n / 7 for n in range(8)]}
    rows = [replace(row, raw="word " * 20, counts={"n": 3}, extras=extras) for row in rows]
    pipelines = [
        (entry(f"bm25:k1=1.{n}+one@2", "many", answers=True, rows=f"{n}/rows.jsonl"), rows)
        for n in range(10)
    ]
    folder = score(a_run(*pipelines))
    assert page(folder, "page.html").stat().st_size < 5_000_000


# --- the commands ---------------------------------------------------------------------


def test_page_says_what_it_wrote_and_mistakes_in_a_sentence(capsys) -> None:
    folder = a_scored_run()
    assert main(["page", str(folder), "-o", "deep/run.html"]) == 0
    assert capsys.readouterr().out.startswith("deep/run.html (0.")
    assert api.page(folder, "two.html").read_text() == Path("deep/run.html").read_text()
    (folder / "scores.json").unlink()
    for words, said in [
        (["page", str(folder), "-o", "x.html"], "is not scored"),
        (["page", "nowhere", "-o", "x.html"], "not the folder of a run"),
        (["page", "deep", "-o", "deep"], "deep is a folder"),
    ]:
        assert main(words) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1
    assert not Path("x.html").exists()


def test_show_tells_a_question_by_its_id_native_id_or_beginning(capsys) -> None:
    folder = a_scored_run("toy")
    query = queries()[2]
    gold = read_gold(prepare("toy"))[query["id"]]
    assert main(["show", str(folder), query["id"][:9]]) == 0
    out = capsys.readouterr().out
    assert query["text"] in out and gold.answers[0] in out
    assert "bm25+one@2: not used" in out and "bm25:k1=1.1+two@2: not read" in out
    (right,) = [doc_id for doc_id, grade in gold.relevance.items() if grade]
    assert re.search(rf"   1 {right} Title \d+ 0  \(gold, read\)", out)
    assert re.search(rf"   1 {right} Title \d+ 0  \(gold\)", out)
    line = next(
        line
        for line in map(json.loads, (folder / "scores.jsonl").read_text().splitlines())
        if line["id"] == query["id"] and line["system"] == "bm25+one@2"
    )
    for metric, value in line["metrics"].items():
        assert f"{metric} {value:.3f}" in out
    assert show(folder, "native-7").splitlines()[1].endswith(toy_questions()[7].text)
    for words, said in [
        ("zz", "no question 'zz'"),
        ("native-1", None),
        ("native-", "40 questions"),
    ]:
        assert main(["show", str(folder), words]) == (0 if said is None else 2)
        assert (said or "") in capsys.readouterr().err


def test_what_steers_a_terminal_is_shown_and_not_obeyed(capsys) -> None:
    folder = a_scored_run("odd")
    for query in queries("odd"):
        assert main(["show", str(folder), query["id"]]) == 0
        out = capsys.readouterr().out
        assert not set("\x1b\x07\u202e\u2066\u2028") & set(out)
    assert visible("a\ud800\x1b[31m\nb") == "a\\ud800\\u001b[31m b"
    visible("\ud800").encode()


# --- colours --------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrasts_are_wcag_aa_in_the_light_and_in_the_dark() -> None:
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48  # as WCAG's own tools say
    parsed(a_scored_run())
    css = Path("page.html").read_text().partition("<style>")[2].partition("</style>")[0]
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", each)) for each in css.split("@media", 2)[:2]
    )
    assert light.keys() == dark.keys() and light != dark
    for colours in (light, dark):
        for text, ground in product(("text", "quiet", "link"), ("page", "panel")):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for ground in ("mark", "badge"):
            assert contrast(colours["text"], colours[ground]) >= 4.5, ground
        for drawn in ("focus", "dot", "bound", "quiet"):
            assert contrast(colours[drawn], colours["page"]) >= 3, drawn


# --- in a browser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("needs Chromium: put it on the PATH, or name it as CHROMIUM")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def opened(browser: Browser, folders: Folders, **options: Any) -> Path:
    """Open the page of runs in a wide, light window."""
    browser.errors.clear()
    browser.requests.clear()
    made = page(folders, "page.html", **options)
    browser.look()
    browser.open(made)
    return made


def count(browser: Browser) -> int:
    """How many questions are found, as a screen reader is told."""
    return int(browser.run("document.getElementById('count').textContent").split()[0])


def choose(browser: Browser, name: str, value: str) -> int:
    """Choose in a list of the form; how many questions are found then."""
    browser.run(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = {json.dumps(value)};"
        " e.dispatchEvent(new Event('change')); })()"
    )
    return count(browser)


def test_it_opens_from_disk_without_a_request_or_a_complaint(browser: Browser) -> None:
    made = opened(browser, a_scored_run())
    browser.run("document.querySelectorAll('#list button').forEach((each) => each.click())")
    assert browser.requests == [made.resolve().as_uri()]
    assert browser.errors == []
    assert count(browser) == 40


def test_no_text_becomes_markup_and_none_is_lost(browser: Browser) -> None:
    opened(browser, a_scored_run("odd"))
    assert count(browser) == len(ODD)
    seen = set()
    for n in range(len(ODD)):
        browser.run(f"document.querySelectorAll('#list button')[{n}].click()")
        browser.run("document.querySelectorAll('#detail details').forEach((d) => d.open = true)")
        seen.add(browser.run("document.querySelector('#detail h3').textContent"))
        assert browser.run("document.querySelectorAll('#detail img, #detail script').length") == 0
    assert {text for text in ODD if len(text) <= LONGEST} < seen
    assert browser.run("document.title") != "run"
    assert browser.errors == []


def test_what_systems_write_is_shown_as_text_too(browser: Browser) -> None:
    opened(browser, a_scored_run(change=written))
    seen = set()
    for n in range(20):
        browser.run(f"document.querySelectorAll('#list button')[{n}].click()")
        browser.run("document.querySelectorAll('#detail details').forEach((d) => d.open = true)")
        seen |= set(
            browser.run(
                "[...document.querySelectorAll('#detail td.said')].map((e) => e.textContent)"
            )
        )
        assert browser.run("document.querySelectorAll('#detail img, #detail script').length") == 0
    assert {"", "<!--", "\u202etfel"} < seen
    assert any(each.endswith("half </script><script>x</script>") for each in seen)
    assert browser.errors == []


def test_a_ranker_is_neither_right_nor_wrong(browser: Browser) -> None:
    opened(browser, a_scored_run(ranker=True))
    told = browser.run("[...document.querySelectorAll('#list small')].map((e) => e.textContent)")
    assert {*told} == {"0 of 2 systems right", "1 of 2 systems right"}
    assert choose(browser, "verdict", "right") == 13
    choose(browser, "system", "2")
    assert choose(browser, "verdict", "right") == choose(browser, "verdict", "wrong") == 0
    choose(browser, "system", "")
    choose(browser, "verdict", "")
    browser.run("document.getElementById('differ').click()")
    assert count(browser) == 13
    assert browser.errors == []


def shown(browser: Browser, name: str) -> bool:
    """Whether a field of the form is to be seen."""
    return bool(browser.run(f"document.getElementById('{name}').checkVisibility()"))


def ended(browser: Browser) -> set[str]:
    """What the list says of its questions."""
    told = browser.run("[...document.querySelectorAll('#list small')].map((e) => e.textContent)")
    return {*told}


def test_filters_that_say_nothing_of_a_table_are_hidden_and_filter_nothing(
    browser: Browser,
) -> None:
    opened(browser, [a_scored_run(), a_scored_run("toy", "ranked", ranker=True, answering=0)])
    fields = ("verdict", "lost", "differ")
    assert [shown(browser, each) for each in fields] == [True] * 3
    browser.run("document.getElementById('differ').click()")
    choose(browser, "verdict", "right")
    assert choose(browser, "lost", "right") == 13
    assert choose(browser, "table", "1") == 40  # nothing of it is answered
    assert [shown(browser, each) for each in fields] == [False] * 3
    assert ended(browser) == set()
    assert choose(browser, "table", "0") == 40
    assert [shown(browser, each) for each in fields] == [True] * 3
    assert browser.errors == []


def test_one_answer_is_right_or_wrong_and_cannot_disagree(browser: Browser) -> None:
    opened(browser, a_scored_run(answering=1))
    assert [shown(browser, each) for each in ("verdict", "lost", "differ")] == [True, True, False]
    assert ended(browser) == {"right", "wrong"}
    assert choose(browser, "verdict", "right") == 7


def test_filters_find_what_the_scores_say(browser: Browser) -> None:
    opened(browser, a_scored_run())
    for lost, n in zip(KINDS, (7, 7, 7, 7, 6, 6), strict=True):
        choose(browser, "system", "0")
        assert choose(browser, "lost", lost) == n, lost
    choose(browser, "lost", "")
    assert choose(browser, "verdict", "right") == 7
    assert choose(browser, "verdict", "wrong") == 33
    choose(browser, "system", "")
    choose(browser, "verdict", "")
    browser.run("document.getElementById('differ').click()")
    assert count(browser) == 13  # 7 and 6, of other questions
    browser.run("document.getElementById('differ').click()")
    browser.run("document.getElementById('search').focus()")
    browser.write("AMBER12 z")
    assert count(browser) == 0
    browser.run("document.getElementById('search').value = ''")
    browser.write("amber12?")
    assert count(browser) == 1
    browser.run("document.getElementById('search').value = ''")
    choose(browser, "sort", "worst")
    worst = browser.run("document.querySelector('#list small').textContent")
    assert worst.startswith("0 of 2")


def test_questions_are_found_by_what_their_benchmark_says_of_them(browser: Browser) -> None:
    registry.register("tasks", "labelled")(Labelled)
    opened(browser, a_scored_run("labelled"))
    browser.run("document.getElementById('search').focus()")
    browser.write("comparison")
    assert count(browser) == 13
    browser.run("document.querySelector('#list button').click()")
    told = browser.run("document.querySelector('#detail .note').textContent")
    assert told.endswith(" · question type: comparison · level: hard")


def test_windows_show_their_text(browser: Browser) -> None:
    opened(browser, a_scored_run("toy", change=looking), texts=True)
    browser.run("document.querySelector('#list button').click()")
    browser.run("document.querySelectorAll('#detail details').forEach((d) => d.open = true)")
    heads = "[...document.querySelectorAll('#detail h5')].find((e) => e.textContent === 'Windows')"
    (said,) = [browser.run(f"{heads}.nextSibling.textContent")]
    assert re.fullmatch(r"Title \d+ \d 4–9 0.8765: .{5}", said)
    assert browser.errors == []


def test_lists_that_were_drawn_have_a_table(browser: Browser) -> None:
    opened(browser, a_scored_run("toy", change=drawing), texts=True)
    browser.run("document.querySelector('#list button').click()")
    browser.run("document.querySelectorAll('#detail details').forEach((d) => d.open = true)")
    table = "document.querySelector('#detail details table')"
    cells = f"[...{table}.querySelectorAll('th, td')].map((e) => e.innerText.trim())"
    found = browser.run(cells)
    heads, one, other = (found[start : start + 5] for start in (0, 5, 10))
    assert heads == ["list", "drawn", "log p", "log p of the answer", "weight"]
    assert one[1:] == ["5×", "-0.5123", "-1.5", "0.8765"]
    assert other[1:] == ["1×", "-2", "-3", "0.125"] and len(found) == 15
    first, second = one[0].splitlines()
    assert re.fullmatch(r"Title \d+ \d\s*gold\s*read", first)
    assert re.fullmatch(r"Title \d+ \d", second) and other[0].splitlines() == [second, first]
    assert browser.errors == []


def test_gold_is_marked_and_answers_are_highlighted(browser: Browser) -> None:
    opened(browser, a_scored_run())
    browser.run("document.querySelector('#list button').click()")
    answer = browser.run("document.querySelector('#detail p bdi').textContent")
    assert browser.run("document.querySelector('#detail mark').textContent") == answer
    first = "document.querySelector('#detail > details summary').textContent"
    assert browser.run(first).endswith("gold")


def test_everything_is_reached_and_used_by_keyboard(browser: Browser) -> None:
    opened(browser, a_scored_run())
    wanted = browser.run(
        "[...document.querySelectorAll('a[href], button, select, input, summary, .scroll')]"
        ".filter((e) => e.checkVisibility()).map((e, n) => (e.dataset.n = String(n)))"
    )
    met = set()
    for _ in range(len(wanted) + 20):
        browser.press("Tab", 9)
        met.add(browser.run("document.activeElement.dataset.n || ''"))
    assert set(wanted) <= met
    browser.run("document.querySelector('#list button').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run("document.activeElement.matches('#detail h3')")
    browser.run("document.querySelector('.back').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run("document.activeElement === document.querySelector('#list button')")


def test_a_screen_reader_is_told_what_everything_is(browser: Browser) -> None:
    opened(browser, a_scored_run())
    browser.run("document.querySelector('#list button').click()")
    unnamed = browser.run(
        "[...document.querySelectorAll('select, input')].filter((e) => !e.labels.length).length"
        " + [...document.querySelectorAll('table')].filter((e) => !e.caption).length"
        " + [...document.querySelectorAll('th')].filter((e) => !e.scope).length"
        " + [...document.querySelectorAll('button')].filter((e) => !e.textContent).length"
    )
    assert unnamed == 0
    assert browser.run("document.querySelector('[aria-live=polite]').id") == "count"
    levels = browser.run(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5')].map((e) => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


CONTRASTS = """(() => {
  const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const read = (c) => c.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = read(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.checkVisibility() || ['SCRIPT', 'NOSCRIPT'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(read(e.ownerSVGElement ? style.fill : style.color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.textContent.slice(0, 30)} ${ratio}`);
  }
  return poor;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_every_window_and_can_be_read_there(browser: Browser, width, dark) -> None:
    opened(browser, a_scored_run())
    browser.look(width, dark=dark)
    browser.run("document.querySelector('#list button').click()")
    browser.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    ends = (
        "[...document.querySelectorAll('caption span')].map((e) => e.getBoundingClientRect().right)"
    )
    assert max(browser.run(ends)) <= width  # however wide its table is
    digits = "[...document.querySelectorAll('#detail dd')].map((e) => e.textContent.length)"
    assert max(browser.run(digits)) <= 8
    assert browser.run(CONTRASTS) == []
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_evidence_is_cut_out_where_python_counts_it(browser: Browser) -> None:
    """A span counts characters, and JavaScript's own count takes an owl for two."""

    def pointing(row: Row) -> Row:
        evidence = tuple(Evidence(doc_id, span=(0, 3)) for doc_id in row.read[:1])
        return row if row.error else replace(row, answer=Answer("x", evidence))

    class Owls(Mini):
        name = "owls"

        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            return Loaded(
                replace(q, candidates=tuple(
                    replace(c, document=Document("", f"🦉🦉!{c.document.text}"))
                    for c in q.candidates
                ))
                for q in toy_questions(6)
            )  # fmt: skip

    registry.register("tasks", "owls")(Owls)
    opened(browser, a_scored_run("owls", change=pointing))
    browser.run("document.querySelector('#list button').click()")
    assert "🦉🦉!" in browser.run(
        "[...document.querySelectorAll('#detail h5')].find((e) => e.textContent === 'Evidence')"
        ".nextSibling.querySelector('bdi:last-child').textContent"
    )


def test_without_texts_a_question_can_still_be_looked_at(browser: Browser) -> None:
    opened(browser, a_scored_run("toy"))
    browser.run("document.querySelector('#list button').click()")
    shown = browser.run("document.querySelector('#detail').textContent")
    assert re.match(r"Back to the listnative-\d+[0-9a-f]{16} · native-\d+", shown)
    browser.run("document.querySelector('#search').value = 'Native-3'; "
                "document.querySelector('#search').dispatchEvent(new Event('input'))")  # fmt: skip
    left = browser.run("[...document.querySelectorAll('#list button')].map((e) => e.textContent)")
    assert left and all("native-3" in each for each in left)
    assert "right" in shown and "undefined" not in shown and "null" not in shown
    assert browser.errors == []


def test_no_scored_run_is_no_page() -> None:
    with pytest.raises(HarnessError, match="not the folder of a run"):
        page("nowhere", "page.html")
    assert not Path("page.html").exists()

"""The page of a run: where answers were lost, what it holds, and that it shows text as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, chromium
from conftest import Toy, toy_questions

from harness import api, registry
from harness.cli import main
from harness.data import Answer, Candidate, Document, Gold, Hit, Loaded, Query, RawQuestion, Row
from harness.report.cases import cases
from harness.report.lost import CLASSES, Lost, lost

HOSTILE = "</script><script>alert(1)</script> <b>&amp;\u202e\u2028 ]]> '\"` 😀 <!-- {{ 7*7 }}"


# --- where an answer was lost ---------------------------------------------------------


def planted(hits: str, read: str, answer: str, **parts: Any) -> Row:
    ranked = tuple(Hit(each, -float(place)) for place, each in enumerate(hits))
    return Row("q", ranked, Answer(answer), read=tuple(read), **parts)


GOLD = Gold({"a": 1, "b": 1}, ("Mira Kolen",))


@pytest.mark.parametrize(
    ("row", "right", "expected"),
    [
        (planted("ab", "ab", "Mira Kolen"), 1.0, "right"),
        (planted("ab", "ab", "It was Mira Kolen."), 0.0, "worded otherwise"),
        (planted("ab", "ab", "Kolen"), 0.0, "worded otherwise"),
        (planted("ab", "ab", "Brno"), 0.0, "not used"),
        (planted("acb", "ac", "Brno"), 0.0, "not read"),
        (planted("ac", "ac", "Brno"), 0.0, "not retrieved"),
        (planted("cd", "ab", "Brno"), 0.0, "not used"),
        (planted("ab", "", "", error="broken"), 0.0, "failed"),
        (None, 0.0, "failed"),
        (planted("ab", "ab", "Brno"), None, "not judged"),
    ],
)
def test_planted_losses_fall_into_their_class(
    row: Row | None, right: float | None, expected: Lost
) -> None:
    assert lost(row, GOLD, right, 1, told=True) == expected


def test_any_passage_will_do_where_gold_is_not_complete() -> None:
    sparse = Gold({"a": 1, "b": 1}, ("x",), kind="sparse")
    assert lost(planted("ac", "ac", "y"), sparse, 0.0, 1, told=True) == "not used"
    assert lost(planted("ab", "", "y"), GOLD, 0.0, 1, told=False) == "reading unknown"
    assert lost(planted("ab", "ab", "y"), Gold({}, ("x",)), 0.0, 1, told=True) == "no gold passage"


class Reads:
    """Reads what it is given and answers one question in three right."""

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> list[str]:
        return [self._said(q, d) for q, d in zip(queries, documents, strict=True)]

    def _said(self, query: Query, read: Sequence[Document]) -> str:
        number = int(re.sub(r"\D", "", query.text) or 0)
        gates = [each.text for each in read if "stands by" in each.text]
        if number % 3 == 0 and gates:
            return gates[0].partition("stands ")[2].rstrip(".")
        return ("nowhere", HOSTILE)[number % 3 - 1]


@pytest.fixture
def run() -> Path:
    registry.register("systems", "reads")(Reads)
    made = api.run(["toy"], ["random", "random@2+reads", "bm25+reads@1"], out=Path("run"))
    return api.score(made)


def test_the_classes_part_the_questions(run: Path) -> None:
    (table,) = cases([run])
    for system in ("random@2+reads", "bm25+reads@1"):
        found = Counter(case.outcomes[system].lost for case in table.cases)
        assert set(found) <= set(CLASSES) and sum(found.values()) == 40
        scores = [case.outcomes[system].metrics["EM"] for case in table.cases]
        assert found["right"] == sum(scores) > 0
    assert Counter(case.outcomes["random@2+reads"].lost for case in table.cases)["not retrieved"]


# --- the page -------------------------------------------------------------------------


class Parsed(HTMLParser):
    """The tags of a page, the cells of its tables, and what its scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def made(run: Path, *words: str) -> str:
    assert main(["page", str(run), "-o", "run.html", *words]) == 0
    return Path("run.html").read_text(encoding="utf-8")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def test_a_page_asks_for_nothing_and_has_the_numbers_of_the_scores(run: Path) -> None:
    text = made(run)
    page = Parsed(text)
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:,")), (tag, name, value)
    assert "url(" not in text and "@import" not in text
    for record in api.records([run]):
        assert f"{record.value:.3f}" in page.text, record


def test_text_is_text(run: Path) -> None:
    """Of a task that is not generated, it is there only if it is asked for."""
    for words in ((), ("--texts",)):
        text = made(run, *words)
        page = Parsed(text)
        assert "<script>alert" not in text and "alert(1)" not in page.text.replace(HOSTILE, "")
        kept = [each for each in page.scripts if each.lstrip().startswith(("{", "["))]
        said = {found for each in kept for found in strings(json.loads(each))}
        assert (HOSTILE in said) == bool(words)
        assert any("Where stands" in each for each in said) == bool(words)
        assert text.count("</script>") == len(page.scripts)


def test_odd_texts_and_an_empty_answer_make_a_page(capsys: Any) -> None:
    class Odd(Toy):
        generated = True

        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            long = Document("", "word " * 17_600 + HOSTILE, HOSTILE)
            other = Document("", "שלום العربية", "\u202e")
            pool = (Candidate(long, 1), Candidate(other, 0))
            first = RawQuestion("n", f"Where? {HOSTILE}", pool, answers=("",), where="odd:1")
            return Loaded([first, *toy_questions(3)])

    registry.register("tasks", "toy")(Odd)
    registry.register("systems", "reads")(Reads)
    run = api.score(api.run(["toy"], ["bm25+reads@2"], out=Path("run")))
    text = made(run)
    assert len(text.encode()) < 1_000_000 and "<script>alert" not in text
    (table,) = cases([run])
    for case in table.cases:
        assert main(["show", str(run), case.id]) == 0
    told = capsys.readouterr().out
    assert "Where?" in told and "\u202e" not in told
    assert main(["show", str(run), "zzz"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_thousand_questions_of_ten_systems_stay_small() -> None:
    registry.register("systems", "reads")(Reads)
    systems = ["random", "bm25", *(f"random@{n}+reads" for n in range(1, 9))]
    run = api.score(api.run(["toy:count=1000"], systems, out=Path("run")))
    assert len(made(run, "--texts").encode()) < 5_000_000


@pytest.mark.skipif(chromium() is None, reason="needs chromium on the PATH or as CHROMIUM")
def test_in_a_browser_without_network(run: Path, tmp_path: Path) -> None:
    """No complaint, no request, nothing wider than a phone, and no hostile text runs."""
    made(run, "--texts")
    program = chromium()
    assert program is not None
    browser = Browser(program, tmp_path / "profile")
    try:
        for width, dark in ((1200, False), (400, False), (1200, True)):
            browser.look(width, dark=dark)
            browser.open(Path("run.html"))
            browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
            wide = browser.run("document.documentElement.scrollWidth")
            assert wide <= width
            browser.picture(tmp_path / f"{width}-{dark}.png")
        assert browser.errors == []
        own = Path("run.html").resolve().as_uri()
        assert {each for each in browser.requests if not each.startswith("data:")} == {own}
    finally:
        browser.close()

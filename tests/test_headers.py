"""Every table and file says where its numbers come from, of how many questions, and what kind of
gold they are judged by; none mixes the generated world, real data and what papers report.

One run asks a mini task and one of the shape of real data; whatever can be made of it is read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
from conftest import Toy
from forging import SUBMISSION

from harness import api, registry
from harness.cli import main
from harness.data import Answer, Reply
from harness.report.bundle import pack
from harness.report.compare import compare
from harness.report.latency import as_json as latency_json
from harness.report.page import page
from harness.report.reported import SOURCE, sheets
from harness.report.sheet import MINI
from harness.report.show import show
from harness.report.submission import submit
from harness.report.tables import report
from harness.report.verdicts import written_comparisons
from harness.score.results import read_manifest


class Source(NamedTuple):
    """A task of the run, its questions and its kind of gold."""

    task: str
    n: int
    gold: str
    generated: bool


WORLD = Source("mini-msmarco:documents=300,questions=30", 30, "sparse", True)
REAL = Source("toy", 40, "official", False)
BOTH = (WORLD, REAL)
SYSTEMS = ["bm25@5+quoting@2", "random@5+quoting@2"]
HEADS = {
    "table": r"(?m)^(\S.* · .*)\n(┏[^┡]*)┡",
    "markdown": r"\*\*(.+?)\*\*\n\n(\|.*)\n",
    "latex": r"\\caption\{(.*)\}\n.*\n\\toprule\n(.*) \\\\",
}
"""Title and heads of a table, by style."""
TABLE = r"<caption><span>(.*?)</span></caption>(.*?)</table>\s*</div>(.*?)(?=<div|<fig|</det|</sec)"
"""Caption and content of a table of a page, and what stands between it and the next."""


class Quoting:
    """Answers with the beginning of what it reads, and counts."""

    def answer(self, queries: Any, documents: Any) -> list[Reply]:
        return [Reply(Answer(each[0].text[:20]), counts={"read": len(each)}) for each in documents]


def own(source: Source, text: str) -> bool:
    """Whether a text is about a source and about no other."""
    (other,) = [each for each in BOTH if each is not source]
    there = re.search(rf"(?<![\w-]){source.task}(?![\w-])", text) is not None
    assert not there or re.search(rf"(?<![\w-]){other.task}(?![\w-])", text) is None, text
    return there


def source_of(title: str) -> Source:
    """The source that a title names; it says mini where that is generated, and only there."""
    (source,) = [each for each in BOTH if own(each, title)]
    assert (MINI in title) == source.generated, title
    return source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run, scored, timed and judged."""
    place = tmp_path_factory.mktemp("headers")
    with pytest.MonkeyPatch.context() as patch:
        known: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        known |= {"tasks": {"toy": Toy}, "systems": {"quoting": Quoting}}
        patch.setattr(registry, "_registered", known)
        tasks = [source.task for source in BOTH]
        folder = api.run(tasks, SYSTEMS, out=place / "run", data=place / "data")
        api.score(folder)
        api.claims(folder, task=WORLD.task, data=place / "data")
        (folder / "latency.jsonl").write_text(
            "".join(map(timing, read_manifest(folder)["pipelines"]))
        )
        yield folder


def timing(entry: dict[str, Any]) -> str:
    """A line of latency.jsonl for a pipeline of the run."""
    shared = ("task", "split", "setting", "fingerprint", "generated", "system", "seed", "device",
              "dtype", "key")  # fmt: skip
    measured = {
        "cold": 100.0, "first": 10.0, "before": 1, "peak": 2, "ids": ["a", "b"],
        "whole": [9.0, 9.0], "stages": [[2.0, 2.0], [7.0, 7.0]], "spans": {"answer": [6.0, 6.0]},
        "counts": {"prompt_tokens": [1, 1], "new_tokens": [1, 1]}, "errors": 0, "error": "",
        "load": [0.1, 0.1],
    }  # fmt: skip
    machine = {"cpu": "c", "cores": 1, "system": "s", "python": "3"}
    line = {name: entry[name] for name in shared}
    line |= {"asked": 2, "machine": machine, "versions": {}, "measured": measured, "round": 0}
    return json.dumps(line) + "\n"


@pytest.fixture(autouse=True)
def _quoting(_own_folder: None) -> None:
    registry.register("systems", "quoting")(Quoting)


# --- tables ---------------------------------------------------------------------------


def says(heads: str, source: Source) -> None:
    """Every metric has its n and its kind; answers are judged by official gold."""
    assert "nDCG@10" in heads and "EM" in heads
    assert set(re.findall(r"(\d+) \(\d+\)", heads)) == {str(source.n)}
    assert {source.gold, "official"} == set(re.findall("official|sparse|graded|distant", heads))


@pytest.mark.parametrize("style", HEADS)
def test_tables_of_scores_claims_and_latency(run: Path, style: Any) -> None:
    told = re.findall(HEADS[style], report(run, style))
    kinds = {"scores": [], "claims": [], "latency": []}  # type: dict[str, list[Source]]
    for title, heads in told:
        kind = next((each for each in ("claims", "latency") if f" · {each}" in title), "scores")
        kinds[kind].append(source := source_of(title))
        if kind == "scores":
            says(heads, source)
        if kind == "claims":  # their judge is their gold
            assert "claims by exact" in title and set(re.findall(r"(\d+) \(", heads)) == {"30"}
    assert kinds == {"scores": [*BOTH], "claims": [WORLD], "latency": [*BOTH]}
    assert report(run, style).count("2 questions × 1 rounds") == 2


def test_comparisons(run: Path) -> None:
    for metric, golds in (("nDCG@10", ("sparse", "official")), ("EM", ("official", "official"))):
        found = compare(run, run, baseline=SYSTEMS[0], metrics=[metric])
        tables = re.split(r"(?m)^(?=\S.* · .*\n┏)", written_comparisons(found))[1:]
        assert [source_of(each.splitlines()[0]) for each in tables] == [*BOTH]
        for source, gold, text in zip(BOTH, golds, tables, strict=True):
            grid = text.partition("└")[0]
            assert "gold" in grid.partition("┡")[0]
            assert re.search(rf"{source.n} \(\d+\)", grid) and gold in grid
            own(source, grid)
        values = [each.as_json() for each in found]
        assert [(v["found"]["n"], v["gold"], v["generated"]) for v in values] == [
            (source.n, gold, source.generated) for source, gold in zip(BOTH, golds, strict=True)
        ]


def test_the_page_has_a_section_for_each(run: Path) -> None:
    html = page(run, "page.html").read_text()
    sections = re.split(r"<section aria-labelledby=", html)[1:-1]
    told = []
    for section in sections:
        (title,) = re.findall(r"<h2[^>]*>(.*?)</h2>", section)
        told.append(source := source_of(title))
        own(source, section)
        tables = re.findall(TABLE, section, re.DOTALL)
        assert len(tables) > 5
        for caption, table, after in tables:
            heads = " ".join(re.findall(r"<th scope=\"col\">(.*?)</th>", table))
            if caption == title:
                says(heads.replace("<small>", " "), source)
            elif " · claims by " in caption:
                assert source_of(caption) == source and f"<small>{source.n} (" in heads
            elif caption.startswith("By "):
                assert "n=" in table and f"{source.gold} for rankings" in after
            elif "atency" in caption:
                assert "2 questions" in section
            else:
                assert "questions" in heads
                assert re.search(rf"<td>{source.n}</td></tr>", table)
    assert told == [*BOTH]
    payload = json.loads(re.findall(r'id="data">(.*?)</script>', html)[0])
    assert [source_of(each["title"]) for each in payload] == [*BOTH]
    assert [len(each["questions"]) for each in payload] == [source.n for source in BOTH]


def test_a_question_in_the_terminal(run: Path) -> None:
    lines = map(json.loads, (run / "scores.jsonl").read_text().splitlines())
    first = {line["task"]: line["id"] for line in lines}
    assert [source_of(show(run, first[each.task]).splitlines()[0]) for each in BOTH] == [*BOTH]


def test_what_papers_report_is_never_ours() -> None:
    for sheet in sheets():
        assert SOURCE in sheet.title and MINI not in sheet.title
        assert not any(own(each, sheet.title) for each in BOTH)
    titles = {sheet.title for sheet in sheets()}
    assert not titles & {each.task for each in BOTH}


# --- files ----------------------------------------------------------------------------


def test_records_as_json_and_csv(run: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(report(run, "csv"))))
    assert {row["task"] for row in rows} == {each.task for each in BOTH}
    for row in [*rows, *json.loads(report(run, "json"))]:
        (source,) = [each for each in BOTH if each.task == row["task"]]
        ranks = "nDCG R@ RR AP".split()
        gold = source.gold if row["metric"].startswith(tuple(ranks)) else "official"
        assert (str(row["n"]), row["gold"]) == (str(source.n), gold)
        assert str(row["generated"]) == str(source.generated)
    for row in latency_json(run):
        assert row["generated"] == row["task"].startswith("mini-") and row["questions"] == 2
    assert {(cell.n, cell.generated) for cell in api.claim_records(run)} == {(30, True)}


def test_scores_and_manifest(run: Path) -> None:
    manifest = read_manifest(run)["pipelines"]
    heads = json.loads((run / "scores.json").read_text())["tables"]
    for entry in (*manifest, *heads):
        (source,) = [each for each in BOTH if each.task == entry["task"]]
        assert (entry["questions"], entry["generated"]) == (source.n, source.generated)
    for line in map(json.loads, (run / "scores.jsonl").read_text().splitlines()):
        (source,) = [each for each in BOTH if each.task == line["task"]]
        assert line["gold"] == source.gold


def test_bundles_and_the_leaderboard(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.json").write_text(json.dumps(SUBMISSION))
    Path("bundles").mkdir()
    with ZipFile(pack(run, Path("s.json"), Path("bundles/all.zip"))) as bundle:
        entries = json.loads(bundle.read("manifest.json"))["pipelines"]
    assert {(e["task"], e["questions"], e["generated"]) for e in entries} == {
        (each.task, each.n, each.generated) for each in BOTH
    }
    for style in ("html", "markdown", "json"):
        words = ["leaderboard", "bundles", "-o", style, "--format", style]
        assert main([*words, "--data", str(run.parent / "data")]) == 0
    tables = json.loads(Path("json").read_text())["tables"]
    assert [source_of(each["title"]) for each in tables] == [*BOTH]
    for table, source in zip(tables, BOTH, strict=True):
        cells = table["lines"][0]["cells"]
        assert cells["nDCG@10"]["n"] == source.n and cells["nDCG@10"]["gold"] == source.gold
        assert cells["nDCG@10"]["generated"] == source.generated
    titles = re.findall(HEADS["markdown"], Path("markdown").read_text().replace("\\", ""))
    assert titles.pop()[0] == "Quality against time"  # its lines name their tasks
    assert [source_of(title) for title, _ in titles] == [*BOTH]
    for (_, heads), source in zip(titles, BOTH, strict=True):
        says(heads, source)
    html = Path("html").read_text()
    for section in re.findall(r"<section><h2>.*?</section>", html, re.DOTALL):
        source = source_of(re.findall("<h2>(.*?)</h2>", section)[0])
        says(" ".join(re.findall("<small>(.*?)</small></th>", section)) + " nDCG@10 EM", source)
    for text in (html, Path("markdown").read_text()):
        times = [line for line in re.findall(r"(?m)<tr>.*?</tr>|^\|.*", text) if "9.0" in line]
        assert len(times) == 4
        for line in times:
            source_of(line.replace("\\", ""))
            assert re.search(r"<td>2</td>|\| 2 +\|", line)


def test_files_for_other_people_s_scorers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in BOTH:
        made = submit(run, Path(f"{source.n}.run"), "trec", task=source.task, system=SYSTEMS[0])
        assert (MINI in made.notes) == source.generated
        words = ["score-file", str(made.path), "--task", source.task, "--format", "trec"]
        assert main([*words, "--data", str(run.parent / "data")]) == 0
        (head,) = [line for line in capsys.readouterr().out.splitlines() if "arithmetic" in line]
        assert source_of(head) == source
        assert f"{source.n} questions, {source.gold} gold" in head

"""Numbers that papers print stand in tables of their own, whole, and say how they came about."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

from harness.cli import main
from harness.report.reported import PAPERS, SOURCE, UNSTATED, reported, sheets
from harness.score.normalise import squad_normal, triviaqa_normal, wiki2_evidence_normal

DOC = Path(__file__).parent.parent / "docs" / "why-is-my-number-different.md"
CSV = files("harness.report").joinpath("paper_reported.csv").read_text(encoding="utf-8")


def test_every_cell_stands_in_one_table_of_its_paper() -> None:
    shown: Counter[tuple[str, float]] = Counter()
    for sheet in sheets():
        assert SOURCE in sheet.title and len({len(row) for row in sheet.rows}) == 1
        paper = sheet.title.partition(" · ")[0]
        assert PAPERS[paper].setting in sheet.notes[0]
        shown.update((paper, float(c)) for row in sheet.rows for c in row[1:-1] if c != "–")
    rows = csv.DictReader(CSV.splitlines())
    assert shown == Counter((row["paper"], float(row["value"])) for row in rows)
    assert len(shown) > 700


def test_each_column_says_its_questions_and_kind_of_gold() -> None:
    heads = {(sheet.title[:3], head) for sheet in sheets() for head in sheet.heads[1:-1]}
    assert {("DRO", "NQ\nEM\n6,489\nofficial"), ("Ret", "NQ\nF1\n3,610\nofficial")} <= heads
    assert {("DRO", "NQ\nRecall@5\n6,489\ndistant"), ("Ret", "2WIKI\nNum\n12,576")} <= heads
    assert ("RAG", f"NQ\nEM\nn {UNSTATED}\nofficial") in heads
    assert all(re.search(rf"\n(?:[\d,]+|n {UNSTATED})(?:\n|$)", head) for _, head in heads)


def test_cells_that_cannot_be_of_one_set_of_predictions_are_named() -> None:
    odd = {
        (row[0].partition(" · ")[0], name)
        for sheet in sheets()
        for row in sheet.rows
        for name in re.findall(r"F1 below EM: (\w+)", row[-1])
    }
    assert odd == {
        ("InstructRAG", "2Wiki"),
        ("Vanilla SFT", "2Wiki"),
        ("RAAT", "HotpotQA"),
        ("DDR-RAG", "NQ"),
        ("DDR-RAG", "MuSiQue"),
    }


def test_the_means_that_dro_prints_are_those_of_its_cells() -> None:
    """Of EM without WoW, of F1 with it: what the documentation says of them."""
    lines: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for cell in reported():
        if cell.paper.startswith("DRO") and cell.table == "2":
            own = lines.setdefault((cell.method, cell.backbone), {})
            own[cell.dataset, cell.metric] = cell.value
    checked = 0
    for own in lines.values():
        for metric in ("EM", "F1"):
            values = [v for (name, of), v in own.items() if of == metric and name != "Avg"]
            if ("Avg", metric) in own:
                assert abs(sum(values) / len(values) - own["Avg", metric]) < 0.06
                checked += 1
    assert checked == 46


def test_list_reported_prints_them_and_json_has_a_record_a_cell(capsys) -> None:
    assert main(["list", "reported"]) == 0
    out = capsys.readouterr().out
    assert out.count(SOURCE) == len(sheets()) == 12 and "docs/why-is-my-number" in out
    assert main(["list", "reported", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert len(cells) == len(CSV.splitlines()) - 1
    assert {each["source"] for each in cells} == {SOURCE}
    assert all(each["paper"] and each["table"] and each["setting"] for each in cells)
    assert main(["list", "reportet"]) == 2
    assert "judges or reported" in capsys.readouterr().err


def test_the_documentation_s_normalisers_are_the_code_s() -> None:
    table = DOC.read_text(encoding="utf-8").partition("| text | deletes")[2].partition("\n\n")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(rows) == 6
    for text, *normal in rows:
        assert normal == [f(text) for f in (squad_normal, triviaqa_normal, wiki2_evidence_normal)]

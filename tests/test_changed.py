"""Two files of rows are compared question by question, and in one pass."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data import Answer, Evidence, HarnessError, Hit, Row
from harness.run.store import row_line
from harness.score.changed import Changed, changed_rows

ROW = Row(
    "q", (Hit("a", 2.0), Hit("b", 1.0)), Answer("yes"), "It is: yes", ("a",), {"tokens": 3}, "stop"
)


def compared(one: list[Row], other: list[Row], ids: list[str], **how: Any) -> list[Changed]:
    for name, rows in (("one", one), ("other", other)):
        Path(name).write_bytes(b"".join(map(row_line, rows)))
    return list(changed_rows(Path("one"), Path("other"), ids, **how))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, ()),
        ({"counts": {"tokens": 4}, "extras": {"loss": [1.0]}}, ()),
        ({"hits": (Hit("a", 2.0 + 1e-7), Hit("b", 1.0))}, ()),
        ({"hits": (Hit("a", 2.0 + 1e-5), Hit("b", 1.0))}, ("scores",)),
        ({"hits": (Hit("a", 2.0), Hit("b", 0.0))}, ("scores",)),
        ({"hits": (Hit("a", 2.0), Hit("b", 1.0 + 1e-6))}, ()),
        ({"hits": (Hit("b", 2.0), Hit("a", 1.0))}, ("ranking",)),
        ({"hits": (Hit("a", 2.0),)}, ("ranking",)),
        ({"read": ("a", "b")}, ("ranking",)),
        ({"answer": Answer("no")}, ("answer",)),
        ({"answer": Answer("yes", (Evidence("a"),))}, ("answer",)),
        ({"answer": None}, ("answer",)),
        ({"raw": "yes"}, ("answer",)),
        ({"stop": "length"}, ("state",)),
        ({"error": "died"}, ("state",)),
        ({"answer": Answer("no"), "hits": (Hit("b", 1.0),)}, ("answer", "ranking")),
    ],
)
def test_each_kind_of_change_is_told_by_its_name(change: Any, kinds: tuple[str, ...]) -> None:
    other = replace(ROW, **change)
    for one, two in ((ROW, other), (other, ROW)):
        assert [each.kinds for each in compared([one], [two], ["q"])] == ([kinds] if kinds else [])


def test_the_largest_difference_of_scores_is_told() -> None:
    other = replace(ROW, hits=(Hit("a", 2.0 + 2e-9), Hit("b", 1.0 + 4e-9)))
    (found,) = compared([ROW], [other], ["q"], tolerance=0.0)
    assert found.kinds == ("scores",)
    assert found.off == pytest.approx(2e-9)
    assert not compared([ROW], [other], ["q"])


def test_scores_near_zero_are_measured_by_their_ranking() -> None:
    one, other = (replace(ROW, hits=(Hit("a", 1.0), Hit("b", low))) for low in (0.0, 1e-9))
    assert not compared([one], [other], ["q"])
    one, other = (replace(ROW, hits=(Hit("a", low), Hit("b", 0.0))) for low in (0.0, 1e-9))
    assert [each.kinds for each in compared([one], [other], ["q"])] == [("scores",)]


def test_two_errors_are_the_same_in_whatever_words() -> None:
    one, other = replace(ROW, error="at 0x7f01"), replace(ROW, error="at 0x7f02", hits=())
    assert not compared([one], [other], ["q"])


def test_a_row_that_one_file_lacks_is_missing_and_one_that_both_lack_is_not() -> None:
    rows = [replace(ROW, id=name) for name in "abcd"]
    found = compared(rows[:3], rows[1:], ["a", "b", "d", "e"])
    assert sorted(found) == [Changed("a", ("missing",)), Changed("d", ("missing",))]
    Path("one").unlink()
    assert [each.id for each in changed_rows(Path("one"), Path("other"), ["b", "c"])] == ["b", "c"]


def test_questions_that_are_not_asked_are_not_compared() -> None:
    other = replace(ROW, answer=Answer("no"))
    rows = [replace(ROW, id="x"), ROW], [replace(other, id="x"), other]
    assert [each.id for each in compared(*rows, ["q"])] == ["q"]


def test_the_order_of_the_files_does_not_matter() -> None:
    rows = [replace(ROW, id=f"q{number}") for number in range(50)]
    other = [replace(row, raw="else") if row.id.endswith("7") else row for row in rows]
    ids = [row.id for row in rows]
    straight = {each.id for each in compared(rows, other, ids)}
    assert straight == {"q7", "q17", "q27", "q37", "q47"}
    assert {each.id for each in compared(rows, other[::-1], ids)} == straight
    assert {each.id for each in compared(rows, other[20:] + other[:20], ids)} == straight


def test_a_broken_line_is_told_with_its_place() -> None:
    compared([ROW], [ROW], ["q"])
    Path("other").write_text('{"hits":[]}\n')
    with pytest.raises(HarnessError, match="other:1"):
        list(changed_rows(Path("one"), Path("other"), ["q"]))


def test_files_of_one_order_are_never_in_memory_whole() -> None:
    hits = tuple(Hit(f"document-{n:04}", float(-n)) for n in range(100))
    rows = [replace(ROW, id=f"q{number:05}", hits=hits) for number in range(2000)]
    ids = [row.id for row in rows]
    assert not compared(rows, rows, ids)
    size = Path("one").stat().st_size
    tracemalloc.start()
    assert sum(1 for _ in changed_rows(Path("one"), Path("other"), ids)) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 4_000_000
    assert peak < size / 5

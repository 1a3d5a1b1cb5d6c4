"""A folder of bundles as a table: who stands in it, in what order, and how it is shown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from answering import Answering
from forging import SUBMISSION, TASK, edit, forged, packed, rescored, rows_name
from test_verify import timed

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError
from harness.report.board import Markup, render, tag
from harness.report.leaderboard import Board, Ranked, leaderboard
from harness.report.training import not_zero_shot
from harness.score.ranks import rank_intervals
from harness.score.results import read_scores

NASTY = "A & B \"c\" 'd' | `e` [f](javascript:x) *g* &lt;b&gt; a<3"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two bundles of the same questions, one that answers, one of another sample."""
    place = tmp_path_factory.mktemp("board")
    data = place / "data"
    ranks = packed(place, data, systems=["random", "bm25@5"], name="ranks")
    other = packed(place, data, systems=["bm25@5"], name="other", limit=9, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        kinds: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        patch.setattr(registry, "_registered", {**kinds, "systems": {"answering": Answering}})
        answers = packed(
            place,
            data,
            systems=["bm25@5+answering@3", "random+answering:solves=false@1"],
            name="answers",
            submission={**SUBMISSION, "system": NASTY, "training_data": []},
        )
    return SimpleNamespace(place=place, data=data, ranks=ranks, other=other, answers=answers)


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def board_of(made: SimpleNamespace, *bundles: Path, **options: Any) -> Board:
    folder = Path("bundles")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, bundle in enumerate(bundles):
        shutil.copy(bundle, folder / f"{number}-{bundle.name}")
    return leaderboard(folder, made.data, **options)


def table_of(board: Board, limit: int | None = None) -> Ranked:
    (found,) = [each for each in board.tables if each.sample.limit == limit]
    return found


def test_a_table_is_one_sample_and_ranks_by_the_tasks_first_metric(made) -> None:
    board = board_of(made, made.ranks, made.answers, made.other)
    assert [each.sample.limit for each in board.tables] == [9, None]
    table = table_of(board)
    assert table.metric == "EM"
    assert [(line.system, line.rank is not None) for line in table.lines] == [
        ("bm25@5+answering@3", True),
        ("random+answering:solves=false@1", True),
        ("random", False),
        ("bm25@5", False),
    ]
    assert board.refused == () and len(board.accepted) == 3


def test_its_ranks_are_those_of_the_scores(made) -> None:
    table = table_of(board_of(made, made.ranks, made.answers, metric="R@2"))
    lines: dict[str, list[dict[str, Any]]] = {}
    for run in ("ranks", "answers"):
        (scores,) = read_scores(made.place / run)
        lines |= {s: rows for s, rows in scores.lines.items() if not s.startswith("(")}
    ids = sorted(row["id"] for row in lines["bm25@5"])
    groups = {row["id"]: row["group"] for row in lines["bm25@5"]}
    values = {
        system: np.array([next(r["metrics"]["R@2"] for r in rows if r["id"] == i) for i in ids])
        for system, rows in lines.items()
    }
    expected = rank_intervals(values, [groups[i] for i in ids])
    assert {line.system: line.rank for line in table.lines} == expected
    assert expected["bm25@5"] != expected["random"]
    means = [line.cells["R@2"].value for line in table.lines]
    assert means == sorted(means, reverse=True)


def test_adding_a_bundle_is_dropping_a_file_and_the_order_is_none(made) -> None:
    one = board_of(made, made.ranks, made.answers)
    two = board_of(made, made.answers, made.ranks)
    ranks = [{line.system: line.rank for line in table_of(b).lines} for b in (one, two)]
    assert ranks[0] == ranks[1]
    both = board_of(made, made.ranks, made.answers, made.ranks)
    assert len(table_of(both).lines) == 6


def copied(made: SimpleNamespace, name: str, change: Callable[[Any], object]) -> Path:
    """The bundle of rankings under another name; ``change`` sees each row of bm25."""

    def changed(files: dict[str, bytes]) -> None:
        edit(files, "submission.json", lambda told: told.update(system=name))
        rows = [json.loads(text) for text in files[rows_name(files)].splitlines()]
        for each in rows:
            change(each)
        texts = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in rows)
        files[rows_name(files)] = "".join(f"{text}\n" for text in texts).encode()
        rescored(files, json.loads(files["manifest.json"]), made.data, Path(name))

    return forged(made.ranks, changed, Path(f"{name}.zip"))


def other_numbers(row: dict[str, Any]) -> None:
    row["hits"] = [[each, score / 2 - 1] for each, score in row["hits"]]


def test_copies_are_told_and_count_as_one(made) -> None:
    alone = board_of(made, made.ranks, metric="R@2")
    copies = [copied(made, f"copy{n}", other_numbers) for n in range(5)]
    board = board_of(made, made.ranks, *copies, metric="R@2")
    assert board.refused == ()
    ranks = {line.system: line.rank for line in table_of(alone).lines}
    lines = table_of(board).lines
    assert len(lines) == 12 and all(line.rank == ranks[line.system] for line in lines)
    for line in lines:
        others = [each.name for each in lines if each.system == line.system and each is not line]
        assert sorted(each.partition(":")[0] for each in line.same) == sorted(others)
        assert line.marks[-1].startswith("same rows as ") and "and 2 more" in line.marks[-1]
    assert not any(line.same for line in table_of(alone).lines)
    assert "same rows as" in render(board) and "same rows as" in render(board, "markdown")


def test_one_other_answer_is_no_copy(made) -> None:
    first = json.loads((made.place / "ranks").joinpath("scores.jsonl").read_text().splitlines()[0])

    def turned(row: dict[str, Any]) -> None:
        if row["id"] == first["id"]:
            ids = [each for each, _ in row["hits"]]
            row["hits"] = [[each, 5.0 - n] for n, each in enumerate(ids[::-1])]

    lines = table_of(board_of(made, made.ranks, copied(made, "other", turned))).lines
    assert [bool(line.same) for line in lines if line.system == "bm25@5"] == [False, False]
    assert all(line.same for line in lines if line.system == "random")


def test_beside_the_time_stands_the_quality(made) -> None:
    board = board_of(made, forged(made.ranks, timed(), Path("timed.zip")), metric="R@2")
    (one,) = board.timed
    (line,) = [each for each in table_of(board).lines if each.system == "bm25@5"]
    assert (one.metric, one.quality) == ("R@2", line.cells["R@2"])
    shown = f"R@2 {one.quality.value:.3f}"
    interval = f"({one.quality.low:.3f}–{one.quality.high:.3f})"
    for style in ("html", "markdown"):
        told = render(board, style).partition("Quality against time")[2].replace("\\", "")
        assert shown in told and interval in told and "it ranks nothing" in told
    (time,) = json.loads(render(board, "json"))["time"]
    assert time["quality"]["value"] == one.quality.value
    (none,) = board_of(made, forged(made.ranks, timed(), Path("timed.zip"))).timed
    assert (none.metric, none.quality) == ("EM", None)


def test_bundles_with_findings_are_listed_and_not_ranked(made) -> None:
    def better(files: dict[str, bytes]) -> None:
        files["scores.jsonl"] = files["scores.jsonl"].replace(b'"AP": 0.', b'"AP": 0.9', 1)

    bad = forged(made.ranks, better, Path("bad.zip"))
    board = board_of(made, made.answers, bad)
    assert {line.report.bundle for line in table_of(board).lines} == {"0-answers.zip"}
    assert [(each.bundle, each.badge) for each in board.refused] == [("1-bad.zip", "self-reported")]
    page = render(board)
    assert "1-bad.zip" in page and "scores: scores.jsonl" in page
    assert "1-bad.zip" in render(board, "markdown").replace("\\", "")


def test_marks_tell_badge_training_and_errors(made) -> None:
    table = table_of(board_of(made, made.ranks, made.answers))
    marks = {line.system: line.marks for line in table.lines}
    assert marks["random"] == ["arithmetic verified", "not zero-shot"]
    first, errors = marks["bm25@5+answering@3"]
    assert first == "arithmetic verified" and errors.startswith("errors=")


def test_a_system_that_is_not_known_here_is_marked_wherever_a_badge_is(made) -> None:
    """Nobody can look at the options of what is not installed: more than a notice below."""
    registry.registered("systems").pop("answering")  # type: ignore[attr-defined]
    board = board_of(made, made.answers)
    mark = "options not checked: answering unknown here"
    for line in table_of(board).lines:
        assert (mark in line.marks) is ("answering" in line.system)
    assert f'<span class="mark">{mark}</span>' in render(board)
    table = render(board, "markdown").partition("## Systems")[0]
    assert f"arithmetic verified, {mark}" in table.replace("\\", "")
    told = json.loads(render(board, "json"))
    assert any(mark in line["marks"] for line in told["tables"][0]["lines"])
    assert told["bundles"][0]["unknown"]["bm25@5+answering@3"] == ["answering"]


def test_rerun_is_told_in_the_badge_with_its_seed(made) -> None:
    board = board_of(made, made.other, again=4, seed=17)
    assert table_of(board, 9).lines[0].marks[0] == "re-run (4, 100%; all must agree)"
    assert "drawn by seed 17" in render(board)
    assert "drawn by seed 17" in render(board, "markdown")
    assert json.loads(render(board, "json"))["seed"] == 17


@pytest.mark.parametrize(
    ("named", "task", "marked"),
    [
        (["HotpotQA (train)"], "hotpotqa", True),
        (["Hotpot QA"], "hotpotqa", True),
        (["MS MARCO v1"], "msmarco-dev", True),
        (["Natural Questions", "TriviaQA"], "triviaqa-long", True),
        (["Microsoft MARCO"], "msmarco-qa", True),
        (["Microsoft MAchine Reading COmprehension"], "msmarco-dl19", True),
        (["msmarco-passage/train"], "msmarco-dev", True),
        (["MSMARCOv2.1"], "msmarco-qa", True),
        (["2Wiki"], "2wikimultihopqa", True),
        (["2WikiMultihopQA (train)"], "2wikimultihopqa", True),
        (["2wiki_multihop"], "2wikimultihopqa", True),
        (["MuSiQue-Ans"], "musique", True),
        (["hotpot_train_v1.1.json"], "hotpotqa", True),
        (["SciFact"], "jsonl:/data/beir/scifact", True),
        (["NQ", "FiQA"], "jsonl:/data/beir/scifact", False),
        (["hotpotqa"], "jsonl:/data/beir/hotpotqa", True),
        (["SQuAD 2.0"], "squad", True),
        (["SQuAD 2.0"], "my-squad", False),
        (["WikiHop", "Wikipedia"], "2wikimultihopqa", False),
        (["all-MiniLM-L6-v2"], TASK, False),
        (["administrative rulings", "answers of GPT-4o mini"], TASK, False),
        (["the mini world"], TASK, True),
        (["mini"], TASK, True),
        (["mini-triviaqa-long"], TASK, True),
        (["Mini HotpotQA, 9,000 worlds"], TASK, True),
        (["mini-hotpotqa"], "hotpotqa", False),
        (["HotpotQA"], TASK, False),
        (["SQuAD"], "hotpotqa", False),
        ([], "hotpotqa", False),
    ],
)
def test_who_is_not_zero_shot(named, task, marked) -> None:
    assert not_zero_shot(named, task) is marked


# --- how it looks ---------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text between them; every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_asks_nobody_for_anything(made) -> None:
    parser = read(render(board_of(made, made.ranks, made.answers)))
    names = {name for name, _ in parser.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "form", "a", "base"}
    attributes = {key for _, attrs in parser.tags for key in attrs}
    assert not any(key.startswith("on") or key in ("src", "href", "style") for key in attributes)
    policy = next(a["content"] for n, a in parser.tags if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "url(" not in render(board_of(made, made.ranks))
    assert ("html", {"lang": "en"}) in parser.tags


def test_what_comes_from_a_bundle_is_text_in_every_form(made) -> None:
    board = board_of(made, made.answers)
    page = render(board)
    assert NASTY in "".join(read(page).text)
    assert NASTY not in page
    assert json.loads(render(board, "json"))["tables"][0]["lines"][0]["name"] == NASTY
    shown = render(board, "markdown")
    assert "](javascript" not in shown and " | `e`" not in shown and "*g*" not in shown


def test_every_form_says_whose_it_is_and_what_to_know(made) -> None:
    """docs/verification.md relies on notices: they stand wherever the badge does."""
    board = board_of(made, made.other, again=2, seed=3)
    (report,) = board.accepted
    assert report.notices and report.reruns
    told = [*SUBMISSION["training_data"], *report.notices, *map(str, report.reruns)]
    told += [str(SUBMISSION[n]) for n in SUBMISSION if n != "training_data"]
    for style in ("html", "markdown"):
        shown = render(board, style)
        text = rendered(shown) if style == "markdown" else "".join(read(shown).text)
        systems = text.rpartition("Systems")[2]
        assert [each for each in told if each not in systems] == []
        for name in ("description", "contact", "licence", "training data", "hardware", "notes"):
            assert name in systems


def rendered(markdown: str) -> str:
    """What a reader of markdown sees, without spaces of no width."""
    from markdown_it import MarkdownIt

    page = MarkdownIt().enable("table").render(markdown)
    return unescape(re.sub("<[^>]*>", "", page)).replace("\u200b", "")


@pytest.mark.parametrize(
    "text",
    [
        "http://a.example/x",
        "HTTPS://a.example, www.a.example and WWW.b.example",
        "a ftp://a.example",
        "@somebody and team@a-b.example, mailto:a@b.example",
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(1)",
        NASTY,
    ],
)
def test_foreign_text_in_markdown_makes_no_link_and_no_formula(text, made) -> None:
    board = board_of(made, made.other)
    (report,) = board.accepted
    told = {**report.submission, "system": text, "contact": text}
    table = board.tables[0]
    lines = tuple(replace(line, report=replace(report, submission=told)) for line in table.lines)
    other = replace(
        board,
        tables=(replace(table, lines=lines),),
        accepted=(replace(report, submission=told),),
    )
    shown = render(other, "markdown")
    assert rendered(shown).count(text) == len(lines) + 2
    assert not re.search(r"(?i)(?<!\\)://|www\.|(?<!\w)@(?!&)|@[\w-]+\.", shown)
    assert "bm25@5" in shown  # a pipeline can be copied into a command
    cells = [line.strip("| ") for line in shown.splitlines() if line.startswith("|")]
    assert not any(cell[:1] in "=@+" or re.match(r"\\[-+=@]", cell) for cell in cells if cell)


def test_tables_can_be_read_by_ear_and_on_a_phone(made) -> None:
    parser = read(render(board_of(made, made.ranks)))
    scopes = [attrs.get("scope") for name, attrs in parser.tags if name == "th"]
    assert set(scopes) == {"col", "row"}
    assert [name for name, _ in parser.tags].count("caption") == 1
    regions = [attrs for name, attrs in parser.tags if attrs.get("class") == "wide"]
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)
    viewport = [attrs for _, attrs in parser.tags if attrs.get("name") == "viewport"]
    assert viewport[0]["content"] == "width=device-width,initial-scale=1"


def test_time_is_told_apart_as_self_reported_and_ranks_nothing(made) -> None:
    bundle = forged(made.ranks, timed(), Path("timed.zip"))
    with_time, without = board_of(made, bundle), board_of(made, made.ranks)
    assert len(with_time.timed) == 1
    for style in ("html", "markdown"):
        assert "Self-reported by submitters" in render(with_time, style)
        assert "Self-reported by submitters" not in render(without, style)
    ranks = [[line.rank for line in table_of(each).lines] for each in (with_time, without)]
    assert ranks[0] == ranks[1]


def test_tags_escape_what_they_did_not_make() -> None:
    assert tag("p", "<b>", tag("i", "&"), title='"x"') == (
        '<p title="&quot;x&quot;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert isinstance(tag("p"), Markup)


def test_on_the_command_line(made, capsys) -> None:
    board_of(made, made.ranks)
    Path("bundles/broken.zip").write_bytes(b"PK")
    data = ["--data", str(made.data)]
    for style, start in (("html", "<!doctype html>"), ("markdown", "# Leaderboard"), ("json", "{")):
        assert main(["leaderboard", "bundles", "-o", "board", "--format", style, *data]) == 0
        assert Path("board").read_text().startswith(start)
    assert "broken.zip: not ranked, 1 finding\n" in capsys.readouterr().err
    assert main(["leaderboard", "bundles", "-o", "board", "--format", "pdf", *data]) == 2
    assert "no format 'pdf'" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["leaderboard", "empty", "-o", "board", *data]) == 2
    assert "has no bundles" in capsys.readouterr().err


def test_every_bundle_is_taken_and_all_else_is_named(made, capsys) -> None:
    board_of(made, made.other)
    shutil.copy(made.ranks, "bundles/b3.ZIP")
    shutil.copytree("bundles", "bundles/more.zip")
    Path("bundles/notes.txt").write_text("")
    words = ["leaderboard", "bundles", "-o", "bundles/board.json", "--format", "json"]
    for _ in range(2):  # the board that lies there is no other entry
        assert main([*words, "--data", str(made.data)]) == 0
        lines = capsys.readouterr().err.splitlines()
        told = [line for line in lines if line.startswith("not a bundle")]
        assert told == [f"not a bundle, left out: {each}" for each in ("more.zip", "notes.txt")]
    shown = json.loads(Path("bundles/board.json").read_text())
    assert sorted(each["bundle"] for each in shown["bundles"]) == ["0-other.zip", "b3.ZIP"]
    assert {"more.zip", "notes.txt"} <= set(shown["left_out"])
    with pytest.raises(HarnessError, match="nowhere does not exist"):
        leaderboard(Path("nowhere"), made.data)


def test_the_board_is_written_whole_or_not_at_all(made, monkeypatch, capsys) -> None:
    board_of(made, made.other)
    words = ["leaderboard", "bundles", "--data", str(made.data), "-o"]
    Path("board.html").write_text("old")

    def full(self: Path, text: str, **_: Any) -> int:
        with self.open("w") as file:
            file.write(text[:9])
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert main([*words, "board.html"]) == 2
    assert Path("board.html").read_text() == "old"
    assert sorted(each.name for each in Path().glob("*board*")) == ["board.html"]

    def never(*_: Any) -> None:
        raise AssertionError("it was verified first")

    monkeypatch.setattr("harness.report.leaderboard.examine", never)
    capsys.readouterr()
    for out, said in (("board.html/board", "cannot be written"), ("bundles", "is a folder")):
        assert main([*words, out]) == 2
        assert said in capsys.readouterr().err


def test_a_metric_that_no_table_has_is_a_mistake(made) -> None:
    with pytest.raises(HarnessError, match="no table has"):
        board_of(made, made.ranks, metric="Luck@1")


def test_a_table_that_nobody_can_be_ranked_in_says_so(made) -> None:
    board = board_of(made, made.other)
    assert table_of(board, 9).lines[0].rank is None
    assert "Not ranked: nobody has EM" in render(board)


def test_what_is_verified_is_what_is_shown(made) -> None:
    """The values in the table are computed, not taken from the bundle."""
    table = table_of(board_of(made, made.ranks))
    records = {(r.system, r.metric): r.value for r in api.records(made.place / "ranks")}
    for line in table.lines:
        for metric, cell in line.cells.items():
            assert cell.value == pytest.approx(records[line.system, metric], abs=1e-12)


def test_a_submission_may_be_edited_and_is_shown_as_it_is(made) -> None:
    bundle = forged(
        made.ranks,
        lambda files: edit(files, "submission.json", lambda told: told.update(system="Other")),
        Path("other-name.zip"),
    )
    assert {line.name for line in table_of(board_of(made, bundle)).lines} == {"Other"}

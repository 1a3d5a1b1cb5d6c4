"""What the last stage of a pipeline can say of a question: what it read, counted, and why it
stopped. Good rows of real pipelines pass; each forged one breaks the rule that it is meant to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering import Answering
from forging import Files, edit_row, files_of, forged, packed, rescored, rows_name

from harness import api, registry
from harness.data import HarnessError
from harness.spelling import parse_pipeline
from harness.verify import rows as row_rules
from harness.verify.checks import verify

Row = dict[str, Any]
READS, SOLVES, SPEAKS, RANKS = "bm25@4+reader", "bm25@2+retrollm", "bm25@5+answering", "random"
"""How the pipelines of the bundle begin: of ours one reads, one finds what it reads, and one ranks;
one is of somebody else."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Prepared data, and a good bundle of three questions."""
    place = tmp_path_factory.mktemp("made")
    systems = [f"{READS}@3", SOLVES, f"{SPEAKS}:errors=1000000@3", f"{RANKS}@5"]
    with pytest.MonkeyPatch.context() as patch:
        kinds: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        patch.setattr(registry, "_registered", {**kinds, "systems": {"answering": Answering}})
        good = packed(place, place / "data", systems=systems, limit=3)
    return SimpleNamespace(place=place, data=place / "data", good=good)


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def rules_of(bundle: Path, data: Path) -> set[str]:
    return {finding.rule for finding in verify(bundle, data).findings}


def put(**values: object) -> Callable[[Row], object]:
    return lambda row: row.update(values)


def reads(*places: int) -> Callable[[Row], object]:
    """It read what stands at these places of its ranking."""
    return lambda row: row.update(read=[row["hits"][place][0] for place in places])


def first(files: Files, system: str) -> Row:
    found: Row = json.loads(files[rows_name(files, system)].splitlines()[0])
    return found


def of_pool(row: Row, made: SimpleNamespace, inside: bool) -> list[str]:
    """The documents of a question's pool, or all others of the corpus."""
    folder = next(made.data.glob("mini-hotpotqa*/*/queries.jsonl"))
    pools = {each["id"]: each["pool"] for each in map(json.loads, folder.open())}
    every = {doc_id for pool in pools.values() for doc_id in pool}
    return sorted(pools[row["id"]] if inside else every - {*pools[row["id"]]})


def scored(made: SimpleNamespace, change: Callable[[Row], object], system: str) -> Path:
    """A bundle with a changed row, and the scores that belong to it."""

    def changed(files: Files) -> None:
        edit_row(files, change, system)
        rescored(files, json.loads(files["manifest.json"]), made.data, Path.cwd())

    return forged(made.good, changed)


def errs(row: Row) -> None:
    for name in ("answer", "raw", "read", "counts", "stop", "extras"):
        row.pop(name, None)
    row["error"] = "reader: failed"


FORGED: dict[str, tuple[str, str, Callable[[Row], object]]] = {
    "deeper than its depth": ("read", READS, reads(0, 3)),
    "more than it was given, of somebody": ("read", SPEAKS, reads(3)),
    "a passage read by a ranker": ("row", RANKS, reads(0)),
    "a ranker that writes": ("row", RANKS, put(stop="stop")),
    "a reason of no model": ("row", READS, put(stop="gold")),
    "fewer tokens than none": ("row", READS, put(counts={"prompt_tokens": -1})),
    "fewer tokens than none, of somebody": ("row", SPEAKS, put(counts={"new_tokens": -1})),
    "half a token": ("row", SOLVES, put(counts={"new_tokens": 0.5})),
    "a count of ours below none": ("row", SOLVES, put(counts={"clues": -3})),
    "a count that is a text": ("row", SPEAKS, put(counts={"luck": "5"})),
    "a count that is true": ("row", SPEAKS, put(counts={"luck": True})),
    "not in a file that nobody asked": ("row", READS, put(counts={"not_in_file": 1})),
    "not in a file of somebody": ("row", SPEAKS, put(counts={"not_in_file": 1})),
    "an error that says more": ("row", READS, put(error="reader: failed")),
    "extras that are a list": ("row", READS, put(extras=[["a", 1]])),
    "neither true nor false": ("row", SPEAKS, lambda row: row["answer"].update(answerable="no")),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_no_last_stage_can_say_is_refused(name: str, made) -> None:
    rule, system, change = FORGED[name]
    bundle = forged(made.good, lambda files: edit_row(files, change, system))
    assert rule in rules_of(bundle, made.data)


@pytest.mark.parametrize("system", [READS, SOLVES, SPEAKS])
def test_nothing_is_read_outside_of_the_pool(system: str, made) -> None:
    strange = of_pool(first(files_of(made.good), system), made, inside=False)[:1]
    bundle = forged(made.good, lambda files: edit_row(files, put(read=strange), system))
    (found,) = verify(bundle, made.data).findings
    assert found.rule == "pool" and f"read {strange[0]}" in found.sentence


def test_who_finds_what_it_reads_finds_no_more_than_it_was_passed(made) -> None:
    pool = of_pool(first(files_of(made.good), SOLVES), made, inside=True)
    for count, rules in ((2, set()), (3, {"read"})):
        some = put(read=[*pool[:count], pool[0]])  # a passage twice is one passage
        assert rules_of(scored(made, some, SOLVES), made.data) == rules


def test_a_good_bundle_and_what_is_up_to_others_are_accepted(made) -> None:
    assert rules_of(made.good, made.data) == set()

    def own(row: Row) -> None:
        reads(2, 0, 0)(row)
        row.update(counts={"log_p": -0.5, "new_tokens": 4.0}, stop="eos")

    assert rules_of(scored(made, own, SPEAKS), made.data) == set()


def test_an_errored_row_has_its_ranking_alone(made) -> None:
    """As a run writes it: what else is wrong then are the manifest's errors and the scores."""
    found = verify(forged(made.good, lambda f: edit_row(f, errs, READS)), made.data).findings
    assert [each.rule for each in found] == ["manifest"]


@pytest.mark.parametrize(
    "change",
    [put(stop="stop"), put(counts={"new_tokens": 3}), reads(0), put(extras={"a": 1})],
)
def test_a_file_says_nothing_of_reading_and_writing(change, tmp_path: Path) -> None:
    api.prepare("toy", data=tmp_path)
    folder = next(tmp_path.glob("toy*/*/queries.jsonl")).parent
    pools = {
        each["id"]: each["pool"] for each in map(json.loads, (folder / "queries.jsonl").open())
    }
    native = [json.loads(line) for line in (folder / "native.jsonl").open()]
    lines = [f"{each['native']} Q0 {pools[each['id']][0]} 1 1.0 t\n" for each in native]
    Path("their.run").write_text("".join(lines))
    bundle = packed(tmp_path, tmp_path, ["toy"], ["trec:file=their.run"], name="outside", limit=9)
    assert rules_of(bundle, tmp_path) == set()
    assert rules_of(forged(bundle, lambda f: edit_row(f, change, "trec")), tmp_path) == {"row"}


def test_a_line_that_cannot_be_read_is_not_called_a_question_without_row(made) -> None:
    def spoil(files: Files) -> None:
        name = rows_name(files, RANKS)
        lines = files[name].splitlines(keepends=True)
        files[name] = b"".join([lines[0], lines[1].replace(b":", b":NaN,", 1), *lines[2:]])

    (found,) = verify(forged(made.good, spoil), made.data).findings
    assert (found.rule, found.where[-2:]) == ("json", ":2")


def known(pipeline: str) -> tuple[type | None, ...]:
    found: list[type | None] = []
    for stage in parse_pipeline(pipeline).stages:
        try:
            found.append(registry.find("systems", stage.system.name))
        except HarnessError:
            found.append(None)
    return tuple(found)


@pytest.mark.parametrize(
    ("system", "answers", "setting", "most"),
    [
        ("bm25@5", False, "pool", 5),
        ("bm25@5+random@3", False, "corpus", 3),
        ("bm25", False, "corpus", 100),
        ("bm25", False, "pool", None),
        ("bm25@7+reader@2", True, "pool", 7),
        ("bm25+reader@2", True, "corpus", 100),
        ("reader@0", True, "pool", None),
        ("unheard-of", False, "corpus", None),
        ("unheard-of@4", False, "corpus", 4),
        ("trec:file=x", False, "corpus", None),
    ],
)
def test_how_many_documents_a_row_may_rank(system, answers, setting, most) -> None:
    entry = {"answers": answers, "setting": setting}
    assert row_rules.most_hits(parse_pipeline(system), known(system), entry) == most


@pytest.mark.parametrize(
    ("system", "given"),
    [
        ("bm25+reader@10", 10),
        ("bm25+reader", 5),
        ("reader@0", 0),
        ("bm25+raggd@5", 5),
        ("bm25@10+dro@2", None),
        ("rico-state@3", None),
        ("retrollm", None),
        ("bm25@5", None),
        ("bm25+unheard-of@4", None),
        ("bm25+predictions:file=x", None),
    ],
)
def test_how_many_passages_a_last_stage_is_given(system, given) -> None:
    assert row_rules.given(parse_pipeline(system), known(system)) == given

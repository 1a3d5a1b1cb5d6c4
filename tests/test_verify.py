"""The verifier against somebody who wants a better score: every rule has bundles that break it."""

from __future__ import annotations

import json
import os
import random
import re
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest
from answering import Answering
from forging import (
    SUBMISSION,
    TASK,
    Files,
    edit,
    edit_line,
    edit_row,
    files_of,
    forged,
    packed,
    rehash,
    rescored,
    rows_name,
    zip_of,
)

from harness import api, registry
from harness.canonical import read_gold
from harness.cli import main
from harness.data import Answer, Evidence, Gold, HarnessError, Hit, Row
from harness.manifest import digest, stage_key
from harness.prepare import prepare
from harness.provenance import parts_of
from harness.report.bundle import archive, pack
from harness.run.plan import make_plan
from harness.run.runner import run
from harness.run.store import read_rows, row_line
from harness.spelling import parse_pipeline
from harness.verify import archive as reader
from harness.verify import report as reports
from harness.verify import strict
from harness.verify.checks import verify
from harness.verify.findings import RULES, SHOWN, Findings
from harness.verify.rerun import agrees, exact_interval

ROOT = Path(__file__).parent.parent
Change = Callable[[Files], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Prepared data and two good bundles, of 20 questions of 40: one ranks, one answers."""
    place = tmp_path_factory.mktemp("made")
    data = place / "data"
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        good = packed(place, data, limit=20)
        kinds: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        patch.setattr(registry, "_registered", {**kinds, "systems": {"answering": Answering}})
        speaks = packed(place, data, systems=["bm25@5+answering@3"], name="speaks", limit=20)
    return SimpleNamespace(place=place, data=data, good=good, speaks=speaks)


def one_thread(patch: pytest.MonkeyPatch) -> None:
    """As on the command line."""
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        patch.setenv(f"{library}_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _answering(_own_folder, monkeypatch) -> None:
    one_thread(monkeypatch)
    registry.register("systems", "answering")(Answering)


def rules_of(bundle: Path, made: SimpleNamespace) -> set[str]:
    """The rules that find something."""
    return {finding.rule for finding in verify(bundle, made.data).findings}


def entry_of(about: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return about["pipelines"][number]


def manifest(change: Callable[[dict[str, Any]], object], keys: bool = False) -> Change:
    """Change the manifest, and its keys so that they fit."""

    def changed(about: dict[str, Any]) -> None:
        change(about)
        if keys:
            rehash(about)

    return lambda files: edit(files, "manifest.json", changed)


def session(**fields: object) -> Change:
    """Change the run's first session."""
    return manifest(lambda about: about["sessions"][0].update(fields))


def submission(**fields: object) -> Change:
    return lambda files: edit(files, "submission.json", lambda told: told.update(fields))


def row(change: Callable[[dict[str, Any]], object], system: str = "bm25") -> Change:
    return lambda files: edit_row(files, change, system)


def line(name: str, change: Callable[[bytes], bytes], number: int = 0) -> Change:
    """Change a line of a file; ``rows`` are those of bm25."""
    return lambda files: edit_line(
        files, rows_name(files) if name == "rows" else name, change, number
    )


def score_line(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(text: bytes) -> bytes:
        value = json.loads(text)
        change(value)
        return json.dumps(value).encode() + b"\n"

    return line("scores.jsonl", changed)


def put(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(values)


def asked_so(about: dict[str, Any], **sizes: object) -> None:
    """A session that asked for all pipelines as they are spelled now, with these sizes."""
    command = about["sessions"][0]["command"]
    command["systems"] = [entry["system"] for entry in about["pipelines"]]
    command |= sizes


def smaller(about: dict[str, Any]) -> None:
    for entry in about["pipelines"]:
        entry.update(limit=19, questions=19)
    asked_so(about, limit=19)


def in_entry(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda about: entry_of(about).update(values)


def stage_of(about: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return about["stages"][entry_of(about, number)["key"]]


def spare_stage(about: dict[str, Any]) -> None:
    """A stage of another seed, to which nothing points."""
    spare = json.loads(json.dumps(stage_of(about)))
    spare["parts"]["seed"] = 7
    about["stages"]["spare"] = spare
    key = stage_key(parts_of(about, "spare"))
    about["stages"][key] = about["stages"].pop("spare")


def first_metric(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["metrics"].update({next(iter(told["metrics"])): value})


def drop(names: list[str]) -> Change:
    return lambda files: [files.pop(name) for name in names]


def hits(change: Callable[[list[Any]], object]) -> Change:
    return row(lambda value: change(value["hits"]))


def evidence(*pointer: object) -> Change:
    return row(lambda value: value["answer"].update(evidence=[list(pointer)]))


def a_document(files: Files) -> str:
    """One that an answer may point at."""
    first = json.loads(files[rows_name(files)].splitlines()[0])
    return str(first["hits"][0][0])


def pointed(sentence: int | None, span: list[int] | None) -> Change:
    return lambda files: evidence(a_document(files), sentence, span)(files)


def of_another_print(about: dict[str, Any]) -> None:
    """Everything says that other data was run."""
    text, old = json.dumps(about), entry_of(about)["fingerprint"]
    about |= json.loads(text.replace(old, "0" * 16))
    rehash(about)


def timing(**fields: object) -> bytes:
    """A line of latency.jsonl."""
    known = {
        "task": TASK,
        "split": "test",
        "setting": "pool",
        "fingerprint": "",
        "generated": True,
        "asked": 3,
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "machine": {"cpu": "x", "cores": 2, "system": "Linux", "python": "3"},
        "system": "bm25@5",
        "key": "k",
        "round": 0,
        "versions": {},
        "measured": {
            "cold": 1.0,
            "first": 1.0,
            "before": 1,
            "peak": 2,
            "ids": ["a", "b"],
            "whole": [1.0, 2.0],
            "stages": [[1.0, 2.0]],
            "spans": {"retrieve": [0.5, 0.5]},
            "counts": {"prompt_tokens": [None, None], "new_tokens": [None, None]},
            "errors": 0,
            "error": "",
            "load": [0.1],
        },
    }
    return json.dumps({**known, **fields}).encode() + b"\n"


def timed(**fields: object) -> Change:
    def changed(files: Files) -> None:
        about = json.loads(files["manifest.json"])
        print_ = entry_of(about)["fingerprint"]
        files["latency.jsonl"] = timing(**{"fingerprint": print_, **fields})

    return changed


def measured(**fields: object) -> dict[str, object]:
    return {**json.loads(timing())["measured"], **fields}


FORGED: dict[str, tuple[str, Change]] = {
    # what is in it
    "a file is left out": ("checksum", drop(["scores.json"])),
    "a file is added": ("name", lambda files: files.update({"readme.txt": b"hello"})),
    "a corpus is added": ("name", lambda files: files.update({"data/gold.jsonl": b"{}"})),
    "rows of no pipeline": ("name", lambda files: files.update({"a/b/rows.jsonl": b"\n"})),
    "rows deep in folders": ("name", lambda files: files.update({"a/b/c/rows.jsonl": b"\n"})),
    "an absolute name": ("name", lambda files: files.update({"/tmp/x": b""})),
    "a drive letter": ("name", lambda files: files.update({"C:x": b""})),
    "backslashes": ("name", lambda files: files.update({"..\\x": b""})),
    "a parent folder": ("name", lambda files: files.update({"a/../x": b""})),
    "a name by case": ("duplicate", lambda files: files.update({"Manifest.json": b""})),
    "a name by Unicode": ("duplicate", lambda files: files.update({"ｍanifest.json": b""})),
    "a large file": ("size", lambda files: files.update({"submission.json": b" " * 70_000})),
    "a bomb": ("size", lambda files: files.update({"manifest.json": b" " * (8 << 20)})),
    # JSON
    "a key stands twice": (
        "json",
        lambda files: files.update({"submission.json": b'{"system":"a","system":"b"}'}),
    ),
    "NaN in a manifest": ("json", lambda files: files.update({"manifest.json": b'{"a":NaN}'})),
    "Infinity by size": ("json", line("rows", lambda old: old.replace(b".", b"9e999,1.", 1))),
    "NaN in a row": ("json", hits(lambda found: found[0].__setitem__(1, float("nan")))),
    "a huge number": ("json", row(put(counts={"n": 10**40}))),
    "thousands of digits": (
        "json",
        lambda files: files.update({"manifest.json": b"1" * 5000}),
    ),
    "deep JSON": ("json", lambda files: files.update({"manifest.json": b"[" * 100_000})),
    "rather deep JSON": (
        "json",
        row(lambda value: value.update(extras={"a": json.loads("[" * 100 + "]" * 100)})),
    ),
    "no UTF-8": ("json", line("rows", lambda old: old.replace(b'"id"', b'"\xff"', 1))),
    "half a surrogate pair": ("json", line("rows", lambda old: b'{"id":"\\ud800"}\n')),
    "a torn last line": (
        "json",
        lambda files: files.update({rows_name(files): files[rows_name(files)][:-1]}),
    ),
    "no JSON": ("json", line("rows", lambda old: b"rows\n")),
    # the manifest
    "a manifest without sessions": ("provenance", manifest(lambda about: about.pop("sessions"))),
    "a manifest that is a list": (
        "provenance",
        lambda files: files.update({"manifest.json": b"[]"}),
    ),
    "a pipeline that is a number": (
        "provenance",
        manifest(lambda about: about["pipelines"].append(3)),
    ),
    "a session that is a text": ("provenance", manifest(lambda a: a["sessions"].append("x"))),
    "a stage that is a list": ("provenance", manifest(lambda a: a["stages"].update(x=[1]))),
    "a seed that is a text": ("provenance", manifest(in_entry(seed="0"))),
    "a fact is changed": (
        "keys",
        manifest(lambda about: next(iter(about["facts"].values())).update(more=1)),
    ),
    "a stage is changed": (
        "keys",
        manifest(lambda about: stage_of(about)["parts"].update(max_new_tokens=999)),
    ),
    "a stage of another pipeline": (
        "keys",
        manifest(in_entry(system="bm25@6")),
    ),
    "the key of another stage": (
        "keys",
        manifest(lambda about: entry_of(about).update(key=entry_of(about, 0)["key"])),
    ),
    "a stage more": (
        "keys",
        manifest(lambda about: entry_of(about)["stages"].insert(0, entry_of(about, 0)["key"])),
    ),
    "another seed in a stage": (
        "keys",
        manifest(lambda about: stage_of(about)["parts"].update(seed=7), keys=True),
    ),
    "a prompt of one's own": (
        "keys",
        manifest(lambda a: stage_of(a)["parts"].update(instruction="Answer Paris."), keys=True),
    ),
    "longer answers": (
        "keys",
        manifest(lambda a: stage_of(a)["parts"].update(max_new_tokens=999), keys=True),
    ),
    "a task that is not there": ("manifest", manifest(in_entry(task="mini-nothing"))),
    "a task spelled badly": ("manifest", manifest(in_entry(task="<b>"))),
    "a pipeline with markup": ("manifest", manifest(in_entry(system="bm25:k1=<b>@5"))),
    "a split that is not there": ("manifest", manifest(in_entry(split="secret"))),
    "a setting that is not there": ("manifest", manifest(in_entry(setting="open"))),
    "a world without end": (
        "size",
        manifest(in_entry(task="mini-hotpotqa:documents=999999999")),
    ),
    "mini called real": ("manifest", manifest(in_entry(generated=False))),
    "metrics left out": ("manifest", manifest(in_entry(ranking_metrics=["R@5"]))),
    "started in the year 9999": ("manifest", session(started="9999-01-01T00:00:00+00:00")),
    "ended in the year 9999": ("manifest", session(ended="9999-01-01T00:00:00+00:00")),
    "ended before it started": ("manifest", session(ended="2001-01-01T00:00:00+00:00")),
    "started at no time": ("manifest", session(started="9999")),
    "a time without a zone": ("manifest", session(started="2020-01-01T00:00:00")),
    "a time in another spelling": ("manifest", session(started="20200101T000000+00:00")),
    "ended in words of its own": ("manifest", session(ended_how="perfectly")),
    "ended at no time": ("manifest", session(ended=None)),
    "ended in no way": ("manifest", session(ended_how=None)),
    "an unfinished run": ("manifest", manifest(in_entry(errors=None))),
    "errors denied": ("manifest", row(put(error="bm25: failed"))),
    "questions denied": ("manifest", manifest(in_entry(questions=19))),
    "a ranking denied": ("manifest", manifest(in_entry(ranks=False))),
    "another fingerprint": (
        "fingerprint",
        lambda files: edit(files, "manifest.json", of_another_print),
    ),
    "data that is not prepared": ("data", manifest(in_entry(task="hotpotqa", split="validation"))),
    "data that lies where the bundle says": (
        "data",
        manifest(in_entry(task="jsonl:folder", setting="corpus")),
    ),
    # submission.json
    "no contact": ("submission", submission(contact=" ")),
    "training data not told": ("submission", submission(training_data=None)),
    "a field more": ("submission", submission(score="1.0")),
    "a long description": ("submission", submission(description="word " * 1000)),
    "a submission that is a list": (
        "submission",
        lambda files: files.update({"submission.json": b"[]"}),
    ),
    "a formula": ("text", submission(system='=HYPERLINK("http://example.org")')),
    "a formula behind a line": ("text", submission(description="\n=1+1")),
    "a formula in wide letters": ("text", submission(contact="\u3000\uff1d1+1")),
    "a name that shows nothing": ("text", submission(system="\u3164")),
    "a name of two lines": ("text", submission(system="a\nb")),
    "a formula by +": ("text", submission(hardware="+1")),
    "a formula by -": ("text", submission(hardware="-1")),
    "a formula by @": ("text", submission(contact="@someone")),
    "a formula by a tab": ("text", submission(licence="\tfree")),
    "a formula behind a space": ("text", submission(licence=" =1+1")),
    "markup": ("text", submission(system="<script>alert(1)</script>")),
    "markup in training data": ("text", submission(training_data=["<img src=x>"])),
    "text turned around": ("text", submission(system="A \u202esystem")),
    "text that does not show": ("text", submission(system="A\u200b system")),
    "a mark that does not show": ("text", submission(system="A sys\u034ftem")),
    "a variation that does not show": ("text", submission(system="A system\ufe0f")),
    "a dotless pattern": ("text", submission(system="A system\u2800")),
    "a formula behind a wide blank": ("text", submission(contact="\u1680=1")),
    "a tower of marks": ("text", submission(description="A" + "\u0301" * 30)),
    "a name with a blank behind it": ("text", submission(system="A system ")),
    "a name as long as a text": ("text", submission(system="A" * 101)),
    # what the manifest says of itself
    "a fact that nobody needs": (
        "provenance",
        manifest(lambda about: about["facts"].update({digest("x"): "x"})),
    ),
    "a stage that nobody needs": ("provenance", manifest(spare_stage)),
    "packages that made no stage": (
        "provenance",
        manifest(
            lambda about: about["facts"][about["sessions"][0]["packages"]]["numeric"].pop("numpy"),
            keys=True,
        ),
    ),
    "a file that is in no key": (
        "keys",
        manifest(lambda about: stage_of(about)["files"].append(["model.bin", "0" * 16])),
    ),
    "half of a file": ("keys", manifest(lambda about: stage_of(about)["files"].append(["x"]))),
    "a word that is none": (
        "provenance",
        manifest(lambda about: about["sessions"][0]["command"].update(argv=[1])),
    ),
    "another corpus in the source": (
        "provenance",
        manifest(
            lambda about: about["facts"][entry_of(about)["source"]].update(documents=9), keys=True
        ),
    ),
    "no scorer": (
        "scores",
        lambda files: edit(files, "scores.json", lambda told: told.update(scorer=1e9)),
    ),
    "a scorer of no package": (
        "scores",
        lambda files: edit(
            files, "scores.json", lambda told: told["scorer"]["versions"].pop("numpy")
        ),
    ),
    # coverage
    "a question left out": (
        "coverage",
        lambda files: files.update(
            {rows_name(files): b"".join(files[rows_name(files)].splitlines(keepends=True)[1:])}
        ),
    ),
    "a question twice": ("coverage", line("rows", lambda old: old + old)),
    "a question that does not exist": ("coverage", row(put(id="0123456789abcdef"))),
    "another sample": ("coverage", manifest(smaller)),
    "rows left out": ("coverage", lambda files: files.pop(rows_name(files))),
    # rows and rankings
    "a field more in a row": ("row", row(put(gold="Paris"))),
    "a null in a row": ("row", row(put(raw=None))),
    "spaces in a row": ("row", line("rows", lambda old: old.replace(b",", b", ", 1))),
    "a hit of three": ("row", hits(lambda found: found[0].append(1))),
    "a hit without a text": ("row", hits(lambda found: found[0].__setitem__(0, 7))),
    "a score that is a text": ("row", hits(lambda found: found[0].__setitem__(1, "1"))),
    "a row that is a list": ("row", line("rows", lambda old: b"[]\n")),
    "rising scores": ("ranking", hits(lambda found: found[-1].__setitem__(1, 1e6))),
    "a document twice": ("ranking", hits(lambda f: f[1].__setitem__(0, f[0][0]))),
    "too many documents": (
        "ranking",
        lambda files: edit_row(
            files,
            lambda value: value.update(
                hits=[
                    [each, 0.0]
                    for each, _ in json.loads(files[rows_name(files, "random")].splitlines()[0])[
                        "hits"
                    ]
                ]
            ),
        ),
    ),
    "a document of another pool": ("pool", hits(lambda f: f[-1].__setitem__(0, "0" * 16))),
    "a document behind a zero byte": (
        "pool",
        hits(lambda found: found[-1].__setitem__(0, found[-1][0] + "\0")),
    ),
    "a passage read that does not exist": ("evidence", row(put(read=["f" * 16]))),
    # scores
    "a better score": ("scores", score_line(first_metric(0.123))),
    "a score a little better": (
        "scores",
        score_line(lambda told: told["metrics"].update({"AP": told["metrics"]["AP"] + 2e-9})),
    ),
    "a claimed score that is a text": ("scores", score_line(first_metric("1"))),
    "a score that is true": ("scores", score_line(first_metric(True))),
    "a metric less": ("scores", score_line(lambda told: told["metrics"].popitem())),
    "a metric more": ("scores", score_line(lambda told: told["metrics"].update(Luck=1.0))),
    "another group": ("scores", score_line(put(group="own"))),
    "another state": ("scores", score_line(put(state="abstained"))),
    "a score left out": ("scores", line("scores.jsonl", lambda old: b"")),
    "a score twice": ("scores", line("scores.jsonl", lambda old: old + old)),
    "a score of a list": ("scores", line("scores.jsonl", lambda old: b"[]\n")),
    "NaN for a score": ("json", line("scores.jsonl", lambda old: b'{"a":NaN}\n')),
    "scores.json without tables": (
        "scores",
        lambda files: edit(files, "scores.json", lambda heads: heads.pop("tables")),
    ),
    "fewer questions scored": (
        "scores",
        lambda files: edit(files, "scores.json", lambda h: h["tables"][0].update(questions=1)),
    ),
    "a metric that nobody knows": (
        "scores",
        lambda files: edit(
            files, "scores.json", lambda h: h["tables"][0]["ranking_metrics"].append("Luck@1")
        ),
    ),
    "a metric that is code": (
        "scores",
        lambda files: edit(
            files,
            "scores.json",
            lambda h: h["tables"][0]["ranking_metrics"].append("P(rel=__import__('os'))@1"),
        ),
    ),
    "a metric that no parser ends": (
        "scores",
        lambda files: edit(
            files,
            "scores.json",
            lambda h: h["tables"][0]["ranking_metrics"].append(f"P(rel={'-' * 100_000}1)@1"),
        ),
    ),
    # latency
    "a latency of nothing": ("latency", lambda files: files.update({"latency.jsonl": b"{}\n"})),
    "a latency of another pipeline": ("latency", timed(system="random@1")),
    "times that make no table": ("latency", timed(measured=measured(counts={}))),
    "times of other lengths": (
        "latency",
        timed(measured=measured(counts={"prompt_tokens": [1], "new_tokens": [1, 2]})),
    ),
    "NaN for a time": ("latency", timed(measured=measured(whole=[float("nan")]))),
    "time that runs backwards": ("latency", timed(measured=measured(whole=[-1.0, 1.0]))),
    # challenge
    "a challenge of nothing": ("challenge", lambda f: f.update({"challenge.json": b"{}"})),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_bundle_is_refused_by_the_rule_that_it_breaks(name: str, made) -> None:
    rule, change = FORGED[name]
    bundle = forged(made.good, change)
    assert rule in rules_of(bundle, made)
    assert verify(bundle, made.data).badge == "self-reported"


def twice(rows: str) -> Change:
    """A pipeline stands twice, the second time with rows of this name."""

    def changed(files: Files) -> None:
        about = json.loads(files["manifest.json"])
        again = {**entry_of(about), "rows": rows or entry_of(about)["rows"]}
        files[again["rows"]] = files[entry_of(about)["rows"]]
        edit(files, "manifest.json", lambda told: told["pipelines"].append(again))

    return changed


@pytest.mark.parametrize(
    ("kept", "said"),
    [(-1, "no row for 1 question, such as"), (-2, "no row for 2 questions, such as")],
)
def test_rows_that_lack_are_counted_in_words(kept, said, made) -> None:
    def cut(files: Files) -> None:
        name = rows_name(files)
        files[name] = b"".join(files[name].splitlines(keepends=True)[:kept])

    found = verify(forged(made.good, cut), made.data).findings
    assert any(each.rule == "coverage" and said in each.sentence for each in found)


def test_a_score_that_lacks_is_counted_in_words(made) -> None:
    def cut(files: Files) -> None:
        lines = files["scores.jsonl"].splitlines(keepends=True)
        files["scores.jsonl"] = b"".join(lines[:-1])

    (found,) = verify(forged(made.good, cut), made.data).findings
    assert "it leaves out 1 score, such as that of" in found.sentence


NAN = '"metrics": {"AP": NaN, '


def test_a_score_that_cannot_be_read_is_not_called_left_out(made) -> None:
    def spoil(files: Files) -> None:
        lines = files["scores.jsonl"].splitlines(keepends=True)
        lines[3] = lines[3].replace(b'"metrics": {', NAN.encode(), 1)
        lines[5] = lines[5].replace(b'"metrics": {', NAN.encode(), 1)
        files["scores.jsonl"] = b"".join(lines)

    def spoil_and_cut(files: Files) -> None:
        spoil(files)
        lines = files["scores.jsonl"].splitlines(keepends=True)
        files["scores.jsonl"] = b"".join(lines[:-2])

    found = [
        (each.rule, each.where) for each in verify(forged(made.good, spoil), made.data).findings
    ]
    assert found == [("json", "scores.jsonl:4"), ("json", "scores.jsonl:6")]
    *_, last = verify(forged(made.good, spoil_and_cut), made.data).findings
    assert last.sentence == "it leaves out 2 scores."  # which, cannot be said


def test_of_a_torn_file_of_scores_nothing_more_is_said(made) -> None:
    def cut(files: Files) -> None:
        files["scores.jsonl"] = files["scores.jsonl"][:-1]

    (found,) = verify(forged(made.good, cut), made.data).findings
    assert found.rule == "json" and "is cut off" in found.sentence


def test_a_time_that_cannot_be_read_has_its_line(made) -> None:
    def spoil(files: Files) -> None:
        timed()(files)
        files["latency.jsonl"] *= 2
        edit_line(files, "latency.jsonl", lambda old: old.replace(b"1.0", b"NaN", 1), 1)

    (found,) = verify(forged(made.good, spoil), made.data).findings
    assert found.rule == "latency" and "line 2: it has NaN" in found.sentence


def test_one_of_a_thing_is_told_as_one(made, tmp_path) -> None:
    bundle = packed(tmp_path, made.data, systems=["random"], limit=1)
    report = verify(bundle, made.data, again=1)
    assert report.notices == ("random: 1 question drawn by seed 0.",)
    assert "random: 1 of 1 row agrees (100%" in reports.text(report)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (twice(""), "two pipelines have the same rows"),
        (twice("a/b/rows.jsonl"), "it stands twice"),
        (manifest(in_entry(limit=0)), "limit or its batch size is less than 1"),
        (manifest(in_entry(limit=-3)), "limit or its batch size is less than 1"),
        (manifest(in_entry(batch_size=0)), "limit or its batch size is less than 1"),
        (manifest(in_entry(errors=None)), "it has 0 errored rows, not null"),
    ],
)
def test_a_manifest_that_no_run_writes_is_refused_for_what_is_wrong(change, said, made) -> None:
    found = verify(forged(made.good, change), made.data).findings
    assert any(each.rule == "manifest" and said in each.sentence for each in found)


ANSWERS: dict[str, tuple[str, Change]] = {
    "a sentence that does not exist": ("evidence", pointed(99, None)),
    "a sentence before the first": ("evidence", pointed(-1, None)),
    "a span beyond the text": ("evidence", pointed(None, [0, 10**6])),
    "a span backwards": ("evidence", pointed(None, [5, 2])),
    "a document that does not exist": ("evidence", evidence("e" * 16, None, None)),
    "a place that is a text": ("row", pointed("1", None)),  # type: ignore[arg-type]
    "answers denied": (
        "manifest",
        manifest(lambda about: about["pipelines"][0].update(answers=False)),
    ),
    "another answer under the old scores": (
        "scores",
        lambda files: [edit_answers(files, "nothing at all")],
    ),
}


def edit_answers(files: Files, text: str) -> None:
    name = rows_name(files)
    lines = [json.loads(each) for each in files[name].splitlines()]
    for each in lines:
        if "answer" in each:
            each["answer"]["text"] = text
    files[name] = b"".join(
        json.dumps(each, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for each in lines
    )


@pytest.mark.parametrize("name", ANSWERS)
def test_forged_answers_are_refused_by_the_rule_that_they_break(name: str, made) -> None:
    rule, change = ANSWERS[name]
    assert rule in rules_of(forged(made.speaks, answered_first(change)), made)


def test_in_a_corpus_a_zero_byte_makes_no_known_document(made, tmp_path: Path) -> None:
    """Fixed-width ids on disk end in such bytes, so that a look-up alone would find the document
    once more."""
    bundle = packed(tmp_path, made.data, systems=["bm25@2"], setting="corpus", limit=3)

    def again(found: list[Any]) -> None:
        found[1] = [found[0][0] + "\0", found[1][1]]

    assert rules_of(forged(bundle, hits(again)), made) == {"pool"}


# --- gold in what a system was told ---------------------------------------------------


def asked_golds(made: SimpleNamespace) -> list[Gold]:
    """Gold of the questions that the good bundle answers."""
    files = files_of(made.good)
    every = read_gold(made.data / entry_of(json.loads(files["manifest.json"]))["data"])
    asked = [json.loads(text)["id"] for text in files[rows_name(files)].splitlines()]
    return [every[query_id] for query_id in sorted(asked)]


def answers_of(made: SimpleNamespace, count: int) -> list[str]:
    """Different accepted answers that are words of some length."""
    texts = dict.fromkeys(gold.answers[0] for gold in asked_golds(made))
    return [text for text in texts if len(text) > 4][:count]


def relevant(made: SimpleNamespace) -> str:
    grades = asked_golds(made)[0].relevance
    return max(grades, key=lambda doc_id: grades[doc_id])


def typed(words: list[str]) -> Change:
    return manifest(lambda about: about["sessions"][0]["command"].update(argv=words))


@pytest.mark.parametrize(
    "change",
    [
        lambda made: typed(["run", "--system", "; ".join(answers_of(made, 4))]),
        lambda made: typed(["run", "--from", "somewhere/gold.jsonl"]),
        lambda made: typed(["run", "--qrels", "test.tsv"]),
        lambda made: typed(["x" * 6000]),
        lambda made: typed([relevant(made)]),
        lambda made: submission(description=", ".join(answers_of(made, 14))),
        lambda made: manifest(
            lambda about: about["sessions"][0]["command"].update(
                overrides=[f"reader.hint={' '.join(answers_of(made, 3))}"]
            )
        ),
    ],
    ids=["answers", "gold.jsonl", "qrels", "a file", "a document", "description", "--set"],
)
def test_gold_that_was_told_to_a_system_is_found(change, made) -> None:
    assert rules_of(forged(made.good, change(made)), made) == {"gold"}


def test_an_answer_list_in_an_option_of_a_pipeline_is_found(made) -> None:
    from urllib.parse import quote

    hint = quote(" ".join(answers_of(made, 3)), "")
    spelled = f"e5:model={hint}@5"

    def change(about: dict[str, Any]) -> None:
        entry_of(about)["system"] = str(parse_pipeline(spelled))
        stage_of(about)["parts"]["stage"] = str(parse_pipeline(spelled))
        asked_so(about)

    assert rules_of(forged(made.good, manifest(change, keys=True)), made) == {"gold"}


@pytest.mark.parametrize("spelled", ["bm25:gold=1@5", "bm25:k1=much@5"])
def test_an_option_that_a_system_does_not_take_is_found(made, spelled: str) -> None:
    def change(about: dict[str, Any]) -> None:
        entry_of(about)["system"] = str(parse_pipeline(spelled))
        stage_of(about)["parts"]["stage"] = str(parse_pipeline(spelled))
        asked_so(about)

    assert rules_of(forged(made.good, manifest(change, keys=True)), made) == {"manifest"}


def test_answers_scattered_over_a_command_are_found(made) -> None:
    def change(about: dict[str, Any]) -> None:
        about["sessions"][0]["command"]["argv"] = ["run", *answers_of(made, 14)]

    assert rules_of(forged(made.good, manifest(change)), made) == {"gold"}


@pytest.mark.parametrize("place", ["", "sessions.0.command", "pipelines.0", "sessions.0"])
def test_a_key_that_no_run_writes_is_named(made, place: str) -> None:
    def change(about: dict[str, Any]) -> None:
        holder: Any = about
        for step in place.split(".") if place else ():
            holder = holder[int(step) if step.isdecimal() else step]
        holder["gold"] = "all of it"

    (found,) = verify(forged(made.good, manifest(change)), made.data).findings
    assert found.rule == "provenance" and "gold: no run writes that" in found.sentence


@pytest.mark.parametrize(
    "change",
    [
        {"systems": ["rico"]},
        {"limit": 3},
        {"seed": 9},
        {"dtype": "bfloat16"},
        {"jobs": [{"task": "mini-musique", "split": "test", "setting": "pool"}]},
    ],
)
def test_some_session_asked_for_each_pipeline(made, change: dict[str, Any]) -> None:
    bundle = forged(
        made.good, manifest(lambda about: about["sessions"][0]["command"].update(change))
    )
    assert rules_of(bundle, made) == {"manifest"}


@pytest.mark.parametrize("number", [1, 3])
def test_a_manifest_of_another_format_is_refused(made, number: int) -> None:
    change = manifest(lambda about: about.update(format=number))
    assert rules_of(forged(made.good, change), made) == {"manifest"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "torch"])
def test_a_library_whose_threads_are_not_told_is_named(made, name: str) -> None:
    change = manifest(lambda about: about["sessions"][0]["threads"].pop(name))
    (found,) = verify(forged(made.good, change), made.data).findings
    assert found.rule == "provenance" and f"threads.{name} is missing" in found.sentence


def test_few_words_that_are_answers_by_chance_are_no_gold(made) -> None:
    change = submission(description=f"Named after {answers_of(made, 1)[0]}.")
    assert rules_of(forged(made.good, change), made) == set()


# --- the archive ----------------------------------------------------------------------


def test_every_rule_is_broken_by_some_test_and_explained() -> None:
    files = (Path(__file__), Path(__file__).with_name("test_verify_rows.py"))
    here = "".join(each.read_text(encoding="utf-8") for each in files)
    docs = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f'"{rule}"' in here, rule
        assert f"| `{rule}` |" in docs, rule


def bytes_of(made: SimpleNamespace) -> bytearray:
    return bytearray(made.good.read_bytes())


def refusal(data: bytes, made: SimpleNamespace) -> set[str]:
    Path("raw.zip").write_bytes(data)
    return rules_of(Path("raw.zip"), made)


def as_others_write(
    made: SimpleNamespace, change: Callable[[ZipFile], object], **info: Any
) -> bytes:
    def write(opened: ZipFile) -> None:
        for name, data in files_of(made.good).items():
            told = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            for key, value in info.items():
                setattr(told, key, value)
            opened.writestr(told, data, ZIP_DEFLATED)
        change(opened)

    return zip_of(write)


def nothing(opened: ZipFile) -> None:
    pass


def linked(opened: ZipFile) -> None:
    told = ZipInfo("latency.jsonl")
    told.external_attr = (stat.S_IFLNK | 0o777) << 16
    opened.writestr(told, "/etc/passwd")


def same_name(opened: ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("manifest.json", "{}")


ARCHIVES: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "nothing": ("archive", lambda made: b""),
    "no zip": ("archive", lambda made: b"PK" * 100),
    "cut off": ("archive", lambda made: bytes(bytes_of(made)[:-30])),
    "something before it": ("archive", lambda made: b"#!/bin/sh\n" + bytes_of(made)),
    "something behind it": ("archive", lambda made: bytes_of(made) + b"more"),
    "something before its end": (
        "archive",
        lambda made: bytes(bytes_of(made)[:-22]) + b"more" + bytes(bytes_of(made)[-22:]),
    ),
    "a gap before the directory": ("archive", lambda made: widened(bytes_of(made), "gap")),
    "a directory with more": ("archive", lambda made: widened(bytes_of(made), "tail")),
    "a comment": (
        "archive",
        lambda made: as_others_write(made, lambda z: setattr(z, "comment", b"hello")),
    ),
    "a comment of a file": ("archive", lambda made: as_others_write(made, nothing, comment=b"x")),
    "an extra field": (
        "archive",
        lambda made: as_others_write(made, nothing, extra=b"\x99\x99\x01\x00x"),
    ),
    "a link": ("link", lambda made: as_others_write(made, linked)),
    "a folder": ("name", lambda made: as_others_write(made, lambda z: z.mkdir("a"))),
    "a name twice": ("duplicate", lambda made: as_others_write(made, same_name)),
    "encrypted": ("encrypted", lambda made: flagged(bytes_of(made), 1)),
    "strongly encrypted": ("encrypted", lambda made: flagged(bytes_of(made), 0x40)),
    "a data descriptor": ("archive", lambda made: flagged(bytes_of(made), 8)),
    "another method": ("archive", lambda made: method(bytes_of(made), 14)),
    "a size too large": ("archive", lambda made: sized(bytes_of(made), 1)),
    "a size too small": ("size", lambda made: sized(bytes_of(made), -1)),
    "another checksum": ("checksum", lambda made: summed(bytes_of(made))),
    "local header and directory differ": ("archive", lambda made: differing(bytes_of(made))),
    "two names for the same bytes": ("archive", lambda made: overlapping(bytes_of(made))),
    "too many files": (
        "size",
        lambda made: zip_of(lambda z: [z.writestr(f"{n}", b"") for n in range(2001)]),
    ),
    "more bytes than it declares": ("archive", lambda made: tailed(made)),
}


def places(data: bytearray) -> tuple[int, int]:
    """Where the first local header and the first entry of the directory begin."""
    return 0, struct.unpack_from("<L", data, len(data) - 6)[0]


def both(
    data: bytearray, form: str, local: int, central: int, change: Callable[[int], int]
) -> bytes:
    """Change the same number of the first file's two headers."""
    for place, offset in zip(places(data), (local, central), strict=True):
        (old,) = struct.unpack_from(form, data, place + offset)
        struct.pack_into(form, data, place + offset, change(old))
    return bytes(data)


def widened(data: bytearray, where: str) -> bytes:
    """Four bytes between files and directory, or at the directory's end; the end agrees."""
    _, place = places(data)
    here, field = (place, 6) if where == "gap" else (len(data) - 22, 10)
    data[here:here] = b"more"
    (old,) = struct.unpack_from("<L", data, len(data) - field)
    struct.pack_into("<L", data, len(data) - field, old + 4)
    return bytes(data)


def flagged(data: bytearray, bit: int) -> bytes:
    return both(data, "<H", 6, 8, lambda old: old | bit)


def method(data: bytearray, number: int) -> bytes:
    return both(data, "<H", 8, 10, lambda old: number)


def summed(data: bytearray) -> bytes:
    return both(data, "<L", 14, 16, lambda old: old ^ 1)


def sized(data: bytearray, more: int) -> bytes:
    return both(data, "<L", 22, 24, lambda old: old + more)


def differing(data: bytearray) -> bytes:
    struct.pack_into("<H", data, 10, 77)
    return bytes(data)


def overlapping(data: bytearray) -> bytes:
    """The second entry of the directory points at the first file."""
    _, place = places(data)
    length = struct.unpack_from("<H", data, place + 28)[0]
    struct.pack_into("<L", data, place + 46 + length + 42, 0)
    return bytes(data)


def tailed(made: SimpleNamespace) -> bytes:
    """Bytes hide behind the end of a deflated stream, inside of the file's packed size."""

    def write(opened: ZipFile) -> None:
        opened.writestr("bundle.json", b"{}", ZIP_DEFLATED)

    data = bytearray(zip_of(write))
    packed_size = struct.unpack_from("<L", data, 18)[0]
    start = 30 + len("bundle.json")
    data[start + packed_size : start + packed_size] = b"hidden"
    end = len(data) - 22
    struct.pack_into("<L", data, end + 16, struct.unpack_from("<L", data, end + 16)[0] + 6)
    return both(data, "<L", 18, 20, lambda old: old + 6)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_strange_archive_is_refused(name: str, made) -> None:
    rule, write = ARCHIVES[name]
    assert rule in refusal(write(made), made)


def test_an_archive_of_many_bytes_is_not_even_opened(made, monkeypatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 1000)
    assert rules_of(made.good, made) == {"size"}


def test_all_files_together_have_a_limit(made, monkeypatch) -> None:
    monkeypatch.setattr(reader, "MOST_UNPACKED", 10_000)
    assert rules_of(made.good, made) == {"size"}


def test_a_file_that_is_not_the_listed_one_is_found(made) -> None:
    files = files_of(made.good)
    listed = archive(files)
    files["submission.json"] = files["submission.json"].replace(b"A system", b"B system")
    with ZipFile("listed.zip", "w") as old:
        pass
    Path("listed.zip").write_bytes(listed)
    with ZipFile("listed.zip") as old:
        about = old.read("bundle.json")

    def write(opened: ZipFile) -> None:
        for name, data in {"bundle.json": about, **files}.items():
            opened.writestr(ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)

    assert refusal(zip_of(write), made) == {"checksum"}


def test_declared_sizes_are_believed_only_as_limits(made, monkeypatch) -> None:
    """A bomb that declares little is stopped while it unpacks, after one piece."""
    monkeypatch.setattr(reader, "_PIECE", 1000)
    packed_ = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packed_.compress(b"0" * 10_000_000) + packed_.flush()
    data = bytearray(zip_of(lambda z: z.writestr("bundle.json", b"0" * 9, ZIP_DEFLATED)))
    old = struct.unpack_from("<L", data, 18)[0]
    start = 30 + len("bundle.json")
    data[start : start + old] = bomb
    end = len(data) - 22
    more = len(bomb) - old
    struct.pack_into("<L", data, end + 16, struct.unpack_from("<L", data, end + 16)[0] + more)
    bundle = both(data, "<L", 18, 20, lambda size: size + more)
    Path("bomb.zip").write_bytes(bundle)
    Path("out").mkdir()
    found = Findings()
    assert reader.unpack(Path("bomb.zip"), Path("out"), found) == {}
    assert [each.rule for each in found] == ["size"]
    assert sum(path.stat().st_size for path in Path("out").iterdir()) <= 1000


def test_nothing_is_written_under_a_name_of_the_archive(made, monkeypatch) -> None:
    written = []
    place = Path("place")
    from harness.verify.checks import examine

    examine(made.good, place, made.data)
    written = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
    names = {Path(name).name for name in files_of(made.good)} - {"rows.jsonl"}
    ours = {"manifest.json", "scores.json", "scores.jsonl"}
    assert {path.name for path in written} & names <= ours
    assert all(path.parts[0] in ("files", "run") for path in written)


def test_three_hundred_mutations_never_end_in_a_traceback(made) -> None:
    """Seeded: cut off, overwritten, shuffled; and forged files inside of a sound archive."""
    rng, whole = random.Random(7), made.good.read_bytes()
    accepted = 0
    for round_ in range(300):
        data = bytearray(whole)
        kind = round_ % 4
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        elif kind == 1:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data = bytearray(rng.randbytes(rng.randrange(2000)))
        else:
            files = files_of(made.good)
            name = rng.choice(sorted(files))
            mutated = bytearray(files[name])
            for _ in range(rng.randint(1, 4)):
                mutated[rng.randrange(len(mutated))] = rng.choice(b'0"[]{},:-e\\a\x00\xff')
            files[name] = bytes(mutated)
            data = bytearray(archive(files))
        Path("mutated.zip").write_bytes(data)
        report = verify(Path("mutated.zip"), made.data)
        accepted += not report.findings
        assert all(finding.rule in RULES for finding in report.findings)
    assert accepted <= 15  # a byte of a description, of a version or of a time is nobody's to check


def test_wrong_types_anywhere_in_json_are_told_in_plain_words(made) -> None:
    """Values of all files become ones of other types."""
    rng = random.Random(3)
    values = [None, True, -1, 10**18, 0.5, "", "x", [], [1], {}, {"a": 1}]

    def places_of(value: Any) -> list[tuple[Any, Any]]:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        inner = [each for each in (value[key] for key in keys) if isinstance(each, dict | list)]
        return [*((value, key) for key in keys), *(p for each in inner for p in places_of(each))]

    def change(value: Any) -> None:
        holder, key = rng.choice(places_of(value))
        holder[key] = rng.choice(values)

    files = {name: partial(edit, name=name, change=change) for name in files_of(made.good)}
    for bundle, edited, rounds in (
        (made.good, files["manifest.json"], 120),
        (made.good, files["scores.json"], 60),
        (made.good, files["submission.json"], 20),
        (made.good, score_line(change), 30),
        (made.good, row(change), 30),
        (made.speaks, answered_first(row(change)), 60),
        (made.good, timed(measured=measured(counts={})), 1),
    ):
        for _ in range(rounds):
            for finding in verify(forged(bundle, edited), made.data).findings:
                assert not PYTHON.search(finding.sentence), finding


PYTHON = re.compile(
    r"object has|object is|NoneType|iterable|subscript|argument|index|unpack|interpreted|Error|"
    r"\b(None|True|False|str|int|dict|float|bool)\b|/tmp"
)
"""What the verifier's findings do not speak."""


def answered_first(change: Change) -> Change:
    """Change rows of which the first has an answer."""

    def changed(files: Files) -> None:
        rows = rows_name(files)
        lines = files[rows].splitlines(keepends=True)
        files[rows] = b"".join(sorted(lines, key=lambda each: b'"answer"' not in each))
        change(files)

    return changed


# --- good bundles ---------------------------------------------------------------------


def outside(place: Path, data: Path) -> list[str]:
    """A TREC run and predictions for the toy task."""
    prepare("toy", data=data)
    ids = [f"native-{n}" for n in range(40)]
    folder = next((data / "toy").glob("*/queries.jsonl")).parent
    native = {r["native"]: r["id"] for r in map(json.loads, (folder / "native.jsonl").open())}
    pools = {r["id"]: r["pool"] for r in map(json.loads, (folder / "queries.jsonl").open())}
    run = "".join(f"{n} Q0 {pools[native[n]][0]} 1 1.0 t\n" for n in ids)
    (place / "their.run").write_text(run)
    (place / "their.json").write_text(json.dumps(dict.fromkeys(ids, "by the gate")))
    return [f"trec:file={place}/their.run", f"bm25@5+predictions:file={place}/their.json"]


GOOD: dict[str, Callable[[Path, Path], Path]] = {
    "two systems": lambda place, data: packed(place, data, limit=10),
    "all questions": lambda place, data: packed(place, data),
    "corpus": lambda place, data: packed(
        place, data, systems=["bm25@7", "bm25"], setting="corpus", limit=5
    ),
    "several tasks": lambda place, data: packed(
        place,
        data,
        ["mini-musique:documents=300,questions=20", "mini-msmarco:documents=300,questions=20"],
    ),
    "errors, evidence, abstained": lambda place, data: packed(
        place, data, systems=["bm25@5+answering@3", "bm25+answering:plain=true@2"]
    ),
    "triples": lambda place, data: packed(
        place,
        data,
        ["mini-2wikimultihopqa:documents=300,questions=20"],
        ["bm25+answering@3"],
    ),
    "another split and profile": lambda place, data: packed(
        place, data, ["mini-triviaqa:documents=300,questions=20,profile=shift"], split="dev"
    ),
    "a task of one's own": lambda place, data: packed(place, data, ["toy"], seed=5, limit=9),
    "results from outside": lambda place, data: packed(place, data, ["toy"], outside(place, data)),
    "batches and seeds": lambda place, data: packed(
        place, data, systems=["bm25:k1=1.2@9+random@3"], batch_size=3, seed=11, limit=7
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_bundle_is_accepted(name: str, made, tmp_path: Path) -> None:
    data = tmp_path / "own" if "own" in name or "outside" in name else made.data
    report = verify(GOOD[name](tmp_path, data), data)
    assert [str(each) for each in report.findings] == []
    assert report.badge == "arithmetic verified"


def test_latency_and_further_metrics_are_accepted(made) -> None:
    folder = made.place / "good"
    about = json.loads((folder / "manifest.json").read_text())
    latency = folder / "latency.jsonl"
    latency.write_bytes(timing(fingerprint=entry_of(about)["fingerprint"]))
    try:
        api.score(folder, ["P@1", "Success@2", "nDCG@3"])
        bundle = pack(folder, made.place / "good.submission.json", Path("more.zip"))
        assert [str(each) for each in verify(bundle, made.data).findings] == []
        assert "latency.jsonl" in files_of(bundle)
    finally:
        latency.unlink()
        api.score(folder)


def test_a_folder_that_a_bundle_names_is_not_read(made) -> None:
    """``jsonl:DIR`` needs no network, so that a run would prepare it; the verifier does not."""
    Path("their/qrels").mkdir(parents=True)
    Path("their/corpus.jsonl").write_text('{"_id":"D1","title":"","text":"a"}\n')
    Path("their/queries.jsonl").write_text('{"_id":"Q1","text":"a"}\n')
    Path("their/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nQ1\tD1\t1\n")
    task = manifest(in_entry(task="jsonl:their", setting="corpus"))
    found = verify(forged(made.good, task), made.data).findings
    assert any(each.rule == "data" and "is not prepared" in each.sentence for each in found)
    assert not list(made.data.glob("jsonl*"))


def test_a_file_that_a_bundle_names_is_not_opened(made) -> None:
    """``yaml:FILE`` describes a task: to make one is to read it."""
    Path("secret.yml").write_text("password: hunter2\n")
    os.mkfifo("pipe.yml")  # opening it would wait for ever
    for name in ("secret.yml", "pipe.yml", "nowhere.yml", "/dev/zero"):
        task = manifest(in_entry(task=f"yaml:{name}"))
        found = verify(forged(made.good, task), made.data).findings
        assert [each.rule for each in found] == ["data"]
        assert "is not prepared" in found[0].sentence and "password" not in found[0].sentence


@pytest.mark.parametrize("size", ["200_001", "%20200001", "9999999999", "+5", "٣"])
def test_a_size_is_a_number_as_a_run_writes_it(made, size: str) -> None:
    task = manifest(in_entry(task=f"mini-hotpotqa:documents={size}"))
    found = {each.rule for each in verify(forged(made.good, task), made.data).findings}
    assert found and found <= {"size", "manifest"}


def test_a_bundle_cannot_make_us_generate_any_number_of_worlds(made, monkeypatch) -> None:
    from harness.verify import checks

    monkeypatch.setattr(checks, "WORLDS", 1)
    assert not verify(made.good, made.data).findings
    monkeypatch.setattr(checks, "WORLDS", 0)
    assert rules_of(made.good, made) == {"size"}


def test_what_is_true_but_worth_knowing_is_a_notice(made, tmp_path: Path) -> None:
    bundle = GOOD["results from outside"](tmp_path, tmp_path / "own")
    notices = " ".join(verify(bundle, tmp_path / "own").notices)
    assert "trec takes results from a file" in notices
    assert "20 questions drawn by seed 0" in " ".join(verify(made.good, made.data).notices)
    registry.registered("systems").pop("answering")  # type: ignore[attr-defined]
    report = verify(made.speaks, made.data)
    assert "answering is not known here" in " ".join(report.notices)
    marked = "speaks.zip: arithmetic verified, options not checked: answering unknown here"
    assert reports.text(report).splitlines()[-1] == marked


def test_a_system_is_looked_up_once_a_stage(made, monkeypatch) -> None:
    asked: list[str] = []
    find = registry.find

    def counting(kind: Any, name: str) -> type:
        if kind == "systems":
            asked.append(name)
        return find(kind, name)

    monkeypatch.setattr(registry, "find", counting)
    assert not verify(made.good, made.data).findings
    assert sorted(asked) == ["bm25", "random"]


# --- packing --------------------------------------------------------------------------


def test_the_same_run_packs_to_the_same_bytes_without_corpus_text(made) -> None:
    told = made.place / "good.submission.json"
    one, two = (pack(made.place / "good", told, Path(n)) for n in ("one.zip", "two.zip"))
    assert one.read_bytes() == two.read_bytes() == made.good.read_bytes()
    with ZipFile(one) as opened:
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.namelist() == sorted(opened.namelist())
    files = files_of(one)
    assert str(made.place).encode() not in b"".join(files.values())
    corpus = next((made.data / "corpora").iterdir()) / "documents.jsonl"
    texts = [json.loads(text)["text"] for text in corpus.read_text().splitlines()]
    everything = b"".join(files.values()).decode()
    assert not any(text in everything for text in texts if len(text) > 40)


def test_rows_beyond_the_sample_are_not_packed(made, tmp_path: Path) -> None:
    folder = api.run([TASK], ["bm25@5"], out="larger", data=made.data)
    api.score(api.run([TASK], ["bm25@5"], out="larger", data=made.data, limit=4))
    bundle = pack(folder, made.place / "good.submission.json", Path("four.zip"))
    files = files_of(bundle)
    assert len(files[rows_name(files)].splitlines()) == 4
    assert not verify(bundle, made.data).findings


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "scores.json").unlink(), "not scored yet"),
        (lambda run: next(run.rglob("rows.jsonl")).unlink(), "older than the rows"),
        (lambda run: _unended(run), "is not finished"),
        (lambda run: _cut(run), "has no row for 2 of 4 questions"),
        (lambda run: (run / "manifest.json").unlink(), "not the folder of a run"),
        (lambda run: _in_json(run / "manifest.json", "sessions", []), "lacks sessions"),
    ],
)
def test_only_a_whole_run_is_packed(spoil, said, made) -> None:
    folder = api.score(api.run([TASK], ["bm25@5"], out="run", data=made.data, limit=4))
    spoil(folder)
    with pytest.raises(HarnessError) as error:
        pack(folder, made.place / "good.submission.json", Path("x.zip"))
    assert said in str(error.value)
    assert not Path("x.zip").exists()


def _cut(run: Path) -> None:
    path = next(run.rglob("rows.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    api.score(run)


def _unended(run: Path) -> None:
    about = json.loads((run / "manifest.json").read_text())
    _in_json(run / "manifest.json", "pipelines", [{**about["pipelines"][0], "errors": None}])


def _in_json(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


# --- asked again ----------------------------------------------------------------------


def from_gold(made: SimpleNamespace, place: Path) -> Path:
    """A bundle whose rows were made from gold: right arithmetic, whole coverage, sound keys."""
    files = files_of(made.good)
    about = json.loads(files["manifest.json"])
    gold = read_gold(made.data / entry_of(about)["data"])
    name = rows_name(files)
    rows = []
    for text in files[name].splitlines():
        old = json.loads(text)
        best = sorted(dict(old["hits"]), key=lambda d: -gold[old["id"]].relevance.get(d, 0))
        pool = [d for d, grade in gold[old["id"]].relevance.items() if grade > 0]
        ranked = list(dict.fromkeys([*pool, *best]))[:5]
        rows.append(row_line(Row(old["id"], tuple(Hit(d, 9.0 - n) for n, d in enumerate(ranked)))))
    files[name] = b"".join(rows)
    rescored(files, about, made.data, place)
    out = place / "gold.zip"
    out.write_bytes(archive(files))
    return out


def test_rows_made_from_gold_pass_all_arithmetic_and_are_found_when_asked_again(
    made, tmp_path: Path
) -> None:
    bundle = from_gold(made, tmp_path)
    assert verify(bundle, made.data).badge == "arithmetic verified"
    report = verify(bundle, made.data, again=50)
    assert {finding.rule for finding in report.findings} == {"rerun"}
    assert report.badge == "self-reported"
    assert main(["verify", str(bundle), "--rerun", "50", "--data", str(made.data)]) == 1


def changed_rows(
    made: SimpleNamespace, place: Path, bundle: Path, change: Callable[[int, Any, Gold], Any]
) -> Path:
    """A bundle whose rows of bm25 are changed one by one, rescored; ``change`` has their number."""

    def changed(files: Files) -> None:
        about = json.loads(files["manifest.json"])
        gold = read_gold(made.data / entry_of(about, 0)["data"])
        name = rows_name(files)
        rows = [json.loads(text) for text in files[name].splitlines()]
        for number, each in enumerate(rows):
            change(number, each, gold[each["id"]])
        texts = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in rows)
        files[name] = "".join(f"{text}\n" for text in texts).encode()
        rescored(files, about, made.data, place)

    return forged(bundle, changed, place / "changed.zip")


class Coarse:
    """Has two scores for ten passages."""

    def open(self, corpus: Any, folder: Path, brief: Any) -> None:
        pass

    def retrieve(self, queries: Any, k: int) -> Any:
        scored = [[Hit(each, float(each > "8")) for each in query.pool] for query in queries]
        return [sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k] for hits in scored]


def test_ties_that_gold_has_put_in_order_are_found(made, tmp_path) -> None:
    """Whoever knows gold ranks the relevant ones of equal scores first, and changes no score."""
    registry.register("systems", "bm25-coarse")(Coarse)
    honest = packed(tmp_path, made.data, systems=["random", "bm25-coarse"])
    moved = []

    def change(number: int, each: Any, gold: Gold) -> None:
        best = sorted(each["hits"], key=lambda hit: (-hit[1], -gold.relevance.get(hit[0], 0)))
        if best != each["hits"]:
            moved.append(number)
        each["hits"] = best

    bundle = changed_rows(made, tmp_path, honest, change)
    assert len(moved) > 4
    assert verify(bundle, made.data).badge == "arithmetic verified"
    (found,) = verify(bundle, made.data, again=40).findings  # of 40, all are asked
    assert found.rule == "rerun" and f"{40 - len(moved)} of 40 rows agree" in found.sentence


def one_more(made: SimpleNamespace, place: Path) -> Path:
    """One row of twenty ranks what is relevant first: the others are honest."""

    def change(number: int, each: Any, gold: Gold) -> None:
        if number == 7:
            each["hits"] = sorted(each["hits"], key=lambda hit: -gold.relevance.get(hit[0], 0))
            each["hits"] = [[hit[0], 9.0 - n] for n, hit in enumerate(each["hits"][::-1])]

    return changed_rows(made, place, made.good, change)


def test_where_nothing_is_otherwise_here_all_rows_must_agree(made, tmp_path) -> None:
    bundle = one_more(made, tmp_path)
    report = verify(bundle, made.data, again=20)
    (found,) = report.findings
    assert found.rule == "rerun" and "19 of 20 rows agree (95%" in found.sentence
    assert "so that all must" in found.sentence
    files = files_of(bundle)
    assert json.loads(files[rows_name(files)].splitlines()[7])["id"] in found.sentence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda about: machine_of(about).update(cpu="another"), "on another processor"),
        (lambda about: machine_of(about).update(flags="sse2"), "on another processor"),
        (
            lambda about: about["sessions"][0]["threads"].update(OMP_NUM_THREADS="8"),
            "with other threads",
        ),
        (
            lambda about: about["sessions"][0]["threads"].update(OMP_NUM_THREADS=None),
            "with other threads",
        ),
    ],
)
def test_where_something_is_otherwise_fewer_are_enough_and_it_is_told(
    change, told, made, tmp_path
) -> None:
    def changed(about: dict[str, Any]) -> None:
        change(about)
        rehash(about)

    bundle = forged(one_more(made, tmp_path), lambda f: edit(f, "manifest.json", changed))
    report = verify(bundle, made.data, again=20)
    assert report.badge == "re-run (40, 95%; 95% enough)"
    said = f"95% enough: they are asked again {told}, going by what the manifest says"
    for one in report.reruns:
        assert f"{one.task} {one.system}: {one}; {said}\n" in reports.text(report)
    assert all(each["rule"] == said for each in reports.as_json(report)["reruns"])


def machine_of(about: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = about["facts"][about["sessions"][0]["machine"]]
    return found


class InBatches:
    """Ranks a pool by ids, and for the first question of a batch the other way round: what batches
    may do to a system that is not independent of them."""

    def open(self, corpus: Any, folder: Path, brief: Any) -> None:
        pass

    def retrieve(self, queries: Any, k: int) -> Any:
        ranked = [sorted(query.pool, reverse=query is queries[0])[:k] for query in queries]
        return [[Hit(each, 1.0 - n / 100) for n, each in enumerate(ids)] for ids in ranked]


def test_rows_that_differ_are_asked_again_in_their_whole_batches(
    made, tmp_path, monkeypatch
) -> None:
    from harness.verify import rerun as module

    wholes: list[set[str]] = []
    real = module._batches
    monkeypatch.setattr(module, "_batches", lambda *a: wholes.append(real(*a)) or wholes[-1])
    registry.register("systems", "inbatches")(InBatches)
    bundle = packed(tmp_path, made.data, systems=["inbatches@5"], batch_size=40)
    for seed in range(3):
        (one,) = verify(bundle, made.data, again=20, seed=seed).reruns
        assert one.agree == 20 and one.apart == ()
    assert wholes and all(len(whole) == 40 for whole in wholes)


def test_the_verifier_draws_the_questions_and_their_seed(made, monkeypatch) -> None:
    drawn: list[set[str]] = []
    from harness.verify import checks

    real = checks.rerun
    monkeypatch.setattr(
        checks,
        "rerun",
        lambda *a: drawn.append(set(a[3])) or real(*a),  # type: ignore[func-returns-value]
    )
    for seed in (1, 1, 2):
        verify(made.good, made.data, again=5, seed=seed)
    assert drawn[0] == drawn[2] != drawn[4]
    assert len({verify(made.good, made.data, again=1).seed for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("results from outside", "takes its results from a file")],
)
def test_what_cannot_be_asked_again_is_told_and_not_called_rerun(
    name, said, made, tmp_path, capsys
) -> None:
    bundle = GOOD[name](tmp_path, tmp_path / "own")
    report = verify(bundle, tmp_path / "own", again=5)
    assert report.findings == () and said in str(report.unasked.values())
    there = len(report.reruns)
    assert report.badge.startswith("re-run") == bool(there) and report.unasked
    assert report.badge.endswith(", in part") == bool(there)
    (task, system), *_ = report.unasked
    assert report.badge_of(task, system) == "arithmetic verified"
    words = ["verify", str(bundle), "--rerun", "5", "--data", str(tmp_path / "own")]
    assert main(words) == 0
    assert f"{system}: not asked again: " in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unasked"][0]["system"] == system


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("reader:endpoint=http://example.org/v1", "asks an endpoint"),
        ("reader:model=/etc", "leads to /etc"),
        ("retrollm:expansion=trec:/etc/passwd", "leads to trec:/etc/passwd"),
        ("reader:model=a/../../b", "leads to a/../../b"),
        ("unheard-of", "no system 'unheard-of'"),
        ("trec:file=their.run", "takes its results from a file"),
        ("retrollm:expansion=trec:their.run", "takes its results from a file"),
        ("their.py:Rerank", "their.py:Rerank is code in a file"),
    ],
)
def test_asking_again_opens_nothing_that_a_bundle_points_at(system, said, made) -> None:
    from harness.verify import rerun as module

    with pytest.raises(HarnessError) as error:
        module._refuse(parse_pipeline(f"bm25+{system}"))
    assert said in str(error.value)


def with_scores(made: SimpleNamespace, change: Callable[[Any], object], place: Path) -> Path:
    """A changed manifest with fitting keys, and scores that belong to it."""

    def changed(files: Files) -> None:
        manifest(change, keys=True)(files)
        rescored(files, json.loads(files["manifest.json"]), made.data, place)

    return forged(made.good, changed)


def test_a_system_that_may_take_a_file_and_takes_none_can_be_asked_again() -> None:
    from harness.verify import rerun as module

    module._refuse(parse_pipeline("retrollm"))


def test_a_checkpoint_that_is_not_the_one_of_the_bundle_is_not_run(made, tmp_path) -> None:
    def change(about: dict[str, Any]) -> None:
        stage_of(about)["parts"]["files"] = ["0" * 16]
        stage_of(about)["files"] = [["model.bin", "0" * 16]]

    report = verify(with_scores(made, change, tmp_path), made.data, again=3)
    assert report.findings == () and "other files here" in str(report.unasked.values())


def test_code_that_is_not_the_one_of_the_bundle_is_told(made, tmp_path) -> None:
    def change(about: dict[str, Any]) -> None:
        for fact in about["facts"].values():
            if isinstance(fact, dict) and "systems.bm25" in fact:
                fact["systems.bm25"] = "0" * 16

    report = verify(with_scores(made, change, tmp_path), made.data, again=3)
    assert not report.findings
    assert "95% enough: they are asked again with other code, going by" in reports.text(report)


def ranked(*hits: tuple[str, float], read: str = "") -> Row:
    return Row("q", tuple(Hit(*each) for each in hits), read=tuple(read))


def test_rows_agree_but_for_near_ties_of_the_scores_computed_here() -> None:
    here = ranked(("a", 2.0), ("b", 1.00001), ("c", 1.0))
    assert agrees(ranked(("a", 5.0), ("b", 4.0), ("c", 3.0)), here)
    assert agrees(ranked(("a", 2.0), ("c", 1.0), ("b", 1.0)), here)
    assert not agrees(ranked(("b", 1.0), ("a", 1.0), ("c", 1.0)), here)
    assert not agrees(ranked(("a", 2.0), ("b", 1.0)), here)
    assert not agrees(ranked(("a", 2.0), ("c", 1.0), ("c", 1.0)), here)
    assert not agrees(ranked(("a", 2.0), ("b", 1.0), ("d", 1.0)), here)
    assert not agrees(Row("q", error="bm25: failed"), here)
    assert agrees(Row("q", error="x"), Row("q", error="y"))


def test_the_order_of_equal_scores_is_nobodys_choice() -> None:
    here = ranked(("a", 1.0), ("b", 1.0), ("c", 0.999999), ("d", 0.0), ("e", 0.0))
    for order, same in {
        "abcde": True,
        "bacde": False,
        "abced": False,
        "acbde": True,  # c is near both
        "cabde": True,
        "cbade": False,
        "abdce": False,
    }.items():
        assert agrees(ranked(*((each, 0.0) for each in order)), here) is same, order
    zeros = ranked(("a", 0.0), ("b", 0.0))
    assert agrees(zeros, zeros) and not agrees(ranked(("b", 0.0), ("a", 0.0)), zeros)


def test_many_near_ties_make_no_way_from_the_last_to_the_first() -> None:
    """Each is near the next; the ends are not near each other."""
    here = ranked(*((each, 1.0 - 9e-6 * n) for n, each in enumerate("abcd")))
    assert agrees(ranked(*((each, 0.0) for each in "badc")), here)
    assert not agrees(ranked(*((each, 0.0) for each in "bcda")), here)
    assert not agrees(ranked(*((each, 0.0) for each in "dabc")), here)


def test_what_was_read_must_be_the_same_but_for_near_ties() -> None:
    here = ranked(("a", 2.0), ("b", 1.00001), ("c", 1.0), ("d", 1.0), read="ab")
    hits = tuple(here.hits)
    swapped = (hits[0], hits[2], hits[1], hits[3])
    assert agrees(ranked(*swapped, read="ac"), here)
    assert agrees(ranked(*hits, read="ab"), here)
    for read in ("b", "", "ad", "ba", "ax"):
        assert not agrees(ranked(*hits, read=read), here), read


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Paris", "Paris", True), ("Paris", "paris", False), ("", None, False), (None, None, True)],
)
def test_rows_agree_in_the_text_of_the_answer(one, other, same) -> None:
    rows = [Row("q", answer=None if text is None else Answer(text)) for text in (one, other)]
    assert agrees(*rows) is same


def test_of_a_plan_only_the_named_questions_are_asked(made) -> None:
    plan = make_plan([TASK], ["bm25@2"], data=made.data)
    some = [
        json.loads(t)["id"]
        for t in files_of(made.good)[rows_name(files_of(made.good))].splitlines()[:3]
    ]
    folder = run(replace(plan, only=frozenset(some)), Path("some"), made.data)
    assert {r.id for r in read_rows(next(folder.rglob("rows.jsonl")))} == set(some)


def test_the_interval_of_a_share_is_the_exact_one() -> None:
    assert exact_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert exact_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    low, high = exact_interval(45, 50)
    assert (round(low, 4), round(high, 4)) == (0.7819, 0.9667)


# --- what is shown --------------------------------------------------------------------


def test_on_the_command_line(made, capsys) -> None:
    data = ["--data", str(made.data)]
    assert main(["verify", str(made.good), *data]) == 0
    out = capsys.readouterr().out
    assert "arithmetic verified" in out.splitlines()[-1]
    assert "Not proven: that the system made the rows" in out
    bad = str(forged(made.good, submission(contact="")))
    assert main(["verify", bad, *data, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["badge"] == "self-reported"
    assert told["findings"][0].keys() == {"rule", "where", "sentence"}
    assert main(["verify", "nowhere.zip", *data]) == 2
    assert "nowhere.zip does not exist" in capsys.readouterr().err
    assert main(["verify", str(made.place), *data]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_seed_that_would_do_nothing_is_refused(made, capsys) -> None:
    data = ["--seed", "3", "--data", str(made.data)]
    assert main(["verify", str(made.good), *data]) == 2
    assert "Add --rerun N" in capsys.readouterr().err
    assert main(["leaderboard", str(made.place), "-o", "x.html", *data]) == 2
    assert "Add --rerun N" in capsys.readouterr().err and not Path("x.html").exists()


def test_a_mistake_of_ours_does_not_look_like_a_finding(made, capsys, monkeypatch) -> None:
    from harness.verify import checks

    monkeypatch.setattr(checks, "examine", lambda *a: {}["x"])
    assert main(["verify", str(made.good), "--data", str(made.data)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "KeyError: this is a mistake of the harness, not yours" in lines[-1]
    assert lines[0].startswith("Traceback")


def test_a_run_that_was_killed_has_no_end(made) -> None:
    assert not verify(forged(made.good, session(ended=None, ended_how=None)), made.data).findings


def test_a_run_is_packed_on_the_command_line(made, capsys) -> None:
    run = str(made.place / "good")
    assert main(["submit", run, "--template", "-o", "s.json"]) == 0
    blank = json.loads(Path("s.json").read_text())
    assert blank["system"] == "" and blank["hardware"]
    capsys.readouterr()
    assert main(["submit", run, "--bundle", "--submission", "s.json", "-o", "x.zip"]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 5 and all("--template" in sentence for sentence in err)
    Path("s.json").write_text(json.dumps(SUBMISSION))
    assert main(["submit", run, "--bundle", "--submission", "s.json", "-o", "x.zip"]) == 0
    assert Path("x.zip").read_bytes() == made.good.read_bytes()
    capsys.readouterr()
    assert main(["submit", run, "--bundle", "--submission", "s.json", "-o", "x.zip"]) == 2
    assert "x.zip exists" in capsys.readouterr().err
    assert main(["submit", run, "--bundle", "-o", "y.zip"]) == 2
    assert "needs --submission" in capsys.readouterr().err
    assert main(["submit", run, "--bundle", "--format", "trec", "-o", "y.zip"]) == 2


def test_many_findings_of_one_kind_are_counted() -> None:
    found = Findings()
    for number in range(10):
        found.add("row", f"a/rows.jsonl:{number}", "it is wrong.")
    found.add("row", "b/rows.jsonl:1", "it is\x1b[31m wrong.")
    told = list(found)
    assert len(told) == SHOWN + 2
    assert told[-1].sentence == f"and {10 - SHOWN} more like these."
    assert "\x1b" not in told[-2].sentence


def test_it_verifies_without_torch(made) -> None:
    code = (
        "import sys; from harness.cli import main;"
        f"code = main(['verify', {str(made.good)!r}, '--data', {str(made.data)!r}]);"
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr


# --- the parsers alone ----------------------------------------------------------------


@pytest.mark.parametrize("text", ["[1, 2.5, -3]", '{"a": {"b": null}}', '"\\ud83d\\ude00"', "true"])
def test_strict_json_is_json(text: str) -> None:
    assert strict.loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["NaN", "-Infinity", "1e400", "9223372036854775808", "-" + "9" * 25, '{"a":1,"a":1}',
     '"\\udc00"', "[" * 65 + "]" * 65, "", "\ufeff1", "{'a': 1}", "1 2"],
)  # fmt: skip
def test_strict_json_refuses_what_has_two_readings(text: str) -> None:
    with pytest.raises(strict.Unreadable):
        strict.loads(text.encode())


def test_a_line_without_end_is_refused_before_it_is_read_whole(monkeypatch) -> None:
    monkeypatch.setattr(strict, "LONGEST", 100)
    Path("long").write_bytes(b"x" * 1000 + b"\n")
    with pytest.raises(strict.Unreadable, match="longer"):
        list(strict.lines(Path("long")))


def test_asked_again_all_that_was_written_must_be_the_same() -> None:
    row = Row("q", (Hit("a", 1.0),), Answer("x", evidence=(Evidence("a", 0),)), raw="x a")
    assert agrees(row, row)
    for other in (
        replace(row, raw="x a gold"),
        replace(row, stop="length"),
        replace(row, answer=Answer("x", evidence=())),
        replace(row, answer=Answer("x", triples=(("a", "b", "c"),))),
    ):
        assert not agrees(other, row)

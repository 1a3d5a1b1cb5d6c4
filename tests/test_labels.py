"""Labels from a file, RAGChecker's JSON out and in, and its program made harmless."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering import Answering
from exploits import EXPLOITS
from forging import files_of, packed
from test_page import parsed

from harness import api, registry
from harness.cli import main
from harness.data import Document, HarnessError
from harness.report.bundle import pack
from harness.score.claims import METRICS, Tables
from harness.score.judging import Case
from systems.judges.asking import read_claims, read_labels
from systems.judges.labels import Labels
from systems.judges.ragchecker import cleaned

SYSTEM = "bm25+answering@3"
CASES = [
    Case("q1", "Who?", "gold", "said", (Document("a", "A."), Document("b", "B.", "Title"))),
    Case("q2", "What?", "gold", "", (Document("a", "A."),)),
    Case("q3", "Why?", "gold", ""),
]


def rows() -> list[dict[str, Any]]:
    """Labels of the cases; the third failed and needs none."""
    claim = ["it", "is", "so"]
    return [
        {
            "id": "q1",
            "response_claims": [claim, ["a", "b", "c"]],
            "answer_claims": [claim],
            "answer2response": [True, False],
            "response2answer": ["Entailment"],
            "retrieved2response": [[True, False], ["Neutral", "Entailment"]],
            "retrieved2answer": [["Contradiction", True]],
        },
        {"id": "q2", "answer_claims": [claim], "retrieved2answer": [[True]]},
    ]


def read(given: object, name: str = "labels.jsonl") -> Labels:
    """A judge of what a file says of the cases."""
    path = Path(name)
    if isinstance(given, list) and path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    else:
        path.write_text(json.dumps(given))
    labels = Labels(path)
    labels.expect(CASES)
    return labels


def test_labels_are_booleans_or_ragchecker_s_words() -> None:
    labels = read(rows())
    one, two, three = map(labels.judged, CASES)
    assert one.tables == Tables(
        [True, False], [True], [[True, False], [False, True]], [[False, True]]
    )
    assert one.response_claims == [("it", "is", "so"), ("a", "b", "c")]
    assert two.tables == Tables([], [False], [], [[True]])  # an empty answer entails nothing
    assert three == ([], [], Tables([], []))


def theirs(row: dict[str, Any]) -> dict[str, Any]:
    names = {"id": "query_id", "answer_claims": "gt_answer_claims"}
    return {names.get(name, name): value for name, value in row.items()}


def test_ragchecker_s_file_says_the_same() -> None:
    mine = read(rows())
    other = read(
        {"results": list(map(theirs, rows())), "metrics": {"overall_metrics": {}}}, "o.json"
    )
    assert list(map(mine.judged, CASES)) == list(map(other.judged, CASES))


@pytest.mark.parametrize("content", [{"results": 3}, {"result": []}, 3, "text", {}])
def test_a_file_without_a_list_of_questions_is_one_sentence(content: object) -> None:
    with pytest.raises(
        HarnessError, match=r"^o\.json has no list of labelled questions\. Give what"
    ):
        read(content, "o.json")


def changed(name: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    return lambda given: given[0].update({name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g[0].update(id="q9"), "rows of what the pipeline was not asked: q9"),
        (lambda g: g[0].update(id="q9"), "has no row for q1"),
        (lambda g: g.pop(1), "has no row for q2"),
        (lambda g: g.append(g[0]), "labels.jsonl:3: q1 stands twice"),
        (lambda g: g[1].pop("id"), "labels.jsonl:2 has no id"),
        (lambda g: g.append("text"), "labels.jsonl:3 has no id"),
        (lambda g: g[0].pop("response2answer"), "labels.jsonl:1 has no response2answer"),
        (changed("response", "else"), "of another answer to q1"),
        (changed("answer2response", [True]), "answer2response has 1 members for 2 claims"),
        (changed("answer2response", {}), "answer2response is no list for 2 claims"),
        (changed("retrieved2response", [[True], [True]]), "has 1 members for 2 passages"),
        (
            changed("retrieved2response", [[True] * 2]),
            "retrieved2response has 1 members for 2 claims",
        ),
        (changed("retrieved2answer", []), "retrieved2answer has 0 members for 1 claims"),
        (changed("response2answer", ["entailment"]), "'entailment' in response2answer is no label"),
        (changed("response2answer", [1]), "'1' in response2answer is no label"),
        (changed("response2answer", [None]), "'None' in response2answer is no label"),
        (changed("response2answer", [EXPLOITS[0]]), "is no label"),
        (changed("answer_claims", ["it is so"]), "a claim in answer_claims is not three texts"),
        (changed("answer_claims", [["it", "is", 3]]), "is not three texts"),
        (changed("answer_claims", "it is so"), "answer_claims is no list"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(change: Any, said: str) -> None:
    given = rows()
    change(given)
    with pytest.raises(HarnessError) as error:
        read(given)
    assert said in str(error.value)
    assert not Path("ran").exists()


def test_many_mistakes_are_counted(monkeypatch) -> None:
    given = [{"id": f"q{n}"} for n in range(30)]
    monkeypatch.setattr("test_labels.CASES", [CASES[0]._replace(id=f"q{n}") for n in range(30)])
    with pytest.raises(HarnessError) as error:
        read(given)
    assert len(error.value.sentences) == 6 and "25 more such mistakes" in str(error.value)


# --- a run ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run, scored, judged by the exact judge, and packed before that."""
    place = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        kinds: dict[Any, Any] = {kind: {} for kind in registry.PACKAGES}
        patch.setattr(registry, "_registered", {**kinds, "systems": {"answering": Answering}})
        bundle = packed(place, place / "data", systems=[SYSTEM, "bm25+answering@0"], name="run")
        api.claims(place / "run")
    return SimpleNamespace(run=place / "run", bundle=bundle, told=place / "run.submission.json")


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def judged_by(run: Path, judge: str, system: str = SYSTEM) -> list[dict[str, Any]]:
    """The lines of a judge, without its name."""
    found = map(json.loads, (run / "claims.jsonl").read_text().splitlines())
    mine = [each for each in found if (each["judge"], each["system"]) == (judge, system)]
    return [{k: v for k, v in each.items() if k != "judge"} for each in mine]


def exported(made: SimpleNamespace, *words: str) -> list[dict[str, Any]]:
    """What a file for RAGChecker holds, which is written as out.json."""
    assert main(["claims", str(made.run), "--export", "out.json", "--system", SYSTEM, *words]) == 0
    found: list[dict[str, Any]] = json.loads(Path("out.json").read_text())["results"]
    return found


@pytest.mark.parametrize("system", [SYSTEM, "bm25+answering@0"])
def test_what_is_written_for_ragchecker_is_read_back_as_the_same(made, system, capsys) -> None:
    words = ["claims", str(made.run), "--system", system]
    assert main([*words, "--judge", "exact", "--export", "out.json"]) == 0
    out, err = capsys.readouterr()
    assert out == "out.json\n" and "texts of mini-hotpotqa" in err and "licence" in err
    assert main([*words, "--judge", f"labels:{Path('out.json').resolve()}"]) == 0
    out = capsys.readouterr().out
    (name,) = re.findall(r"claims by (labels:out\.json#[0-9a-f]{8}) \(no prompt\)", out)
    assert str(Path.cwd()) not in (made.run / "claims.json").read_text()
    assert judged_by(made.run, name, system) == judged_by(made.run, "exact", system)


def test_other_labels_of_one_file_name_have_another_name(made) -> None:
    exported(made, "--judge", "exact")
    first = Labels(Path("out.json")).name
    other = Path("other/out.json")
    other.parent.mkdir()
    other.write_text(Path("out.json").read_text())
    assert Labels(other).name == first
    other.write_text("[]")
    assert Labels(other).name != first


def test_without_a_judge_it_is_ragchecker_s_input(made) -> None:
    before = (made.run / "claims.jsonl").read_bytes()
    found = exported(made)
    assert (made.run / "claims.jsonl").read_bytes() == before
    asked = {"query_id", "query", "gt_answer", "response", "retrieved_context"}
    none = {"response_claims", "answer2response", "retrieved2response"}
    for each in found:
        assert each.keys() == (asked if each["response"] else asked | none)
        assert all(each[name] == [] for name in none & each.keys())
        assert {name for one in each["retrieved_context"] for name in one} <= {"doc_id", "text"}
    assert sorted({len(each["retrieved_context"]) for each in found}) == [0, 3]
    assert main(["claims", str(made.run), "--judge", "labels:out.json", "--system", SYSTEM]) == 2


def test_labels_of_two_pipelines_are_refused(made, capsys) -> None:
    exported(made, "--judge", "exact")
    assert main(["claims", str(made.run), "--judge", "labels:out.json"]) == 2
    assert "has the labels of one pipeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--export", "new.json"], "holds one pipeline. Choose: --task mini-hotpotqa"),
        (["--export", "{run}/new.json", "--system", SYSTEM], "would lie in the run"),
        (["--export", "{run}/sub/new.json", "--system", SYSTEM], "would lie in the run"),
        (["--export", "old.json", "--system", SYSTEM], "old.json exists"),
        (["--export", "new.jsonl", "--system", SYSTEM], "Name it ….json"),
        (["--export", "new.json", "--system", SYSTEM, "--json"], "do not go together"),
        (["--export", "new.json", "--system", "bm25"], "no such pipeline that answers"),
        (["--judge", "labels"], "labels needs file="),
        (["--judge", "labels:gone.json", "--system", SYSTEM], "gone.json does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(made, words, said, capsys) -> None:
    Path("old.json").write_text("old")
    words = [word.format(run=made.run) for word in words]
    assert main(["claims", str(made.run), *words]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert Path("old.json").read_text() == "old"
    assert not [*made.run.rglob("new.json*"), *Path().glob("new.json*")]


def test_a_write_that_fails_leaves_no_file(made, monkeypatch, capsys) -> None:
    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    assert main(["claims", str(made.run), "--export", "out.json", "--system", SYSTEM]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list(Path().glob("*out.json*"))


def test_a_bundle_has_no_claims(made) -> None:
    assert (made.run / "claims.jsonl").exists() and (made.run / "claims.json").exists()
    packed_again = pack(made.run, made.told, Path("again.zip"))
    assert packed_again.read_bytes() == made.bundle.read_bytes()
    assert not [name for name in files_of(packed_again) if "claims" in name]


def test_no_gate_sees_claims(made, capsys) -> None:
    assert main(["compare", str(made.run), str(made.run)]) in (0, 4)
    said = capsys.readouterr().out
    assert "EM" in said and not [name for name in METRICS if name in said]


def test_the_page_has_the_table_of_each_judge(made) -> None:
    found, _ = parsed(made.run)
    (title,) = [each for each in found.tables if "claims by exact" in each]
    heads, *rows = found.tables[title]
    records = api.claim_records(made.run)
    assert "mechanism test" in title and len(rows) == 2
    named = zip(heads[1:-1], METRICS, strict=True)
    assert all(head.startswith(metric) for head, metric in named), heads
    for system, *cells in rows:
        mine = {
            each.metric: f"{each.value:.3f} ({each.low:.3f}–{each.high:.3f})"
            for each in records
            if (each.system, each.judge) == (system, "exact")
        }
        assert cells[:-1] == [mine.get(metric, "–") for metric in METRICS]


# --- RAGChecker's program -------------------------------------------------------------


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_exploits_are_read_and_never_run(exploit: str) -> None:
    assert read_claims(exploit) is None
    assert read_labels(exploit, 1) == [None]
    harmless(cleaned(exploit)[0])
    assert not Path("ran").exists()


def harmless(text: str) -> list[tuple[str, ...]]:
    """Assert that whatever part of each line a program may evaluate is three texts, if anything."""
    found = []
    for line in text.split("\n") if text else []:
        assert (line.count("("), line.count(")"), line.count('"'), "'" in line) == (1, 1, 6, False)
        claim = ast.literal_eval(line)
        assert list(map(type, claim)) == [str] * 3
        found.append(claim)
    return found


def test_cleaned_claims_are_what_was_written() -> None:
    lines = (
        'Here:\n1. ("it", "is", "so") and',
        """('a "b"', 'c\\'d', "e (f) \\\\ 東京 🦉 \u2028")\n("x", "y")""",
    )
    reply = " ".join(lines)
    text, unread = cleaned(reply)
    assert harmless(text) == [("it", "is", "so"), ('a "b"', "c'd", "e (f) \\ 東京 🦉 \u2028")]
    assert unread
    assert cleaned("NONE") == ("", False)


def test_whatever_a_model_writes_is_harmless_when_cleaned() -> None:
    rng = random.Random(3)
    pieces = ["\\\\", '\\"', "'", "('", "', '", "')", "(", ")", "+", "\r", "#", "a", "\0", "\ud800"]
    claims = 0
    for _ in range(2000):
        texts = ("".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(3))
        claims += len(harmless(cleaned('x ("{}", "{}", "{}")'.format(*texts))[0]))
    assert claims > 1000

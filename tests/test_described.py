"""A folder of jsonl and a YAML file are a task: no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import api, registry
from harness.canonical import read_about, read_gold
from harness.cli import main
from harness.data import HarnessError
from harness.prepare import prepare, prepared
from harness.spelling import parse_spelled

CORPUS = [("a", "Alpha", "The alpha is red."), ("b", "Beta", "The beta is blue.")]
QUESTIONS = [("1", "What is red?", "alpha", "x"), ("2", "What is blue?", "beta", "x")]


def lines(path: str, rows: list[Any]) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def beir() -> None:
    lines("d/corpus.jsonl", [{"_id": i, "title": t, "text": x} for i, t, x in CORPUS])
    lines(
        "d/queries.jsonl",
        [{"_id": i, "text": t, "answers": [a], "topic": g} for i, t, a, g in QUESTIONS],
    )
    Path("d/qrels").mkdir()
    Path("d/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n2\tb\t1\n")


def flashrag() -> None:
    lines("d/corpus.jsonl", [{"id": i, "contents": f'"{t}"\n{x}'} for i, t, x in CORPUS])
    rows = [
        {"id": i, "question": t, "golden_answers": [a], "metadata": {"topic": g}}
        for i, t, a, g in QUESTIONS
    ]
    lines("d/test.jsonl", rows)


def jsonl() -> None:
    rows = [
        {"id": i, "question": t, "answers": [a], "topic": g,
         "passages": [{"title": y, "text": x, "relevant": y.lower() == a} for _, y, x in CORPUS]}
        for i, t, a, g in QUESTIONS
    ]  # fmt: skip
    lines("d/test.jsonl", rows)


def described(**keys: Any) -> str:
    told = {"name": "things", "format": "beir", "path": "d", **keys}
    Path("task.yaml").write_text(yaml.safe_dump({k: v for k, v in told.items() if v is not None}))
    return "task.yaml"


@pytest.mark.parametrize(
    ("shape", "group", "settings"),
    [
        (beir, "topic", ("corpus",)),
        (flashrag, "metadata.topic", ("corpus",)),
        (jsonl, "topic", ("pool", "corpus")),
    ],
)
def test_each_format_gives_questions_documents_answers_and_groups(shape, group, settings) -> None:
    shape()
    name = described(format=shape.__name__, group=group, metrics=["F1", "nDCG@10"], licence="L")
    folder = prepare(name)
    about, golds = read_about(folder), read_gold(folder)
    assert (about["questions"], about["documents"], about["licence"]) == (2, 2, "L")
    assert {gold.answers for gold in golds.values()} == {("alpha",), ("beta",)}
    assert {gold.group for gold in golds.values()} == {"x"}
    assert registry.task(parse_spelled(name)).settings == settings
    judged = {max(gold.relevance.values(), default=0) for gold in golds.values()}
    assert judged == {"beir": {1, 2}, "flashrag": {0}, "jsonl": {1}}[shape.__name__]
    run = api.score(api.run([name], ["bm25"], setting=settings[-1]))
    cells = {cell.metric: cell for cell in api.records(run)}
    assert cells.keys() == (set() if shape is flashrag else {"nDCG@10"})
    assert all((cell.value, cell.n, cell.groups) == (1.0, 2, 1) for cell in cells.values())


def test_answers_are_scored_by_squads_rules_and_only_as_described() -> None:
    beir()
    Path("p.json").write_text(json.dumps({"1": "The Alpha!", "2": "beta gamma"}))
    run = api.score(api.run([described(metrics=["F1"])], ["predictions:p.json"]))
    (cell,) = api.records(run)
    assert (cell.metric, cell.value, cell.groups) == ("F1", (1 + 2 / 3) / 2, 2)


def test_systems_see_no_gold_and_a_changed_file_or_description_is_prepared_again() -> None:
    beir()
    spelled = parse_spelled(described())
    task = registry.task(spelled)
    first = prepared(spelled, task, "test")
    assert prepared(spelled, registry.task(spelled), "test") == first
    asked = [json.loads(line) for line in (first / "queries.jsonl").read_text().splitlines()]
    assert [each.keys() for each in asked] == [{"id", "text"}] * 2
    (documents,) = Path("data/corpora").glob("*/documents.jsonl")
    told = [json.loads(line) for line in documents.read_text().splitlines()]
    assert [each.keys() for each in told] == [{"id", "title", "text"}] * 2
    lines("d/queries.jsonl", [{"_id": "1", "text": "What is red?", "answers": ["the alpha"]}])
    Path("d/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n")
    second = prepared(spelled, registry.task(spelled), "test")
    described(rel=2)
    third = prepared(spelled, registry.task(spelled), "test")
    assert len({first, second, third}) == 3
    assert read_about(third)["files"].keys() == {
        "task.yaml",
        "corpus.jsonl",
        "queries.jsonl",
        "test.tsv",
    }


def test_its_path_is_seen_from_the_file_and_its_spelling_reads_back() -> None:
    Path("far").mkdir()
    beir()
    Path("d").rename("far/d")
    Path(described()).rename("far/task.yml")
    spelled = parse_spelled("far/task.yml")
    assert str(spelled) == "yaml:far/task.yml"
    assert parse_spelled(str(spelled)) == spelled
    assert main(["run", "--task", "far/task.yml", "--system", "bm25"]) == 0


def test_rankings_without_judgements_are_an_error_or_a_note(capsys) -> None:
    beir()
    Path("d/qrels/test.tsv").unlink()
    assert main(["prepare", described(metrics=["F1", "R@3"])]) == 2
    told = capsys.readouterr().err
    assert "there is no d/qrels/test.tsv, by which R@3 would be scored." in told
    assert "take these metrics out of task.yaml" in told and told.count("\n") == 1
    for metrics in (None, ["F1"]):
        folder = prepare(described(metrics=metrics))
        none = {"questions, none with a passage of grade 1 or more": 2} if metrics is None else {}
        assert read_about(folder)["notes"] == none
    lines("d/queries.jsonl", [{"_id": "1", "text": "What is red?"}])
    for task in (described(), "jsonl:d"):
        with pytest.raises(HarnessError, match=r"no d/qrels/test\.tsv, and no query has answers"):
            prepare(task)


def test_grades_that_all_stay_below_what_counts_are_a_note() -> None:
    beir()
    assert read_about(prepare(described(rel=2)))["notes"] == {}
    note = {"questions, none with a passage of grade 3 or more": 2}
    assert read_about(prepare(described(rel=3)))["notes"] == note


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"nam": "x"}, "task.yaml has the key 'nam', which nothing reads. Did you mean 'name'?"),
        ({"name": None}, "task.yaml has no 'name'."),
        ({"format": "beer"}, "task.yaml: format is 'beer'. Write 'beir', 'flashrag' or"),
        ({"metrics": ["nDCG@10", "nDGC@5"]}, "no ranking metric 'nDGC@5'. Did you mean"),
        ({"metrics": ["EN"]}, "Of answers: EM, F1."),
        ({"metrics": ["Acc"]}, "Acc is no metric of a task."),
        ({"metrics": []}, "task.yaml: metrics is []. Name at least one: metrics: [ONE, TWO]."),
        ({"metrics": "EM"}, "task.yaml: metrics is 'EM'. Write a list: metrics: [EM]."),
        ({"metrics": [3]}, "task.yaml: entry 1 of metrics is 3. Write text, in quotes if"),
        ({"metrics": {"EM": 1}}, "task.yaml: metrics is {'EM': 1}. Write a list: metrics: [ONE"),
        ({"splits": ["test", None]}, "task.yaml: entry 2 of splits is empty. Write text,"),
        ({"name": ""}, "task.yaml: name is ''. Write name: TEXT."),
        ({"path": 3}, "task.yaml: path is 3. Write a path."),
        ({"missing": False}, "task.yaml: missing is False. Write 'error' or 'keep'."),
        ({"max_new_tokens": "few"}, "max_new_tokens is 'few'. Write a whole number."),
        ({"setting": "pool"}, "bring no candidates"),
        ({"setting": "open"}, "task.yaml: setting is 'open'. Write 'pool' or 'corpus'."),
        ({"path": "e"}, "e is not a folder. Mend path in task.yaml."),
        ({"prefix": "x."}, "d has no x.corpus.jsonl and x.queries.jsonl"),
        ({"splits": ["dev"]}, "d has no qrels/dev.tsv; there is test.tsv"),
        ({"format": "jsonl", "splits": ["dev"]}, "d has no dev.jsonl[.gz]. Mend"),
        ({"group": "tropic"}, "d/queries.jsonl:1: no key 'tropic'"),
        ({"rel": 0}, "task.yaml: rel is 0. Write a whole number from 1."),
    ],
)  # fmt: skip
def test_a_mistake_in_the_description_is_one_sentence(keys, said, capsys) -> None:
    beir()
    assert main(["run", "--task", described(**keys), "--system", "bm25"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [x", "task.yaml:1: not valid YAML"),
        ("name: x\nname: y\n", "task.yaml:2: not valid YAML (the key 'name' stands twice)"),
        ("name: !!python/object/apply:os.system [touch ran]\n", "task.yaml:1: not valid YAML"),
        ("", "task.yaml has no keys"),
        ("- x\n", "task.yaml has no keys"),
        ("name: x\nformat: beir\n3: 4\n", "task.yaml: nothing reads '3'. Keys: name, format"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_and_nothing_of_it_is_run(text, said) -> None:
    Path("task.yaml").write_text(text)
    with pytest.raises(HarnessError) as error:
        registry.task(parse_spelled("task.yaml"))
    assert said in str(error.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "not valid JSON"),
        ({}, "no key 'passages'"),
        ({"question": 5, "passages": []}, "'question' is of type int"),
        ({"passages": [{}]}, "a passage: no key 'text'"),
        ({"passages": [{"text": "t", "relevant": "yes"}]}, "a passage: 'relevant' is of type str"),
        ({"passages": [], "answers": "a"}, "'answers' is of type str"),
        ({"passages": [], "id": "1"}, "the id '1' stands at d/test.jsonl:1 with another"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(row, said) -> None:
    jsonl()
    first = Path("d/test.jsonl").read_text().splitlines()[0]
    whole = {"id": "2", "question": "q"}
    text = row if isinstance(row, str) else json.dumps(whole | row)
    Path("d/test.jsonl").write_text(f"{first}\n{text}\n")
    with pytest.raises(HarnessError) as error:
        prepare(described(format="jsonl"))
    assert str(error.value).startswith("d/test.jsonl:2: ")
    assert said in str(error.value)
    assert not list(Path("data").glob(".preparing-*"))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import HarnessError
from harness.spelling import Pipeline, Spelled, Stage, parse_pipeline, parse_spelled, with_options

names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True)
values = st.text(min_size=1, max_size=12)
options = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), values, max_size=3)
spelled = st.builds(lambda n, o: Spelled(n, tuple(sorted(o.items()))), names, options)
stages = st.builds(Stage, spelled, st.none() | st.integers(1, 9999))
pipelines = st.builds(lambda s: Pipeline(tuple(s)), st.lists(stages, min_size=1, max_size=3))


@given(pipelines)
def test_a_pipeline_reads_back_from_its_spelling(pipeline: Pipeline) -> None:
    assert parse_pipeline(str(pipeline)) == pipeline


@given(spelled)
def test_a_task_reads_back_from_its_spelling(task: Spelled) -> None:
    assert parse_spelled(str(task)) == task


def test_the_spelling_of_the_readme() -> None:
    pipeline = parse_pipeline("bm25@100+rico:steps=1@10+reader:model=Qwen/Qwen2.5-1.5B@5")
    assert [stage.depth for stage in pipeline.stages] == [100, 10, 5]
    assert pipeline.stages[2].system.options == (("model", "Qwen/Qwen2.5-1.5B"),)


def test_the_first_value_may_stand_without_a_name() -> None:
    assert parse_spelled("jsonl:../some/folder").options == (("", "../some/folder"),)


def test_options_in_another_order_are_the_same_pipeline() -> None:
    typed, other = parse_pipeline("bm25:k1=1,b=0+e5@3"), parse_pipeline("bm25:b=0,k1=1+e5@3")
    assert typed.canonical == other.canonical
    assert str(typed) == "bm25:k1=1,b=0+e5@3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "bm25+",
        "BM25",
        "bm25:",
        "bm25:k1=",
        "bm25:k1=1,k1=2",
        "bm25:k1=1,b",
        ":x",
    ],
)
def test_what_is_not_a_pipeline_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(HarnessError) as error:
        parse_pipeline(text)
    assert len(error.value.sentences) == 1
    assert error.value.hint


def test_an_option_set_everywhere_reaches_each_stage_of_that_name() -> None:
    pipeline = with_options(parse_pipeline("bm25@9+reader:model=a"), {"reader": {"model": "b"}})
    assert str(pipeline) == "bm25@9+reader:model=b"

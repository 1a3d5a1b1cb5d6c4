"""Whether an official script takes a prediction file, and what of it it would silently score 0.

The script's own scorer decides: it is run over gold that need not say anything (`golds.BLANK`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.canonical import Named
from harness.data import UNANSWERABLE
from harness.score import official
from harness.score.golds import BLANK, SHAPES, Known
from harness.score.msmarco import compare, msmarco_passage

Ids = Callable[[Any], Mapping[str, Iterable[Any]]]
"""Parsed file → its question ids, or keys, by the part of it that has them ("": the whole)."""


def _parts(*names: str) -> Ids:
    """Sections by their name; one that is empty is one that a system does not give."""
    return lambda found: {name: found[name] for name in names if found[name] or name == "answer"}


def _rows_by(key: str) -> Ids:
    return lambda rows: {"": [row[key] for row in rows]}


def _queries(lines: Sequence[str]) -> Mapping[str, Iterable[Any]]:
    return {"": (str(int(line.strip().split("\t")[0])) for line in lines)}


def _whole(found: Mapping[str, Any]) -> Mapping[str, Iterable[Any]]:
    return {"": found}


class Check(NamedTuple):
    """How a file is checked: what refuses it, given the parsed file and what `SHAPES` gives; and
    the ids in it."""

    refuse: Callable[..., Any]
    ids: Ids


CHECKS: dict[str, Check] = {
    "hotpotqa": Check(official.hotpotqa, _parts("answer", "sp")),
    "2wikimultihopqa": Check(official.wiki2multihopqa, _parts("answer", "sp", "evidence")),
    "musique": Check(official.musique, _rows_by("id")),
    "triviaqa": Check(official.triviaqa, _whole),
    "msmarco-passage": Check(msmarco_passage, _queries),
    "msmarco-qa": Check(compare, _rows_by("query_id")),
    "trec": Check(lambda *_: None, _whole),
}


def validate(fmt: str, path: Path, gold: Sequence[Any] | None = None) -> list[str]:
    """Read a file back; what of it its official script would silently score 0, a sentence each.

    gold: what `SHAPES` gives for the questions that the file should answer, blank or not; None:
          they are those that it answers
    Raises `HarnessError` for a file that the script would refuse.
    """
    prediction = official.BENCHMARKS[fmt][1](path)
    expected = SHAPES[fmt](_own(fmt, prediction)) if gold is None else gold
    CHECKS[fmt].refuse(prediction, *expected)
    return warnings(fmt, prediction, expected[0])


def warnings(fmt: str, prediction: Any, gold: Any) -> list[str]:
    """The same of a parsed file that is not refused; none for a benchmark without `CHECKS`."""
    if fmt not in CHECKS:
        return []
    wanted = _wanted(fmt, gold)
    return [*_ids(fmt, prediction, wanted), *_values(fmt, prediction, wanted)]


def _own(fmt: str, prediction: Any) -> Known:
    """The questions that a file answers, known by nothing but their ids; of two rows with one id
    the second is taken for the unanswerable twin."""
    try:
        ids = [str(each) for part in CHECKS[fmt].ids(prediction).values() for each in part]
    except (AttributeError, KeyError, TypeError, ValueError):
        ids = ["?"]  # the check says what is wrong with the file
    if fmt == "musique":
        first = {each: n for n, each in reversed(list(enumerate(ids)))}
        ids = [f"{each}{UNANSWERABLE}" if n > first[each] else each for n, each in enumerate(ids)]
    named = (Named(each, each, (("0", "0"),)) for each in dict.fromkeys(ids))
    return Known(tuple((each, BLANK) for each in named), {})


def _wanted(fmt: str, gold: Any) -> dict[str, None]:
    """The ids, or keys, that the official script looks up."""
    if fmt == "triviaqa":
        return dict.fromkeys(official.triviaqa_keys(gold))
    if fmt == "msmarco-passage":
        return dict.fromkeys(_queries(gold)[""])
    key = {"musique": "id", "msmarco-qa": "query_id", "trec": ""}.get(fmt, "_id")
    return dict.fromkeys(str(row[key]) if key else row for row in gold)


def _ids(fmt: str, prediction: Any, wanted: Mapping[str, None]) -> Iterator[str]:
    """Of ids that are missing, and of those that nobody asks for."""
    places: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for part, found in CHECKS[fmt].ids(prediction).items():
        there = dict.fromkeys(map(str, found))
        missing = tuple(each for each in wanted if each not in there)
        extra = tuple(each for each in there if each not in wanted)
        places.setdefault((missing, extra), []).append(repr(part) if part else "the file")
    for (missing, extra), parts in places.items():
        where = " and ".join(parts)
        if fmt == "triviaqa" and extra and len(missing) == len(wanted):
            style = "<question id>--<file name>" if "--" in missing[0] else "question ids"
            yield f"no key of {where} is asked, all score 0: the data's keys are {style}"
            continue
        if missing:
            yield f"{len(missing)} of {len(wanted)} ids score 0, not in {where} ({missing[0]} …)"
        if extra:
            yield f"{len(extra)} ids in {where} are not asked and count nothing ({extra[0]} …)"


def _values(fmt: str, prediction: Any, wanted: Mapping[str, None]) -> Iterator[str]:
    """Of values that the script takes and that can never be right."""
    if fmt in ("hotpotqa", "2wikimultihopqa"):
        asked = (tuple(fact) for id_ in wanted for fact in prediction["sp"].get(id_, ()))
        wrong = sum(len(fact) != 2 or isinstance(fact[1], str) for fact in asked)
        if wrong:
            yield f"{wrong} supporting facts are not [title, number] and never match"
    if fmt == "musique":
        wrong = sum(row["predicted_answerable"] not in (0, 1) for row in prediction)
        if wrong:
            yield f"{wrong} values of predicted_answerable are neither true nor false"

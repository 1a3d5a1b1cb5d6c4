"""Gold where a system could read it: in what a pipeline was told.

Checked are the options of every stage, --set, the typed command and the texts of submission.json:
for the names of the files that hold gold, for ids of questions or relevant documents, and for
accepted answers, of which several that stand in one option or word, or many in all options of a
pipeline or all words of a command, are no accident. What a checkpoint or a
file from outside holds cannot be seen; files from outside are told as a notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.data import Gold, HarnessError
from harness.score.normalise import squad_normal
from harness.spelling import parse_pipeline
from harness.verify.findings import Findings

FILES = re.compile(r"gold\.jsonl|native\.jsonl|qrels|golden_answers", re.IGNORECASE)
"""Files that say what is right, ours and those of the usual data sets."""
HEX = re.compile(r"[0-9a-f]{16}(?:-\d{6,})?")
SHORT, SEVERAL, MANY = 4, 3, 12
"""An answer of fewer characters says nothing; so many in an option are a list of answers; and so
many in a longer text."""
LONG = 5_000
"""Characters of an option or a word that are a file in disguise."""


def told(about: Mapping[str, Any], submission: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(place, text, how many answers in it are too many) of all that was told to a pipeline."""
    spelled = {entry[name] for entry in about["pipelines"] for name in ("task", "system")}
    for entry in about["pipelines"]:
        try:
            stages = parse_pipeline(entry["system"]).stages
        except HarnessError:
            continue
        options = [option for stage in stages for option in stage.system.options]
        for option, value in options:
            yield f"option {option or 'without a name'}", value, SEVERAL
        yield "the options of a pipeline", _joined(each for pair in options for each in pair), MANY
    for session in about["sessions"]:
        command = session["command"]
        words = list(_texts([command["argv"], command["overrides"], command["systems"]]))
        for word in words:
            yield "a typed command", word, SEVERAL
        rest = (word for word in words if not word.startswith("-") and word not in spelled)
        yield "the words of a command", _joined(rest), MANY
    for name, value in submission.items():
        for text in _texts(value):
            yield f"submission.json, {name}", text, MANY


def check(
    about: Mapping[str, Any],
    submission: Mapping[str, Any],
    golds: Iterable[Mapping[str, Gold]],
    found: Findings,
) -> None:
    """Note every text that holds gold of the questions that were asked."""
    told_ids: set[str] = set()
    answers: set[str] = set()
    for each in golds:
        told_ids |= each.keys()
        for gold in each.values():
            told_ids |= {doc_id for doc_id, grade in gold.relevance.items() if grade > 0}
            answers |= {normal for a in gold.answers if len(normal := squad_normal(a)) >= SHORT}
    longest = max((len(answer.split()) for answer in answers), default=0)
    for place, text, many in told(about, submission):
        if len(text) > LONG:
            found.add("gold", place, f"it has {len(text)} characters, as a list of answers would.")
        elif named := FILES.search(text):
            found.add("gold", place, f"it names {named[0]}, where gold is.")
        elif ids := told_ids.intersection(HEX.findall(text)):
            found.add("gold", place, f"it holds {min(ids)}, a question or a relevant document.")
        elif len(held := _held(text, answers, longest)) >= many:
            found.add("gold", place, f"it holds {len(held)} accepted answers, such as {min(held)}.")


def _held(text: str, answers: set[str], longest: int) -> set[str]:
    """The answers that stand in a text as whole words."""
    words = squad_normal(re.sub(r"[^\w\s'.-]", " ", text)).split()
    sizes = range(1, min(longest, len(words)) + 1)
    spans = (" ".join(words[n : n + size]) for size in sizes for n in range(len(words)))
    return answers.intersection(spans)


def _joined(words: Iterable[str]) -> str:
    """Words as one text, in which no two make an answer together."""
    return " \x1f ".join(words)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)

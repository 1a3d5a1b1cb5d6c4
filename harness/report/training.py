"""Which data sets are meant by what a submitter says of training, and whether a task is of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from harness.spelling import parse_spelled

ALIASES = {
    "hotpotqa": ("hotpotqa", "hotpot"),
    "musique": ("musique", "musiqueans", "musiquefull"),
    "2wikimultihopqa": ("2wikimultihopqa", "2wikimultihop", "2wikimqa", "2wikiqa", "2wiki"),
    "triviaqa": ("triviaqa",),
    "msmarco": (
        "msmarco",
        "mmarco",
        "marco",
        "microsoftmarco",
        "microsoftmachinereadingcomprehension",
        "trecdl",
        "trecdeeplearning",
    ),
}
"""Names of the data sets of the tasks, in small letters and digits alone; MS MARCO's passages are
those of TREC's deep-learning tracks, too."""
WORDS = 4
"""Of the longest alias, when it is written apart."""


def not_zero_shot(training: Sequence[str], task: str) -> bool:
    """Whether a data set that the submitter names is the one that a task asks about.

    Whole names are compared, however they are written: "Hotpot QA (train)" and "hotpotqa_v1.1" are
    that of hotpotqa, "MiniLM" is not the mini world. A task without an entry in `ALIASES` is known
    by its own name; a folder (``jsonl:DIR``) by that of the folder.
    """
    own = _names(task)
    return any(name in own for said in training for name in _said(said))


def _names(task: str) -> set[str]:
    """What the data set of a task is called."""
    spelled = parse_spelled(task)
    if spelled.name.startswith("mini-"):
        sets = (alias for aliases in ALIASES.values() for alias in aliases)
        return {"mini", *(f"mini{each}" for each in ("world", "worlds", "tasks", "forms", *sets))}
    folder = dict(spelled.options).get("") if spelled.name == "jsonl" else None
    name = PurePath(folder).name if folder else spelled.name
    whole, first = _joined(_words(name)), name.partition("-")[0].lower()
    return {whole, *ALIASES.get(first, ALIASES.get(whole, ()))}


def _said(text: str) -> Iterator[str]:
    """The names that may stand in a text: some words of it, with and without a version behind.
    Behind "mini" a data set's name is another one; "mini" alone is one only if nothing else is
    said."""
    words = _words(text)
    for start in range(len(words)):
        if start and words[start - 1] == "mini":
            continue
        for end in range(start + 1, min(start + WORDS, len(words)) + 1):
            name = _joined(words[start:end])
            if name != "mini" or len(words) == 1:
                yield name
                yield re.sub(r"v?\d+$", "", name)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _joined(words: Sequence[str]) -> str:
    return "".join(words)

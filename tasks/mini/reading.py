"""Reads sentences of the mini world back into facts, with its wordings alone: an exact judge.

It needs nothing but text. A later sentence that calls its subject by less than its name ("the
film", a surname) speaks of the subject before. Sentences of no known wording state nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from tasks.mini import words
from tasks.mini.words import RELATIONS
from tasks.mini.world import LITERALS

ALIAS = "alias"
"""The relation between a name and a nickname."""
_NAME = "[A-Z][a-z]+"
_YEAR = r"\d{4}"
_MENTIONS = {
    # kind: (how it is named in full, the words before the name aside; what less is said of it)
    "person": (f"{_NAME} {_NAME}", _NAME),
    "work": (f"(?:[Tt]he (?:{'|'.join(words.WORKS)}) )?The {_NAME} {_NAME}", "[Tt]he [a-z]+"),
    "organisation": (
        f"[Tt]he {_NAME} (?:{'|'.join(each.capitalize() for each in words.ORGANISATIONS)})",
        "[Tt]he [a-z]+",
    ),
    "city": (f"(?:[Tt]he city of )?{_NAME}", "[Tt]he city"),
    "country": (_NAME, ""),
    "river": (_NAME, ""),
    **{kind: ("|".join(found), "") for kind, found in LITERALS.items()},
}


class Statement(NamedTuple):
    """A fact in names; that of a nickname has the relation `ALIAS`."""

    subject: str
    relation: str
    object: str


@cache
def _patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """(relation, kind of the subject, pattern) of each wording of every profile."""
    called = [re.escape(each.rstrip(",")) for each in (words.ALIASED, words.SHIFTED_ALIASED)]
    alias = "|".join(each.replace(r"\{a\}", f"(?P<a{n}>{_NAME})") for n, each in enumerate(called))
    found = []
    for relation, wordings in RELATIONS.items():
        full, short = _MENTIONS[wordings.subject]
        subject = f"(?:(?P<s>{full})|(?P<short>{short}))(?:(?:{alias}),?)?"
        slots = {"s": subject, "o": f"(?P<o>{_MENTIONS[wordings.object][0]})"}
        told = wordings.told + wordings.turned + wordings.shifted_told + wordings.shifted_turned
        for each in dict.fromkeys(told):
            found.append((relation, wordings.subject, _pattern(each, slots)))
    for wording in (words.KNOWN_AS, words.SHIFTED_KNOWN_AS):
        for kind in ("person", "work", "city"):
            slots = {"s": f"(?P<s>{_MENTIONS[kind][0]})", "a": f"(?P<o>{_NAME})"}
            found.append((ALIAS, kind, _pattern(wording, slots)))
    return found


def _pattern(wording: str, slots: dict[str, str]) -> re.Pattern[str]:
    """A wording as a pattern; it begins with a capital letter in a sentence."""
    if not wording.startswith("{"):
        wording = wording[0].upper() + wording[1:]
    parts = re.split(r"\{(\w)\}", wording)
    return re.compile(
        "".join(slots[each] if n % 2 else re.escape(each) for n, each in enumerate(parts)) + r"\."
    )


def statements(text: str) -> list[list[Statement]]:
    """What each sentence of a text states: nothing, a fact, or a fact and a nickname."""
    found, subjects = [], dict[str, str]()
    for sentence in sentences(text):
        found.append(list(dict.fromkeys(_read(sentence, subjects))))
    return found


def sentences(text: str) -> list[str]:
    """A text cut behind each full stop."""
    return re.split(r"(?<=\.) ", text)


def _read(sentence: str, subjects: dict[str, str]) -> Iterator[Statement]:
    """``subjects``: who was spoken of last, by kind; brought up to date."""
    for relation, kind, pattern in _patterns():
        if not (match := pattern.fullmatch(sentence)):
            continue
        groups = match.groupdict()
        subject = _bare(groups["s"], kind) if groups["s"] else subjects.get(kind, "")
        short = groups.get("short")
        if short and not _fits(short, kind, subject):
            continue
        subjects[kind] = subject
        found = groups["o"] if relation == ALIAS else _bare(groups["o"], RELATIONS[relation].object)
        yield Statement(subject, relation, found)
        for alias in filter(None, (groups.get("a0"), groups.get("a1"))):
            yield Statement(subject, ALIAS, alias)


def _bare(mention: str, kind: str) -> str:
    """The name in a mention."""
    if kind == "work":
        return mention[mention.index("The ", 1) :] if " The " in mention else mention
    if kind == "organisation":
        return mention[len("the ") :]
    return mention.split()[-1] if kind == "city" else mention


def _fits(short: str, kind: str, subject: str) -> bool:
    """Whether what less was said can mean that subject."""
    if kind == "person":
        return bool(subject) and subject.split()[1] == short
    return bool(subject)


def entails(texts: Iterable[str], subject: str, relation: str, found: str) -> bool:
    """Whether one of the texts states the fact; the subject may go by a nickname that the same
    text gives."""
    for text in texts:
        stated = {each for sentence in statements(text) for each in sentence}
        names = {subject, *(name for name, by, alias in stated if (by, alias) == (ALIAS, subject))}
        if any(Statement(name, relation, found) in stated for name in names):
            return True
    return False

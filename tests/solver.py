"""Answers the questions of the train split from texts, by their words alone: needs no world."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.mini import words
from tasks.mini.reading import ALIAS, statements

KINDS = "|".join((*words.WORKS, *words.WORKS.values()))
CHAINS = (*words.FRAMES, words.WHO)
COMPARISONS = (*words.WHICH, *words.WHO_OF)


def matched(template: str, text: str) -> dict[str, str]:
    """What stands in the slots of a template; nothing if the text is no such one."""
    pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>.+)", re.escape(template))
    found = re.fullmatch(pattern, text)
    return found.groupdict() if found else {}


def bare(mention: str) -> str:
    """The name in a mention."""
    return re.sub(rf"^the ((?:{KINDS}) )?", "", mention)


class Solver:
    """Knows what some texts state."""

    def __init__(self, texts: Iterable[str]) -> None:
        stated = {each for text in texts for sentence in statements(text) for each in sentence}
        self.names = {alias: name for name, relation, alias in stated if relation == ALIAS}
        self.objects = {(s, relation): o for s, relation, o in stated if relation != ALIAS}

    def solved(self, question: str) -> tuple[str, str | None]:
        """The kind of a question and its answer; None if the texts do not give it."""
        for frame in CHAINS:
            if slots := matched(frame, question):
                hops, found = self._noun(slots["n"])
                return ("", "single", "bridge", "composed", "composed")[hops], found
        for relation, frames in words.SAME.items():
            for frame in frames:
                if slots := matched(frame, question):
                    one, other = (self._of(slots[each], relation) for each in "ab")
                    return "yesno", one and other and ("yes" if one == other else "no")
        for relation, (predicate, asked) in words.PREDICATES.items():
            if slots := matched(asked, question):
                found = self._of(slots["s"], relation)
                return "check", found and ("yes" if found == bare(slots["o"]) else "no")
            for frame in COMPARISONS:
                if slots := matched(frame.replace("{p}", predicate), question):
                    return "comparison", self._which(slots, relation)
        raise AssertionError(f"no question of train: {question}")

    def _noun(self, noun: str) -> tuple[int, str | None]:
        """How many relations a noun phrase has, and what it means."""
        for relation, wordings in words.RELATIONS.items():
            for asked in wordings.asked:
                if slots := matched(asked, noun):
                    hops, subject = self._noun(slots["s"])
                    return hops + 1, self._of(subject, relation)
        return 0, noun

    def _of(self, mention: str | None, relation: str) -> str | None:
        name = bare(mention or "")
        return self.objects.get((self.names.get(name, name), relation))

    def _which(self, slots: dict[str, str], relation: str) -> str | None:
        found = {bare(slots[each]): self._of(slots[each], relation) for each in "ab"}
        right = [name for name, each in found.items() if each == bare(slots["o"])]
        return right[0] if len(right) == 1 and None not in found.values() else None

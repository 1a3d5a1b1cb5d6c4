"""The exact judge of a mini world: claims are its facts, and a text entails what it states.

A sentence of the world's wordings claims what it states. Anything else is a short answer: a right
one claims every fact of the steps that lead to it, a wrong one claims a single false fact, namely
that what was asked for is that. No answer claims nothing.

What it does not do: judge paraphrases that no profile has; join two passages to entail a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from harness.data import Triple
from harness.score.msmarco import NO_ANSWER
from harness.score.normalise import squad_normal
from tasks.mini.questions import Question
from tasks.mini.reading import ALIAS, Statement, sentences, statements
from tasks.mini.world import Fact, World

CACHED = 10_000
"""Texts of which it is kept what they state."""


class MiniJudge:
    """``asked``: each question by its text, and the answers to it that count as right."""

    def __init__(self, world: World, asked: Mapping[str, tuple[Question, tuple[str, ...]]]) -> None:
        self.world, self.asked = world, asked
        self._stated = lru_cache(CACHED)(stated)

    def claims(self, question: str, text: str) -> list[Triple]:
        """What a text says as an answer to a question of the task, each fact once."""
        found: list[Triple] = []
        names = self._names(self.asked[question][0])
        for sentence, facts in zip(sentences(text), statements(text), strict=True):
            found += [_renamed(fact, names) for fact in facts] or self._short(question, sentence)
        return list(dict.fromkeys(found))

    def check(
        self, question: str, claims: Sequence[Triple], references: Sequence[str]
    ) -> list[list[bool]]:
        """Whether each text, as a passage or as an answer to the question, states each claim."""
        held = [self._stated(text).union(self.claims(question, text)) for text in references]
        return [[tuple(claim) in facts for claim in claims] for facts in held]

    def _short(self, question: str, answer: str) -> list[Triple]:
        """What an answer says that is no sentence of the world."""
        said = squad_normal(answer)
        if said in ("", squad_normal(NO_ANSWER)):
            return []
        one, right = self.asked[question]
        if not one.steps:
            return [(question, one.kind, answer)]
        if said in map(squad_normal, right):
            return [self._named(step) for step in one.steps]
        if one.kind == "comparison":
            return [(answer, *self._named(one.steps[0])[1:])]
        subject, relation, found = self._named(one.steps[-1])
        return [(subject, relation, f"{found}: {answer}" if one.kind == "yesno" else answer)]

    def _named(self, fact: Fact) -> Triple:
        return self.world.name(fact.subject), fact.relation, self.world.name(fact.object)

    def _names(self, question: Question) -> dict[str, str]:
        """The names of what the steps of a question are about, by their nicknames."""
        about = [each for step in question.steps for each in (step.subject, step.object)]
        return {alias: self.world.name(each) for each in about if (alias := self.world.alias(each))}


def stated(text: str) -> frozenset[Triple]:
    """The facts that a text states, of what it gives a nickname under its name, too."""
    found = {each for line in text.splitlines() for some in statements(line) for each in some}
    names = {alias: name for name, relation, alias in found if relation == ALIAS}
    return frozenset(found).union(_renamed(each, names) for each in found)


def _renamed(fact: Statement, names: Mapping[str, str]) -> Triple:
    """A fact with names in the place of nicknames."""
    subject, relation, found = fact
    if relation == ALIAS:
        return subject, relation, found
    return names.get(subject, subject), relation, names.get(found, found)

"""Lessons for the models trained on the mini world: a few passages, and questions they answer.

The passages are the gold ones of a first question with mined or random ones of the same world;
the other questions are on any facts among them. A world that serves many lessons is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from harness.data import Document, Exercise, HarnessError, Lesson
from tasks.mini.mining import Index, held_by
from tasks.mini.questions import KINDS, Asker, Drawer, Question, allowed
from tasks.mini.words import PREDICATES, SAME
from tasks.mini.world import OF, Draws, Entity, Fact, Passage, World

DOCUMENTS = 300
"""Passages of a train world that lessons are drawn from."""


class Lessons:
    """Draws lessons from one world, which is written down once.

    exercises: questions of a lesson, at most; other facts are asked before other words
    mined:     share of the lessons whose other passages are BM25's for the first question
    """

    def __init__(self, world: World, exercises: int = 6, mined: float = 0.5) -> None:
        self.world, self.exercises, self.mined = world, exercises, round(100 * mined)
        self.drawer = Drawer(world)

    @cached_property
    def passages(self) -> list[Passage]:
        """Those that lessons may hold: none of the long ones."""
        return [self.world.passage(number) for number in range(self.world.asked)]

    @cached_property
    def index(self) -> Index:
        """BM25 over them."""
        return Index(self.passages)

    def lesson(self, draws: Draws, size: int, kinds: Mapping[str, float]) -> Lesson:
        """A lesson of ``size`` passages.

        kinds: how often each kind of question is asked, relative to each other
        """
        wrong = [kind for kind in kinds if kind not in KINDS]
        if wrong or not kinds or not 1 <= size <= self.world.asked:
            raise HarnessError(
                f"no lesson of {size} passages with questions {', '.join(wrong) or 'on them'}.",
                f"Kinds of questions: {', '.join(KINDS)}.",
            )
        first = self._first(draws, size, kinds)
        numbers = self._others(first, draws, size)
        group = _Group(self.world, [self.passages[each] for each in numbers])
        place = {passage: place for place, passage in enumerate(numbers)}
        asked, known = {first.text: _exercise(first, place)}, {first.steps}
        for turn in range(3 * self.exercises):
            if len(asked) >= self.exercises:
                break
            question = getattr(group, _drawn(kinds, draws))(draws) or group.single(draws)
            if question.steps not in known or turn > 2 * self.exercises:
                known |= {question.steps} if question.steps else set()
                asked.setdefault(question.text, _exercise(question, place))
        return Lesson(group.documents, list(asked.values()))

    def _first(self, draws: Draws, size: int, kinds: Mapping[str, float]) -> Question:
        """The question whose passages the lesson is sure to hold."""
        kind = _drawn(kinds, draws)
        while True:
            question = self.drawer.draw(kind, draws)
            if question and len(held_by(question)) <= size:
                return question
            kind = "single"

    def _others(self, first: Question, draws: Draws, size: int) -> list[int]:
        """The numbers of its passages and of others, in an order."""
        held = list(held_by(first))
        if draws.below(100) < self.mined:
            held += self.index.near(first, size - len(held))
        while len(held) < size:
            other = draws.below(len(self.passages))
            held += [] if other in held else [other]
        return draws.some(held, size)


def _drawn(kinds: Mapping[str, float], draws: Draws) -> str:
    """One of the kinds, by weight."""
    left = draws.below(2**32) / 2**32 * sum(kinds.values())
    for kind in kinds:
        left -= kinds[kind]
        if left < 0:
            break
    return kind


def _exercise(question: Question, place: Mapping[int, int]) -> Exercise:
    gold = tuple(place[each] for each in question.gold)
    return Exercise(question.text, question.answer, gold, question.kind)


class _Group:
    """Some passages, and questions on what they state; None where they state nothing fitting."""

    def __init__(self, world: World, passages: Sequence[Passage]) -> None:
        self.world, self.ask = world, Asker(world)
        self.documents = [Document("", passage.text, passage.title) for passage in passages]
        self.facts = [fact for passage in passages for fact in passage.facts if fact]
        self.about: dict[Entity, list[Fact]] = {}
        self.by: dict[str, list[Fact]] = {}
        for fact in self.facts:
            self.about.setdefault(fact.subject, []).append(fact)
            self.by.setdefault(fact.relation, []).append(fact)

    def single(self, draws: Draws) -> Question:
        return self.ask.chain([draws.pick(self.facts)], draws)

    def bridge(self, draws: Draws) -> Question | None:
        chains = self._chains(2)
        return self.ask.chain(draws.pick(chains), draws) if chains else None

    def composed(self, draws: Draws) -> Question | None:
        chains = self._chains(3) + self._chains(4)
        return self.ask.chain(draws.pick(chains), draws) if chains else None

    def comparison(self, draws: Draws) -> Question | None:
        pairs = [(a, b) for relation in PREDICATES for a, b in self._pairs(relation, False)]
        return self.ask.comparison(*draws.pick(pairs), draws) if pairs else None

    def yesno(self, draws: Draws) -> Question | None:
        """Only of passages that allow both answers: "no" would be the likelier one otherwise."""
        choices = [[pair for each in SAME for pair in self._pairs(each, same)] for same in (0, 1)]
        if not all(choices):
            return None
        return self.ask.yesno(*draws.pick(choices[draws.below(2)]), draws)

    def check(self, draws: Draws) -> Question | None:
        """A wrong object is often one of another subject in these passages."""
        stated = [fact for relation in PREDICATES for fact in self.by.get(relation, ())]
        if not stated:
            return None
        fact = draws.pick(stated)
        if draws.below(2):
            return self.ask.check(fact, fact.object, draws)
        others = [each.object for each in self.by[fact.relation] if each.object != fact.object]
        claimed = draws.pick(others) if others else fact.object
        while claimed == fact.object:
            claimed = self.world.object_of(fact.subject, fact.relation, draws)
        return self.ask.check(fact, claimed, draws)

    def unanswerable(self, draws: Draws) -> Question | None:
        """What these passages do not say of a subject of theirs."""
        subject = draws.pick(self.facts).subject
        told = {"spouse", *(fact.relation for fact in self.about[subject])}
        untold = [each for each in OF[subject.kind] if each not in told]
        return self.ask.unanswerable(subject, draws.pick(untold), draws) if untold else None

    def _chains(self, hops: int) -> list[list[Fact]]:
        """Facts that lead from one to the next, through different subjects."""
        chains = [[fact] for fact in self.facts]
        for _ in range(hops - 1):
            chains = [
                [*chain, fact]
                for chain in chains
                for fact in self.about.get(chain[-1].object, ())
                if allowed(self.world, chain[-1].relation, fact.relation)
                and fact.object not in {each.subject for each in chain}
            ]
        return chains

    def _pairs(self, relation: str, same: bool | int) -> list[tuple[Fact, Fact]]:
        """Facts of one relation on two subjects, with the same object or not."""
        facts = self.by.get(relation, [])
        return [
            (a, b)
            for a in facts
            for b in facts
            if a.subject != b.subject and (a.object == b.object) == bool(same)
        ]

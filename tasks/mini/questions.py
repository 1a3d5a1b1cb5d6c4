"""Questions on the mini world: how facts are asked for, and which facts are drawn to be asked.

single        the job of Ada Brun                    bridge     the river of the birthplace of …
composed      three or four relations in a row       comparison which of two is a painter
yesno         do two have the same job               check      was Ada Brun a painter
unanswerable  what no passage of the world states
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from harness.data import HarnessError
from tasks.mini import words
from tasks.mini.words import RELATIONS
from tasks.mini.world import LITERALS, OF, Draws, Entity, Fact, World

KINDS = ("single", "bridge", "composed", "comparison", "yesno", "check", "unanswerable")
TRIES = 300
"""How many entities are looked at for one that fits."""
PATIENCE = 1000
"""Draws without a new question after which a world has no more."""


@dataclass(frozen=True)
class Question:
    """A question and what it is made of.

    answer:  empty where there is none; ``aliases`` are accepted too
    steps:   the facts that give the answer, in order
    gold:    numbers of the passages that state them
    about:   numbers of passages on what it names, where nothing answers it
    mined:   the texts whose nearest passages are its distractors: its own, and the name of the
             subject of each further step of a chain, so that no gold passage stands out by being
             unlike the question
    """

    id: str
    kind: str
    text: str
    answer: str
    aliases: tuple[str, ...]
    steps: tuple[Fact, ...]
    gold: tuple[int, ...]
    about: tuple[int, ...] = ()
    mined: tuple[str, ...] = ()


class Asker:
    """Puts facts of one world into questions. Which facts: see `Drawer`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def mention(self, entity: Entity, draws: Draws) -> str:
        """How a question names something: in ``hard`` by its nickname if it has one."""
        alias, name = self.world.alias(entity), self.world.name(entity)
        if alias and (self.world.hard or draws.below(2)):
            return alias
        if entity.kind == "organisation":
            return f"the {name}"
        if entity.kind == "work" and (way := draws.below(3)):
            kind = self.world.work_kind(entity.number)
            return f"the {words.WORKS[kind] if way == 1 else kind} {name}"
        return name

    def chain(self, facts: Sequence[Fact], draws: Draws) -> Question:
        """Asks for the object of the last fact; each fact is about the object of the one before."""
        noun = self._noun(facts, draws)
        person = facts[-1].object.kind == "person"
        text = self._frame(person, draws).format(n=noun)
        kind = ("single", "bridge", "composed", "composed")[len(facts) - 1]
        made = self._question(kind, text, facts[-1].object, facts)
        further = (self.world.name(fact.subject) for fact in facts[1:])
        return replace(made, mined=(*made.mined, *further))

    def comparison(self, right: Fact, other: Fact, draws: Draws) -> Question:
        """Which of two subjects the first fact is true of; the second has another object. The
        answer is what the question calls it."""
        both = (right, other) if draws.below(2) else (other, right)
        a, b = (self.mention(fact.subject, draws) for fact in both)
        predicate = words.PREDICATES[right.relation][0].format(o=self._claimed(right.object))
        frames: Sequence[str] = words.SHIFTED_WHICH
        if not self.world.shift:
            frames = words.WHO_OF if right.subject.kind == "person" else words.WHICH
        text = draws.pick(frames).format(a=a, b=b, p=predicate)
        made = self._question("comparison", text, right.subject, (right, other))
        if made.aliases and made.aliases[0] in (a, b):
            return replace(made, answer=made.aliases[0], aliases=(made.answer,))
        return made

    def yesno(self, one: Fact, other: Fact, draws: Draws) -> Question:
        """Whether two facts of one relation have the same object."""
        frames = (words.SHIFTED_SAME if self.world.shift else words.SAME)[one.relation]
        a, b = (self.mention(fact.subject, draws) for fact in (one, other))
        text = draws.pick(frames).format(a=a, b=b)
        return self._question("yesno", text, one.object == other.object, (one, other))

    def check(self, fact: Fact, claimed: Entity, draws: Draws) -> Question:
        """Whether a fact has this object."""
        predicate, asked = words.PREDICATES[fact.relation]
        subject, found = self.mention(fact.subject, draws), self._claimed(claimed)
        if self.world.shift:
            text = words.SHIFTED_CHECK.format(s=subject, p=predicate.format(o=found))
        else:
            text = asked.format(s=subject, o=found)
        return self._question("check", text, claimed == fact.object, (fact,))

    def unanswerable(self, subject: Entity, relation: str, draws: Draws) -> Question:
        """Asks what nobody states."""
        fact = Fact(subject, relation, subject)
        noun = self._noun((fact,), draws)
        frame = self._frame(RELATIONS[relation].object == "person", draws)
        about = {self.world.told_in(each) for each in self.world.facts(subject)}
        return self._question("unanswerable", frame.format(n=noun), None, (), sorted(about))

    def _noun(self, facts: Sequence[Fact], draws: Draws) -> str:
        noun = self.mention(facts[0].subject, draws)
        for fact in facts:
            relation = RELATIONS[fact.relation]
            asked = relation.shifted_asked if self.world.shift else relation.asked
            noun = draws.pick(asked).format(s=noun)
        return noun

    def _frame(self, person: bool, draws: Draws) -> str:
        frames = words.SHIFTED_FRAMES if self.world.shift else words.FRAMES
        frame = draws.pick(frames)
        if person and frame == frames[0]:
            return words.SHIFTED_WHO if self.world.shift else words.WHO
        return frame

    def _claimed(self, found: Entity) -> str:
        name = self.world.name(found)
        return f"the {name}" if found.kind == "organisation" else name

    def _question(
        self,
        kind: str,
        text: str,
        answer: Entity | bool | None,
        steps: Sequence[Fact],
        about: Sequence[int] = (),
    ) -> Question:
        """``answer``: an entity, yes or no, or nothing."""
        world = self.world
        if isinstance(answer, Entity):
            said, alias = world.name(answer), world.alias(answer)
        else:
            said, alias = {True: "yes", False: "no", None: ""}[answer], ""
        text = text[0].upper() + text[1:]
        gold = tuple(dict.fromkeys(world.told_in(fact) for fact in steps))
        return Question(
            blake2b(f"{world.label}\0{text}".encode(), digest_size=8).hexdigest(),
            kind,
            text,
            said,
            (alias,) if alias else (),
            tuple(steps),
            gold,
            tuple(about),
            (text,),
        )


def allowed(world: World, first: str, second: str) -> bool:
    """Whether this world asks for the second relation of the object of the first."""
    return (second in words.UNSEEN.get(first, ())) == world.shift


class Drawer:
    """Draws questions from a whole world; each method gives None where it finds nothing."""

    def __init__(self, world: World) -> None:
        self.world, self.ask = world, Asker(world)

    def draw(self, kind: str, draws: Draws, names: bool = False) -> Question | None:
        """A question of that kind. ``names``: single ones only have names for answers."""
        if kind == "single":
            return self.chain(1, draws, names)
        if kind == "bridge":
            return self.chain(2, draws)
        if kind == "composed":
            return self.chain(3 + draws.below(2), draws)
        made: Question | None = getattr(self, kind)(draws)
        return made

    def chain(self, hops: int, draws: Draws, names: bool = False) -> Question | None:
        """A walk from fact to fact, from a random subject."""
        subject, steps = self._anything(draws), list[Fact]()
        met = {subject}
        for left in reversed(range(hops)):
            facts = [
                fact
                for fact in self.world.facts(subject)
                if fact.object not in met
                and (not steps or allowed(self.world, steps[-1].relation, fact.relation))
                and (fact.object.kind in OF if left else not names or _named(fact))
            ]
            if not facts:
                return None
            steps.append(draws.pick(facts))
            subject = steps[-1].object
            met.add(subject)
        return self.ask.chain(steps, draws)

    def comparison(self, draws: Draws) -> Question | None:
        """Two subjects of a relation, in ``hard`` with a name in common."""
        right = self._stating(draws.pick(tuple(words.PREDICATES)), draws)
        other = right and self._another(right, False, draws)
        return self.ask.comparison(right, other, draws) if right and other else None

    def yesno(self, draws: Draws) -> Question | None:
        """Two subjects of a relation, as likely with the same object as not."""
        one = self._stating(draws.pick(tuple(words.SAME)), draws)
        other = one and self._another(one, draws.below(2) == 1, draws)
        return self.ask.yesno(one, other, draws) if one and other else None

    def check(self, draws: Draws) -> Question | None:
        """A fact, as likely with its own object as with another."""
        fact = self._stating(draws.pick(tuple(words.PREDICATES)), draws)
        if fact is None:
            return None
        claimed, true = fact.object, draws.below(2) == 1
        while not true and claimed == fact.object:
            claimed = self.world.object_of(fact.subject, fact.relation, draws)
        return self.ask.check(fact, claimed, draws)

    def unanswerable(self, draws: Draws) -> Question | None:
        """A relation that is not told of its subject. (A marriage may be told of the other.)"""
        subject = self._anything(draws)
        told = {"spouse", *(fact.relation for fact in self.world.facts(subject))}
        untold = [each for each in OF[subject.kind] if each not in told]
        return self.ask.unanswerable(subject, draws.pick(untold), draws) if untold else None

    def _anything(self, draws: Draws) -> Entity:
        """The subject of a random passage."""
        return self.world.subject(draws.below(self.world.asked))

    def _stating(self, relation: str, draws: Draws) -> Fact | None:
        """A random fact of that relation."""
        kind = RELATIONS[relation].subject
        for _ in range(TRIES):
            subject = Entity(kind, draws.below(self.world.size[kind]))
            for fact in self.world.facts(subject):
                if fact.relation == relation:
                    return fact
        return None

    def _another(self, fact: Fact, same: bool, draws: Draws) -> Fact | None:
        """A fact of that relation on another subject, with the same object or with another."""
        kind = fact.subject.kind
        near = self.world.parts[kind] if self.world.hard and not same and kind == "person" else 0
        for turn in range(TRIES):
            index = draws.below(self.world.size[kind])
            if near and (turn + 1) * near < self.world.size[kind]:
                index = (fact.subject.number + (turn + 1) * near) % self.world.size[kind]
            for other in self.world.facts(Entity(kind, index)):
                fits = other.relation == fact.relation and other.subject != fact.subject
                if fits and (other.object == fact.object) == same:
                    return other
        return None


def _named(fact: Fact) -> bool:
    return fact.object.kind not in LITERALS


def questions(
    world: World, kinds: Sequence[str], count: int, about: str = "", names: bool = False
) -> Iterator[Question]:
    """``count`` distinct questions of the kinds in turn, drawn anew for each ``about``."""
    if count < 1:
        raise HarnessError(f"{count} questions are too few.", "Write questions=1 or more.")
    drawer, asked, vain = Drawer(world), set[str](), 0
    for number in itertools.count():
        kind = kinds[len(asked) % len(kinds)]
        question = drawer.draw(kind, world.draws(f"question {about} {kind} {number}"), names)
        vain += 1
        if question and question.text not in asked:
            asked.add(question.text)
            vain = 0
            yield question
        if len(asked) == count:
            return
        if vain > PATIENCE:
            raise HarnessError(
                f"a mini world of {world.documents} documents has no {count} such questions.",
                "Write fewer questions= or more documents=.",
            )

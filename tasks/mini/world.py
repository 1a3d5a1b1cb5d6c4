"""One invented world of 10² to 10⁶ passages, in which every fact is stated in exactly one of them.

Nothing is stored: an entity's name, facts, wording and passages are functions of (seed, split,
profile, its number), so a world of a million passages is read as a stream. Each choice is peeled
off a hash of what it is about; whole numbers only, so the bytes are the same everywhere.

    persons        four facts in two passages; each name shared with some near twins (``hard``:
                   six facts in three, more near twins)
    works, organisations, cities        two or three facts in one passage
    annals         long passages about minor persons who appear nowhere else and are never asked
                   about; one has 88,000 characters and a title in common with another, and one
                   passage stands twice

Names are numbers written in syllables, whose sum decides which split they belong to. `questions`
asks about a world, `reading` reads its sentences back, `lessons` teaches with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import gcd, isqrt
from typing import Literal, NamedTuple, TypeVar

from harness.data import HarnessError
from tasks.mini import words
from tasks.mini.words import RELATIONS

T = TypeVar("T")
Profile = Literal["standard", "hard", "shift"]

VERSION = "mini-6"
SMALLEST, LARGEST = 100, 1_000_000
"""Documents of a world: fewer have too few distractors, far more would run out of names."""
ODD = 1000
"""Documents from which a world has long passages and one that stands twice."""
LONGEST = 88_000
"""Characters of the longest passage, at least."""
STATEMENTS = 40
"""Statements of an annals passage, at most."""
ENOUGH = 2**64
"""What must be left of a number that choices are peeled off, to make all nearly as likely."""
OBJECT_FIRST = 30
"""Statements in a hundred that name their object first."""
CLASSES = {"train": tuple(range(8)), "dev": (8,), "test": (9,)}
"""What the sum of a name's syllable numbers may be, modulo ten."""
MINOR = ("birthplace", "birthyear", "occupation", "employer", "school")
"""What is told of minor persons."""
OF = {
    kind: tuple(name for name, each in RELATIONS.items() if each.subject == kind)
    for kind in ("person", "work", "organisation", "city")
}
"""The relations of each kind of entity that passages are about."""
NICKNAMED = ("person", "work", "city")
LITERALS = {
    "occupation": words.OCCUPATIONS,
    "genre": words.GENRES,
    "birthyear": [str(words.FIRST_YEAR + year) for year in words.BIRTHS],
    "release": [str(words.FIRST_YEAR + year) for year in words.RELEASES],
}


class Entity(NamedTuple):
    """Something with a name: a kind and a number."""

    kind: str
    number: int


class Fact(NamedTuple):
    """What one sentence states."""

    subject: Entity
    relation: str
    object: Entity


class Passage(NamedTuple):
    """Sentence n states ``facts[n]``; ``aliased`` is the one that gives the subject's nickname."""

    number: int
    title: str
    sentences: tuple[str, ...]
    facts: tuple[Fact | None, ...]
    aliased: int | None = None

    @property
    def text(self) -> str:
        """The sentences, a space between."""
        return " ".join(self.sentences)


class Draws:
    """Choices peeled off a 512-bit number; when little of it is left it is hashed anew."""

    __slots__ = ("digest", "left")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.left = int.from_bytes(digest, "little")

    def below(self, count: int) -> int:
        """A number from 0 to ``count`` - 1."""
        if self.left < ENOUGH:
            self.digest = blake2b(self.digest).digest()
            self.left = int.from_bytes(self.digest, "little")
        self.left, found = divmod(self.left, count)
        return found

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """``count`` different ones, in an order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]


class Names:
    """Numbers as words of two or three syllables, one-to-one: no two numbers share a word.

    A word's last syllable is chosen so that the sum of its syllables is of the split's classes.
    """

    def __init__(self, onsets: Sequence[str], classes: Sequence[int], draws: Draws) -> None:
        self.syllables = [o + v + e for o in onsets for v in words.VOWELS for e in words.ENDS]
        self.classes = classes
        count = len(self.syllables)
        self.short = count * (count // 10) * len(classes)
        self.long = self.short * count
        self.steps = [(_coprime(draws, n), draws.below(n)) for n in (self.short, self.long)]

    def __getitem__(self, number: int) -> str:
        long = number % 2 == 1 or number // 2 >= self.short
        size, (step, start) = (self.long if long else self.short), self.steps[long]
        left = ((number if long else number // 2) * step + start) % size
        count = len(self.syllables)
        left, first = divmod(left, count)
        left, second = divmod(left, count) if long else (left, 0)
        left, last = divmod(left, count // 10)
        last = 10 * last + (self.classes[left] - first - second) % 10
        middle = self.syllables[second] if long else ""
        word = self.syllables[first] + middle + self.syllables[last]
        return (word * 2 if word in words.KNOWN else word).capitalize()


def _coprime(draws: Draws, size: int) -> int:
    """A number with which ``n → n * number`` visits all of 0 … size - 1, in long strides."""
    step = size // 3 + draws.below(size // 3)
    while gcd(step, size) != 1:
        step += 1
    return step


class World:
    """Entities, their facts and the passages that state them.

    documents:    the number of passages
    profile:      ``hard`` has more near twins, more nicknames and three passages a person,
                  ``shift`` other syllables and wordings (not in train, which is ``standard``)
    object_first: statements in a hundred that name their object first
    """

    def __init__(
        self,
        documents: int,
        seed: int | str,
        split: str,
        profile: Profile = "standard",
        object_first: int = OBJECT_FIRST,
    ) -> None:
        if not SMALLEST <= documents <= LARGEST:
            raise HarnessError(
                f"a mini world of {documents} documents is too "
                f"{'small' if documents < SMALLEST else 'large'}.",
                f"Write documents={SMALLEST} to {LARGEST}.",
            )
        self.documents, self.object_first = documents, object_first
        self.label = f"{split} {seed} {profile}"
        self.hard = profile == "hard"
        self.per_person = 3 if self.hard else 2
        self.shift = profile == "shift" and split != "train"
        self._hash = blake2b(f"{VERSION} {seed} {split} {profile} {documents}\0".encode())
        onsets = words.SHIFTED_ONSETS if self.shift else words.ONSETS
        self.names = Names(onsets, CLASSES[split], self.draws("names"))
        self._count(documents)
        self._place_words()

    def _count(self, documents: int) -> None:
        """How many there are of each kind, and where their passages begin."""
        odd = documents >= ODD
        annals = documents // 50 if odd else 0
        plain = documents - annals - (3 if odd else 0)
        persons = 72 * plain // 100 // self.per_person
        works, organisations = 12 * plain // 100, 6 * plain // 100
        cities = plain - self.per_person * persons - works - organisations
        self.size = {
            "person": persons,
            "work": works,
            "organisation": organisations,
            "city": cities,
            "river": max(3, cities // 3),
            "country": min(30, max(3, cities // 5)),
            "minor": annals * STATEMENTS + LONGEST // 20 + 1 if odd else 0,
            **{kind: len(found) for kind, found in LITERALS.items()},
        }
        self.start, start = {}, 0
        for kind, count in (
            ("person", self.per_person * persons),
            ("work", works),
            ("organisation", organisations),
            ("city", cities),
            ("annals", annals),
            ("longest", int(odd)),
            ("twice", 2 * odd),
        ):
            self.start[kind] = start
            start += count
        self.asked = self.start["annals"]
        """Passages with a smaller number are short, and about what may be asked."""

    def _place_words(self) -> None:
        """Where each kind's words begin among the numbers of names."""
        self.parts = {
            kind: max(3, -(-self.size[kind] // share), isqrt(self.size[kind]) + 1)
            for kind, share in (("person", 9 if self.hard else 5), ("minor", 5))
        }
        self.turns = {
            kind: _coprime(self.draws(f"turn {kind}"), parts) for kind, parts in self.parts.items()
        }
        counts = {kind: 2 * parts for kind, parts in self.parts.items()}
        one_word = ("work", "organisation", "city", "river", "country")
        counts |= {kind: self.size[kind] for kind in one_word}
        counts |= {f"nickname {kind}": self.size[kind] for kind in NICKNAMED}
        self.first_word, start = {}, 0
        for kind, count in counts.items():
            self.first_word[kind] = start
            start += count

    def draws(self, about: str) -> Draws:
        """The choices that belong to something."""
        hashed = self._hash.copy()
        hashed.update(about.encode())
        return Draws(hashed.digest())

    # --- names ------------------------------------------------------------------------

    def word(self, kind: str, index: int) -> str:
        """A name's word; no two (kind, index) share one."""
        return self.names[self.first_word[kind] + index]

    def name(self, entity: Entity) -> str:
        """What something is called; no two entities share a name."""
        kind, index = entity
        if kind in LITERALS:
            return LITERALS[kind][index]
        if kind in ("person", "minor"):
            return f"{self.word(kind, self._given(entity))} {self.surname(entity)}"
        if kind == "organisation":
            what = self.draws(f"kind {kind} {index}").pick(words.ORGANISATIONS)
            return f"{self._eponym(kind, index)} {what.capitalize()}"
        if kind == "work":
            which = self.draws(f"adjective {index}").pick(words.ADJECTIVES)
            return f"The {which.capitalize()} {self._eponym(kind, index)}"
        return self.word(kind, index)

    def _given(self, person: Entity) -> int:
        return person.number % self.parts[person.kind]

    def surname(self, person: Entity) -> str:
        """A person's second name: persons who share the first have different ones."""
        parts = self.parts[person.kind]
        turn, given = divmod(person.number, parts)
        return self.word(person.kind, parts + (given + turn * self.turns[person.kind]) % parts)

    def _eponym(self, kind: str, index: int) -> str:
        """The name in the name: in ``hard`` that of a city, or the nickname of a person."""
        if not self.hard:
            return self.word(kind, index)
        place, person = divmod(index + (self.size["organisation"] if kind == "work" else 0), 2)
        return self.word("nickname person" if person else "city", place)

    def alias(self, entity: Entity) -> str:
        """The nickname of an entity, or nothing."""
        kind, index = entity
        if kind not in NICKNAMED:
            return ""
        has = self.draws(f"alias {kind} {index}").below(100) < (60 if self.hard else 30)
        return self.word(f"nickname {kind}", index) if has else ""

    def work_kind(self, index: int) -> str:
        """What a work is: a film, a novel, …"""
        return self.draws(f"kind work {index}").pick(tuple(words.WORKS))

    # --- facts ------------------------------------------------------------------------

    def facts(self, entity: Entity) -> list[Fact]:
        """All that is stated of an entity, in the order of its passages."""
        kind, index = entity
        if kind not in OF and kind != "minor":
            return []
        draws = self.draws(f"facts {kind} {index}")
        relations: Sequence[str] = OF.get(kind, MINOR)
        if kind == "person":
            if not self._tells_spouse(index):
                relations = [each for each in relations if each != "spouse"]
            count = 2 * self.per_person
        else:
            count = 3 if kind in ("work", "city") and draws.below(2) else 2
        told = draws.some(relations, count)
        return [Fact(entity, each, self.object_of(entity, each, draws)) for each in told]

    def object_of(self, subject: Entity, relation: str, draws: Draws) -> Entity:
        """Something that the relation could have for object."""
        kind = RELATIONS[relation].object
        size = self.size[kind]
        if relation == "spouse":
            return Entity(kind, self._partner(subject.number))
        if subject.kind == kind:
            return Entity(kind, (subject.number + 1 + draws.below(size - 1)) % size)
        return Entity(kind, draws.below(size))

    def _partner(self, person: int) -> int:
        """Of a marriage, seen from either side."""
        return (self.size["person"] // 3 - person) % self.size["person"]

    def _tells_spouse(self, person: int) -> bool:
        """A marriage is told of one of the two: it would stand in two passages otherwise."""
        return person < self._partner(person)

    def subject(self, number: int) -> Entity:
        """What a passage is about, for numbers below ``asked``."""
        kind, place = self._block(number)
        return Entity(kind, place // self.per_person if kind == "person" else place)

    def told_in(self, fact: Fact) -> int:
        """The number of the passage that states a fact."""
        kind, index = fact.subject
        if kind != "person":
            return self.start[kind] + index
        return self.per_person * index + self.facts(fact.subject).index(fact) // 2

    # --- passages ---------------------------------------------------------------------

    def __iter__(self) -> Iterator[Passage]:
        return map(self.passage, range(self.documents))

    def passage(self, number: int) -> Passage:
        """The passage of that number, 0 to ``documents`` - 1."""
        kind, place = self._block(number)
        if kind == "annals":
            return self._annals(number, f"Annals of {self.word('city', place)}", place)
        if kind == "longest":  # its title is that of the first annals
            return self._annals(number, f"Annals of {self.word('city', 0)}", None)
        if kind == "twice":
            return self._about(number, Entity("minor", self.size["minor"] - 1))
        if kind == "person":
            return self._about(
                number, Entity(kind, place // self.per_person), place % self.per_person
            )
        return self._about(number, Entity(kind, place))

    def _block(self, number: int) -> tuple[str, int]:
        """What sort of passage it is, and which of them."""
        kind = next(kind for kind in reversed(self.start) if self.start[kind] <= number)
        return kind, number - self.start[kind]

    def _annals(self, number: int, title: str, place: int | None) -> Passage:
        """One statement about each of many minor persons; the longest passage has no place."""
        most, longest = self.size["minor"], place is None
        if place is None:
            place = self.start["longest"] - self.start["annals"]
        else:
            most = 15 + self.draws(f"annals {place}").below(STATEMENTS - 14)
        sentences, facts, length = [], [], 0
        for index in range(place * STATEMENTS, place * STATEMENTS + most):
            fact = self.facts(Entity("minor", index))[0]
            wording = self._wording(fact, self.draws(f"minor {index}"))
            sentences.append(_sentence(wording, self.name(fact.subject), self._of(fact)))
            facts.append(fact)
            length += len(sentences[-1]) + 1
            if longest and length > LONGEST:
                break
        return Passage(number, title, tuple(sentences), tuple(facts))

    def _about(self, number: int, subject: Entity, part: int = 0) -> Passage:
        """What is stated of one entity: all of it, or two of a person's facts."""
        told = self.facts(subject)
        if subject.kind == "person":
            told = told[2 * part : 2 * part + 2]
        draws = self.draws(f"words {subject.kind} {subject.number} {part}")
        name, alias, sentences = self.name(subject), self.alias(subject), []
        aliased = None if not alias else 0 if draws.below(2) else len(told)
        for place, fact in enumerate(told):
            wording = self._wording(fact, draws)
            called = self._later(told, name, draws) if place else self._first(subject, name, draws)
            if aliased == place:
                called += (words.SHIFTED_ALIASED if self.shift else words.ALIASED).format(a=alias)
            sentences.append(_sentence(wording, called, self._of(fact)))
        facts: list[Fact | None] = [*told]
        if aliased == len(told):
            known_as = words.SHIFTED_KNOWN_AS if self.shift else words.KNOWN_AS
            sentences.append(known_as.format(s=name, a=alias) + ".")
            facts.append(None)
        title = f"{name} ({part + 1})" if part else name
        return Passage(number, title, tuple(sentences), tuple(facts), aliased)

    def _first(self, subject: Entity, name: str, draws: Draws) -> str:
        """How the first sentence calls its subject."""
        if subject.kind == "organisation":
            return f"the {name}"
        if subject.kind == "work" and draws.below(2):
            return f"the {self.work_kind(subject.number)} {name}"
        return words.CITY_OF.format(s=name) if subject.kind == "city" and draws.below(2) else name

    def _later(self, told: Sequence[Fact], name: str, draws: Draws) -> str:
        """How another sentence does: less than its name often, but never so that it could be
        something else in the passage."""
        subject = told[0].subject
        short = draws.below(100) < (50 if subject.kind == "person" else 30)
        if subject.kind == "person":
            others = [fact.object for fact in told if fact.object.kind == "person"]
            surname = self.surname(subject)
            return surname if short and surname not in map(self.surname, others) else name
        if subject.kind == "work":
            return f"the {self.work_kind(subject.number)}" if short else name
        if subject.kind == "organisation":
            return f"the {name.split()[-1].lower()}" if short else f"the {name}"
        return "the city" if short and subject.kind == "city" else name

    def _wording(self, fact: Fact, draws: Draws) -> str:
        wordings = RELATIONS[fact.relation]
        if draws.below(100) < self.object_first:
            return draws.pick(wordings.shifted_turned if self.shift else wordings.turned)
        return draws.pick(wordings.shifted_told if self.shift else wordings.told)

    def _of(self, fact: Fact) -> str:
        """How passages call the object."""
        name = self.name(fact.object)
        return f"the {name}" if fact.object.kind == "organisation" else name


def _sentence(wording: str, subject: str, found: str) -> str:
    text = wording.format(s=subject, o=found).removesuffix(",") + "."
    return text[0].upper() + text[1:]

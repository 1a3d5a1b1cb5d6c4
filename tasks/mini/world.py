"""A small invented world: people, towns and guilds, two passages each, and questions on them.

One coherent world: every entity has one value a relation, stated in one passage and nowhere else,
so an answer follows from the gold passages and from no other. Names are made of syllables; people
share given and family names with many near twins, passages mention other entities, and the words
of a question need not be those of the passage. A name of the train split never occurs in test.

What it does not do yet: long documents, unanswerable questions, graded relevance, profiles.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from harness.data import HarnessError

VERSION = "mini-3"
SMALLEST = 100
"""Documents of the smallest world: below it there are too few distractors."""
LARGEST = 1_000_000
"""Documents of the largest world: far above it the syllables have no names left."""

RELATIONS = {
    # relation: (kind of its object, two wordings in passages, two in questions)
    "birthplace": (
        "town",
        ("{s} was born in {o}.", "{s} came into the world at {o}."),
        ("Where was {s} born?", "Which town is the birthplace of {s}?"),
    ),
    "teacher": (
        "person",
        ("{s} was taught by {o}.", "{s} learned the craft from {o}."),
        ("Who taught {s}?", "Whose pupil was {s}?"),
    ),
    "guild": (
        "guild",
        ("{s} joined {o}.", "{s} was a member of {o}."),
        ("Which guild did {s} belong to?", "What guild had {s} among its members?"),
    ),
    "river": (
        "river",
        ("{s} lies on the {o}.", "The {o} flows through {s}."),
        ("On which river does {s} lie?", "Which water runs through {s}?"),
    ),
    "seat": (
        "town",
        ("{s} has its hall in {o}.", "The hall of {s} stands in {o}."),
        ("Where is the hall of {s}?", "In which town does {s} meet?"),
    ),
    "trade": (
        "trade",
        ("{s} is known for {o}.", "Visitors come to {s} for {o}."),
        ("What is {s} known for?", "What do visitors seek in {s}?"),
    ),
}
OF = {
    "person": (("birthplace", "teacher"), ("guild", "trade")),
    "town": (("river",), ("trade",)),
    "guild": (("seat",), ("trade",)),
}
"""What the two passages of an entity state."""
BRIDGES = (
    ("person", "birthplace", "river", "On which river lies the birthplace of {s}?"),
    ("person", "teacher", "birthplace", "Where was the teacher of {s} born?"),
    ("person", "teacher", "guild", "Which guild did the teacher of {s} belong to?"),
    ("person", "guild", "seat", "Where is the hall of the guild that {s} joined?"),
    ("guild", "seat", "trade", "For what is the town known where {s} has its hall?"),
)
COMPARISONS = (
    ("birthplace", "Were {a} and {b} born in the same town?"),
    ("guild", "Did {a} and {b} belong to the same guild?"),
)
TRADES = "salt wool amber glass honey ropes bells paper tiles dyes clocks barley".split()


@dataclass(eq=False)
class Passage:
    """Sentence n of it states the relation ``stated[n]`` of one entity."""

    id: str
    title: str
    sentences: list[str]
    stated: list[str]


@dataclass(eq=False)
class Entity:
    """An entity: its value of each relation, and the passage that says so."""

    id: str
    kind: str
    name: str = ""
    alias: str = ""
    facts: dict[str, Entity] = field(default_factory=dict)
    told: dict[str, Passage] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """``steps``: the facts that give the answer, (subject, relation), in order."""

    id: str
    kind: str
    text: str
    answer: str
    steps: tuple[tuple[Entity, str], ...]
    alias: str = ""

    @property
    def gold(self) -> list[Passage]:
        """The passages that state the steps."""
        return list(dict.fromkeys(subject.told[relation] for subject, relation in self.steps))


class World:
    """Entities and passages from a seed; pure Python and whole numbers, so the same everywhere.

    documents: the number of passages, rounded up to an even one
    """

    def __init__(self, documents: int, seed: int, split: str) -> None:
        if not SMALLEST <= documents <= LARGEST:
            raise HarnessError(
                f"a mini world of {documents} documents is too "
                f"{'small' if documents < SMALLEST else 'large'}.",
                f"Write documents={SMALLEST} to {LARGEST}.",
            )
        self.drawn_from = f"{VERSION} {seed} {split}"
        self.rng = random.Random(self.drawn_from)
        self.parity = int(split == "train")
        self.taken: set[str] = set()
        size = (documents + 1) // 2
        towns, guilds = size // 5, size // 10
        counts = {"town": towns, "guild": guilds, "person": size - towns - guilds}
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        self.entities = [Entity(f"Q{number}", kind) for number, kind in enumerate(kinds)]
        self.of_kind = {k: [e for e in self.entities if e.kind == k] for k in counts}
        rivers = [Entity("", "river", self._word()) for _ in range(max(4, towns // 3))]
        self.of_kind |= {"river": rivers, "trade": [Entity("", "trade", t) for t in TRADES]}
        self._name(int(size**0.5) * 2)
        self.passages = [p for entity in self.entities for p in self._write(entity)]
        self.having: defaultdict[str, list[Passage]] = defaultdict(list)
        for passage in self.passages:
            for word in words_of(" ".join(passage.sentences)):
                self.having[word].append(passage)

    def _word(self) -> str:
        """A name that is new, and of the split's half of all names."""
        while True:
            syllables = (
                self.rng.choice("bdfgklmnprstvz") + self.rng.choice("aeiou")
                for _ in range(self.rng.randint(2, 3))
            )
            word = "".join((*syllables, self.rng.choice(["", "n", "r", "s", "l"]))).capitalize()
            if word not in self.taken and crc32(word.encode()) % 2 == self.parity:
                self.taken.add(word)
                return word

    def _name(self, names: int) -> None:
        """People draw from few given and family names, so that near twins abound."""
        given, family = ([self._word() for _ in range(names)] for _ in range(2))
        pairs = self.rng.sample(range(names * names), len(self.of_kind["person"]))
        for entity, pair in zip(self.of_kind["person"], pairs, strict=True):
            entity.name = f"{given[pair // names]} {family[pair % names]}"
            entity.alias = self._word() if self.rng.random() < 0.3 else ""
        for entity in self.of_kind["town"] + self.of_kind["guild"]:
            entity.name = f"{self._word()}{' guild' if entity.kind == 'guild' else ''}"

    def _write(self, entity: Entity) -> Iterator[Passage]:
        """Its facts, and the passages that state them."""
        called = f", also called {entity.alias}" if entity.alias else ""
        for number, relations in enumerate(OF[entity.kind], 1):
            stated = self.rng.sample(relations, len(relations))
            sentences = [f"{entity.name} is a {entity.kind} of the old country{called}."]
            passage = Passage(
                f"{entity.id}-{number}", f"{entity.name} ({number})", sentences, ["", *stated]
            )
            for relation in stated:
                kind, wordings, _ = RELATIONS[relation]
                found = self.rng.choice(self.of_kind[kind])
                while found is entity:
                    found = self.rng.choice(self.of_kind[kind])
                entity.facts[relation], entity.told[relation] = found, passage
                sentences.append(self.rng.choice(wordings).format(s=entity.name, o=found.name))
            yield passage

    def questions(self, kinds: Sequence[str], count: int, task: str = "") -> Iterator[Question]:
        """Distinct questions of the kinds in turn, drawn anew for each task."""
        if count < 1:
            raise HarnessError(f"{count} questions are too few.", "Write questions=1 or more.")
        self.rng = random.Random(f"{self.drawn_from} {task}")
        asked: set[str] = set()
        for _ in range(20 * count):
            if len(asked) == count:
                return
            kind = kinds[len(asked) % len(kinds)]
            question = getattr(self, f"_{kind}")(str(10_000 + len(asked)))
            if question.text not in asked:
                asked.add(question.text)
                yield question
        raise HarnessError(
            f"a mini world of {len(self.passages)} documents has no {count} such questions.",
            "Write fewer questions= or more documents=.",
        )

    def _mention(self, entity: Entity) -> str:
        return entity.alias if entity.alias and self.rng.random() < 0.5 else entity.name

    def _single(self, number: str) -> Question:
        subject = self.rng.choice(self.entities)
        relation = self.rng.choice(list(subject.facts))
        text = self.rng.choice(RELATIONS[relation][2]).format(s=self._mention(subject))
        found = subject.facts[relation]
        return Question(number, "single", text, found.name, ((subject, relation),), found.alias)

    def _bridge(self, number: str) -> Question:
        kind, first, second, wording = self.rng.choice(BRIDGES)
        subject = self.rng.choice(self.of_kind[kind])
        middle = subject.facts[first]
        found = middle.facts[second]
        steps = ((subject, first), (middle, second))
        text = wording.format(s=self._mention(subject))
        return Question(number, "bridge", text, found.name, steps, found.alias)

    def _comparison(self, number: str) -> Question:
        """Of two people; as likely yes as no where anybody shares the value."""
        relation, wording = self.rng.choice(COMPARISONS)
        people = self.of_kind["person"]
        one = self.rng.choice(people)
        same = [e for e in people if e.facts[relation] is one.facts[relation] and e is not one]
        alike = bool(same) and self.rng.random() < 0.5
        other = self.rng.choice(same if alike else [e for e in people if e not in (one, *same)])
        text = wording.format(a=self._mention(one), b=self._mention(other))
        steps = ((one, relation), (other, relation))
        return Question(number, "comparison", text, "yes" if alike else "no", steps)

    def pool(self, question: Question, size: int) -> list[Passage]:
        """The gold passages, and those that share rare words with the question or name gold."""
        named = " ".join((question.text, *(subject.name for subject, _ in question.steps)))
        likeness: Counter[Passage] = Counter()
        for word in words_of(named):
            for passage in self.having.get(word, ()):
                likeness[passage] += 100 * len(self.passages) // len(self.having[word])
        near = sorted(likeness, key=lambda passage: (-likeness[passage], passage.id))
        near += self.rng.sample(self.passages, size)
        pool = list(dict.fromkeys(question.gold + near))[:size]
        return self.rng.sample(pool, len(pool))


def words_of(text: str) -> list[str]:
    """The distinct words of a text, lower case."""
    return list(dict.fromkeys(word.strip(".,?") for word in text.lower().split()))

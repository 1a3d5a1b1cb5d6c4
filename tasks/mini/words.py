"""The language of the mini world: what sentences and questions are made of, and nothing else.

A passage and a question say a relation in other words ("was born in", "the hometown of"). The
profile ``shift`` asks as `train` never does, and says half of the relations as `train` never does:
passages by nouns, questions by verbs.

Slots: ``{s}`` the subject, ``{o}`` the object, ``{a}`` and ``{b}`` two subjects, ``{p}`` a
predicate, ``{n}`` a noun phrase. Every word behind "a" begins with a consonant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Wordings(NamedTuple):
    """How one relation is said.

    told:    in passages, subject first; ``turned``: object first
    asked:   in questions, as a noun phrase
    shifted_told, shifted_turned, shifted_asked: the same in ``shift``
    """

    subject: str
    object: str
    told: tuple[str, ...]
    turned: tuple[str, ...]
    asked: tuple[str, ...]
    shifted_told: tuple[str, ...]
    shifted_turned: tuple[str, ...]
    shifted_asked: tuple[str, ...]


def _relation(
    kinds: str,
    told: str,
    turned: str,
    asked: str,
    other: str,
    other_asked: str,
    *,
    held: bool = False,
) -> Wordings:
    """Wordings of "subject object" kinds; alternatives stand between bars. The ``other`` ones
    (subject first | object first) are said everywhere, or ``held`` back for ``shift``, which then
    has only them."""
    subject, found = kinds.split()
    plain = [each.split(" | ") for each in (told, turned, asked)]
    others = [[each] for each in (*other.split(" | "), other_asked)]
    if not held:
        plain = others = [one + two for one, two in zip(plain, others, strict=True)]
    return Wordings(subject, found, *map(tuple, plain), *map(tuple, others))


RELATIONS = {
    "birthplace": _relation(
        "person city",
        "{s} was born in {o} | {s} came from {o}",
        "{o} was the cradle of {s}",
        "the birthplace of {s} | the hometown of {s}",
        "The hometown of {s} was {o} | {o} was the birthplace of {s}",
        "the cradle of {s}",
        held=True,
    ),
    "birthyear": _relation(
        "person birthyear",
        "{s} was born in the year {o} | {s} came into the world in {o}",
        "The year {o} saw the birth of {s}",
        "the birthdate of {s} | the time of birth of {s}",
        "The birthdate of {s} was {o} | {o} was the birthdate of {s}",
        "the year that saw the birth of {s}",
    ),
    "occupation": _relation(
        "person occupation",
        "{s} was a {o} | {s} worked as a {o}",
        "A {o} by trade was {s}",
        "the profession of {s} | the job of {s}",
        "The job of {s} was that of a {o} | A {o} was {s} by profession",
        "the trade of {s}",
        held=True,
    ),
    "spouse": _relation(
        "person person",
        "{s} married {o} | {s} wed {o}",
        "{o} shared a home with {s}",
        "the spouse of {s} | the partner of {s}",
        "The partner of {s} was {o} | {o} was the spouse of {s}",
        "the one that married {s}",
    ),
    "employer": _relation(
        "person organisation",
        "{s} worked for {o} | {s} had a post at {o}",
        "{o} hired {s}",
        "the workplace of {s} | the employer of {s}",
        "The employer of {s} was {o} | {o} was the workplace of {s}",
        "the place that hired {s}",
        held=True,
    ),
    "school": _relation(
        "person organisation",
        "{s} studied at {o} | {s} learned much at {o}",
        "{o} trained {s}",
        "the school of {s} | the alma mater of {s}",
        "The alma mater of {s} was {o} | {o} was the school of {s}",
        "the place that trained {s}",
    ),
    "pupil": _relation(
        "person person",
        "{s} taught {o} | {s} was the tutor of {o}",
        "{o} was guided by {s}",
        "the pupil of {s} | the student of {s}",
        "The student of {s} was {o} | {o} was the pupil of {s}",
        "the one taught by {s}",
    ),
    "creator": _relation(
        "work person",
        "{s} was made by {o} | {s} is the work of {o}",
        "{o} created {s}",
        "the author of {s} | the maker of {s}",
        "The maker of {s} was {o} | {o} was the author of {s}",
        "the one that created {s}",
        held=True,
    ),
    "release": _relation(
        "work release",
        "{s} came out in {o} | {s} first appeared in {o}",
        "The year {o} brought {s}",
        "the release date of {s} | the debut of {s}",
        "The debut of {s} was in {o} | {o} was the release date of {s}",
        "the year that brought {s}",
        held=True,
    ),
    "genre": _relation(
        "work genre",
        "{s} is a {o} | {s} counts as a {o}",
        "A {o} at heart is {s}",
        "the genre of {s} | the style of {s}",
        "The style of {s} is that of a {o} | A {o} is {s} by genre",
        "the sort of {s}",
    ),
    "setting": _relation(
        "work city",
        "{s} takes place in {o} | {s} is set in {o}",
        "{o} is the backdrop of {s}",
        "the setting of {s} | the scene of {s}",
        "The scene of {s} is {o} | {o} is the setting of {s}",
        "the backdrop of {s}",
    ),
    "seat": _relation(
        "organisation city",
        "{s} is based in {o} | {s} has its offices in {o}",
        "{o} hosts {s}",
        "the location of {s} | the seat of {s}",
        "The seat of {s} is {o} | {o} is the location of {s}",
        "the city that hosts {s}",
        held=True,
    ),
    "founder": _relation(
        "organisation person",
        "{s} was started by {o} | {s} was set up by {o}",
        "{o} opened the doors of {s}",
        "the founder of {s} | the originator of {s}",
        "The originator of {s} was {o} | {o} was the founder of {s}",
        "the one that opened the doors of {s}",
    ),
    "country": _relation(
        "city country",
        "{s} is found in {o} | {s} belongs to {o}",
        "{o} is home to {s}",
        "the country of {s} | the nation of {s}",
        "The nation of {s} is {o} | {o} is the country of {s}",
        "the land that is home to {s}",
    ),
    "river": _relation(
        "city river",
        "{s} stands on the {o} | {s} draws its water from the {o}",
        "The {o} flows through {s}",
        "the river of {s} | the stream of {s}",
        "The stream of {s} is the {o} | The {o} is the river of {s}",
        "the water that flows through {s}",
        held=True,
    ),
    "mayor": _relation(
        "city person",
        "{s} is led by {o} | {s} is run by {o}",
        "{o} governs {s}",
        "the mayor of {s} | the head of {s}",
        "The head of {s} is {o} | {o} is the mayor of {s}",
        "the one that governs {s}",
        held=True,
    ),
}

UNSEEN = {
    "birthplace": ("mayor",),
    "spouse": ("employer", "pupil"),
    "employer": ("founder",),
    "school": ("seat",),
    "pupil": ("birthplace", "occupation"),
    "creator": ("school", "spouse"),
    "setting": ("river",),
    "seat": ("country",),
    "founder": ("birthyear", "pupil"),
    "mayor": ("birthplace", "spouse"),
}
"""Relations that follow a relation in the questions of ``shift``, and nowhere else."""

ALIASED, SHIFTED_ALIASED = ", also called {a},", ", or {a} for short,"
"""Behind the first mention of a subject; the other way is a sentence of its own."""
KNOWN_AS, SHIFTED_KNOWN_AS = "{s} is also known as {a}", "People call {s} {a}"

OCCUPATIONS = (
    "painter novelist chemist sculptor violinist lawyer botanist designer poet surgeon pilot "
    "dancer historian geologist banker printer"
).split()
GENRES = "drama comedy satire thriller romance fantasy mystery musical".split()
WORKS = {"film": "movie", "novel": "book", "opera": "stage piece", "album": "record"}
"""What a work is called in passages, and what questions call it."""
ORGANISATIONS = ("institute", "company", "college", "museum")
ADJECTIVES = (
    "silent golden broken crimson hidden final distant frozen burning tiny empty quiet savage "
    "gentle bitter hollow ancient wooden velvet electric"
).split()
FIRST_YEAR = 1900
BIRTHS, RELEASES = range(45), range(60, 80)
"""Years, counted from `FIRST_YEAR`: nobody makes a work as a child."""
CITY_OF = "the city of {s}"

# --- questions ------------------------------------------------------------------------

FRAMES = ("What is {n}?", "Name {n}.", "Tell me {n}.", "Find {n}.")
WHO = "Who is {n}?"
"""Instead of "What is" where the answer is a person."""
SHIFTED_FRAMES = ("Can you say what {n} is?", "{n} is what?")
SHIFTED_WHO = "Can you say who {n} is?"

PREDICATES = {
    # relation: as in "Which of {a} and {b} …?", as a question of one subject
    "birthplace": ("hails from {o}", "Does {s} hail from {o}?"),
    "occupation": ("had the job of a {o}", "Was {s} a {o}?"),
    "employer": ("had {o} for an employer", "Was {o} the employer of {s}?"),
    "release": ("appeared in {o}", "Did {s} appear in {o}?"),
    "genre": ("has the style of a {o}", "Is {s} a {o}?"),
    "country": ("lies in {o}", "Does {s} lie in {o}?"),
    "river": ("lies on the {o}", "Does {s} lie on the {o}?"),
}
WHICH = ("Which of {a} and {b} {p}?", "Which one {p}, {a} or {b}?")
WHO_OF = ("Who of {a} and {b} {p}?", "Who {p}, {a} or {b}?")
SHIFTED_WHICH = ("Of {a} and {b}, which one {p}?",)
SHIFTED_CHECK = "Is it true that {s} {p}?"

SAME = {
    "occupation": ("Did {a} and {b} have the same job?", "Did {a} and {b} share a profession?"),
    "genre": ("Do {a} and {b} have the same style?", "Do {a} and {b} share a genre?"),
    "country": ("Do {a} and {b} have the same nation?", "Do {a} and {b} share a country?"),
}
SHIFTED_SAME = {
    "occupation": ("Is the job of {a} also that of {b}?",),
    "genre": ("Is the style of {a} also that of {b}?",),
    "country": ("Is the nation of {a} also that of {b}?",),
}

# --- names ----------------------------------------------------------------------------

VOWELS = "a e i o u ai ea".split()
ENDS = ("", "n", "l", "r", "m")
ONSETS = "b d f g k l m n p r s t v z br dr gr kl pl st tr sk".split()
SHIFTED_ONSETS = "ch sh w h j gl fr th".split()
"""No onset is an end followed by another onset: a word is made of its syllables in one way."""


def _strings(table: object) -> Iterator[str]:
    if isinstance(table, str):
        yield table
    elif isinstance(table, dict):
        for key, value in table.items():
            if table is WORKS:
                yield key
            yield from _strings(value)
    elif isinstance(table, Iterable):
        for each in table:
            yield from _strings(each)


def words_of(table: object) -> list[str]:
    """The words and signs of a table of wordings, lower case, each once, sorted."""
    texts = (re.sub(r"\{\w\}", " ", each).lower() for each in _strings(table))
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})


TRAINED = words_of(
    [
        [(w.told, w.turned, w.asked) for w in RELATIONS.values()],
        [ALIASED, KNOWN_AS, CITY_OF, FRAMES, WHO, PREDICATES, WHICH, WHO_OF, SAME, WORKS],
        [OCCUPATIONS, GENRES, ORGANISATIONS, ADJECTIVES, "the", "yes no", ". , ? : ( ) 2 3"],
        [str(FIRST_YEAR + year) for years in (BIRTHS, RELEASES) for year in years],
    ]
)
"""Every word of the train split that is not a name."""
KNOWN = frozenset(
    [
        *TRAINED,
        *words_of([w[2:] for w in RELATIONS.values()]),
        *words_of([SHIFTED_ALIASED, SHIFTED_KNOWN_AS, SHIFTED_FRAMES, SHIFTED_WHO]),
        *words_of([SHIFTED_WHICH, SHIFTED_CHECK, SHIFTED_SAME, "annals of"]),
    ]
)
"""Every word that is not a name in any split or profile; no name is one of them."""

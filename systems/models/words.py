"""Open words: a vocabulary of known words, in which any other word of a text can be read and said.

A word that is not known gets a slot in the text's own lexicon, numbered by first appearance, and
as embedding the sum of a few hashed rows of one table. A language model gives such a word
probability from the place where it was read onwards; before, it has the class ``<new>``. So the
distribution over what comes next is proper, is a function of the text alone, and meets names it
has never seen exactly as it meets those of its training, where the hash is salted anew for each
text and nothing about a name can be learned by heart.

It never says a word that is neither known nor in the text (or among the ``more`` words it is
given): it copies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

from harness.data import Document, HarnessError

FILE = "words.json"
SPECIAL = ("<pad>", "<new>", "<passage>", "<question>", "<answer>", "<end>")
PAD, NEW, PASSAGE, QUESTION, ANSWER, END = range(len(SPECIAL))
PIECES = re.compile(r"\w+|[^\w\s]")
NUMBERS = tuple(map(str, range(1, 21)))
"""What passages are called in a list, by a model that knows these words."""


class OpenWords:
    """The vocabulary of a checkpoint.

    known:  special signs and words with an embedding of their own, lower case; their places in
            this list are their ids
    rows:   of the table that other words are hashed into
    hashes: rows a word
    """

    def __init__(self, known: Sequence[str], rows: int = 1024, hashes: int = 3) -> None:
        if tuple(known[: len(SPECIAL)]) != SPECIAL:
            raise HarnessError(
                f"the words do not begin with {' '.join(SPECIAL)}.", "Check the file they are from."
            )
        self.known, self.rows, self.hashes = tuple(known), rows, hashes
        self.ids = {word: place for place, word in enumerate(self.known)}

    @classmethod
    def of(cls, words: Iterable[str]) -> OpenWords:
        """The vocabulary that knows these words."""
        return cls((*SPECIAL, *sorted({word.lower() for word in words})))

    def with_signs(self, signs: Sequence[str]) -> OpenWords:
        """The same with further signs known, which no text spells, at the end."""
        more = [each for each in signs if each not in self.ids]
        return OpenWords((*self.known, *more), self.rows, self.hashes)

    @classmethod
    def read(cls, folder: Path) -> OpenWords:
        """The vocabulary of a checkpoint's folder."""
        try:
            found: dict[str, Any] = json.loads((folder / FILE).read_text())
            return cls(found["known"], found["rows"], found["hashes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HarnessError(
                f"{folder / FILE} cannot be read: {error}.", "Check the checkpoint's files."
            ) from error

    def write(self, folder: Path) -> None:
        """Put the vocabulary into a checkpoint's folder."""
        kept = {"known": self.known, "rows": self.rows, "hashes": self.hashes}
        (folder / FILE).write_text(json.dumps(kept, indent=0, ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return len(self.known)

    def codes(self, word: str, salt: str = "") -> tuple[int, ...]:
        """The rows of the table whose sum is the embedding of a word that is not known."""
        return tuple(crc32(f"{salt}/{n}{word}".encode()) % self.rows for n in range(self.hashes))


class Lexicon:
    """The words of one text that are not known, in order of first appearance.

    salt: of the hash; always the same but in training
    """

    def __init__(self, words: OpenWords, salt: str = "") -> None:
        self.words, self.salt = words, salt
        self.slots: dict[str, int] = {}
        self._codes: list[tuple[int, ...]] = []
        self.spelled: dict[str, str] = {}

    def read(self, text: str) -> list[int]:
        """The ids of a text's words and signs; new words get the next slots."""
        ids = []
        for piece in PIECES.findall(text):
            word = piece.lower()
            self.spelled.setdefault(word, piece)
            known = self.words.ids.get(word)
            if known is None:
                known = len(self.words) + self.slots.setdefault(word, len(self.slots))
            ids.append(known)
        return ids

    def passage(self, document: Document, number: str = "") -> list[int]:
        """A passage as open-word models read it: its sign, its title and a colon, its text. Its
        number, if it has one, stands before them, and again behind, where all has been read."""
        title = f"{document.title}: " if document.title else ""
        called = self.read(number)
        return [PASSAGE, *called, *self.read(title + document.text), *called]

    def question(self, text: str) -> list[int]:
        """A question as open-word models read it."""
        return [QUESTION, *self.read(text)]

    def prompt(
        self, passages: Sequence[Document], question: str | None, numbered: bool = False
    ) -> list[int]:
        """Passages and a question, up to where its answer begins; without a question, up to where
        one begins."""
        numbers = NUMBERS if numbered else [""] * len(passages)
        called = zip(passages, numbers, strict=False)
        ids = [each for passage, number in called for each in self.passage(passage, number)]
        return [*ids, QUESTION] if question is None else [*ids, *self.question(question), ANSWER]

    def pair(self, question: str, document: Document) -> tuple[list[int], list[int]]:
        """A question and a passage as one row, and its segments: 0 for the question, then 1."""
        first, second = self.question(question), self.passage(document)
        return [*first, *second], [0] * len(first) + [1] * len(second)

    def codes(self) -> list[tuple[int, ...]]:
        """For each slot, the rows of the hashed table that its embedding sums."""
        new = islice(self.slots, len(self._codes), None)
        self._codes += [self.words.codes(word, self.salt) for word in new]
        return self._codes

    def say(self, ids: Iterable[int]) -> str:
        """Words as the text spelled them first, with signs close to the word before."""
        slots = list(self.slots)
        said = ""
        for each in ids:
            place = each - len(self.words)
            word = slots[place] if place >= 0 else self.words.known[each]
            if each < len(SPECIAL):
                continue
            close = not said or not word[0].isalnum()
            said += ("" if close else " ") + self.spelled.get(word, word)
        return said


def clipped(text: str, tokens: int) -> str:
    """The first ``tokens`` words and signs of a text."""
    pieces = [*islice(PIECES.finditer(text), tokens)]
    return text[: pieces[-1].end()] if pieces else ""


def has_open_words(folder: Path) -> bool:
    """Whether a checkpoint reads open words."""
    return (folder / FILE).is_file()

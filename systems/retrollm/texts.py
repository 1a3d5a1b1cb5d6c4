"""A corpus as a model would write it: its titles and texts as token ids, their n-grams, and where
sentences begin.

A model with open words has no id for a word it does not know: here such a word has one behind
those of the known words, the same in the whole corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.data import Document, HarnessError
from systems.models.prompts import Prompts, TokenPrompts, Tokens, WordPrompts
from systems.models.words import PIECES, OpenWords
from systems.retrollm.form import sentence_spans
from systems.retrollm.ngrams import Ngrams

SENTENCES, WORDS = "sentences.npy", "open_words.json"
CHUNK = 1000
"""Documents tokenised at a time."""


class Script(Protocol):
    """How texts of a corpus are spelled in its ids; none is negative but that of an unknown
    word."""

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Texts as they stand within others."""
        ...

    def say(self, ids: Sequence[int]) -> str:
        """Ids as text, more or less as it was written."""
        ...

    def save(self, folder: Path) -> None:
        """Write what reading takes beside the model."""
        ...


class TokenScript:
    """Ids are those of the model."""

    def __init__(self, prompts: TokenPrompts) -> None:
        self.prompts = prompts

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        return self.prompts.tokens(texts)

    def say(self, ids: Sequence[int]) -> str:
        return self.prompts.tokenizer.decode(ids).strip()  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        pass


class WordScript:
    """Ids of known words are those of the model; ``open`` are the others, in order.

    growing: whether a word that is met is added to them
    """

    def __init__(self, words: OpenWords, more: Sequence[str] = (), growing: bool = False) -> None:
        self.words, self.growing = words, growing
        self.open = list(more)
        self.ids = {word: len(words) + place for place, word in enumerate(more)}

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._read(text) for text in texts]

    def _read(self, text: str) -> Tokens:
        found = Tokens([], [])
        for match in PIECES.finditer(text):
            found.ids.append(self._id(match.group().lower()))
            found.spans.append(match.span())
        return found

    def _id(self, word: str) -> int:
        known = self.words.ids.get(word, self.ids.get(word, -1))
        if known < 0 and self.growing:
            known = self.ids[word] = len(self.words) + len(self.open)
            self.open.append(word)
        return known

    def word(self, number: int) -> str:
        """The word of an id; that of -1 is not known."""
        known = self.words.known
        if number < 0:
            return "…"
        return known[number] if number < len(known) else self.open[number - len(known)]

    def say(self, ids: Sequence[int]) -> str:
        return " ".join(map(self.word, ids))

    def save(self, folder: Path) -> None:
        (folder / WORDS).write_text(json.dumps(self.open, ensure_ascii=False))


def script_of(prompts: Prompts, folder: Path | None = None) -> Any:
    """How a model spells a corpus, of which the folder holds the index; None: one to be built."""
    if isinstance(prompts, WordPrompts):
        if folder is None:
            return WordScript(prompts.words, growing=True)
        return WordScript(prompts.words, json.loads((folder / WORDS).read_text()))
    assert isinstance(prompts, TokenPrompts)
    return TokenScript(prompts)


class Shelf:
    """Some documents: their n-grams, and where sentences of their texts begin.

    Document d has two parts in the index, its title (2d) and its text (2d + 1), so that no n-gram
    goes from one to the other.

    numbers: of the documents in the corpus; None: it is the whole
    begins:  (tokens,), 1 where a sentence of a text begins
    """

    def __init__(
        self, ngrams: Ngrams, begins: npt.NDArray[np.uint8], numbers: Sequence[int] | None = None
    ) -> None:
        self.ngrams, self.begins, self.numbers = ngrams, begins, numbers

    @classmethod
    def of(
        cls,
        script: Script,
        documents: Iterable[Document],
        told: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> Shelf:
        """The shelf of a corpus; ``told`` is called with how many documents are done."""
        marks = bytearray()

        def parts() -> Iterator[list[int]]:
            stream, done = iter(documents), 0
            for chunk in iter(partial(_first, stream), []):
                read = script.read([text for each in chunk for text in (each.title, each.text)])
                for each, title, text in zip(chunk, read[::2], read[1::2], strict=True):
                    here = bytearray(len(title.ids) + len(text.ids) + 2)
                    for place in _begins(each, text):
                        here[len(title.ids) + 1 + place] = 1
                    marks.extend(here)
                    yield title.ids
                    yield text.ids
                done += len(chunk)
                told(done)

        ngrams = Ngrams.of(parts())
        return cls(ngrams, np.frombuffer(marks, np.uint8))

    def save(self, folder: Path) -> None:
        """Write the shelf of a corpus."""
        self.ngrams.save(folder)
        np.save(folder / SENTENCES, self.begins)

    @classmethod
    def open(cls, folder: Path) -> Shelf:
        """What `save` wrote, mapped."""
        ngrams = Ngrams.open(folder)
        try:
            return cls(ngrams, np.load(folder / SENTENCES, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise HarnessError(
                f"{folder} does not say where sentences begin ({error}).", "Build it again."
            ) from error

    @property
    def documents(self) -> int:
        """How many there are."""
        return self.ngrams.documents // 2

    def number(self, document: int) -> int:
        """A document's number in the corpus."""
        return document if self.numbers is None else self.numbers[document]

    def some(self, numbers: Sequence[int]) -> Shelf:
        """A shelf of some of the documents."""
        parts = [part for each in numbers for part in (2 * each, 2 * each + 1)]
        begins = [self.begins[slice(*self._span(part))] for part in parts]
        marks = np.concatenate(begins) if begins else np.zeros(0, np.uint8)
        return Shelf(self.ngrams.subset(parts), marks, list(numbers))

    def title(self, document: int) -> list[int]:
        """The ids of a title."""
        return self.ngrams.document(2 * document)

    def text(self, document: int) -> tuple[list[int], npt.NDArray[np.uint8]]:
        """The ids of a text, and 1 where a sentence begins."""
        start, end = self._span(2 * document + 1)
        return self.ngrams.document(2 * document + 1), self.begins[start : end - 1]

    def _span(self, part: int) -> tuple[int, int]:
        start, end = self.ngrams.starts[part : part + 2].tolist()
        return start, end


def _first(documents: Iterator[Document]) -> list[Document]:
    """The next documents, at most `CHUNK`."""
    return list(islice(documents, CHUNK))


def _begins(document: Document, text: Tokens) -> list[int]:
    """Which tokens of a text begin a sentence."""
    starts = [start for start, _ in text.spans]
    found = set()
    for start, _ in sentence_spans(document):
        place = int(np.searchsorted(starts, start))
        # A line break before it, which is a token of its own, does not belong to the sentence; a
        # space does, as it does within others.
        while place < len(starts) and _breaks(document.text, text.spans, place):
            place += 1
        if place < len(starts):
            found.add(place)
    return sorted(found)


def _breaks(text: str, spans: Sequence[tuple[int, int]], place: int) -> bool:
    """Whether a token is white space with more in it than spaces."""
    start, end = spans[place]
    before = spans[place - 1][1] if place else 0
    return start == end and bool(text[before:start].strip(" "))

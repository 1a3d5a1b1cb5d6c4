"""All n-grams of a corpus: how often they occur, where, and which tokens can follow.

A suffix array over the token ids of a language model, 0 behind each document (other ids are moved
up by one), so that no n-gram goes over the end of a document. The papers use an FM-index, which
takes less room (3 bytes a token instead of 10) and more time: the tokens that may follow a prefix
of one, two, three or five are read off here 3, 7, 12 or 26 times faster (benchmarks/ngrams.py, 10
million tokens), and those behind a single token are kept. Files are mapped, not read.

FOLDER/tokens.npy suffixes.npy starts.npy           int32 (n,), int32 (n,), int64 (documents + 1,)
FOLDER/firsts.npy nexts.npy times.npy spans.npy     see `Ngrams`
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.data import HarnessError
from systems.models.hub import library
from systems.sizes import readable

Ints = npt.NDArray[np.integer[Any]]
MOST = 2**31 - 1
"""Tokens that places of 32 bits can tell apart."""
FILES = ("tokens", "suffixes", "starts", "firsts", "nexts", "times", "spans")


class Prefix(NamedTuple):
    """An n-gram of ``depth`` tokens: the suffixes ``low`` to ``high - 1`` begin with it."""

    low: int
    high: int
    depth: int

    @property
    def occurrences(self) -> int:
        """How often it occurs."""
        return self.high - self.low


class Next(NamedTuple):
    """Which tokens follow a prefix, in order, and how often each does."""

    ids: Ints
    counts: Ints


class Ngrams:
    """The index of some documents.

    tokens, suffixes: as in `systems.retrollm.suffixes`; starts: of each document, and the end
    firsts:  (ids + 2,): firsts[t] suffixes begin with less than t
    nexts, times, spans: what follows token t and how often stands at spans[t] … spans[t + 1]
    """

    def __init__(self, **arrays: Ints) -> None:
        self.tokens, self.suffixes, self.starts = (arrays[name] for name in FILES[:3])
        self.firsts, self.nexts, self.times, self.spans = (arrays[name] for name in FILES[3:])
        self._root = Next(*_present(self.firsts))
        widest = len(self._root.ids) + 1
        self._ids, self._counts = np.empty(widest, np.int64), np.empty(widest, np.int64)

    @classmethod
    def of(cls, documents: Iterable[Sequence[int] | Ints]) -> Ngrams:
        """The index of documents as token ids, in memory."""
        found, starts = array("i"), array("q", [0])
        for each in documents:
            ids = np.asarray(each, dtype=np.int64)
            if len(ids) and (ids.min() < 0 or ids.max() >= MOST):
                raise ValueError("token ids are from 0 on, and have 31 bits")
            found.frombytes((ids + 1).astype(np.int32).tobytes())
            found.append(0)
            starts.append(len(found))
            _check(len(found))
        tokens = np.frombuffer(found, np.int32) if found else np.zeros(0, np.int32)
        borders = np.frombuffer(starts, np.int64)
        return cls(tokens=tokens, starts=borders, **_sorted(tokens))

    def save(self, folder: Path) -> None:
        """Write the index."""
        for name in FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def open(cls, folder: Path) -> Ngrams:
        """The index of a folder, mapped."""
        try:
            return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FILES})
        except (OSError, ValueError) as error:
            raise HarnessError(
                f"{folder} holds no n-grams ({error}).", "Build it again."
            ) from error

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.starts) - 1

    def prefix(self, ids: Sequence[int]) -> Prefix:
        """An n-gram; of none, all suffixes."""
        found = Prefix(0, len(self.suffixes), 0)
        for each in ids:
            found = self.longer(found, each)
        return found

    def longer(self, prefix: Prefix, token: int) -> Prefix:
        """The n-gram that is one token longer."""
        token += 1
        if prefix.depth == 0:
            inside = 0 < token < len(self.firsts) - 1
            span = self.firsts[token : token + 2].tolist() if inside else [0, 0]
            return Prefix(span[0], span[1], 1)
        if token < 1 or prefix.occurrences == 0:
            return Prefix(0, 0, prefix.depth + 1)
        low, high = _loops().narrowed(self.tokens, self.suffixes, *prefix, token)
        return Prefix(low, high, prefix.depth + 1)

    def following(self, prefix: Prefix) -> Next:
        """What follows an n-gram inside documents."""
        if prefix.depth == 0:
            return self._root
        if prefix.occurrences == 0:
            return Next(self._ids[:0], self._counts[:0])
        if prefix.depth == 1:
            token = self.tokens[self.suffixes[prefix.low]]
            span = slice(*self.spans[token : token + 2].tolist())
            return Next(self.nexts[span], self.times[span])
        found = _loops().continued(self.tokens, self.suffixes, *prefix, self._ids, self._counts)
        return Next(self._ids[:found] - 1, self._counts[:found].copy())

    def located(self, prefix: Prefix) -> tuple[Ints, Ints]:
        """Where an n-gram occurs: documents, and places in them, in order."""
        places = np.sort(self.suffixes[prefix.low : prefix.high])
        documents = np.searchsorted(self.starts, places, side="right") - 1
        return documents, places - self.starts[documents]

    def document(self, number: int) -> list[int]:
        """The token ids of a document."""
        start, end = self.starts[number : number + 2].tolist()
        found: list[int] = (self.tokens[start : end - 1] - 1).tolist()
        return found

    def subset(self, numbers: Sequence[int]) -> Ngrams:
        """The index of some documents, numbered anew."""
        return Ngrams.of(self.document(each) for each in numbers)


def _loops() -> Any:
    """The compiled module, loaded when it is first needed."""
    from systems.retrollm import suffixes

    return suffixes


def _check(size: int) -> None:
    if size > MOST:
        raise HarnessError(
            f"the corpus has more tokens than one index holds ({MOST:,}, of {readable(8 * MOST)}).",
            "Index a part of the corpus.",
        )


def _sorted(tokens: Ints) -> dict[str, Ints]:
    """The suffixes of tokens in order, and what is kept of one and two tokens."""
    if not len(tokens):
        none = np.zeros(0, np.int32)
        spans = np.zeros(2, np.int64)
        return {"suffixes": none, "firsts": spans, "nexts": none, "times": none, "spans": spans}
    suffixes = library("pydivsufsort").divsufsort(tokens).astype(np.int32, copy=False)
    width = int(tokens.max()) + 2
    firsts = np.concatenate([[0], np.bincount(tokens, minlength=width - 1).cumsum()])
    # The last suffix is a lone 0: nothing follows it, and nothing is looked up behind a 0.
    first = tokens[suffixes]
    second = tokens[np.minimum(suffixes + 1, len(tokens) - 1)]
    changes = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1
    bounds = np.concatenate([[0], changes, [len(tokens)]])
    heads = bounds[:-1]
    inside = (first[heads] != 0) & (second[heads] != 0)
    nexts, times = second[heads][inside] - 1, np.diff(bounds)[inside]
    spans = np.searchsorted(first[heads][inside], np.arange(width))
    return {
        "suffixes": suffixes,
        "firsts": firsts.astype(np.int64),
        "nexts": nexts.astype(np.int32),
        "times": times.astype(np.int32),
        "spans": spans.astype(np.int64),
    }


def _present(firsts: Ints) -> tuple[Ints, Ints]:
    """The tokens that occur, and how often."""
    counts = np.diff(firsts)[1:]
    ids = np.flatnonzero(counts)
    return ids, counts[ids]

"""Where evidence may be: the texts of candidate documents end to end, the windows around clues in
them, and what is left of them as an evidence is written.

l tokens of all candidates together, -1 behind each text; a window is a range [start, end) of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from systems.retrollm.texts import Shelf

Places = npt.NDArray[np.integer[Any]]
Window = tuple[int, int]
BORDER = -1
TIMES, APIECE, MOST = 64, 32, 512
"""What is looked at: the first occurrences of a clue in a text, the first windows of a text, and
the windows of a question (as in the released code)."""


class Text(NamedTuple):
    """The texts of some documents, end to end.

    ids:    (l,), `BORDER` behind each text
    begins: (l,), where a sentence begins
    ends:   (l,), where a sentence ends: the next token begins one, or there is none
    which:  (l,), of which of the documents a token is
    starts: where each text starts, and the end
    titles: of the documents
    """

    ids: Places
    begins: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.bool_]
    which: Places
    starts: Places
    titles: list[list[int]]

    @classmethod
    def of(cls, shelf: Shelf, documents: Sequence[int]) -> Text:
        """The texts of documents of a shelf."""
        ids: list[int] = []
        begins: list[npt.NDArray[np.bool_]] = []
        starts = [0]
        for document in documents:
            text, marks = shelf.text(document)
            ids += [*text, BORDER]
            begins += [marks.astype(bool), np.zeros(1, bool)]
            starts.append(len(ids))
        whole = np.array(ids, np.int64)
        first = np.concatenate(begins) if begins else np.zeros(0, bool)
        last = np.zeros_like(first)
        last[:-1] = first[1:] | (whole[1:] == BORDER)
        which = np.repeat(np.arange(len(documents)), np.diff(starts))
        titles = [shelf.title(document) for document in documents]
        return cls(whole, first, last & (whole != BORDER), which, np.array(starts), titles)

    def place(self, token: int) -> tuple[int, int]:
        """Which of the documents a token is of, and where in its text it stands."""
        document = int(self.which[token])
        return document, token - int(self.starts[document])


def windows(text: Text, clues: Iterable[Sequence[int]], around: int, longest: int) -> list[Window]:
    """The windows around the occurrences of clues, ``around`` tokens (l_w) to each side and inside
    one text, overlapping ones merged as long as they have at most ``longest`` tokens (l_max). A
    clue in a title counts as standing before its text. At most `TIMES` occurrences of each clue in
    a text, `APIECE` windows of a text, and `MOST` in all are looked at, by the order of the
    documents."""
    clues, found = list(dict.fromkeys(map(tuple, clues))), list[Window]()
    for document, title in enumerate(text.titles):
        low, high = int(text.starts[document]), int(text.starts[document + 1]) - 1
        ids, name, spans = text.ids[low:high], np.array(title, np.int64), set[Window]()
        for clue in clues:
            if low < high and occurrences(name, clue):
                spans.add((low, min(high, low + around)))
            for start in occurrences(ids, clue)[:TIMES]:
                first, last = low + start - around, low + start + len(clue) + around
                spans.add((max(low, first), min(high, last)))
        found += _merged(sorted(spans), longest)[:APIECE]
    return found[:MOST]


def _merged(spans: Sequence[Window], longest: int) -> list[Window]:
    """Windows in order, overlapping ones merged while they have at most so many tokens."""
    merged: list[Window] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] and max(merged[-1][1], end) - merged[-1][0] <= longest:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def occurrences(ids: Places, clue: Sequence[int]) -> list[int]:
    """Where an n-gram begins."""
    size = len(ids) - len(clue) + 1
    if size < 1 or not clue:
        return []
    found = np.ones(size, bool)
    for place, each in enumerate(clue):
        found &= ids[place : place + size] == each
    starts: list[int] = np.flatnonzero(found).tolist()
    return starts


def bonus(size: int, found: Sequence[Window], scores: Sequence[float]) -> npt.NDArray[np.float64]:
    """For each token the best score of the windows that hold it (Eq. 12); outside of all 0, or the
    worst score if that is less, so that no window is worse than none."""
    best = np.full(size, -np.inf)
    for (start, end), score in zip(found, scores, strict=True):
        best[start:end] = np.maximum(best[start:end], score)
    return np.where(np.isneginf(best), least(scores), best)


def least(scores: Sequence[float]) -> float:
    """What a token outside of all windows is worth."""
    return min(0.0, *scores) if scores else 0.0

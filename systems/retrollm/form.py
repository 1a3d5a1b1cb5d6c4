"""What RetroLLM writes, in one pass:

    <|clue|> c1 <|sep|> c2 <|/clue|> <|evidence|> e1 <|sep|> e2 <|/evidence|> The answer is A.

The signs are words of their own, which no text spells. A model with open words has a sign of its
own before an answer and one behind it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from harness.data import Document
from systems.models.prompts import Prompts, TokenPrompts
from systems.models.words import ANSWER, END

SIGNS = ("<|clue|>", "<|/clue|>", "<|sep|>", "<|evidence|>", "<|/evidence|>")
LEAD = "The answer is"
"""What stands before an answer."""
SENTENCE = re.compile(r"(?<=[.!?])\s+")
"""What stands between two sentences, where a document does not say."""


class Form(NamedTuple):
    """The ids of the signs, of what stands before an answer, and of what ends it."""

    clue: int
    end_clue: int
    sep: int
    evidence: int
    end_evidence: int
    lead: list[int]
    end: list[int]

    @property
    def signs(self) -> tuple[int, ...]:
        """All signs."""
        return self[:5]

    @classmethod
    def of(cls, prompts: Prompts) -> Form:
        """Those of a model; `HarnessError` if it was not taught the signs."""
        clue, end_clue, sep, evidence, end_evidence = prompts.signs(SIGNS)
        lead, end = [ANSWER], [END]
        if isinstance(prompts, TokenPrompts):
            lead, end = prompts.tokens([LEAD])[0].ids, list(prompts.end)
        return cls(clue, end_clue, sep, evidence, end_evidence, lead, end)


def sentence_spans(document: Document) -> list[tuple[int, int]]:
    """Where the sentences of a document's text stand, in characters, without space around them:
    those that it names, or what stands between full stops."""
    if document.sentences:
        ends = [0]
        for each in document.sentences:
            ends.append(ends[-1] + len(each))
        spans = list(pairwise(ends))
    else:
        gaps = [match.span() for match in SENTENCE.finditer(document.text)]
        borders = [0, *(place for gap in gaps for place in gap), len(document.text)]
        spans = list(zip(borders[::2], borders[1::2], strict=True))
    bare = (_stripped(document.text, *span) for span in spans)
    return [(start, end) for start, end in bare if start < end]


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    said = text[start:end]
    return start + len(said) - len(said.lstrip()), start + len(said.rstrip())


def sentences(document: Document) -> list[str]:
    """The sentences of a document's text."""
    return [document.text[start:end] for start, end in sentence_spans(document)]

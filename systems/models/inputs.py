"""What an encoder's forward takes, from texts or from pairs of question and passage.

Through the checkpoint's own tokenizer, or in open words if it has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data import Document, HarnessError
from systems.models.hub import load_tokenizer, padded, positions
from systems.models.words import PAD, Lexicon, clipped, has_open_words
from systems.passages import with_text, words_of

if TYPE_CHECKING:
    from systems.models.openwords import OpenVocabulary


class Line(NamedTuple):
    """A text or a pair as ids; ``segments`` says where in a pair a token stands, if the model asks
    for it, and ``lexicon`` holds the slots of open words."""

    ids: list[int]
    segments: list[int] | None = None
    lexicon: Lexicon | None = None


class TokenInputs:
    """Through a Hugging Face tokenizer; of a pair, (question, "title text"), the passage is cut."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.pad = tokenizer.pad_token_id or 0

    def texts(self, texts: Sequence[str]) -> list[Line]:
        found = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        return [Line(ids or [self.pad]) for ids in found["input_ids"]]

    def pairs(self, pairs: Sequence[tuple[str, Document]]) -> list[Line]:
        questions = [question for question, _ in pairs]
        signs = self.tokenizer.num_special_tokens_to_add(pair=True)
        for ids in self.tokenizer(questions, add_special_tokens=False)["input_ids"]:
            _check_room(len(ids) + signs, self.max_length)
        found = self.tokenizer(
            questions,
            [words_of(passage) for _, passage in pairs],
            truncation="only_second",
            max_length=self.max_length,
        )
        segments = found.get("token_type_ids", [None] * len(pairs))
        return [Line(*each) for each in zip(found["input_ids"], segments, strict=True)]

    def tensors(self, lines: Sequence[Line], device: Any) -> dict[str, Any]:
        """The arguments of a forward; ``attention_mask`` (b, l) is always among them."""
        return _stacked(lines, self.pad, device)


class WordInputs:
    """In open words; a pair is ``<question> question <passage> title: text``, cut at its end."""

    def __init__(self, vocabulary: OpenVocabulary, max_length: int) -> None:
        self.vocabulary, self.max_length = vocabulary, max_length

    def texts(self, texts: Sequence[str]) -> list[Line]:
        lines = []
        for text in texts:
            lexicon = Lexicon(self.vocabulary.words)
            ids = lexicon.read(clipped(text, self.max_length))
            lines.append(Line(ids or [PAD], lexicon=lexicon))
        return lines

    def pairs(self, pairs: Sequence[tuple[str, Document]]) -> list[Line]:
        lines = []
        for question, passage in pairs:
            lexicon = Lexicon(self.vocabulary.words)
            short = with_text(passage, clipped(passage.text, self.max_length))
            ids, segments = lexicon.pair(question, short)
            _check_room(segments.count(0), self.max_length)
            kept = slice(self.max_length)
            lines.append(Line(ids[kept], segments[kept], lexicon))
        return lines

    def tensors(self, lines: Sequence[Line], device: Any) -> dict[str, Any]:
        """The arguments of a forward; ``attention_mask`` (b, l) is always among them."""
        found = _stacked(lines, PAD, device)
        slots = self.vocabulary.slots([line.lexicon for line in lines])
        embedded = self.vocabulary.embed(found.pop("input_ids"), slots)
        return {**found, "inputs_embeds": embedded}


def open_inputs(folder: Path, model: Any, max_length: int) -> TokenInputs | WordInputs:
    """How a model reads texts, cut at ``max_length`` or at what it has positions for."""
    if has_open_words(folder):
        from systems.models.openwords import load_vocabulary

        known = model.get_input_embeddings().weight.detach()
        return WordInputs(load_vocabulary(folder, known), _least(max_length, positions(model)))
    tokenizer = load_tokenizer(folder)
    most = _least(max_length, tokenizer.model_max_length, positions(model))
    return TokenInputs(tokenizer, most)


def _least(*limits: int | None) -> int:
    return min(limit for limit in limits if limit)


def _stacked(lines: Sequence[Line], pad: int, device: Any) -> dict[str, Any]:
    """Lines as rectangles: ids, mask and, if there are any, segments, (b, l) each."""
    # Padding on the right leaves every architecture's positions as they are.
    ids, mask = padded([line.ids for line in lines], pad, "right")
    found = {"input_ids": ids, "attention_mask": mask}
    segments = [line.segments for line in lines if line.segments is not None]
    if segments:
        found["token_type_ids"], _ = padded(segments, 0, "right")
    return {name: each.to(device) for name, each in found.items()}


def _check_room(question: int, most: int) -> None:
    if question >= most:
        raise HarnessError(
            f"the question takes {question} of {most} tokens and leaves none to a passage.",
            "Raise max_length= or take a model that reads more.",
        )

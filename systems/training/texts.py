"""Lessons as tensors: passages and questions in open words, and what a language model should say.

Symbols: w lessons of a batch, l tokens of a row, u slots of a lexicon, n questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.data import Exercise, Lesson
from systems.models.words import ANSWER, END, NUMBERS, PAD, Lexicon, OpenWords

PASSAGE_WEIGHT, QUESTION_WEIGHT, SIGN_WEIGHT, ANSWER_WEIGHT = WEIGHTS = 0.3, 0.5, 0.1, 2.0
"""What a token counts in the loss: of a passage, of a question, between, and of an answer."""


class Rows(NamedTuple):
    """Rows of tokens, padded on the right, (rows, l) each.

    weights: what it counts in the loss; 0 for the first token of a passage or question, and for
             padding
    before:  (rows, 1), slots of the lexicon that were met before the row
    """

    ids: Tensor
    mask: Tensor
    weights: Tensor
    before: Tensor


class Texts(NamedTuple):
    """A batch of lessons.

    lexicons:  (w,), of each lesson
    passages:  of all lessons in order, one row each
    home:      (passages,), the lesson of each
    questions: question and answer in one row each
    lesson:    (n,), the lesson of each question
    begins:    (n,), where its answer begins
    gold:      for each question, the places of its passages in the lesson
    """

    lexicons: list[Lexicon]
    passages: Rows
    home: Tensor
    questions: Rows
    lesson: Tensor
    begins: Tensor
    gold: list[tuple[int, ...]]


def texts_of(
    lessons: Sequence[Lesson], words: OpenWords, rng: random.Random, lists: bool = False
) -> Texts:
    """Write down a batch of lessons, each with a salt of its own.

    lists: the passages have numbers, and those of its gold passages are a question's answer
    """
    lexicons = [Lexicon(words, str(rng.random())) for _ in lessons]
    passages, questions = [], []
    home, lesson, begins, gold = [], [], [], []
    for place, (each, lexicon) in enumerate(zip(lessons, lexicons, strict=True)):
        size = len(each.documents)
        numbers = NUMBERS[:size] if lists else [""] * size
        for document, number in zip(each.documents, numbers, strict=True):
            before = len(lexicon.slots)
            row = _row(lexicon.passage(document, number), before)
            passages.append(row)
            home.append(place)
        before = len(lexicon.slots)
        for exercise in each.exercises:
            if lists and not exercise.gold:
                continue
            asked = lexicon.question(exercise.question)
            answer = lexicon.read(_listed(exercise, numbers) if lists else exercise.answer)
            questions.append(_row([*asked, ANSWER, *answer, END], before, len(asked)))
            lesson.append(place)
            begins.append(len(asked) + 1)
            gold.append(exercise.gold)
    where = (torch.tensor(home), torch.tensor(lesson), torch.tensor(begins))
    return Texts(lexicons, _rows(passages), where[0], _rows(questions), *where[1:], gold)


def _listed(exercise: Exercise, numbers: Sequence[str]) -> str:
    """The numbers of a question's gold passages."""
    return " ".join(numbers[place] for place in exercise.gold)


def _row(ids: list[int], before: int, asked: int | None = None) -> tuple[Any, ...]:
    """A row's ids and weights, and ``before``; ``asked`` tokens of it are a question."""
    weights = [PASSAGE_WEIGHT] * len(ids)
    if asked is not None:
        weights = (
            [QUESTION_WEIGHT] * asked + [SIGN_WEIGHT] + [ANSWER_WEIGHT] * (len(ids) - asked - 1)
        )
    weights[0] = 0.0
    return ids, weights, [before]


def _rows(rows: Sequence[tuple[Any, ...]]) -> Rows:
    parts = zip(zip(*rows, strict=True), (PAD, 0.0, 0), strict=True)
    ids, weights, before = (_stacked(part, pad) for part, pad in parts)
    return Rows(ids, (ids != PAD).to(torch.int64), weights, before)


def _stacked(rows: Sequence[Sequence[float]], pad: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])


def joined(texts: Texts) -> Rows:
    """The passages of each lesson as one row (w, l), in order."""
    rows, width = texts.passages, texts.passages.ids.shape[1]
    places: list[list[int]] = [[] for _ in texts.lexicons]
    for row, (home, tokens) in enumerate(
        zip(texts.home.tolist(), rows.mask.sum(1).tolist(), strict=True)
    ):
        places[home].extend(range(row * width, row * width + tokens))
    place = _stacked(places, -1)
    mask = (place >= 0).to(torch.int64)
    ids, weights = (each.flatten()[place.clamp(min=0)] * mask for each in (rows.ids, rows.weights))
    return Rows(ids, mask, weights, torch.zeros(len(places), 1, dtype=torch.int64))

"""Rankers from nothing, on the generated world: an encoder as E5, and a cross-encoder."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize
from transformers import BertConfig, BertForSequenceClassification, BertModel

from harness.data import Lesson
from systems.models.encoder import pooled
from systems.models.inputs import Line, WordInputs
from systems.models.openwords import OpenVocabulary, WordTable
from systems.models.words import PAD, Lexicon
from systems.passages import words_of
from systems.training.recipe import Recipe

KINDS = {
    "single": (3.0, 2),
    "check": (0.5, 2),
    "bridge": (3.0, 3),
    "comparison": (1.0, 3),
    "yesno": (0.5, 3),
    "composed": (1.0, 5),
}
TEMPERATURE = 0.05
"""What cosines are divided by (E5 has 0.01, and millions of pairs)."""


class RankingRecipe(Recipe):
    """A BERT on open words. A step has one salt: equal words are equal in all of its texts."""

    kinds = KINDS
    further: ClassVar[Mapping[str, Any]] = {"temperature": TEMPERATURE}
    steps = 2500
    rate = 1e-3
    sizes = (2, 4, 7, 10, 20)
    enough = 0.85
    shape: ClassVar[dict[str, Any]] = {
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "max_position_embeddings": 256,
        "pad_token_id": PAD,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    kind: ClassVar[type]
    bert: BertModel

    def new_model(self) -> nn.ModuleDict:
        shape = BertConfig(vocab_size=len(self.words), **self.shape)
        body = self.kind(shape)
        self.config = {**shape.to_dict(), "architectures": [self.kind.__name__]}
        self.bert = getattr(body, "bert", body)
        self.first_look()
        self.table = WordTable(self.words.rows, shape.hidden_size)
        known = self.bert.embeddings.word_embeddings.weight
        nn.init.normal_(known)
        nn.init.normal_(self.table.hashed)
        self.open = OpenVocabulary(self.words, self.table, known)
        return nn.ModuleDict({"body": body, "words": self.table})

    def first_look(self) -> None:
        """Change what the first layer begins with."""

    def weights(self) -> dict[str, Tensor]:
        return {**self.model["body"].state_dict(), "words.hashed": self.table.hashed}

    def inputs(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Lines as the model takes them, here as where it serves."""
        return WordInputs(self.open, self.bert.config.max_position_embeddings).tensors(lines, "cpu")


def _first_right(scores: Tensor, gold: Sequence[Sequence[int]]) -> float:
    """The share of rows (n, c) whose best place is gold."""
    best = scores.argmax(dim=-1).tolist()
    return sum(place in right for place, right in zip(best, gold, strict=True)) / len(gold)


def contrast(scores: Tensor, gold: Sequence[Sequence[int]]) -> Tensor:
    """The mean over questions of -log p(gold passage), each gold passage against all that are not
    gold. scores: (n, c)"""
    row = torch.tensor([n for n, places in enumerate(gold) for _ in places])
    place = torch.tensor(list(chain.from_iterable(gold)))
    right = torch.zeros_like(scores, dtype=torch.bool)
    right[row, place] = True
    mine = torch.zeros(len(row), scores.shape[1], dtype=torch.bool)
    mine[torch.arange(len(row)), place] = True
    each = scores[row].masked_fill(right[row] & ~mine, -torch.inf)
    found = log_softmax(each, dim=-1)[torch.arange(len(row)), place]
    weights = torch.tensor([1 / len(gold[n]) for n in row.tolist()])
    return -(found * weights).sum() / len(gold)


class MiniE5(RankingRecipe):
    """An encoder: the mean over tokens, cosine, all passages of a step as negatives (arXiv
    2212.03533, section 4)."""

    name = "mini-e5"
    kind = BertModel
    lessons = 60

    def encoded(self, texts: Sequence[str], salt: str) -> Tensor:
        """Texts to vectors (n, d) of length 1."""
        lines = []
        for text in texts:
            lexicon = Lexicon(self.words, salt)
            lines.append(Line(lexicon.read(text), lexicon=lexicon))
        inputs = self.inputs(lines)
        hidden = self.bert(**inputs).last_hidden_state
        return normalize(pooled(hidden, inputs["attention_mask"], "mean"), dim=-1)

    def loss(self, lessons: list[Lesson], rng: random.Random) -> tuple[Tensor, float]:
        places: dict[str, int] = {}
        gold, questions = [], []
        for documents, exercises in lessons:
            texts = ["passage: " + words_of(document) for document in documents]
            where = [places.setdefault(text, len(places)) for text in texts]
            for exercise in exercises:
                questions.append("query: " + exercise.question)
                gold.append([where[place] for place in exercise.gold])
        salt = str(rng.random())
        scores = self.encoded(questions, salt) @ self.encoded(list(places), salt).T / TEMPERATURE
        return contrast(scores, gold), _first_right(scores, gold)


class MiniCrossEncoder(RankingRecipe):
    """A sequence classifier that reads question and passage together; a list of passages is one
    choice."""

    name = "mini-cross-encoder"
    kind = BertForSequenceClassification
    shape: ClassVar[dict[str, Any]] = {**RankingRecipe.shape, "num_labels": 1}
    lessons = 30

    def first_look(self) -> None:
        """Keys begin as queries, so that equal words attend to each other from the start: a name in
        the question finds itself in the passage."""
        first = self.bert.encoder.layer[0].attention.self
        nn.init.normal_(first.query.weight, std=self.bert.config.hidden_size**-0.5)
        first.key.weight.data.copy_(first.query.weight)

    def loss(self, lessons: list[Lesson], rng: random.Random) -> tuple[Tensor, float]:
        salt = str(rng.random())
        lines, gold = [], []
        for documents, exercises in lessons:
            for exercise in rng.sample(list(exercises), min(4, len(exercises))):
                gold.append(exercise.gold)
                for document in documents:
                    lexicon = Lexicon(self.words, salt)
                    lines.append(Line(*lexicon.pair(exercise.question, document), lexicon))
        scores = self.model["body"](**self.inputs(lines)).logits.view(len(gold), -1)
        return contrast(scores, gold), _first_right(scores, gold)

"""What recipes do to their models: curriculum, mixtures, first looks, and the files they write."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from harness import registry
from harness.data import Document, Exercise, Lesson
from harness.spelling import parse_spelled
from systems.models.hub import model_folder
from systems.models.language import open_lm
from systems.models.prompts import Prompt
from systems.models.words import ANSWER, END, NEW, NUMBERS, OpenWords
from systems.training import language
from systems.training.language import MiniLlama, MiniLM, MiniLMMixtures, MiniSelector, mixture
from systems.training.ranking import MiniCrossEncoder, MiniE5, contrast
from systems.training.texts import joined, texts_of

TEACHER = registry.task(parse_spelled("mini-hotpotqa"))
LESSON = Lesson(
    [Document("", "Ada Brun was born in Varn.", "Ada Brun"), Document("", "Varn is a city.")],
    [Exercise("What is the birthplace of Ada Brun?", "Varn", (0,), "single")],
)


def recipe(cls: Any, seed: int = 0) -> Any:
    return cls(TEACHER, seed, 100)


# --- curriculum and state -------------------------------------------------------------


def test_lessons_grow_when_they_are_answered_and_only_then() -> None:
    made = recipe(MiniLM)
    for _ in range(300):
        made._grow(made.enough - 0.01)
    assert made.level == 0
    for _ in range(300):
        made._grow(1.0)
    assert made.level > 1
    for _ in range(3000):
        made._grow(1.0)
    assert made.level == len(made.sizes) - 1


@pytest.mark.parametrize("cls", [MiniLM, MiniE5])
def test_going_on_restores_all_that_the_next_step_depends_on(cls: Any, tmp_path: Path) -> None:
    one, other = recipe(cls), recipe(cls, seed=0)
    one.step()
    one.level, one.stayed, one.right = 2, 7, 0.4
    one.keep(tmp_path / "state", "notes")
    assert other.resume(tmp_path / "state") == "notes"
    assert other._state() == one._state() == [1, 2, 7, 0.4]
    assert one.step() == other.step()
    weights = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_looking_at_a_recipe_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    recipe(MiniE5)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- texts ----------------------------------------------------------------------------


def test_passages_are_joined_in_order_and_first_appearances_are_new() -> None:
    words = OpenWords.of(["was", "born", "in", "is", "a", "city", "what", "the", "of", ".", "?"])
    texts = texts_of([LESSON, LESSON], words, random.Random(0))
    rows = joined(texts)
    parts = [
        row[: int(n)] for row, n in zip(texts.passages.ids, texts.passages.mask.sum(1), strict=True)
    ]
    assert rows.ids[0][: int(rows.mask[0].sum())].tolist() == torch.cat(parts[:2]).tolist()
    made = recipe(MiniLM)
    made.words = words
    made.open = type(made.open)(words, made.table, torch.zeros(len(words), 96))
    hidden = torch.zeros(*texts.questions.ids.shape, 96)
    said = made.said(hidden, texts.questions, texts.lesson, texts.begins)
    answers = said.targets[said.question == 0]
    varn = len(words) + list(texts.lexicons[0].slots).index("varn")
    assert answers.tolist() == [varn, END]
    assert NEW in said.targets[said.question < 0].tolist()  # "birthplace" was not read before


# --- mixtures -------------------------------------------------------------------------


def test_a_mixture_of_one_passage_is_that_passage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all weight on one passage, questions start from the state of that passage alone."""
    made = recipe(MiniLMMixtures)
    monkeypatch.setattr(language, "ALONE", 1.0)
    monkeypatch.setattr(language, "mixture", lambda size, gold, rng: [1.0, 0.0])
    texts = texts_of([LESSON], made.words, random.Random(0))
    slots = made.open.slots(texts.lexicons)
    starts: list[Any] = []
    monkeypatch.setattr(made, "asked", lambda texts, slots, start: starts.append(start))
    made.read(texts, slots, random.Random(0))
    rows = texts.passages
    _, alone = made.body(made.open.embed(rows.ids[:1], slots), rows.mask[:1])
    for mixed, single in zip(starts[0].ssm, alone.ssm, strict=True):
        assert torch.allclose(mixed, single, atol=1e-6)


def test_the_share_read_apart_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(MiniLMMixtures)
    texts = texts_of([LESSON], made.words, random.Random(0))
    slots = made.open.slots(texts.lexicons)
    together: list[int] = []
    monkeypatch.setattr(language, "joined", lambda texts: together.append(1) or joined(texts))
    for share, expected in ((1.0, 0), (0.0, 20), (0.25, 15)):
        together.clear()
        monkeypatch.setattr(language, "ALONE", share)
        for draw in range(20):
            monkeypatch.setattr(rng := random.Random(0), "random", lambda draw=draw: draw / 20)
            made.read(texts, slots, rng)
        assert len(together) == expected


def test_gold_is_in_every_mixture() -> None:
    rng = random.Random(0)
    for _ in range(500):
        weights = mixture(6, (1, 4), rng)
        assert len(weights) == 6
        assert weights[1] > 0
        assert weights[4] > 0


# --- models ---------------------------------------------------------------------------


def test_heads_begin_by_looking_back() -> None:
    made = recipe(MiniLlama)
    embedded = torch.zeros(1, 12, 128)
    made.body.config._attn_implementation = "eager"
    seen = made.body(inputs_embeds=embedded, output_attentions=True).attentions[0][0]
    back = 8 - torch.arange(12)
    for head in range(4):
        assert (seen[head, 8] * back).sum().item() == pytest.approx(head + 1, abs=0.1)


def test_the_cross_encoder_begins_by_finding_equal_words() -> None:
    first = recipe(MiniCrossEncoder).bert.encoder.layer[0].attention.self
    assert torch.equal(first.query.weight, first.key.weight)


def test_contrast_is_the_mean_over_gold_passages() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    found = contrast(scores, [(0, 1), (2,)])
    each = [
        -torch.log_softmax(scores[0, [0, 2]], 0)[0],
        -torch.log_softmax(scores[0, [1, 2]], 0)[0],
        -torch.log_softmax(scores[1], 0)[2],
    ]
    assert found.item() == pytest.approx(((each[0] + each[1]) / 2 + each[2]).item() / 2)


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (MiniLM, AutoModelForCausalLM),
        (MiniLlama, AutoModelForCausalLM),
        (MiniCrossEncoder, AutoModelForSequenceClassification),
    ],
)
def test_transformers_opens_what_they_save(cls: Any, kind: Any, tmp_path: Path) -> None:
    made = recipe(cls)
    made.save(tmp_path)
    opened, told = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not [name for name in told["missing_keys"] if "lm_head" not in name]
    assert set(told["unexpected_keys"]) == {"words.hashed"}
    assert opened.config.vocab_size == len(made.words)


# --- lists ------------------------------------------------------------------------------


def test_a_list_is_asked_for_in_training_as_where_it_is_written(tmp_path: Path) -> None:
    made = recipe(MiniSelector)
    lesson = LESSON._replace(
        exercises=[
            Exercise("What is Varn?", "a city", (1, 0), "bridge"),
            Exercise("What is the trade of Varn?", "none", (), "unanswerable"),
        ]
    )
    texts = texts_of([lesson], made.words, random.Random(0), lists=True)
    assert texts.gold == [(1, 0)]
    lexicon = texts.lexicons[0]
    passages = joined(texts).ids[0].tolist()
    said = texts.questions.ids[0].tolist()
    numbers = [made.words.ids[number] for number in NUMBERS[:2]]
    assert said[-3:] == [numbers[1], numbers[0], END]
    made.save(tmp_path)
    lm: Any = open_lm(tmp_path)
    prompt = Prompt("What is Varn?", lesson.documents, choose=2)
    row = lm.prompts.render(prompt)
    assert row.ids == [*passages, *said[: said.index(ANSWER) + 1]]
    assert list(lexicon.slots) == list(row.lexicon.slots)
    assert lm.names(prompt).first == lm.names(prompt).later == [[each] for each in numbers]


def test_the_selector_begins_as_the_shipped_reader_and_learns_to_write_numbers() -> None:
    made = recipe(MiniSelector)
    reader = open_lm(model_folder("mini-llama"))
    known = reader.vocabulary.words  # type: ignore[attr-defined]
    for word in ("was", "<question>"):
        mine = made.open.known[made.words.ids[word]]
        assert torch.equal(mine, reader.vocabulary.known[known.ids[word]])  # type: ignore[attr-defined]
    first = made.step()["loss"]
    losses = [made.step()["loss"] for _ in range(25)]
    assert min(losses[-5:]) < 0.8 * first

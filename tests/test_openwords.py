"""Open words: how unknown words are read, scored and said again."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import Document
from systems.models.openwords import OpenVocabulary, WordTable
from systems.models.words import ANSWER, NEW, PASSAGE, QUESTION, Lexicon, OpenWords

WORDS = OpenWords.of(("the", "was", "born", "in", ".", ":", "?", "where"))
SIZE = 8


def vocabulary() -> Any:
    torch.manual_seed(0)
    return OpenVocabulary(WORDS, WordTable(WORDS.rows, SIZE), torch.randn(len(WORDS), SIZE))


def test_a_prompt_is_passages_question_and_the_sign_of_an_answer() -> None:
    passages = [Document("a", "Mira was born.", "Kolen"), Document("b", "the tower")]
    ids = Lexicon(WORDS).prompt(passages, "where?")
    signs = [each for each in ids if each in (PASSAGE, QUESTION, ANSWER)]
    assert signs == [PASSAGE, PASSAGE, QUESTION, ANSWER] and ids[-1] == ANSWER
    lexicon = Lexicon(WORDS)
    assert lexicon.prompt(passages, None) == [*ids[: ids.index(QUESTION)], QUESTION]
    assert lexicon.say(ids) == "Kolen: Mira was born. the tower where?"


@given(st.lists(st.sampled_from(["Mira", "KOLEN", "the", "was", "Ésta9", "."]), max_size=12))
@settings(max_examples=40, deadline=None)
def test_names_come_back_as_they_were_spelled(pieces: list[str]) -> None:
    text = " ".join(pieces).replace(" .", ".")
    lexicon = Lexicon(WORDS)
    assert lexicon.say(lexicon.read(text)) == text


def test_a_slot_is_the_sum_of_its_hashed_rows_whatever_else_a_text_holds() -> None:
    words = vocabulary()
    one, two = Lexicon(WORDS), Lexicon(WORDS)
    rows = [one.read("Mira was born"), two.read("where was Kolen Mira")]
    slots = words.slots([one, two])
    assert slots.shape == (2, 2, SIZE)
    hashed = words.table.hashed
    expected = sum(hashed[row] for row in WORDS.codes("mira")) / WORDS.hashes**0.5
    torch.testing.assert_close(slots[0, 0], expected)
    torch.testing.assert_close(slots[1, 1], expected)
    embedded = words.embed(torch.tensor([[*rows[0], 0], rows[1]]), slots)
    torch.testing.assert_close(embedded[0, 0], expected)
    torch.testing.assert_close(embedded[0, 1], words.known[WORDS.ids["was"]])
    torch.testing.assert_close(embedded[1, 3], expected)
    assert not torch.equal(words.slots([Lexicon(WORDS, "salt")])[0], slots[0, :1])


@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_word_is_likely_only_from_where_it_was_read(texts: list[list[int]]) -> None:
    words, lexicons = vocabulary(), [Lexicon(WORDS) for _ in texts]
    said = [" ".join(f"w{each}" if each < 5 else "the" for each in text) for text in texts]
    rows = [lexicon.read(text) for lexicon, text in zip(lexicons, said, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    slots = words.slots(lexicons)
    met = words.seen(ids, torch.zeros(len(rows), 1, dtype=torch.int64))
    hidden = torch.randn(len(rows), width, SIZE)
    odds = words.scores(hidden @ words.known.T, hidden, slots, met).softmax(-1)
    torch.testing.assert_close(odds.sum(-1), torch.ones(len(rows), width))
    targets = words.said(ids[:, 1:], met[:, :-1])
    for place, row in enumerate(rows):
        for t in range(len(row)):
            for slot in range(slots.shape[1]):
                read = len(WORDS) + slot in row[: t + 1]
                assert (odds[place, t, len(WORDS) + slot] > 0) == read
            if t:
                new = row[t] >= len(WORDS) and row[t] not in row[:t]
                assert targets[place, t - 1] == (NEW if new else row[t])


def test_given_words_count_as_read() -> None:
    words, lexicon = vocabulary(), Lexicon(WORDS)
    lexicon.read("Zork Vandel")
    ids = torch.tensor([lexicon.read("the Mira")])
    met = words.seen(ids, torch.tensor([[2]]))
    assert met.tolist() == [[2, 3]]

"""RetroLLM: clues, windows and decoding against brute force; what it reports; its training."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from conftest import Toy
from safetensors.torch import load_file

from harness import registry
from harness.cli import main
from harness.corpus import Corpus
from harness.data import (
    Answer,
    Brief,
    Document,
    Evidence,
    Example,
    Explained,
    Gold,
    HarnessError,
    Hit,
    Query,
    Reply,
)
from harness.examples import by_support
from harness.score.outputs import contains, score_output
from harness.train import train_on
from systems.models.language import open_lm
from systems.models.prompts import Prompt
from systems.models.tuning import Tunable
from systems.passages import part_of
from systems.retrollm import clues
from systems.retrollm.decoding import Guide, Rules, Sources, Walk
from systems.retrollm.form import SIGNS, Form, sentence_spans
from systems.retrollm.ngrams import Ngrams
from systems.retrollm.settings import Settings
from systems.retrollm.system import RetroLLM
from systems.retrollm.texts import Shelf, script_of
from systems.retrollm.training import RetroLLM as Recipe
from systems.retrollm.windows import BORDER, Text, bonus, windows

MAKERS = {
    "open": lambda folder: tiny_models.make_open_llama(folder),
    "llama": lambda folder: tiny_models.make_llama(folder, positions=1024),
    "qwen2": lambda folder: tiny_models.make_qwen2(folder, positions=1024),
}
RIVERS = "Odra Morava Vltava Ohre Lena Ural Nile Ebro Rhone Seine Tagus Duero".split()


def documents(count: int = 8) -> list[Document]:
    """Two sentences each; every other one says where its sentences end."""
    found = []
    for n in range(count):
        river, other = RIVERS[n % 12], RIVERS[(n + 5) % 12]
        parts = (
            f"The tower of {river} was built by {river}en {other}.",
            f" {river}en was born in {other}.",
        )
        sentences = parts if n % 2 else ()
        found.append(Document(f"d{n}", "".join(parts), f"{river} {n}", sentences))
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: Any) -> dict[str, Path]:
    """Models that know the signs, one by an adapter and two with weights of their own."""
    found = {}
    for kind, make in MAKERS.items():
        base, place = make(tmp_path_factory.mktemp(kind)), tmp_path_factory.mktemp(f"{kind}-signs")
        Tunable(base, lora=2 if kind == "llama" else 0, name=str(base), signs=SIGNS).save(place)
        found[kind] = place
    return found


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: Any) -> Path:
    return tiny_models.make_classifier(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    return tiny_models.corpus_of(documents(), tmp_path_factory.mktemp("corpus") / "corpus")


BRIEF = Brief(max_new_tokens=6)


def opened(folder: Path, corpus: Corpus, scorer: Path, place: Path, **options: Any) -> RetroLLM:
    system = RetroLLM(str(folder), scorer=str(scorer), **options)
    place.mkdir()
    system.build(corpus, place, BRIEF)
    system.open(corpus, place, BRIEF)
    return system


def asked(count: int = 4, **more: Any) -> list[Query]:
    return [Query(f"q{n}", f"Who built the tower of {RIVERS[n]}?", **more) for n in range(count)]


# --- signs --------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("kind", MAKERS)
def test_signs_are_learned_and_nothing_else_of_the_words_with_lora(
    tmp_path: Path, kind: str, lora: int
) -> None:
    base = MAKERS[kind](tmp_path / "base") if (tmp_path / "base").mkdir() is None else None
    assert base is not None
    tunable = Tunable(base, lora=lora, name=str(base), signs=SIGNS)
    form = Form.of(tunable.prompts)
    before = tunable.model.get_input_embeddings().weight.detach().clone()
    optimiser = torch.optim.AdamW(tunable.weights.values(), 1e-2)
    row = tunable.lm.prompts.render(Prompt("Who built the tower?", seek=True))
    text = [form.clue, *tunable.lm.prompts.within(row, "the tower"), form.end_clue]
    for _ in range(2):
        optimiser.zero_grad()
        loss = -tunable.lm.branched_log_p([row], [text], [0]).sum()
        loss.backward()
        optimiser.step()
    after = tunable.model.get_input_embeddings().weight.detach()
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    if lora:
        assert set(changed) <= set(form.signs) and form.clue in changed
        assert not tunable.model.get_input_embeddings().weight.grad
    place = tmp_path / "made"
    tunable.save(place)
    with torch.no_grad():
        said = tunable.lm.branched_log_p([row], [text], [0])
    served = Tunable(place, lora=lora, signs=SIGNS)
    assert Form.of(served.prompts) == form
    with torch.no_grad():
        again = served.lm.branched_log_p([row], [text], [0])
    assert torch.allclose(said, again, atol=1e-3)
    seen: list[Any] = []

    def hook(written: Sequence[Sequence[int]], scores: Any) -> Any:
        seen.append(scores[0].clone())
        return scores

    open_lm(place).generate([Prompt("Who built the tower?", seek=True)], 1, hook)
    with torch.no_grad():
        own = tunable.lm.next_log_p([row])[0]
    apart = [each[form.clue] - each[form.sep] for each in (own, seen[0])]
    assert apart[0].item() == pytest.approx(apart[1].item(), abs=5e-3)


def test_a_model_without_signs_is_refused(tmp_path: Path, corpus: Corpus, scorer: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    tiny_models.make_llama(base)
    system, place = RetroLLM(str(base), scorer=str(scorer)), tmp_path / "index"
    place.mkdir()
    with pytest.raises(HarnessError, match=r"does not know the sign.*Train it"):
        system.build(corpus, place, BRIEF)
    assert not any(place.iterdir())
    tokenizer = open_lm(base).prompts.tokenizer  # type: ignore[attr-defined]
    tokenizer.add_tokens(list(SIGNS[2:3]), special_tokens=True)
    tokenizer.save_pretrained(base)
    with pytest.raises(HarnessError, match="knows some of the signs"):
        Tunable(base, lora=2, signs=SIGNS)


# --- texts --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_a_shelf_holds_titles_and_texts_and_where_sentences_begin(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    odd = [
        Document("a", "", "Nothing"),
        Document("b", "No stop", ""),
        Document("c", "  Two.  Spaces! Then? ", "T", ("  Two.", "  Spaces!", " Then? ")),
        Document("d", "É una città. Ça va?", "Ünïcode"),
        Document("e", "It says <|sep|> and </s>. <|/evidence|>", "<|clue|>"),
    ]
    prompts = open_lm(folders[kind]).prompts
    script, signs = script_of(prompts), (*Form.of(prompts).signs, *prompts.ends)
    shelf = Shelf.of(script, [*documents(), *odd])
    shelf.save(tmp_path)
    script.save(tmp_path)
    again = Shelf.open(tmp_path)
    known = script_of(open_lm(folders[kind]).prompts, tmp_path)
    assert again.documents == shelf.documents == 13
    for number, document in enumerate([*documents(), *odd]):
        ids, begins = again.text(number)
        (read,) = known.read([document.text])
        assert read.ids == ids and again.title(number) == known.read([document.title])[0].ids
        assert min(ids, default=0) >= 0 and not {*ids} & {*signs}
        starts = [read.spans[place][0] for place in np.flatnonzero(begins)]
        assert starts == [start for start, _ in sentence_spans(document)]
        joined = "".join(document.text[start:end] for start, end in dict.fromkeys(read.spans))
        assert joined == "".join(document.text.split())
    some = again.some([3, 9])
    assert some.text(1)[0] == again.text(9)[0] and [some.number(0), some.number(1)] == [3, 9]
    # No n-gram goes from a title to its text.
    crossing = [again.title(0)[-1], again.text(0)[0][0]]
    assert again.ngrams.prefix(crossing).occurrences == 0


# --- clues --------------------------------------------------------------------------------


def contents(shelf: Shelf) -> list[list[list[int]]]:
    return [[shelf.title(n), shelf.text(n)[0]] for n in range(shelf.documents)]


def count(part: list[int], clue: Sequence[int]) -> int:
    return sum(part[n : n + len(clue)] == list(clue) for n in range(len(part) - len(clue) + 1))


def test_scores_and_fusion_are_those_of_an_independent_implementation(
    folders: dict[str, Path],
) -> None:
    shelf = Shelf.of(script_of(open_lm(folders["open"]).prompts), documents(12))
    held, rng = contents(shelf), random.Random(0)
    for _ in range(50):
        wanted = []
        for _ in range(rng.randint(1, 4)):
            part = rng.choice(rng.choice(held))
            start = rng.randrange(len(part))
            wanted.append(tuple(part[start : start + rng.randint(1, 3)]))
        wanted.append((10_000, 10_001))
        expected: dict[int, float] = {}
        for clue in dict.fromkeys(wanted):
            tf = [sum(count(part, clue) for part in document) for document in held]
            cf, df = sum(tf), sum(map(bool, tf))
            if cf:
                w = math.log(len(held) / cf) + math.log(len(held) / df)
                for document, times in enumerate(tf):
                    if times:
                        expected[document] = expected.get(document, 0) + w * math.log(1 + times)
        scored = clues.scores(shelf, wanted)
        found = dict(zip(scored.documents.tolist(), scored.scores.tolist(), strict=True))
        assert found.keys() == expected.keys()
        assert all(abs(found[each] - expected[each]) < 1e-12 for each in found)
        first, second = clues.best(scored, 5), rng.sample(range(len(held)), 6)
        whole = clues.fused([first, second])
        for document in range(len(held)):
            s = 0.0
            if document in first:
                s += 1 / (first.index(document) + 1)
            if document in second:
                s += 2 / (second.index(document) + 1)
            assert abs(whole.get(document, 0.0) - s) < 1e-12
        order = clues.ranked(whole)
        assert order == sorted(order, key=lambda d: (-whole[d], d))
    assert clues.weight(100, 4, 2) == pytest.approx(math.log(25) + math.log(50), abs=1e-12)


def test_rare_words_come_first_and_absent_ones_not_at_all() -> None:
    ngrams = Ngrams.of([[1, 2, 2, 2], [2, 3, 3]])
    words = [[(2,)], [(3,)], [(1,)], [(9,)], [()]]
    assert clues.rarest(ngrams, words, 2) == [(1,), (3,)]
    # All forms of a word count together, and come together.
    assert clues.rarest(ngrams, [[(2,), (1,)], [(3,), (9,)]], 1) == [(3,)]
    assert clues.rarest(ngrams, [[(2,), (1,), (2,)]], 1) == [(2,), (1,)]


# --- windows ------------------------------------------------------------------------------


def random_text(rng: random.Random) -> Text:
    ids: list[int] = []
    starts, begins, titles = [0], [], []
    for _ in range(rng.randint(1, 4)):
        size = rng.randint(0, 25)
        ids += [*(rng.randrange(6) for _ in range(size)), BORDER]
        marks = [place == 0 or rng.random() < 0.2 for place in range(size)]
        begins += [*marks, False]
        starts.append(len(ids))
        titles.append([rng.randrange(6) for _ in range(rng.randint(0, 3))])
    whole, first = np.array(ids), np.array(begins)
    last = np.zeros_like(first)
    last[:-1] = first[1:] | (whole[1:] == BORDER)
    which = np.repeat(np.arange(len(titles)), np.diff(starts))
    return Text(whole, first, last & (whole != BORDER), which, np.array(starts), titles)


def brute_windows(text: Text, wanted: list[list[int]], around: int, longest: int) -> list[Any]:
    found = []
    for document, title in enumerate(text.titles):
        low, high = text.starts[document], text.starts[document + 1] - 1
        spans = set()
        for clue in wanted:
            for place in range(low, high):
                if list(text.ids[place : place + len(clue)]) == clue and place + len(clue) <= high:
                    spans.add((max(low, place - around), min(high, place + len(clue) + around)))
            if count(title, clue) and high > low:
                spans.add((low, min(high, low + around)))
        current: Any = None
        for span in sorted(spans):
            if (
                current
                and span[0] <= current[1]
                and max(span[1], current[1]) - current[0] <= longest
            ):
                current = (current[0], max(span[1], current[1]))
                continue
            if current:
                found.append(current)
            current = span
        if current:
            found.append(current)
    return found


def test_windows_and_their_bonus_are_those_of_brute_force() -> None:
    rng = random.Random(1)
    for _ in range(300):
        text = random_text(rng)
        wanted = [[rng.randrange(6) for _ in range(rng.randint(1, 2))] for _ in range(3)]
        around, longest = rng.randint(0, 4), rng.randint(3, 14)
        made = windows(text, wanted, around, longest)
        assert made == brute_windows(text, wanted, around, longest)
        scores = [rng.uniform(-1, 1) for _ in made]
        best = bonus(len(text.ids), made, scores)
        for place in range(len(text.ids)):
            here = [s for (a, b), s in zip(made, scores, strict=True) if a <= place < b]
            assert best[place] == (max(here) if here else min(0.0, *scores) if scores else 0.0)


def test_no_window_is_worse_than_none() -> None:
    assert bonus(4, [(0, 2), (1, 3)], [-5.0, -2.0]).tolist() == [-5.0, -2.0, -2.0, -5.0]


def test_no_more_windows_are_looked_at_than_the_limits_allow() -> None:
    ids = np.array([1, 2, 3] * 2000 + [BORDER])
    marks = np.zeros(len(ids), bool)
    text = Text(ids, marks, marks, np.zeros(len(ids), np.int64), np.array([0, len(ids)]), [[]])
    assert len(windows(text, [[1]], 0, 1)) == 32


# --- what may come next -------------------------------------------------------------------

FORM = Form(100, 101, 102, 103, 104, [105, 106], [107])


def test_what_may_come_next_is_what_brute_force_allows() -> None:
    """Random ways through random texts: ids, bonus, closing and spent places."""
    rng, states = random.Random(2), 0
    for turn in range(150):
        text = random_text(rng)
        made = windows(text, [[1], [2]], 2, 8)
        scores = [rng.random() for _ in made]
        starts = "sentence" if turn % 2 else "any"
        rules = Rules(lookahead=7.0, starts=starts, evidences=3)
        walk = Walk(rules, FORM, Ngrams.of([[1, 2]]))
        for sign in (FORM.clue, 1, FORM.end_clue):
            walk.write(sign, sign)
        sources = Sources(range(len(text.titles)), text, made, scores)
        assert walk.waiting
        walk.begin(sources)
        walk.write(FORM.evidence, -1)
        prefix: list[int] = []
        spent = set[int]()
        best = bonus(len(text.ids), made, scores)
        while walk.stage == "evidence":
            options = walk.options()
            states += 1
            places = [
                place
                for place in range(len(text.ids))
                if list(text.ids[place : place + len(prefix)]) == prefix
                and (starts == "any" or text.begins[place])
                and place + len(prefix) <= len(text.ids)
                and not spent & set(range(place, place + len(prefix) + bool(not prefix)))
            ]
            going = [p for p in places if p + len(prefix) < len(text.ids)]
            going = [
                p + len(prefix)
                for p in going
                if text.ids[p + len(prefix)] != BORDER and p + len(prefix) not in spent
            ]
            expected: dict[int, float] = {}
            for place in going:
                worth = 7.0 * (0.0 if place in spent else best[place])
                token = int(text.ids[place])
                expected[token] = max(expected.get(token, -math.inf), worth)
            assert options.ids.tolist() == sorted(expected)
            assert options.bonus.tolist() == pytest.approx([expected[t] for t in sorted(expected)])
            ended = bool(prefix) and any(text.ends[p + len(prefix) - 1] for p in places)
            assert bool(options.signs) == (ended or not expected)
            if ended and expected:
                assert options.sign_bonus == pytest.approx(max(expected.values()))
            choices = [*options.ids.tolist(), *options.signs]
            chosen = rng.choice(choices)
            if chosen < 100:
                prefix.append(chosen)
                walk.write(chosen, chosen)
                continue
            walk.write(chosen, -1)
            if prefix:
                last = walk.evidence[-1]
                assert last.document is not None
                start = int(text.starts[last.document]) + last.place
                assert text.ids[start : start + len(prefix)].tolist() == prefix
                for place in places:
                    spent |= set(range(place, place + len(prefix)))
            prefix = []
    assert states > 600


def test_with_a_large_lambda_an_evidence_stays_in_the_best_window() -> None:
    """As long as one of its places continues what is written."""
    text = Text.of(_shelf([[5, 1, 2, 9, 5, 1, 3, 9, 5, 1, 4, 9]]), [0])
    made, scores = [(4, 8)], [0.9]
    walk = Walk(Rules(starts="any"), FORM, Ngrams.of([[1]]))
    for sign in (FORM.clue, 1, FORM.end_clue):
        walk.write(sign, sign)
    walk.begin(Sources([0], text, made, scores))
    walk.write(FORM.evidence, -1)
    for expected in (5, 1, 3):
        options = walk.options()
        best = options.ids[options.bonus == options.bonus.max()].tolist()
        assert expected in best and set(best) <= {5, 1, 3, 9}
        assert options.bonus.max() == pytest.approx(90) and (options.bonus <= 90).all()
        walk.write(expected, expected)


def _shelf(parts: list[list[int]]) -> Shelf:
    texts = [part for each in parts for part in ([], each)]
    begins = [np.ones(len(each) + 1, np.uint8) for each in texts]
    return Shelf(Ngrams.of(texts), np.concatenate([*begins, np.zeros(0, np.uint8)]))


def test_released_goes_by_the_order_of_windows() -> None:
    text = Text.of(_shelf([list(range(10, 30)), list(range(40, 60))]), [0, 1])
    made, scores = [(2, 12), (21, 31)], [0.2, 0.7]
    rules = Rules(mode="released", shortest=3, evidence_tokens=4)
    walk = Walk(rules, FORM, Ngrams.of([[1]]))
    for sign in (FORM.clue, 1, FORM.end_clue):
        walk.write(sign, sign)
    walk.begin(Sources([0, 1], text, made, scores))
    walk.write(FORM.evidence, -1)
    assert walk.options().ids.tolist() == [40, 41] and not walk.options().signs
    for token in (41, 42, 43):
        walk.write(token, token)
    assert list(walk.options().signs) == [FORM.end_evidence, FORM.sep]
    walk.write(44, 44)
    assert not len(walk.options().ids)  # as long as an evidence may be
    walk.write(FORM.sep, -1)
    assert walk.options().ids.tolist() == [12, 13]
    for token in (13, 14, 15, 16):
        walk.write(token, token)
    walk.write(FORM.sep, -1)
    assert list(walk.options().signs) == [FORM.end_evidence]  # there is no third window


def test_clues_are_n_grams_of_the_corpus_and_the_rest_of_the_pass_is_in_order() -> None:
    walk = Walk(
        Rules(most_clues=2, clue_tokens=2, answer_tokens=2), FORM, Ngrams.of([[1, 2, 3], [2, 4]])
    )
    assert list(walk.options().signs) == [FORM.clue]
    walk.write(FORM.clue, -1)
    assert walk.options().ids.tolist() == [1, 2, 3, 4] and not walk.options().signs
    walk.write(2, 2)
    assert walk.options().ids.tolist() == [3, 4]
    assert list(walk.options().signs) == [FORM.end_clue, FORM.sep]
    walk.write(4, 4)
    assert not len(walk.options().ids)
    walk.write(FORM.sep, -1)
    walk.write(3, 3)
    assert list(walk.options().signs) == [FORM.end_clue]
    walk.write(FORM.end_clue, -1)
    assert walk.said == [(2, 4), (3,)] and walk.waiting
    walk.begin(Sources([], Text.of(_shelf([]), [])))
    assert list(walk.options().signs) == [FORM.evidence]
    walk.write(FORM.evidence, -1)
    assert list(walk.options().signs) == [FORM.end_evidence]
    walk.write(FORM.end_evidence, -1)
    for sign in FORM.lead:
        assert list(walk.options().signs) == [sign]
        walk.write(sign, sign)
    assert walk.options().free
    walk.write(1, 1)
    walk.write(2, 2)
    assert list(walk.options().signs) == [107] and walk.cut


def test_clues_again_begin_anew_and_keep_what_is_spent() -> None:
    text = Text.of(_shelf([[5, 6, 9], [7, 8, 9]]), [0, 1])
    walk = Walk(Rules(again=1, mode="released", shortest=1), FORM, Ngrams.of([[1, 2]]))
    for sign in (FORM.clue, 1, FORM.end_clue):
        walk.write(sign, sign)
    walk.begin(Sources([3, 4], text, [(0, 3)], [0.5]))
    for sign in (FORM.evidence, 5, 6, 9, FORM.end_evidence):
        walk.write(sign, sign)
    assert list(walk.options().signs) == [FORM.clue, FORM.lead[0]]
    walk.write(FORM.clue, -1)
    assert walk.clues == [] and walk.options().ids.tolist() == [1, 2]
    for sign in (2, FORM.end_clue):
        walk.write(sign, sign)
    assert walk.waiting and walk.clues == [(2,)] and walk.said == [(1,), (2,)]
    walk.begin(Sources([4, 3], Text.of(_shelf([[7, 8, 9], [5, 6, 9]]), [0, 1]), [(0, 3)], [0.5]))
    walk.write(FORM.evidence, -1)
    assert walk.options().ids.tolist() == [7]  # the first of the windows that are there now
    for sign in (7, FORM.end_evidence):
        walk.write(sign, sign)
    assert [each.document for each in walk.evidence] == [3, 4]
    assert list(walk.options().signs) == [FORM.lead[0]]  # it has been written again once


def test_where_a_window_of_tokens_ends_the_pass_comes_to_an_answer() -> None:
    walk = Walk(Rules(), FORM, Ngrams.of([[1, 1, 1]]), room=6)
    for sign in (FORM.clue, 1):
        walk.write(sign, sign)
    assert list(walk.options().signs) == [FORM.end_clue] and not len(walk.options().ids)


# --- the system ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["paper", "released"])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_evidence_stands_in_the_document_it_names(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path, kind: str, mode: Any
) -> None:
    system = opened(folders[kind], corpus, scorer, tmp_path / "index", mode=mode, window=4)
    replies = system.solve(asked(6), 8)
    seen = 0
    for query, reply in zip(asked(6), replies, strict=True):
        assert reply.answer is not None and reply.answer.evidence is not None
        assert reply.raw.startswith("<|clue|>") and "<|/evidence|>" in reply.raw
        ids = [hit.id for hit in reply.hits]
        named = list(dict.fromkeys(each.doc_id for each in reply.answer.evidence))
        assert ids[: len(named)] == named and len(set(ids)) == len(ids) <= 8
        for each in reply.answer.evidence:
            assert each.span is not None
            text = corpus[each.doc_id].text
            said = text[slice(*each.span)]
            (whole,), (read,) = system.script.read([text]), system.script.read([said])
            places = [n for n, (start, _) in enumerate(whole.spans) if start == each.span[0]]
            if mode == "paper":  # in the other it may begin and end inside of a word
                assert whole.ids[places[0] : places[0] + len(read.ids)] == read.ids
                starts = {start for start, _ in sentence_spans(corpus[each.doc_id])}
                assert each.span[0] in starts
            seen += 1
        assert reply.counts["new_tokens"] > 0 and reply.stop in ("stop", "length")
        seen_at = reply.extras["windows"]
        assert 0 < len(seen_at) <= system.rules.evidences
        parts = [part_of(corpus[d], corpus[d].text[s:e]) for d, s, e, _ in seen_at]
        judged = system.classifier.judge([(query.text, each) for each in parts])
        scores = [system._scaled(each.score) for each in judged]
        assert [score for *_, score in seen_at] == pytest.approx(scores, abs=1e-5)
        assert scores == sorted(scores, reverse=True) and {d for d, *_ in seen_at} <= {*ids}
        for clue in reply.extras["clues"]:
            texts = " ".join(f"{d.title} {d.text}" for d in corpus).lower()
            assert "".join(clue.lower().split()) in "".join(texts.split())
    assert seen


@pytest.mark.parametrize("kind", MAKERS)
def test_batches_do_not_change_what_is_written(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path, kind: str
) -> None:
    system = opened(folders[kind], corpus, scorer, tmp_path / "index", window=3, merged=9)
    together = system.solve(asked(5), 8)
    for query, reply in zip(asked(5), together, strict=True):
        (alone,) = system.solve([query], 8)
        assert (alone.answer, alone.hits) == (reply.answer, reply.hits)
        assert alone.stop == reply.stop == ("length" if _tokens(system, reply) >= 6 else "stop")


def _tokens(system: RetroLLM, reply: Reply) -> int:
    """Tokens of an answer, as it was written."""
    said = reply.raw.rpartition("<|/evidence|>")[2]
    return len(system.script.read([said])[0].ids)


@pytest.mark.parametrize("kind", ["llama", "open"])
def test_without_look_ahead_it_is_plain_constrained_decoding(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path, kind: str
) -> None:
    """Greedy choice among what continues a sentence of the candidates, by whole forwards."""
    plain = opened(folders[kind], corpus, scorer, tmp_path / "a", lookahead=0.0, clues="none")
    tiny = opened(folders[kind], corpus, scorer, tmp_path / "b", lookahead=1e-9, clues="none")
    full = opened(folders[kind], corpus, scorer, tmp_path / "c", lookahead=1e4, clues="none")
    one, other, third = (each.solve(asked(6), 8) for each in (plain, tiny, full))
    assert [each.answer for each in one] == [each.answer for each in other]
    assert [each.answer for each in one] != [each.answer for each in third]
    if kind == "open":
        return
    lm, form = plain.lm, plain.form
    for query, reply in zip(asked(6), one, strict=True):
        hits = plain.expander.rankings([query], 100)[0]
        texts = [plain.script.read([corpus[hit.id].text])[0].ids for hit in hits]
        begins = [_sentence_starts(plain, corpus[hit.id]) for hit in hits]
        row = lm.prompts.render(Prompt(query.text, seek=True))
        first = [form.clue, form.end_clue, form.evidence]
        allowed = {texts[d][b] for d in range(len(texts)) for b in begins[d]}
        written: list[int] = []
        for _ in range(5):
            scores = _scores(lm, [*row.ids, *first, *written])
            token = max(allowed, key=lambda each: scores[each])
            written.append(token)
            allowed = {
                texts[d][b + len(written)]
                for d in range(len(texts))
                for b in begins[d]
                if texts[d][b : b + len(written)] == written and b + len(written) < len(texts[d])
            }
        assert reply.answer is not None and reply.answer.evidence
        evidence = reply.answer.evidence[0]
        assert evidence.span is not None
        said = corpus[evidence.doc_id].text[slice(*evidence.span)]
        assert plain.script.read([said])[0].ids[:5] == written


def _sentence_starts(system: RetroLLM, document: Document) -> list[int]:
    starts = [start for start, _ in system.script.read([document.text])[0].spans]
    return [starts.index(start) for start, _ in sentence_spans(document)]


def _scores(lm: Any, ids: list[int]) -> list[float]:
    with torch.inference_mode():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, -1].tolist()  # type: ignore[no-any-return]


def test_the_variants_are_what_they_say(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path
) -> None:
    made = {}
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "no clues": {"clues": "none"},
        "free clues": {"clues": "free"},
        "no expansion": {"expansion": "none"},
        "corpus": {"constraint": "corpus", "starts": "any"},
        "none": {"constraint": "none"},
        "few": {"candidates": 1},
        "again": {"again": 2},
        "raw": {"scale": "raw"},
        "released": {"mode": "released", "window": 4},
    }
    for name, options in variants.items():
        system = opened(folders["open"], corpus, scorer, tmp_path / name, **options)
        made[name] = system.solve(asked(6), 8)
    assert [r.answer for r in made["released"]] != [r.answer for r in made["plain"]]
    for name, replies in made.items():
        for reply in replies:
            assert reply.answer is not None and reply.answer.evidence is not None
            if name == "none":
                assert reply.answer.evidence == ()
            assert reply.raw.count("<|clue|>") == 1 and reply.raw.count("<|/evidence|>") == 1
            if name == "few":
                assert len({each.doc_id for each in reply.answer.evidence}) == 1
            assert bool(reply.counts["clues"]) == (name != "no clues")
            assert bool(reply.counts["scored_tokens"]) == (name not in ("corpus", "none"))


def test_a_closed_pool_is_all_that_there_is(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path
) -> None:
    ids = sorted(each.id for each in corpus)
    system = opened(folders["llama"], corpus, scorer, tmp_path / "index", window=4)
    for pool in (ids[:3], ids[4:5]):
        for reply in system.solve(asked(3, pool=tuple(pool)), 8):
            assert sorted(hit.id for hit in reply.hits) == pool
            assert reply.answer is not None and reply.answer.evidence
            assert {each.doc_id for each in reply.answer.evidence} <= set(pool)


def test_expanders(folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path) -> None:
    ids = [each.id for each in corpus]
    prior = tuple(Hit(each, -float(n)) for n, each in enumerate(ids[2:5]))
    system = opened(
        folders["llama"], corpus, scorer, tmp_path / "a", expansion="prior", clues="none"
    )
    assert system.needs_prior
    for reply in system.solve(asked(2, pool=tuple(sorted(ids[2:5])), prior=prior), 8):
        assert {hit.id for hit in reply.hits} == set(ids[2:5])
    run = tmp_path / "splade.run"
    run.write_text("n1 Q0 d1 1 2.0 x\n")
    outside = RetroLLM(str(folders["llama"]), expansion=f"trec:{run}", scorer=str(scorer))
    assert run in outside.files() and "n1" in outside.rankings()
    outside.ranked = {"q0": Reply(hits=(Hit(ids[3], 2.0), Hit(ids[1], 1.0)))}
    (tmp_path / "b").mkdir()
    outside.build(corpus, tmp_path / "b", BRIEF)
    outside.open(corpus, tmp_path / "b", BRIEF)
    assert [hit.id for hit in outside.expander.rankings(asked(2), 5)[0]] == [ids[3], ids[1]]
    assert outside.expander.rankings(asked(2), 5)[1] == []
    counts = [reply.counts for reply in outside.solve(asked(2), 8)]
    assert "not_in_file" not in counts[0] and counts[1]["not_in_file"] == 1
    assert [hit.id for hit in outside.expander.rankings(asked(1, pool=(ids[1],)), 5)[0]] == [ids[1]]
    assert not callable(RetroLLM(str(folders["llama"]), scorer=str(scorer)).rankings)


def test_a_splade_model_ranks_by_the_products_of_its_vectors(
    folders: dict[str, Path], corpus: Corpus, scorer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "splade"
    folder.mkdir()
    tiny_models.make_masked(folder)
    system = opened(folders["llama"], corpus, scorer, tmp_path / "index", expansion=str(folder))
    expander: Any = system.expander
    ranked = expander.rankings(asked(3), 8)
    for query, hits in zip(asked(3), ranked, strict=True):
        vector = expander._encoded([query.text])[0]
        texts = [f"{each.title} {each.text}" for each in corpus]
        alone = [float(expander._encoded([text])[0] @ vector) for text in texts]
        order = sorted(range(len(texts)), key=lambda n: -alone[n])
        assert [hit.id for hit in hits] == [corpus.id(n) for n in order]
        assert (vector >= 0).all()
    assert all(len(words) <= 8 for words in expander.words(asked(3)))
    assert system.solve(asked(1), 8)[0].answer is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lookahead": -1.0}, "lookahead=-1.0 is wrong"),
        ({"lookahead": math.inf}, "lookahead=inf is wrong"),
        ({"candidates": 0}, "candidates=0 is wrong"),
        ({"window": 0}, "window=0 is wrong"),
        ({"again": -1}, "again=-1 is wrong"),
        ({"clues": "none", "expansion": "none"}, "no candidate documents"),
        ({"clues": "none", "again": 1}, "clues=none,again contradicts itself"),
        ({"constraint": "corpus", "mode": "released"}, "contradicts itself"),
        ({"expansion": "BM25"}, "there is no expander 'BM25'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        RetroLLM(**options)


def test_model_and_scorer_are_of_one_world(folders: dict[str, Path]) -> None:
    with pytest.raises(HarnessError, match="not of one world"):
        assert RetroLLM(str(folders["llama"])).world


# --- training -----------------------------------------------------------------------------


def examples(count: int = 12) -> list[Example]:
    found = []
    for n in range(count):
        held = tuple(documents(8))
        one = held[n % 8]
        first, second = (one.text[a:b] for a, b in sentence_spans(one))
        river = RIVERS[n % 8]
        how = Explained((river, "was built"), (first, second), (f"{river}en",))
        found.append(
            Example(
                f"Where was the one born that built the tower of {river}, number {n}?",
                held,
                RIVERS[(n + 5) % 12],
                explained=how,
            )
        )
    return found


def recipe(base: Path, scorer: Path, seed: int = 0, **options: Any) -> Recipe:
    told = {"batch": 4, "epochs": 4, "micro": 2, "rate": 1e-2, "lora": 2, **options}
    return Recipe(examples(), seed, Settings(model=str(base), scorer=str(scorer), **told))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: Any) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp(f"{kind}-base")) for kind, make in MAKERS.items()}


@pytest.mark.parametrize("kind", MAKERS)
def test_training_learns_and_a_killed_one_goes_on_to_the_same_weights(
    bases: dict[str, Path], scorer: Path, tmp_path: Path, kind: str
) -> None:
    whole = recipe(bases[kind], scorer)
    losses = [whole.step()["loss"] for _ in range(whole.steps)]
    assert losses[-1] < losses[0]
    first = recipe(bases[kind], scorer)
    for _ in range(5):
        first.step()
    first.keep(tmp_path / "state", "notes")
    second = recipe(bases[kind], scorer)
    assert second.resume(tmp_path / "state") == "notes"
    while second.done < second.steps:
        second.step()
    for name, each in whole.learner.tunable.weights.items():
        assert torch.equal(each, second.learner.tunable.weights[name]), name
    whole.save(tmp_path / "made")
    again = open_lm(tmp_path / "made")
    assert Form.of(again.prompts) == whole.form


def test_what_counts_in_the_loss(bases: dict[str, Path], scorer: Path) -> None:
    made = recipe(bases["open"], scorer, masked=0.8, without_clues=0.0)
    sequence = made.sequence(examples()[0])
    told = made._told(sequence, random.Random(0))
    assert len(told.weights) == len(told.parts) == len(told.asked.ids) - told.asked.start
    evidence = [w for w, part in zip(told.weights, told.parts, strict=True) if part == "e"]
    # "The tower of Odra was built by Odraen Morava ." has 10 tokens, its first and last count.
    assert evidence[:10] == [1.0, *[0.0] * 8, 1.0]
    assert {w for w, part in zip(told.weights, told.parts, strict=True) if part == "a"} == {2.0}
    assert {w for w, part in zip(told.weights, told.parts, strict=True) if part == "c"} == {1.0}
    unmasked = recipe(bases["open"], scorer, without_clues=1.0, masked=0.0)
    told = unmasked._told(sequence, random.Random(0))
    assert 0.0 not in told.weights and told.parts.count("c") == 3


def test_sequences_that_the_model_cannot_read_are_left_out(
    bases: dict[str, Path], scorer: Path
) -> None:
    made = recipe(bases["open"], scorer)
    made.lm.window = 70
    assert 0 < made.step()["too_long"] < 1
    made.lm.window = 10
    with pytest.raises(HarnessError, match="fits into the model's 10 tokens"):
        made.step()


def test_a_sequence_is_written_as_the_decoder_reads_it(
    bases: dict[str, Path], scorer: Path
) -> None:
    """Teacher forcing goes through the very rules of decoding, with clues written again or not."""
    for kind, again in (("open", True), ("llama", True), ("qwen2", False)):
        made = recipe(bases[kind], scorer, again=again, without_clues=0.0)
        script = script_of(made.lm.prompts)
        shelf = Shelf.of(script, documents())
        for one in examples(4):
            sequence = made.sequence(one)
            told = made._told(sequence, random.Random(0))
            new = told.asked.ids[told.asked.start :]
            rules = Rules(
                again=3 if again else 0,
                evidences=20,
                clue_tokens=50,
                evidence_tokens=99,
                answer_tokens=99,
            )
            walk = Walk(rules, made.form, shelf.ngrams)
            text = Text.of(shelf, range(shelf.documents))
            row = told.asked.rendered
            for each in new:
                if walk.waiting:
                    walk.begin(Sources(range(shelf.documents), text))
                options = walk.options()
                token = _corpus_id(script, row, each)
                assert options.free or each in options.signs or token in options.ids.tolist()
                walk.write(each, token)
            assert len(walk.evidence) == len(sequence.evidence)
            assert len(walk.said) == len(sequence.clues) + len(sequence.bridges)


def _corpus_id(script: Any, row: Any, token: int) -> int:
    known = getattr(script, "words", None)
    if known is None or token < len(known):
        return token
    return script.ids.get(list(row.lexicon.slots)[token - len(known)], -1)  # type: ignore[no-any-return]


def test_only_questions_of_which_it_is_known_how_they_are_answered_are_learned_from(
    bases: dict[str, Path], scorer: Path, tmp_path: Path
) -> None:
    bare = [replace(each, explained=None) for each in examples(3)]
    settings = Settings(model=str(bases["open"]), scorer=str(scorer), lora=2)
    with pytest.raises(HarnessError, match="for none it is known"):
        Recipe(bare, 0, settings)
    file = tmp_path / "how.jsonl"
    sentence = examples()[0].explained.evidence[0]  # type: ignore[union-attr]
    rows = [
        {"question": bare[0].question, "clues": ["Odra"], "evidence": [sentence]},
        {"question": bare[1].question, "clues": ["Odra"], "evidence": [sentence, "Not there."]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    made = Recipe(bare, 0, replace(settings, explanations=str(file)))
    assert len(made.train) == 1 and made.left_out == 2
    assert made.described()["explanations"]
    with pytest.raises(HarnessError, match="are not of one world"):
        replace(settings, scorer="mini-cross-encoder").checked()
    file.write_text('{"question": "x", "clues": "Odra"}')
    with pytest.raises(HarnessError, match="a row needs 'question'"):
        Recipe(bare, 0, replace(settings, explanations=str(file)))
    with pytest.raises(HarnessError, match="does not exist"):
        Recipe(bare, 0, replace(settings, explanations="nowhere.jsonl"))
    for wrong in ({"epochs": 0}, {"masked": 1.5}, {"rate": 0.0}, {"without_clues": -0.1}):
        with pytest.raises(HarnessError, match=f"{next(iter(wrong))}="):
            replace(settings, **wrong).checked()


def test_supporting_facts_explain_a_question_that_names_a_title(tmp_path: Path) -> None:
    parts = {
        "Odra": ("The Odra is long.", " It is in Opole."),
        "Opole": ("It is big.", " He is Jan."),
    }
    held = [Document("", "".join(each), title, each) for title, each in parts.items()]
    corpus = tiny_models.corpus_of(held, tmp_path / "corpus")
    ids = {document.title: document.id for document in corpus}
    facts = (("Opole", 1), ("Odra", 1), ("Odra", 9), ("Lena", 0))
    gold = Gold(dict.fromkeys(ids.values(), 1), ("Jan",), facts)
    found = by_support("Who is mayor where the odra is?", gold, corpus)
    assert found == Explained(("Odra",), ("It is in Opole.", "He is Jan."), ("Opole",))
    assert by_support("Who is mayor?", gold, corpus) is None
    assert by_support("the Odra?", replace(gold, sentences=None), corpus) is None


def test_the_mini_world_explains_its_questions() -> None:
    from harness.spelling import parse_spelled

    for name in ("mini-triviaqa", "mini-hotpotqa", "mini-musique"):
        task = registry.task(parse_spelled(f"{name}:questions=40"))
        explained = task.explained("train")
        loaded = task.load(None, "train", None)
        known = 0
        for question in loaded.questions:
            how = explained.get(question.text)
            if how is None or not question.answers:
                continue
            known += 1
            held = {each.document.text for each in question.candidates if each.grade}
            assert all(any(said in text for text in held) for said in how.evidence)
            assert question.answers[0] in how.evidence[-1] or any(
                alias in how.evidence[-1] for alias in question.answers
            )
            assert how.clues[0].lower() in question.text.lower()
            for bridge in how.bridges:
                assert any(bridge in said for said in how.evidence)
            # Nothing that the question does not determine: no clue gives the answer away.
            assert not any(question.answers[0].lower() in clue.lower() for clue in how.clues)
        assert known >= 30
    assert Toy().explained("train") == {}


def test_training_and_running_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "made"
    for name in ("base", "scorer"):
        (tmp_path / name).mkdir()
    tiny_models.make_llama(tmp_path / "base")
    task = "mini-triviaqa:documents=120,questions=12"
    more = ["--epochs", "1", "--batch", "8", "--lora", "2"]
    for _ in range(2):  # the second finds it whole
        code = main(["train", "retrollm", "--task", task, "--out", str(place), *more])
        assert code == 0
    about = json.loads((place / "about.json").read_text())
    assert about["recipe"]["epochs"] == 1 and about["questions"]["train"] > 5
    made = load_file(place / "signs.safetensors")
    assert set(made) == {"input", "first"} and len(made["input"]) == 5
    code = main(
        [
            *("run", "--task", task, "--setting", "corpus", "--limit", "4"),
            *("--system", f"retrollm:model={place}", f"retrollm:model={place},mode=released"),
            *("--metric", "Acc", "--metric", "AccOutput", "--metric", "EvidenceR@1"),
            *("--out", str(tmp_path / "run")),
        ]
    )
    out = capsys.readouterr().out
    assert code == 0 and "EvidenceR@1" in out and "AccOutput" in out
    tiny_models.make_classifier(tmp_path / "scorer")
    told = {"model": "./base", "scorer": "./scorer"}
    monkeypatch.setattr(Toy, "splits", ("test", "train"))
    with pytest.raises(HarnessError, match="toy does not say how its questions are answered"):
        train_on("retrollm", tmp_path / "other", tasks=["toy"], options=told)
    code = main(["run", "--task", "toy", "--system", f"retrollm:model={place}", "--out", "other"])
    assert code == 2


# --- what is measured of it ---------------------------------------------------------------


def test_an_answer_is_in_a_text_as_whole_words() -> None:
    assert contains("They know it: no!", ["no"]) and not contains("they know it", ["No"])
    assert contains("Born in New York City.", ["new york"])
    assert not contains("Newport", ["new"]) and contains("the", ["a"]) and not contains("x", ["a"])


def test_accuracy_of_the_answer_is_not_that_of_all_that_was_written() -> None:
    gold = Gold({"d1": 1, "d2": 1, "d3": 0}, ("Odra",))
    evidence = (Evidence("d2"), Evidence("d2"), Evidence("d4"), Evidence("d1"))
    answer = Answer("the Lena", evidence)
    raw = "<|evidence|>The Odra is long.<|/evidence|> the Lena"
    values = {n: score_output(n, answer, raw, gold) for n in ("Acc", "AccOutput")}
    assert values == {"Acc": 0.0, "AccOutput": 1.0}
    recall = [score_output(f"EvidenceR@{k}", answer, raw, gold) for k in (1, 2, 3)]
    assert recall == [0.5, 0.5, 1.0]
    assert score_output("EvidenceR@1", Answer("x"), "", gold) is None
    assert score_output("EvidenceR@1", answer, "", replace(gold, relevance={})) is None
    assert score_output("Acc", answer, "", replace(gold, answers=())) is None


def test_a_guide_is_a_hook_of_the_language_model() -> None:
    from systems.models.language import Guiding

    assert issubclass(Guide, Guiding)

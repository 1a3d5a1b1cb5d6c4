"""DRO: lists under a grammar, the E-step's weights, EM, and what training keeps and writes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from conftest import Toy
from safetensors.torch import load_file, save_file

from harness import api, registry
from harness.cli import main
from harness.corpus import Corpus
from harness.data import Brief, Document, Example, HarnessError, Hit, Query
from harness.registry import capabilities
from harness.run.spans import recorded
from harness.run.stages import Station
from harness.train import train_on
from systems.dro.em import Norm, Said, log_sum, posterior
from systems.dro.selector import Asked, Drawn, Grammar, Selector
from systems.dro.system import Dro as DroSystem
from systems.dro.training import Dro, Reading, Settings, judged, parted
from systems.models.language import open_lm
from systems.models.prompts import Named
from systems.models.tuning import Tunable
from systems.models.words import NUMBERS

MAKERS = {
    "open": lambda folder: tiny_models.make_open_llama(folder, more=NUMBERS),
    "llama": lambda folder: tiny_models.make_llama(folder, positions=1024),
    "qwen2": lambda folder: tiny_models.make_qwen2(folder, positions=1024),
}
RIVERS = "Odra Morava Vltava Ohre Lena Ural Nile Ebro Rhone Seine Tagus Duero".split()


def candidates(count: int, start: int = 0) -> list[Document]:
    return [
        Document(f"d{n}", f"The tower of {river} was built by {river}en.", river)
        for n, river in enumerate(RIVERS[start : start + count])
    ]


def example(number: int = 0, count: int = 4, answer: str = "") -> Example:
    documents = tuple(candidates(count, number % 4))
    river = documents[number % count].title
    return Example(
        f"Who built the tower of {river}?",
        documents,
        answer or f"{river}en",
        support=(documents[number % count].id,),
        retrieved=tuple(each.id for each in documents),
        group=str(number),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: Any) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in MAKERS.items()}


@pytest.fixture(scope="module", params=MAKERS)
def selector(request: Any, folders: dict[str, Path]) -> Selector:
    return Selector(Tunable(folders[request.param]).lm)


# --- lists --------------------------------------------------------------------------------


def test_a_grammar_reads_what_it_writes_and_allows_nothing_else() -> None:
    first = [[5, 1, 6], [5, 1, 2, 6], [5, 3, 6]]
    grammar = Grammar(Named(first, [[9, *each] for each in first]), 2, [0])
    assert grammar.tokens((1, 0)) == [5, 1, 2, 6, 9, 5, 1, 6]
    assert grammar.read([]) == ([], [5])
    assert grammar.read([5, 1]) == ([], [2, 6])
    assert grammar.read([5, 1, 2, 6, 9, 5]) == ([1], [1, 3])
    assert grammar.read([5, 1, 2, 6, 9, 5, 1]) == ([1], [6])  # the second is used
    assert grammar.read(grammar.tokens((2, 1))) == ([2, 1], [0])
    assert grammar.longest == 4 + 5 + 1
    with pytest.raises(ValueError):
        Grammar(Named(first, first), 4, [0])


def test_all_lists_together_have_probability_one(selector: Selector) -> None:
    every = list(permutations(range(4), 2))
    asked = [Asked("who built the tower?", candidates(4), 2), Asked("", candidates(4, 2), 2)]
    for log_p in selector.log_p(asked, [every, every]):
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert log_p.std() > 0.01


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.95)])
def test_drawn_lists_are_whole_and_their_probability_is_that_of_teacher_forcing(
    selector: Selector, temperature: float, top_p: float
) -> None:
    """10,000 lists of random weights over the three kinds of model and both ways of drawing."""
    generator = torch.Generator().manual_seed(0)
    asked = [Asked(f"who built {n}?", candidates(12 - n), 3) for n in range(3)]
    drawn = selector.drawn(asked, 560, generator, temperature, top_p)
    found = selector.log_p(asked, [[each.places for each in some] for some in drawn])
    for each, some, log_p in zip(asked, drawn, found, strict=True):
        for one in some:
            assert len(set(one.places)) == 3
            assert set(one.places) <= set(range(len(each.candidates)))
        said = torch.tensor([one.log_p for one in some])
        assert torch.allclose(said, log_p.float(), atol=1e-5)
        exact = torch.tensor([one.log_q for one in some])
        assert torch.allclose(said, exact) == (temperature == 1)


def test_lists_are_drawn_as_often_as_they_say(selector: Selector) -> None:
    generator = torch.Generator().manual_seed(1)
    for temperature, top_p in [(1.0, 1.0), (0.5, 1.0), (1.5, 0.8)]:
        asked = [Asked("who?", candidates(3), 2)]
        (drawn,) = selector.drawn(asked, 2000, generator, temperature, top_p)
        often = {
            z: sum(each.places == z for each in drawn) / 2000 for z in permutations(range(3), 2)
        }
        said = {each.places: math.exp(each.log_q) for each in drawn}
        assert all(abs(share - said.get(z, 0)) < 0.05 for z, share in often.items())
        assert sum(said.values()) <= 1 + 1e-6


def test_greedy_lists_do_not_depend_on_the_batch_and_take_the_likeliest(selector: Selector) -> None:
    asked = [Asked(f"who built {n}?", candidates(4 + n), 2) for n in range(3)]
    together = selector.best(asked)
    for each, found in zip(asked, together, strict=True):
        (alone,) = selector.best([each])
        assert alone.places == found.places and alone.log_p == pytest.approx(found.log_p, abs=1e-5)
        every = list(permutations(range(len(each.candidates)), 2))
        (log_p,) = selector.log_p([each], [every])
        share = log_p.exp().view(len(each.candidates), -1).sum(1)  # of a first place
        assert int(share.argmax()) == found.places[0]


def test_more_is_asked_for_than_there_is(selector: Selector) -> None:
    (found,) = selector.best([Asked("who?", candidates(2), 5)])
    assert sorted(found.places) == [0, 1]


# --- the E-step ---------------------------------------------------------------------------


def certain(lists: Sequence[tuple[int, ...]], log_p: Sequence[float]) -> list[Drawn]:
    """Every list drawn once: with the right ratio the weights are the exact posterior."""
    return [Drawn(z, p, -math.log(len(lists))) for z, p in zip(lists, log_p, strict=True)]


def test_weights_sum_to_one_and_equal_lists_are_one() -> None:
    rng = random.Random(0)
    lists = list(permutations(range(4), 2))
    for norm in ("mean", "sum"):
        for _ in range(100):
            drawn = [Drawn(rng.choice(lists), p := -rng.expovariate(1), p) for _ in range(8)]
            said = {z: Said("", -rng.expovariate(0.1), rng.randint(1, 5)) for z in lists}
            found = posterior(drawn, said, norm)
            assert abs(sum(found.weights) - 1) < 1e-12
            assert len(found.lists) == len({each.places for each in drawn})
            assert 1 <= found.figures["ess"] <= 8 + 1e-9
            assert found.figures["elbo"] <= found.figures["bound"] + 1e-12


def test_by_hand() -> None:
    drawn = [Drawn((0,), -1.0, -1.0), Drawn((0,), -1.0, -1.0), Drawn((1,), -2.0, -1.5)]
    said = {(0,): Said("a", -2.0, 2), (1,): Said("b", -3.0, 1)}
    found = posterior(drawn, said, "sum")
    one, other = 2 * math.exp(-2), math.exp(-3.5)
    assert found.weights == pytest.approx([one / (one + other), other / (one + other)])
    assert found.answers == ["a", "b"]
    assert found.figures["elbo"] == pytest.approx((-2 - 2 - 3.5) / 3)
    assert found.figures["bound"] == pytest.approx(math.log((one + other) / 3))
    mean = posterior(drawn, said, "mean")
    one = 2 * math.exp(-1)
    assert mean.weights[0] == pytest.approx(one / (one + math.exp(-3.5)))
    none = posterior(drawn, said, "none")
    assert none.weights[0] == pytest.approx(2 / (2 + math.exp(-0.5)))


def test_one_sample_weighs_one_and_several_differ() -> None:
    """What the released code does, and why it is plain fine-tuning."""
    said = {(place,): Said("", -float(place), 1) for place in range(8)}
    one = posterior([Drawn((3,), -1.0, -1.0)], said, "mean")
    assert one.weights == [1.0] and one.figures["ess"] == 1 and one.figures["variance"] == 0
    eight = posterior([Drawn((place,), -1.0, -1.0) for place in range(8)], said, "mean")
    assert len(set(eight.weights)) == 8


def test_a_generator_that_ignores_its_passages_gives_equal_weights() -> None:
    said = {(place,): Said("", -5.0, 3) for place in range(4)}
    found = posterior([Drawn((place,), -1.0, -1.0) for place in range(4)], said, "sum")
    assert found.weights == pytest.approx([0.25] * 4)
    assert found.figures["ess"] == pytest.approx(4)


def test_an_exact_step_never_lowers_the_likelihood() -> None:
    """200 random problems: 12 lists of two of four passages, three questions, free tables p(z|x)
    and p(y|z); the posterior of all lists, then the M-step in closed form."""
    rng = np.random.default_rng(0)
    lists = list(permutations(range(4), 2))
    for _ in range(200):
        select = rng.dirichlet(np.full(12, 0.5), size=3)
        answer = rng.dirichlet(np.full(5, 0.5), size=12)  # p(y|z), shared by the questions
        right = rng.integers(5, size=3)
        before = np.log(np.einsum("xz,zx->x", select, answer[:, right])).sum()
        weights = np.zeros((3, 12))
        for x in range(3):
            said = {z: Said("", math.log(answer[n, right[x]]), 1) for n, z in enumerate(lists)}
            found = posterior(certain(lists, np.log(select[x])), said, "sum")
            weights[x] = found.weights
        moved = answer * 0
        for x in range(3):
            moved[:, right[x]] += weights[x]
        total = moved.sum(1, keepdims=True)
        answer = np.where(total > 0, moved / np.where(total > 0, total, 1), answer)
        after = np.log(np.einsum("xz,zx->x", weights, answer[:, right])).sum()
        assert after >= before - 1e-9


def test_the_estimate_comes_nearer_as_the_root_of_the_number_of_lists() -> None:
    rng = np.random.default_rng(1)
    lists = list(permutations(range(4), 2))
    proposal, likely = rng.dirichlet(np.ones(12)), rng.uniform(0.05, 1, size=12)
    value = rng.normal(size=12)
    exact = proposal * likely @ value / (proposal @ likely)
    said = {z: Said("", math.log(likely[n]), 1) for n, z in enumerate(lists)}
    place = {z: n for n, z in enumerate(lists)}
    sizes, errors = [16, 64, 256, 1024], []
    for m in sizes:
        wrong = []
        for _ in range(400):
            drawn = [Drawn(lists[n], 0.0, 0.0) for n in rng.choice(12, size=m, p=proposal)]
            found = posterior(drawn, said, "sum")
            guess = sum(
                w * value[place[z]] for z, w in zip(found.lists, found.weights, strict=True)
            )
            wrong.append((guess - exact) ** 2)
        errors.append(math.sqrt(np.mean(wrong)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.1


def test_other_ways_of_drawing_are_made_up_for() -> None:
    """Drawn from q, the weighted mean still goes to that of the posterior under p."""
    rng = np.random.default_rng(2)
    p, likely, value = rng.dirichlet(np.ones(6)), rng.uniform(0.1, 1, 6), rng.normal(size=6)
    q = p**2 / (p**2).sum()
    exact = p * likely @ value / (p @ likely)
    drawn = [
        Drawn((n,), math.log(p[n]), math.log(q[n])) for n in rng.choice(6, 20000, p=q).tolist()
    ]
    said = {(n,): Said("", math.log(likely[n]), 1) for n in range(6)}
    found = posterior(drawn, said, "sum")
    guess = sum(w * value[z[0]] for z, w in zip(found.lists, found.weights, strict=True))
    assert guess == pytest.approx(exact, abs=0.05)


def test_sums_of_logs() -> None:
    assert log_sum([-1000.0, -1000.0]) == pytest.approx(-1000 + math.log(2))
    assert log_sum([-math.inf]) == -math.inf


# --- what it learns from ------------------------------------------------------------------


def test_a_planted_passage_is_refused() -> None:
    whole = example()
    gold = Document("gold", "The answer stands here.", "")
    planted = Example(whole.question, (*whole.documents, gold), "x", retrieved=whole.retrieved)
    with pytest.raises(HarnessError, match="gold, which the stage before did not retrieve"):
        parted([whole, planted], 0)


def test_questions_that_share_a_document_are_on_one_side() -> None:
    examples = [Example(f"q{n}", (), "a", group=str(n % 10)) for n in range(50)]
    train, dev = parted(examples, 12)
    assert len(dev) == 15 and len(train) == 35
    assert not {each.group for each in train} & {each.group for each in dev}
    assert parted(examples, 12) == (train, dev)
    with pytest.raises(HarnessError, match="50 questions to learn from, and dev=50"):
        parted(examples, 50)


def test_both_recalls_are_told_apart() -> None:
    documents = (Document("a", "Nothing here."), Document("b", "It was the Odra, said Kolen."))
    told = Example("q", documents, "The Odra", aliases=("Oder",), support=("a", "c"))
    found = judged(told, (1, 0), "odra")
    assert (found["EM"], found["F1"]) == (1, 1)
    assert (found["answer_R@1"], found["support_R@1"]) == (1, 0)
    assert (found["answer_R@3"], found["support_R@3"]) == (1, 0.5)
    assert judged(told, (0,), "Morava")["answer_R@5"] == 0


# --- training -----------------------------------------------------------------------------


def trainer(folder: Path, seed: int = 0, other: Path | None = None, **settings: Any) -> Dro:
    told = {"keep": 2, "samples": 4, "iterations": 1, "batch": 4, "micro": 3, "dev": 4}
    told |= {"generator_warm_up": 0, "max_new_tokens": 3, "lora": 0, **settings}
    models = {"selector": str(folder), "generator": str(other or folder)}
    return Dro([example(n) for n in range(16)], seed, Settings(**models, **told))


def played(made: Dro) -> Dro:
    while made.done < made.steps:
        made.step()
    return made


def slopes(learner: Any, loss: Any, seed: int) -> tuple[float, float]:
    """How a loss changes along a direction in all weights: by its gradient, and by walking there.
    The direction is partly that of the gradient, so that it is felt, and has a part in each
    weight, so that one without a gradient is noticed."""
    weights = list(learner.tunable.weights.values())
    gradient = torch.autograd.grad(loss(), weights)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for g in gradient:
        assert float(g.abs().max()) > 0
        noise = torch.randn(g.shape, generator=generator)
        parts.append(g / g.norm() + noise / noise.norm())
    size = math.sqrt(sum(float((each**2).sum()) for each in parts))
    step, found = 2e-3 / size, []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, each in zip(weights, parts, strict=True):
                weight += sign * step * each
            found.append(loss().item())
            for weight, each in zip(weights, parts, strict=True):
                weight -= sign * step * each
    exact = sum(float((g * each).sum()) for g, each in zip(gradient, parts, strict=True))
    return exact, (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("kind", ["open", "llama"])
def test_gradients_of_both_losses_are_those_of_finite_differences(
    kind: str, folders: dict[str, Path]
) -> None:
    made = trainer(folders[kind])
    lists = {0: ([(0, 1), (2, 3)], [0.7, 0.3], ["Odraen", "x"]), 3: ([(1, 0)], [1.0], ["y"])}
    some = {place: each[:2] for place, each in lists.items()}
    exact, seen = slopes(made.selector, lambda: made.selector_loss(some), 0)
    assert seen == pytest.approx(exact, rel=0.03)
    exact, seen = slopes(made.generator, lambda: made.generator_loss(lists), 1)
    assert seen == pytest.approx(exact, rel=0.03)


def test_losses_are_what_the_equations_say(folders: dict[str, Path]) -> None:
    """Weights come from the E-step as numbers; one below a hundredth counts for nothing."""
    made = trainer(folders["open"])
    with torch.no_grad():
        (found,) = made.posteriors([made.train[0]], random.Random(0))
    assert all(type(weight) is float for weight in found.weights)
    assert len(set(found.weights)) >= 2
    asked = [made._asking(made.train[0])]
    (log_p,) = made.lists.log_p(asked, [[(0, 1), (1, 2)]])
    loss = made.selector_loss({0: ([(0, 1), (1, 2), (2, 3)], [0.6, 0.395, 0.005])})
    assert loss.item() == pytest.approx(-(0.6 * log_p[0] + 0.395 * log_p[1]).item(), abs=1e-6)
    wanted = [(made.train[0], (0, 1), "Odraen")]
    said, tokens = made.reading.log_p(wanted)
    loss = made.generator_loss({0: ([(0, 1), (2, 3)], [0.9, 0.001], ["Odraen", "x"])})
    assert loss.item() == pytest.approx(-0.9 * said.item(), abs=1e-6)
    assert tokens == [2]  # the word and the end


def test_an_answer_that_is_not_read_is_unlikely_and_not_new(folders: dict[str, Path]) -> None:
    """With open words, a word that no passage holds would else be likely as a first appearance."""
    made = trainer(folders["open"])
    wanted = [(made.train[0], (0, 1), "Zork"), (made.train[0], (0, 1), "Zork Zork")]
    said, tokens = made.reading.log_p(wanted)
    assert tokens == [2, 3]
    prompt = made.reading.prompt(made.train[0], (0, 1), 9)
    lm = made.reading.lm
    new = lm.log_likelihood([prompt], ["Zork"])[0].log_p
    assert said[0].item() != pytest.approx(new, abs=1e-3)


def test_the_answer_ends_as_the_model_ends_it(folders: dict[str, Path]) -> None:
    made = trainer(folders["qwen2"])
    _, tokens = made.reading.log_p([(made.train[0], (0, 1), "Odra")])
    lm: Any = made.reading.lm
    row = lm.ids(made.reading.prompt(made.train[0], (0, 1), 9), "Odra")
    assert tokens == [len(row) + 1]
    own = lm.prompts.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert list(lm.prompts.end) == [own] and set(lm.ends) > {own}


def test_a_posterior_of_one_list_draws_the_selector_to_it(folders: dict[str, Path]) -> None:
    made = trainer(folders["open"], iterations=6, samples=16, selector_rate=3e-3, patience=0)

    def log_p(asked: Sequence[Any]) -> tuple[torch.Tensor, list[int]]:
        right = [tuple(places) == (2, 0) for _, places, _ in asked]
        return torch.tensor([0.0 if each else -100.0 for each in right]).double(), [1] * len(right)

    made.reading.log_p = log_p  # type: ignore[method-assign]
    asked = [made._asking(each) for each in made.train]
    before = [each.item() for each in made.lists.log_p(asked, [[(2, 0)]] * len(asked))]
    made.generator_loss = lambda lists: (
        next(iter(made.generator.tunable.weights.values())).sum() * 0
    )  # type: ignore[method-assign]
    played(made)
    after = [each.item() for each in made.lists.log_p(asked, [[(2, 0)]] * len(asked))]
    assert np.mean(after) > np.mean(before) + 1
    assert [each.places for each in made.lists.best(asked)] == [(2, 0)] * len(asked)
    assert made.records[-1]["ess"] > made.records[1]["ess"]


@pytest.mark.parametrize("micro", [1, 3])
def test_questions_at_once_change_no_step(micro: int, folders: dict[str, Path]) -> None:
    """But for which words are hashed to what: here no word is unknown to both."""
    made = [trainer(folders["llama"], micro=each) for each in (16, micro)]
    lists = {place: ([(0, 1), (2, 3)], [0.7, 0.3]) for place in range(4)}
    behind = {place: (*each, ["Odra", "x y"]) for place, each in lists.items()}
    found = []
    for each in made:
        one = each._train_selector(lists, random.Random(0))["selector_loss"]
        other = each._train_generator(behind, random.Random(0))["generator_loss"]
        again = each.selector_loss(lists).item(), each.generator_loss(behind).item()
        found.append((one, other, *again))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_lists_are_drawn_as_the_settings_say(folders: dict[str, Path]) -> None:
    """And the likeliest accepted answer counts where that is asked for."""
    plain, sharp = (
        trainer(folders["open"], samples=64, temperature=each, top_p=top_p)
        for each, top_p in ((1.0, 1.0), (0.2, 0.5))
    )
    different = [
        each.posteriors(each.train[:4], random.Random(0))[0].figures["different"]
        for each in (plain, sharp)
    ]
    assert different[1] < different[0]
    twice = replace(plain.train[0], answer="Zork Zork Zork", aliases=("was",))
    best = trainer(folders["open"], aliases="best")
    with torch.no_grad():
        (found,) = best.posteriors([twice], random.Random(0))
        (first,) = plain.posteriors([twice], random.Random(0))
    assert set(first.answers) == {"Zork Zork Zork"} and set(found.answers) == {"was"}


def test_words_that_are_not_known_have_another_hash_in_each_step(folders: dict[str, Path]) -> None:
    made = trainer(folders["open"])
    salts: list[set[str]] = []

    def noted(asked: Any) -> Any:
        salts.append({each.tunable.prompts.salt for _, each in made._learners()})
        return whole(asked)

    whole, made.reading.log_p = made.reading.log_p, noted  # type: ignore[method-assign]
    played(made)
    assert all(len(each) == 1 and "" not in each for each in salts)
    assert len(set(map(str, salts))) > 3
    assert {each.tunable.prompts.salt for _, each in made._learners()} == {""}


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    made = trainer(tiny_models.make_llama(tmp_path / "short", positions=420))
    more = " ".join(["river"] * 60)
    whole = example(count=4)
    documents = tuple(replace(each, text=f"{each.text} {more}") for each in whole.documents)
    long, spare = replace(whole, documents=documents), 220
    shown = made.lists.prompt(made._asking(long)).passages
    assert 2 <= len(shown) < 4 and tuple(shown) == documents[: len(shown)]
    read = made.reading.prompt(long, (3, 2, 1, 0), spare)
    assert 0 < len(read.passages) < 4 and read.passages[0] == documents[3]
    assert made.reading.lm.count(read) + spare <= 420
    with pytest.raises(HarnessError, match="and its answer do not fit"):
        made.reading.prompt(replace(long, question="why? " * 300), (0,), spare)


def test_in_bfloat16_weights_stay_as_they_are(folders: dict[str, Path]) -> None:
    made = played(trainer(folders["llama"], dtype="bfloat16"))
    assert all(each.dtype == torch.float32 for each in made.selector.tunable.weights.values())
    exact = played(trainer(folders["llama"]))
    one, other = (each.records[-1]["generator_loss"] for each in (made, exact))
    assert one != other and one == pytest.approx(other, rel=0.1)


def test_warm_up_lists_hold_the_support(folders: dict[str, Path]) -> None:
    made = trainer(folders["open"])
    for place, each in enumerate(made.train):
        (first, second) = made._supervised(place)
        assert each.documents[first].id in each.support
        assert second == (1 if first == 0 else 0)
    lists = made._random_lists(random.Random(0))
    assert {len(z[0][0]) for z in lists.values()} == {2}


@pytest.mark.parametrize("without", ["selector", "generator"])
def test_the_other_is_left_alone(without: str, folders: dict[str, Path]) -> None:
    made = trainer(folders["open"], without=without)
    before = {
        name: [each.detach().clone() for each in learner.tunable.weights.values()]
        for name, learner in made._learners()
    }
    played(made)
    for name, learner in made._learners():
        pairs = zip(before[name], learner.tunable.weights.values(), strict=True)
        same = all(torch.equal(old, new) for old, new in pairs)
        assert same == (name == without)


def test_it_stops_when_dev_no_longer_improves_and_keeps_the_best(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    made = trainer(folders["open"], iterations=5, patience=2)
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9, 0.9])
    made._judge = lambda: {"dev_F1": next(scores)}  # type: ignore[method-assign]
    kept: list[Any] = []
    whole = made._record

    def record(turn: int) -> None:
        kept.append([each.detach().clone() for each in made.selector.tunable.weights.values()])
        whole(turn)

    made._record = record  # type: ignore[method-assign]
    played(made)
    assert [each["iteration"] for each in made.records] == [0, 1, 2, 3]
    assert made.records[-1]["best"] == 1
    weights = [made.best[f"selector.{name}"] for name in made.selector.tunable.weights]
    assert all(torch.equal(a, b) for a, b in zip(weights, kept[1], strict=True))
    last = list(made.selector.tunable.weights.values())
    assert not all(torch.equal(a, b) for a, b in zip(last, kept[1], strict=True))
    made.save(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(last, kept[1], strict=True))


def test_what_an_iteration_came_to(folders: dict[str, Path]) -> None:
    made = played(trainer(folders["open"], shown=1))
    first, second = made.report()["iterations"]
    assert {"dev_EM", "dev_F1", "dev_answer_R@1", "dev_support_R@5"} <= first.keys()
    assert {"elbo", "bound", "ess", "variance", "different", "selector_loss"} <= second.keys()
    assert second["m2_variance"] == pytest.approx(16 * second["variance"], abs=1e-3)
    (shown,) = second["shown"]
    assert sum(shown["weights"]) == pytest.approx(1, abs=1e-4)
    assert all(len(each) == 2 for each in shown["lists"])


def test_each_iteration_asks_other_questions_and_each_epoch_all_of_them(
    folders: dict[str, Path],
) -> None:
    made = trainer(folders["open"], iterations=3, questions=5, selector_epochs=2)
    turns = [made._asked(turn) for turn in (1, 2, 3)]
    assert len({place for turn in turns for place in turn}) == 12
    units = [u for u in made.units if u.iteration == 2 and u.phase == "selector"]
    assert len(units) == 4
    met = [place for unit in units for place in made._batch(unit)]
    assert sorted(met) == sorted(2 * turns[1])


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("kind", ["open", "llama"])
def test_what_is_written_is_what_was_trained(
    kind: str, lora: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    made = played(trainer(folders[kind], lora=lora, selector_rate=1e-2, patience=0, dev=0))
    made.save(tmp_path)
    again = open_lm(tmp_path / "selector")
    asked = made._asking(made.train[0])
    prompt = made.lists.prompt(asked)
    told = [made.lists.lm, again, open_lm(folders[kind])]
    for prompts in (each.prompts for each in told):
        assert prompts.render(prompt).ids == told[0].prompts.render(prompt).ids
    said = [each.log_likelihood([prompt], ["[2]" if kind == "llama" else "2"])[0] for each in told]
    assert said[1].log_p == pytest.approx(said[0].log_p, abs=1e-4)
    assert abs(said[2].log_p - said[0].log_p) > 1e-3
    assert not list(tmp_path.rglob("*.md"))
    (tmp_path / "about.json").write_text("{}")
    system = DroSystem(checkpoint=str(tmp_path))
    names = {file.name for file in system.files()}
    assert ("adapter_model.safetensors" in names) == bool(lora)


def test_an_adapter_is_trained_further_or_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    first = played(trainer(folders["open"], lora=2, selector_rate=1e-2, dev=0))
    first.save(tmp_path)
    place = tmp_path / "selector"
    asked = first._asking(first.train[0])
    (before,) = first.lists.log_p([asked], [[(0, 1), (1, 2)]])
    for lora in (0, 2):
        again = Tunable(place, lora=lora)
        (after,) = Selector(again.lm).log_p([asked], [[(0, 1), (1, 2)]])
        assert torch.allclose(before, after, atol=1e-4)
        again.save(tmp_path / f"again-{lora}")
        assert (tmp_path / f"again-{lora}" / "adapter_config.json").exists() == bool(lora)
        open_lm(tmp_path / f"again-{lora}")
    with pytest.raises(HarnessError, match="an adapter of rank 2"):
        Tunable(place, lora=4)


def test_an_adapter_that_does_not_fit_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "selector"
    Tunable(folders["llama"], lora=2, name=str(folders["llama"])).save(place)
    file, config = place / "adapter_model.safetensors", place / "adapter_config.json"
    whole, said = load_file(file), json.loads(config.read_text())
    assert said["base_model_name_or_path"] == str(folders["llama"])
    save_file({name: each for name, each in whole.items() if "q_proj" not in name}, file)
    with pytest.raises(HarnessError, match="does not fit its base: 4 weights"):
        open_lm(place)
    with pytest.raises(HarnessError, match="does not fit its base"):
        Tunable(place, lora=2)
    file.write_bytes(b"none")
    with pytest.raises(HarnessError, match="cannot be loaded"):
        open_lm(place)
    save_file(whole, file)
    open_lm(place)
    config.write_text(json.dumps({**said, "peft_type": "PROMPT_TUNING"}))
    with pytest.raises(HarnessError, match="of kind PROMPT_TUNING"):
        open_lm(place)
    config.write_text(json.dumps({**said, "base_model_name_or_path": str(place)}))
    with pytest.raises(HarnessError, match="is no model"):
        open_lm(place)


def test_a_model_that_scales_outside_of_its_layers_is_refused(tmp_path: Path) -> None:
    """What is trained would not be what serves."""
    tokenizer = tiny_models.make_tokenizer(bos_token="<s>", eos_token="</s>")
    sizes = {**tiny_models.WIDE, **tiny_models.HEADS, "vocab_size": len(tokenizer)}
    model = transformers.CohereForCausalLM(transformers.CohereConfig(**sizes, logit_scale=0.1))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="in a way that training here does not know"):
        Tunable(tmp_path)


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.make_mamba2(tmp_path / "m")
    with pytest.raises(HarnessError, match="has no attention"):
        Tunable(folder)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples": 0}, "samples=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"iterations": -1}, "iterations=-1"),
        ({"questions": -5}, "questions=-5"),
        ({"selector_epochs": 0}, "selector_epochs=0"),
        ({"lora": -1}, "lora=-1"),
        ({"generator_rate": math.nan}, "generator_rate=nan"),
        ({"device": "cuda:7"}, "device 'cuda:7' cannot be used"),
    ],
)
def test_settings_that_draw_nothing(
    settings: dict[str, Any], told: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(HarnessError, match=told):
        trainer(folders["open"], **settings)


# --- from the command line ----------------------------------------------------------------


class Taught(Toy):
    """The toy task with a train split."""

    splits = ("test", "train")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("lora", ["0", "2"])
def test_a_killed_training_ends_with_the_same_weights(
    lora: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.train.EVERY", 2)
    registry.register("tasks", "toy")(Taught)
    told = {"selector": str(folders["open"]), "generator": str(folders["open"]), "keep": "2"}
    told |= {"batch": "8", "micro": "8", "samples": "3", "iterations": "1", "dev": "8"}
    told |= {"lora": lora, "generator_warm_up": "2"}

    def made(place: str) -> dict[str, bytes]:
        found = train_on("dro", Path(place), 1, tasks=["toy"], first="random@4", options=told)
        return bytes_of(found)

    first = made("a")
    again = train_on("dro", Path("a"), 1, tasks=["toy"], first="random@4", options=told)
    assert again == Path("a") and not (again / ".first").exists()
    other = {**told, "samples": "4"}
    with pytest.raises(HarnessError, match="a holds dro of another recipe"):
        train_on("dro", Path("a"), 1, tasks=["toy"], first="random@4", options=other)
    at = [3, 9]
    whole = Dro.step

    def step(self: Dro) -> dict[str, float]:
        if self.done in at:
            at.remove(self.done)
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Dro, "step", step)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            made("b")
    assert made("b") == first and len(first) == 2
    kept = json.loads(Path("b/about.json").read_text())
    assert (kept["tasks"], kept["first"], kept["seed"]) == (["toy"], "random@4", 1)
    assert [each["iteration"] for each in kept["iterations"]] == [0, 1]
    assert not Path("b/.unfinished").exists()


def test_options_of_a_training_are_words_of_the_command(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register("tasks", "toy")(Taught)
    command = ["train", "dro", "--task", "toy", "--first", "random@4", "--out", "made"]
    assert main([*command, "--sample", "3"]) == 2
    assert "Did you mean 'samples'?" in capsys.readouterr().err
    assert main([*command, "--samples", "many"]) == 2
    assert "samples=many is wrong" in capsys.readouterr().err
    assert main([*command, "--samples", "--iterations", "3"]) == 2
    assert "--samples stands alone" in capsys.readouterr().err
    assert main([*command, "--selector", "mini-selector"]) == 2
    assert "of the generated world mini-6, not for toy. Name others" in capsys.readouterr().err
    command += ["--selector", str(folders["open"]), "--generator", str(folders["open"])]
    assert main([*command, "--steps", "3"]) == 2
    assert "dro takes no --steps" in capsys.readouterr().err
    assert main(["train", "mini-lm", "--out", "made", "--task", "toy"]) == 2
    assert "taught by the generated world alone" in capsys.readouterr().err
    reader = f"random+reader:model={folders['llama']}@0"
    assert main([*command, "--first", reader]) == 2
    assert "@0 ranks nothing at its end" in capsys.readouterr().err
    assert not Path("made").exists()


# --- the system ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(folders: dict[str, Path], tmp_path_factory: Any) -> Path:
    made = played(trainer(folders["open"], generator_warm_up=1))
    folder = tmp_path_factory.mktemp("dro")
    made.save(folder)
    (folder / "about.json").write_text(json.dumps({**made.described(), "name": "dro"}))
    return Path(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    return tiny_models.corpus_of(candidates(12), tmp_path_factory.mktemp("c") / "corpus")


def opened(corpus: Corpus, *given: str, seed: int = 0, **options: Any) -> Any:
    system = DroSystem(*given, **options)
    system.open(corpus, None, Brief("Answer.", max_new_tokens=4, seed=seed))
    return system


def queries(corpus: Corpus, *sizes: int) -> list[Query]:
    found = []
    for number, size in enumerate(sizes):
        hits = tuple(Hit(each, -float(n)) for n, each in enumerate(corpus.ids[:size]))
        pool = tuple(sorted(hit.id for hit in hits))
        found.append(Query(f"q{number}", f"Who built the tower of {number}?", pool, hits))
    return found


def test_a_list_begins_the_ranking_and_is_what_is_read(checkpoint: Path, corpus: Corpus) -> None:
    system = opened(corpus, str(checkpoint))
    asked = queries(corpus, 6, 9, 2)
    for depth, k, sizes in [(3, 3, (3, 3, 2)), (9, 9, (6, 9, 2)), (None, 9, (2, 2, 2))]:
        system.asked_depth = depth
        for query, reply, size in zip(asked, system.solve(asked, k), sizes, strict=True):
            chosen = reply.extras["list"]
            assert len(chosen) == size and list(reply.read) == chosen
            ids = [hit.id for hit in reply.hits]
            assert ids[:size] == chosen
            assert ids[size:] == [h.id for h in query.prior if h.id not in chosen]
            assert sorted(ids) == list(query.pool or ())
            assert reply.extras["log_p"] < 0 and reply.counts["prompt_tokens"] > 40


def test_the_runner_tells_the_depth(checkpoint: Path, corpus: Corpus) -> None:
    asked = queries(corpus, 4)
    for depth, size in [(None, 2), (4, 4), (9, 4), (3, 3)]:
        station = Station("dro", opened(corpus, str(checkpoint)), corpus, depth)
        (row,) = station.rows(asked, None)
        assert not row.error and len(row.extras["list"]) == size


def test_lists_do_not_depend_on_the_batch(checkpoint: Path, corpus: Corpus) -> None:
    system = opened(corpus, str(checkpoint))
    system.asked_depth = 3
    asked = queries(corpus, 6, 9, 2)
    together = system.solve(asked, 3)
    alone = [system.solve([each], 3)[0] for each in asked]
    assert [each.extras["list"] for each in together] == [each.extras["list"] for each in alone]
    assert [each.answer for each in together] == [each.answer for each in alone]


def test_its_parts_serve_alone(checkpoint: Path, corpus: Corpus) -> None:
    asked = queries(corpus, 6)
    chooser = opened(corpus, str(checkpoint), part="selector")
    chooser.asked_depth = 3
    assert capabilities(chooser) == ("retrieve",)
    (ranked,) = chooser.retrieve(asked, 3)
    assert [hit.id for hit in ranked.hits] == ranked.extras["list"]
    generator = opened(corpus, str(checkpoint), part="generator")
    assert capabilities(generator) == ("answer",) and not generator.needs_pool
    documents = [[corpus[each] for each in ranked.extras["list"]]]
    both = opened(corpus, str(checkpoint))
    both.asked_depth = 3
    (whole,) = both.solve(asked, 3)
    (apart,) = generator.answer(asked, documents)
    assert apart.answer == whole.answer


def test_two_models_of_ones_own(folders: dict[str, Path], corpus: Corpus) -> None:
    models = {"selector": str(folders["llama"]), "generator": str(folders["qwen2"])}
    system = opened(corpus, **models)
    (reply,) = system.solve(queries(corpus, 9), 9)
    assert len(reply.extras["list"]) == 5
    with pytest.raises(HarnessError, match="dro needs generator= too"):
        DroSystem(selector=models["selector"])
    with pytest.raises(HarnessError, match="name the same thing twice"):
        DroSystem(checkpoint="x", selector="y", generator="z")
    DroSystem(selector=models["selector"], part="selector")


def test_what_cannot_be_chosen_from(
    checkpoint: Path, folders: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    system = opened(corpus, str(checkpoint))
    with pytest.raises(HarnessError, match="no candidates"):
        system.solve([Query("q", "who?", ())], 2)
    many = tiny_models.corpus_of(
        [Document("", f"River {n}.", "") for n in range(21)], tmp_path / "many"
    )
    with pytest.raises(HarnessError, match=r"knows 20 numbers of passages, and there are 21.*@20"):
        opened(many, str(checkpoint)).solve(queries(many, 21), 2)
    short = opened(corpus, selector=str(tiny_models.make_llama(tmp_path / "s")), part="selector")
    with pytest.raises(HarnessError, match="do not fit into the selector's 256"):
        short.retrieve([replace(queries(corpus, 6)[0], text="who? " * 60)], 3)
    plain = opened(
        corpus, selector=str(tiny_models.make_open_llama(tmp_path / "o")), part="selector"
    )
    with pytest.raises(HarnessError, match="knows 0 numbers"):
        plain.retrieve(queries(corpus, 6), 3)
    with pytest.raises(HarnessError, match="no checkpoint of dro"):
        DroSystem(checkpoint=str(folders["llama"])).files()


# --- lists drawn beside the answer --------------------------------------------------------


def expected(
    generator: Path, query: Query, corpus: Corpus, answer: str, drawn: list[Drawn], norm: Norm
) -> dict[tuple[str, ...], float]:
    """The E-step's weights by training's own code, the system's answer for the accepted one."""
    ids = [hit.id for hit in query.prior]
    asked = Example(query.text, tuple(corpus[each] for each in ids), answer, instruction="Answer.")
    lists = list(dict.fromkeys(each.places for each in drawn))
    judged = Reading(Tunable(generator)).judged([(asked, z, answer) for z in lists])
    found = posterior(drawn, dict(zip(lists, judged, strict=True)), norm)
    pairs = zip(found.lists, found.weights, strict=True)
    return {tuple(ids[place] for place in z): weight for z, weight in pairs}


@pytest.mark.parametrize(("kind", "norm"), [("open", "sum"), ("llama", "mean")])
def test_lists_drawn_are_weighed_as_in_training_by_the_systems_own_answer(
    kind: str, norm: Norm, checkpoint: Path, folders: dict[str, Path], corpus: Corpus
) -> None:
    """As the checkpoint was trained to weigh; models of one's own as the released code does."""
    places = dict.fromkeys(("selector", "generator"), folders["llama"])
    options: dict[str, Any] = {part: str(each) for part, each in places.items()}
    if kind == "open":
        places = {part: checkpoint / part for part in places}
        options = {"checkpoint": str(checkpoint)}
    (query,) = queries(corpus, 4)
    plain, reply = (
        Station("dro", opened(corpus, **options, samples=m), corpus, 2).rows([query], None)[0]
        for m in (0, 40)
    )
    assert reply.answer is not None and plain.extras.keys() == {"list", "log_p"}
    assert (plain.answer, plain.hits) == (reply.answer, reply.hits)
    samples, ids = reply.extras["samples"], [hit.id for hit in query.prior]
    weights = [weight for *_, weight in samples]
    assert sum(weights) == pytest.approx(1) and weights == sorted(weights, reverse=True)
    assert sum(often for _, often, *_ in samples) == 40
    assert len({tuple(z) for z, *_ in samples}) == len(samples) > 3
    assert 1 <= reply.extras["effective_samples"] <= 40 and reply.extras["norm"] == norm
    drawn = [
        Drawn(tuple(map(ids.index, z)), log_p, log_p)
        for z, often, log_p, *_ in samples
        for _ in range(often)
    ]
    asked = Asked(query.text, [corpus[each] for each in ids], 2)
    with torch.no_grad():
        (log_p,) = Selector(Tunable(places["selector"]).lm).log_p(
            [asked], [[each.places for each in drawn]]
        )
    assert [each.log_p for each in drawn] == pytest.approx(log_p.tolist(), abs=1e-4)
    generator = places["generator"]
    meant = expected(generator, query, corpus, reply.answer.text, drawn, norm)
    assert {tuple(z): weight for z, *_, weight in samples} == pytest.approx(meant, abs=1e-5)
    other = expected(generator, query, corpus, "Zork was", drawn, norm)
    assert meant != pytest.approx(other, abs=1e-3)


def test_with_many_draws_weights_go_to_the_posterior_of_all_lists(
    checkpoint: Path, corpus: Corpus
) -> None:
    system = opened(corpus, str(checkpoint), samples=2000)
    (query,) = queries(corpus, 4)
    (reply,) = system.solve([query], 2)
    every = list(permutations(range(4), 2))
    asked = Asked(query.text, [corpus[hit.id] for hit in query.prior], 2)
    with torch.no_grad():
        (log_p,) = system.sampler.selector.log_p([asked], [every])
    answer = reply.answer.text
    certainly = certain(every, log_p.tolist())
    exact = expected(checkpoint / "generator", query, corpus, answer, certainly, "sum")
    found = {tuple(z): weight for z, *_, weight in reply.extras["samples"]}
    assert all(abs(weight - found.get(z, 0)) < 0.04 for z, weight in exact.items())
    prior = dict(zip(exact, log_p.exp().tolist(), strict=True))
    assert max(abs(prior[z] - weight) for z, weight in exact.items()) > 0.1


def test_draws_follow_from_the_seed_and_the_question_alone(
    checkpoint: Path, corpus: Corpus
) -> None:
    system = opened(corpus, str(checkpoint), samples=6)
    asked = queries(corpus, 6, 9, 6)
    asked[2] = replace(asked[2], text=asked[0].text)
    together = [each.extras["samples"] for each in system.solve(asked, 2)]
    for order in ([2, 0, 1], [1], [0]):
        again = system.solve([asked[place] for place in order], 2)
        assert [each.extras["samples"] for each in again] == [together[place] for place in order]
    assert together[0] != together[2]
    (other,) = opened(corpus, str(checkpoint), samples=6, seed=1).solve(asked[:1], 2)
    assert other.extras["samples"] != together[0]


def test_what_drawing_cost_is_counted_and_timed(checkpoint: Path, corpus: Corpus) -> None:
    asked = queries(corpus, 4)
    (plain,) = opened(corpus, str(checkpoint)).solve(asked, 2)
    (one,), (nine,) = (opened(corpus, str(checkpoint), samples=m).solve(asked, 2) for m in (1, 9))
    costs = [each.counts["prompt_tokens"] - plain.counts["prompt_tokens"] for each in (one, nine)]
    assert costs[0] > plain.counts["prompt_tokens"] - 10 and costs[1] > 5 * costs[0]
    assert nine.counts["new_tokens"] == plain.counts["new_tokens"]
    with recorded() as spent:
        opened(corpus, str(checkpoint), samples=2).solve(asked, 2)
        assert {"select", "answer", "sample"} == spent.keys()


def test_more_draws_than_are_read_at_once(
    checkpoint: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("systems.dro.sampled.TOKENS", 300)
    rows: list[int] = []
    whole = Selector.drawn

    def drawn(self: Selector, asked: Any, times: int, *rest: Any) -> Any:
        rows.append(times)
        return whole(self, asked, times, *rest)

    monkeypatch.setattr(Selector, "drawn", drawn)
    (reply,) = opened(corpus, str(checkpoint), samples=20).solve(queries(corpus, 4), 2)
    assert sum(rows) == 20 and 1 < max(rows) < 20 and len(rows) > 2
    assert sum(often for _, often, *_ in reply.extras["samples"]) == 20


def test_drawing_takes_both_parts() -> None:
    for part in ("selector", "generator"):
        with pytest.raises(HarnessError, match=f"and part={part} is alone"):
            DroSystem(part=part, samples=2)  # type: ignore[arg-type]
        DroSystem(part=part, samples=0)  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match="samples=-1 is wrong"):
        DroSystem(samples=-1)


def test_a_run_goes_on_with_the_same_draws_and_opens_no_gold(checkpoint: Path) -> None:
    registry.register("tasks", "toy")(Toy)
    gold = api.prepare("toy") / "gold.jsonl"
    gold.unlink()
    gold.mkdir()
    systems = [f"random@4+dro:checkpoint={checkpoint},samples=3@2"]
    (path,) = api.run(["toy"], systems, limit=6).glob("toy*/*dro*/rows.jsonl")
    whole = path.read_bytes()
    assert whole.count(b'"samples":') == 6
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    api.run(["toy"], systems, limit=6)
    assert path.read_bytes() == whole

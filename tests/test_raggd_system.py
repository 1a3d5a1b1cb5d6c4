"""RAG-GD on language models: the interface, descent, the predictor, training and serving."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from harness import api
from harness.cli import main
from harness.data import Brief, Document, Example, HarnessError, Query, Reply
from harness.manifest import digest, file_hash
from systems.models.hub import load_model
from systems.models.language import Asked
from systems.models.tuning import Tunable, stepwise
from systems.raggd import rows as rows_module
from systems.raggd.interface import Factors, Interface, Term, inner, taken
from systems.raggd.predictor import Predictor, distance, load_predictor
from systems.raggd.rows import Growing, told
from systems.raggd.settings import PROJECTIONS, Settings, Shape
from systems.raggd.system import RagGd
from systems.raggd.training import RagGd as Recipe
from systems.training.learning import chunks

MAKERS = {
    "open": lambda folder: tiny_models.make_open_llama(folder),
    "llama": lambda folder: tiny_models.make_llama(folder, positions=1024),
    "qwen2": lambda folder: tiny_models.make_qwen2(folder, positions=1024),
}
RIVERS = "Odra Morava Vltava Ohre Lena Ural Nile Ebro Rhone Seine Tagus Duero".split()
RANK = 2


def example(n: int, family: str = "0") -> Example:
    river, other = RIVERS[n % 12], RIVERS[(n + 5) % 12]
    documents = tuple(
        Document(f"d{each}", f"The tower of {each} was built by {other}.", each)
        for each in (river, RIVERS[(n + 3) % 12])
    )
    said = f"by {other}" if family == "0" else f"{other} in the past"
    return Example(
        f"Who built the tower of {river}?",
        documents,
        said,
        retrieved=("d",),
        family=family,
        instruction="Answer briefly.",
    )


def examples(count: int = 12) -> list[Example]:
    return [example(n, family) for family in "01" for n in range(count)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: Any) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in MAKERS.items()}


@pytest.fixture(scope="module")
def adapters(bases: dict[str, Path], tmp_path_factory: Any) -> dict[str, Path]:
    """Adapters on q, k and v whose B is not 0."""
    found = {}
    for kind, base in bases.items():
        place = tmp_path_factory.mktemp(f"{kind}-adapter")
        tunable = Tunable(base, lora=RANK, name=str(base), layers=PROJECTIONS)
        torch.manual_seed(0)
        for each in tunable.weights.values():
            each.data.copy_(torch.randn(each.shape) * 0.1)
        tunable.save(place)
        found[kind] = place
    return found


def opened(adapters: dict[str, Path], bases: dict[str, Path], kind: str) -> Interface:
    return Interface.open(adapters[kind], bases[kind], "cpu", "float32")


def rows_of(interface: Interface, count: int = 3, start: int = 0) -> list[Asked]:
    return [interface.demonstration(example(n)) for n in range(start, start + count)]


def hidden(interface: Interface, *terms: Term) -> Tensor:
    with torch.no_grad(), interface.using(*terms):
        return interface.lm.hidden(rows_of(interface))


def dense(interface: Interface, pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0].double() @ pair[1].double()


# --- the interface ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_the_base_adapter_is_what_peft_makes_of_it(
    kind: str, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    ours = opened(adapters, bases, kind)
    model = load_model("AutoModelForCausalLM", bases[kind], "cpu", "float32")
    theirs = stepwise(peft.PeftModel.from_pretrained(model, adapters[kind]).base_model.model,
                      adapters[kind])[0]  # fmt: skip
    with torch.no_grad():
        expected = theirs.hidden(rows_of(ours))
    assert torch.equal(hidden(ours, ours.adapter), expected)
    assert not torch.allclose(hidden(ours), expected, atol=1e-3)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_update_of_zero_is_the_base_adapter_bit_for_bit_and_any_is_taken_off_again(
    kind: str, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, kind)
    before = {name: each.clone() for name, each in interface.lm.network.model.state_dict().items()}
    base = hidden(interface, interface.adapter)
    update = {
        name: (torch.randn(o, 3), torch.randn(3, i)) for name, (o, i) in interface.shapes.items()
    }
    none = {name: (b * 0, a) for name, (b, a) in update.items()}
    assert torch.equal(hidden(interface, interface.adapter, Term(none)), base)
    changed = hidden(interface, interface.adapter, Term(update))
    assert not torch.allclose(changed, base, atol=1e-2)
    assert torch.equal(hidden(interface, interface.adapter), base)
    after = interface.lm.network.model.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())


@pytest.mark.parametrize("kind", MAKERS)
def test_an_update_is_added_to_the_weights_as_it_is(
    kind: str, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    """Nothing scales it, and the adapter is scaled once: a model whose weights are
    W + s B0 A0 + U Vᵀ says the same."""
    interface = opened(adapters, bases, kind)
    torch.manual_seed(1)
    update = {
        name: (torch.randn(o, 3) * 0.1, torch.randn(3, i) * 0.1)
        for name, (o, i) in interface.shapes.items()
    }
    model = load_model("AutoModelForCausalLM", bases[kind], "cpu", "float32")
    for name, (b, a) in update.items():
        b0, a0 = interface.base[name]
        model.get_submodule(name).weight.data += (2.0 * b0 @ a0 + b @ a).detach()
    lm = stepwise(model, bases[kind])[0]
    with torch.no_grad():
        expected = lm.hidden(rows_of(interface))
    found = hidden(interface, interface.adapter, Term(update))
    assert (found - expected).abs().max() < 1e-4
    twice = hidden(interface, interface.adapter, Term(update, 2.0))
    assert (twice - expected).abs().max() > 1e-2


def test_each_row_of_a_batch_can_have_an_update_of_its_own(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, "qwen2")
    torch.manual_seed(1)
    update = {
        name: (torch.randn(3, o, 4), torch.randn(3, 4, i))
        for name, (o, i) in interface.shapes.items()
    }
    together = hidden(interface, interface.adapter, Term(update))
    for place in range(3):
        alone = hidden(interface, interface.adapter, Term(taken(update, place)))
        end = len(rows_of(interface)[place].ids)
        assert torch.allclose(together[place, :end], alone[place, :end], atol=1e-4)


def test_an_adapter_on_other_layers_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    Tunable(bases["llama"], lora=2, name=str(bases["llama"])).save(tmp_path / "all")
    with pytest.raises(HarnessError, match="not one on q, k and v alone"):
        Interface.open(tmp_path / "all", bases["llama"], "cpu", "float32")


# --- descent ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_descent_is_torchs_sgd_on_what_peft_makes_bit_for_bit(
    kind: str, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, kind)
    rows = rows_of(interface)
    found = interface.descended([rows], 0.05, [1, 3])
    tunable = Tunable(adapters[kind], lora=RANK)
    optimiser = torch.optim.SGD(tunable.weights.values(), 0.05)
    for step in (1, 2, 3):
        tokens = torch.tensor([len(row.ids) - row.start for row in rows])
        loss = (-tunable.lm.target_log_p(rows).sum(dim=1) / tokens).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in found:
            for name, (b, a) in found[step].items():
                assert torch.equal(b[0], tunable.weights[f"{name}.lora_B.default.weight"])
                assert torch.equal(a[0], tunable.weights[f"{name}.lora_A.default.weight"])
    assert set(found) == {1, 3}


def test_one_step_is_minus_the_gradient(adapters: dict[str, Path], bases: dict[str, Path]) -> None:
    interface, rate = opened(adapters, bases, "llama"), 0.03
    rows = rows_of(interface)
    leaves = {
        name: tuple(each.detach().clone().requires_grad_(True) for each in pair)
        for name, pair in interface.base.items()
    }
    with interface.using(Term(leaves, interface.scale)):
        interface.losses(rows).mean().backward()
    found = interface.descended([rows], rate, [1])[1]
    for name, pair in leaves.items():
        for new, old in zip(found[name], pair, strict=True):
            assert old.grad is not None and old.grad.abs().max() > 0
            assert torch.allclose(new[0] - old, -rate * old.grad, atol=1e-7)
    for name, pair in interface.difference(found).items():
        (b, a), (b0, a0) = found[name], interface.base[name]
        expected = interface.scale * (b[0].double() @ a[0].double() - b0.double() @ a0.double())
        assert (dense(interface, (pair[0][0], pair[1][0])) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("rate", [1e-4, 0.05])
def test_products_with_targets_are_those_of_the_matrices_however_small_the_step(
    rate: float, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    """The base adapter is far larger than what a step changes of it."""
    interface = opened(adapters, bases, "open")
    rows = [rows_of(interface, 2, start) for start in (0, 2)]
    target = interface.difference(interface.descended(rows, rate, [2])[2])
    one, other = (taken(target, [place]) for place in (0, 1))
    same, apart = distance(one, one), distance(one, other)
    assert same.cosine.item() == pytest.approx(1, abs=1e-4) and same.log_ratio.item() < 1e-4
    cosines = []
    for name in target:
        left, right = (
            dense(interface, (each[name][0][0], each[name][1][0])) for each in (one, other)
        )
        cosines.append(((left * right).sum() / left.norm() / right.norm()).item())
    assert apart.cosine.item() == pytest.approx(sum(cosines) / len(cosines), abs=1e-3)


def test_supports_that_descend_together_are_as_they_are_alone(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, "open")
    supports = [rows_of(interface, 2, start) for start in (0, 2, 4)]
    together = interface.descended(supports, 0.05, [2])[2]
    for place, rows in enumerate(supports):
        alone = interface.descended([rows], 0.05, [2])[2]
        for name, pair in alone.items():
            for one, all_ in zip(pair, together[name], strict=True):
                assert torch.allclose(one[0], all_[place], atol=1e-6)


def test_descent_makes_the_demonstrations_likelier_and_leaves_the_base_alone(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, "open")
    rows = rows_of(interface)
    kept = {name: tuple(each.clone() for each in pair) for name, pair in interface.base.items()}
    found = interface.difference(interface.descended([rows], 0.05, [5])[5])
    with torch.no_grad():
        with interface.using(interface.adapter):
            before = interface.losses(rows).mean()
        with interface.using(interface.adapter, Term(taken(found, 0))):
            after = interface.losses(rows).mean()
    assert after < before
    for name, pair in interface.base.items():
        assert all(torch.equal(*each) for each in zip(pair, kept[name], strict=True))


# --- the predictor ------------------------------------------------------------------------

SHAPES = {"q": (6, 8), "k": (3, 8), "v": (4, 8)}


def drawn(count: int, rank: int, seed: int = 0) -> Factors:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(count, o, rank, generator=rng, dtype=torch.float64),
            torch.randn(count, rank, i, generator=rng, dtype=torch.float64),
        )
        for name, (o, i) in SHAPES.items()
    }


def test_factored_products_are_those_of_the_matrices() -> None:
    one, other = drawn(5, 2), drawn(5, 7, 1)
    for name in SHAPES:
        whole = (one[name][0] @ one[name][1]) * (other[name][0] @ other[name][1])
        assert (inner(one[name], other[name]) - whole.sum(dim=(1, 2))).abs().max() < 1e-10


def test_the_loss_is_least_at_the_target() -> None:
    """Not at no update, nor at a longer or shorter one, nor at another one."""
    target = drawn(4, 4)
    loss = {
        "same": distance(target, target),
        "long": distance({n: (2 * b, a) for n, (b, a) in target.items()}, target),
        "short": distance({n: (b / 9, a) for n, (b, a) in target.items()}, target),
        "other": distance(drawn(4, 4, 5), target),
    }
    total = {name: (1 - each.cosine + 0.1 * each.log_ratio).mean() for name, each in loss.items()}
    assert abs(total.pop("same")) < 1e-9
    assert all(each > 0.05 for each in total.values())
    leaves = {n: tuple(each.clone().requires_grad_(True) for each in p) for n, p in target.items()}
    how = distance(leaves, target)
    (1 - how.cosine).mean().backward()
    assert max(e.grad.abs().max() for pair in leaves.values() for e in pair) < 1e-9


@pytest.mark.parametrize("trunk", [0, 3])
@pytest.mark.parametrize("start", [1e-3, 0.02])
def test_gradients_are_finite_and_not_zero_at_the_first_step(trunk: int, start: float) -> None:
    torch.manual_seed(0)
    predictor = Predictor(SHAPES, 8, Shape("both", 2, 16, 8, trunk, start))
    features = torch.randn(5, 16)
    predictor.scale_by(features)
    target = {name: (b.float(), a.float()) for name, (b, a) in drawn(5, 4).items()}
    how = distance(predictor(features), target)
    (1 - how.cosine + 0.1 * how.log_ratio).mean().backward()
    grads = [each.grad for each in predictor.parameters()]
    assert all(each is not None and each.isfinite().all() for each in grads)
    assert all(
        each.abs().max() > 0 for each in (predictor.left.weight.grad, predictor.first.bias.grad)
    )


def test_a_predictor_learns_what_is_to_be_learned_and_only_from_its_feature(tmp_path: Path) -> None:
    """Three updates, told apart by half of the features."""
    torch.manual_seed(0)
    known = {name: (b.float(), a.float()) for name, (b, a) in drawn(3, 2).items()}
    which = torch.arange(30) % 3
    features = torch.cat([torch.zeros(30, 8), torch.eye(8)[which]], dim=1)
    target = taken(known, which.tolist())
    reached = {}
    for feature in ("end", "answer", "both", "none"):
        predictor = Predictor(SHAPES, 8, Shape(feature, 2, 16, 8, 0, 0.1))
        predictor.scale_by(features)
        optimiser = torch.optim.Adam(predictor.parameters(), 1e-2)
        for _ in range(300):
            how = distance(predictor(features), target)
            optimiser.zero_grad()
            (1 - how.cosine + 0.1 * how.log_ratio).mean().backward()
            optimiser.step()
        reached[feature] = how.cosine.mean().item()
    assert min(reached["answer"], reached["both"]) > 0.95
    assert max(reached["end"], reached["none"]) < 0.8
    predictor.save(tmp_path / "p.safetensors", {"rate": 0.5}, torch.float32)
    again, notes = load_predictor(tmp_path / "p.safetensors", "cpu")
    assert notes["rate"] == 0.5
    for name, pair in again(features).items():
        assert all(map(torch.equal, pair, predictor(features)[name]))


def test_a_broken_predictor_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"x")
    with pytest.raises(HarnessError, match="no predictor that can be read"):
        load_predictor(tmp_path / "p.safetensors", "cpu")


# --- training -----------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "lora": RANK,
    "base_steps": 3,
    "base_batch": 4,
    "base_rate": 1e-2,
    "shown": 0.5,
    "shots": 2,
    "predictor_steps": 3,
    "predictor_batch": 3,
    "update_rank": 2,
    "hidden": 8,
    "code": 4,
    "micro": 4,
    "rivals": "all",
    "rival_steps": 2,
    "prompt_tokens": 3,
    "prompt_steps": 3,
    "steps_of_descent": "1,2",
}


def trainer(base: Path, seed: int = 0, **settings: Any) -> Recipe:
    return Recipe(examples(), seed, Settings(model=str(base), **{**SIZES, **settings}))


def played(recipe: Recipe, steps: int | None = None) -> Recipe:
    for _ in range(recipe.steps - recipe.done if steps is None else steps):
        assert all(torch.isfinite(torch.tensor(list(recipe.step().values()))))
    return recipe


def weights(recipe: Recipe) -> dict[str, Tensor]:
    found = {name: each.detach().clone() for name, each in recipe.tunable.weights.items()}
    for name, one in recipe.trained.items():
        found |= {f"{name} {n}": each.clone() for n, each in one.module.state_dict().items()}
    return found


@pytest.mark.parametrize("pool", [0, 5])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_killed_training_goes_on_to_the_same_weights(
    kind: str, pool: int, bases: dict[str, Path], tmp_path: Path
) -> None:
    whole = played(trainer(bases[kind], pool=pool))
    assert whole.steps == 3 + ceil(pool / 2) + 3 + 3 + 2
    for stopped in (2, 4, 7, whole.steps - 1):
        first = played(trainer(bases[kind], pool=pool), stopped)
        first.keep(tmp_path / "state", "notes")
        second = trainer(bases[kind], pool=pool)
        assert second.resume(tmp_path / "state") == "notes"
        found = weights(played(second))
        assert all(torch.equal(each, found[name]) for name, each in weights(whole).items())


def test_a_predictor_is_as_it_would_be_alone_and_never_sees_an_answers_loss(
    bases: dict[str, Path],
) -> None:
    """Neither the other numbers of steps nor the rivals change it, nor does its training W0."""
    both = played(trainer(bases["open"], pool=5, noise=0.1))
    alone = played(trainer(bases["open"], pool=5, noise=0.1, steps_of_descent="2", rivals="none"))
    found = weights(both)
    assert len(weights(alone)) < len(found)
    assert all(torch.equal(each, found[name]) for name, each in weights(alone).items())
    begun = played(trainer(bases["open"], pool=5), 3)
    before = {name: each.detach().clone() for name, each in begun.tunable.weights.items()}
    played(begun)
    assert all(torch.equal(each, before[n]) for n, each in begun.tunable.weights.items())


def test_supports_are_normalised_salted_and_asked_other_questions(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = played(trainer(bases["open"], pool=6))
    for name in ("predictor-1", "hypertuning"):
        predictor: Any = recipe.trained[name].module
        features = predictor.chosen(recipe._features(range(6)))
        assert torch.allclose(predictor.mean, features.mean(dim=0), atol=1e-5)
    salts = {row.rendered.lexicon.salt for n in range(6) for row in recipe._support_rows(n)}
    assert len(salts) == 6 and "" not in salts
    asked: list[str] = []
    demonstration = recipe.interface.demonstration

    def spy(each: Example, shown: Sequence[Example] = ()) -> Asked:
        asked.append(each.question)
        return demonstration(each, shown)

    monkeypatch.setattr(recipe.interface, "demonstration", spy)
    for number in range(20):
        rng = random.Random(number)
        before = random.Random(number)
        held = [each.question for n in recipe._batch(before, 0) for each in recipe._support(n)[0]]
        asked.clear()
        recipe._hypertuning(rng, 1)
        drawn = zip(asked, chunks(held, 2), strict=True)
        assert all(question not in support for question, support in drawn)


def test_a_predictor_is_drawn_to_the_norm_of_its_target(bases: dict[str, Path]) -> None:
    told: dict[str, Any] = {"pool": 4, "norm_weight": 50.0, "predictor_steps": 60, "start": 0.3}
    recipe = trainer(bases["open"], rivals="none", predictor_rate=1e-2, **told)
    ratios = [
        found["log_ratio_2"]
        for _ in range(recipe.steps)
        if "log_ratio_2" in (found := recipe.step())
    ]
    assert ratios[-1] < ratios[0] / 2


def test_how_far_rows_have_grown_is_kept(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "STAY", 0)
    monkeypatch.setattr(rows_module, "ENOUGH", -99.0)
    first = played(trainer(bases["open"], base_steps=6), 3)
    first.keep(tmp_path / "state", "")
    second = trainer(bases["open"], base_steps=6)
    second.resume(tmp_path / "state")
    assert second.growing.state() == first.growing.state() and first.growing.level > 0


def test_rows_of_one_question_come_in_the_end_though_nothing_has_grown(
    bases: dict[str, Path],
) -> None:
    recipe = trainer(bases["open"], base_steps=20, shown=0.1, base_batch=8)
    several = dict.fromkeys((0, 19), 0)
    for done in several:
        recipe.done = done
        rows = recipe._rows(random.Random(0), 40, 0.1)
        several[done] = sum(len(row.answers) > 1 for row in rows)
    assert several[0] == 40 and several[19] < 15


def test_a_row_that_the_model_cannot_read_loses_its_foremost_questions(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, "open")
    drawn = [example(n) for n in range(4)]
    whole = told(interface, drawn)
    interface.lm.window = len(whole.asked.ids) - 40
    less = told(interface, drawn)
    assert 1 <= len(less.answers) < len(whole.answers)
    assert len(less.asked.ids) <= interface.lm.window


def test_more_supports_a_step_than_are_normalised_by(bases: dict[str, Path]) -> None:
    played(trainer(bases["open"], pool=0, predictor_batch=70, predictor_steps=1, micro=60), 4)


def test_a_support_is_of_one_task(bases: dict[str, Path]) -> None:
    recipe = trainer(bases["open"])
    drawn = [recipe._support(number)[0] for number in range(20)]
    assert all(len({each.family for each in one}) == 1 for one in drawn)
    assert {one[0].family for one in drawn} == {"0", "1"}
    assert all(len({each.question for each in one}) == 2 for one in drawn)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_steps": 0}, "B = 0"),
        ({"steps_of_descent": "0"}, "steps_of_descent=0"),
        ({"steps_of_descent": "5,5"}, "steps_of_descent=5,5"),
        ({"steps_of_descent": "few"}, "steps_of_descent=few"),
        ({"descent_rate": 0.0}, "descent_rate=0.0"),
        ({"shots": 0}, "shots=0"),
        ({"shots": 12}, "leave none to ask"),
        ({"shown": 1.0}, "shown=1.0"),
        ({"lora": 0}, "lora=0"),
        ({"four_bit": True}, "4-bit weights need CUDA"),
    ],
)
def test_settings_with_which_nothing_can_be_learned_are_refused(
    settings: dict[str, Any], said: str, bases: dict[str, Path]
) -> None:
    with pytest.raises(HarnessError, match=said):
        trainer(bases["open"], **settings)


def test_an_adapter_is_taken_up_without_further_steps(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    recipe = played(trainer(adapters["llama"], base_steps=0, rivals="none"))
    served = opened(adapters, bases, "llama")
    for name, pair in recipe.interface.base.items():
        assert all(torch.equal(*each) for each in zip(pair, served.base[name], strict=True))


# --- serving ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(bases: dict[str, Path], tmp_path_factory: Any) -> dict[str, Path]:
    """What a training wrote, for each kind of model."""
    found = {}
    for kind, base in bases.items():
        place = tmp_path_factory.mktemp(f"{kind}-made") / "made"
        recipe = played(trainer(base, start=0.5))
        recipe.save(place)
        told = {"recipe": {"descent_rate": 0.05}, "world": ""}
        (place / "about.json").write_text(json.dumps(told))
        found[kind] = place
    return found


def serving(
    folder: Path, seed: int = 0, shown: Sequence[Example] | None = None, **options: Any
) -> RagGd:
    if options.get("mode", "raggd") not in ("raggd", "ttsgd"):
        options.pop("k", None)
    system = RagGd(str(folder), shots=options.pop("shots", 2), **options)
    held = tuple(examples() if shown is None else shown)[: system.shots]
    brief = Brief("Answer briefly.", held, 4, seed)
    system.open(None, None, brief)  # type: ignore[arg-type]
    return system


QUERIES = [Query(f"q{n}", f"Who built the tower of {RIVERS[n]}?") for n in range(4)]
READ = [example(n).documents for n in range(4)]
ALL_MODES = (
    {"mode": "raggd", "k": 1},
    {"mode": "raggd", "k": 2},
    {"mode": "base"},
    {"mode": "few-shot"},
    {"mode": "ttsgd", "k": 2},
    {"mode": "ttsgd", "k": 7, "rate": 0.5},
    {"mode": "hypertuning"},
    {"mode": "prompt-tuning"},
)


def answered(system: RagGd, places: Sequence[int] = range(4)) -> list[Reply]:
    found = system.answer([QUERIES[n] for n in places], [READ[n] for n in places])
    assert not any(isinstance(each, HarnessError) for each in found)
    return list(found)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("options", ALL_MODES, ids=str)
def test_each_mode_answers_and_leaves_the_model_as_it_was(
    options: dict[str, Any], kind: str, made: dict[str, Path]
) -> None:
    system = serving(made[kind], **options)
    model = system.interface.lm.network.model
    before = {name: each.clone() for name, each in model.state_dict().items()}
    replies = answered(system)
    assert all(reply.read and reply.answer is not None for reply in replies)
    assert [each.raw for each in answered(system)] == [each.raw for each in replies]
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not system.interface.terms


@pytest.mark.parametrize("mode", ["raggd", "ttsgd", "few-shot", "hypertuning"])
@pytest.mark.parametrize("support", ["task", "per-question"])
def test_neither_order_nor_company_of_questions_changes_an_answer(
    mode: str, support: str, made: dict[str, Path]
) -> None:
    options: dict[str, Any] = {"mode": mode, "support": support, "bank": 9, "k": 2}
    system = serving(made["open"], **options)
    replies = answered(system)
    again = answered(serving(made["open"], **options), [3, 1])
    assert [each.raw for each in again] == [replies[3].raw, replies[1].raw]
    assert [each.counts for each in again] == [replies[3].counts, replies[1].counts]


def terms(system: RagGd) -> list[Tensor]:
    assert system.update is not None
    return [part for pair in system.update.factors.values() for part in pair]


@pytest.mark.parametrize("mode", ["raggd", "ttsgd", "hypertuning"])
def test_other_demonstrations_make_another_update(mode: str, made: dict[str, Path]) -> None:
    options: dict[str, Any] = {"mode": mode, "k": 2}
    one, same = (terms(serving(made["open"], **options)) for _ in range(2))
    assert all(map(torch.equal, one, same))
    other = terms(serving(made["open"], shown=examples()[5:], **options))
    assert not any(map(torch.equal, one, other))


def test_support_of_a_question_follows_from_its_text_and_the_seed(made: dict[str, Path]) -> None:
    def supports(seed: int) -> list[list[list[str]]]:
        system = serving(made["open"], seed, support="per-question", bank=12, k=1)
        seen: list[list[list[str]]] = []
        adapted = system._adapted

        def spy(rows: Sequence[Asked]) -> Any:
            seen.append([list(row.rendered.lexicon.slots) for row in rows if row.rendered.lexicon])
            return adapted(rows)

        system._adapted = spy  # type: ignore[method-assign]
        counts = [each.counts["support_tokens"] for each in answered(system)]
        assert all(counts)
        return seen

    assert supports(0) == supports(0) != supports(1)
    assert len({str(each) for each in supports(0)}) > 1


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_served_is_the_model_with_all_that_its_mode_adds(
    kind: str, made: dict[str, Path], bases: dict[str, Path]
) -> None:
    """As a model says it whose weights are W + s B0 A0 + U Vᵀ."""
    for mode, updated in (("base", False), ("raggd", True), ("ttsgd", True), ("few-shot", False)):
        options: dict[str, Any] = {"k": 2} if updated else {}
        options |= {"rate": 3.0} if mode == "ttsgd" else {}
        system = serving(made[kind], mode=mode, **options)
        model = load_model("AutoModelForCausalLM", bases[kind], "cpu", "float32")
        for name, (b0, a0) in system.interface.base.items():
            weight = model.get_submodule(name).weight
            weight.data += system.interface.scale * b0 @ a0
            if updated:
                assert system.update is not None
                b, a = system.update.factors[name]
                weight.data += b @ a
        lm = stepwise(model, bases[kind])[0]
        prompts = [system.reader._prompt(*each) for each in zip(QUERIES, READ, strict=True)]
        expected = [each.text for each in lm.generate(prompts, 4)]
        assert [reply.raw for reply in answered(system)] == expected


def test_two_rates_make_two_updates(made: dict[str, Path]) -> None:
    one, two = (terms(serving(made["open"], mode="ttsgd", k=2, rate=r)) for r in (0.01, 0.2))
    assert not any(map(torch.equal, one, two))


@pytest.mark.parametrize("place", [0, 1])
def test_each_demonstration_counts(place: int, made: dict[str, Path]) -> None:
    shown = examples()[:2]
    other = [*shown]
    other[place] = examples()[7]
    one, two = (terms(serving(made["open"], shown=each, k=2)) for each in (shown, other))
    assert not any(map(torch.equal, one, two))


def test_a_demonstration_is_read_as_it_is_alone(
    adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, "qwen2")
    long = replace(example(3), documents=example(3).documents * 2)
    rows = [interface.demonstration(each) for each in (example(0), long)]
    assert len(rows[0].ids) < len(rows[1].ids)
    together = interface.features(rows)
    for row, found in zip(rows, together, strict=True):
        assert torch.allclose(found, interface.features([row])[0], atol=1e-4)
        with torch.no_grad(), interface.using(interface.adapter):
            states = interface.lm.hidden([row])[0]
        assert torch.allclose(found[: interface.width], states[len(row.ids) - 1], atol=1e-4)


class Backward(Exception):
    """A gradient was asked for."""


@pytest.fixture
def no_gradient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise Backward

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    return


@pytest.mark.usefixtures("no_gradient")
@pytest.mark.parametrize("support", ["task", "per-question"])
def test_no_gradient_is_ever_asked_for_but_by_descent(support: str, made: dict[str, Path]) -> None:
    options: dict[str, Any] = {"support": support, "bank": 3, "k": 2}
    for mode in ("raggd", "base", "few-shot", "hypertuning", "prompt-tuning"):
        alone = {"support": "task"} if mode in ("base", "prompt-tuning") else {}
        system = serving(made["llama"], mode=mode, **{**options, **alone})
        for each in system.interface.lm.network.model.parameters():
            assert not each.requires_grad
        answered(system)
        if system.support == "task" and mode in ("raggd", "hypertuning"):
            assert all(each.is_inference() for each in terms(system))
    with pytest.raises(Backward):
        answered(serving(made["llama"], mode="ttsgd", **options))


def test_the_prompt_is_read_before_everything(made: dict[str, Path]) -> None:
    """As a model reads rows that begin with these vectors."""
    system = serving(made["llama"], mode="prompt-tuning")
    lm = system.interface.lm
    vectors = load_file(made["llama"] / "prompt.safetensors")["vectors"]
    rows = rows_of(system.interface, 2)
    with torch.no_grad():
        found = lm.target_log_p(rows, system.reader.start.rows([0, 1]))
        for place, row in enumerate(rows):
            known = lm.vocabulary.embed(torch.tensor([row.ids]), torch.empty(1, 0, 0))
            whole = torch.cat([vectors[None], known], dim=1)
            scores = lm.network.model(inputs_embeds=whole).logits[0].double().log_softmax(dim=1)
            count = len(row.ids) - row.start
            told = scores[len(vectors) + row.start - 1 : -1]
            expected = told.gather(1, torch.tensor(row.ids[row.start :])[:, None])[:, 0]
            assert torch.allclose(found[place, :count], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "k=0 is not among the predictors .* \\(of 1, 2 steps\\)"),
        ({"k": 5}, "k=5 is not among"),
        ({"mode": "ttsgd"}, "k=0 is not among"),
        ({"k": 1, "shots": 0}, "shots=0"),
        ({"support": "per-question", "bank": 2, "shots": 3}, "at least as many as shots"),
        ({"k": -1}, "k=-1"),
        ({"mode": "base", "k": 2}, "mode=base has no use for k="),
        ({"mode": "base", "support": "per-question"}, "no use for support="),
        ({"k": 1, "rate": 0.1}, "mode=raggd has no use for rate="),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str, made: dict[str, Path]) -> None:
    with pytest.raises(HarnessError, match=said):
        RagGd(str(made["open"]), **options).files()


def test_what_a_checkpoint_does_not_have_is_said(made: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "less"
    place.mkdir()
    with pytest.raises(HarnessError, match="no checkpoint of raggd: it has no adapter_config"):
        RagGd(str(place)).files()
    for file in made["llama"].glob("adapter*"):
        (place / file.name).write_bytes(file.read_bytes())
    for mode in ("hypertuning", "prompt-tuning"):
        with pytest.raises(HarnessError, match="--rivals all"):
            RagGd(str(place), mode=mode).files()
    with pytest.raises(HarnessError, match=r"\(none\)"):
        RagGd(str(place)).files()
    RagGd(str(place), mode="base").files()


def test_a_base_that_lies_elsewhere_is_named_and_another_is_refused(
    made: dict[str, Path], bases: dict[str, Path], tmp_path: Path
) -> None:
    place, copy = tmp_path / "made", tmp_path / "copy"
    shutil.copytree(made["llama"], place)
    shutil.copytree(bases["llama"], copy)
    config = json.loads((place / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (place / "adapter_config.json").write_text(json.dumps(config))
    start = digest([file_hash(each) for each in sorted(copy.glob("*.safetensors"))])
    about = {"recipe": {"descent_rate": 0.1, "base_steps": 3}, "start": start}
    (place / "about.json").write_text(json.dumps(about))
    with pytest.raises(HarnessError, match="gone"):
        RagGd(str(place), mode="base").files()
    system = RagGd(str(place), mode="base", model=str(copy))
    assert str(copy) in map(str, system.files())
    system.open(None, None, Brief("Answer briefly.", (), 4))  # type: ignore[arg-type]
    whole = serving(made["llama"], mode="base")
    assert [each.raw for each in answered(system)] == [each.raw for each in answered(whole)]
    other = tiny_models.make_llama(tmp_path / "other", seed=5, positions=1024)
    with pytest.raises(HarnessError, match="was not trained on the weights of"):
        RagGd(str(place), mode="base", model=str(other)).files()


def test_what_cannot_be_adapted_is_told(made: dict[str, Path], tmp_path: Path) -> None:
    for name in ("mini-retrollm", "mini-llama"):
        with pytest.raises(HarnessError, match=r"on q, k and v alone|no checkpoint of raggd"):
            RagGd(name, mode="base").files()
    place = tmp_path / "bare"
    shutil.copytree(made["llama"], place)
    (place / "about.json").unlink()
    with pytest.raises(HarnessError, match="Write rate="):
        RagGd(str(place), mode="ttsgd", k=1).files()
    RagGd(str(place), mode="ttsgd", k=1, rate=0.1).files()
    shutil.copy(made["open"] / "predictor-1.safetensors", place / "predictor-1.safetensors")
    with pytest.raises(HarnessError, match="was made for another model"):
        serving(place, k=1)


def test_a_model_without_these_projections_is_told(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tiny_models.make_tokenizer(eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="no layers that LoRA can be put on"):
        trainer(tmp_path)


def test_what_the_results_depend_on_is_in_the_key(made: dict[str, Path]) -> None:
    named = {
        mode: {each.name for each in RagGd(str(made["open"]), mode=mode, k=k).files()}
        for mode, k in (
            *(("raggd", 2), ("base", 0), ("ttsgd", 2)),
            *(("hypertuning", 0), ("prompt-tuning", 0)),
        )
    }
    common = set.intersection(*named.values())
    assert {"adapter_model.safetensors", "model.safetensors", "words.json"} <= common
    own = {mode: names - common for mode, names in named.items()}
    assert own == {
        "raggd": {"predictor-2.safetensors"},
        "base": set(),
        "ttsgd": {"about.json"},
        "hypertuning": {"hypertuning.safetensors"},
        "prompt-tuning": {"prompt.safetensors"},
    }
    assert RagGd(str(made["open"]), mode="base").shots == 0


# --- rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_every_answer_of_a_row_counts_as_it_would_at_the_end_of_a_shorter_row(
    kind: str, adapters: dict[str, Path], bases: dict[str, Path]
) -> None:
    interface = opened(adapters, bases, kind)
    drawn = [example(n) for n in (0, 4, 7)]
    row = told(interface, drawn)
    alone = [interface.demonstration(each, drawn[:n]) for n, each in enumerate(drawn)]
    assert row.asked.ids == alone[-1].ids and row.asked.start == row.answers[0][0]
    assert row.answers[-1] == (alone[-1].start, len(alone[-1].ids))
    if kind == "open":
        assert row.answers == tuple((each.start, len(each.ids)) for each in alone)
    with torch.no_grad(), interface.using(interface.adapter):
        log_p = interface.lm.target_log_p([row.asked])[0]
        ends = {len(each.ids): each for each in alone}
        for begin, end in row.answers:
            shorter = interface.lm.target_log_p([ends[end]])[0]
            found = log_p[begin - row.asked.start : end - row.asked.start]
            assert torch.allclose(found, shorter, atol=1e-4)


def test_rows_of_several_questions_grow_by_competence_alone() -> None:
    rng, growing = random.Random(0), Growing()
    whole = replace(example(0), support=("Odra",), documents=(*example(1).documents, *READ[0]))
    whole = replace(whole, documents=tuple(replace(e, id=e.title) for e in whole.documents))
    sizes = []
    for sure in (-5.0, -0.01):
        for _ in range(300):
            short = growing.shortened(whole, rng)
            assert "Odra" in {each.id for each in short.documents}
            sizes.append(len(short.documents))
            growing.note(sure)
        if sure < -1:
            assert set(sizes) == {1}
    assert sorted(set(sizes)) == [1, 2, 3, 4] and sizes == sorted(sizes)
    assert growing.shortened(whole, rng) is whole
    again = Growing()
    again.resume(growing.state())
    assert again.state() == growing.state()


# --- by the command line ------------------------------------------------------------------


def test_training_and_running_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, place = tmp_path / "base", tmp_path / "made"
    base.mkdir()
    tiny_models.make_llama(base, positions=2048)
    small = "documents=120,questions=12"
    tasks = [f"mini-forms:opens=by,closes=one,{small}", f"mini-triviaqa:{small}"]
    sizes = {k: str(v) for k, v in SIZES.items() if k not in ("rivals", "shown")}
    more = [word for k, v in sizes.items() for word in (f"--{k.replace('_', '-')}", v)]
    for _ in range(2):  # the second finds it whole
        told = ["--task", *tasks, "--first", "bm25@2", "--model", str(base), "--out", str(place)]
        assert main(["train", "raggd", *told, *more]) == 0
    about = json.loads((place / "about.json").read_text())
    assert about["questions"]["tasks"] == 2 and about["recipe"]["steps_of_descent"] == "1,2"
    ours = f"bm25+raggd:checkpoint={place},shots=2"
    systems = [f"{ours},k=2@2", f"{ours},mode=base@2", f"{ours},mode=ttsgd,k=1@2"]
    systems += [f"{ours},k=1,support=per-question,bank=3@2"]
    run = ["run", "--task", f"mini-forms:opens=in,{small}", "--limit", "3", "--system", *systems]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    assert "EM" in capsys.readouterr().out
    assert main(["run", "--task", tasks[0], "--system", f"{ours},k=9@2"]) == 2
    assert "k=9 is not among the predictors" in capsys.readouterr().err
    assert main([*run[:5], "--split", "train", "--system", systems[0]]) == 2
    assert "is shown demonstrations from the train split" in capsys.readouterr().err


def test_costs_of_adapting_stand_apart_in_the_latency_pass(made: dict[str, Path]) -> None:
    ours = f"bm25+raggd:checkpoint={made['open']},shots=2,k=2"
    each = f"{ours},support=per-question,bank=3@2"
    run = api.latency(
        ["mini-forms:documents=120,questions=12"], [f"{ours}@2", each], questions=3, rounds=1
    )
    once, many = api.latencies(run)
    assert (once.adapt_once_ms or 0) > 0 and once.adapt_p50_ms is None
    assert (many.adapt_p50_ms or 0) > 0 and many.adapt_once_ms is None
    assert (many.p50_ms or 0) > (many.adapt_p50_ms or 0)

"""Training DRO: EM over sampled lists (Shi et al. 2025, arXiv 2505.03075, sections 3.2 to 3.4).

E-step: m lists of each question are drawn from the selector as it stands, and weighted by how
likely the generator makes the answer behind them (`systems.dro.em`). M-step: both are trained on
all of them, -Σ w(z) log p(z|x) and -Σ w(z) log p(y|x, d_z) (Eq. 10, 11); weights are constants.

The released code keeps one list a question, so that its weights are all 1; ours keeps all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from math import ceil
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from harness.data import Document, Example
from harness.manifest import digest, file_hash
from harness.score.answers import against, squad_answer
from harness.score.outputs import contains
from systems.dro.em import Posterior, Said, posterior
from systems.dro.reading import behind
from systems.dro.selector import Asked, Selector
from systems.dro.settings import Settings
from systems.models.hub import lasting, model_folder
from systems.models.language import TOKENS
from systems.models.prompts import Prompt
from systems.models.tuning import Tunable
from systems.passages import words_of
from systems.reader import extracted
from systems.training import state
from systems.training.learning import Learner, chunks, fill, parted, precision

T = TypeVar("T")
Weighted = tuple[Sequence[tuple[int, ...]], Sequence[float]]
"""Lists of a question, and their weights."""
Behind = tuple[Sequence[tuple[int, ...]], Sequence[float], Sequence[str]]
"""Lists of a question, their weights, and the answers that count behind them."""
NEGLIGIBLE = 0.01
"""Lists of a smaller weight are left out of the M-step (of half of 1/m, where that is less)."""


class Reading:
    """The generator's side: the answer to a question behind a list of its candidates."""

    def __init__(self, tunable: Tunable) -> None:
        self.lm = tunable.lm

    def prompt(self, example: Example, places: Sequence[int], spare: int) -> Prompt:
        """The reader's prompt over a list; passages for which there is no room, beside ``spare``
        tokens for an answer, are left out."""
        return self.lm.fitted(self._whole(example, places), spare)

    def _whole(self, example: Example, places: Sequence[int]) -> Prompt:
        passages = [example.documents[place] for place in places]
        return Prompt(example.question, passages, example.instruction)

    def log_p(
        self, asked: Sequence[tuple[Example, Sequence[int], str]]
    ) -> tuple[Tensor, list[int]]:
        """log p(y|x, d_z) (n,) in float64, with gradients, and the tokens of each answer, of which
        an end is one; see `behind`."""
        found = [
            behind(self.lm, self._whole(example, places), answer)
            for example, places, answer in asked
        ]
        texts = [each.ids[each.start :] for each in found]
        rows = [each.rendered for each in found]
        log_p = self.lm.branched_log_p(rows, texts, range(len(rows)))
        return log_p.sum(dim=1), [len(ids) for ids in texts]

    def judged(self, asked: Sequence[tuple[Example, Sequence[int], str]]) -> list[Said]:
        """The same without gradients, so many at once as would be read in `TOKENS` tokens."""
        found: list[Said] = []
        each = max((self.lm.count(self.prompt(*one[:2], 1)) for one in asked), default=1)
        with torch.no_grad():
            for some in chunks(asked, max(1, TOKENS // each)):
                log_p, tokens = self.log_p(some)
                answers = (answer for _, _, answer in some)
                found += map(Said, answers, log_p.tolist(), tokens)
        return found


def answers_of(example: Example) -> tuple[str, ...]:
    """The accepted answers, the main one first."""
    return (example.answer, *(each for each in example.aliases if each != example.answer))


class Unit(NamedTuple):
    """What one step does: part ``number`` of a phase of an iteration; 0 is the warm-up.

    Phases: warm_selector, warm_generator; expect, selector, generator (the M-step); judge.
    """

    iteration: int
    phase: str
    number: int


class Dro:
    """Trains a selector and a generator; see `harness.contract.Recipe`.

    tasks, first: what it learns from, if nobody says otherwise
    records:      what each iteration came to
    """

    name: ClassVar[str] = "dro"
    tasks: ClassVar[Sequence[str]] = tuple(
        f"mini-{name}:documents=8000,questions=800"
        for name in ("hotpotqa", "musique", "2wikimultihopqa", "triviaqa", "msmarco")
    )
    first: ClassVar[str] = "bm25@10"
    options: ClassVar[type] = Settings

    def __init__(self, examples: Sequence[Example], seed: int, settings: Settings) -> None:
        self.settings = s = settings.checked()
        self.seed, self.world = seed, s.world
        self.train, self.dev = parted(examples, s.dev)
        self.units = list(self._plan())
        self.steps, self.done = len(self.units), 0
        one, other = (
            Tunable(model_folder(name), s.device, s.lora, lasting(name), seed)
            for name in (s.selector, s.generator)
        )
        self.selector = Learner(one, s.selector_rate, s.decay)
        self.generator = Learner(other, s.generator_rate, s.decay)
        self.lists, self.reading = Selector(one.lm), Reading(other)
        self.expected: dict[int, Posterior] = {}
        self.figures: dict[str, list[float]] = {}
        self.records: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.spent, self.least = 0.0, min(NEGLIGIBLE, 0.5 / s.samples)

    # --- the contract -----------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """``start`` hashes the weights that both begin with (of an adapter also its base's)."""
        counts = {"train": len(self.train), "dev": len(self.dev)}
        start = {
            name: digest([file_hash(file) for file in each.tunable.files])
            for name, each in self._learners()
        }
        told = {"world": self.world, "recipe": asdict(self.settings), "start": start}
        return {**told, "questions": counts}

    def report(self) -> dict[str, Any]:
        return {"iterations": self.records}

    def step(self) -> dict[str, float]:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        begun, unit = process_time(), self.units[self.done]
        rng = random.Random(f"{self.seed} {self.done}")
        with precision(self.settings.device, self.settings.dtype):
            figures = self._do(unit, rng)
        self.spent += process_time() - begun
        self.done += 1
        for name, each in figures.items():
            self.figures.setdefault(name, []).append(each)
        if unit.phase == "judge":
            self._record(unit.iteration)
        return figures

    def _do(self, unit: Unit, rng: random.Random) -> dict[str, float]:
        match unit.phase:
            case "warm_selector":
                return self._train_selector(self._supervised_lists(rng), rng)
            case "warm_generator":
                return self._train_generator(self._random_lists(rng), rng)
            case "expect":
                return self._expect(unit, rng)
            case "selector":
                lists = {place: self.expected[place][:2] for place in self._batch(unit)}
                return self._train_selector(lists, rng)
            case "generator":
                behind = {place: self.expected[place][:3] for place in self._batch(unit)}
                return self._train_generator(behind, rng)
            case _:
                return self._judge()

    def keep(self, path: Path, notes: str) -> None:
        tensors = state.named("best.", self.best)
        for name, each in self._learners():
            tensors |= state.named(f"{name}.weights.", each.tunable.weights)
            tensors |= state.named(f"{name}.moments.", state.moments(each.optimiser))
        # What is long is a tensor: the notes of a file have little room.
        expected = json.dumps(list(self.expected.items())).encode()
        tensors["expected"] = torch.frombuffer(bytearray(expected), dtype=torch.uint8)
        steps = [each.steps for _, each in self._learners()]
        said = [self.done, self.spent, self.figures, self.records, steps]
        state.write(path, tensors, {"state": json.dumps(said), "notes": notes})

    def resume(self, path: Path) -> str:
        found, said = state.read(path)
        *rest, steps = json.loads(said["state"])
        self.done, self.spent, self.figures, self.records = rest
        self.expected = {
            place: Posterior([tuple(z) for z in lists], *more)
            for place, (lists, *more) in json.loads(bytes(found["expected"].tolist()))
        }
        self.best = state.under("best.", found)
        for (name, each), count in zip(self._learners(), steps, strict=True):
            fill(each.tunable.weights, state.under(f"{name}.weights.", found))
            state.remember(each.optimiser, state.under(f"{name}.moments.", found))
            each.steps = count
        return said["notes"]

    def save(self, folder: Path) -> None:
        for name, each in self._learners():
            fill(each.tunable.weights, state.under(f"{name}.", self.best))
            each.tunable.save(folder / name)

    # --- what is done when ------------------------------------------------------------

    def _learners(self) -> tuple[tuple[str, Learner], ...]:
        return ("selector", self.selector), ("generator", self.generator)

    def _plan(self) -> Iterator[Unit]:
        s, asked = self.settings, self._asked_at_once()
        trained = [each for each in ("selector", "generator") if each != s.without]
        epochs = {"selector": s.selector_epochs, "generator": s.generator_epochs}
        warm = {"warm_selector": s.selector_warm_up, "warm_generator": s.generator_warm_up}
        for phase, steps in warm.items():
            yield from (Unit(0, phase, number) for number in range(steps))
        yield Unit(0, "judge", 0)
        for turn in range(1, s.iterations + 1):
            yield from (Unit(turn, "expect", n) for n in range(ceil(asked / s.micro)))
            for phase in trained:
                steps = epochs[phase] * ceil(asked / s.batch)
                yield from (Unit(turn, phase, number) for number in range(steps))
            yield Unit(turn, "judge", 0)

    def _asked_at_once(self) -> int:
        """Questions of an iteration."""
        return min(self.settings.questions or len(self.train), len(self.train))

    def _asked(self, turn: int) -> list[int]:
        """The questions of an iteration: the next ones of one order of all."""
        order = list(range(len(self.train)))
        random.Random(f"{self.seed} order").shuffle(order)
        count = self._asked_at_once()
        start = (turn - 1) * count % len(order)
        return [*order, *order][start : start + count]

    def _batch(self, unit: Unit) -> list[int]:
        """The questions of a step of the M-step: each epoch has an order of its own."""
        asked, size = self._asked(unit.iteration), self.settings.batch
        epoch, place = divmod(unit.number, ceil(len(asked) / size))
        random.Random(f"{self.seed} {unit.iteration} {unit.phase} {epoch}").shuffle(asked)
        return asked[place * size : (place + 1) * size]

    # --- warm-up ----------------------------------------------------------------------

    def _some(self, rng: random.Random) -> list[int]:
        return rng.sample(range(len(self.train)), min(self.settings.batch, len(self.train)))

    def _supervised_lists(self, rng: random.Random) -> dict[int, Weighted]:
        return {place: ([self._supervised(place)], [1.0]) for place in self._some(rng)}

    def _random_lists(self, rng: random.Random) -> dict[int, Behind]:
        lists: dict[int, Behind] = {}
        for place in self._some(rng):
            drawn = rng.sample(range(len(self.train[place].documents)), self._keep(place))
            if rng.random() < 0.5:
                drawn = list(self._supervised(place))
                rng.shuffle(drawn)
            lists[place] = ([tuple(drawn)], [1.0], [self.train[place].answer])
        return lists

    def _supervised(self, place: int) -> tuple[int, ...]:
        """The candidates that hold the support, then those ranked best."""
        example = self.train[place]
        shown = self.lists.prompt(self._asking(example)).passages
        by_rank = sorted(range(len(shown)), key=lambda n: shown[n].id not in example.support)
        return tuple(by_rank[: self._keep(place)])

    def _keep(self, place: int) -> int:
        return min(self.settings.keep, len(self.train[place].documents))

    def _asking(self, example: Example) -> Asked:
        return Asked(example.question, example.documents, self.settings.keep)

    # --- EM ---------------------------------------------------------------------------

    def _expect(self, unit: Unit, rng: random.Random) -> dict[str, float]:
        size = self.settings.micro
        places = self._asked(unit.iteration)[unit.number * size : (unit.number + 1) * size]
        if unit.number == 0:
            self.expected = {}
        with torch.no_grad():
            found = self.posteriors([self.train[place] for place in places], rng)
        self.expected |= dict(zip(places, found, strict=True))
        names = found[0].figures
        return {name: fmean(each.figures[name] for each in found) for name in names}

    def posteriors(self, examples: Sequence[Example], rng: random.Random) -> list[Posterior]:
        """The E-step on some questions."""
        s = self.settings
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        with self._salted(rng):
            asked = [self._asking(each) for each in examples]
            drawn = self.lists.drawn(asked, s.samples, generator, s.temperature, s.top_p)
            wanted = [
                (place, z, answer)
                for place, (each, some) in enumerate(zip(examples, drawn, strict=True))
                for z in dict.fromkeys(one.places for one in some)
                for answer in answers_of(each)[: 1 if s.aliases == "first" else None]
            ]
            judged = self.reading.judged([(examples[p], z, y) for p, z, y in wanted])
        said: list[dict[tuple[int, ...], Said]] = [{} for _ in examples]
        for (place, z, _), each in zip(wanted, judged, strict=True):
            if z not in said[place] or each.log_p > said[place][z].log_p:
                said[place][z] = each
        return [posterior(*each, s.norm) for each in zip(drawn, said, strict=True)]

    def _train_selector(
        self, lists: Mapping[int, Weighted], rng: random.Random
    ) -> dict[str, float]:
        def loss(places: Sequence[int]) -> Tensor:
            return self.selector_loss({place: lists[place] for place in places})

        return {"selector_loss": self._step(self.selector, loss, list(lists), rng)}

    def _train_generator(self, lists: Mapping[int, Behind], rng: random.Random) -> dict[str, float]:
        def loss(places: Sequence[int]) -> Tensor:
            return self.generator_loss({place: lists[place] for place in places})

        return {"generator_loss": self._step(self.generator, loss, list(lists), rng)}

    def _step(
        self,
        learner: Learner,
        loss: Callable[[Sequence[int]], Tensor],
        places: Sequence[int],
        rng: random.Random,
    ) -> float:
        """A step down the mean loss of some questions, as many at a time as there is room for."""
        with self._salted(rng):
            parts = chunks(places, self.settings.micro)
            return learner.step(loss(part) / len(places) for part in parts)

    def selector_loss(self, lists: Mapping[int, Weighted]) -> Tensor:
        """-Σ w(z) log p(z|x) over questions (Eq. 10). lists: of each, with their weights."""
        asked = [self._asking(self.train[place]) for place in lists]
        kept = [
            [(z, w) for z, w in zip(some, weights, strict=True) if w >= self.least]
            for some, weights in lists.values()
        ]
        found = self.lists.log_p(asked, [[z for z, _ in some] for some in kept])
        constants = torch.tensor([w for some in kept for _, w in some])
        said = torch.cat(found)
        return -(constants.to(said) @ said)

    def generator_loss(self, lists: Mapping[int, Behind]) -> Tensor:
        """-Σ w(z) log p(y|x, d_z) over questions (Eq. 11). lists: of each, with their weights and
        the answers that count behind them."""
        wanted = [
            ((self.train[place], z, answer), weight)
            for place, each in lists.items()
            for z, weight, answer in zip(*each, strict=True)
            if weight >= self.least
        ]
        said, _ = self.reading.log_p([each for each, _ in wanted])
        return -(torch.tensor([weight for _, weight in wanted]).to(said) @ said)

    # --- dev --------------------------------------------------------------------------

    def _judge(self) -> dict[str, float]:
        """How both do together on the questions kept apart, greedily."""
        found: dict[str, list[float]] = {}
        for some in chunks(self.dev, 4 * self.settings.micro):
            lists = [each.places for each in self.lists.best([*map(self._asking, some)])]
            pairs = list(zip(some, lists, strict=True))
            most = self.settings.max_new_tokens
            prompts = [self.reading.prompt(*each, most) for each in pairs]
            written = self.reading.lm.generate(prompts, most)
            for (example, places), text in zip(pairs, written, strict=True):
                for name, value in judged(example, places, extracted(text.text)).items():
                    found.setdefault(name, []).append(value)
        return {f"dev_{name}": fmean(values) for name, values in found.items()}

    def _record(self, turn: int) -> None:
        """Note what an iteration came to; keep the best weights, and stop if it goes on too long
        without."""
        s = self.settings
        noted: dict[str, Any] = {"iteration": turn, "cpu_s": round(self.spent, 1)}
        noted |= {name: round(fmean(values), 5) for name, values in self.figures.items()}
        if "variance" in noted:
            noted["m2_variance"] = round(s.samples**2 * noted["variance"], 4)
        self.figures = {}
        rng = random.Random(f"{self.seed} {turn} shown")
        noted["shown"] = [self._shown(each, rng) for each in self.dev[: s.shown]]
        self.records.append(noted)
        scores = [each.get("dev_F1", float(place)) for place, each in enumerate(self.records)]
        best = scores.index(max(scores))
        if best == turn:
            self.best = {
                f"{name}.{part}": each.detach().to("cpu", copy=True)
                for name, learner in self._learners()
                for part, each in learner.tunable.weights.items()
            }
        noted["best"] = best
        if s.patience and turn - best >= s.patience:
            self.done = self.steps

    def _shown(self, example: Example, rng: random.Random) -> dict[str, Any]:
        """The lists drawn for a question and their weights, to look at."""
        with torch.no_grad(), precision(self.settings.device, self.settings.dtype):
            found = self.posteriors([example], rng)[0]
        ids = [each.id for each in example.documents]
        lists = [[ids[place] for place in z] for z in found.lists]
        weights = [round(each, 6) for each in found.weights]
        return {"question": example.question, "lists": lists, "weights": weights}

    def _salted(self, rng: random.Random) -> AbstractContextManager[object]:
        """Other hashes for words that are not known, the same for both."""
        salt, stack = str(rng.random()), ExitStack()
        for _, each in self._learners():
            stack.enter_context(each.tunable.salted(salt))
        return stack


# --- what it is made of ---------------------------------------------------------------


def judged(example: Example, places: Sequence[int], answer: str) -> dict[str, float]:
    """EM and F1 (SQuAD) of an answer; and what the first 1, 3 and 5 of a list hold (all, where it
    has fewer), see `judged_list`."""
    accepted = answers_of(example)
    overlap = against(squad_answer, answer, accepted)
    found = {"EM": overlap.em, "F1": overlap.f1}
    chosen = [example.documents[place] for place in places]
    for k in (1, 3, 5):
        held = judged_list(chosen[:k], accepted, example.support)
        found |= {f"{name}@{k}": value for name, value in held.items()}
    return found


def judged_list(
    chosen: Sequence[Document], answers: Sequence[str], support: Sequence[str]
) -> dict[str, float]:
    """Whether a passage contains an accepted answer (``answer_R``, the paper's recall), and the
    share of the support that is there (``support_R``), where any is known."""
    found = {"answer_R": float(any(contains(words_of(each), answers) for each in chosen))}
    if support:
        ids = {each.id for each in chosen}
        found["support_R"] = len(ids & set(support)) / len(support)
    return found

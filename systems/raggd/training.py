"""Training RAG-GD (Li et al. 2026, arXiv 2605.26356, section 5): the base adapter, then predictors.

    W0:  AdamW on the answers of questions of all tasks, behind what was retrieved for them
    ΔW*: what K steps of SGD on the answers of N demonstrations make of W0 (Eq. 8)
    g:   from encoded demonstrations to ΔW*, by Eq. 9; it never sees an answer's loss

A support's demonstrations are of one task. Two rivals can be trained on the same: HyperTuning, the
same predictor by the loss of answers to other questions of the task; prompt tuning, some vectors
before the prompt instead of W0.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.data import Example, HarnessError
from harness.manifest import digest, file_hash
from systems.models.hub import by_length, lasting, model_folder
from systems.models.language import Asked
from systems.models.tuning import Tunable
from systems.raggd.interface import Factors, Interface, Term
from systems.raggd.predictor import Predictor, distance
from systems.raggd.rows import Growing, Told, told
from systems.raggd.settings import PROJECTIONS, Settings
from systems.raggd.soft import SoftPrompt
from systems.training import state
from systems.training.learning import BETAS, CLIP, RAMP, Learner, chunks, fill, precision
from systems.training.recipe import falling

AT_ONCE = 2_500
"""Tokens at once, of rows of different lengths."""
GROWN = 0.9
"""Share of the base adapter's steps from which there are rows of one question in any case."""
FIRST = 64
"""Supports by whose features others are normalised, where there is no pool."""
FORMS = tuple(
    f"mini-forms:opens={opens},closes={closes},documents=4000,questions=200"
    for place, opens in enumerate("at by for from in of to with".split())
    for closes in "also first much one".split()
    if closes != "also first much one".split()[place % 4]
)
"""Of the 32 forms, 24; of each first word one last word is held out."""


class Trained:
    """A module in training: its optimiser, and its pace."""

    def __init__(self, module: nn.Module, rate: float, decay: float) -> None:
        self.module, self.rate = module, rate
        self.optimiser = torch.optim.AdamW(module.parameters(), rate, BETAS, weight_decay=decay)

    def step(self, losses: Iterable[Tensor], done: int, steps: int) -> float:
        """One step down the sum of some losses, the number ``done`` of ``steps``."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * falling(done, steps) * min(1.0, (done + 1) / RAMP)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        self.optimiser.step()
        return total


class RagGd:
    """Trains a base adapter and predictors; see `harness.contract.Recipe`.

    tasks, first: what it learns from, if nobody says otherwise
    """

    name: ClassVar[str] = "raggd"
    tasks: ClassVar[Sequence[str]] = (
        *FORMS,
        *(
            f"mini-{name}:documents=8000,questions=800"
            for name in ("hotpotqa", "musique", "2wikimultihopqa", "triviaqa", "msmarco")
        ),
    )
    first: ClassVar[str] = "bm25@5"
    options: ClassVar[type] = Settings

    def __init__(self, examples: Sequence[Example], seed: int, settings: Settings) -> None:
        self.settings = s = settings.checked()
        self.seed = seed
        self.families = by_family(examples, s.shots)
        self.tunable = Tunable(
            model_folder(s.model),
            s.device,
            s.lora,
            lasting(s.model),
            seed,
            alpha=2 * s.lora,
            layers=PROJECTIONS,
            four_bit=s.four_bit,
        )
        self.learner = Learner(self.tunable, s.base_rate, s.decay)
        self.interface = Interface(self.tunable.lm, self.tunable.adapted)
        self.trained = self._modules()
        self.plan = self._plan()
        self.steps, self.done = sum(self.plan.values()), 0
        self.growing = Growing()
        self.encoded: dict[int, Tensor] = {}
        self.targets: dict[int, dict[int, Factors]] = {}

    def _modules(self) -> dict[str, Trained]:
        """What is trained beside W0, by the name of its file."""
        s, width = self.settings, self.interface.width
        device = next(iter(self.tunable.weights.values())).device
        names = [f"predictor-{steps}" for steps in s.descents]
        rivals = s.rivals == "all"
        found = {}
        with torch.random.fork_rng(devices=[]):
            for name in (*names, *(["hypertuning"] if rivals else [])):
                torch.manual_seed(self.seed)
                made = Predictor(self.interface.shapes, width, s.shape).to(device)
                rate = s.rival_rate if name == "hypertuning" else s.predictor_rate
                found[name] = Trained(made, rate, s.decay)
            if rivals:
                torch.manual_seed(self.seed)
                soft = SoftPrompt.drawn(self.tunable.lm, s.prompt_tokens)
                found["prompt"] = Trained(soft, s.prompt_rate, 0.0)
        return found

    def _plan(self) -> dict[str, int]:
        """The phases in order, and the steps of each."""
        s = self.settings
        rivals = {"prompt": s.prompt_steps, "hypertuning": s.rival_steps}
        blocks = len(self._blocks(range(s.pool)))
        found = {"base": s.base_steps, "encode": blocks, "predict": s.predictor_steps}
        return found | (rivals if s.rivals == "all" else {})

    # --- the contract -----------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """``start`` hashes the weights that it begins with."""
        counts = {"tasks": len(self.families), "train": sum(map(len, self.families))}
        start = digest([file_hash(file) for file in self.tunable.files])
        told = {"world": self.settings.world, "recipe": asdict(self.settings), "start": start}
        return {**told, "questions": counts}

    def step(self) -> dict[str, float]:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        phase, done = self._phase()
        rng = random.Random(f"{self.seed} {phase} {done}")
        do = {
            "base": self._base,
            "encode": self._encode,
            "predict": self._predict,
            "prompt": self._prompt,
            "hypertuning": self._hypertuning,
        }[phase]
        with (
            torch.random.fork_rng(devices=[]),
            precision(self.settings.device, self.settings.dtype),
        ):
            torch.manual_seed(rng.getrandbits(60))
            figures = do(rng, done)
        self.done += 1
        return figures

    def _phase(self) -> tuple[str, int]:
        """The phase of the next step, and the number of the step in it."""
        done = self.done
        for phase, steps in self.plan.items():
            if done < steps:
                return phase, done
            done -= steps
        raise AssertionError("all is done")

    def keep(self, path: Path, notes: str) -> None:
        tensors = state.named("weights.", self.tunable.weights)
        tensors |= state.named("moments.", state.moments(self.learner.optimiser))
        for name, each in self.trained.items():
            tensors |= state.named(f"{name}.weights.", each.module.state_dict())
            tensors |= state.named(f"{name}.moments.", state.moments(each.optimiser))
        said = json.dumps([self.done, self.learner.steps, self.growing.state()])
        state.write(path, tensors, {"state": said, "notes": notes})

    def resume(self, path: Path) -> str:
        found, said = state.read(path)
        self.done, self.learner.steps, growing = json.loads(said["state"])
        self.growing.resume(growing)
        fill(self.tunable.weights, state.under("weights.", found))
        state.remember(self.learner.optimiser, state.under("moments.", found))
        for name, each in self.trained.items():
            each.module.load_state_dict(state.under(f"{name}.weights.", found))
            state.remember(each.optimiser, state.under(f"{name}.moments.", found))
        return said["notes"]

    def save(self, folder: Path) -> None:
        self.tunable.save(folder)
        s = self.settings
        notes: dict[str, object] = {"shots": s.shots, "rate": s.descent_rate}
        for name, each in self.trained.items():
            each.module.save(folder / f"{name}.safetensors", notes, self.tunable.precision)

    # --- the base adapter, and prompt tuning ------------------------------------------

    def _rows(self, rng: random.Random, count: int, shown: float) -> list[Told]:
        """Questions of any task; a share of the rows have others of the same task before, all of
        them as long as these grow."""
        rows = []
        if shown and not self.growing.grown and self.done < GROWN * self.settings.base_steps:
            shown = 1.0
        for _ in range(count):
            family, several = rng.choice(self.families), rng.random() < shown
            examples = rng.sample(family, self.settings.shots + 1 if several else 1)
            if several:
                examples = [self.growing.shortened(each, rng) for each in examples]
            with self.tunable.salted(str(rng.random())):
                rows.append(told(self.interface, examples))
        return rows

    def _parts(self, rows: Sequence[Told]) -> Iterator[list[Told]]:
        """Rows of about equal length, so many at once as there is memory for."""
        lengths = [len(row.asked.ids) for row in rows]
        for places in by_length(lengths, self.settings.micro, AT_ONCE):
            yield [rows[place] for place in places]

    def _loss(self, rows: Sequence[Told], sure: list[float], start: Any = None) -> Tensor:
        """The sum over all answers of cross-entropy, a mean over tokens. ``sure`` is added to: log
        p of the first token of those behind others."""
        log_p = self.tunable.lm.target_log_p([row.asked for row in rows], start)
        losses = []
        for (asked, answers), found in zip(rows, log_p, strict=True):
            said = [found[begin - asked.start : end - asked.start] for begin, end in answers]
            losses += [-each.mean() for each in said]
            sure += [each[0].item() for each in said[1:]]
        return torch.stack(losses).sum()

    def _base(self, rng: random.Random, done: int) -> dict[str, float]:
        s, sure = self.settings, list[float]()
        rows = self._rows(rng, s.base_batch, s.shown)
        answers = sum(len(row.answers) for row in rows)
        with self.interface.using(self.interface.adapter):
            losses = (self._loss(part, sure) / answers for part in self._parts(rows))
            loss = self.learner.step(losses, falling(done, self.plan["base"]))
        if not sure:
            return {"base_loss": loss}
        self.growing.note(fmean(sure))
        return {"base_loss": loss, "shown": fmean(sure), "level": float(self.growing.level)}

    def _prompt(self, rng: random.Random, done: int) -> dict[str, float]:
        rows, trained = self._rows(rng, self.settings.base_batch, 0.0), self.trained["prompt"]
        soft, lm = trained.module, self.tunable.lm
        assert isinstance(soft, SoftPrompt)
        losses = (
            self._loss(part, [], soft.read(lm, len(part))) / len(rows) for part in self._parts(rows)
        )
        return {"prompt_loss": trained.step(losses, done, self.plan["prompt"])}

    # --- supports ---------------------------------------------------------------------

    def _support(self, number: int) -> tuple[list[Example], str]:
        """The demonstrations of a support, and its salt; it is a function of the seed and its
        number."""
        rng = random.Random(f"{self.seed} support {number}")
        return rng.sample(rng.choice(self.families), self.settings.shots), str(rng.random())

    def _support_rows(self, number: int) -> list[Asked]:
        examples, salt = self._support(number)
        with self.tunable.salted(salt):
            return [self.interface.demonstration(each) for each in examples]

    def _encode(self, rng: random.Random, done: int) -> dict[str, float]:  # noqa: ARG002
        """Features and targets of a part of the pool (which a training that was killed since then
        has to compute again)."""
        part = self._blocks(range(self.settings.pool))[done]
        self._features(part)
        self._targets(part)
        return {}

    def _batch(self, rng: random.Random, done: int) -> list[int]:
        """The supports of a step."""
        size, pool = self.settings.predictor_batch, self.settings.pool
        if not pool:
            self.encoded.clear()
            self.targets.clear()
            return list(range(done * size, (done + 1) * size))
        return [rng.randrange(pool) for _ in range(size)]

    def _blocks(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """The supports in parts that are computed together, always the same ones, so that rounding
        is always the same."""
        size, pool = max(1, self.settings.micro // self.settings.shots), self.settings.pool
        if not pool:
            return list(chunks(numbers, size))
        starts = sorted({number - number % size for number in numbers})
        return [range(start, min(start + size, pool)) for start in starts]

    def _features(self, numbers: Sequence[int]) -> Tensor:
        """Of supports (n, 2 d): the mean over their demonstrations."""
        s = self.settings
        for part in self._blocks(numbers):
            if self.encoded.keys() >= set(part):
                continue
            rows = [row for each in part for row in self._support_rows(each)]
            found = self.interface.features(rows).view(len(part), s.shots, -1).mean(dim=1)
            self.encoded |= dict(zip(part, found, strict=True))
        return torch.stack([self.encoded[each] for each in numbers])

    def _targets(self, numbers: Sequence[int]) -> dict[int, Factors]:
        """ΔW* of supports, for each number of steps of descent."""
        s = self.settings
        for part in self._blocks(numbers):
            if self.targets.keys() >= set(part):
                continue
            rows = [self._support_rows(each) for each in part]
            found = self.interface.descended(rows, s.descent_rate, s.descents)
            for place, number in enumerate(part):
                self.targets[number] = {
                    steps: {name: (b[place], a[place]) for name, (b, a) in each.items()}
                    for steps, each in found.items()
                }
        return {
            steps: self.interface.difference(
                _stacked([self.targets[each][steps] for each in numbers])
            )
            for steps in s.descents
        }

    # --- predictors -------------------------------------------------------------------

    def _begin(self, predictor: Predictor, done: int) -> None:
        if done == 0:
            if all(not b.any() for b, _ in self.interface.base.values()):
                raise HarnessError(
                    "the base adapter's B is 0, where A has no gradient.", "Raise base_steps=."
                )
            count = self.settings.pool or FIRST
            predictor.scale_by(self._features(range(count)))

    def _predict(self, rng: random.Random, done: int) -> dict[str, float]:
        numbers, figures = self._batch(rng, done), dict[str, float]()
        chance = rng.getrandbits(60)
        for steps, target in self._targets(numbers).items():
            trained = self.trained[f"predictor-{steps}"]
            assert isinstance(trained.module, Predictor)
            self._begin(trained.module, done)
            torch.manual_seed(chance)  # so that each is as it would be alone
            found = trained.module(self._features(numbers), self.settings.noise)
            how = distance(found, target)
            loss = (1 - how.cosine + self.settings.norm_weight * how.log_ratio).mean()
            trained.step([loss], done, self.plan["predict"])
            figures |= {
                f"cosine_{steps}": how.cosine.mean().item(),
                f"log_ratio_{steps}": how.log_ratio.mean().item(),
            }
        return figures

    def _hypertuning(self, rng: random.Random, done: int) -> dict[str, float]:
        numbers, rows = self._batch(rng, done), []
        for number in numbers:
            examples, salt = self._support(number)
            family = next(each for each in self.families if examples[0] in each)
            others = [each for each in family if each not in examples]
            with self.tunable.salted(salt):
                rows.append(self.interface.demonstration(rng.choice(others)))
        trained = self.trained["hypertuning"]
        assert isinstance(trained.module, Predictor)
        self._begin(trained.module, done)
        features = self._features(numbers)

        def losses() -> Iterator[Tensor]:
            for places in chunks(range(len(rows)), self.settings.micro):
                part = slice(places[0], places[-1] + 1)
                found = trained.module(features[part], self.settings.noise)
                with self.interface.using(self.interface.adapter, Term(found)):
                    yield self.interface.losses(rows[part]).sum() / len(rows)

        return {"hypertuning_loss": trained.step(losses(), done, self.plan["hypertuning"])}


def by_family(examples: Sequence[Example], shots: int) -> list[list[Example]]:
    """The examples of each task; `HarnessError` if one has too few for a support and a question."""
    found: dict[str, list[Example]] = {}
    for each in examples:
        found.setdefault(each.family, []).append(each)
    for family in found.values():
        if len(family) <= shots:
            raise HarnessError(
                f"a task has {len(family)} questions that can be learned from, and shots={shots} "
                "demonstrations leave none to ask.",
                "Take a larger task or fewer shots=.",
            )
    return list(found.values())


def _stacked(factors: Sequence[Factors]) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of several supports as one."""
    return {
        name: (
            torch.stack([each[name][0] for each in factors]),
            torch.stack([each[name][1] for each in factors]),
        )
        for name in factors[0]
    }

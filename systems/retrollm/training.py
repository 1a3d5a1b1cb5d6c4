"""Training RetroLLM on sequences of clues, evidence and answer (Li et al. 2024, arXiv 2412.11919,
sections 3.5 and D.3.2).

Of each question: the sentences of what was retrieved that hold a clue or a name of it, ranked by a
cross-encoder; of the best k_e those up to the first relevant one are its evidence. Which are
relevant and what its clues are comes with the questions (the paper asks a model of 70B). A question
of several steps has its relevant sentences in their order. Questions for which nothing relevant was
retrieved are left out.

    loss = NLL(clues, evidence) + γ NLL(answer),  per token; γ = 2

of an evidence the tokens in the middle (80 %) may be masked.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from harness.data import Example, Explained, HarnessError
from harness.files import json_rows
from harness.manifest import digest, file_hash
from harness.score.outputs import contains
from systems.models.classifier import Classifier
from systems.models.hub import lasting, model_folder
from systems.models.language import Asked
from systems.models.prompts import Prompt, TokenPrompts
from systems.models.tuning import Tunable
from systems.passages import part_of
from systems.retrollm.form import SIGNS, Form, sentences
from systems.retrollm.settings import ATTENTION, Settings
from systems.training import state
from systems.training.learning import Learner, chunks, fill, precision
from systems.training.recipe import falling


class Sequenced(NamedTuple):
    """What a model is to write for a question."""

    question: str
    clues: tuple[str, ...]
    evidence: tuple[str, ...]
    answer: str
    bridges: tuple[str, ...] = ()


class Told(NamedTuple):
    """A sequence behind its prompt, as ids, and what each counts in the loss; ``parts`` says of
    each what it is of: ``c``, ``e`` or ``a``."""

    asked: Asked
    weights: list[float]
    parts: str


class RetroLLM:
    """Trains a model; see `harness.contract.Recipe`.

    tasks, first: what it learns from, if nobody says otherwise
    """

    name: ClassVar[str] = "retrollm"
    tasks: ClassVar[Sequence[str]] = tuple(
        f"mini-{name}:documents=8000,questions=1000"
        for name in ("triviaqa", "hotpotqa", "2wikimultihopqa", "musique", "msmarco")
    )
    first: ClassVar[str] = "bm25@20"
    options: ClassVar[type] = Settings
    explained: ClassVar[bool] = True

    def __init__(self, examples: Sequence[Example], seed: int, settings: Settings) -> None:
        self.settings = s = settings.checked()
        self.seed = seed
        self.train = known(examples, s.explanations)
        self.left_out = len(examples) - len(self.train)
        tunable = Tunable(
            model_folder(s.model),
            s.device,
            s.lora,
            lasting(s.model),
            seed,
            signs=SIGNS,
            alpha=s.alpha,
            layers=ATTENTION if s.layers == "attention" else (),
        )
        self.learner = Learner(tunable, s.rate, s.decay)
        self.lm, self.form = tunable.lm, Form.of(tunable.prompts)
        self.scorer = Classifier(model_folder(s.scorer), device=s.device)
        self.sequences: dict[int, Sequenced] = {}
        self.steps, self.done = s.epochs * ceil(len(self.train) / s.batch), 0

    # --- the contract -----------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """``start`` hashes the weights that it begins with."""
        counts = {"train": len(self.train), "left_out": self.left_out}
        start = digest([file_hash(file) for file in self.learner.tunable.files])
        told = {"world": self.settings.world, "recipe": asdict(self.settings), "start": start}
        if self.settings.explanations:
            told["explanations"] = file_hash(Path(self.settings.explanations).expanduser())
        return {**told, "questions": counts}

    def step(self) -> dict[str, float]:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        s, rng = self.settings, random.Random(f"{self.seed} {self.done}")
        batch = self._batch()
        for place in batch:
            if place not in self.sequences:
                self.sequences[place] = self.sequence(self.train[place])
        figures: dict[str, list[float]] = {}
        with (
            precision(s.device, s.dtype),
            self.learner.tunable.salted(str(rng.random())),
        ):
            told = [self._told(self.sequences[place], rng) for place in batch]
            told = [each for each in told if self._fits(each)]
            if not told:
                raise HarnessError(
                    f"no sequence of a step fits into the model's {self.lm.window} tokens.",
                    "Take a model that reads more.",
                )
            whole = sum(sum(each.weights) for each in told)
            losses = (self._loss(part, figures) / whole for part in chunks(told, s.micro))
            loss = self.learner.step(losses, falling(self.done, self.steps))
        self.done += 1
        figures["too_long"] = [1 - len(told) / len(batch)]
        return {"loss": loss, **{name: fmean(each) for name, each in figures.items()}}

    def keep(self, path: Path, notes: str) -> None:
        tensors = state.named("weights.", self.learner.tunable.weights)
        tensors |= state.named("moments.", state.moments(self.learner.optimiser))
        said = json.dumps([self.done, self.learner.steps])
        state.write(path, tensors, {"state": said, "notes": notes})

    def resume(self, path: Path) -> str:
        found, said = state.read(path)
        self.done, self.learner.steps = json.loads(said["state"])
        fill(self.learner.tunable.weights, state.under("weights.", found))
        state.remember(self.learner.optimiser, state.under("moments.", found))
        return said["notes"]

    def save(self, folder: Path) -> None:
        self.learner.tunable.save(folder)

    # --- sequences --------------------------------------------------------------------

    def _batch(self) -> list[int]:
        """The questions of a step: each epoch has an order of its own."""
        size = self.settings.batch
        epoch, place = divmod(self.done, ceil(len(self.train) / size))
        order = list(range(len(self.train)))
        random.Random(f"{self.seed} epoch {epoch}").shuffle(order)
        return order[place * size : (place + 1) * size]

    def sequence(self, example: Example) -> Sequenced:
        """The clues and the evidence of a question, and its answer."""
        assert example.explained is not None
        bridges = example.explained.bridges if self.settings.again else ()
        evidence = self._evidence(example, example.explained)
        clues = example.explained.clues
        return Sequenced(example.question, clues, evidence, example.answer, bridges)

    def _evidence(self, example: Example, known: Explained) -> tuple[str, ...]:
        """What is ranked above the first relevant sentence, then the relevant ones."""
        found = [
            (each, text)
            for each in example.documents
            for text in sentences(each)
            if text in known.evidence or _holds(text, known.clues, example.question)
        ]
        judged = self.scorer.judge([(example.question, part_of(*each)) for each in found])
        order = sorted(range(len(found)), key=lambda place: -judged[place].score)
        ranked = list(dict.fromkeys(found[place][1] for place in order))
        first = next(place for place, text in enumerate(ranked) if text in known.evidence)
        room = self.settings.evidences * min(2, len(known.evidence)) - len(known.evidence)
        return (*ranked[: min(first, max(0, room))], *known.evidence)

    def _told(self, sequence: Sequenced, rng: random.Random) -> Told:
        """A sequence as the model writes it."""
        form, prompts = self.form, self.lm.prompts
        row = prompts.render(Prompt(sequence.question, seek=True))
        ids, weights, parts = list(row.ids), list[float](), ""

        def write(new: Sequence[int], part: str, middle: float = 0.0) -> None:
            nonlocal parts
            ids.extend(new)
            edge = max(1, round((1 - middle) / 2 * len(new)))
            inside = range(edge, len(new) - edge)
            worth = self.settings.answer_weight if part == "a" else 1.0
            weights.extend(0.0 if middle and n in inside else worth for n in range(len(new)))
            parts += part * len(new)

        write([form.clue], "c")
        if rng.random() >= self.settings.without_clues:
            for place, clue in enumerate(sequence.clues):
                write([form.sep] if place else [], "c")
                write(prompts.within(row, clue), "c")
        write([form.end_clue, form.evidence], "c")
        bridges, separate = list(sequence.bridges), False
        for place, text in enumerate(sequence.evidence, 1):
            write([form.sep] if separate else [], "e")
            write(prompts.within(row, text), "e", self.settings.masked)
            separate = True
            if bridges and bridges[0] in text and place < len(sequence.evidence):
                write([form.end_evidence], "e")
                write([form.clue], "c")
                write(prompts.within(row, bridges.pop(0)), "c")
                write([form.end_clue, form.evidence], "c")
                separate = False
        write([form.end_evidence], "e")
        answer = prompts.within(row, sequence.answer + self._stop())
        write([*form.lead, *answer, *form.end], "a")
        return Told(Asked(ids, len(row.ids), row), weights, parts)

    def _fits(self, told: Told) -> bool:
        """Whether the model can read a sequence; longer ones are left out."""
        return self.lm.window is None or len(told.asked.ids) <= self.lm.window

    def _stop(self) -> str:
        return "." if isinstance(self.lm.prompts, TokenPrompts) else ""

    def _loss(self, told: Sequence[Told], figures: dict[str, list[float]]) -> Tensor:
        """The loss summed over some sequences; ``figures`` are added to: how sure the model is of
        a token of each part, as a mean of log p."""
        log_p = self.lm.target_log_p([each.asked for each in told])
        width = log_p.shape[1]
        weights = [[*each.weights, *[0.0] * (width - len(each.weights))] for each in told]
        parts = "".join(each.parts.ljust(width) for each in told)
        said = log_p.detach().flatten().tolist()
        for part, name in (("c", "clues"), ("e", "evidence"), ("a", "answer")):
            found = [each for each, kind in zip(said, parts, strict=True) if kind == part]
            figures.setdefault(name, []).append(fmean(found))
        return -(torch.tensor(weights).to(log_p) * log_p).sum()


# --- what it is made of ---------------------------------------------------------------


def known(examples: Sequence[Example], file: str) -> list[Example]:
    """The examples of which it is known how they are answered, by what came with them or by a
    file, and for which all of their evidence was retrieved, sentence by sentence. `HarnessError` if
    there are none."""
    told = _from_file(Path(file).expanduser()) if file else {}
    found = []
    for each in examples:
        how = told.get(each.question, each.explained)
        if how is None:
            continue
        texts = {text for document in each.documents for text in sentences(document)}
        evidence = tuple(text for text in how.evidence if text in texts)
        if evidence and evidence == how.evidence:
            found.append(each if how is each.explained else replace(each, explained=how))
    if not found:
        raise HarnessError(
            f"of {len(examples)} questions, for none it is known what clues and evidence they have "
            "and the evidence was retrieved.",
            'Give explanations=FILE with rows {"question": …, "clues": […], "evidence": […]}.',
        )
    return found


def _from_file(path: Path) -> dict[str, Explained]:
    found = {}
    for place, row in json_rows(path):
        told = {"bridges": [], **row} if isinstance(row, dict) else {}
        parts, question = [told.get(name) for name in Explained._fields], told.get("question")
        lists = all(
            isinstance(part, list) and all(isinstance(each, str) for each in part) for part in parts
        )
        if not isinstance(question, str) or not lists:
            raise HarnessError(
                f"{place}: a row needs 'question', and 'clues' and 'evidence' as lists of texts.",
                "Add them.",
            )
        found[question] = Explained(*(tuple(map(str, part or ())) for part in parts))
    return found


def _holds(sentence: str, clues: Sequence[str], question: str) -> bool:
    """Whether a sentence holds a clue, or a word of the question that is a name (or stands
    there as one would)."""
    named = [each for each in question.split()[1:] if each[:1].isupper()]
    return contains(sentence, (*clues, *named))

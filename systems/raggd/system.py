"""RAG-GD as a system: a few demonstrations make an update of the generator, by one forward pass of
a predictor; with it the generator reads and answers. And what it is compared with.

What it does not do: retrieve, choose demonstrations, train (`systems.raggd.training`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.corpus import Corpus
from harness.data import Brief, Document, HarnessError, Query, Reply
from harness.manifest import digest, file_hash
from harness.run.spans import span
from systems.models.hub import (
    ABOUT,
    ADAPTER,
    SHIPPED,
    Checkpoint,
    about,
    check_sizes,
    read_object,
)
from systems.models.language import CausalLM, Generated
from systems.models.prompts import Prompt
from systems.raggd.settings import PROJECTIONS
from systems.reader import Reader

if TYPE_CHECKING:
    from systems.raggd.interface import Factors, Term

MINI = "mini-raggd"
Mode = Literal["raggd", "base", "few-shot", "ttsgd", "hypertuning", "prompt-tuning"]
FILES = {"hypertuning": "hypertuning", "prompt-tuning": "prompt"}
"""Of the modes that need one file beside the adapter."""


class RagGd:
    """Options: ``checkpoint``, what ``train raggd`` wrote (the shipped one or its folder), and
    ``model``, if what it is for lies elsewhere; ``four_bit`` loads that in NF4, on CUDA.

    mode:    ``raggd``: the update is predicted; ``ttsgd``: it is made by ``k`` steps of SGD on the
             demonstrations; ``hypertuning``: predicted, by what was trained on answers. Without an
             update: ``base``, the base adapter alone; ``few-shot``, demonstrations in its prompt;
             ``prompt-tuning``, trained vectors before the prompt in place of the adapter
    k:       steps of descent that the update stands for; 0: those of the checkpoint
    shots:   demonstrations (N)
    support: they make one update for the ``task``; or, ``per-question``, one for each question, of
             others drawn among ``bank``
    rate:    of descent (η); 0: that of the checkpoint
    max_input_tokens: as of `reader`
    """

    model_option = "checkpoint=DIR"

    def __init__(
        self,
        checkpoint: str = MINI,
        mode: Mode = "raggd",
        k: int = 0,
        shots: int = 3,
        support: Literal["task", "per-question"] = "task",
        bank: int = 32,
        rate: float = 0.0,
        model: str = "",
        four_bit: bool = False,
        max_input_tokens: int = 0,
    ) -> None:
        check_sizes("raggd", shots=shots, bank=bank)
        each = support == "per-question"
        if k < 0 or rate < 0 or (each and bank < shots):
            raise HarnessError(
                f"raggd:k={k},rate={rate},shots={shots},bank={bank} cannot be.",
                "Give 0 or more of k and rate, and a bank of at least as many as shots.",
            )
        wants = mode not in ("base", "prompt-tuning")
        idle = {"k": k and mode not in ("raggd", "ttsgd"), "rate": rate and mode != "ttsgd"}
        idle["support"] = each and not wants
        if unused := [name for name, given in idle.items() if given]:
            raise HarnessError(f"raggd:mode={mode} has no use for {unused[0]}=.", "Leave it out.")
        self.checkpoint, self.model, self.mode, self.four_bit = checkpoint, model, mode, four_bit
        self.k, self.rate, self.drawn, self.support = k, rate, shots, support
        self.max_input_tokens = max_input_tokens
        self.shots = 0 if not wants else bank if each else shots

    # --- the checkpoint ---------------------------------------------------------------

    @cached_property
    def folder(self) -> Path:
        """The checkpoint's folder: an adapter on q, k and v."""
        shipped, given = SHIPPED / self.checkpoint, Path(self.checkpoint).expanduser()
        folder = shipped if "/" not in self.checkpoint and shipped.is_dir() else given
        if missing := [name for name in ADAPTER if not (folder / name).is_file()]:
            raise HarnessError(
                f"{self.checkpoint} is no checkpoint of raggd: it has no {missing[0]}.",
                "Make one with `python -m harness train raggd --out DIR`.",
            )
        on = read_object(folder / ADAPTER[0]).get("target_modules")
        if not isinstance(on, list) or not set(on) <= set(PROJECTIONS):
            raise HarnessError(
                f"{self.checkpoint} is not an adapter on q, k and v alone.",
                "Make one with `python -m harness train raggd --out DIR`.",
            )
        return folder

    @cached_property
    def base(self) -> Checkpoint:
        """The model that is adapted."""
        named = self.model or str(read_object(self.folder / ADAPTER[0])["base_model_name_or_path"])
        return Checkpoint(named, "ForCausalLM")

    def _check_base(self) -> None:
        """`HarnessError` if a ``model`` is not the one that the adapter was trained on."""
        said = about(self.folder)
        if not self.model or not said.get("recipe", {}).get("base_steps"):
            return  # an adapter that another training made does not say
        weights = sorted(self.base.folder().glob("*.safetensors"))
        if digest([file_hash(each) for each in weights]) != said.get("start"):
            raise HarnessError(
                f"{self.checkpoint} was not trained on the weights of {self.model}.",
                "Leave model= out, or name a copy of what it was trained on.",
            )

    @cached_property
    def steps(self) -> int:
        """K."""
        found = sorted(int(each.stem.rpartition("-")[2]) for each in self._predictors())
        if self.k and (self.mode == "ttsgd" or self.k in found):
            return self.k
        if not self.k and len(found) == 1:
            return found[0]
        has = f"of {', '.join(map(str, found))} steps" if found else "none"
        raise HarnessError(
            f"raggd:k={self.k} is not among the predictors of {self.checkpoint} ({has}).",
            "Write k= with one of these, or train one with --steps-of-descent.",
        )

    def _predictors(self) -> list[Path]:
        return list(self.folder.glob("predictor-*.safetensors"))

    @property
    def file(self) -> Path | None:
        """The file beside the adapter that this mode needs."""
        name = FILES.get(self.mode, "")
        if self.mode in ("raggd", "ttsgd"):
            steps = self.steps  # which says what is wrong with k
            name = f"predictor-{steps}" if self.mode == "raggd" else ""
        if not name:
            return None
        found = self.folder / f"{name}.safetensors"
        if not found.exists():
            raise HarnessError(
                f"{self.checkpoint} has no {found.name}.",
                "Train it with --rivals all.",
            )
        return found

    def files(self) -> Sequence[Path]:
        own = [self.folder / name for name in ADAPTER]
        own += [self.file] if self.file else []
        self._check_base()
        if self.mode == "ttsgd" and not self.rate:
            if "descent_rate" not in about(self.folder).get("recipe", {}):
                raise HarnessError(
                    f"{self.checkpoint} does not say at which rate to descend.", "Write rate=."
                )
            own.append(self.folder / ABOUT)
        return [*own, *self.base.files()]

    @cached_property
    def world(self) -> str:
        """The generated world that the model was made for; empty: none."""
        return self.base.world

    # --- serving ----------------------------------------------------------------------

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        from systems.raggd.interface import Interface

        self.interface = Interface.open(
            self.folder, self.base.folder(), brief.device, brief.dtype, self.four_bit
        )
        self.examples, self.seed = brief.examples, brief.seed
        self.reader = _Reading(self.checkpoint, max_input_tokens=self.max_input_tokens)
        if self.mode == "prompt-tuning":
            self._begin_with_prompt()
        elif self.mode == "few-shot":
            self.reader.shots = self.drawn
        elif self.mode in ("raggd", "hypertuning"):
            _ = self._predictor  # reading it is no part of adapting
        shown = brief.examples if self.mode == "few-shot" and self.support == "task" else ()
        self.reader.serve(self.interface.lm, replace(brief, examples=shown))
        self.update: Term | None = None
        if self.support == "task" and self.mode in ("raggd", "ttsgd", "hypertuning"):
            with span("adapt"):
                rows = [self.interface.demonstration(each) for each in self.examples]
                self.update = self._adapted(rows)

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> Sequence[Reply | HarnessError]:
        """The generator's answers; see `Reader.answer`. ``counts`` has the tokens of demonstrations
        that were read for a question alone (``support_tokens``), which are prompt tokens, too."""
        if self.support == "task" or not self.shots:
            with self._with(self.update):
                return self.reader.answer(queries, documents)
        return [self._alone(*each) for each in zip(queries, documents, strict=True)]

    def _alone(self, query: Query, documents: Sequence[Document]) -> Reply | HarnessError:
        """A question with demonstrations of its own: which, its text and the seed say."""
        draws = random.Random(f"{self.seed} {query.text}")
        examples = draws.sample(self.examples, self.drawn)
        tokens = 0
        if self.mode == "few-shot":
            update = None
            self.reader.brief = replace(self.reader.brief, examples=tuple(examples))
        else:
            with span("adapt"):
                rows = [self.interface.demonstration(each) for each in examples]
                update = self._adapted(rows)
            tokens = sum(len(row.ids) for row in rows)
        with self._with(update):
            reply = self.reader.answer([query], [documents])[0]
        if not tokens or isinstance(reply, HarnessError):
            return reply
        read = reply.counts["prompt_tokens"] + tokens
        return replace(
            reply, counts={**reply.counts, "prompt_tokens": read, "support_tokens": tokens}
        )

    @contextmanager
    def _with(self, update: Term | None) -> Iterator[None]:
        """The generator as this mode has it, with an update; and then without."""
        own = () if self.mode == "prompt-tuning" else (self.interface.adapter,)
        with self.interface.using(*own, *([update] if update else [])):
            yield

    def _adapted(self, rows: Sequence[Any]) -> Term:
        """The update that demonstrations make."""
        from systems.raggd.interface import Term, taken

        made: Factors
        if self.mode == "ttsgd":
            rate = self.rate or float(about(self.folder)["recipe"]["descent_rate"])
            found = self.interface.descended([rows], rate, [self.steps])[self.steps]
            made = self.interface.difference(found)
        else:
            made = self._predicted(rows)
        return Term(taken(made, 0))

    def _predicted(self, rows: Sequence[Any]) -> Factors:
        """In one forward pass, without a gradient anywhere."""
        from torch import inference_mode

        with inference_mode():
            features = self.interface.features(rows).mean(dim=0, keepdim=True)
            found: Factors = self._predictor(features)
        return found

    @cached_property
    def _predictor(self) -> Any:
        from systems.raggd.predictor import load_predictor

        assert self.file is not None
        found = load_predictor(self.file, str(self.interface.device))[0]
        if (found.shapes, found.width) != (self.interface.shapes, self.interface.width):
            raise HarnessError(
                f"{self.file} was made for another model.", "Check the checkpoint's files."
            )
        return found

    def _begin_with_prompt(self) -> None:
        from systems.raggd.soft import Begun, load_soft

        assert self.file is not None
        soft, lm = load_soft(self.file), self.interface.lm
        self.reader.start = Begun(soft, lm)
        if lm.window is not None:
            lm.window -= len(soft.vectors)


class _Reading(Reader):
    """A reader whose model another one has opened; ``start``: what it reads before any prompt."""

    start: Any = None

    def _written(self, prompts: Sequence[Prompt]) -> list[Generated]:
        assert isinstance(self.lm, CausalLM)
        return self.lm.generate(prompts, self.brief.max_new_tokens, start=self.start)

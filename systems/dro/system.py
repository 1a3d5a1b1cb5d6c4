"""DRO as a system: the selector writes a list of the candidates, the generator answers from it.

What it does not do: retrieve, choose from more candidates than the selector can read, answer from
a list that was drawn.
Training is `systems.dro.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from harness.corpus import Corpus
from harness.data import Brief, Document, HarnessError, Hit, Query, Reply
from harness.run.spans import span
from systems.dro.em import Norm
from systems.dro.sampled import Sampler
from systems.dro.selector import Asked, Drawn, Selector
from systems.models.hub import ABOUT, SHIPPED, Checkpoint, OneModel, about, model_folder
from systems.models.language import CausalLM, open_lm
from systems.passages import words_of
from systems.reader import Reader

MINI = "mini-dro"
KEEP = 5
"""Passages of a list, where neither the pipeline nor the checkpoint says."""
NORM: Norm = "mean"
"""The likelihood in weights where no checkpoint says, as in the released code."""


class Dro:
    """Options: ``checkpoint``, what ``train dro`` wrote (the shipped one or its folder); or
    ``selector`` and ``generator``, two models of their own (shipped, on the hub or a folder).

    part: ``both``; the ``selector`` alone, which reranks; the ``generator`` alone, which reads what
          another stage chose
    samples: so many lists are drawn, too, and weighed by how likely each makes the answer that was
             given from the greedy one, as the checkpoint was trained to weigh (both parts)

    A list has as many passages as go on (``dro@5``), without ``@`` as many as the checkpoint was
    trained for. Behind it stand the other candidates as the stage before ranked them.
    """

    needs_pool = True
    asked_depth: int | None = None
    model_option = "checkpoint=DIR"

    def __init__(
        self,
        checkpoint: str = MINI,
        selector: str = "",
        generator: str = "",
        part: Literal["both", "selector", "generator"] = "both",
        samples: int = 0,
    ) -> None:
        named = {"selector": selector, "generator": generator}
        used = [each for each in named if part in (each, "both")]
        if checkpoint != MINI and any(named.values()):
            raise HarnessError(
                "dro:checkpoint= and selector= or generator= name the same thing twice.",
                "Give a checkpoint, or the models.",
            )
        if any(named.values()) and not all(named[each] for each in used):
            missing = next(each for each in used if not named[each])
            raise HarnessError(f"dro needs {missing}= too.", f"Write {missing}=ORG/NAME.")
        if samples < 0:
            raise HarnessError(f"dro:samples={samples} is wrong.", "Give 0 or more.")
        if samples and part != "both":
            raise HarnessError(
                f"dro:samples={samples} draws lists with one part and weighs them with the other, "
                f"and part={part} is alone.",
                "Leave samples= or part= out.",
            )
        self.samples = samples
        self.checkpoint = "" if any(named.values()) else checkpoint
        self.named, self.part = named, part
        if part != "both":
            self.solve = None  # type: ignore[assignment]
        if part != "selector":
            self.retrieve = None  # type: ignore[assignment]
        if part != "generator":
            self.answer = None  # type: ignore[assignment]
        else:
            self.needs_pool = False

    @cached_property
    def folder(self) -> Path | None:
        """The checkpoint's folder, if it is one."""
        if not self.checkpoint:
            return None
        shipped, given = SHIPPED / self.checkpoint, Path(self.checkpoint).expanduser()
        folder = shipped if "/" not in self.checkpoint and shipped.is_dir() else given
        parts = (folder / name for name in ("selector", "generator", ABOUT))
        if missing := [each.name for each in parts if not each.exists()]:
            raise HarnessError(
                f"{self.checkpoint} is no checkpoint of dro: it has no {missing[0]}.",
                "Make one with `python -m harness train dro --out DIR`.",
            )
        return folder

    def _model(self, part: str) -> str:
        return self.named[part] if self.folder is None else str(self.folder / part)

    @cached_property
    def models(self) -> dict[str, OneModel]:
        """The models that this part needs."""
        selector = partial(Checkpoint, takes="ForCausalLM")
        made: dict[str, Callable[..., OneModel]] = {"selector": selector, "generator": Reader}
        used = [each for each in made if self.part in (each, "both")]
        return {each: made[each](model=self._model(each)) for each in used}

    @property
    def norm(self) -> Norm:
        """The likelihood in weights, as the checkpoint was trained."""
        recipe = {} if self.folder is None else about(self.folder)["recipe"]
        found: Norm = recipe.get("norm", NORM)
        return found

    def files(self) -> Sequence[Path]:
        kept = [] if self.folder is None else [self.folder / ABOUT]  # how long lists are
        return [*kept, *(file for each in self.models.values() for file in each.files())]

    @cached_property
    def world(self) -> str:
        """Of the checkpoint; else of its models, which should be of one."""
        if self.folder is not None:
            return str(about(self.folder).get("world", ""))
        return max(each.world for each in self.models.values())

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        self.corpus = corpus
        self.keep = KEEP if self.folder is None else int(about(self.folder)["recipe"]["keep"])
        if "selector" in self.models:
            place = model_folder(self._model("selector"))
            self.lm = open_lm(place, brief.device, brief.dtype)
        if "generator" in self.models:
            reader = self.models["generator"]
            assert isinstance(reader, Reader)
            self.reader = reader
            reader.open(corpus, folder, brief)
        if self.samples:
            generator = self.reader.lm
            assert isinstance(generator, CausalLM)  # no endpoint
            told = (brief, self.samples, self.norm)
            self.sampler = Sampler(Selector(self.lm), generator, *told)

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """The list, then the other candidates as the stage before had them."""
        listed = self._listed([self._asked(query, k) for query in queries])
        return [replace(each, hits=each.hits[:k]) for each in listed]

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> Sequence[Reply | HarnessError]:
        """The generator's answer from what another stage chose; see `Reader.answer`."""
        return self.reader.answer(queries, documents)

    def solve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """A list, and the answer from it. ``extras`` has its log-probability, and what `Sampler`
        says of lists that were drawn."""
        asked = [self._asked(query, k) for query in queries]
        listed = self._listed(asked)
        chosen = [[self.corpus[each] for each in reply.extras["list"]] for reply in listed]
        with span("answer"):
            answered = self.reader.answer(queries, chosen)
        replies = []
        for ranked, reply in zip(listed, answered, strict=True):
            assert isinstance(reply, Reply)  # an endpoint alone gives errors in their place
            counts = {**reply.counts}
            counts["prompt_tokens"] += ranked.counts["prompt_tokens"]
            replies.append(replace(reply, hits=ranked.hits, extras=ranked.extras, counts=counts))
        if not self.samples:
            return replies
        with span("sample"):
            return [self._weighed(*each) for each in zip(queries, asked, replies, strict=True)]

    def _weighed(self, query: Query, asked: Asked, reply: Reply) -> Reply:
        """A reply with the lists that were drawn, and what they cost."""
        assert reply.answer is not None
        told, tokens = self.sampler.weighed(query, asked, reply.answer.text)
        counts = {**reply.counts, "prompt_tokens": reply.counts["prompt_tokens"] + tokens}
        return replace(reply, extras={**reply.extras, **told}, counts=counts)

    def _asked(self, query: Query, k: int) -> Asked:
        keep = self.keep if self.asked_depth is None else k
        return Asked(query.text, self._candidates(query), keep)

    def _listed(self, asked: Sequence[Asked]) -> list[Reply]:
        """The ranking of each pool that a list begins, and the list."""
        with span("select"):
            lists = Selector(self.lm).best(asked)
        return [_ranked(each.candidates, one) for each, one in zip(asked, lists, strict=True)]

    def _candidates(self, query: Query) -> list[Document]:
        """The pool, as the stage before ranked it."""
        pool = [hit.id for hit in query.prior] or sorted(query.pool or ())
        if not pool:
            raise HarnessError("there are no candidates.", "Put a retriever before it.")
        found = [self.corpus[each] for each in pool]
        if empty := [each.id for each in found if not words_of(each).strip()]:
            raise HarnessError(f"document {empty[0]} is empty.", "Leave it out of the pool.")
        return found


def _ranked(pool: Sequence[Document], drawn: Drawn) -> Reply:
    chosen = [pool[place].id for place in drawn.places]
    rest = [each.id for each in pool if each.id not in set(chosen)]
    hits = [Hit(doc_id, float(-place)) for place, doc_id in enumerate([*chosen, *rest], 1)]
    counts = {"prompt_tokens": drawn.tokens}
    return Reply(hits=tuple(hits), counts=counts, extras={"list": chosen, "log_p": drawn.log_p})

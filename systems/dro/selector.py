"""The selector: a causal language model writes an ordered list of passages, by their numbers.

p(z|x) = Π_t p(z_t | z_<t, x, d) (Shi et al. 2025, arXiv 2505.03075, section 3.1), under a grammar:
at each token only what continues a list of different numbers can be written, and probability is
shared among that. So each list is well-formed, nothing is parsed, and the probabilities of all
lists sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.data import Document, HarnessError
from systems.models.hub import library
from systems.models.language import CausalLM
from systems.models.prompts import Named, Prompt, fitting

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from systems.models.backends import Stepwise


Scores = npt.NDArray[np.float64]


class Asked(NamedTuple):
    """A question, the candidates in the order in which they are shown, and how many of them a list
    has (all, where there are fewer)."""

    question: str
    candidates: Sequence[Document]
    keep: int


class Drawn(NamedTuple):
    """A list, as places among the candidates: its log-probability, and that of its being drawn
    (another one if the temperature is not 1, or ``top_p`` less); tokens read and written."""

    places: tuple[int, ...]
    log_p: float
    log_q: float
    tokens: int = 0


class Grammar:
    """Lists of ``keep`` different names, as tokens.

    names: of all that may stand in a list
    ends:  what a model writes behind a whole one
    """

    def __init__(self, names: Named, keep: int, ends: Sequence[int]) -> None:
        if not 1 <= keep <= len(names.first):
            raise ValueError(f"no list of {keep} among {len(names.first)}")
        self.names, self.keep, self.ends = names, keep, list(ends) or [0]

    @property
    def longest(self) -> int:
        """Tokens that a list has at most, an end included."""
        first, later = self.names
        return max(map(len, first)) + (self.keep - 1) * max(map(len, later)) + 1

    def tokens(self, places: Sequence[int]) -> list[int]:
        """How a list is written."""
        first, later = self.names
        return [*first[places[0]], *(each for place in places[1:] for each in later[place])]

    def read(self, written: Sequence[int]) -> tuple[list[int], list[int]]:
        """The list that was written so far, and what may be written next."""
        places: list[int] = []
        rest = list(written)
        while len(places) < self.keep:
            names = self.names.later if places else self.names.first
            left = [place for place in range(len(names)) if place not in places]
            whole = next((p for p in left if rest[: len(names[p])] == names[p]), None)
            if whole is None:
                begun = [names[p] for p in left if names[p][: len(rest)] == rest]
                return places, sorted({each[len(rest)] for each in begun})
            places.append(whole)
            rest = rest[len(names[whole]) :]
        return places, self.ends

    def choices(self, tokens: Sequence[int]) -> list[list[int]]:
        """Among what each token of a list was chosen."""
        return [self.read(tokens[:place])[1] for place in range(len(tokens))]


@dataclass
class Pen:
    """A `Hook` that keeps what is written to a grammar a row; with a generator it draws.

    drawn: what was written in each row so far
    """

    grammars: Sequence[Grammar]
    generator: Generator | None = None
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        self.drawn = [Drawn((), 0.0, 0.0) for _ in self.grammars]

    def __call__(self, written: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
        pairs = zip(self.grammars, written, strict=True)
        read = [grammar.read(so_far) for grammar, so_far in pairs]
        places, allowed = [each for each, _ in read], [each for _, each in read]
        chosen, log_p, log_q = self._chosen(_among(scores, allowed))
        changed = scores.new_full(scores.shape, -float("inf"))
        for row, grammar in enumerate(self.grammars):
            _, before_p, before_q, _ = self.drawn[row]
            now_p, now_q, ids = log_p[row], log_q[row], [allowed[row][chosen[row]]]
            if len(places[row]) == grammar.keep:
                now_p, now_q, ids = 0.0, 0.0, allowed[row]
            self.drawn[row] = Drawn(tuple(places[row]), before_p + now_p, before_q + now_q)
            changed[row, ids] = 0.0
        return changed

    def _chosen(self, scores: Scores) -> tuple[list[int], list[float], list[float]]:
        """Of scores (rows, choices) the place of the greatest, or of one that is drawn; the
        log-probability of each, and that of its being drawn."""
        log_p = log_q = _log_softmax(scores)
        rows = np.arange(len(scores))
        if self.generator is None:
            chosen = log_p.argmax(axis=1)
            return chosen.tolist(), log_p[rows, chosen].tolist(), [0.0] * len(scores)
        if self.temperature != 1:
            log_q = _log_softmax(log_p / self.temperature)
        if self.top_p < 1:
            order = np.argsort(-log_q, axis=1, kind="stable")
            share = np.take_along_axis(np.exp(log_q), order, axis=1)
            late = share.cumsum(axis=1) - share >= self.top_p
            log_q = log_q.copy()
            log_q[np.broadcast_to(rows[:, None], order.shape)[late], order[late]] = -np.inf
            log_q = _log_softmax(log_q)
        reached = np.exp(log_q).cumsum(axis=1)
        torch = library("torch")
        point = torch.rand(len(scores), 1, generator=self.generator, dtype=torch.float64).numpy()
        chosen = (reached <= point * reached[:, -1:]).sum(axis=1)
        return chosen.tolist(), log_p[rows, chosen].tolist(), log_q[rows, chosen].tolist()


def _among(scores: Tensor, allowed: Sequence[Sequence[int]]) -> Scores:
    """The scores of what each row may choose, (rows, choices), -inf where it has fewer."""
    torch = library("torch")
    width = max(map(len, allowed))
    places = torch.tensor([[*ids, *[ids[0]] * (width - len(ids))] for ids in allowed])
    found: Scores = scores.gather(1, places.to(scores.device)).double().cpu().numpy()
    for row, ids in zip(found, allowed, strict=True):
        row[len(ids) :] = -np.inf
    return found


def _log_softmax(scores: Scores) -> Scores:
    with np.errstate(divide="ignore"):
        shifted = scores - scores.max(axis=1, keepdims=True)
        found: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


class Selector:
    """A language model that writes lists."""

    def __init__(self, lm: CausalLM) -> None:
        self.lm = lm

    def prompt(self, asked: Asked) -> Prompt:
        """What it is asked; candidates for which there is no room are left out, the last first."""
        keep = min(asked.keep, len(asked.candidates))
        prompt = Prompt(asked.question, asked.candidates, choose=keep)
        if self.lm.window is None:
            return prompt
        # A number and what stands before it have ten tokens at most.
        room = fitting(prompt, self.lm.window - 10 * keep, self.lm.count)
        if room < keep:
            raise HarnessError(
                f"{keep} passages and the question {asked.question[:60]!r} do not fit into the "
                f"selector's {self.lm.window} tokens.",
                "Shorten the passages or take a model that reads more.",
            )
        return prompt._replace(passages=asked.candidates[:room])

    def grammar(self, prompt: Prompt) -> Grammar:
        """The lists that a prompt asks for."""
        return Grammar(self.lm.names(prompt), prompt.choose, self.lm.ends)

    def best(self, asked: Sequence[Asked]) -> list[Drawn]:
        """For each question, the list that is written greedily."""
        return [drawn for (drawn,) in self._written(asked, 1, None, 1.0, 1.0)]

    def drawn(
        self,
        asked: Sequence[Asked],
        times: int,
        generator: Generator,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[list[Drawn]]:
        """For each question, lists that are drawn token by token."""
        return self._written(asked, times, generator, temperature, top_p)

    def _written(
        self,
        asked: Sequence[Asked],
        times: int,
        generator: Generator | None,
        temperature: float,
        top_p: float,
    ) -> list[list[Drawn]]:
        prompts = [self.prompt(each) for each in asked]
        grammars = [self.grammar(each) for each in prompts]
        copies = [each for each in grammars for _ in range(times)]
        pen = Pen(copies, generator, temperature, top_p)
        longest = max(each.longest for each in grammars)
        written = self.lm.generate(prompts, longest, pen, times=times)
        found = (
            drawn._replace(tokens=int(sum(text.counts.values())))
            for drawn, text in zip(pen.drawn, written, strict=True)
        )
        return [[next(found) for _ in range(times)] for _ in asked]

    def log_p(
        self, asked: Sequence[Asked], lists: Sequence[Sequence[tuple[int, ...]]]
    ) -> list[Tensor]:
        """log p(z|x) of some lists of each question (lists,), in float64, by teacher forcing; with
        gradients, if the model was opened for training."""
        lm: Stepwise = self.lm  # type: ignore[assignment]
        rows, texts, of, choices = [], [], [], []
        for place, (each, some) in enumerate(zip(asked, lists, strict=True)):
            prompt = self.prompt(each)
            rows.append(lm.prompts.render(prompt))
            grammar = self.grammar(prompt)
            for places in some:
                tokens = grammar.tokens(places)
                texts.append(tokens)
                choices.append(grammar.choices(tokens))
                of.append(place)
        found = lm.branched_log_p(rows, texts, of, choices).sum(dim=1)
        return list(found.split([len(some) for some in lists]))

"""The one door to causal language models: text to continue, text to judge, whatever the model.

    open_lm(folder).generate(prompts, 32)              greedy, batched, with a hook on the scores
    open_lm(folder).log_likelihood(prompts, texts)     log p(text | prompt)

Mamba-2 goes through our own forward (`systems.models.mamba2`), and so does the loop around any
model with open words; all others are transformers'. What it does not do: beams, several turns,
sampling (but a hook may draw).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from harness.data import HarnessError
from systems.models.hub import by_length
from systems.models.prompts import Named, Prompt, Prompts, Rendered, fitting

Hook = Callable[[Sequence[Sequence[int]], Any], Any]
"""``hook(written, scores) -> scores``, before each token is chosen.

written: for each prompt the ids written so far, the prompt not among them
scores:  (prompts, ids) in float32 on the model's device, to be changed or replaced; -inf is what
         cannot be written. At least one id a row has to remain.

Ids are those of `CausalLM.ids`. Prompts that have ended stay in; what is done to them is ignored.
"""


@runtime_checkable
class Guiding(Protocol):
    """A `Hook` that, with open words, gives words while the model writes. It sees the scores of
    `Prompts.forbidden`, too, and decides about them."""

    def prepare(self, rows: Sequence[Rendered], written: Sequence[Sequence[int]]) -> None:
        """Called before the scores of each token are computed: what is read into the lexicon of a
        row can be written from then on."""
        ...

    def __call__(self, written: Sequence[Sequence[int]], scores: Any) -> Any:
        """See `Hook`."""
        ...


TOKENS = 32_768
"""Tokens of a batch, padding included, at most: more prompts are read in several batches, so that
a long one does not make all others as long. (One alone may have more.)"""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote. ``stop`` is ``"stop"`` if it ended by itself, ``"length"`` if it was
    cut off; ``counts`` has ``prompt_tokens`` and ``new_tokens`` (its end token included);
    ``first_token_s`` is how long the first token of its batch took, prompts included."""

    text: str
    stop: str
    counts: Mapping[str, float] = field(default_factory=dict)
    first_token_s: float = field(default=0.0, compare=False)


class Likelihood(NamedTuple):
    """The log-probability of a text in nats, and the tokens of the text and of its prompt."""

    log_p: float
    tokens: int
    prompt_tokens: int


class Asked(NamedTuple):
    """A prompt and a text behind it as ids; the text is what stands from ``start`` on."""

    ids: list[int]
    start: int
    rendered: Rendered


class CausalLM:
    """A local causal language model. Batches change results by no more than float rounding.

    window: tokens that prompt and answer may have together; None if there is no limit
    ends:   the ids that end what it writes
    """

    def __init__(self, prompts: Prompts, window: int | None) -> None:
        self.prompts, self.window, self.ends = prompts, window, prompts.ends

    def count(self, prompt: Prompt) -> int:
        """How many tokens a prompt has."""
        return len(self.prompts.render(prompt).ids)

    def fitted(self, prompt: Prompt, spare: int) -> Prompt:
        """A prompt with the first of its passages that fit whole, beside ``spare`` tokens for an
        answer. `HarnessError` if the rest of it does not fit."""
        if self.window is None:
            return prompt
        fits = fitting(prompt, self.window - spare, self.count)
        if fits < 0:
            raise HarnessError(
                f"the question {str(prompt.question)[:60]!r} and its answer do not fit into the "
                f"model's {self.window} tokens.",
                "Take a model that reads more.",
            )
        return prompt._replace(passages=prompt.passages[:fits])

    def clipped(self, text: str, tokens: int) -> str:
        """The first ``tokens`` tokens of a text."""
        return self.prompts.clipped(text, tokens)

    def pieces(self, text: str, tokens: int) -> list[str]:
        """A text cut behind every ``tokens`` tokens."""
        return self.prompts.pieces(text, tokens)

    def ids(self, prompt: Prompt, text: str, words: Sequence[str] = ()) -> list[int]:
        """The ids by which a text is written behind a prompt, for a `Hook` to allow or to find;
        `words` as `generate` is given them. With open words they depend on the prompt."""
        return self.prompts.written(self.prompts.render(prompt, words), text)

    def names(self, prompt: Prompt) -> Named:
        """How the passages of a prompt are named in the list that it asks for."""
        return self.prompts.names(prompt)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        hook: Hook | None = None,
        words: Sequence[Sequence[str]] = (),
        start: Any = None,
        times: int = 1,
    ) -> list[Generated]:
        """Continue each prompt greedily by at most ``max_new_tokens``, `TOKENS` at a time; with a
        hook, which sees all prompts, at once.

        times: so often each prompt is continued, one after the other (a hook may draw)
        words: for each prompt, words that may be written though the prompt does not hold them;
               of use with open words, where others cannot be written
        start: of a model that has a state, a `systems.models.mamba2.State` with a row for each
               prompt: what was read before it
        """
        if not prompts:
            return []
        more = words or [()] * len(prompts)
        rows = [self.prompts.render(*each) for each in zip(prompts, more, strict=True)]
        lengths = [len(row.ids) + max_new_tokens for row in rows]
        found: dict[int, list[Generated]] = {}
        for batch in by_length(lengths, len(rows), inf if hook else TOKENS):
            places, begin = sorted(batch), perf_counter()
            begun = None if start is None else start.rows(places)
            here = [rows[place] for place in places]
            written, first = self._write(here, max_new_tokens, hook, begun, times)
            for turn, place in enumerate(places):
                new = written[turn * times : (turn + 1) * times]
                found[place] = [self._generated(rows[place], each, first - begin) for each in new]
        return [each for place in range(len(rows)) for each in found[place]]

    def _generated(self, row: Rendered, new: Sequence[int], seconds: float) -> Generated:
        kept = self.kept(new)
        stop = "stop" if kept and kept[-1] in self.ends else "length"
        counts = {"prompt_tokens": len(row.ids), "new_tokens": len(kept)}
        return Generated(self.prompts.text(row, kept), stop, counts, seconds)

    def kept(self, new: Sequence[int]) -> Sequence[int]:
        """What was written up to the first end; behind it is padding."""
        end = next((place for place, token in enumerate(new) if token in self.ends), len(new))
        return new[: end + 1]

    def log_likelihood(
        self, prompts: Sequence[Prompt], targets: Sequence[str], batch_size: int = 32
    ) -> list[Likelihood]:
        """How likely each text is behind its prompt: an answer, or a question where the prompt
        has none, `TOKENS` at a time. `HarnessError` if one is longer than the model's window."""
        asked = [self.asked(*each) for each in zip(prompts, targets, strict=True)]
        return self.judged(asked, batch_size)

    def judged(self, rows: Sequence[Asked], batch_size: int = 32) -> list[Likelihood]:
        """The same of prompts and texts that are ids already."""
        found = [Likelihood(0.0, len(row.ids) - row.start, row.start) for row in rows]
        told = [place for place, each in enumerate(found) if each.tokens]
        for batch in by_length([len(rows[place].ids) for place in told], batch_size, TOKENS):
            here = [told[each] for each in batch]
            for place, log_p in zip(here, self._log_p([rows[p] for p in here]), strict=True):
                found[place] = found[place]._replace(log_p=log_p)
        return found

    def asked(self, prompt: Prompt, target: str, words: Sequence[str] = ()) -> Asked:
        """A prompt and a text behind it as ids; ``words`` as in `generate`. `HarnessError` if they
        are longer than the model's window."""
        row = self.prompts.render(prompt, words)
        ids = [*row.ids, *self.prompts.target(prompt, row, target)]
        if self.window is not None and len(ids) > self.window:
            raise HarnessError(
                f"prompt and text have {len(ids)} tokens, and the model holds {self.window}.",
                "Shorten the passages or take another model.",
            )
        return Asked(ids, len(row.ids), row)

    def _write(
        self, rows: Sequence[Rendered], most: int, hook: Hook | None, start: Any, times: int
    ) -> tuple[list[list[int]], float]:
        """What is written behind each row, so many times, and when the first token was there."""
        raise NotImplementedError

    def _log_p(self, rows: Sequence[Asked]) -> list[float]:
        """The log-probability of each row's text; none is empty."""
        raise NotImplementedError


def open_lm(folder: Path, device: str = "cpu", dtype: str = "float32") -> CausalLM:
    """The language model of a folder, ready to serve."""
    from systems.models.backends import open_backend

    return open_backend(folder, device, dtype)

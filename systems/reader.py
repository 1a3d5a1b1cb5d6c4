"""Reads the best passages and answers: a Hugging Face causal LM or an OpenAI-compatible endpoint.

One prompt for all models: the task's instruction, the passages, the question (see
`systems.models.prompts`).

What it does not do: sampling, several turns of its own, citing what it used.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.corpus import Corpus
from harness.data import Answer, Brief, Document, HarnessError, Query, Reply
from systems.bm25 import BM25
from systems.models.endpoint import Endpoint, checked_url
from systems.models.hub import OneModel
from systems.models.language import CausalLM, Generated, open_lm
from systems.models.prompts import Prompt, fitting
from systems.passages import with_text, words_of
from systems.ranking import top

MINI = "mini-lm"
CHUNK = 256
"""Tokens of a chunk."""
THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class Reader(OneModel):
    """Options: the model (shipped, on the hub or a folder) and its ``revision``; or ``endpoint``, a
    base URL, and the model's name there, with the key in the environment variable
    ``api_key_env``; ``tries`` a request. ``max_input_tokens``: room for the prompt (0: all that
    the model has; at an endpoint no limit, and a token is taken for 4 characters).
    ``system_prompt``: none by default. ``shots``: demonstrations before the prompt, from the train
    split, each with the passages that it was retrieved.

    long: what becomes of passages where there is no room for all: the last are left out (``drop``),
          the first that does not fit is ``cut``, or all are cut into ``chunks`` of 256 tokens, of
          which the best by BM25 are read
    """

    takes = "ForCausalLM"

    def __init__(
        self,
        model: str = MINI,
        endpoint: str = "",
        api_key_env: str = "OPENAI_API_KEY",
        revision: str = "",
        max_input_tokens: int = 0,
        system_prompt: str = "",
        tries: int = 4,
        long: Literal["drop", "cut", "chunks"] = "drop",
        shots: int = 0,
    ) -> None:
        if endpoint and model == MINI:
            raise HarnessError(
                "reader:endpoint= needs the model's name there.", "Write model=NAME beside it."
            )
        if max_input_tokens < 0 or tries < 1 or shots < 0:
            raise HarnessError(
                f"reader:max_input_tokens={max_input_tokens},tries={tries},shots={shots} is wrong.",
                "Give 0 or more tokens and shots and 1 or more tries.",
            )
        self.model, self.revision = model, revision
        self.endpoint = checked_url(endpoint) if endpoint else ""
        self.api_key_env, self.tries = api_key_env, tries
        self.max_input_tokens, self.system_prompt = max_input_tokens, system_prompt
        self.long, self.shots = long, shots
        self.deterministic = not endpoint
        self.independent = bool(endpoint)

    def files(self) -> Sequence[Path]:
        return [] if self.endpoint else super().files()

    @cached_property
    def world(self) -> str:
        return "" if self.endpoint else super().world

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        if self.endpoint:
            told = (self.endpoint, self.model, self.api_key_env, self.tries, brief.seed)
            self.serve(Endpoint(*told), brief)
        else:
            self.serve(open_lm(self.folder(), brief.device, brief.dtype), brief)

    def serve(self, lm: CausalLM | Endpoint, brief: Brief) -> None:
        """Get ready with a model that is open."""
        self.lm, self.brief = lm, brief
        self.room = self._room(self.lm.window)

    def _room(self, window: int | None) -> int | None:
        """How many tokens a prompt may have; None: any number."""
        wanted = self.max_input_tokens or None
        if window is None:
            return wanted
        most = window - self.brief.max_new_tokens
        if most < 1 or (wanted or 0) > most:
            raise HarnessError(
                f"{self.model} holds {window} tokens: no room for {wanted or 'any'} in the prompt "
                f"and {self.brief.max_new_tokens} in the answer.",
                f"Write max_input_tokens={most} or less." if most > 0 else "Take another model.",
            )
        return wanted or most

    def answer(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> Sequence[Reply | HarnessError]:
        """One reply a question; ``read`` are the passages that fitted, ``counts`` the tokens and
        the passages that did not. `HarnessError` if a question does not fit without any.

        An endpoint is asked question by question: one that fails costs no other its tokens.
        """
        if not self.endpoint:
            return self._answered(queries, documents)
        return [self._tried(*each) for each in zip(queries, documents, strict=True)]

    def _tried(self, query: Query, passages: Sequence[Document]) -> Reply | HarnessError:
        try:
            return self._answered([query], [passages])[0]
        except HarnessError as error:
            return error

    def _answered(
        self, queries: Sequence[Query], documents: Sequence[Sequence[Document]]
    ) -> list[Reply]:
        asked = list(zip(queries, documents, strict=True))
        kept = [self._kept(query, passages) for query, passages in asked]
        prompts = [self._prompt(query, read) for query, read in zip(queries, kept, strict=True)]
        written = self._written(prompts)
        return [
            reply_from(text, read, passages)
            for text, read, (_, passages) in zip(written, kept, asked, strict=True)
        ]

    def _written(self, prompts: Sequence[Prompt]) -> Sequence[Generated]:
        return self.lm.generate(prompts, self.brief.max_new_tokens)

    def _kept(self, query: Query, passages: Sequence[Document]) -> Sequence[Document]:
        """What is read of these passages, best first."""
        whole = self._fitting(query, passages)
        if whole == len(passages) or self.long == "drop":
            return passages[:whole]
        if self.long == "chunks":
            chunks = self._chunks(query, passages)
            return chunks[: self._fitting(query, chunks)]
        kept, first = passages[:whole], passages[whole]

        def tokens(size: int) -> int:
            return self.lm.count(self._prompt(query, [*kept, self._clipped(first, size)]))

        assert self.room is not None  # else all would fit
        size = bisect_right(range(self.room), self.room, key=tokens) - 1
        return [*kept, self._clipped(first, size)] if size > 0 else kept

    def _clipped(self, passage: Document, tokens: int) -> Document:
        return with_text(passage, self.lm.clipped(passage.text, tokens))

    def _chunks(self, query: Query, passages: Sequence[Document]) -> list[Document]:
        """The passages in pieces, the best by BM25 first."""
        found = [
            with_text(passage, piece.strip())
            for passage in passages
            for piece in self.lm.pieces(passage.text, CHUNK)
        ]
        scores = BM25(idf="pool").judge(query.text, [words_of(each) for each in found])
        return [found[place] for place in top(scores, len(found)).tolist()]

    def _fitting(self, query: Query, passages: Sequence[Document]) -> int:
        """How many whole passages fit, best first."""
        count = fitting(self._prompt(query, passages), self.room, self.lm.count)
        if count < 0:
            shown = f" and {self.shots} demonstrations take" if self.shots else " takes"
            fewer = "Write fewer shots=, raise" if self.shots else "Raise"
            raise HarnessError(
                f"the question{shown} {self.lm.count(self._prompt(query, []))} tokens without any "
                f"passage to read, more than the {self.room} there is room for.",
                f"{fewer} max_input_tokens= or take a model that reads more.",
            )
        return count

    def _prompt(self, query: Query, passages: Sequence[Document]) -> Prompt:
        told, shown = self.brief.instruction, self.brief.examples
        return Prompt(query.text, passages, told, self.system_prompt, shown=shown)


def reply_from(written: Generated, read: Sequence[Document], passages: Sequence[Document]) -> Reply:
    """What is reported of one generated text, from what was read of the passages."""
    ids = tuple(dict.fromkeys(passage.id for passage in read))
    return Reply(
        Answer(extracted(written.text)),
        raw=written.text,
        read=ids,
        counts={**written.counts, "passages_dropped": len(passages) - len(ids)},
        stop=written.stop,
    )


def extracted(text: str) -> str:
    """The answer in what a model wrote: its first line, without thoughts and "Answer:"."""
    # Some templates open the thought in the prompt, so that only its end is written.
    said = THOUGHT.sub("", text).rpartition("</think>")[2].strip()
    said = re.sub(r"\Aanswer:", "", said, flags=re.IGNORECASE).strip()
    return said.partition("\n")[0].strip()

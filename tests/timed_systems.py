"""Systems whose latency is known, in a module that a fresh process can import."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Literal

from harness.data import Answer, HarnessError, Hit, Reply
from harness.run.spans import span


class Timed:
    """Ranks in pool order. ``sleep`` and ``first`` are seconds a call and before the first one;
    ``hold`` is megabytes; ``log`` is a file that gets a line a call; ``fails`` says how."""

    def __init__(
        self,
        sleep: float = 0.0,
        first: float = 0.0,
        hold: int = 0,
        log: str = "",
        fails: Literal["", "open", "kill", "exit", "quit", "hang", "some", "close"] = "",
    ) -> None:
        self.sleep, self.first, self.hold, self.log, self.fails = sleep, first, hold, log, fails

    def open(self, corpus, folder, brief) -> None:
        self.held = b"x" * (self.hold * 10**6)
        if self.fails == "open":
            raise ValueError("no such luck")

    def retrieve(self, queries, k):
        if self.log:
            with Path(self.log).open("a") as file:
                print(os.getpid(), *(query.text for query in queries), sep="\t", file=file)
        time.sleep(self.sleep + self.first)
        self.first = 0.0
        self._fail(queries[0].text)
        return [[Hit(d, 0.0) for d in query.pool[:k]] for query in queries]

    def _fail(self, text: str) -> None:
        if self.fails == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails in ("exit", "quit"):
            os._exit(7 if self.fails == "exit" else 0)
        if self.fails == "hang":
            time.sleep(600)
        if self.fails == "some" and "3" in text:
            raise RuntimeError("not this one")

    def close(self) -> None:
        if self.fails == "close":
            time.sleep(600)


class Judge:
    """Reranks by nothing, and says 100 tokens that it read for it."""

    def retrieve(self, queries, k):
        return [Reply(hits=query.prior[:k], counts={"prompt_tokens": 100}) for query in queries]


class Threaded:
    """Refuses to be imported into a process that may use several threads."""

    def open(self, corpus, folder, brief) -> None:
        for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON"):
            if os.environ.get(f"{name}_NUM_THREADS") != "1":
                raise HarnessError(f"{name} has threads.")

    def retrieve(self, queries, k):
        return [[] for _ in queries]


class Speaker:
    """Answers after 10 ms, half of them spanned, with 7 tokens read and 5 written."""

    def answer(self, queries, documents):
        time.sleep(0.005)
        with span("half"):
            time.sleep(0.005)
        counts = {"prompt_tokens": 7, "new_tokens": 5}
        return [Reply(Answer("gate"), counts=counts) for _ in queries]


class Solver:
    """Cannot be cut in two."""

    def solve(self, queries, k):
        return [Reply(Answer("gate")) for _ in queries]


class Pupil:
    """Answers "gate". Writes the demonstrations that it is shown, a line each time it is opened,
    to the file ``log``; adapts itself for ``once`` and for ``each`` question (seconds)."""

    def __init__(self, shots: int = 0, log: str = "", once: float = 0.0, each: float = 0.0) -> None:
        self.shots, self.log, self.once, self.each = shots, log, once, each

    def open(self, corpus, folder, brief) -> None:
        if self.log:
            shown = [[e.question, e.answer, [d.text for d in e.documents]] for e in brief.examples]
            with Path(self.log).open("a") as file:
                print(json.dumps(shown), file=file)
        self._adapt(self.once)

    def answer(self, queries, documents):
        self._adapt(self.each * len(queries))
        return [Answer("gate") for _ in queries]

    def _adapt(self, seconds: float) -> None:
        if seconds:
            with span("adapt"):
                time.sleep(seconds)

"""Telling how far a long job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
Progress = Callable[[str, int, int], AbstractContextManager[Advance]]
"""Called with a label, a total and how many are done already; gives what counts further ones."""

EVERY = 10.0
"""Seconds between plain lines, of one job or of many short ones."""
_last_line = time.monotonic()


@contextmanager
def silent(label: str, total: int, done: int) -> Iterator[Advance]:  # noqa: ARG001
    """Say nothing."""
    yield lambda _: None


@contextmanager
def told(label: str, total: int, done: int) -> Iterator[Advance]:
    """Tell on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(*Bar.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task(label, total=total, completed=done)
            yield lambda count: bar.advance(line, count)
        return
    started, count = time.monotonic(), done

    def advance(more: int) -> None:
        global _last_line
        nonlocal count
        count += more
        now = time.monotonic()
        if now - _last_line >= EVERY:
            _last_line = now
            left = (now - started) / max(1, count - done) * (total - count)
            print(f"{label}: {count}/{total}, about {left:.0f} s left", file=sys.stderr)

    yield advance

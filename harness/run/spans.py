"""Spans: ``with span("encode"):`` tells the latency pass where a question's time goes.

The harness spans what it calls of a system (``retrieve``, ``answer``, ``solve``); a system may
span its own parts, and what it spends on adapting itself as ``adapt``, once in `open` or for each
question: tables show that. Outside `recorded` a span does nothing (about 0.1 µs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter_ns

_NOTHING = nullcontext()
_spent: dict[str, int] | None = None
_open: set[str] = set()


def span(name: str) -> AbstractContextManager[None]:
    """Time what stands inside under a name; spans of one name add up, one in another once."""
    return _NOTHING if _spent is None or name in _open else _timed(name, _spent)


@contextmanager
def recorded() -> Iterator[dict[str, int]]:
    """Turn spans on: nanoseconds by name, in this process and thread."""
    global _spent
    _spent = {}
    try:
        yield _spent
    finally:
        _spent = None


@contextmanager
def _timed(name: str, spent: dict[str, int]) -> Iterator[None]:
    _open.add(name)
    start = perf_counter_ns()
    try:
        yield
    finally:
        _open.remove(name)
        spent[name] = spent.get(name, 0) + perf_counter_ns() - start

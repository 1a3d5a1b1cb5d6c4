"""Numbers of bytes in words."""

from __future__ import annotations


def readable(size: float) -> str:
    """A number of bytes with a unit, four digits."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:,.4g} TiB"


def arithmetic(documents: int, each: int) -> str:
    """How much the states of documents take."""
    total = readable(documents * each)
    return f"the states of {documents:,} documents, {readable(each)} each, are {total}"

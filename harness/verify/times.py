"""Times that a bundle tells of: nobody can check them, but some are impossible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

EXAMPLE = "2026-11-28T09:30:00+00:00"
AHEAD = timedelta(days=1)
"""How much a clock may be ahead of ours."""


def moment(text: object) -> datetime | None:
    """A time as the harness writes it, in UTC and to the second; None for anything else."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    written = found.tzinfo is not None and found.astimezone(UTC).isoformat(timespec="seconds")
    return found if written == text else None


def impossible(text: object) -> str:
    """Why something has not happened at that time, as the end of a sentence; empty if it may."""
    when = moment(text)
    if when is None:
        return f"is no time such as {EXAMPLE}"
    return "is in the future" if when > datetime.now(UTC) + AHEAD else ""


def wrong_times(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is impossible in the times of a run's sessions, a sentence each."""
    for number, session in enumerate(sessions, 1):
        told = [name for name in ("started", "ended") if session[name] is not None]
        wrong = [(name, why) for name in told if (why := impossible(session[name]))]
        yield from (f"when session {number} {name} {why}." for name, why in wrong)
        if len(told) == 2 and not wrong and session["ended"] < session["started"]:
            yield f"session {number} ended before it started."

"""Times and ends that a bundle tells of: nobody can check them, but some are impossible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.provenance import ENDINGS

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


def wrong_sessions(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is impossible in when and how a run's sessions ended, a sentence each."""
    for number, session in enumerate(sessions, 1):
        ended, how = session["ended"], session["ended_how"]
        if how not in (None, *ENDINGS):
            yield f"how session {number} ended is none of {', '.join(ENDINGS)}."
        elif (ended is None) != (how is None):
            yield f"of session {number} it says when it ended, or how, and not both."
        told = [name for name in ("started", "ended") if session[name] is not None]
        wrong = [(name, why) for name in told if (why := impossible(session[name]))]
        yield from (f"when session {number} {name} {why}." for name, why in wrong)
        if len(told) == 2 and not wrong and session["ended"] < session["started"]:
            yield f"session {number} ended before it started."

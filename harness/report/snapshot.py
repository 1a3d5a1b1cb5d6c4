"""Bases of comparisons: a run that was accepted, to stand in a repository.

    BASE/manifest.json scores.json …/rows.jsonl   of the accepted run
    BASE/accepted.jsonl                           a line each time it was replaced: when, why, what
                                                  was tolerated

When and where the accepted run was made is left out of its manifest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from harness.data import HarnessError
from harness.report.gate import Tolerance
from harness.score.results import read_manifest, score_heads

ACCEPTED = "accepted.jsonl"


def check_accept(base: Path, new: Path, reason: str) -> None:
    """`HarnessError` if a run cannot take the place of a base."""
    if not reason.strip():
        raise HarnessError("a base is accepted for a reason.", 'Write --reason "why it changed".')
    if base.resolve() == new.resolve():
        raise HarnessError(f"{new} is the base itself.", "Accept another run.")
    if base.exists():
        read_manifest(base)  # nothing but a run is replaced
    score_heads(new)


def accept(base: Path, new: Path, reason: str, tolerances: Sequence[Tolerance]) -> None:
    """Put a scored run in the place of a base, or where there is none yet.

    Only what comparing reads is copied. Renamed into place when whole: interrupted, the old base
    or the new one stands there.
    """
    base = base.resolve()
    check_accept(base, new, reason)
    tolerances = tolerances or (accepted_tolerances(base) if base.exists() else [])
    line = {
        "date": datetime.now(UTC).date().isoformat(),
        "reason": reason.strip(),
        "tolerances": [each.as_json() for each in tolerances],
    }
    part, old = base.with_name(f"{base.name}.part"), base.with_name(f"{base.name}.old")
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    for path in _kept(new):
        place = part / path.relative_to(new)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    told = json.dumps(_timeless(read_manifest(new)), indent=1, ensure_ascii=False)
    (part / "manifest.json").write_text(f"{told}\n", encoding="utf-8")
    log = base / ACCEPTED
    before = log.read_text(encoding="utf-8") if log.exists() else ""
    text = f"{before}{json.dumps(line, ensure_ascii=False)}\n"
    (part / ACCEPTED).write_text(text, encoding="utf-8")
    if base.exists():
        base.rename(old)
    part.rename(base)
    shutil.rmtree(old, ignore_errors=True)


def accepted_tolerances(base: Path) -> list[Tolerance]:
    """What was tolerated when a base was accepted last; none if it never was."""
    try:
        last = json.loads((base / ACCEPTED).read_text(encoding="utf-8").splitlines()[-1])
        return [
            Tolerance(**{**each, "date": date.fromisoformat(each["date"])})
            for each in last["tolerances"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise HarnessError(
            f"cannot read {base / ACCEPTED} ({error}).", "Restore it from your repository."
        ) from error


def _timeless(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without its sessions, when and where they were: a repository need not tell."""
    kept = {name: value for name, value in manifest.items() if name not in ("sessions", "facts")}
    told = json.dumps(kept)
    facts = {key: fact for key, fact in manifest.get("facts", {}).items() if key in told}
    return {**kept, "facts": facts}


def _kept(run: Path) -> Iterator[Path]:
    """The files of a run that comparing reads."""
    yield from (run / name for name in ("scores.json", "scores.jsonl"))
    for entry in read_manifest(run)["pipelines"]:
        rows = run / entry["rows"]
        yield from (each for each in (rows, rows.with_name("stage.json")) if each.exists())

"""Bases of comparisons: a run that was accepted, to stand in a repository.

    BASE/manifest.json scores.json …/rows.jsonl   of the accepted run
    BASE/accepted.jsonl                           a line each time it was replaced: when, why, what
                                                  was tolerated

When and where the accepted run was made is left out of its manifest. Nothing but an accepted base
is ever replaced.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from harness.data import HarnessError, raise_together
from harness.report.gate import Accepted, Tolerance
from harness.run.store import LOCK, one_writer
from harness.score.results import read_manifest, score_heads

ACCEPTED = "accepted.jsonl"
STAGING = ".accepting"
"""Behind a base's name: the folder beside it in which ``new`` waits, and ``old`` until it is in
place. Whoever holds its lock may change the base."""


def check_accept(base: Path, new: Path, reason: str, whole: bool = True) -> None:
    """`HarnessError`, with all reasons, if a run cannot take the place of a base.

    whole: all of the base is compared with it
    """
    told = [
        (
            not whole,
            "--accept replaces the whole base, so all of it is compared.",
            "Leave out --baseline, --system, --task and --metric; if the new run is to ask "
            "something else, delete the base and accept the first one again.",
        ),
        (
            not reason.strip(),
            "a base is accepted for a reason.",
            'Write --reason "why it changed".',
        ),
    ]
    mistakes = [HarnessError(message, hint) for is_so, message, hint in told if is_so]
    raise_together([*mistakes, *_irreplaceable(base, new)])
    score_heads(new)


def _irreplaceable(base: Path, new: Path) -> Iterator[HarnessError]:
    """Why a folder is not replaced by a run."""
    place, run, here = base.resolve(), new.resolve(), Path.cwd()
    if place == run:
        yield HarnessError(f"{new} is the base itself.", "Accept another run.")
    elif run.is_relative_to(place):
        yield HarnessError(f"{new} is in {base}, which is replaced.", "Move it out.")
    elif here.is_relative_to(place):
        yield HarnessError(
            f"the folder that you are in is {'' if here == place else 'in '}the base, which is "
            "replaced.",
            "Go out of it with `cd`, and name the base from there.",
        )
    elif base.exists() and not (base / ACCEPTED).is_file():
        yield HarnessError(
            f"{base} is no accepted base (it has no {ACCEPTED}), so it is not replaced.",
            "Name a folder that does not exist: the run is copied there as the first base.",
        )
    elif base.exists() and (strange := _strange(base)):
        yield HarnessError(
            f"{strange} is not from accepting, and {base} is replaced as a whole.", "Move it out."
        )


def accept(base: Path, new: Path, reason: str, tolerances: Sequence[Tolerance]) -> None:
    """Put a scored run in the place of an accepted base, or where there is nothing yet.

    Only what comparing reads is copied, and takes the base's place when it is whole. Whatever
    happens, the old base or the new one stands there: if not at once, after `restore`.
    """
    check_accept(base, new, reason)
    base = base.resolve()
    with _held(base) as staging:
        _clear(base)
        before = last_accepted(base)
        told = {
            "date": date.today().isoformat(),
            "reason": reason.strip(),
            "tolerances": [
                each.as_json() for each in tolerances or (before.tolerances if before else ())
            ],
        }
        try:
            _copy(new, staging / "new", _log(base) + json.dumps(told, ensure_ascii=False) + "\n")
            if base.exists():
                base.rename(staging / "old")
            (staging / "new").rename(base)
        finally:
            _clear(base)


def restore(base: Path) -> bool:
    """Put the old base back that an `accept`, killed at its last step, left beside its place."""
    if not _put_aside(base := base.resolve()):
        return False
    with _held(base):
        aside = _put_aside(base)
        _clear(base)
    return aside


@contextmanager
def _held(base: Path) -> Iterator[Path]:
    """The staging folder of a base, ours alone, and gone when it is empty."""
    staging = _staging(base)
    if staging.exists():
        inside = {each.name for each in staging.iterdir()} if staging.is_dir() else {""}
        if inside - {"old", "new", LOCK}:
            raise HarnessError(f"{staging} is in the way.", "Move it elsewhere.")
    wait = f"A run is being accepted as {base.name}: wait for that, and compare again."
    try:
        with one_writer(staging, wait):
            yield staging
    finally:
        with suppress(OSError):
            staging.rmdir()


def _put_aside(base: Path) -> bool:
    """Whether the old base stands in the staging folder and none in its place."""
    return not base.exists() and (_staging(base) / "old" / ACCEPTED).exists()


def _clear(base: Path) -> None:
    """Take away what an `accept` left in the staging folder, the old base back in its place."""
    if _put_aside(base):
        (_staging(base) / "old").rename(base)
    for name in ("old", "new"):
        if (left := _staging(base) / name).exists():
            shutil.rmtree(left)


def last_accepted(base: Path) -> Accepted | None:
    """When a base was accepted last and what was tolerated; None if it never was."""
    if not (lines := _log(base).splitlines()):
        return None
    try:
        last = json.loads(lines[-1])
        tolerances = [
            Tolerance(**{**each, "date": date.fromisoformat(each["date"])})
            for each in last["tolerances"]
        ]
        return Accepted(date.fromisoformat(last["date"]), tuple(tolerances))
    except (ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"cannot read {base / ACCEPTED} ({error}).", "Restore it from your repository."
        ) from error


def _staging(base: Path) -> Path:
    return base.with_name(base.name + STAGING)


def _log(base: Path) -> str:
    """The lines of a base's log; none if there is none."""
    try:
        return (base / ACCEPTED).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise HarnessError(
            f"cannot read {base / ACCEPTED} ({error}).", "Restore it from your repository."
        ) from error


def _strange(base: Path) -> Path | None:
    """A file in a base that `accept` did not write."""
    own = {base / ACCEPTED, base / "manifest.json", *_kept(base)}
    return next((each for each in base.rglob("*") if each.is_file() and each not in own), None)


def _copy(run: Path, place: Path, log: str) -> None:
    """The files of a run that comparing reads, and a log."""
    for path in _kept(run):
        copy = place / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    told = json.dumps(_timeless(read_manifest(run)), indent=1, ensure_ascii=False)
    (place / "manifest.json").write_text(f"{told}\n", encoding="utf-8")
    (place / ACCEPTED).write_text(log, encoding="utf-8")


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

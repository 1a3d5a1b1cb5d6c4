"""Tables as files: those of runs, of which the end of the name says in which format."""

from __future__ import annotations

from pathlib import Path

from harness.data import HarnessError, raise_together
from harness.report.sheet import Folders
from harness.report.tables import Format, report

FORMATS: dict[str, Format] = {
    ".md": "markdown",
    ".csv": "csv",
    ".tex": "latex",
    ".json": "json",
    ".txt": "table",
}


def unwritable(path: Path | None) -> list[HarnessError]:
    """What is wrong with the name of a file for tables; nothing if there is none."""
    if path is None or path.suffix in FORMATS:
        return []
    return [
        HarnessError(
            f"{path} does not say in which format tables are wanted.",
            f"End its name in one of {', '.join(FORMATS)}.",
        )
    ]


def write_report(folders: Folders, path: Path) -> Path:
    """Write the tables of scored runs, renamed into place when whole; returns ``path``."""
    raise_together(unwritable(path))
    text = report(folders, FORMATS[path.suffix])
    place(path, f"{text}\n")
    return path


def check_place(path: Path) -> None:
    """`HarnessError` if no file can be written there; its folder is made."""
    if path.is_dir():
        raise HarnessError(f"{path} is a folder.", "Name a file in it.")
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise HarnessError(
            f"{path} cannot be written ({error.strerror or error}).",
            "Name a file in a folder that you may write to.",
        ) from None


def place(path: Path, text: str) -> None:
    """Write a file, renamed into place when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".part-{path.name}")

"""The tables of runs as a file; the end of its name says in which format."""

from __future__ import annotations

from pathlib import Path

from harness.data import HarnessError
from harness.report.sheet import Folders
from harness.report.tables import Format, report

FORMATS: dict[str, Format] = {
    ".md": "markdown",
    ".csv": "csv",
    ".tex": "latex",
    ".json": "json",
    ".txt": "table",
}


def format_of(path: Path) -> Format:
    """The format of a file; `HarnessError` if its name does not say."""
    if path.suffix not in FORMATS:
        raise HarnessError(
            f"{path} does not say in which format tables are wanted.",
            f"End its name in one of {', '.join(FORMATS)}.",
        )
    return FORMATS[path.suffix]


def write_report(folders: Folders, path: Path) -> Path:
    """Write the tables of scored runs, renamed into place when whole; returns ``path``."""
    text = report(folders, format_of(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    try:
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path

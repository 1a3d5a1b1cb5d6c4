"""The tables of runs as a file; the end of its name says in which format."""

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
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    try:
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path

"""A table as text: a title, heads, rows and notes, written for a terminal, markdown or LaTeX."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas

Folders = Path | str | Sequence[Path | str]
Style = Literal["table", "markdown", "latex"]
MINI = "mechanism test on a generated world; says nothing about the real datasets"


@dataclass(frozen=True)
class Sheet:
    """Texts. The first column names a system, the last is a remark, those between are numbers.

    heads: may have line breaks; notes: lines under the table
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    width: int = 16
    """Characters a number's column may take, about, on a terminal."""


def titled(asked: Any, generated: bool, *more: str) -> str:
    """The title of what is about one task, split and setting; that of a mini task says so."""
    title = " · ".join((asked.task, asked.split, asked.setting, *more))
    return f"{title} — {MINI}" if generated else title


def listed(folders: Folders) -> list[Path]:
    """One or more folders, each once."""
    given = [folders] if isinstance(folders, Path | str) else folders
    return list({Path(each).resolve(): Path(each) for each in given}.values())


def written(sheet: Sheet, style: Style) -> str:
    """The sheet and its notes; a blank line ends a markdown table."""
    write: dict[Style, Callable[[Sheet], str]] = {
        "table": _terminal,
        "markdown": _markdown,
        "latex": _latex,
    }
    lines = [_escaped(note) if style == "latex" else note for note in sheet.notes]
    gap = "\n\n" if style == "markdown" else "\n"
    return write[style](sheet) + "".join(gap + line for line in lines)


def _terminal(sheet: Sheet) -> str:
    screen = get_terminal_size().columns if sys.stdout.isatty() else None
    return "\n".join([sheet.title, *_grids(sheet, screen)])


def _grids(sheet: Sheet, screen: int | None) -> list[str]:
    """The grid, or several one below the other where a screen of so many characters is too narrow
    for all of its columns; the remark stands in the last."""
    lines = _grid(sheet)
    numbers = len(sheet.heads) - 2
    if screen is None or numbers < 2 or max(map(len, lines)) <= screen:
        return lines
    cut = 1 + (numbers + 1) // 2
    parts = [(row[:cut], (row[0], *row[cut:])) for row in (sheet.heads, *sheet.rows)]
    (upper, *above), (lower, *below) = zip(*parts, strict=True)
    bare = replace(sheet, heads=(*upper, ""), rows=tuple((*row, "") for row in above))
    return [*_grids(bare, screen), *_grids(replace(sheet, heads=lower, rows=tuple(below)), screen)]


def _grid(sheet: Sheet) -> list[str]:
    from rich.console import Console
    from rich.table import Table as Grid

    grid = Grid()
    first, *numbers, last = sheet.heads
    grid.add_column(first, overflow="fold", max_width=48)
    for head in numbers:
        grid.add_column(head, justify="right", no_wrap=True)
    if last:
        grid.add_column(last)
    for row in sheet.rows:
        grid.add_row(*row[: len(sheet.heads) - (not last)])
    out = StringIO()
    width = 80 + sheet.width * len(numbers)
    Console(file=out, width=width, no_color=True).print(grid)
    return [line.rstrip() for line in out.getvalue().rstrip().splitlines()]


def _frame(sheet: Sheet, line_break: str) -> pandas.DataFrame:
    import pandas

    heads = [head.replace("\n", line_break) for head in sheet.heads]
    return pandas.DataFrame(list(sheet.rows), columns=heads)


def _markdown(sheet: Sheet) -> str:
    grid = _frame(sheet, "<br>").to_markdown(index=False, disable_numparse=True)
    return f"**{sheet.title}**\n\n{grid}"


def _latex(sheet: Sheet) -> str:
    frame = _frame(sheet, ", ")
    styled = frame.map(_escaped)
    styled.columns = [_escaped(head) for head in frame.columns]
    return str(styled.to_latex(index=False, caption=_escaped(sheet.title), escape=False))


def _escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    special = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\^{}", "\\": r"\textbackslash{}"}
    return "".join(special.get(c, c) for c in text)

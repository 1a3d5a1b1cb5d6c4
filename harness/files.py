"""Reading other people's files: every failure names the file, the line and the mend."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.data import HarnessError

Numbered = Iterator[tuple[str, Any]]
"""Pairs of a place (``file:line``) and what stands there."""


def open_text(path: Path) -> IO[str]:
    """Open a text file, gzip or not, as UTF-8."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line without its newline) for every line of a text file that is not blank."""
    number, any_line = 0, False
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if text := line.rstrip("\r\n"):
                    any_line = True
                    yield f"{path}:{number}", text
    except FileNotFoundError:
        raise HarnessError(f"{path} does not exist.", "Check the path.") from None
    except IsADirectoryError:
        raise HarnessError(f"{path} is a folder, not a file.", "Name a file in it.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HarnessError(
            f"{path}:{number + 1}: the gzip data is broken or cut off ({error}).",
            "Fetch the file again.",
        ) from None
    except UnicodeDecodeError as error:
        raise HarnessError(
            f"{path}:{number + 1}: not UTF-8 text ({error.reason}).", "Convert the file to UTF-8."
        ) from None
    if not any_line:
        raise HarnessError(f"{path} is empty.", "Fetch the file again.")


def decode(place: str, text: str) -> Any:
    """The JSON value in ``text``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HarnessError(
            f"{place}: not valid JSON ({error.msg} at column {error.colno}).",
            "The file may be cut off: fetch it again, or mend that line.",
        ) from None


def json_value(path: Path) -> Any:
    """The one value of a .json file, gzip or not."""
    return decode(str(path), "\n".join(line for _, line in lines(path)))


def json_rows(path: Path) -> Numbered:
    """Rows of a .jsonl file, or of a .json file with one list in it; gzip or not."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for place, line in lines(path):
            yield place, decode(place, line)
        return
    whole = json_value(path)
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = lists[0] if len(lists) == 1 else whole
    if not isinstance(whole, list):
        raise HarnessError(
            f"{path}: expected a list of rows, found {type(whole).__name__}.",
            "Give the official file, one JSON list of questions.",
        )
    for number, row in enumerate(whole, start=1):
        yield f"{path} row {number}", row


def table_rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Rows of a tab-separated file with at least ``columns`` columns."""
    for place, line in lines(path):
        fields = line.split("\t")
        if len(fields) < columns:
            raise HarnessError(
                f"{place}: {len(fields)} tab-separated columns, expected {columns}.",
                "Check that the file is the official .tsv.",
            )
        yield place, fields

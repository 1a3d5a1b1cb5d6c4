"""Reading other people's files: every failure names the file, the line and the mend.

Text is UTF-8, with or without a byte-order mark; a name that ends in .gz or .bz2 is
compressed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from harness.data import HarnessError

GENERATED = "generated"
"""The mark of a generated world's data in files: rows have ``{"metadata": {"generated": true}}``,
judgements of TREC have it as their iteration, which no tool reads."""
Numbered = Iterator[tuple[str, Any]]
"""Pairs of a place (``file:line``) and what stands there."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the machine says against reading a file or folder into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise HarnessError(f"{path} does not exist.", "Check the path.") from None
    except IsADirectoryError:
        raise HarnessError(f"{path} is a folder, not a file.", "Name a file in it.") from None
    except OSError as error:
        raise HarnessError(
            f"{path} cannot be read ({error.strerror or error}).", "Check it and its permissions."
        ) from None


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of every line, each decoded by itself so that a bad one has its number."""
    number = 0
    with reading(path):
        try:
            with path.open("rb") as raw:
                for number, line in enumerate(_plain(path, raw), start=1):
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            packed = "gzip" if path.suffix == ".gz" else "bzip2"
            raise HarnessError(
                f"{path}:{number + 1}: the {packed} data is broken or cut off ({error}).",
                "Fetch the file again.",
            ) from None
        except UnicodeDecodeError as error:
            raise HarnessError(
                f"{path}:{number}: not UTF-8 text ({error.reason}).", "Convert the file to UTF-8."
            ) from None


def _plain(path: Path, raw: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, unpacked if its name says that it is packed."""
    if path.suffix == ".gz":
        return iter(io.BufferedReader(gzip.GzipFile(fileobj=raw)))
    return iter(bz2.BZ2File(raw) if path.suffix == ".bz2" else raw)


def lines(path: Path, *, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
    """(place, line without its newline) for every line of a text file that is not blank."""
    any_line = may_be_empty
    for place, text in every_line(path):
        if text:
            any_line = True
            yield place, text
    if not any_line:
        raise _empty(path)


def every_line(path: Path) -> Iterator[tuple[str, str]]:
    """As `lines`, with the blank ones."""
    return ((f"{path}:{number}", line.rstrip("\r\n")) for number, line in _numbered(path))


def text(path: Path) -> str:
    """The whole text of a file; every line ends in a newline character alone."""
    joined = "".join(line for _, line in _numbered(path))
    return joined.replace("\r\n", "\n").replace("\r", "\n")


def _empty(path: Path) -> HarnessError:
    return HarnessError(f"{path} is empty.", "Fetch the file again.")


def taken(path: Path) -> list[HarnessError]:
    """Why a new file cannot be written there: something has that name already; else nothing."""
    if path.is_dir():
        return [HarnessError(f"{path} is a folder.", "Name a file in it.")]
    if path.exists():
        return [HarnessError(f"{path} exists.", "Name another file, or delete it.")]
    return []


def decode(place: str, text: str, unique: bool = False) -> Any:
    """The JSON value in ``text``; unique: a key that stands twice in an object is refused."""
    mend = "Mend that value."
    try:
        value = json.loads(text, object_pairs_hook=partial(_once, place) if unique else None)
        if "\\ud" in text or "\\uD" in text:  # perhaps a half of a pair, which is no character
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        reason = f"not valid JSON ({error.msg} at {line}column {error.colno})"
        mend = "The file may be cut off: fetch it again, or mend that line."
    except UnicodeEncodeError:
        reason = "a text has half a surrogate pair, which is not valid Unicode"
    except RecursionError:
        reason = "the JSON is nested too deep"
    except ValueError:
        reason = "a number has more than 4,300 digits"
    raise HarnessError(f"{place}: {reason}.", mend)


def _once(place: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once each."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise HarnessError(f"{place}: {twice} stands twice.", "Remove one of them.")
    return found


def json_value(path: Path, unique: bool = False) -> Any:
    """The one value of a .json file, gzip or not; unique: see `decode`."""
    if not (whole := text(path)).strip():
        raise _empty(path)
    return decode(str(path), whole, unique)


def has_rows(path: Path) -> bool:
    """Whether a file has a JSON value a line, by its name."""
    return path.name.removesuffix(".gz").removesuffix(".bz2").endswith(".jsonl")


def json_rows(path: Path) -> Numbered:
    """Rows of a .jsonl file, or of a .json file with one list in it; packed or not."""
    if has_rows(path):
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


def is_generated(path: Path) -> bool:
    """Whether the first line of a file with a row or a judgement a line has the mark `GENERATED`.

    What cannot be read has none: whoever reads the file says so.
    """
    try:
        place, line = next(lines(path))
        if not has_rows(path):
            return line.split()[1:2] == [GENERATED]
        row = decode(place, line)
    except HarnessError:
        return False
    about = row.get("metadata") if isinstance(row, dict) else None
    return isinstance(about, dict) and about.get(GENERATED) is True


def table_rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Rows of a tab-separated file; tabs behind the last of ``columns`` belong to it."""
    for place, line in lines(path):
        fields = line.split("\t", columns - 1)
        if len(fields) < columns:
            raise HarnessError(
                f"{place}: {len(fields)} tab-separated columns, expected {columns}.",
                "Check that the file is the official .tsv.",
            )
        yield place, fields


def word_rows(path: Path, form: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of a file with the columns that ``form`` names, apart by white space."""
    expected = len(form.split())
    for place, line in lines(path):
        columns = line.split()
        if len(columns) != expected:
            raise HarnessError(
                f"{place}: {len(columns)} columns, expected {expected} ({form}).",
                "Check that the file is the right one and that none of its words has a space.",
            )
        yield place, columns


def trec_run(path: Path, one_tag: bool = False) -> dict[str, dict[str, float]]:
    """Query → document → score of a TREC run, ``qid Q0 docid rank score tag``.

    one_tag: more runs than one in the file are a `HarnessError`; else the tag is ignored
    """
    found: dict[str, dict[str, float]] = {}
    first = ""
    for place, (query, _, document, _, score, tag) in word_rows(
        path, "qid Q0 docid rank score tag"
    ):
        first = first or tag
        if one_tag and tag != first:
            raise HarnessError(
                f"{place}: a second run begins, {tag!r} after {first!r}.",
                "Put each run in a file of its own.",
            )
        scores = found.setdefault(query, {})
        if document in scores:
            raise HarnessError(
                f"{place}: {document} is ranked twice for {query}.", "Remove one line."
            )
        scores[document] = _finite(place, score)
    return found


def _finite(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HarnessError(f"{place}: {text!r} is not a score.", "Write a finite number.")
    return value

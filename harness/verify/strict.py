"""JSON that everybody reads alike, or a reason why not.

Python's parser takes NaN, keeps the last of two equal keys and reads integers of any length;
others do not. What two readers may read differently is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEP = 64
"""Levels of lists and objects."""
LONGEST = 16 << 20
"""Bytes of a line."""


class Unreadable(ValueError):
    """Why a text is refused, as the end of a sentence."""


def loads(data: bytes) -> Any:
    """The one value in ``data``; raises `Unreadable`."""
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    except UnicodeEncodeError:
        raise Unreadable("it has half a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON ({error.msg})") from None
    except RecursionError:
        raise Unreadable("it is nested too deep") from None
    if _deeper(value, DEEP):
        raise Unreadable(f"it is nested deeper than {DEEP} levels")
    return value


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a file; the last must end, too, and none be too long: `Unreadable`."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise Unreadable(f"line {number} is longer than {LONGEST >> 20} MiB")
            if not line.endswith(b"\n"):
                raise Unreadable(f"line {number} is cut off")
            yield number, line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable(f"the key {twice[:40]!r} stands twice in one object")
    return found


def _constant(name: str) -> Any:
    raise Unreadable(f"it has {name}, which is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable(f"the number {text[:20]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise Unreadable(f"the number {text[:20]}… is beyond 64 bits")
    return int(text)


def _deeper(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        return not left or any(_deeper(each, left - 1) for each in value.values())
    if isinstance(value, list):
        return not left or any(_deeper(each, left - 1) for each in value)
    return False

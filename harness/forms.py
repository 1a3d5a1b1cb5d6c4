"""YAML files with known keys: every mistake is told at once, with the key that was meant.

Plain YAML alone is read (no tags that make objects), and no key may stand twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from harness import files
from harness.data import HarnessError, raise_together


class Form(BaseModel):
    """The keys of a file and what may stand behind them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


F = TypeVar("F", bound=Form)


def read_form(path: Path, form: type[F]) -> F:
    """What a file says; `HarnessError` with all mistakes, each naming file and key."""
    value = yaml_value(path)
    if not isinstance(value, Mapping):
        raise HarnessError(
            f"{path} has no keys.",
            f"Write lines `key: value`; keys: {', '.join(form.model_fields)}.",
        )
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise_together(list(_mistakes(path, form, error)))
        raise


def yaml_value(path: Path) -> Any:
    """The one value of a YAML file."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses a key that stands twice, which YAML's own would silently overwrite."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key for key, _ in node.value]
            for place, key in enumerate(keys):
                if any(key.value == before.value for before in keys[:place]):
                    why = f"the key {key.value!r} stands twice"
                    raise yaml.MarkedYAMLError(problem=why, problem_mark=key.start_mark)
            found: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return found

    text = files.text(path)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise HarnessError(f"{place}: not valid YAML ({why}).", "Mend that line.") from None


def _mistakes(path: Path, form: type[Form], error: ValidationError) -> Iterator[HarnessError]:
    """A sentence for each mistake; keys that are like none of ours share one."""
    strange = []
    every = error.errors()
    inside = {each["loc"][:1] for each in every if len(each["loc"]) > 1}
    for each in every:
        place = str(each["loc"][0]) if each["loc"] else ""
        close = get_close_matches(place, form.model_fields, n=1)
        if each["type"] == "missing":
            yield HarnessError(f"{path} has no {place!r}.", f"Write {place}: … there.")
        elif each["type"] not in ("extra_forbidden", "invalid_key"):
            if each["loc"] not in inside:  # else what is wrong in it is told
                yield HarnessError(f"{path}: {_found(each, place)}.", _mend(each, place))
        elif close:
            guess = f"Did you mean {close[0]!r}?"
            yield HarnessError(f"{path} has the key {place!r}, which nothing reads.", guess)
        else:
            strange.append(repr(place))
    if strange:
        yield HarnessError(
            f"{path}: nothing reads {', '.join(strange)}.", f"Keys: {', '.join(form.model_fields)}."
        )


def _found(error: ErrorDetails, key: str) -> str:
    """What stands there."""
    place = error["loc"][1] if len(error["loc"]) > 1 else None
    what = f"entry {place + 1} of {key}" if isinstance(place, int) else key
    return f"{what} is {'empty' if error['input'] is None else format(repr(error['input']), '.60')}"


def _mend(error: ErrorDetails, key: str) -> str:
    """What to write instead."""
    kind, value, said = error["type"], error["input"], error.get("ctx", {})
    if kind in ("list_type", "tuple_type"):
        one = value if isinstance(value, str) and value else "ONE, TWO"
        return f"Write a list: {key}: [{one}]."
    if kind == "too_short":
        return f"Name at least one: {key}: [ONE, TWO]."
    if kind == "string_too_short":
        return f"Write {key}: TEXT."
    if kind == "string_type":
        return "Write text, in quotes if YAML takes it for something else."
    if kind.startswith("path_"):
        return "Write a path."
    if kind.startswith("int_"):
        return "Write a whole number."
    if kind == "greater_than_equal":
        return f"Write a whole number from {said['ge']}."
    if kind == "literal_error":
        return f"Write {said['expected']}."
    return f"{error['msg'].removeprefix('Value error, ')}."

"""What the parsers share: where a split's rows are, and how a field of a row is read.

Official files hold lists of lists, the hub dicts of lists, FlashRAG lists of dicts; `rows_of`
makes one of them. Every failure names the place (``file:line``) and the mend.

What it does not do: give ids, merge, sort (that is `harness.prepare`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from harness import files
from harness.contract import Task
from harness.corpus import content_id
from harness.data import Candidate, Document, Example, HarnessError, Loaded, RawQuestion
from tasks import hub

T = TypeVar("T")
Parse = Callable[[Any, str, Counter[str]], RawQuestion | None]
"""(row, place, notes) → a question, or None for a row that was dropped and counted."""

# --- fields ---------------------------------------------------------------------------

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "{…}"}


def field(row: Any, key: str, kind: type[T], place: str) -> T:
    """``row[key]``, which must be there and of that type."""
    if not isinstance(row, Mapping):
        raise HarnessError(f"{place}: {_kind(row)}, expected an object.", "Write {…} there.")
    if key not in row:
        raise HarnessError(
            f"{place}: no key {key!r} (there are: {', '.join(map(str, row)) or 'none'}).",
            "Check that the file is of this task, and the split one with answers.",
        )
    return typed(row[key], kind, f"{place}: {key!r}")


def optional(row: Any, key: str, kind: type[T], default: T, place: str) -> T:
    """As `field`; ``default`` where the key is missing or null."""
    if isinstance(row, Mapping) and row.get(key) is None:
        return default
    return field(row, key, kind, place)


def typed(value: Any, kind: type[T], what: str) -> T:
    """``value`` if it is of that type."""
    if not isinstance(value, kind):
        raise HarnessError(
            f"{what} is {_kind(value)}, expected {_NAMES.get(kind, kind.__name__)}.",
            "Mend that row, or fetch the file again.",
        )
    return value


def identifier(row: Any, place: str, *keys: str) -> str:
    """The first of ``keys`` (``_id``, ``id``) that the row has, as text; numbers will do."""
    for key in keys or ("_id", "id"):
        if isinstance(row, Mapping) and row.get(key) is not None:
            value = row[key]
            if isinstance(value, str | int) and not isinstance(value, bool):
                return native(str(value), place)
            raise HarnessError(
                f"{place}: {key!r} is {_kind(value)}, expected an id.", "Mend that row."
            )
    return field(row, (keys or ("_id",))[0], str, place)


def native(text: str, place: str) -> str:
    """``text`` if it can be an id: it must stand in a line of a file, between tabs."""
    if not text or CONTROL.search(text):
        raise HarnessError(
            f"{place}: {text!r}, expected an id without tabs, line ends and the like.",
            "Give it another id there and wherever it is named.",
        )
    return text


def reference(entry: Mapping[str, Any], key: str, place: str) -> str:
    """What a submission calls a passage, as text; empty where the row does not say."""
    return identifier(entry, place, key) if entry.get(key) not in (None, "") else ""


def texts(row: Any, key: str, place: str) -> tuple[str, ...]:
    """A list of texts; missing or null: none."""
    listed = optional(row, key, list, [], place)
    return tuple(typed(each, str, f"{place}: an entry of {key!r}") for each in listed)


def labels(row: Any, place: str, **keys: str) -> dict[str, str]:
    """What a row says of the sort of its question: name → the text under that key, where it has
    any; an underscore in a name stands for a space."""
    found = {name: optional(row, key, str, "", place) for name, key in keys.items()}
    return {name.replace("_", " "): text for name, text in found.items() if text}


def rows_of(
    row: Any, key: str, names: Sequence[str], place: str, also: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A nested column as a list of objects with the keys ``names``, and ``also`` if there.

    Takes [[a, b], …], [{x: a, y: b}, …] and {x: [a, …], y: [b, …]}.
    """
    value, what = field(row, key, object, place), f"{place}: {key!r}"
    if isinstance(value, Mapping):
        there = (*names, *(name for name in also if value.get(name) is not None))
        columns = [field(value, name, list, what) for name in there]
        if len({len(column) for column in columns}) > 1:
            raise HarnessError(f"{what} has columns of different lengths.", "Mend that row.")
        return [dict(zip(there, each, strict=True)) for each in zip(*columns, strict=True)]
    entries: list[dict[str, Any]] = []
    for entry in typed(value, list, what):
        if isinstance(entry, Mapping):
            there = (*names, *(name for name in also if name in entry))
            entries.append({name: field(entry, name, object, what) for name in there})
        elif isinstance(entry, list) and len(entry) == len(names):
            entries.append(dict(zip(names, entry, strict=True)))
        else:
            raise HarnessError(
                f"{what} has an entry that is not ({', '.join(names)}).", "Mend that row."
            )
    return entries


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


# --- where the rows are ---------------------------------------------------------------

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def existing(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those of the names that are files in the folder, gzip or not, in the order of the names."""
    tried = dict.fromkeys(each for name in names for each in (name, f"{name}.gz"))
    with files.reading(folder):
        return [folder / name for name in tried if (folder / name).is_file()]


def find_split(
    source: Path, split: str, official: Iterable[str] = (), config: str = ""
) -> list[Path]:
    """The files of a split: ``source`` itself if it is a file, else what the folder has.

    Looked for: ``<split>.jsonl``, ``.json`` (gzip or not), ``<split>.parquet``,
    ``<split>-*.parquet`` (also under the hub's folders ``<config>/`` and ``data/``), and the
    ``official`` names. None, or two that could be meant, is a `HarnessError`.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise HarnessError(f"{source} does not exist.", "Give a file or folder to --from.")
    plain = [f"{split}{suffix}" for suffix in _SUFFIXES]
    found = [[path] for path in existing(source, [*plain, *official])]
    for folder in dict.fromkeys((source, source / config, source / "data")):
        shards = sorted({*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")})
        found += [shards] if shards else []
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(paths[0].name for paths in found)
        raise HarnessError(f"{source} has {several} for {split!r}.", "Give one file to --from.")
    looked = ", ".join((f"{split}.jsonl[.gz]", f"{split}.json[.gz]", f"{split}*.parquet"))
    raise HarnessError(
        f"{source} has no file for the split {split!r}: looked for "
        f"{', '.join((looked, *official))}; there is {_listed(source)}.",
        "Name a split that is there with --split, or a file with --from.",
    )


def _listed(folder: Path) -> str:
    """What data files a folder has, in a few words."""
    with files.reading(folder):
        names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "nothing"


def split_files(
    source: Path | None, split: str, at_hub: hub.Hub | None, official: Iterable[str] = ()
) -> list[Path]:
    """The files of a split: under ``source``, or fetched from the hub if it is None."""
    if source is not None:
        return find_split(source, split, official, at_hub.config if at_hub else "")
    if at_hub is None or split not in at_hub.splits:
        there = ", ".join(at_hub.splits) if at_hub else "none"
        raise HarnessError(
            f"the split {split!r} is not on the hub (it has: {there}).",
            "Give your copy with --from PATH.",
        )
    return hub.fetch(at_hub, split)


def rows(paths: Iterable[Path]) -> files.Numbered:
    """(place, row) of a split's files, streaming."""
    for path in paths:
        yield from read_rows(path)


def read_rows(path: Path) -> files.Numbered:
    """(place, row) of one file, parquet or JSON."""
    return hub.parquet_rows(path) if path.suffix == ".parquet" else files.json_rows(path)


# --- what every pooled task does with its rows ----------------------------------------

BUFFER = 2000
"""Questions among which the next example is drawn: memory stays bounded."""
OTHERS = 3
"""Passages of its own pool that an example shows behind the gold ones."""


def pooled(numbered: files.Numbered, parse: Parse, limit: int | None = None) -> Loaded:
    """Questions whose documents come with them."""
    notes: Counter[str] = Counter()
    parsed = (parse(row, place, notes) for place, row in numbered)
    return Loaded(islice((each for each in parsed if each), limit), notes=notes)


def beside(source: Path | None) -> Path | None:
    """The folder of a source: examples never come from the file that holds the questions."""
    return source.parent if source is not None and source.is_file() else source


def examples(questions: Iterable[RawQuestion], seed: int) -> Iterator[Example]:
    """Answerable questions in an order of their own for each seed: gold passages, then others."""
    rng = random.Random(seed)
    waiting: list[RawQuestion] = []
    for question in questions:
        if not question.answers or not any(each.grade > 0 for each in question.candidates):
            continue
        waiting.append(question)
        if len(waiting) > BUFFER:
            yield _example(_drawn(waiting, rng))
    while waiting:
        yield _example(_drawn(waiting, rng))


def train_examples(task: Task, source: Path | None, seed: int) -> Iterator[Example]:
    """`Task.examples` of a task with a train split: its questions, see `examples`."""
    return examples(task.load(beside(source), "train", None).questions, seed)


def _drawn(waiting: list[RawQuestion], rng: random.Random) -> RawQuestion:
    place = rng.randrange(len(waiting))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()


def _example(question: RawQuestion) -> Example:
    gold = [each.document for each in question.candidates if each.grade > 0]
    others = [each.document for each in question.candidates if each.grade <= 0][:OTHERS]
    documents = (replace(each, id=content_id(each.title, each.text)) for each in gold + others)
    return Example(question.text, tuple(documents), question.answers[0])


# --- paragraphs with supporting sentences (HotpotQA and 2WikiMultihopQA) --------------

ABSENT = "supporting facts whose title is not in the context"
BEYOND = "supporting facts whose sentence is not in their paragraph (the paragraph counts)"


def supported(
    row: Any, place: str, notes: Counter[str], glue: str, whole: bool
) -> tuple[tuple[Candidate, ...], tuple[tuple[str, int], ...] | None]:
    """The paragraphs of a row, graded by its supporting facts, and those facts verbatim.

    glue:   what stands between two sentences of the text
    whole:  each paragraph is one string, so that sentence numbers mean nothing (None then)
    Of paragraphs that share a title those count that have the sentence.
    """
    paragraphs = [
        _paragraph(entry, glue, whole, place)
        for entry in rows_of(row, "context", ("title", "sentences"), place)
    ]
    facts = tuple(
        (field(fact, "title", str, place), field(fact, "sent_id", int, place))
        for fact in rows_of(row, "supporting_facts", ("title", "sent_id"), place)
    )
    titled: dict[str, list[int]] = {}
    for number, (document, _) in enumerate(paragraphs):
        titled.setdefault(document.title, []).append(number)
    gold: set[int] = set()
    for title, sentence in facts:
        same = titled.get(title, [])
        having = [n for n in same if sentence < paragraphs[n][1]]
        gold.update(having or same)
        if not having:
            notes[BEYOND if same else ABSENT] += 1
    candidates = tuple(
        Candidate(document, int(number in gold)) for number, (document, _) in enumerate(paragraphs)
    )
    return candidates, None if whole else facts


def _paragraph(entry: Any, glue: str, whole: bool, place: str) -> tuple[Document, int]:
    """A paragraph and its number of sentences."""
    title, sentences = field(entry, "title", str, place), texts(entry, "sentences", place)
    glued = tuple(glue + each if number else each for number, each in enumerate(sentences))
    return Document("", "".join(glued), title, () if whole else glued), len(sentences)

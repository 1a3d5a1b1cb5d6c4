"""Reading prepared data: the canonical folder that `harness.prepare` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from harness import manifest
from harness.contract import Setting, Task
from harness.corpus import Corpus, find_natives
from harness.data import Gold, HarnessError, Query, Questions
from harness.files import json_value

UNTEXTED = "untexted:"
"""Before the native id of a judged document that the corpus has no text of."""
LABELS = "labels.jsonl"


class Named(NamedTuple):
    """What files from outside call a question, and each passage that came with it.

    passages: (native name, document id) in the order of the row, where passages have names; two
              that were one document keep both their names
    """

    id: str
    native: str
    passages: tuple[tuple[str, str], ...]


def read_about(folder: Path) -> dict[str, Any]:
    """What `prepare` noted: task, split, source, counts."""
    about: dict[str, Any] = json_value(folder / "about.json")
    return about


def corpus_folder(folder: Path) -> Path:
    """Where the corpus of a prepared task is."""
    return folder.parent.parent / "corpora" / str(read_about(folder)["corpus"])


def open_corpus(folder: Path) -> Corpus:
    """The corpus of a prepared task."""
    return Corpus(corpus_folder(folder))


def open_questions(folder: Path, task: Task, split: str, setting: Setting) -> Questions:
    """What `run` sees of a prepared task; opens no gold."""
    queries = tuple(
        Query(row["id"], row["text"], tuple(row["pool"]) if setting == "pool" else None)
        for row in read_lines(folder / "queries.jsonl")
    )
    about = read_about(folder)
    corpus, fingerprint = open_corpus(folder), about["fingerprint"]
    return Questions(about["task"], split, corpus, queries, fingerprint, task.instruction)


def read_gold(folder: Path) -> dict[str, Gold]:
    """Gold by query id."""
    golds = {}
    for row in read_lines(folder / "gold.jsonl"):
        sentences, triples = row.get("sentences"), row.get("triples")
        golds[row["id"]] = Gold(
            row["relevance"],
            tuple(row["answers"]),
            None if sentences is None else tuple((title, number) for title, number in sentences),
            None if triples is None else tuple((tuple(s), r, tuple(o)) for s, r, o in triples),
            row["answerable"],
            row["group"],
            row["kind"],
        )
    return golds


def read_labels(folder: Path) -> dict[str, dict[str, str]] | None:
    """What its benchmark says of the sort of each question, by query id; None: the folder was
    prepared before that was kept."""
    path, found = folder / LABELS, {}
    if not path.exists():
        return None
    for row in read_lines(path):
        labels = row.get("labels") if isinstance(row, dict) else None
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise HarnessError(
                f"{path} has a line without labels.", "Prepare the task again: `harness prepare`."
            )
        found[str(row.get("id"))] = labels
    return found


def native_queries(folder: Path) -> dict[str, str]:
    """Native query id → query id."""
    return {row["native"]: row["id"] for row in read_lines(folder / "native.jsonl")}


def native_documents(folder: Path, corpus: Corpus, wanted: Iterable[str]) -> dict[str, str]:
    """Native document id → document id, for those of ``wanted`` that the corpus has."""
    return find_natives(folder / "natives.txt", corpus, set(wanted))


def named_questions(folder: Path) -> dict[str, Named]:
    """The questions of a prepared task by their ids, with their native names."""
    rows = read_lines(folder / "native.jsonl")
    return {
        row["id"]: Named(row["id"], row["native"], tuple(map(tuple, row.get("pool", ()))))
        for row in rows
    }


def document_names(folder: Path, corpus: Corpus, wanted: Iterable[str]) -> dict[str, str]:
    """Document id → native id; a document without a native id keeps its own."""
    ids = list(dict.fromkeys(wanted))
    places = dict(zip(corpus.positions(ids).tolist(), ids, strict=True))
    names = {doc_id: doc_id.removeprefix(UNTEXTED) for doc_id in ids}
    with (folder / "natives.txt").open(encoding="utf-8", newline="\n") as file:
        for place, line in enumerate(file):
            if place in places and (native := line.removesuffix("\n")):
                names[places[place]] = native
    return names


def source_order(folder: Path) -> list[str]:
    """The ids of a prepared task's questions, in the order in which its source had them."""
    path = folder / "order.txt"
    if not path.exists():
        raise HarnessError(
            f"{folder} does not say in which order its rows came.",
            f"Prepare it again: `python -m harness prepare {read_about(folder)['task']}`.",
        )
    return path.read_text(encoding="utf-8").split()


def natives_hash(folder: Path) -> str:
    """Hash of the native ids: what results from outside depend on besides the fingerprint."""
    return manifest.file_hash(folder / "native.jsonl") + manifest.file_hash(folder / "natives.txt")


def sample(ids: Iterable[str], limit: int | None, seed: int) -> list[str]:
    """``limit`` ids in an order drawn from the seed: smaller limits are its beginnings."""

    def drawn(query_id: str) -> bytes:
        return blake2b(f"{seed} {query_id}".encode(), digest_size=8).digest()

    return sorted(ids, key=drawn)[:limit]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of a prepared task."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    except (OSError, json.JSONDecodeError) as error:
        raise HarnessError(
            f"{path} cannot be read ({error}).", "Prepare the task again with `harness prepare`."
        ) from None

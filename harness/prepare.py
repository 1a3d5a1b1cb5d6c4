"""From a task's raw rows to the one canonical shape on disk.

    data/corpora/<hash>/        documents.jsonl offsets.npy ids.npy  what systems may see
    data/<task>/<fingerprint>/  queries.jsonl                        what run sees
                                native.jsonl natives.txt             ids in files from outside
                                gold.jsonl                           what score sees
                                about.json                           counts, what was dropped
    data/<task>/<split>.json    which fingerprint is the current one

Everything is sorted by content, so permuted rows give the same bytes and the same fingerprint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b, file_digest
from itertools import chain
from pathlib import Path
from typing import Any

from harness import registry
from harness.contract import Setting, Task
from harness.corpus import Corpus, Written, content_id, find_natives, write_corpus
from harness.data import Document, Gold, HarnessError, Loaded, Query, Questions, RawQuestion
from harness.spelling import Spelled, parse_spelled

DATA = Path(os.environ.get("HARNESS_DATA", "data"))
UNTEXTED = "untexted:"
"""Before the native id of a judged document that the corpus has no text of."""


@dataclass
class Pooled:
    """A raw question with its candidates reduced to ids and grades; rows of one id are merged."""

    raw: RawQuestion
    pool: dict[str, int] = field(default_factory=dict)


def slug(task: Spelled) -> str:
    """The folder name of a task: its name, and a hash of its options if it has any."""
    if not task.options:
        return task.name
    return f"{task.name}-{blake2b(str(task.canonical).encode(), digest_size=4).hexdigest()}"


def prepare(
    name: str,
    source: Path | str | None = None,
    split: str | None = None,
    limit: int | None = None,
    data: Path = DATA,
) -> Path:
    """Make a task's questions, corpus and gold ready under ``data``; returns their folder.

    source: a file or folder; None for the hub at the revision pinned in the task.
    Interrupted or failed, it leaves what was prepared before as it was.
    """
    spelled = parse_spelled(name)
    task = registry.task(spelled)
    split = checked_split(task, split)
    work = data / f".preparing-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        (work / "corpus").mkdir(parents=True)
        (work / "task").mkdir()
        about = {
            "task": str(spelled),
            "split": split,
            "source": str(source) if source else "",
            "generated": task.generated,
            "version": task.version,
            "licence": task.licence,
            "files": _checksums(task, Path(source) if source else None, split),
            **_write(task, task.load(Path(source) if source else None, split, limit), work),
        }
        return _publish(about, work, data, data / slug(spelled))
    except UnicodeEncodeError as error:
        raise HarnessError(
            f"{source}: half a surrogate pair stands in {str(error.object)[:60]!r}.",
            "Mend that text: it is not valid Unicode.",
        ) from None
    except OSError as error:
        raise HarnessError(
            f"cannot write under {data}: {error.strerror or error}.",
            "Free some room or choose another folder with --data; what stood there is kept.",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(about: dict[str, Any], work: Path, data: Path, home: Path) -> Path:
    """Put what was written in its place, and make it the split's current data."""
    _save_json(work / "task" / "about.json", about)
    _move(work / "corpus", data / "corpora" / about["corpus"])
    folder = _move(work / "task", home / about["fingerprint"])
    current = {"fingerprint": about["fingerprint"], "version": about["version"]}
    _save_json(home / f"{about['split']}.json", current)
    return folder


def _checksums(task: Task, source: Path | None, split: str) -> dict[str, str]:
    """SHA-256 of the files that were read, by name."""
    found = {}
    for path in task.files(source, split):
        with path.open("rb") as file:
            found[path.name] = file_digest(file, "sha256").hexdigest()
    return found


def checked_split(task: Task, split: str | None) -> str:
    """The split asked for, or the task's default; `HarnessError` if it has no such split."""
    if split is None:
        return task.splits[0]
    if split not in task.splits:
        raise HarnessError(
            f"{task.name} has no split {split!r}.", f"Its splits: {', '.join(task.splits)}."
        )
    return split


def _write(task: Task, loaded: Loaded, work: Path) -> dict[str, Any]:
    """Write corpus, queries, native ids and gold; returns counts and fingerprint."""
    pooled: dict[str, Pooled] = {}
    stream = chain(loaded.documents, _candidates(loaded, pooled))
    natives = work / "task" / "natives.txt"
    written = write_corpus(stream, work / "corpus", natives)
    _refuse_empty(task, written, pooled, loaded.notes)
    corpus = Corpus(work / "corpus")
    wanted = {native for each in pooled.values() for native in each.raw.relevance}
    known = find_natives(natives, corpus, wanted) if wanted else {}
    golds, queries, native_ids = {}, {}, {}
    for query, each in _with_ids(pooled):
        relevance = dict(each.pool)
        for native, grade in each.raw.relevance.items():
            relevance[known.get(native, UNTEXTED + native)] = grade
        golds[query.id] = _gold(task, each.raw, relevance)
        queries[query.id] = query
        native_ids[query.id] = each.raw.id
    groups = _groups(golds) if task.group_by == "documents" else {}
    fingerprint = blake2b(f"{written.digest} {task.rel}".encode(), digest_size=8)
    paths = [work / "task" / name for name in ("queries.jsonl", "gold.jsonl", "native.jsonl")]
    with paths[0].open("wb") as q, paths[1].open("wb") as g, paths[2].open("wb") as n:
        for query_id in sorted(queries):
            query, gold = queries[query_id], golds[query_id]
            q.write(line := _line({"id": query.id, "text": query.text, "pool": query.pool}))
            fingerprint.update(line)
            g.write(line := gold_line(query_id, gold, groups.get(query_id, query_id)))
            fingerprint.update(line)
            n.write(_line({"id": query_id, "native": native_ids[query_id]}))
    if wanted and written.merged:
        loaded.notes["documents that stood twice (same id, title and text)"] += written.merged
    return {
        "fingerprint": fingerprint.hexdigest(),
        "corpus": written.digest[:16],
        "documents": written.size,
        "questions": len(queries),
        "notes": dict(loaded.notes),
    }


def _candidates(loaded: Loaded, pooled: dict[str, Pooled]) -> Iterator[Document]:
    """The documents that come with the questions; fills ``pooled`` on the way."""
    for raw in loaded.questions:
        if not raw.text.strip():
            raise HarnessError(f"{raw.where}: the question is empty.", "Mend or remove that row.")
        each = _merged(pooled, raw, loaded.notes)
        for candidate in raw.candidates:
            document = candidate.document
            key = content_id(document.title, document.text)
            if key in each.pool:
                loaded.notes["candidates merged (same title and text in one pool)"] += 1
            each.pool[key] = max(candidate.grade, each.pool.get(key, 0))
            yield Document("", document.text, document.title, document.sentences)


def _merged(pooled: dict[str, Pooled], raw: RawQuestion, notes: Counter[str]) -> Pooled:
    """The entry of this question; a second row with its id joins the first."""
    bare = replace(raw, candidates=())
    first = pooled.setdefault(raw.id, Pooled(bare))
    if first.raw is bare:
        return first
    if first.raw.text != raw.text:
        raise HarnessError(
            f"{raw.where}: the id {raw.id!r} stands at {first.raw.where} with another question.",
            "Give every question its own id.",
        )
    notes["rows merged (same question id)"] += 1
    first.raw = replace(
        first.raw,
        relevance={**first.raw.relevance, **raw.relevance},
        answers=tuple(dict.fromkeys(first.raw.answers + raw.answers)),
    )
    return first


def _refuse_empty(
    task: Task, written: Written, pooled: dict[str, Pooled], notes: Counter[str]
) -> None:
    dropped = "; ".join(f"{count} {reason}" for reason, count in notes.items())
    for what, size in (("questions", len(pooled)), ("documents", written.size)):
        if not size:
            raise HarnessError(
                f"{task.name}: no {what} are left{f' ({dropped})' if dropped else ''}.",
                "Check the source and the split.",
            )


def _with_ids(pooled: dict[str, Pooled]) -> Iterator[tuple[Query, Pooled]]:
    """Queries with ids made of their text and pool, the same whatever order they came in."""
    taken: Counter[str] = Counter()
    for _, each in sorted(pooled.items()):
        pool = tuple(sorted(each.pool)) or None
        key = "\0".join((each.raw.text, *(pool or ())))
        base = blake2b(key.encode(), digest_size=8).hexdigest()
        taken[base] += 1
        query_id = base if taken[base] == 1 else f"{base}-{taken[base]:06}"
        yield Query(query_id, each.raw.text, pool), each


def _gold(task: Task, raw: RawQuestion, relevance: dict[str, int]) -> Gold:
    return Gold(
        dict(sorted(relevance.items())) if any(grade > 0 for grade in relevance.values()) else {},
        raw.answers,
        raw.sentences,
        raw.triples,
        raw.answerable,
        kind=task.kind,
    )


def _groups(golds: dict[str, Gold]) -> dict[str, str]:
    """Each question's group: the relevant document that it shares with most other questions.

    Joining whole chains of shared documents instead would, in data made by composing questions,
    end in one group that holds most of them.
    """
    relevant = {q: [d for d, grade in g.relevance.items() if grade > 0] for q, g in golds.items()}
    shared = Counter(doc_id for doc_ids in relevant.values() for doc_id in doc_ids)
    return {
        query_id: max(doc_ids, key=lambda doc_id: (shared[doc_id], doc_id), default=query_id)
        for query_id, doc_ids in relevant.items()
    }


# --- the files ------------------------------------------------------------------------


def _line(row: dict[str, Any]) -> bytes:
    kept = {key: value for key, value in row.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def gold_line(query_id: str, gold: Gold, group: str) -> bytes:
    """One line of gold.jsonl."""
    return _line(
        {
            "id": query_id,
            "relevance": gold.relevance,
            "answers": gold.answers,
            "sentences": gold.sentences,
            "triples": gold.triples,
            "answerable": gold.answerable,
            "group": group,
            "kind": gold.kind,
        }
    )


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


def read_about(folder: Path) -> dict[str, Any]:
    """What `prepare` noted: task, split, source, counts."""
    text = (folder / "about.json").read_text(encoding="utf-8")
    about: dict[str, Any] = json.loads(text)
    return about


def open_corpus(folder: Path) -> Corpus:
    """The corpus of a prepared task."""
    return Corpus(folder.parent.parent / "corpora" / read_about(folder)["corpus"])


def open_questions(folder: Path, task: Task, setting: Setting) -> Questions:
    """What `run` sees of a prepared task; opens no gold."""
    closed = setting == "pool"
    queries = tuple(
        Query(row["id"], row["text"], tuple(row["pool"]) if closed and "pool" in row else None)
        for row in read_lines(folder / "queries.jsonl")
    )
    about = read_about(folder)
    return Questions(
        about["task"],
        about["split"],
        open_corpus(folder),
        queries,
        about["fingerprint"],
        task.instruction,
    )


def prepared(spelled: Spelled, task: Task, split: str, data: Path = DATA) -> Path:
    """The current prepared folder of a task's split.

    A task that needs neither source nor network is prepared here if need be; others must have
    been, by this version of their parser.
    """
    pointer = data / slug(spelled) / f"{split}.json"
    if pointer.exists():
        current = json.loads(pointer.read_text(encoding="utf-8"))
        folder: Path = pointer.parent / current["fingerprint"]
        if current["version"] == task.version and (folder / "about.json").exists():
            return folder
    if task.offline:
        return prepare(str(spelled), None, split, data=data)
    raise HarnessError(
        f"{spelled} ({split}) is not prepared under {data}.",
        f"`python -m harness prepare {spelled} --split {split}` fetches it, or reads your copy "
        "with --from PATH.",
    )


def sample(ids: Iterable[str], limit: int | None, seed: int) -> list[str]:
    """``limit`` ids in an order drawn from the seed: smaller limits are its beginnings."""

    def drawn(query_id: str) -> bytes:
        return blake2b(f"{seed} {query_id}".encode(), digest_size=8).digest()

    return sorted(ids, key=drawn)[:limit]


def native_queries(folder: Path) -> dict[str, str]:
    """Native query id → query id."""
    return {row["native"]: row["id"] for row in read_lines(folder / "native.jsonl")}


def native_documents(folder: Path, corpus: Corpus, wanted: Iterable[str]) -> dict[str, str]:
    """Native document id → document id, for those of ``wanted`` that the corpus has."""
    return find_natives(folder / "natives.txt", corpus, set(wanted))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of a prepared task."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    except (OSError, json.JSONDecodeError) as error:
        raise HarnessError(
            f"{path} cannot be read ({error}).", "Prepare the task again with `harness prepare`."
        ) from None


def _save_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _move(made: Path, place: Path) -> Path:
    """Put a finished folder in its place; the same content may stand there already."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(made)
    else:
        made.replace(place)
    return place

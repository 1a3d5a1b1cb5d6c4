"""From a task's raw rows to the one canonical shape on disk.

    data/corpora/<hash>/        documents.jsonl offsets.npy ids.npy  what systems may see
    data/<task>/<fingerprint>/  queries.jsonl                        what run sees
                                native.jsonl natives.txt             ids in files from outside
                                order.txt                            its questions as they came in
                                gold.jsonl                           what score sees
                                labels.jsonl                         sorts of questions, for tables
                                about.json                           counts, what was dropped
    data/<task>/<split>.json    which fingerprint is the current one

Everything but order.txt is sorted by content, so permuted rows give the same bytes and the same
fingerprint. Labels are no part of it: they change no row and no score.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from errno import EEXIST, ENOTEMPTY
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from harness import manifest, registry
from harness.canonical import LABELS, UNTEXTED
from harness.contract import Task
from harness.corpus import Corpus, Written, content_id, find_natives, write_corpus
from harness.data import DATA, Document, Gold, HarnessError, Loaded, Query, RawQuestion
from harness.files import json_value, reading
from harness.spelling import Spelled, parse_spelled

HIGHEST = 10_000
"""The highest grade: far larger ones overflow in trec_eval."""


@dataclass
class Pooled:
    """The rows of one question, their candidates reduced to ids, grades and native names."""

    rows: list[RawQuestion] = field(default_factory=list)
    pool: dict[str, int] = field(default_factory=dict)
    named: list[tuple[str, str]] = field(default_factory=list)


class _Made(NamedTuple):
    """All of a question that is written. passages: see `Named`."""

    query: Query
    gold: Gold
    native: str
    passages: Sequence[tuple[str, str]]
    labels: Mapping[str, str]


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
    try:
        data.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".preparing-", dir=data))
    except OSError as error:
        raise _unwritable(data, error) from error
    try:
        version = _version(task)
        (work / "corpus").mkdir()
        (work / "task").mkdir()
        about = {
            "task": str(spelled),
            "source": str(source) if source else "",
            "limit": limit,
            "licence": task.licence,
            "files": _checksums(task, Path(source) if source else None, split),
            **_write(task, task.load(Path(source) if source else None, split, limit), work),
        }
        return _publish(about, version, split, work, data / slug(spelled))
    except UnicodeEncodeError as error:
        raise HarnessError(
            f"{source}: half a surrogate pair stands in {str(error.object)[:60]!r}.",
            "Mend that text: it is not valid Unicode.",
        ) from None
    except OSError as error:
        raise _unwritable(data, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unwritable(data: Path, error: OSError) -> HarnessError:
    return HarnessError(
        f"cannot write under {data}: {error.strerror or error}.",
        "Free some room or choose another folder with --data; what stood there is kept.",
    )


def _publish(about: dict[str, Any], version: str, split: str, work: Path, home: Path) -> Path:
    """Put what was written in its place, and make it the split's current data."""
    _save_json(work / "task" / "about.json", about)
    _place(work / "corpus", home.parent / "corpora" / about["corpus"])
    folder = _place(work / "task", home / about["fingerprint"])
    current = {
        "fingerprint": about["fingerprint"],
        "version": version,
        "limit": about["limit"],
    }
    _save_json(home / f"{split}.json", current)
    return folder


def _version(task: Task) -> str:
    """Of what made the data; for a task that `run` can prepare anew, its sources count too."""
    if not task.offline:
        return task.version
    return f"{task.version} {manifest.digest(manifest.class_sources(type(task)))}"


def _checksums(task: Task, source: Path | None, split: str) -> dict[str, str]:
    """SHA-256 of the files that were read, by name."""
    found = {}
    for path in task.files(source, split):
        with reading(path), path.open("rb") as file:
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
    stream = _documents(loaded, pooled)
    natives = work / "task" / "natives.txt"
    written = write_corpus(stream, work / "corpus", natives)
    _refuse_empty(task, written, pooled, loaded.notes)
    corpus = Corpus(work / "corpus")
    merged = {native: _folded(each, loaded.notes) for native, each in pooled.items()}
    wanted = {native for raw in merged.values() for native in raw.relevance}
    known = find_natives(natives, corpus, wanted) if wanted else {}
    made: dict[str, _Made] = {}
    for query, native in _with_ids(pooled, "pool" in task.settings):
        relevance = dict(pooled[native].pool)
        for doc_id, grade in merged[native].relevance.items():
            relevance[known.get(doc_id, UNTEXTED + doc_id)] = grade
        gold = _gold(task, merged[native], relevance)
        made[query.id] = _Made(query, gold, native, pooled[native].named, merged[native].labels)
    rows = {query_id: merged[each.native] for query_id, each in made.items()}
    groups = _groups(task, {query_id: each.gold for query_id, each in made.items()}, rows)
    fingerprint = blake2b(f"{written.digest} {task.rel}".encode(), digest_size=8)
    for line in _write_lines(work / "task", made, groups):
        fingerprint.update(line)
    ours = {each.native: query_id for query_id, each in made.items()}
    (work / "task" / "order.txt").write_text("".join(f"{ours[each]}\n" for each in pooled))
    if task.ranking_metrics and not any(
        grade >= task.rel for each in made.values() for grade in each.gold.relevance.values()
    ):
        loaded.notes[f"questions, none with a passage of grade {task.rel} or more"] = len(made)
    if wanted and written.merged:
        loaded.notes["documents that stood twice (same id, title and text)"] += written.merged
    return {
        "fingerprint": fingerprint.hexdigest(),
        "corpus": written.digest[:16],
        "documents": written.size,
        "questions": len(made),
        "notes": dict(loaded.notes),
    }


def _write_lines(
    folder: Path, made: Mapping[str, _Made], groups: Mapping[str, str]
) -> Iterator[bytes]:
    """Write a file of a line a question of each kind; yields the lines that the fingerprint is
    made of: what is asked and what is right."""
    names = ("queries.jsonl", "gold.jsonl", "native.jsonl", LABELS)
    with ExitStack() as stack:
        asked, right, named, labels = (
            stack.enter_context((folder / name).open("wb")) for name in names
        )
        for query_id in sorted(made):
            query, gold, native, passages, said = made[query_id]
            asked.write(line := _line({"id": query_id, "text": query.text, "pool": query.pool}))
            yield line
            right.write(line := _gold_line(query_id, gold, groups.get(query_id, query_id)))
            yield line
            named.write(_line({"id": query_id, "native": native, "pool": passages or None}))
            labels.write(_line({"id": query_id, "labels": said}))


def _documents(loaded: Loaded, pooled: dict[str, Pooled]) -> Iterator[Document]:
    """The corpus, then the documents that come with the questions; fills ``pooled`` on the way."""
    named = False
    for document in loaded.documents:
        named = named or bool(document.id)
        yield document
    for raw in loaded.questions:
        if not raw.text.strip():
            raise HarnessError(f"{raw.where}: the question is empty.", "Mend or remove that row.")
        each = _entry(pooled, raw, loaded.notes)
        for candidate in raw.candidates:
            document = candidate.document
            if named or document.id:
                raise HarnessError(
                    f"{raw.where}: a candidate beside native document ids.",
                    "A task gives candidates without ids, or a corpus with ids and relevance.",
                )
            key = content_id(document.title, document.text)
            if key in each.pool:
                loaded.notes["candidates merged (same title and text in one pool)"] += 1
            each.pool[key] = max(candidate.grade, each.pool.get(key, 0))
            if candidate.native:
                each.named.append((candidate.native, key))
            yield document


def _entry(pooled: dict[str, Pooled], raw: RawQuestion, notes: Counter[str]) -> Pooled:
    """The entry of this question; a second row with its id joins the first."""
    each = pooled.setdefault(raw.id, Pooled())
    if each.rows:
        if each.rows[0].text != raw.text:
            raise HarnessError(
                f"{raw.where}: the id {raw.id!r} stands at {each.rows[0].where} with another "
                "question.",
                "Give every question its own id.",
            )
        notes["rows merged (same question id)"] += 1
    each.rows.append(replace(raw, candidates=()))
    return each


def _folded(each: Pooled, notes: Counter[str]) -> RawQuestion:
    """The rows of a question as one, whatever order they came in: all answers, highest grades."""
    if len(each.rows) == 1:
        return each.rows[0]
    rows = sorted(
        each.rows, key=lambda row: repr((row.answers, row.group, *_support(row), row.labels))
    )
    first = rows[0]
    if any(_support(row) != _support(first) for row in rows):
        notes["questions whose merged rows differ in support (one row's kept)"] += 1
    relevance: dict[str, int] = {}
    for row in rows:
        for doc_id, grade in row.relevance.items():
            relevance[doc_id] = max(grade, relevance.get(doc_id, grade))
    answers = dict.fromkeys(answer for row in rows for answer in row.answers)
    return replace(first, relevance=relevance, answers=tuple(answers))


def _support(row: RawQuestion) -> tuple[object, ...]:
    return (row.sentences, row.triples, row.answerable)


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


def _with_ids(pooled: dict[str, Pooled], closed: bool) -> Iterator[tuple[Query, str]]:
    """Queries and their native ids; a query's id is made of its text and pool, the same
    whatever order they came in."""
    taken: Counter[str] = Counter()
    for native, each in sorted(pooled.items()):
        pool = tuple(sorted(each.pool))
        text = each.rows[0].text
        base = blake2b("\0".join((text, *pool)).encode(), digest_size=8).hexdigest()
        taken[base] += 1
        query_id = base if taken[base] == 1 else f"{base}-{taken[base]:06}"
        yield Query(query_id, text, pool if closed else None), native


def _gold(task: Task, raw: RawQuestion, relevance: dict[str, int]) -> Gold:
    highest = max(relevance.values(), default=0)
    if highest > HIGHEST:
        raise HarnessError(
            f"{raw.where}: {raw.id!r} has a document of grade {highest}.",
            f"Grades are whole numbers up to {HIGHEST}.",
        )
    return Gold(
        dict(sorted(relevance.items())) if any(grade > 0 for grade in relevance.values()) else {},
        raw.answers,
        raw.sentences,
        raw.triples,
        raw.answerable,
        kind=task.kind,
    )


def _groups(task: Task, golds: dict[str, Gold], rows: dict[str, RawQuestion]) -> dict[str, str]:
    """The group of each question that has one: what the rows say; or, if none says and the task
    groups by documents, the relevant document that it shares with most other questions.

    Joining whole chains of shared documents instead would, in data made by composing questions,
    end in one group that holds most of them.
    """
    told = {query_id: row.group for query_id, row in rows.items() if row.group}
    if told or task.group_by != "documents":
        return told
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


def _gold_line(query_id: str, gold: Gold, group: str) -> bytes:
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


def prepared(spelled: Spelled, task: Task, split: str, data: Path = DATA) -> Path:
    """The current prepared folder of a task's split.

    A task that needs neither source nor network is prepared here if need be; others must have
    been, by this version of their parser.
    """
    pointer = data / slug(spelled) / f"{split}.json"
    if pointer.exists():
        current = json_value(pointer)
        folder: Path = pointer.parent / current["fingerprint"]
        fresh = current["version"] == _version(task) and not (task.offline and current["limit"])
        if fresh and (folder / "about.json").exists():
            return folder
    if task.offline:
        return prepare(str(spelled), None, split, data=data)
    raise HarnessError(
        f"{spelled} ({split}) is not prepared under {data}.",
        f"`python -m harness prepare {spelled} --split {split}` fetches it, or reads your copy "
        "with --from PATH.",
    )


def _save_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _place(made: Path, place: Path) -> Path:
    """Put a finished folder in its place; where one of the same content stands, its files are
    renewed one by one, which mends it if it was broken and disturbs nobody who reads it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
        for file in made.iterdir():
            file.replace(place / file.name)
    return place

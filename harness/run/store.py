"""Rows on disk: one JSON line a question, appended batch by batch, repaired when torn.

    {"id":…,"hits":[[id,score],…],"answer":{…},"raw":…,"read":[…],"counts":{…},"stop":…,"error":…}

Fields that are empty are left out. Rows point at documents by id; they carry no corpus text.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import orjson

from harness.data import Answer, Evidence, HarnessError, Hit, Row


def row_line(row: Row) -> bytes:
    """A row as one line of JSON; floats are written so that they read back the same.

    `TypeError` for what cannot be written: half a surrogate pair, a number beyond 64 bits, an
    object in extras.
    """
    out: dict[str, Any] = {"id": row.id}
    if row.hits:
        out["hits"] = row.hits
    if row.answer is not None:
        out["answer"] = _answer_json(row.answer)
    for name in ("raw", "read", "counts", "stop", "error", "extras"):
        if value := getattr(row, name):
            out[name] = value
    return orjson.dumps(out, default=list, option=orjson.OPT_APPEND_NEWLINE)


def _answer_json(answer: Answer) -> dict[str, Any]:
    out: dict[str, Any] = {"text": answer.text}
    if answer.evidence is not None:
        out["evidence"] = [[e.doc_id, e.sentence, e.span] for e in answer.evidence]
    if answer.triples is not None:
        out["triples"] = answer.triples
    if answer.answerable is not None:
        out["answerable"] = answer.answerable
    return out


def parse_row(line: bytes | str) -> Row:
    """The inverse of `row_line`; `ValueError` if the line is not whole."""
    row = orjson.loads(line)
    try:
        return Row(
            row["id"],
            tuple(map(Hit._make, row.get("hits", ()))),
            _parse_answer(row["answer"]) if "answer" in row else None,
            row.get("raw", ""),
            tuple(row.get("read", ())),
            row.get("counts", {}),
            row.get("stop", ""),
            row.get("error", ""),
            row.get("extras", {}),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise ValueError("not a row: a field of it is missing or of a wrong type") from None


def _parse_answer(answer: dict[str, Any]) -> Answer:
    evidence, triples = answer.get("evidence"), answer.get("triples")
    return Answer(
        answer["text"],
        None
        if evidence is None
        else tuple(Evidence(d, n, None if s is None else (s[0], s[1])) for d, n, s in evidence),
        None if triples is None else tuple((s, r, o) for s, r, o in triples),
        answer.get("answerable"),
    )


class RowFile:
    """The rows of one pipeline stage: an append-only file with an index in memory.

    Opening it changes nothing; whoever is going to append calls `repair` first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        self._bad: set[str] = set()
        self._spoiled = False
        self._file: IO[bytes] | None = None
        if path.exists():
            self._index()

    def __contains__(self, query_id: str) -> bool:
        return query_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, ids: Iterable[str]) -> list[Row]:
        """The rows of these questions, in this order."""
        with self.path.open("rb") as file:
            rows = []
            for query_id in ids:
                file.seek(self._places[query_id])
                rows.append(parse_row(file.readline()))
            return rows

    def append(self, rows: Sequence[Row], label: str = "") -> None:
        """Write rows at the end, in one write; one that cannot be written is an error row.

        label: the system that is to blame for it
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        start = self._file.tell()
        out = []
        for row in rows:
            try:
                line = row_line(row)
            except TypeError as error:
                why = f"{label}: its result cannot be written ({error})"
                row = Row(row.id, row.hits, error=why)
                line = row_line(row)
            out.append(line)
            self._places[row.id] = start
            if row.error:
                self._bad.add(row.id)
            start += len(line)
        whole = b"".join(out)
        if self._file.write(whole) != len(whole):
            raise HarnessError(f"{self.path}: the disk is full.", "Free some room, start again.")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _index(self) -> None:
        """Where each question's row stands; torn and repeated lines are passed over."""
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    row = parse_row(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None or row.id in self._places:
                    self._spoiled = True
                else:
                    self._places[row.id] = place
                    if row.error:
                        self._bad.add(row.id)
                place += len(line)

    def repair(self, asked: Iterable[str], also: Iterable[str] = ()) -> None:
        """Take torn and repeated lines out, and those rows of the asked questions that are
        errored or stand in ``also``, so that they are made again."""
        again = (self._bad & set(asked)) | (set(also) & self._places.keys())
        if self._spoiled or again:
            self._keep([query_id for query_id in self._places if query_id not in again])
            self._bad, self._spoiled = self._bad - again, False

    def good(self, query_id: str) -> bool:
        """Whether a question has a row without an error."""
        return query_id in self._places and query_id not in self._bad

    def order(self, ids: Sequence[str]) -> None:
        """Put the rows of ``ids`` first, in this order, if they are not already."""
        wanted = dict.fromkeys(query_id for query_id in ids if query_id in self._places)
        ordered = [*wanted, *(query_id for query_id in self._places if query_id not in wanted)]
        if ordered != list(self._places):
            self._keep(ordered)

    def _keep(self, ids: Sequence[str]) -> None:
        """Rewrite the file with these rows in this order, renamed into place when whole."""
        self.close()
        places, place = {}, 0
        part = self.path.with_suffix(".part")
        with self.path.open("rb") as old, part.open("wb") as new:
            for query_id in ids:
                old.seek(self._places[query_id])
                places[query_id] = place
                place += new.write(old.readline())
        part.replace(self.path)
        self._places = places


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, if it is there, but for a torn last line; reading changes nothing."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = parse_row(line)
                wrong = wrong_types(row) or _twice(row)
            except ValueError as error:
                wrong = str(error)
            if wrong:
                raise HarnessError(
                    f"{path}:{number}: {wrong}.",
                    "Delete that line and run the same command again: it asks anew.",
                )
            yield row


def _twice(row: Row) -> str:
    documents = [hit.id for hit in row.hits]
    return "it ranks a document twice" if len(set(documents)) < len(documents) else ""


def wrong_types(row: Row) -> str:
    """What no run could have written, in words; empty if all is well."""
    texts: list[object] = [row.id, row.error, row.stop, *(hit.id for hit in row.hits)]
    places: list[object] = []
    if row.answer is not None:
        texts += [row.answer.text, *(part for each in row.answer.triples or () for part in each)]
        for evidence in row.answer.evidence or ():
            texts.append(evidence.doc_id)
            places += [evidence.sentence, *(evidence.span or ())]
    if not set(map(type, texts)) <= {str}:
        return "an id or a text in it is no string"
    if not set(map(type, places)) <= {int, type(None)}:
        return "a place in its evidence is no number"
    return "" if isinstance(row.counts, dict) else "its counts are no object"


def asked_rows(path: Path, ids: Sequence[str]) -> Iterator[tuple[str, Row | None]]:
    """Every asked question with its row, in the order of the file; ``None``: it has none.

    Rows of other questions are passed over; a question's first row counts.
    """
    left = dict.fromkeys(ids)
    for row in read_rows(path):
        if row.id in left:
            del left[row.id]
            yield row.id, None if row.counts.get("not_in_file") else row
    yield from ((query_id, None) for query_id in left)


LOCK = ".lock"
OTHERS = "Wait for it, stop it, or choose another folder with --out."


@contextmanager
def one_writer(folder: Path, mend: str = OTHERS) -> Iterator[None]:
    """Hold a run folder against other processes; the system lets go of it when we die.

    mend: what to tell whoever comes second
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with _locked(path, mend) as lock:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, mend: str) -> IO[str]:
    """The open file of a lock that is ours, and that no earlier holder has just removed."""
    while True:
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise HarnessError(f"{path.parent} is being written by {holder}.", mend) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        lock.close()

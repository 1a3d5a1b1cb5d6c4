"""A corpus on disk, in id order, read through memory maps.

A corpus folder holds ``documents.jsonl`` (one document a line, sorted by id), ``offsets.npy``
(the byte where each line starts) and ``ids.npy`` (the ids as fixed-width bytes). It holds
nothing else: no gold, no native ids, no task name. A document's id is a hash of its title and
text, so a corpus is the same bytes in whatever order its documents came.
"""

from __future__ import annotations

import heapq
import json
import mmap
import tempfile
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import orjson

from harness.data import Document, HarnessError

SPILL = 500_000
"""Documents sorted in memory at a time; more are merged from temporary files."""


def content_id(title: str, text: str) -> str:
    """The id of a document: 64 bits of a hash of its title and text, in hex."""
    return blake2b(f"{title}\0{text}".encode(), digest_size=8).hexdigest()


class Written(NamedTuple):
    """What `write_corpus` wrote: the hash of the documents, how many, and the copies merged."""

    digest: str
    size: int
    merged: int


class Corpus(Sequence[Document]):
    """Documents by position or by id; positions are in id order. Opening it again is cheap."""

    def __init__(self, folder: Path) -> None:
        try:
            self._ids: npt.NDArray[np.bytes_] = _mapped(folder / "ids.npy")
            self._offsets: npt.NDArray[np.int64] = _mapped(folder / "offsets.npy")
            with (folder / "documents.jsonl").open("rb") as file:
                size = (folder / "documents.jsonl").stat().st_size
                self._text: mmap.mmap | bytes = (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                )
            if self._offsets[-1] != size or len(self._offsets) != len(self._ids) + 1:
                raise ValueError("its files do not belong together")
        except (FileNotFoundError, ValueError, IndexError) as error:
            raise HarnessError(
                f"the corpus in {folder} is not whole ({error}).", "Prepare the task again."
            ) from None

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, position: int) -> str:
        """The id of the document at a position."""
        return bytes(self._ids[position]).decode()

    @property
    def ids(self) -> list[str]:
        """Every id, in order."""
        return [item.decode() for item in self._ids.tolist()]

    def ids_at(self, positions: npt.NDArray[np.integer[Any]]) -> list[str]:
        """The ids of the documents at many positions, (n,)."""
        return [item.decode() for item in self._ids[positions].tolist()]

    def position(self, doc_id: str) -> int:
        """Where a document stands; `KeyError` if it does not."""
        place = self.positions([doc_id])[0]
        if place < 0:
            raise KeyError(doc_id)
        return int(place)

    def positions(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Where documents stand, (n,); -1 for an id that is not in the corpus."""
        if not len(self) or not len(ids):
            return np.full(len(ids), -1)
        wanted = np.array([item.encode() for item in ids])
        places = np.searchsorted(self._ids, wanted).clip(max=len(self) - 1)
        return np.where(self._ids[places] == wanted, places, -1)

    def __contains__(self, doc_id: object) -> bool:
        return isinstance(doc_id, str) and bool(self.positions([doc_id])[0] >= 0)

    @overload
    def __getitem__(self, key: int | str) -> Document: ...
    @overload
    def __getitem__(self, key: slice) -> list[Document]: ...
    def __getitem__(self, key: int | str | slice) -> Document | list[Document]:
        if isinstance(key, slice):
            return [self[place] for place in range(*key.indices(len(self)))]
        place = self.position(key) if isinstance(key, str) else range(len(self))[key]
        return _document(self._text[self._offsets[place] : self._offsets[place + 1]])

    def __iter__(self) -> Iterator[Document]:
        ends = self._offsets.tolist()
        return (_document(self._text[start:end]) for start, end in pairwise(ends))


def _document(line: bytes) -> Document:
    row = orjson.loads(line)
    return Document(row["id"], row["text"], row.get("title", ""), tuple(row.get("sentences", ())))


def _mapped(path: Path) -> Any:
    """A read-only array over a file, without the file's name in it (systems see a corpus)."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = read(file)
        if 0 in shape:
            return np.zeros(shape, dtype)
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, dtype, offset=file.tell()).reshape(shape)


def write_corpus(documents: Iterable[Document], folder: Path, natives: Path) -> Written:
    """Write documents (``id`` native or empty) into an empty folder, in bounded memory.

    Documents without a native id are one document wherever title and text are equal. Those
    with native ids stay apart: a second one with the same content gets ``-000002`` behind its
    id. ``natives`` becomes a text file with the native id of each document, in corpus order.
    A native id that stands twice with other content is a `HarnessError`.
    """
    digest, merged = blake2b(digest_size=16), 0
    ids: list[bytes] = []
    offsets, seen = array("q", [0]), array("q")
    with (
        (folder / "documents.jsonl").open("wb") as out,
        natives.open("w", encoding="utf-8", newline="\n") as native_file,
        ExitStack() as stack,
    ):
        keyed = ((content_id(d.title, d.text), d) for d in documents)
        for base, group in groupby(_sorted(keyed, folder, stack), key=lambda row: row[0]):
            copies: set[tuple[str, str, str]] = set()
            for _, native, title, text, sentences in group:
                if (native, title, text) in copies:
                    merged += 1
                    continue
                copies.add((native, title, text))
                if "\n" in native:
                    raise HarnessError(f"the id {native!r} has a line break.", "Mend that id.")
                doc_id = base if len(copies) == 1 else f"{base}-{len(copies):06}"
                line = _line(doc_id, title, text, sentences)
                digest.update(line)
                out.write(line)
                native_file.write(native + "\n")
                if native:
                    seen.append(hash(native))
                ids.append(doc_id.encode())
                offsets.append(offsets[-1] + len(line))
    if len(np.unique(np.frombuffer(seen, np.int64))) != len(seen):
        _refuse_repeated(natives)
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64))
    np.save(folder / "ids.npy", np.array(ids, dtype=np.bytes_) if ids else np.zeros(0, "S16"))
    return Written(digest.hexdigest(), len(ids), merged)


def _refuse_repeated(natives: Path) -> None:
    """Raise if a native id really stands twice (equal hashes alone may be chance)."""
    seen: set[str] = set()
    with natives.open(encoding="utf-8", newline="\n") as file:
        for native in filter(None, (line.removesuffix("\n") for line in file)):
            if native in seen:
                raise HarnessError(
                    f"two documents have the id {native!r} and different texts.",
                    "Give every document of the corpus its own id.",
                )
            seen.add(native)


def find_natives(natives: Path, corpus: Corpus, wanted: Container[str]) -> dict[str, str]:
    """Native id → id, for those of ``wanted`` that the corpus has; one pass over ``natives``."""
    with natives.open(encoding="utf-8", newline="\n") as file:
        return {
            native: corpus.id(position)
            for position, line in enumerate(file)
            if (native := line.removesuffix("\n")) and native in wanted
        }


def _line(doc_id: str, title: str, text: str, sentences: Sequence[str]) -> bytes:
    row: dict[str, Any] = {"id": doc_id}
    if title:
        row["title"] = title
    row["text"] = text
    if sentences:
        row["sentences"] = list(sentences)
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


Keyed = tuple[str, str, str, str, tuple[str, ...]]


def _sorted(
    documents: Iterable[tuple[str, Document]], folder: Path, stack: ExitStack
) -> Iterator[Keyed]:
    """(id, native id, title, text, sentences) in order, at most `SPILL` documents in memory."""
    chunk: list[Keyed] = []
    spilled: list[Iterator[Keyed]] = []
    for key, document in documents:
        chunk.append((key, document.id, document.title, document.text, document.sentences))
        if len(chunk) >= SPILL:
            chunk.sort()
            spilled.append(_spill(chunk, folder, stack))
            chunk = []
    chunk.sort()
    return heapq.merge(*spilled, chunk) if spilled else iter(chunk)


def _spill(chunk: list[Keyed], folder: Path, stack: ExitStack) -> Iterator[Keyed]:
    temporary = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115
    file = stack.enter_context(temporary)
    for row in chunk:
        file.write(json.dumps(row) + "\n")
    file.seek(0)
    return ((k, n, t, x, tuple(s)) for k, n, t, x, s in map(json.loads, file))

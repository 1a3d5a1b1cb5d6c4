"""A bundle as bytes: reads the one kind of zip that `submit --bundle` writes, and no other.

The general format has many ways to say one thing, and readers differ in which they believe. Here
entries follow each other from the first byte without a gap, local headers repeat the directory,
and there are no extra fields, comments, zip64 records or data descriptors. So no two entries
overlap (the trick of the largest bombs) and there is no second directory. Every entry is unpacked
in pieces up to the size that it declares, into a file that we name. Source: PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any
from unicodedata import normalize

from harness.report.bundle import LIMITS, ROWS, limit_of
from harness.verify.findings import Findings

END, CENTRAL, LOCAL = (struct.Struct(f"<4s{rest}") for rest in ("4H2LH", "6H3L5H2L", "5H3L2H"))
SIGNATURES = (b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04")
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 0x2041, 0x800
MOST_BYTES = 1 << 30
"""Of the archive."""
MOST_FILES = 2_000
MOST_UNPACKED = 4 << 30
"""Bytes of all files together."""
RATIO, SMALL = 200, 1 << 20
"""How much smaller than itself a file of more than `SMALL` bytes may be packed."""
_PIECE = 1 << 18
AGAIN = "Pack it with `submit --bundle`."


@dataclass(frozen=True)
class Entry:
    """A file of the archive: sizes in bytes; ``start`` is where its packed bytes begin."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int


@dataclass(frozen=True)
class Unpacked:
    """A file that lies under a name of ours, with its size and hash."""

    path: Path
    size: int
    blake2b: str


class Broken(Exception):
    """Why nothing more of an archive can be believed. rule: see `harness.verify.findings`."""

    def __init__(self, sentence: str, rule: str = "archive") -> None:
        super().__init__(sentence)
        self.rule = rule


def unpack(path: Path, folder: Path, found: Findings) -> dict[str, Unpacked]:
    """The files of an archive by name, unpacked into ``folder``; none if anything is wrong."""
    with path.open("rb") as file:
        try:
            entries = list(_entries(file, path.stat().st_size, found))
            if not found:
                _sizes(entries, found)
            if found:
                return {}
            return {
                each.name: _unpacked(file, each, folder / f"{number}")
                for number, each in enumerate(entries)
            }
        except Broken as broken:
            found.add(broken.rule, path.name, str(broken))
            return {}


# --- the directory --------------------------------------------------------------------


def _entries(file: IO[bytes], size: int, found: Findings) -> Iterator[Entry]:
    """The entries, in order; what is wrong with one by itself goes to ``found``."""
    directory, offset, count = _directory(file, size)
    place, start, seen = 0, 0, set[str]()
    for _ in range(count):
        fields = CENTRAL.unpack_from(directory.ljust(place + CENTRAL.size, b"\0"), place)
        signature, _, _, flags, method, _, _, crc, packed, unpacked, length = fields[:11]
        attributes, where = fields[15:]
        if signature != SIGNATURES[1] or where != start:
            raise Broken(f"its directory is not a plain list of adjoining files. {AGAIN}")
        raw = directory[place + CENTRAL.size : place + CENTRAL.size + length]
        _flags(raw, flags, method, attributes, found)
        _local(file, start, raw, fields)
        start += LOCAL.size + length
        entry = Entry(_name(raw, found), method, crc, packed, unpacked, start)
        _twice(entry.name, seen, found)
        yield entry
        start += packed
        place += CENTRAL.size + length  # an extra field or a comment would stand in the way
    if place != len(directory) or start != offset:
        raise Broken(f"there are bytes in it that belong to no file. {AGAIN}")


def _directory(file: IO[bytes], size: int) -> tuple[bytes, int, int]:
    """The directory's bytes, where they stand, and of how many files."""
    if size > MOST_BYTES:
        raise Broken(f"it has {size} bytes, more than {MOST_BYTES}.", "size")
    file.seek(max(0, size - END.size))
    end = file.read(END.size)
    if len(end) < END.size or end[:4] != SIGNATURES[0]:
        raise Broken(f"it does not end as a bundle: it is cut off, or no zip. {AGAIN}")
    _, disk, first, here, count, length, offset, comment = END.unpack(end)
    if disk or first or comment or here != count or offset + length + END.size != size:
        raise Broken(f"its end does not fit its length. {AGAIN}")
    if count > MOST_FILES:
        raise Broken(f"it has {count} files, more than {MOST_FILES}.", "size")
    file.seek(offset)
    return file.read(length), offset, count


def _flags(raw: bytes, flags: int, method: int, attributes: int, found: Findings) -> None:
    name = raw.decode(errors="replace")
    kind = stat.S_IFMT(attributes >> 16)
    if flags & ENCRYPTED:
        found.add("encrypted", name, "it is encrypted.")
    elif flags & ~UTF8 or method not in (STORED, DEFLATED):
        found.add("archive", name, f"it is packed in a way that bundles are not. {AGAIN}")
    if kind not in (0, stat.S_IFREG):
        found.add("link", name, "it is a link or a special file.")


def _local(file: IO[bytes], start: int, raw: bytes, central: tuple[int, ...]) -> None:
    """The header before a file's bytes must say what the directory says."""
    file.seek(start)
    header = file.read(LOCAL.size + len(raw))
    if len(header) < LOCAL.size + len(raw) or header[:4] != SIGNATURES[2]:
        raise Broken("a file does not stand where its directory says.")
    _, _, flags, method, time, date, crc, packed, size, length, extra = LOCAL.unpack_from(header)
    told = (flags, method, time, date, crc, packed, size, length)
    if told != central[3:11] or extra or header[LOCAL.size :] != raw:
        raise Broken("a file and the directory do not say the same of it.")


# --- names and sizes ------------------------------------------------------------------


def _name(raw: bytes, found: Findings) -> str:
    """The name of an entry, which must be one of those that bundles have: none leads elsewhere."""
    name = raw.decode(errors="replace")
    if name not in LIMITS and not ROWS.fullmatch(name):
        found.add("name", name, "no bundle has a file of this name.")
    return name


def _twice(name: str, seen: set[str], found: Findings) -> None:
    same = normalize("NFKC", name).casefold()
    if same in seen:
        found.add("duplicate", name, "the name stands twice, at least for some file systems.")
    seen.add(same)


def _sizes(entries: list[Entry], found: Findings) -> None:
    for each in entries:
        if each.size > limit_of(each.name):
            found.add("size", each.name, f"it unpacks to {each.size} bytes, which is too many.")
        elif each.size > max(SMALL, RATIO * each.packed):
            found.add("size", each.name, f"it unpacks to more than {RATIO} times its size.")
    if (total := sum(each.size for each in entries)) > MOST_UNPACKED:
        found.add("size", "all files", f"they unpack to {total} bytes, more than {MOST_UNPACKED}.")


# --- the bytes ------------------------------------------------------------------------


def _unpacked(file: IO[bytes], entry: Entry, place: Path) -> Unpacked:
    """Write one entry to ``place``, never more than it declares."""
    size, crc, digest = 0, 0, blake2b()
    with place.open("wb") as out:
        for piece in _pieces(file, entry):
            size += len(piece)
            if size > entry.size:
                raise Broken(f"{entry.name} unpacks to more than the size it declares.", "size")
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
            out.write(piece)
    if size != entry.size:
        raise Broken(f"{entry.name} unpacks to less than the size it declares.")
    if crc != entry.crc:
        raise Broken(f"{entry.name} has another checksum than its directory says.", "checksum")
    return Unpacked(place, size, digest.hexdigest())


def _pieces(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    """The bytes of an entry, in pieces of bounded size."""
    file.seek(entry.start)
    left, inflate = entry.packed, zlib.decompressobj(-15)
    while left:
        packed = file.read(min(left, _PIECE))
        if not packed:
            raise Broken(f"{entry.name} is cut off.")
        left -= len(packed)
        if entry.method == STORED:
            yield packed
            continue
        while packed:
            try:
                yield inflate.decompress(packed, _PIECE)
            except zlib.error:
                raise Broken(f"the packed bytes of {entry.name} are broken.") from None
            packed = inflate.unconsumed_tail
    if entry.method == DEFLATED:
        yield from _rest(inflate, entry)


def _rest(inflate: Any, entry: Entry) -> Iterator[bytes]:
    """What is left in the inflater, which must have come to its end with the packed bytes."""
    while piece := inflate.decompress(b"", _PIECE):
        yield piece
    if not inflate.eof or inflate.unused_data:
        raise Broken(f"the packed bytes of {entry.name} do not end where they should.")

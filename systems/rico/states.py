"""Documents as states of a Mamba-2 model, and the store that keeps them.

Each document is read once, by itself, from an empty state. What is kept of it is one row of
numbers: the SSM states of some layers, one behind the other, then their convolution contexts.

    Layout            what a row holds, and how it becomes a `State` again
    Store, FileStore  rows by key, as many as there is room for
    encode            documents to rows

What it does not do: compressed states, search over states, writing by two processes at once.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from harness.data import HarnessError
from systems.models.backends import Stepwise
from systems.models.hub import by_length
from systems.models.language import TOKENS
from systems.models.mamba2 import Mamba2Config, State, precise
from systems.models.prompts import Rendered
from systems.sizes import arithmetic, readable

SEGMENT = 2048
"""Tokens of a document that are read at a time, so that a long one needs no more memory; the state
goes on."""
BLOCK = 64 * 2**20
"""Bytes of states, in float32, that are looked at at a time."""
OURS = {"states", "keys", "about.json", "about.part"}
"""The files of a folder of states."""
STORED = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


# --- what a row holds -----------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A row: (h p n) numbers of each kept layer, then (c (k - 1)) of each.

    layers: those that are kept, in order; the others start from nothing when a question is read
    """

    config: Mamba2Config
    layers: tuple[int, ...]

    @property
    def of_layer(self) -> tuple[int, int]:
        """Numbers of a layer's SSM state and of its convolution context."""
        c = self.config
        return c.inner * c.state_size, c.conv_dim * (c.conv_kernel - 1)

    @property
    def ssm(self) -> int:
        """How many numbers of a row are SSM states."""
        return len(self.layers) * self.of_layer[0]

    @property
    def size(self) -> int:
        return len(self.layers) * sum(self.of_layer)

    def row(self, state: State) -> Tensor:
        """The states of a batch as rows (b, size), in float32 or better."""
        kept = [part[layer] for part in state for layer in self.layers]
        return torch.cat([precise(each).flatten(1) for each in kept], dim=1)

    def state(self, ssm: Tensor, conv: Tensor) -> State:
        """The two parts of rows, (b, ssm) and (b, size - ssm), as the state of a batch; gradients
        flow through."""
        c, b = self.config, len(ssm)
        shapes = ((b, c.heads, c.head_dim, c.state_size), (b, c.conv_dim, c.conv_kernel - 1))
        found = []
        for shape, numbers, part in zip(shapes, self.of_layer, (ssm, conv), strict=True):
            layers = [part.new_zeros(()).expand(shape)] * c.layers
            for layer, mine in zip(self.layers, part.split(numbers, dim=1), strict=True):
                layers[layer] = mine.view(shape)
            found.append(tuple(layers))
        return State(*found)


def spread(layers: int, kept: int) -> tuple[int, ...]:
    """Which of a model's layers are kept: as many as asked for (0: all), evenly spread, the last
    among them; every (L/m)-th where m divides L."""
    if kept > layers or kept < 0:
        raise HarnessError(
            f"layers={kept} is wrong: the model has {layers}.",
            f"Write 1 to {layers}, or 0 for all.",
        )
    kept = kept or layers
    return tuple(-(-(place + 1) * layers // kept) - 1 for place in range(kept))


# --- the store ------------------------------------------------------------------------


class Store:
    """Rows by key, in memory; the least recently used make room for new ones.

    size:     numbers of a row
    dtype:    one of `STORED`
    capacity: rows
    """

    def __init__(self, size: int, dtype: str, capacity: int) -> None:
        self.size, self.dtype, self.name = size, STORED[dtype], dtype
        self.bytes = size * self.dtype.itemsize
        self.slots: OrderedDict[str, int] = OrderedDict()
        self.free: list[int] = []
        self.capacity = 0
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Have room for so many rows, if there is less."""
        if capacity <= self.capacity:
            return
        self.free = [*range(capacity - 1, self.capacity - 1, -1), *self.free]
        self.capacity = capacity
        self.raw = self._space(np.dtype(f"i{self.dtype.itemsize}"))

    def __contains__(self, key: object) -> bool:
        return key in self.slots

    def __len__(self) -> int:
        return len(self.slots)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys, none of them twice, that are not there. The others stay until the
        next call. `HarnessError` if there is not room for all."""
        if len(keys) > self.capacity:
            raise HarnessError(
                f"{arithmetic(len(keys), self.bytes)}, and there is room for "
                f"{readable(self.capacity * self.bytes)}.",
                "Rank fewer documents, keep fewer layers (layers=) or give more room (room_gib=).",
            )
        for key in keys:
            if key in self.slots:
                self.slots.move_to_end(key)
        return [key for key in keys if key not in self.slots]

    def put(self, keys: Sequence[str], rows: Tensor) -> None:
        """Keep rows (n, size) under keys that are not there; `HarnessError`, and none is kept, if
        one holds what is no number in the store's dtype."""
        stored = rows.to(self.dtype).cpu().contiguous()
        if not stored.isfinite().all():
            raise HarnessError(
                f"a document's state holds numbers that {self.name} has not.",
                "Keep states as bfloat16 or float32 (states=), or check the model's weights.",
            )
        as_whole = torch.int16 if self.dtype.itemsize == 2 else torch.int32
        for key, row in zip(keys, stored.view(as_whole).numpy(), strict=True):
            if not self.free:
                oldest, slot = self.slots.popitem(last=False)
                self._forgotten(oldest, slot)
                self.free.append(slot)
            self._written(key, self.free[-1], row)
            self.slots[key] = self.free.pop()

    def blocks(self, keys: Sequence[str]) -> Iterator[tuple[slice, Tensor]]:
        """The rows of keys that are there, in float32, `BLOCK` bytes at a time: which of the keys
        they belong to, and (m, size)."""
        step = max(1, BLOCK // (4 * self.size))
        for start in range(0, len(keys), step):
            here = slice(start, min(start + step, len(keys)))
            found = self.raw[[self.slots[key] for key in keys[here]]]
            yield here, torch.from_numpy(found).view(self.dtype).float()
            self._looked_at()

    def _space(self, whole: np.dtype[Any]) -> Any:
        """Room for all rows, those there included, as whole numbers of the same width."""
        space = np.empty((self.capacity, self.size), whole)
        for slot in self.slots.values():
            space[slot] = self.raw[slot]
        return space

    def _written(self, key: str, slot: int, row: Any) -> None:  # noqa: ARG002
        self.raw[slot] = row

    def _forgotten(self, key: str, slot: int) -> None:
        """A slot is about to be used again."""

    def _looked_at(self) -> None:
        """A block was read."""


class FileStore(Store):
    """The same in a folder: ``states`` has the rows, ``keys`` a line for each that was written or
    forgotten, ``about.json`` what they are states of. It keeps all the room it was ever given.

    A row counts from when its line is written, so that a process that is killed loses no row but
    the one it was writing. (A machine that loses power may lose more.)
    """

    opened: ClassVar[WeakValueDictionary[Path, FileStore]] = WeakValueDictionary()
    """Those of this process, which may share one."""

    def __init__(
        self, folder: Path, about: Mapping[str, Any], size: int, dtype: str, capacity: int
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if {each.name for each in folder.iterdir()} - OURS:
            raise HarnessError(f"{folder} holds other things than states.", "Give another folder.")
        self.keys = self._locked()
        try:
            self._check(about)
            self.file = os.fdopen(os.open(folder / "states", os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            there = os.fstat(self.file.fileno()).st_size // (size * STORED[dtype].itemsize)
            super().__init__(size, dtype, max(there, capacity))
            self._remember(there)
        except BaseException:
            self.keys.close()  # and the lock with it
            raise

    @classmethod
    def at(
        cls, folder: Path, about: Mapping[str, Any], size: int, dtype: str, capacity: int
    ) -> FileStore:
        """The store of a folder, made if it is not there, with that room or what more it has.
        `HarnessError` if it holds states of something else, or another process has it."""
        place = folder.expanduser().resolve()
        about = {**about, "size": size, "dtype": dtype}
        there = cls.opened.get(place)
        if there is None:
            there = cls.opened[place] = cls(place, about, size, dtype, capacity)
        there._check(about)
        there.grow(capacity)
        return there

    def _check(self, about: Mapping[str, Any]) -> None:
        """Write down what is kept here, or compare it with what is."""
        file = self.folder / "about.json"
        if not file.is_file():
            part = self.folder / "about.part"
            part.write_text(json.dumps(about, indent=1) + "\n")
            part.replace(file)
        try:
            found = json.loads(file.read_text())
        except ValueError:
            found = {}
        other = sorted(name for name in about if found.get(name) != about[name])
        if other:
            what = ", ".join(f"{name} {found.get(name)}, not {about[name]}" for name in other)
            raise HarnessError(
                f"{self.folder} holds states of something else: {what}.", "Give another folder."
            )

    def _locked(self) -> FileIO:
        keys = (self.folder / "keys").open("a+b", buffering=0)
        try:
            fcntl.flock(keys, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            keys.close()
            raise HarnessError(
                f"another process is using the states in {self.folder}.",
                "Wait for it, or give another folder.",
            ) from None
        return keys

    def _space(self, whole: np.dtype[Any]) -> Any:
        self.file.truncate(self.capacity * self.bytes)  # empty space takes no room on disk
        self.mapped = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self.mapped, whole).reshape(self.capacity, self.size)

    def _remember(self, there: int) -> None:
        """Go through the lines again, for as many rows as the file has; half a line at the end is
        cut off."""
        self.keys.seek(0)
        lines = self.keys.readall().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self.keys.truncate(sum(map(len, lines[:-1])))
            lines.pop()
        holds: dict[int, str] = {}
        for line in lines:
            slot, _, key = line.decode().rstrip("\n").partition(" ")
            self.slots.pop(holds.pop(int(slot), ""), None)  # a slot holds what it was last said to
            if not key.startswith("-"):
                self.slots.pop(key, None)
                self.slots[key], holds[int(slot)] = int(slot), key
        for key, place in list(self.slots.items()):
            if place >= there:
                del self.slots[key]
                self._note(place, f"-{key}")
        used = set(self.slots.values())
        self.free = [slot for slot in self.free if slot not in used]

    def _written(self, key: str, slot: int, row: Any) -> None:
        # Not through the map, which a full disk would answer by killing the process.
        data, done = row.tobytes(), 0
        while done < self.bytes:
            done += os.pwrite(self.file.fileno(), data[done:], slot * self.bytes + done)
        self._note(slot, key)

    def _forgotten(self, key: str, slot: int) -> None:
        self._note(slot, f"-{key}")

    def _note(self, slot: int, what: str) -> None:
        line, end = f"{slot} {what}\n".encode(), self.keys.seek(0, os.SEEK_END)
        if self.keys.write(line) != len(line):
            self.keys.truncate(end)
            raise OSError(ENOSPC, "no room for the line of a state", str(self.folder))

    def _looked_at(self) -> None:
        # What was looked at through a map counts as memory of this process until it is let go of.
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


# --- from documents to rows -----------------------------------------------------------


def encode(
    lm: Stepwise, layout: Layout, documents: Sequence[Rendered], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Read documents from an empty state, those of about one length together: their places and
    rows (b, size), a batch at a time. None may be empty."""
    lengths = [len(each.ids) for each in documents]
    for places in by_length(lengths, batch_size, TOKENS):
        state: State | None = None
        longest = max(lengths[place] for place in places)
        with torch.inference_mode():
            for start in range(0, longest, SEGMENT):
                here = [documents[place] for place in places]
                part = [row._replace(ids=row.ids[start : start + SEGMENT]) for row in here]
                state = lm.end_state(part, state)
        assert state is not None
        yield places, layout.row(state)

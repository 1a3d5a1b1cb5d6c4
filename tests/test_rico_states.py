"""States of documents: what a row holds, the store that keeps rows, and reading documents."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from test_mamba2 import TINY, distance, drawn, made, tokens

from harness.data import Document, HarnessError
from systems.models.backends import Stepwise
from systems.models.language import open_lm
from systems.models.mamba2 import Mamba2, Mamba2Config, State
from systems.rico import states
from systems.rico.states import FileStore, Layout, Store, encode, spread

LAYERS = 6
SIX = Mamba2Config(**{**TINY.__dict__, "layers": LAYERS})
ABOUT = {"checkpoint": "a", "layers": [0, 1]}


def rows_of(store: Store, keys: list[str]) -> Any:
    return torch.cat([rows for _, rows in store.blocks(keys)])


def numbers(*rows: float) -> Any:
    return torch.tensor(rows)[:, None] + torch.arange(4) / 4


def state_of(layout: Layout, rows: Any) -> State:
    return layout.state(rows[:, : layout.ssm], rows[:, layout.ssm :])


# --- layouts --------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(1, LAYERS + 1))
def test_a_row_is_as_long_as_its_layers_and_becomes_the_state_again(kept: int) -> None:
    layout, whole = Layout(SIX, spread(LAYERS, kept)), Layout(SIX, spread(LAYERS, 0))
    assert layout.size * LAYERS == whole.size * kept
    assert len(set(layout.layers)) == kept and layout.layers[-1] == LAYERS - 1
    state = drawn(made(SIX), 3)
    again = state_of(layout, layout.row(state))
    for layer in range(LAYERS):
        for found, given in ((again.ssm, state.ssm), (again.conv, state.conv)):
            expected = given[layer] if layer in layout.layers else 0 * given[layer]
            assert torch.equal(found[layer], expected)
    if kept == LAYERS:
        assert distance(again, state) == 0


def test_layers_are_spread_evenly() -> None:
    assert spread(24, 6) == (3, 7, 11, 15, 19, 23)
    assert len(spread(64, 10)) == 10 and spread(5, 0) == (0, 1, 2, 3, 4)
    with pytest.raises(HarnessError, match="layers=25 is wrong: the model has 24"):
        spread(24, 25)


def test_dropped_layers_start_from_nothing_when_a_question_is_read() -> None:
    model, kept = made(SIX), Layout(SIX, (2, 5))
    state = drawn(model, 1)
    found, _ = model(tokens(1, 4), None, state_of(kept, kept.row(state)))
    full = Layout(SIX, tuple(range(LAYERS)))
    row = full.row(state)
    for layer, part in product(set(range(LAYERS)) - {2, 5}, ("ssm", "conv")):
        ssm, conv = full.of_layer
        start = layer * ssm if part == "ssm" else full.ssm + layer * conv
        row[:, start : start + (ssm if part == "ssm" else conv)] = 0
    expected, _ = model(tokens(1, 4), None, state_of(full, row))
    assert torch.equal(found, expected)


# --- the store ------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file"])
def store(request: Any, tmp_path: Path) -> Store:
    if request.param == "memory":
        return Store(4, "bfloat16", 3)
    return FileStore.at(tmp_path / "s", ABOUT, 4, "bfloat16", 3)


def test_rows_come_back_and_the_least_recently_used_make_room(store: Store) -> None:
    assert store.bytes == 8 and store.missing(["a", "b"]) == ["a", "b"]
    store.put(["a", "b"], numbers(1, 2))
    store.put(["c"], numbers(3))
    assert store.missing(["a"]) == []
    store.put(["d"], numbers(4))
    assert store.missing(["a", "b", "c"]) == ["b"] and len(store) == 3
    assert torch.equal(rows_of(store, ["d", "a"]), numbers(4, 1))


def test_what_does_not_fit_is_refused_with_the_arithmetic(store: Store) -> None:
    said = "the states of 4 documents, 8 bytes each, are 32 bytes, and there is room for 24 bytes"
    with pytest.raises(HarnessError, match=said):
        store.missing(list("abcd"))


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 1e-2)]
)
def test_rows_are_kept_as_exactly_as_asked(dtype: str, error: float, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(7, 50, generator=draw)
    for store in (Store(50, dtype, 9), FileStore.at(tmp_path, {}, 50, dtype, 9)):
        store.put(list("abcdefg"), rows)
        found = rows_of(store, list("gfedcba")).flip(0)
        assert found.dtype == torch.float32 and (found - rows).abs().max() <= error * 4
        assert (found == rows).all() == (error == 0)


def test_blocks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "BLOCK", 2 * 4 * 4)
    store = Store(4, "float32", 5)
    store.put(list("abcde"), numbers(1, 2, 3, 4, 5))
    found = list(store.blocks(list("abcde")))
    assert [(here.start, here.stop) for here, _ in found] == [(0, 2), (2, 4), (4, 5)]
    assert torch.equal(torch.cat([rows for _, rows in found]), numbers(1, 2, 3, 4, 5))


def test_a_folder_keeps_them_and_knows_what_they_are(tmp_path: Path) -> None:
    place = tmp_path / "s"
    first = FileStore.at(place, ABOUT, 4, "float32", 3)
    first.put(["a", "b"], numbers(1, 2))
    assert FileStore.at(place, ABOUT, 4, "float32", 3) is first
    with pytest.raises(HarnessError, match="states of something else: checkpoint a, not b"):
        FileStore.at(place, {**ABOUT, "checkpoint": "b"}, 4, "float32", 3)
    del first
    for about, size, dtype in (
        (ABOUT, 4, "float16"),
        (ABOUT, 5, "float32"),
        ({"layers": [1]}, 4, "float32"),
    ):
        with pytest.raises(HarnessError, match="Give another folder"):
            FileStore.at(place, about, size, dtype, 3)
    again = FileStore.at(place, ABOUT, 4, "float32", 3)
    assert FileStore.at(place, ABOUT, 4, "float32", 5).capacity == again.capacity == 5
    assert again.missing(["a", "b", "c"]) == ["c"]
    again.put(["c", "d", "e"], numbers(3, 4, 5))
    assert torch.equal(rows_of(again, list("abcde")), numbers(1, 2, 3, 4, 5))
    del again
    assert FileStore.at(place, ABOUT, 4, "float32", 2).capacity == 5


def test_a_folder_of_other_things_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(HarnessError, match="holds other things than states"):
        FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_rows_that_are_lost_are_not_there(tmp_path: Path) -> None:
    store = FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    store.put(["a", "b"], numbers(1, 2))
    del store
    with (tmp_path / "states").open("r+b") as file:
        file.truncate(16)
    store = FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    assert store.missing(["a", "b"]) == ["b"] and torch.equal(rows_of(store, ["a"]), numbers(1))
    del store
    store = FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    assert store.missing(["a", "b"]) == ["b"]


class Full:
    """A file that takes two bytes more."""

    def __init__(self, file: Any) -> None:
        self.file, self.seek, self.truncate = file, file.seek, file.truncate

    def write(self, line: bytes) -> int:
        return int(self.file.write(line[:2]))


def test_a_line_that_could_not_be_written_is_not_there_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys' file is full when b is noted, and has room again for c, in the same slot."""
    store = FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    store.put(["a"], numbers(1))
    monkeypatch.setattr(store, "keys", Full(store.keys))
    with pytest.raises(OSError, match="no room"):
        store.put(["b"], numbers(2))
    monkeypatch.undo()
    store.put(["c"], numbers(3))
    assert list(store.slots.values()) == [0, 1]
    del store
    gc.collect()
    store = FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    assert list(store.slots) == ["a", "c"] and torch.equal(rows_of(store, ["c"]), numbers(3))


def test_a_broken_description_is_refused_with_a_hint(tmp_path: Path) -> None:
    FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    gc.collect()
    (tmp_path / "about.json").write_text('{"a"')
    with pytest.raises(HarnessError, match="Give another folder"):
        FileStore.at(tmp_path, ABOUT, 4, "float32", 3)


def test_a_row_that_is_written_in_parts_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = FileStore.at(tmp_path, ABOUT, 4, "float32", 3), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, data[:5], place))
    store.put(["a"], numbers(1))
    assert torch.equal(rows_of(store, ["a"]), numbers(1))

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        store.put(["b"], numbers(2))
    monkeypatch.setattr(os, "pwrite", write)
    assert "b" not in store
    store.put(["b", "c"], numbers(2, 3))
    assert torch.equal(rows_of(store, ["a", "b", "c"]), numbers(1, 2, 3))


def test_what_a_dtype_cannot_hold_is_refused(store: Store) -> None:
    half = Store(4, "float16", 3)
    with pytest.raises(HarnessError, match="numbers that float16 has not"):
        half.put(["a"], numbers(1e6))
    assert "a" not in half
    store.put(["a"], numbers(1e6))


def test_a_folder_that_fails_to_open_can_be_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileStore, "_remember", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept:  # which holds on to the frames
        FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    monkeypatch.undo()
    assert kept and len(FileStore.at(tmp_path, ABOUT, 4, "float32", 3)) == 0


FILL = """
import sys, torch
from pathlib import Path
from systems.rico.states import FileStore
store = FileStore.at(Path(sys.argv[1]), {}, 1000, "float32", 50)
print("open", flush=True)
number = len(store)
while True:
    if f"k{number}" not in store:
        store.put([f"k{number}"], torch.full((1, 1000), float(number)))
    number += 1
"""


def started(script: str, *arguments: Any) -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_loses_nothing_that_it_had_written(tmp_path: Path) -> None:
    process = started(FILL, tmp_path / "s")
    assert process.stdout and process.stdout.readline() == "open\n"
    with pytest.raises(HarnessError, match="another process is using the states"):
        FileStore.at(tmp_path / "s", {}, 1000, "float32", 50)
    while (tmp_path / "s" / "keys").stat().st_size < 2000:
        pass
    process.kill()
    process.wait()
    with (tmp_path / "s" / "keys").open("ab") as keys:
        keys.write(b"7 k99")  # what a kill in the middle of a line leaves
    store = FileStore.at(tmp_path / "s", {}, 1000, "float32", 50)
    assert len(store) in (49, 50) and "k99" not in store
    for key in store.slots:
        assert (rows_of(store, [key]) == float(key[1:])).all()
    store.put(["new"], torch.full((1, 1000), -1.0))
    del store
    store = FileStore.at(tmp_path / "s", {}, 1000, "float32", 50)
    assert len(store) == 50 and (rows_of(store, ["new"]) == -1).all()


READ = """
import resource, sys, torch
from pathlib import Path
from systems.rico.states import FileStore
count = int(sys.argv[2])
store = FileStore.at(Path(sys.argv[1]), {}, 2**20, "bfloat16", count)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, total = peak(), 0.0
for _, rows in store.blocks([f"k{n}" for n in range(count)]):
    total += float(rows[:, 0].sum())
print(count * store.bytes / 2**30, total, peak() - before)
"""


def test_memory_stays_small_while_a_large_store_is_read(tmp_path: Path) -> None:
    """3 GiB that are looked at through the map; (empty space, which a map reads like any other)."""
    count = 1536
    store = FileStore.at(tmp_path, {}, 2**20, "bfloat16", count)
    store.put(["k0"], torch.ones(1, 2**20))
    del store
    with (tmp_path / "keys").open("a") as keys:
        keys.writelines(f"{n} k{n}\n" for n in range(1, count))
    process = started(READ, tmp_path, count)
    said, _ = process.communicate()
    gib, total, more = map(float, said.split())
    assert (gib, total) == (3, 1) and more < 500


# --- documents ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mamba2", "open-mamba2"])
def lm(request: Any, tmp_path_factory: Any) -> Iterator[Stepwise]:
    make = {**tiny_models.LANGUAGE, **tiny_models.OPEN}[request.param]
    found = open_lm(make(tmp_path_factory.mktemp(request.param)))
    assert isinstance(found, Stepwise)
    yield found


def test_documents_together_and_in_parts_are_documents_alone(
    lm: Stepwise, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(lm.network, Mamba2)
    layout = Layout(lm.network.config, (0, 1))
    texts = ["the tower of Brno", "Mira", "who built the river past Ostrava? " * 9, "a year."]
    rendered = [lm.prompts.passage(Document("", text, "Title")) for text in texts]
    alone = torch.cat([rows for each in rendered for _, rows in encode(lm, layout, [each], 1)])
    for segment in (2048, 5):
        monkeypatch.setattr(states, "SEGMENT", segment)
        found = torch.zeros_like(alone)
        for places, rows in encode(lm, layout, rendered, 3):
            found[places] = rows
        assert torch.allclose(found, alone, rtol=0, atol=2e-5)
    assert alone.std(0).mean() > 1e-3
    assert lm.prompts.passage(Document("", "", "")).ids == []


def test_about_says_what_the_rows_are(tmp_path: Path) -> None:
    FileStore.at(tmp_path, ABOUT, 4, "float32", 3)
    said = json.loads((tmp_path / "about.json").read_text())
    assert said == {**ABOUT, "size": 4, "dtype": "float32"}
    assert (tmp_path / "states").stat().st_size == 3 * 16

"""Broken files from outside: one sentence with the file, the line and the mend."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness import files
from harness.data import HarnessError

BOM = b"\xef\xbb\xbf"


def made(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("content", [b"one\n\ntwo", b"one\r\n\r\ntwo\r\n", BOM + b"one\n\ntwo\n"])
def test_lines_have_their_numbers_and_no_ends(tmp_path: Path, name: str, content: bytes) -> None:
    path = made(tmp_path / name, content)
    assert list(files.lines(path)) == [(f"{path}:1", "one"), (f"{path}:3", "two")]
    assert files.text(path) == "one\n\ntwo" + ("\n" if content.endswith(b"\n") else "")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl"])
def test_a_byte_order_mark_is_no_content(tmp_path: Path, name: str) -> None:
    content = b'{"a": 1}' if name.endswith("jsonl") else b'[{"a": 1}]'
    path = made(tmp_path / name, BOM + content)
    assert [row for _, row in files.json_rows(path)] == [{"a": 1}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_the_very_line_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / name, b"1\n2\n3\n\xff4\n5\n")
    read = []
    with pytest.raises(HarnessError, match=rf"{name}:4: not UTF-8 text"):
        read.extend(files.lines(path))
    with pytest.raises(HarnessError, match=rf"{name}:4: not UTF-8 text"):
        files.text(path)


def test_a_gzip_file_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    rows = b"".join(b'{"n": %d}\n' % number for number in range(20_000))
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(rows)[:-4])
    read = files.json_rows(path)
    assert next(read) == (f"{path}:1", {"n": 0})
    with pytest.raises(HarnessError, match=r"cut\.jsonl\.gz:\d+: the gzip data is broken or cut"):
        list(read)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": ', r"not valid JSON \(Expecting value at column 7\)"),
        ('{"a": ' + "7" * 5000 + "}", "more than 4,300 digits"),
        ("[" * 200_000, "nested too deep"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"\\uDC00x": 1}', "half a surrogate pair"),
    ],
)
def test_json_that_cannot_be_read_names_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = made(tmp_path / "rows.jsonl", f'{{"a": 1}}\n{content}\n'.encode())
    with pytest.raises(HarnessError, match=rf"rows\.jsonl:2: .*{said}") as error:
        list(files.json_rows(path))
    assert error.value.hint
    with pytest.raises(HarnessError, match=rf"whole\.json: .*{said}"):
        files.json_value(made(tmp_path / "whole.json", content.encode()))


def test_whole_surrogate_pairs_are_characters() -> None:
    assert files.decode("f:1", '"\\ud83d\\ude00 \\\\ud800"') == "😀 \\ud800"


def test_a_mistake_inside_a_whole_file_has_its_line(tmp_path: Path) -> None:
    path = made(tmp_path / "whole.json", b'[\n {"a": 1},\n\n {"a": }\n]')
    with pytest.raises(HarnessError, match=r"Expecting value at line 4 column 8"):
        files.json_value(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n\n", BOM])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(HarnessError, match="is empty"):
        list(files.json_rows(made(tmp_path / name, content)))


def test_what_the_machine_does_not_let_us_read(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for name, said in (
        ("none.jsonl", "does not exist"),
        ("", "is a folder, not a file"),
        ("loop.jsonl", r"cannot be read \(Too many levels"),
    ):
        with pytest.raises(HarnessError, match=said):
            list(files.lines(tmp_path / name))


def test_no_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(HarnessError, match=r"a\.jsonl cannot be read \(Permission denied\)"):
        list(files.lines(tmp_path / "a.jsonl"))


def test_rows_are_a_list_or_the_one_list_of_an_object(tmp_path: Path) -> None:
    for whole in ([{"a": 1}], {"data": [{"a": 1}], "version": 2}):
        path = made(tmp_path / "a.json", json.dumps(whole).encode())
        assert list(files.json_rows(path)) == [(f"{path} row 1", {"a": 1})]
    with pytest.raises(HarnessError, match="expected a list of rows, found dict"):
        list(files.json_rows(made(tmp_path / "a.json", b'{"a": [], "b": []}')))


def test_the_last_column_of_a_table_keeps_its_tabs(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tsv", b"1\ta\tb\n2\tc\n3\n")
    rows = files.table_rows(path, 2)
    assert next(rows) == (f"{path}:1", ["1", "a\tb"])
    assert next(rows) == (f"{path}:2", ["2", "c"])
    with pytest.raises(HarnessError, match=r"a\.tsv:3: 1 tab-separated columns, expected 2"):
        next(rows)

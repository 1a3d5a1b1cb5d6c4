from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import corpus as module
from harness.corpus import Corpus, content_id, find_natives, write_corpus
from harness.data import Document, HarnessError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.lists(st.builds(lambda t, x: Document("", x, t), texts, texts), max_size=12)


def written(folder: Path, docs: list[Document], name: str = "corpus") -> Corpus:
    place = folder / name
    place.mkdir(parents=True)
    write_corpus(docs, place, folder / f"{name}.natives")
    return Corpus(place)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(documents, st.randoms())
def test_order_changes_no_byte(tmp_path_factory: pytest.TempPathFactory, docs, random) -> None:
    folder = tmp_path_factory.mktemp("c")
    shuffled = list(docs)
    random.shuffle(shuffled)
    written(folder, docs, "one")
    written(folder, shuffled, "two")
    for name in ("documents.jsonl", "offsets.npy", "ids.npy"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(documents)
def test_every_document_is_found_by_id_and_position(
    tmp_path_factory: pytest.TempPathFactory, docs
) -> None:
    corpus = written(tmp_path_factory.mktemp("c"), docs)
    assert len(corpus) == len({(d.title, d.text) for d in docs})
    assert corpus.ids == sorted(corpus.ids)
    for document in docs:
        found = corpus[content_id(document.title, document.text)]
        assert (found.title, found.text) == (document.title, document.text)
    assert [corpus[p].id for p in range(len(corpus))] == corpus.ids
    assert "no such id" not in corpus


def test_equal_titles_with_other_texts_stay_two_documents(tmp_path: Path) -> None:
    assert len(written(tmp_path, [Document("", "one", "T"), Document("", "two", "T")])) == 2


def test_copies_with_native_ids_stay_apart_and_can_be_told_apart(tmp_path: Path) -> None:
    copies = [Document(f"d{n}", "same") for n in range(12)]
    corpus = written(tmp_path, copies)
    natives = find_natives(tmp_path / "corpus.natives", corpus, {d.id for d in copies})
    assert len(corpus) == len(set(natives.values())) == 12
    assert all(natives[d.id] in corpus for d in copies)
    assert corpus.ids == sorted(corpus.ids)


def test_the_same_line_twice_is_one_document(tmp_path: Path) -> None:
    assert len(written(tmp_path, [Document("d", "same"), Document("d", "same")])) == 1


def test_one_native_id_with_two_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="'d'"):
        written(tmp_path, [Document("d", "one"), Document("d", "two")])


def test_spilling_to_disk_changes_no_byte(tmp_path: Path, monkeypatch) -> None:
    docs = [
        Document(f"n{i}", f"text {i * 7919 % 101}", sentences=("text ", "x")) for i in range(50)
    ]
    written(tmp_path, docs, "whole")
    monkeypatch.setattr(module, "SPILL", 7)
    written(tmp_path, docs, "spilled")
    for name in ("documents.jsonl", "offsets.npy", "ids.npy"):
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "spilled" / name
        ).read_bytes()


def test_a_corpus_that_is_cut_off_says_so(tmp_path: Path) -> None:
    written(tmp_path, [Document("", "one")])
    (tmp_path / "corpus" / "ids.npy").unlink()
    with pytest.raises(HarnessError, match="not whole"):
        Corpus(tmp_path / "corpus")

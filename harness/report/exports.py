"""Prepared data in the formats of other tools: qrels, a BEIR folder, a FlashRAG folder.

They hold the data's texts and gold, so they are written when asked for and never with a run. What
a format has no place for is told in a note. Sources: trec_eval's README; the pages on datasets of
github.com/beir-cellar/beir and github.com/RUC-NLPIR/FlashRAG, as `tasks.jsonl` reads them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

from harness import registry
from harness.canonical import (
    Named,
    document_names,
    named_questions,
    open_corpus,
    read_about,
    read_gold,
    read_lines,
    sample,
    source_order,
)
from harness.corpus import Corpus
from harness.data import DATA, Document, Gold, HarnessError
from harness.files import GENERATED
from harness.prepare import checked_split, prepared
from harness.report.mteb import result
from harness.report.sheet import MINI
from harness.report.submission import PACKED, matching, only
from harness.run.progress import Advance, Progress, silent
from harness.score.results import read_manifest
from harness.score.scoring import data_of
from harness.spelling import parse_spelled

BATCH = 1_000
"""Documents between two tellings of how far it is."""


@dataclass(frozen=True)
class Exported:
    """A file or folder that was written, and what to know of it, a sentence each."""

    path: Path
    notes: tuple[str, ...]


@dataclass
class Part:
    """Questions of a prepared task, with their gold, under native names.

    generated: whether its task is of the mini world, of which every file keeps the mark
    ids: of the questions, in the order of their source; counts: what to tell, with how often
    """

    folder: Path
    split: str
    generated: bool
    ids: Sequence[str]
    progress: Progress = silent
    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus."""
        return open_corpus(self.folder)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `prepare` noted."""
        return read_about(self.folder)

    @cached_property
    def named(self) -> list[Named]:
        """The questions by their names."""
        every = named_questions(self.folder)
        return [every[query_id] for query_id in self.ids]

    @cached_property
    def texts(self) -> dict[str, str]:
        """Question id → its text."""
        return {row["id"]: row["text"] for row in read_lines(self.folder / "queries.jsonl")}

    @cached_property
    def golds(self) -> dict[str, Gold]:
        """Question id → its gold."""
        return read_gold(self.folder)

    def line(self, row: Mapping[str, Any]) -> bytes:
        """A row as a line, with the mark of generated data."""
        mark = {"metadata": {GENERATED: True}} if self.generated else {}
        return (json.dumps({**row, **mark}, ensure_ascii=False) + "\n").encode()

    def documents(self) -> Iterator[tuple[str, Document]]:
        """Every document with its native id, or its own where it has none."""
        size = len(self.corpus)
        with (self.folder / "natives.txt").open(encoding="utf-8", newline="\n") as natives:
            pairs = zip(self.corpus, natives, strict=True)
            with self.progress(f"{self.about['task']}: documents", size, 0) as advance:
                for document, line in _counted(pairs, advance):
                    yield line.removesuffix("\n") or document.id, document

    def judgements(self, fits: str) -> Iterator[tuple[str, str, int]]:
        """Question, document and grade. fits: a pattern of ids that the file can hold."""
        every = (doc_id for each in self.named for doc_id in self.golds[each.id].relevance)
        judged = list(dict.fromkeys(every))
        names = document_names(self.folder, self.corpus, judged)
        self.counts[NO_TEXT] += int((self.corpus.positions(judged) < 0).sum())
        for each in self.named:
            for doc_id, grade in self.golds[each.id].relevance.items():
                for name in (each.native, names[doc_id]):
                    if re.fullmatch(fits, name) is None:
                        raise HarnessError(
                            f"{name!r} is no id for this file, which is cut at white space.",
                            "Choose another --format, or mend the ids of your data.",
                        )
                yield each.native, names[doc_id], grade


def _counted(items: Iterable[Any], advance: Advance) -> Iterator[Any]:
    stream = iter(items)
    while batch := list(islice(stream, BATCH)):
        yield from batch
        advance(len(batch))


# --- what is exported -----------------------------------------------------------------


def export(
    what: Path | str,
    fmt: str,
    out: Path | str,
    *,
    system: str | None = None,
    task: str | None = None,
    split: str | None = None,
    setting: str | None = None,
    data: Path | str = DATA,
    progress: Progress = silent,
) -> Exported:
    """Write prepared data, or a run's ranking scores, for another tool.

    what: a task as it is spelled, or the folder of a run: then the questions that it asked
    fmt:  one of `FORMATS`, or mteb (of a run alone)
    system, task, split, setting: which pipeline of a run
    data: where prepared data is kept; a run's, if it is not where it was when the run was made
    Raises `HarnessError`; then nothing is written.
    """
    what, out, data = str(what), Path(out), Path(data)
    if fmt not in (*FORMATS, "mteb"):
        every = ", ".join((*FORMATS, "mteb"))
        raise HarnessError(f"there is no format {fmt!r} to export.", f"Formats: {every}.")
    if out.exists():
        raise HarnessError(
            f"{out} exists.", f"Name another one with -o{'' if out.is_dir() else ', or delete it'}."
        )
    wanted = {"system": system, "task": task, "split": split, "setting": setting}
    run = Path(what) if (Path(what) / "manifest.json").is_file() else None
    if fmt == "mteb":
        return _mteb(what, run, wanted, out, data)
    part = _of_run(run, fmt, wanted, data) if run else _of_task(what, wanted, data)
    part.progress = progress
    _placed(out, FORMATS[fmt], part)
    return Exported(out, tuple(_notes(part, fmt)))


def _mteb(
    what: str, run: Path | None, wanted: Mapping[str, str | None], out: Path, home: Path
) -> Exported:
    if run is None:
        raise HarnessError(f"{what} is no run, and mteb's JSON holds its scores.", "Name a run.")
    entries = [entry for entry in read_manifest(run)["pipelines"] if entry["ranks"]]
    if not entries:
        raise HarnessError(f"{run} ranks nothing.", "mteb's JSON holds ranking scores.")
    told, notes = result(run, only(matching(entries, wanted), "mteb"), home)
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    _placed(out, lambda path, _: path.write_text(text, encoding="utf-8"), None)
    return Exported(out, tuple(notes))


def _of_run(run: Path, fmt: str, wanted: Mapping[str, str | None], home: Path) -> Part:
    """The questions that a run asked."""
    entries = matching(read_manifest(run)["pipelines"], wanted)
    asked = {(e["data"], e["split"], e["limit"], e["seed"]): e for e in entries}
    entry = only(list(asked.values()), fmt)
    folder = data_of(entry, "gold.jsonl", home)
    order = source_order(folder)
    drawn = set(sample(order, entry["limit"], entry["seed"]))
    ids = [each for each in order if each in drawn]
    return Part(folder, entry["split"], entry["generated"], ids)


def _of_task(what: str, wanted: Mapping[str, str | None], data: Path) -> Part:
    """All questions of a split."""
    if mistaken := [f"--{name}" for name in ("system", "task", "setting") if wanted[name]]:
        raise HarnessError(f"{' and '.join(mistaken)} choose in a run.", f"{what} is a task.")
    spelled = parse_spelled(what)
    task = registry.task(spelled)
    split = checked_split(task, wanted["split"])
    folder = prepared(spelled, task, split, data)
    return Part(folder, split, task.generated, source_order(folder))


def _placed(out: Path, write: Callable[[Path, Any], object], part: Part | None) -> None:
    """Let a file or folder be written, and give it its name once it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".part-{out.name}")
    try:
        write(half, part)
        half.rename(out)
    finally:
        rmtree(half, ignore_errors=True)
        half.unlink(missing_ok=True)


# --- the formats ----------------------------------------------------------------------

NO_TEXT = "judged documents have no text: read back with missing=keep"
NO_GOLD = "questions have neither judgements nor answers: a reader drops them"
NO_ANSWER = "questions have no answer: a reader drops them"
BROKEN = "titles have a line break, which is a space in the file"


def _qrels(path: Path, part: Part) -> None:
    iteration = GENERATED if part.generated else "0"
    with PACKED.get(path.suffix, open)(path, "wb") as file:
        for query, document, grade in part.judgements(r"\S+"):
            file.write(f"{query} {iteration} {document} {grade}\n".encode())


def _beir(path: Path, part: Part) -> None:
    """As BEIR has it; accepted answers stand beside the text of a query."""
    (path / "qrels").mkdir(parents=True)
    with (path / "corpus.jsonl").open("wb") as file:
        for name, document in part.documents():
            told = {"_id": name, "title": document.title, "text": document.text}
            file.write(part.line(told))
    with (path / "queries.jsonl").open("wb") as file:
        for each in part.named:
            gold = part.golds[each.id]
            part.counts[NO_GOLD] += not (gold.relevance or gold.answers)
            answers = {"answers": gold.answers} if gold.answers else {}
            file.write(part.line({"_id": each.native, "text": part.texts[each.id], **answers}))
    with (path / "qrels" / f"{part.split}.tsv").open("wb") as file:
        file.write(b"query-id\tcorpus-id\tscore\n")
        for judged in part.judgements(r"[^\t\r\n]+"):
            file.write("{}\t{}\t{}\n".format(*judged).encode())


def _flashrag(path: Path, part: Part) -> None:
    if not any(part.golds[each.id].answers for each in part.named):
        raise HarnessError(
            f"{part.about['task']} has no answers, and FlashRAG's questions have nothing else.",
            "Choose --format beir.",
        )
    path.mkdir(parents=True)
    with (path / "corpus.jsonl").open("wb") as file:
        for name, document in part.documents():
            part.counts[BROKEN] += "\n" in document.title
            file.write(part.line({"id": name, "contents": _contents(document)}))
    with (path / f"{part.split}.jsonl").open("wb") as file:
        for each in part.named:
            answers = part.golds[each.id].answers
            part.counts[NO_ANSWER] += not answers
            told = {"id": each.native, "question": part.texts[each.id], "golden_answers": answers}
            file.write(part.line(told))


def _contents(document: Document) -> str:
    """The title in quotes, then the text; a text that could not be taken for a title stands alone
    where there is none."""
    first = document.text.strip()
    if document.title or "\n" in document.text or (first[:1] == first[-1:] == '"'):
        return f'"{document.title.replace(chr(10), " ")}"\n{document.text}'
    return document.text


def _notes(part: Part, fmt: str) -> Iterator[str]:
    """What a format has no place for, whose the texts are, and how the judgements are counted."""
    if part.generated:
        yield MINI
    rel = registry.task(parse_spelled(part.about["task"])).rel
    if fmt != "flashrag" and rel > 1:
        yield f"RR, AP, P and R count grades from {rel} here: elsewhere write RR(rel={rel})@10"
    if fmt != "trec-qrels":
        yield f"the texts are the data's (licence: {part.about['licence']})"
        first = next(iter(read_lines(part.folder / "queries.jsonl")))
        if first.get("pool"):
            yield "there are no pools in this format: read back, the whole corpus is ranked"
        golds = [part.golds[each.id] for each in part.named]
        for what in ("sentences", "triples"):
            if any(getattr(gold, what) for gold in golds):
                yield f"gold {what} have no place in this format"
        if fmt == "flashrag" and any(gold.relevance for gold in golds):
            yield "judgements have no place in this format: read back, rankings have no score"
    yield from (f"{count} {what}" for what, count in part.counts.items() if count)


FORMATS: dict[str, Callable[[Path, Part], None]] = {
    "trec-qrels": _qrels,
    "beir": _beir,
    "flashrag": _flashrag,
}
"""Format → what writes a file or folder of it."""

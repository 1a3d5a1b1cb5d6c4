"""TriviaQA (Joshi et al. 2017): trivia questions with evidence documents that may or may not help.

Nobody judged the passages: one is relevant if a normalised alias of the answer occurs in it as a
sequence of tokens (kind "distant"). Row shapes: the hub's mandarjoshi/trivia_qa; the official
files (nlp.cs.washington.edu/triviaqa), whose documents lie in ``evidence/``; and hub rows with a
further column ``ctxs`` of retrieved passages {title, text, has_answer}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from harness import files
from harness.contract import Task
from harness.data import (
    Answer,
    Candidate,
    Document,
    Gold,
    HarnessError,
    Loaded,
    RawQuestion,
)
from harness.score.answers import score_triviaqa
from harness.score.normalise import triviaqa_normal
from tasks import shapes
from tasks.hub import Hub
from tasks.shapes import field, optional, rows_of, texts

REVISION = "0f7faf33a3908546c6fd5b73a660e0f8ff173c2f"
OFFICIAL = {"rc.wikipedia": ("wikipedia",), "rc.web": ("web",), "rc": ()}
PART = {"validation": "dev", "train": "train"}
BLANK = "evidence documents without text (dropped)"
WORDS = 100
"""Words of a passage cut from an evidence document (Karpukhin et al. 2020, DPR, section 4.1)."""


class TriviaQA(Task):
    """Trivia questions over 100-word passages of their evidence documents; distant judgements."""

    name = "triviaqa"
    ranking_metrics = ("nDCG@10", "R@5", "R@10", "RR@10", "AP")
    splits: tuple[str, ...] = ("validation", "train")
    kind = "distant"
    submissions = ("triviaqa", "trec")
    instruction = "Answer with a name or a few words."
    licence = "questions Apache-2.0; evidence documents: their owners'"
    citation = "Joshi et al. 2017, TriviaQA, ACL"

    def __init__(self, config: Literal["rc.wikipedia", "rc.web", "rc"] = "rc.wikipedia") -> None:
        self.config = config
        self.by_document = config != "rc.wikipedia"

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads (evidence documents aside), for checksums."""
        at_hub = Hub("mandarjoshi/trivia_qa", self.config, REVISION)
        names = [f"{domain}-{PART[split]}.json" for domain in OFFICIAL[self.config]]
        official = [f"{folder}{name}" for name in names for folder in ("", "qa/")]
        return shapes.split_files(source, split, at_hub, official)

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions of a split; see `Task.load`."""
        rows = chain.from_iterable(map(_rows, self.files(source, split)))
        return shapes.pooled(rows, self.question, limit)

    def question(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion:
        """One hub row; see `_rows` for official ones."""
        answers = _answers(field(row, "answer", dict, place), place)
        candidates = self.candidates(row, place, _normals(answers), notes)
        if not candidates:
            notes["questions without a passage (kept for answers)"] += 1
        return RawQuestion(
            shapes.identifier(row, place, "question_id"),
            field(row, "question", str, place),
            candidates,
            answers=answers,
            where=place,
        )

    def candidates(
        self, row: Any, place: str, normals: Sequence[str], notes: Counter[str]
    ) -> tuple[Candidate, ...]:
        """The row's retrieved passages if it has any, else its documents cut into passages."""
        if optional(row, "ctxs", object, None, place):
            return tuple(
                Candidate(
                    Document("", field(passage, "text", str, place), _title(passage, place)),
                    int(field(passage, "has_answer", bool, place)),
                )
                for passage in rows_of(row, "ctxs", ("title", "text", "has_answer"), place)
            )
        return tuple(
            _graded(replace(each, text=" ".join(words[start : start + WORDS])), name, normals)
            for each, name in _evidence(row, place, notes)
            for words in [each.text.split()]
            for start in range(0, len(words), WORDS)
        )

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """As triviaqa_evaluation.py; see `score_triviaqa`."""
        return score_triviaqa(answer, support, gold)

    examples = shapes.train_examples


class TriviaQALong(TriviaQA):
    """Trivia questions over whole evidence documents, thousands of words each."""

    name = "triviaqa-long"

    def candidates(
        self, row: Any, place: str, normals: Sequence[str], notes: Counter[str]
    ) -> tuple[Candidate, ...]:
        """The row's evidence documents, whole."""
        return tuple(_graded(*each, normals) for each in _evidence(row, place, notes))


def _title(passage: Any, place: str) -> str:
    return optional(passage, "title", str, "", place)


def _answers(answer: Any, place: str) -> tuple[str, ...]:
    """What the official script accepts: normalised aliases and people's answers.

    The value stands first, in its own spelling, if it is one of them once normalised.
    """
    value = optional(answer, "value", str, "", place)
    humans = texts(answer, "human_answers", place)
    accepted = texts(answer, "normalized_aliases", place) + humans
    if accepted and triviaqa_normal(value) not in map(triviaqa_normal, accepted):
        return tuple(dict.fromkeys(accepted))
    return tuple(dict.fromkeys((*([value] if value else []), *accepted)))


def _normals(answers: Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, dict.fromkeys(map(triviaqa_normal, answers))))


def _graded(document: Document, name: str, normals: Sequence[str]) -> Candidate:
    normal = f" {triviaqa_normal(document.text)} "
    return Candidate(document, int(any(f" {each} " in normal for each in normals)), name)


def _evidence(row: Any, place: str, notes: Counter[str]) -> Iterator[tuple[Document, str]]:
    """The evidence documents and their file names: Wikipedia pages, then search results."""
    for column, key in (("entity_pages", "wiki_context"), ("search_results", "search_context")):
        if optional(row, column, object, None, place) is None:
            continue
        for entry in rows_of(row, column, ("title", key), place, ("filename",)):
            if (text := field(entry, key, str, place)).strip():
                name = shapes.reference(entry, "filename", place)
                yield Document("", text, _title(entry, place)), name
            else:
                notes[BLANK] += 1


# --- the official files ---------------------------------------------------------------


def _rows(path: Path) -> files.Numbered:
    """Hub rows of a file; rows of an official file are brought into that shape."""
    for place, row in shapes.read_rows(path):
        official = isinstance(row, dict) and "QuestionId" in row
        yield place, _hub_row(row, place, path.parent) if official else row


def _hub_row(row: Any, place: str, folder: Path) -> dict[str, Any]:
    answer = field(row, "Answer", dict, place)
    return {
        "question_id": field(row, "QuestionId", str, place),
        "question": field(row, "Question", str, place),
        "answer": {
            "value": optional(answer, "Value", str, "", place),
            "normalized_aliases": list(texts(answer, "NormalizedAliases", place)),
            "human_answers": list(texts(answer, "HumanAnswers", place)),
        },
        "entity_pages": _documents(row, "EntityPages", folder, "wikipedia", place),
        "search_results": _documents(row, "SearchResults", folder, "web", place),
    }


def _documents(
    row: Any, column: str, folder: Path, domain: str, place: str
) -> list[dict[str, str]]:
    text = "wiki_context" if domain == "wikipedia" else "search_context"
    return [
        {
            "title": optional(entry, "Title", str, "", place),
            "filename": (name := field(entry, "Filename", str, place)),
            text: _evidence_file(folder, domain, name, place),
        }
        for entry in optional(row, column, list, [], place)
    ]


def _evidence_file(folder: Path, domain: str, name: str, place: str) -> str:
    """The text of a document; ``evidence/`` lies beside the file or, officially, beside ``qa/``."""
    for place_of_evidence in (folder, folder.parent):
        path = place_of_evidence / "evidence" / domain / name
        if path.is_file():
            return files.text(path)
    raise HarnessError(
        f"{place}: its document evidence/{domain}/{name} is not beside {folder.name}.",
        "Unpack the official archive as it is.",
    )

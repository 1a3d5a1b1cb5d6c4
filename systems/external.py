"""Results computed elsewhere as a stage: a TREC run file, or a file of predictions.

Their files carry native ids; the runner translates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.data import HarnessError, Reply
from harness.run.readers import predictions, trec


class Trec:
    """A TREC run: ``qid Q0 docid rank score tag``; the score decides, the rank is ignored."""

    ranks = True

    def __init__(self, file: Path) -> None:
        self.path = file

    def files(self) -> Sequence[Path]:
        return [existing(self.path)]

    def external(self) -> dict[str, Reply]:
        return trec(self.path)


class Predictions:
    """Answers by native question id: one JSON object ``{id: answer}`` (also under ``"answer"``),
    or rows ``{"id": …, "answer": …}``. It carries texts alone; what else a file says
    `python -m harness import` reads."""

    answers = True

    def __init__(self, file: Path, answers_only: bool = False) -> None:
        self.path, self.answers_only = file, answers_only

    def files(self) -> Sequence[Path]:
        return [existing(self.path)]

    def external(self) -> dict[str, Reply]:
        found = predictions(self.path, self.answers_only)
        for query_id, reply in found.items():
            answer = reply.answer
            if answer is None or reply.hits or (answer.evidence, answer.answerable) != (None, None):
                raise HarnessError(
                    f"{self.path}: {query_id} has more than an answer, which this stage does not "
                    "carry.",
                    f"Write predictions:file={self.path},answers_only=true to score answers alone, "
                    "or `python -m harness import` to score all of it.",
                )
        return found


class Imported:
    """Rows that `python -m harness import` made of a file, under a name of yours. They stand in
    tables and cannot be run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def files(self) -> Sequence[Path]:
        raise HarnessError(
            f"imported:{self.name} was read from a file and cannot be run.",
            f"`python -m harness import FILE --name {self.name}` reads one.",
        )

    def external(self) -> dict[str, Reply]:
        self.files()
        return {}


def existing(path: Path) -> Path:
    """The path; `HarnessError` if nothing is there."""
    if not path.exists():
        raise HarnessError(f"{path} does not exist.", "Check the path.")
    return path

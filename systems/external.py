"""Results computed elsewhere as a stage: a TREC run file, or a file of predictions.

Their files carry native ids; the runner translates them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data import Answer, HarnessError, Hit, Reply
from harness.files import json_rows, json_value, trec_run

TEXT = ("answer", "prediction", "predicted_answer", "pred")
"""Names under which a row of predictions may carry its text."""
MORE = ("sp", "evidence", "predicted_support_idxs", "predicted_answerable")
"""What official files may hold beside answers."""


class Trec:
    """A TREC run: ``qid Q0 docid rank score tag``; the score decides, the rank is ignored."""

    ranks = True

    def __init__(self, file: Path) -> None:
        self.path = file

    def files(self) -> Sequence[Path]:
        return [existing(self.path)]

    def external(self) -> dict[str, Reply]:
        return {
            query_id: Reply(hits=tuple(Hit(*each) for each in scores.items()))
            for query_id, scores in trec_run(self.path).items()
        }


class Predictions:
    """Answers by native question id: one JSON object ``{id: answer}`` (also under ``"answer"``),
    or rows ``{"id": …, "answer": …}``."""

    answers = True

    def __init__(self, file: Path, answers_only: bool = False) -> None:
        self.path, self.answers_only = file, answers_only

    def files(self) -> Sequence[Path]:
        return [existing(self.path)]

    def external(self) -> dict[str, Reply]:
        found: dict[str, Reply] = {}
        for place, query_id, text in self._pairs():
            if not isinstance(text, str):
                raise HarnessError(
                    f"{place}: the answer of {query_id} is {type(text).__name__}, not text.",
                    "Write a JSON string.",
                )
            if query_id in found:
                raise HarnessError(f"{place}: {query_id} is answered twice.", "Remove one.")
            found[query_id] = Reply(Answer(text))
        return found

    def _pairs(self) -> Iterator[tuple[str, str, object]]:
        if not self.path.name.removesuffix(".gz").endswith(".jsonl"):
            whole = json_value(self.path)
            answers = whole.get("answer", whole) if isinstance(whole, dict) else None
            self._refuse_more(str(self.path), whole)
            if isinstance(answers, dict):
                yield from ((str(self.path), str(key), text) for key, text in answers.items())
                return
        for place, row in json_rows(self.path):
            name = next((n for n in TEXT if isinstance(row, dict) and n in row), None)
            query_id = row.get("id", row.get("_id")) if isinstance(row, dict) else None
            if name is None or query_id is None:
                raise HarnessError(
                    f"{place}: a row needs 'id' and one of {', '.join(TEXT)}.", "Add them."
                )
            self._refuse_more(place, row)
            yield place, str(query_id), row[name]

    def _refuse_more(self, place: str, value: object) -> None:
        """A stage carries answers; what else the file says must not get lost unnoticed."""
        more = [name for name in MORE if isinstance(value, dict) and name in value]
        if more and not self.answers_only:
            raise HarnessError(
                f"{place} also holds {' and '.join(more)}, which this stage does not carry.",
                f"Write predictions:file={self.path},answers_only=true to score answers alone.",
            )


def existing(path: Path) -> Path:
    """The path; `HarnessError` if nothing is there."""
    if not path.exists():
        raise HarnessError(f"{path} does not exist.", "Check the path.")
    return path

"""A judge that asks nobody: claims and labels that people gave, or RAGChecker, in a file.

    .jsonl  a question a line: {"id", "response_claims", "answer_claims", "answer2response",
            "response2answer", "retrieved2response", "retrieved2answer"}; the tables of passages may
            be left out where none were read
    .json   what RAGChecker 0.1.9 wrote: {"results": [{"query_id", "gt_answer_claims", …}]}

A claim is three texts; tables are as in `harness.score.claims`, claims first: a row a claim, in it
a label a passage. A label is true or false, or one of RAGChecker's `WORDS`, of which only
Entailment is true. Ids are the task's own. Where a row has the ``response`` that was labelled, it
has to be the run's. An empty answer claims and entails nothing, whatever is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from harness.contract import Task
from harness.data import HarnessError, Triple, raise_together
from harness.files import Numbered, has_rows, json_rows, json_value, reading
from harness.score.claims import Tables
from harness.score.judging import Case, Judged

WORDS = {"Entailment": True, "Neutral": False, "Contradiction": False}
OURS = {"query_id": "id", "gt_answer_claims": "answer_claims"}
"""How we call what RAGChecker calls otherwise."""
TOLD = 5
"""Mistakes, or ids, that are told one by one."""


class Labels:
    """Labels of the answers of one pipeline, by people or by another program.

    file: of the one or the other form (docs/claims.md)
    """

    prompt = ""
    replies = unread = 0

    def __init__(self, file: Path) -> None:
        self.file = file
        self._judged: dict[str, Judged] | None = None

    @property
    def name(self) -> str:
        """What tables call it: its file's name, without the folder, and a hash of what is in it."""
        with reading(self.file):
            content = self.file.read_bytes()
        return f"labels:{self.file.name}#{blake2b(content, digest_size=4).hexdigest()}"

    def open(self, task: Task, split: str, folder: Path) -> None:  # noqa: ARG002
        """Refuse a second pipeline: labels are of the answers of one."""
        if self._judged is not None:
            raise HarnessError(
                f"{self.file} has the labels of one pipeline, and the run has several.",
                "Choose one by --task and --system.",
            )

    def expect(self, cases: Sequence[Case]) -> None:
        """Read the labels of these cases; `HarnessError` with what is wrong with the file."""
        rows, mistakes = self._rows({case.id for case in cases})
        found = {}
        for case in cases:
            try:
                found[case.id] = labelled(*rows[case.id], case) if case.id in rows else NOTHING
            except HarnessError as error:
                mistakes.append(error)
        lacking = [c.id for c in cases if c.id not in rows and (c.response or c.passages)]
        if lacking:
            mistakes.append(
                HarnessError(f"{self.file} has no row for {_some(lacking)}.", "Label them, too.")
            )
        if more := len(mistakes[TOLD:]):
            mistakes[TOLD:] = [HarnessError(f"{self.file} has {more} more such mistakes.")]
        raise_together(mistakes)
        self._judged = found

    def judged(self, case: Case) -> Judged:
        """What the file says of a case."""
        assert self._judged is not None  # `expect` was called
        return self._judged[case.id]

    def _rows(self, wanted: set[str]) -> tuple[dict[str, tuple[str, Any]], list[HarnessError]]:
        """(place, row) by id, and what is wrong with the ids."""
        found: dict[str, tuple[str, Any]] = {}
        mistakes = []
        for place, row in self._lines():
            row = {OURS.get(k, k): value for k, value in row.items()} if type(row) is dict else {}
            name = row.get("id")
            if not isinstance(name, str | int):
                hint = "Write the question's id of the benchmark."
                raise HarnessError(f"{place} has no id.", hint)
            if str(name) in found:
                mistakes.append(HarnessError(f"{place}: {name} stands twice.", "Remove one."))
            found[str(name)] = place, row
        if other := [name for name in found if name not in wanted]:
            hint = "Check that the file belongs to this run; `show` says a question's id."
            said = f"{self.file} has rows of what the pipeline was not asked: {_some(other)}."
            mistakes.insert(0, HarnessError(said, hint))
        return found, mistakes

    def _lines(self) -> Numbered:
        if has_rows(self.file):
            return json_rows(self.file)
        whole = json_value(self.file)
        listed = whole.get("results") if isinstance(whole, dict) else whole
        if not isinstance(listed, list):
            raise HarnessError(
                f"{self.file} has no list of labelled questions.",
                'Give what RAGChecker wrote, {"results": [{"query_id": …}, …]}, or a .jsonl file '
                "with a question a line.",
            )
        return ((f"{self.file} row {number}", row) for number, row in enumerate(listed, 1))


NOTHING = Judged([], [], Tables([], []))
"""Of a question that failed, which scores 0 in everything."""


def labelled(place: str, row: dict[str, Any], case: Case) -> Judged:
    """A row as what was judged of a case; `HarnessError` where it does not fit."""
    if row.get("response", case.response) != case.response:
        raise HarnessError(
            f"{place}: the labels are of another answer to {case.id} than the run's.",
            "Label the answers of this run: `claims RUN --export FILE` writes them.",
        )
    right = _claims(place, row, "answer_claims")
    if not case.response:
        row = {**row, "response_claims": [], "answer2response": [], "retrieved2response": []}
        row["response2answer"] = [False] * len(right)
    said = _claims(place, row, "response_claims")

    def table(name: str, claims: Sequence[Triple]) -> list[list[bool]]:
        rows = row.get(name)
        if not rows and not (claims and case.passages):
            rows = [[] for _ in claims]
        found = _listed(place, rows, name, len(claims), "claims")
        return [_labels(place, each, name, len(case.passages), "passages") for each in found]

    tables = Tables(
        _labels(place, row.get("answer2response"), "answer2response", len(said), "claims"),
        _labels(place, row.get("response2answer"), "response2answer", len(right), "claims"),
        table("retrieved2response", said),
        table("retrieved2answer", right),
    )
    return Judged(said, right, tables)


def _claims(place: str, row: dict[str, Any], name: str) -> list[Triple]:
    found: list[Triple] = []
    for claim in _listed(place, row.get(name), name):
        if not (isinstance(claim, list) and list(map(type, claim)) == [str] * 3):
            raise HarnessError(
                f"{place}: a claim in {name} is not three texts.",
                'Write it as ["subject", "relation", "object"].',
            )
        found.append((claim[0], claim[1], claim[2]))
    return found


def _labels(place: str, value: Any, name: str, count: int, of: str) -> list[bool]:
    """So many labels as booleans."""
    found = []
    for label in _listed(place, value, name, count, of):
        if isinstance(label, str) and label in WORDS:
            found.append(WORDS[label])
        elif isinstance(label, bool):
            found.append(label)
        else:
            raise HarnessError(
                f"{place}: {str(label)[:40]!r} in {name} is no label.",
                f"Write true or false, or {', '.join(WORDS)}.",
            )
    return found


def _listed(place: str, value: Any, name: str, count: int | None = None, of: str = "") -> list[Any]:
    """A list, of so many members if that is said."""
    if value is None:
        raise HarnessError(
            f"{place} has no {name}.", "Label the file first, or have RAGChecker check it."
        )
    if not isinstance(value, list) or (count is not None and len(value) != count):
        what = f"has {len(value)} members" if isinstance(value, list) else "is no list"
        wanted = f" for {count} {of}" if count is not None else ""
        raise HarnessError(
            f"{place}: {name} {what}{wanted}.", "Give each claim a row, each passage a label."
        )
    return value


def _some(names: Sequence[str]) -> str:
    more = len(names) - TOLD
    return ", ".join(names[:TOLD]) + (f" and {more} more" if more > 0 else "")

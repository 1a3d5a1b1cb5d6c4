"""2WikiMultihopQA (Ho et al. 2020): HotpotQA's shape, plus evidence triples with Wikidata ids.

Row shape: github.com/Alab-NII/2wikimultihop. Accepted forms of answers and triples come from
id_aliases.json (JSON lines Q_id, aliases, demonyms) beside the split's file, as in evaluation
v1.1; without that file they have one form each, and the notes say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import files
from harness.contract import Task
from harness.data import (
    Answer,
    Gold,
    GoldTriple,
    HarnessError,
    Loaded,
    RawQuestion,
)
from harness.score.answers import score_2wikimultihopqa
from tasks import shapes
from tasks.hotpotqa import PARAGRAPHS, HotpotQA
from tasks.hub import Hub
from tasks.shapes import field

HUB = Hub("framolfese/2WikiMultihopQA", "", "fe713bfbd1afbca1a65246741a75890405d56a3a")
OFFICIAL = {"validation": ("dev.json",), "train": ()}
ALIASES = ("id_aliases.json", "id_aliases.jsonl")
NO_ALIASES = "no id_aliases.json: answers and triples without aliases"
NO_IDS = "rows without evidences_id and answer_id: no aliases"

Aliases = Mapping[str, tuple[str, ...]]


class TwoWiki(Task):
    """Two- to four-hop questions over ten paragraphs, supporting sentences and triples known."""

    name = "2wikimultihopqa"
    answer_metrics = (*HotpotQA.answer_metrics, "Evi-F1")
    ranking_metrics = HotpotQA.ranking_metrics
    splits: tuple[str, ...] = HotpotQA.splits
    group_by = "documents"
    submissions = ("2wikimultihopqa", "trec")
    instruction = HotpotQA.instruction
    licence = "Apache-2.0"
    citation = "Ho et al. 2020, 2WikiMultiHopQA, COLING; evaluation v1.1"

    def files(self, source: Path | None, split: str) -> list[Path]:
        """What `load` reads, for checksums."""
        found = shapes.split_files(source, split, HUB, OFFICIAL.get(split, ()))
        return found + _aliases_beside(found)

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Questions of a split; see `Task.load`."""
        found = shapes.split_files(source, split, HUB, OFFICIAL.get(split, ()))
        beside = _aliases_beside(found)
        aliases = read_aliases(beside[0]) if beside else None
        parse = partial(self.question, aliases=aliases, whole=split == PARAGRAPHS)
        loaded = shapes.pooled(shapes.rows(found), parse, limit)
        if aliases is None:
            loaded.notes[NO_ALIASES] = 1
        return loaded

    def question(
        self,
        row: Any,
        place: str,
        notes: Counter[str],
        aliases: Aliases | None = None,
        whole: bool = False,
    ) -> RawQuestion:
        """One row; sentences are joined with spaces."""
        known = aliases or {}
        candidates, sentences = shapes.supported(row, place, notes, " ", whole)
        if aliases is not None and "evidences_id" not in row:
            notes[NO_IDS] += 1
        answer_id = shapes.optional(row, "answer_id", str, "", place)
        return RawQuestion(
            shapes.identifier(row, place),
            field(row, "question", str, place),
            candidates,
            answers=_forms(field(row, "answer", str, place), answer_id, known),
            sentences=sentences,
            triples=_triples(row, place, known),
            where=place,
            labels=shapes.labels(row, place, question_type="type"),
        )

    def score(
        self, answer: Answer, support: Sequence[tuple[str, int]] | None, gold: Gold
    ) -> dict[str, float]:
        """As 2wikimultihop_evaluate_v1.1.py; see `score_2wikimultihopqa`."""
        return score_2wikimultihopqa(answer, support, gold)

    examples = shapes.train_examples


def _aliases_beside(paths: Sequence[Path]) -> list[Path]:
    return shapes.existing(paths[0].parent, ALIASES)[:1]


def read_aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Q-id → aliases, then demonyms; a later line replaces an earlier one, as officially."""
    table = {}
    for place, line in files.lines(path):
        row = files.decode(place, line)
        forms = shapes.texts(row, "aliases", place) + shapes.texts(row, "demonyms", place)
        table[field(row, "Q_id", str, place)] = forms
    return table


def _forms(text: str, identifier: str, aliases: Aliases) -> tuple[str, ...]:
    return tuple(dict.fromkeys((text, *aliases.get(identifier, ()))))


def _triples(row: Any, place: str, aliases: Aliases) -> tuple[GoldTriple, ...] | None:
    """Evidences with every accepted subject and object; None if the row has no such column."""
    if shapes.optional(row, "evidences", object, None, place) is None:
        return None
    triples = [_three(each, place) for each in field(row, "evidences", list, place)]
    ids = [_three(each, place) for each in shapes.optional(row, "evidences_id", list, [], place)]
    if ids and [each[1] for each in ids] != [each[1] for each in triples]:
        raise HarnessError(
            f"{place}: 'evidences_id' does not fit 'evidences'.", "Fetch the file again."
        )
    return tuple(
        (_forms(subject, subject_id, aliases), relation, _forms(object_, object_id, aliases))
        for (subject, relation, object_), (subject_id, _, object_id) in zip(
            triples, ids or [("", "", "")] * len(triples), strict=True
        )
    )


def _three(entry: Any, place: str) -> tuple[str, str, str]:
    """A triple, written as a list or as an object whose values stand in that order."""
    values = list(entry.values()) if isinstance(entry, Mapping) else entry
    if not isinstance(values, list) or len(values) != 3:
        raise HarnessError(f"{place}: an evidence is not a triple.", "Fetch the file again.")
    subject, relation, object_ = (shapes.typed(v, str, f"{place}: an evidence") for v in values)
    return subject, relation, object_

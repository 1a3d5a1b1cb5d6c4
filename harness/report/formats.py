"""The files that leaderboards take, and how each is written from a run's rows.

A writer sees rows, prepared questions and native names, no gold; what its file cannot say, or a
system did not, it tells in a note. Whether the official script takes the file is checked once it is
written (`harness.score.validity`). Sources: the repositories named in `harness.score.official`;
docs/submissions.md has the rules in words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from harness.canonical import Named, document_names
from harness.corpus import Corpus
from harness.data import UNANSWERABLE, Answer, HarnessError
from harness.score import checks, golds, official
from harness.score.golds import Known
from harness.score.msmarco import NO_ANSWER, SLOTS
from harness.score.normalise import wiki2_evidence_normal
from harness.score.scoring import Given, support_of

V = TypeVar("V")


@dataclass
class Export:
    """What a writer is given.

    system:  the pipeline as it is spelled
    known:   all questions of the prepared task, asked or not
    answers: of those that went well, by question id; empty where none are needed
    ranked:  document ids of those that went well, best first; empty where none are needed
    gives:   what the pipeline gives at all
    folder:  the prepared task
    gold:    the benchmark's own gold file, whose rows or keys are to be followed
    notes:   what to tell the user; counts: the same, with how often. The writer adds to both
    """

    system: str
    known: Known
    answers: Mapping[str, Answer]
    ranked: Mapping[str, Sequence[str]]
    gives: Given
    folder: Path
    corpus: Corpus
    gold: Any = None
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def named(self) -> list[Named]:
        """The questions by their names, in the order of the prepared task."""
        return [named for named, _ in self.known.questions]

    def answered(self) -> Iterable[tuple[Named, Answer]]:
        """The questions with an answer, and that."""
        return ((each, self.answers[each.id]) for each in self.named if each.id in self.answers)


# --- HotpotQA and 2WikiMultihopQA -----------------------------------------------------

NO_SUPPORT = "no supporting facts: sp is {} and the scorer gives 0 for it and for joint"
NO_TRIPLES = "no evidence triples: evidence is {} and the scorer gives 0 for it and for joint"
ALIKE = "supporting facts left out that differ from another in the case of their title alone"
REPEATED = "evidence triples left out that are another one once normalised"


def _once(values: Iterable[V], key: Callable[[V], Any]) -> list[V]:
    """The first of all values that are the same by ``key``."""
    found: dict[Any, V] = {}
    for each in values:
        found.setdefault(key(each), each)
    return list(found.values())


def _texts(export: Export) -> dict[str, str]:
    return {named.native: str(answer.text) for named, answer in export.answered()}


def _hotpotqa(export: Export) -> dict[str, Any]:
    support = {}
    if export.gives.evidence:
        for named, answer in export.answered():
            facts = support_of(answer, export.corpus.__getitem__) or ()
            support[named.native] = list(dict.fromkeys(facts))
    else:
        export.notes.append(NO_SUPPORT)
    return {"answer": _texts(export), "sp": support}


def _wiki2(export: Export) -> dict[str, Any]:
    """As HotpotQA's; what the script's bugs would count twice stands once."""
    made = _hotpotqa(export)
    for native, facts in made["sp"].items():
        made["sp"][native] = _once(facts, lambda fact: (fact[0].lower(), fact[1]))
        export.counts[ALIKE] += len(facts) - len(made["sp"][native])
    evidence = {}
    if export.gives.triples:
        for named, answer in export.answered():
            triples = [tuple(map(str, each)) for each in answer.triples or ()]
            evidence[named.native] = _once(triples, lambda t: tuple(map(wiki2_evidence_normal, t)))
            export.counts[REPEATED] += len(triples) - len(evidence[named.native])
    else:
        export.notes.append(NO_TRIPLES)
    return {**made, "evidence": evidence}


# --- MuSiQue --------------------------------------------------------------------------

NO_PARAGRAPHS = "no supporting paragraphs: predicted_support_idxs is [] and scores 0"
NO_FLAG = "answers do not say whether the question can be answered: true unless they are empty"
OUTSIDE = "pointers to passages that are no paragraph of their question left out"
TWICE = "named paragraphs stand twice in their question: the first number is written"
TWINS = "unanswerable questions left out: not every question has its twin, so this is MuSiQue-Ans"
UNKNOWN = "rows of the gold file are not in the run's data: they stay empty"


def _musique(export: Export) -> list[dict[str, Any]]:
    if not export.gives.evidence:
        export.notes.append(NO_PARAGRAPHS)
    by_native = {named.native: named for named in export.named}
    if export.gold is not None:
        order = [_native(row) for row in export.gold]
    else:
        order = golds.scored_rows(by_native)
        export.counts[TWINS] += len(by_native) - len(order)
    made = [_prediction(export, native, by_native.get(native)) for native in order]
    if not any(native.endswith(UNANSWERABLE) for native in order):
        del export.counts[NO_FLAG]  # MuSiQue-Ans does not look at it
    return made


def _native(row: Any) -> str:
    """The native id of a row of a gold file."""
    native = str(checks.field(row, "id", "A row of the gold file"))
    return native + ("" if row.get("answerable", True) else UNANSWERABLE)


def _prediction(export: Export, native: str, named: Named | None) -> dict[str, Any]:
    answer = export.answers.get(named.id) if named else None
    text = str(answer.text) if answer else ""
    said = answer.answerable if answer else None
    export.counts[UNKNOWN] += named is None
    export.counts[NO_FLAG] += answer is not None and said is None
    return {
        "id": native.removesuffix(UNANSWERABLE),
        "predicted_answer": text,
        "predicted_support_idxs": _numbers(export, named, answer) if named and answer else [],
        "predicted_answerable": bool(text) if said is None else said,
    }


def _numbers(export: Export, named: Named, answer: Answer) -> list[int]:
    """The numbers of the paragraphs that an answer points at."""
    numbers, times = golds.numbers(named), Counter(doc_id for _, doc_id in named.passages)
    pointed = dict.fromkeys(each.doc_id for each in answer.evidence or ())
    export.counts[OUTSIDE] += sum(doc_id not in numbers for doc_id in pointed)
    export.counts[TWICE] += sum(times[doc_id] > 1 for doc_id in pointed)
    return [numbers[doc_id] for doc_id in pointed if doc_id in numbers]


# --- TriviaQA -------------------------------------------------------------------------

TEXTLESS = "documents without text are not in the data and have no key; --gold FILE gives them one"


def _triviaqa(export: Export) -> dict[str, str]:
    texts = _texts(export)
    if export.gold is not None:
        wanted = official.triviaqa_keys(export.gold)
        asked = {key: key if key in texts else key.partition("--")[0] for key in wanted}
        return {key: texts[native] for key, native in asked.items() if native in texts}
    if export.known.by_document:
        export.notes.append(TEXTLESS)
    return {
        key: texts[named.native]
        for named, _ in export.answered()
        for key in golds.keys(named, export.known.by_document)
    }


# --- MS MARCO and TREC ----------------------------------------------------------------

SHORT = f"questions have fewer than {SLOTS} passages: the archive's check warns, MRR@10 is the same"
DOUBTED = "answers are left out whose question is said to have none, though they have text"
OWN_IDS = "documents have no native id and stand under the harness's own"


def _msmarco_qa(export: Export) -> list[dict[str, Any]]:
    made = []
    for named in export.named:
        answer = export.answers.get(named.id)
        text = str(answer.text) if answer else ""
        if text.strip() and answer and answer.answerable is False:
            export.counts[DOUBTED] += 1
            text = ""
        query = golds.number(named.native)
        made.append({"query_id": query, "answers": [text if text.strip() else NO_ANSWER]})
    return made


def _ranked(export: Export, fits: str, form: str) -> Iterator[tuple[str, list[str]]]:
    """Native question id and native document ids, best first, of each question that was ranked.

    fits: a pattern of ids that the file can hold; form: the same in words
    """
    every = (doc_id for ranked in export.ranked.values() for doc_id in ranked)
    names = document_names(export.folder, export.corpus, every)
    ranked = {
        each.native: export.ranked[each.id] for each in export.named if each.id in export.ranked
    }
    for name in (*names.values(), *ranked):
        if re.fullmatch(fits, name) is None:
            raise HarnessError(f"{name!r} is no id for this file: {form}.", "Choose --format trec.")
    export.counts[OWN_IDS] += sum(doc_id == name for doc_id, name in names.items())
    for query, doc_ids in ranked.items():
        yield query, [names[doc_id] for doc_id in doc_ids]


def _passages(export: Export) -> Iterator[str]:
    for query, ranked in _ranked(export, r"\d+", "MS MARCO's are whole numbers"):
        export.counts[SHORT] += len(ranked) < SLOTS
        yield from (f"{query}\t{passage}\t{rank}" for rank, passage in enumerate(ranked, 1))


def _trec(export: Export) -> Iterator[str]:
    """Scores are made from ranks, so that they fall strictly and no tie is broken elsewhere."""
    tag = re.sub(r"\s+", "_", export.system)
    for query, ranked in _ranked(export, r"\S+", "a TREC run is cut at its spaces"):
        for rank, document in enumerate(ranked, 1):
            yield f"{query} Q0 {document} {rank} {len(ranked) - rank + 1} {tag}"


# --- the table ------------------------------------------------------------------------


class Format(NamedTuple):
    """A leaderboard's file: what a pipeline must give for it, and what makes its content of an
    `Export`: an object, or a row or a line each."""

    needs: Literal["answers", "ranking"]
    write: Callable[[Export], Any]


FORMATS: dict[str, Format] = {
    "hotpotqa": Format("answers", _hotpotqa),
    "musique": Format("answers", _musique),
    "2wikimultihopqa": Format("answers", _wiki2),
    "triviaqa": Format("answers", _triviaqa),
    "msmarco-passage": Format("ranking", _passages),
    "msmarco-qa": Format("answers", _msmarco_qa),
    "trec": Format("ranking", _trec),
}


def encoded(content: Any) -> Iterator[bytes]:
    """A writer's content as the bytes of a file: ASCII, so that no reader takes it for another
    encoding; an object as JSON, rows as JSON lines, lines as they are."""
    if isinstance(content, Mapping):
        yield (json.dumps(content, indent=1) + "\n").encode()
        return
    for each in content:
        yield ((each if isinstance(each, str) else json.dumps(each)) + "\n").encode()

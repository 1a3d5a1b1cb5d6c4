"""The gold of a prepared task in the shape of each benchmark's own gold file.

So the official scorers (`harness.score.official`) score a prediction file against a prepared task
as they do against a file: every format here gives what its scorer takes behind the prediction.
Gold that says nothing (`BLANK`) makes them check a prediction without knowing what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.canonical import (
    Named,
    document_names,
    named_questions,
    open_corpus,
    read_gold,
    source_order,
)
from harness.contract import Task
from harness.data import UNANSWERABLE, Gold, HarnessError
from harness.score.msmarco import NO_ANSWER

BLANK = Gold({"0": 1}, ("",), (), ())
"""Gold of a question of which nothing is known but that it is asked."""


@dataclass(frozen=True)
class Known:
    """Questions under their native names, with their gold.

    questions:   in the order of their source, where the format asks for it
    documents:   document id → native id, where the format names documents of a corpus
    by_document: see `harness.contract.Task`
    rel:         the lowest grade that makes a passage right where the format has no grades
    """

    questions: tuple[tuple[Named, Gold], ...]
    documents: Mapping[str, str]
    by_document: bool = False
    rel: int = 1


def known(fmt: str, task: Task, folder: Path, blank: bool = False) -> Known:
    """A prepared task as a format needs it; ``blank``: without a look at its gold."""
    named = named_questions(folder)
    order = source_order(folder) if fmt == "musique" else named
    golds = dict.fromkeys(named, BLANK) if blank else read_gold(folder)
    documents: dict[str, str] = {}
    if fmt in CORPUS and not blank:
        judged = (doc_id for gold in golds.values() for doc_id in gold.relevance)
        documents = document_names(folder, open_corpus(folder), judged)
    questions = tuple((named[query_id], golds[query_id]) for query_id in order)
    return Known(questions, documents, task.by_document, 1 if blank else task.rel)


# --- the shapes -----------------------------------------------------------------------


def _paragraphs(known: Known) -> tuple[Any, ...]:
    """HotpotQA's rows."""
    return ([_row(named, gold) for named, gold in known.questions],)


def _row(named: Named, gold: Gold) -> dict[str, Any]:
    answer = next(iter(gold.answers), "")
    facts = [list(fact) for fact in gold.sentences or ()]
    return {"_id": named.native, "answer": answer, "supporting_facts": facts}


def _triples(known: Known) -> tuple[Any, ...]:
    """2Wiki's rows, and rows of aliases under identifiers of our own."""
    rows: list[dict[str, Any]] = []
    aliases: list[dict[str, Any]] = []

    def identified(forms: Iterable[str]) -> str:
        """An identifier that has these forms behind the first as its aliases."""
        aliases.append({"Q_id": f"Q{len(aliases)}", "aliases": list(forms)[1:], "demonyms": []})
        return str(aliases[-1]["Q_id"])

    for named, gold in known.questions:
        triples = gold.triples or ()
        rows.append(
            {
                **_row(named, gold),
                "answer_id": identified(gold.answers),
                "evidences": [[s[0], relation, o[0]] for s, relation, o in triples],
                "evidences_id": [[identified(s), by, identified(o)] for s, by, o in triples],
            }
        )
    return rows, aliases


def is_full(natives: Iterable[str]) -> bool:
    """Whether every question stands beside its unanswerable twin: MuSiQue-Full."""
    names = set(natives)
    twins = {name.removesuffix(UNANSWERABLE) for name in names if name.endswith(UNANSWERABLE)}
    return bool(twins) and len(names) == 2 * len(twins & names)


def scored_rows(natives: Iterable[str]) -> list[str]:
    """The native ids that have a row in MuSiQue's files: all of MuSiQue-Full; of anything else,
    as in MuSiQue-Ans, those of answerable questions."""
    names = list(natives)
    return [name for name in names if is_full(names) or not name.endswith(UNANSWERABLE)]


def numbers(named: Named) -> dict[str, int]:
    """Document id → its paragraph's idx; the first one of a passage that stands twice."""
    found: dict[str, int] = {}
    for idx, doc_id in named.passages:
        if not idx.isdecimal():
            raise HarnessError(
                f"Question {named.native} has a paragraph numbered {idx!r}.", "Mend its 'idx'."
            )
        found.setdefault(doc_id, int(idx))
    if not found:
        raise HarnessError(
            f"The paragraphs of question {named.native} have no numbers.",
            "Prepare the task from rows whose paragraphs have an 'idx'.",
        )
    return found


def _musique(known: Known) -> tuple[Any, ...]:
    by_native = {named.native: (named, gold) for named, gold in known.questions}
    rows = []
    for native in scored_rows(by_native):
        named, gold = by_native[native]
        rows.append(
            {
                "id": native.removesuffix(UNANSWERABLE),
                "answer": next(iter(gold.answers), ""),
                "answer_aliases": list(gold.answers[1:]),
                "answerable": not native.endswith(UNANSWERABLE),
                "paragraphs": [
                    {"idx": number, "is_supporting": gold.relevance.get(doc_id, 0) > 0}
                    for doc_id, number in numbers(named).items()
                ],
            }
        )
    return (rows,)


def keys(named: Named, by_document: bool) -> list[str]:
    """TriviaQA's keys of a question: its id, or one for each of its documents."""
    if not by_document:
        return [named.native]
    return [f"{named.native}--{name}" for name in dict.fromkeys(n for n, _ in named.passages)]


def _triviaqa(known: Known) -> tuple[Any, ...]:
    data = [
        {
            "QuestionId": named.native,
            "Answer": {"NormalizedAliases": list(gold.answers)},
            "SearchResults": [
                {"Filename": name} for name in dict.fromkeys(name for name, _ in named.passages)
            ],
        }
        for named, gold in known.questions
        if gold.answers
    ]
    domain = "Web" if known.by_document else "Wikipedia"
    return ({"Domain": domain, "VerifiedEval": False, "Version": 1.0, "Data": data},)


def _passages(known: Known) -> tuple[Any, ...]:
    """MS MARCO's reference: a line a relevant passage; its script takes every line for one."""
    return (
        [
            f"{named.native}\t0\t{known.documents.get(doc_id, doc_id)}\t1"
            for named, gold in known.questions
            for doc_id, grade in gold.relevance.items()
            if grade >= known.rel
        ],
    )


def _msmarco_qa(known: Known) -> tuple[Any, ...]:
    return (
        [
            {"query_id": number(named.native), "answers": list(gold.answers) or [NO_ANSWER]}
            for named, gold in known.questions
        ],
    )


def number(native: str) -> int | str:
    """A native id as MS MARCO's JSON has it."""
    return int(native) if native.isdecimal() else native


def _qrels(known: Known) -> tuple[Any, ...]:
    return (
        {
            named.native: {known.documents.get(d, d): grade for d, grade in gold.relevance.items()}
            for named, gold in known.questions
            if gold.relevance
        },
    )


CORPUS = ("msmarco-passage", "trec")
"""Formats that name documents of a corpus."""
SHAPES: dict[str, Callable[[Known], tuple[Any, ...]]] = {
    "hotpotqa": _paragraphs,
    "2wikimultihopqa": _triples,
    "musique": _musique,
    "triviaqa": _triviaqa,
    "msmarco-passage": _passages,
    "msmarco-qa": _msmarco_qa,
    "trec": _qrels,
}
"""Format → what its scorer takes behind a prediction."""

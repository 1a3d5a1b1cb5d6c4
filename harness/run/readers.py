"""What files from elsewhere say, as replies by native question id.

The inverse of `harness.report.formats`: every file that `submit` writes is read here, and plain
predictions. Documents are named by their native ids, or by ours where a benchmark names passages
by title or number. What a reply cannot say is refused, never left out in silence.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import files
from harness.canonical import Named, named_questions, open_corpus, read_lines, source_order
from harness.corpus import Corpus
from harness.data import UNANSWERABLE, Answer, Evidence, HarnessError, Hit, Reply
from harness.score import checks
from harness.score.golds import scored_rows
from harness.score.msmarco import NO_ANSWER
from harness.score.official import BENCHMARKS

TEXT = ("answer", "prediction", "predicted_answer", "pred")
"""Names under which a row of predictions may carry its text."""
MORE = ("sp", "predicted_support_idxs", "predicted_answerable")
"""What official files may hold beside answers, and plain predictions do not."""
ALONE = "Write --answers-only (of a stage: answers_only=true) to score the answers alone."


@dataclass(frozen=True)
class Prepared:
    """The prepared task that a file belongs to. answers_only: nothing else is wanted of it."""

    folder: Path
    by_document: bool = False
    answers_only: bool = False

    @cached_property
    def named(self) -> dict[str, Named]:
        """The questions by native id."""
        return {each.native: each for each in named_questions(self.folder).values()}

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus."""
        return open_corpus(self.folder)


Reader = Callable[[Path, Prepared], dict[str, Reply]]


def read(fmt: str, path: Path, prepared: Prepared) -> dict[str, Reply]:
    """The replies of a file by native question id, those to questions of other tasks, too.

    Raises `HarnessError` for what is not of the format, and for what no reply can say.
    """
    if not path.exists():
        raise HarnessError(f"{path} does not exist.", "Check the path.")
    return READERS[fmt](path, prepared)


# --- rankings -------------------------------------------------------------------------


def trec(path: Path, one_tag: bool = False) -> dict[str, Reply]:
    """A TREC run: the score decides, the rank is ignored. one_tag: it holds one run alone."""
    run = files.trec_run(path, one_tag)
    return {query: Reply(hits=tuple(map(Hit._make, run[query].items()))) for query in run}


def _passages(path: Path, _: Prepared) -> dict[str, Reply]:
    """MS MARCO's ``qid<TAB>pid<TAB>rank``; a rank stands once for a question."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    ranks: defaultdict[str, set[int]] = defaultdict(set)
    for place, columns in files.table_rows(path, 3):
        query, passage, rank = map(str.strip, columns)
        if not rank.isdecimal() or int(rank) < 1:
            raise HarnessError(f"{place}: {rank!r} is not a rank.", "Ranks count from 1.")
        if passage in found[query] or int(rank) in ranks[query]:
            what = passage if passage in found[query] else f"rank {rank}"
            raise HarnessError(f"{place}: {what} stands twice for {query}.", "Remove one line.")
        ranks[query].add(int(rank))
        found[query][passage] = -float(rank)
    return {query: Reply(hits=tuple(map(Hit._make, found[query].items()))) for query in found}


# --- plain predictions ----------------------------------------------------------------


def predictions(path: Path, answers_only: bool = False) -> dict[str, Reply]:
    """One JSON object ``{id: text}`` (also under "answer"), or rows of ``id`` and ``answer``, with
    ``hits`` ([[document, score], …] or documents, best first), ``evidence`` ([document, or
    [document, sentence] or [document, null, [start, end]], …]) and ``answerable`` if they like.

    answers_only: whatever a file holds beside answers; else what is not carried is a
                  `HarnessError`
    """
    found: dict[str, Reply] = {}
    for place, query_id, row in _rows(path, answers_only):
        if query_id in found:
            raise HarnessError(f"{place}: {query_id} is answered twice.", "Remove one.")
        found[query_id] = _reply(row, f"{place}, {query_id}", answers_only)
    return found


def _rows(path: Path, answers_only: bool) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Place, question and row of predictions in any of their shapes."""
    if not files.has_rows(path):
        whole = files.json_value(path, unique=True)
        texts = whole.get("answer", whole) if isinstance(whole, dict) else None
        if isinstance(texts, dict):
            _no_more(str(path), {} if texts is whole else whole, (*MORE, "evidence"), answers_only)
            yield from ((str(path), str(key), {"answer": text}) for key, text in texts.items())
            return
    for place, row in files.json_rows(path):
        name = row.get("id", row.get("_id")) if isinstance(row, dict) else None
        if name is None or not any(each in row for each in (*TEXT, "hits")):
            raise HarnessError(
                f"{place}: a row needs 'id' and one of {', '.join(TEXT)}, hits.", "Add them."
            )
        _no_more(place, row, MORE, answers_only)
        yield place, str(name), row


def _no_more(place: str, told: Mapping[str, Any], names: Iterable[str], answers_only: bool) -> None:
    """What a file says beside plain predictions must not get lost unnoticed."""
    more = [name for name in names if name in told and not answers_only]
    if more:
        raise HarnessError(
            f"{place} also holds {' and '.join(more)}, which plain predictions do not carry.",
            f"Name the benchmark's format, as --format hotpotqa does. {ALONE}",
        )


def _reply(row: Mapping[str, Any], place: str, answers_only: bool) -> Reply:
    text = next((row[name] for name in TEXT if name in row), "")
    if not isinstance(text, str):
        raise HarnessError(
            f"{place}: the answer is {'null' if text is None else type(text).__name__}, not text.",
            'Write a JSON string, "" for an abstention, or leave the question out.',
        )
    said = None if answers_only else row.get("answerable")
    if said is not None and not isinstance(said, bool):
        raise HarnessError(f"{place}: answerable is {said!r}.", "Write true or false.")
    told = None if answers_only else row.get("evidence")
    evidence = None if told is None else tuple(_pointer(each, place) for each in _list(told, place))
    answer = None if {*TEXT}.isdisjoint(row) else Answer(text, evidence, answerable=said)
    return Reply(answer, () if answers_only else _hits(_list(row.get("hits", []), place), place))


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise HarnessError(f"{place}: {str(value)[:40]!r} is not a list.", "Write […] there.")
    return value


def _hits(told: Sequence[Any], place: str) -> tuple[Hit, ...]:
    """Documents, best first, or [document, score] each."""
    bare = all(isinstance(each, str) for each in told)
    pairs = [[each, float(len(told) - n)] for n, each in enumerate(told)] if bare else told
    for each in pairs:
        well = isinstance(each, list) and len(each) == 2 and isinstance(each[0], str)
        if not (well and type(each[1]) in (int, float) and math.isfinite(each[1])):
            raise HarnessError(
                f"{place}: {str(each)[:60]} is no hit.", 'Write ["document", finite score].'
            )
    twice = [name for name, count in Counter(each[0] for each in pairs).items() if count > 1]
    if twice:
        raise HarnessError(f"{place}: {twice[0]} is ranked twice.", "Remove one of them.")
    return tuple(Hit(each[0], float(each[1])) for each in pairs)


def _pointer(told: Any, place: str) -> Evidence:
    """A document, a sentence of one, or a span of one."""
    parts = [told] if isinstance(told, str) else told if isinstance(told, list) else []
    document, sentence, span = (*parts, None, None, None)[:3]
    spanned = isinstance(span, list) and len(span) == 2 and sentence is None
    numbers = [sentence] if sentence is not None else span if spanned else []
    well = isinstance(document, str) and len(parts) <= 3 and (span is None or spanned)
    if not well or any(type(each) is not int or each < 0 for each in numbers):
        raise HarnessError(
            f"{place}: {str(told)[:60]} is no evidence.",
            'Write ["document", sentence] or ["document", null, [start, end]].',
        )
    return Evidence(document, sentence, tuple(span) if span else None)


# --- HotpotQA and 2WikiMultihopQA -----------------------------------------------------


def _facts_and_triples(fmt: str) -> Reader:
    return lambda path, prepared: _sectioned(fmt, path, prepared)


def _sectioned(fmt: str, path: Path, prepared: Prepared) -> dict[str, Reply]:
    """Sections by question id; one that is empty is one that the system does not give."""
    whole = BENCHMARKS[fmt][1](path)

    def section(name: str) -> Mapping[str, Any]:
        return checks.mapping(checks.field(whole, name, str(path)), f"{path}: {name!r}")

    texts = section("answer")
    if prepared.answers_only:
        return {q: Reply(Answer(checks.text(texts[q], f"{path}: {q}"))) for q in texts}
    facts, triples = section("sp"), section("evidence") if fmt == "2wikimultihopqa" else {}
    pointers = _supporting(path, facts, prepared)
    found: dict[str, Reply] = {}
    for query in dict.fromkeys((*texts, *facts, *triples)):
        text = checks.text(texts.get(query, ""), f"{path}: the answer of {query}")
        stated = tuple(_triple(each, f"{path}: {query}") for each in triples.get(query, ()))
        found[query] = Reply(
            Answer(text, pointers.get(query, ()) if facts else None, stated if triples else None)
        )
    return found


def _triple(told: Any, place: str) -> tuple[str, str, str]:
    parts = checks.texts(told, place)
    if len(parts) != 3:
        raise HarnessError(f"{place}: {str(told)[:60]} is no triple.", ALONE)
    return parts[0], parts[1], parts[2]


def _supporting(
    path: Path, told: Mapping[str, Any], prepared: Prepared
) -> dict[str, tuple[Evidence, ...]]:
    """Supporting facts of the task's questions as sentences of passages.

    A title is looked for in the question's pool, then in the corpus. A fact that is no sentence of
    either cannot be pointed at, and without it precision would rise: a `HarnessError`.
    """
    facts = {query: _named_facts(told[query], path) for query in told if query in prepared.named}
    titles = {title for each in facts.values() for title, _ in each}
    known: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for document in prepared.corpus if titles else ():
        if document.title in titles:
            known[document.title].append((document.id, len(document.sentences)))
    pools = {row["id"]: frozenset(row.get("pool") or ()) for row in _queries(prepared)}
    found: dict[str, tuple[Evidence, ...]] = {}
    strange: list[tuple[str, int]] = []
    for query, each in facts.items():
        pool, pointers = pools[prepared.named[query].id], []
        for title, sentence in each:
            fit = [doc_id for doc_id, size in known[title] if 0 <= sentence < size]
            fit.sort(key=lambda doc_id: doc_id not in pool)
            pointers += [Evidence(doc_id, sentence) for doc_id in fit[:1]]
            strange += [] if fit else [(title, sentence)]
        found[query] = tuple(pointers)
    if strange:
        raise HarnessError(
            f"{path}: {len(strange)} supporting facts are no sentence of the data, "
            f"such as {list(strange[0])}.",
            f"Mend them. {ALONE}",
        )
    return found


def _named_facts(told: Any, path: Path) -> list[tuple[str, int]]:
    found = []
    for each in checks.items(told, f"{path}: supporting facts"):
        well = isinstance(each, list) and len(each) == 2 and isinstance(each[0], str)
        if not well or type(each[1]) is not int:
            raise HarnessError(
                f"{path}: {str(each)[:60]} is no supporting fact.",
                f"Write [title, sentence number]. {ALONE}",
            )
        found.append((each[0], each[1]))
    return list(dict.fromkeys(found))


def _queries(prepared: Prepared) -> Iterator[dict[str, Any]]:
    return read_lines(prepared.folder / "queries.jsonl")


# --- MuSiQue --------------------------------------------------------------------------


def _musique(path: Path, prepared: Prepared) -> dict[str, Reply]:
    """Rows; of two rows with one id each belongs to the row of the source at the same turn."""
    named = named_questions(prepared.folder)
    turns: defaultdict[str, list[str]] = defaultdict(list)
    for native in scored_rows(named[query_id].native for query_id in source_order(prepared.folder)):
        turns[native.removesuffix(UNANSWERABLE)].append(native)
    found: dict[str, Reply] = {}
    for number, row in enumerate(BENCHMARKS["musique"][1](path), 1):
        place = f"{path} row {number}"
        query = str(checks.field(row, "id", place))
        if query in turns and not turns[query]:
            raise HarnessError(f"{place}: {query} is answered twice.", "Remove one.")
        native = turns[query].pop(0) if query in turns else query
        text = checks.text(checks.field(row, "predicted_answer", place), place)
        if prepared.answers_only:
            found[native] = Reply(Answer(text))
            continue
        said = checks.field(row, "predicted_answerable", place)
        told = checks.items(checks.field(row, "predicted_support_idxs", place), place)
        if said not in (0, 1):
            raise HarnessError(
                f"{place}: predicted_answerable is {said!r}.", "Write true or false."
            )
        pointers = _paragraphs(prepared.named.get(native), told, place)
        found[native] = Reply(Answer(text, pointers, answerable=bool(said)))
    return found


def _paragraphs(named: Named | None, told: Iterable[Any], place: str) -> tuple[Evidence, ...]:
    """The passages of a question that have these numbers; none for a question of another task."""
    if named is None:
        return ()
    known, found = dict(named.passages), []
    for number in told:
        if str(number) not in known:
            raise HarnessError(f"{place}: there is no paragraph {number!r}.", f"Mend it. {ALONE}")
        found.append(Evidence(known[str(number)]))
    return tuple(dict.fromkeys(found))


# --- TriviaQA and MS MARCO's answers --------------------------------------------------


def _triviaqa(path: Path, prepared: Prepared) -> dict[str, Reply]:
    """Texts by question id, or by question and document: then all of a question must agree."""
    found: dict[str, str] = {}
    whole = BENCHMARKS["triviaqa"][1](path)
    for key, text in checks.mapping(whole, str(path)).items():
        query = key.partition("--")[0] if prepared.by_document else key
        if found.setdefault(query, checks.text(text, f"{path}: {key}")) != text:
            raise HarnessError(
                f"{path}: {query} has other answers for other documents.",
                "The harness asks a question once; `score-file` scores such a file.",
            )
    return {query: Reply(Answer(text)) for query, text in found.items()}


def _msmarco_qa(path: Path, _: Prepared) -> dict[str, Reply]:
    """One text a question; MS MARCO's words for no answer are none."""
    found: dict[str, Reply] = {}
    for number, row in enumerate(BENCHMARKS["msmarco-qa"][1](path), 1):
        place = f"{path} row {number}"
        query = str(checks.field(row, "query_id", place))
        texts = checks.texts(checks.field(row, "answers", place), place)
        if query in found or len(texts) > 1:
            what = "is answered twice" if query in found else f"has {len(texts)} answers"
            raise HarnessError(f"{place}: {query} {what}.", "Leave one.")
        none = texts in ([], [NO_ANSWER])
        found[query] = Reply(Answer("", answerable=False) if none else Answer(texts[0]))
    return found


READERS: dict[str, Reader] = {
    "trec": lambda path, _: trec(path, one_tag=True),
    "msmarco-passage": _passages,
    "predictions": lambda path, prepared: predictions(path, prepared.answers_only),
    "hotpotqa": _facts_and_triples("hotpotqa"),
    "2wikimultihopqa": _facts_and_triples("2wikimultihopqa"),
    "musique": _musique,
    "triviaqa": _triviaqa,
    "msmarco-qa": _msmarco_qa,
}
"""Format → what reads it."""

"""MS MARCO: reciprocal rank of the passage task, ROUGE-L and BLEU of the question answering task.

Numbers in 0..1. Sources: ms_marco_eval.py@abb4414 (passages); the answer metrics are those of
MSMARCO-Question-Answering@87f84b4 (coco-caption's BLEU and ROUGE-L over spaCy tokens).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from harness.data import HarnessError
from harness.score.checks import Report, field, items, mean, no_questions, texts

NO_ANSWER = "No Answer Present."
DEPTH = 10
SLOTS = 1000

# --- passages ---------------------------------------------------------------------------


def passage_slots(ranked: Iterable[tuple[int, int]]) -> list[int]:
    """Lay (passage id, rank) pairs out in 1,000 slots; slots without a passage hold id 0.

    A later pair takes the slot of an earlier one. As officially, rank 0 and negative ranks count
    from the end (rank -999 is the first slot). Raises `HarnessError` for other ranks.
    """
    slots = [0] * SLOTS
    for passage, rank in ranked:
        if not -SLOTS < rank <= SLOTS:
            raise HarnessError(
                f"Passage {passage} has rank {rank}, outside 1..{SLOTS}.",
                "Keep 1,000 passages a query.",
            )
        slots[rank - 1] = passage
    return slots


def reciprocal_rank(slots: Sequence[int], relevant: Collection[int]) -> float:
    """1/position of the first relevant passage among the first ten slots, else 0.

    If passage 0 is relevant an empty slot counts as a hit: a bug of the official script, kept.
    """
    return next((1 / n for n, passage in enumerate(slots[:DEPTH], 1) if passage in relevant), 0.0)


def repeated_passage(slots: Sequence[int]) -> int | None:
    """The passage that the official warning about repeated passages names, or None.

    It names the first of a *set* with the filler 0 in it, so most often 0 and not the culprit.
    """
    repeated = {passage for passage, count in Counter(slots).items() if count > 1}
    return next(iter(repeated)) if repeated - {0} else None


def msmarco_passage(candidate: Iterable[str], reference: Iterable[str]) -> Report:
    """ms_marco_eval.py@abb4414: "MRR @10" in 0..1 and "QueriesRanked".

    Lines, tab-separated: candidate qid, pid, rank; reference qid, 0, pid, label (the label is
    ignored). Every reference query counts, ranked or not. Raises `HarnessError` for any line
    that is not such, for ranks beyond 1,000, and if no query of the reference was ranked.
    """
    relevant: defaultdict[int, set[int]] = defaultdict(set)
    for query, passage in _integers(reference, (0, 2), "reference"):
        relevant[query].add(passage)
    ranked: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for query, passage, rank in _integers(candidate, (0, 1, 2), "candidate"):
        ranked[query].append((passage, rank))
    slots = {query: passage_slots(pairs) for query, pairs in ranked.items()}
    if not slots.keys() & relevant.keys():
        raise HarnessError(
            "No query of the reference is ranked.", "Check that both files are of one split."
        )
    total = sum(
        reciprocal_rank(slots[query], relevant[query]) for query in slots if query in relevant
    )
    scores = {"MRR @10": total / len(relevant), "QueriesRanked": len(slots)}
    return Report(scores, scores, _repeated(slots))


def _integers(lines: Iterable[str], columns: Sequence[int], what: str) -> Iterable[list[int]]:
    for number, line in enumerate(lines, 1):
        fields = line.strip().split("\t")
        try:
            yield [int(fields[column]) for column in columns]
        except (ValueError, IndexError):
            raise HarnessError(
                f"Line {number} of the {what} file is not tab-separated integers: {line!r}.",
                "Leave out headers and blank lines; MS MARCO ids are integers.",
            ) from None


def _repeated(slots: Mapping[int, Sequence[int]]) -> tuple[str, ...]:
    """The script's warning: of the last query with a repeated passage only."""
    repeated = [(q, p) for q, s in slots.items() if (p := repeated_passage(s)) is not None]
    return tuple(
        f"Cannot rank a passage multiple times for a single query. QID={query}, PID={passage}"
        for query, passage in repeated[-1:]
    )


# --- answers ----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _spacy() -> Any:
    try:
        import spacy
    except ImportError:
        raise HarnessError(
            "MS MARCO's ROUGE-L and BLEU need spaCy's English tokeniser.",
            "pip install -c constraints.txt -e '.[msmarco]'",
        ) from None
    return spacy.blank("en")


def tokenised(text: str) -> str:
    """``text`` as the functions below want it: spaCy English tokens, lower case, one space between.

    Raises `HarnessError` with the pip command where spaCy is missing.
    """
    return " ".join(token.text.strip().lower() for token in _spacy()(text))


def _longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0]
        for column, other in enumerate(right):
            longer = max(previous[column + 1], current[-1])
            current.append(previous[column] + 1 if word == other else longer)
        previous = current
    return previous[-1]


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L with β = 1.2 of one tokenised candidate; the corpus score is the mean.

    Precision and recall are maximised over the references separately. Raises `HarnessError`
    without references.
    """
    _need_references(references)
    words = candidate.split(" ")
    precision = recall = 0.0
    for reference in references:
        expected = reference.split(" ")
        common = _longest_common_subsequence(words, expected)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(expected))
    if not precision or not recall:
        return 0.0
    beta2 = 1.2**2
    return (1 + beta2) * precision * recall / (recall + beta2 * precision)


def _need_references(references: Sequence[str]) -> None:
    if not references:
        raise HarnessError(
            "There is no reference answer to compare with.",
            "Leave out questions whose reference is 'No Answer Present.'.",
        )


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, float, float, float]:
    """Corpus BLEU-1 to BLEU-4 of tokenised candidates, each with its references.

    Counts are pooled over the corpus (it is no mean of questions), clipped by the largest count
    in one reference; brevity against the reference of the closest length, the shorter of two.
    Raises `HarnessError` for lists of different lengths or a candidate without references.
    """
    if len(candidates) != len(references):
        raise HarnessError(
            f"{len(candidates)} candidates for {len(references)} sets of references.",
            "Give one set of references a candidate.",
        )
    length = wanted_length = 0
    total, correct = [0] * 4, [0] * 4
    for candidate, accepted in zip(candidates, references, strict=True):
        _need_references(accepted)
        words, expected = candidate.split(), [reference.split() for reference in accepted]
        length += len(words)
        wanted_length += min((abs(len(e) - len(words)), len(e)) for e in expected)[1]
        for n in range(1, 5):
            counts, most = _ngrams(words, n), Counter[tuple[str, ...]]()
            for reference in expected:
                most |= _ngrams(reference, n)
            total[n - 1] += max(0, len(words) - n + 1)
            correct[n - 1] += (counts & most).total()
    return _bleu_of_counts(correct, total, length, wanted_length)


def _bleu_of_counts(
    correct: Sequence[int], total: Sequence[int], length: int, wanted_length: int
) -> tuple[float, float, float, float]:
    tiny, small = 1e-15, 1e-9  # as coco-caption: no division by zero, a trace of smoothing
    ratio = (length + tiny) / (wanted_length + small)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for n in range(4):
        product *= (correct[n] + tiny) / (total[n] + small)
        scores.append(product ** (1 / (n + 1)) * brevity)
    return scores[0], scores[1], scores[2], scores[3]


class Compared(NamedTuple):
    """What a candidate answered, beside the references, both by query id; and F1 of its choice of
    queries that can be answered."""

    candidate: dict[Any, list[str]]
    reference: dict[Any, list[str]]
    f1: float


def compare(candidate: Any, reference: Any) -> Compared:
    """The queries with a reference answer, in both files, as ms_marco_eval.py@87f84b4 pairs them.

    Raises `HarnessError` where the script fails: other query ids than those of the reference, two
    answers to a query, no answer to any that has one.
    """
    expected, unanswerable = _answers(reference, "reference")
    said, unanswered = _answers(candidate, "candidate")
    wanted = {query: given for query, given in expected.items() if query not in unanswerable}
    found = {query: given for query, given in said.items() if query not in unanswerable}
    if not wanted:
        raise no_questions()
    for query, given in found.items():
        if len(given) > 1:
            raise HarnessError(f"Query {query} has {len(given)} answers.", "Give one.")
    if other := wanted.keys() ^ found.keys():
        query = next(iter(other))
        there = "reference" if query in wanted else "candidate"
        raise HarnessError(
            f"Query {query} is in the {there} file alone ({len(other)} such).",
            f"Answer every query of the reference and no other; [{NO_ANSWER!r}] for none.",
        )
    right = len(wanted.keys() - unanswered)
    wrong = len(unanswerable - unanswered)
    if not right:
        raise HarnessError("The candidate answers no query.", "The script divides by its answers.")
    precision, recall = right / (right + wrong), right / len(wanted)
    return Compared(found, wanted, 2 * precision * recall / (precision + recall))


def _answers(rows: Any, what: str) -> tuple[dict[Any, list[str]], set[Any]]:
    """The answers by query, and the queries that are said to have none ("" stands for it)."""
    found: dict[Any, list[str]] = {}
    without = set()
    for number, row in enumerate(items(rows, f"The {what} file"), 1):
        place = f"Row {number} of the {what} file"
        query = field(row, "query_id", place)
        if not isinstance(query, int | str):
            raise HarnessError(f"{place} has no number as its query_id.", "Write the query's id.")
        given = texts(field(row, "answers", place), place)
        if NO_ANSWER in given:
            without.add(query)
            given = [""]
        if given:
            found.setdefault(query, []).extend(given)
    return found, without


def msmarco_qa(candidate: Any, reference: Any) -> Report:
    """ms_marco_eval.py@87f84b4 of the question answering task: bleu_1 to bleu_4, rouge_l and F1 in
    0..1, printed unrounded; without Semantic_Similarity, which needs a model of word vectors.

    Both files are rows {"query_id", "answers"}. Raises as `compare`, and without spaCy.
    """
    candidates, references, f1 = compare(candidate, reference)
    said = [tokenised(candidates[query][0]) for query in references]
    expected = [[tokenised(text) for text in each] for each in references.values()]
    scores = {f"bleu_{n}": value for n, value in enumerate(bleu(said, expected), 1)}
    rouge = [{"rouge_l": rouge_l(*pair)} for pair in zip(said, expected, strict=True)]
    scores |= mean(rouge, len(rouge)) | {"F1": f1}
    return Report(scores, scores)

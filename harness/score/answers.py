"""Answers, support and evidence of one question, scored as each benchmark's own script does.

Pure functions over plain values, every result in 0..1 (2Wiki's evidence recall and F1 excepted,
see `wiki2_evidence`). The ``score_*`` functions at the end are what tasks call. Whole files, the
scripts' own scales and their rounding are in `harness.score.official`; KILT in
`harness.score.kilt`; MS MARCO in `harness.score.msmarco`.

What differs from script to script, and is easily got wrong:

============  ===============  ===========  ======================  ==================
scorer        normaliser       yes/no rule  both sides empty: F1    empty support: F1
============  ===============  ===========  ======================  ==================
HotpotQA      squad            yes          0                       0
2Wiki v1.1    squad, evidence  yes          0                       0
MuSiQue       squad            no           1                       1
TriviaQA      triviaqa         no           0                       no support
SQuAD v1.1    squad            no           0                       no support
============  ===============  ===========  ======================  ==================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from harness.data import Answer, Gold, GoldTriple, HarnessError
from harness.score.normalise import squad_normal, triviaqa_normal, wiki2_evidence_normal

Fact = tuple[Any, ...]
"""A supporting fact, (title, sentence); official scripts accept any tuple of hashables."""

Support = Sequence[tuple[str, int]]


class Overlap(NamedTuple):
    """How well one part of an answer agrees with gold; each number in 0..1."""

    em: float
    f1: float
    precision: float
    recall: float


NOTHING = Overlap(0.0, 0.0, 0.0, 0.0)
ALL = Overlap(1.0, 1.0, 1.0, 1.0)


def harmonic(precision: float, recall: float) -> float:
    """F1 of a precision and a recall; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def best(overlaps: Iterable[Overlap]) -> Overlap:
    """The maximum of each number over the accepted answers, *separately*.

    Precision and recall may come from different answers, so a joint F1 can exceed the answer F1.
    Raises `HarnessError` if there is no accepted answer.
    """
    columns = list(zip(*overlaps, strict=True))
    if not columns:
        raise HarnessError("There is no gold answer to compare with.", "Leave the question out.")
    return Overlap(*map(max, columns))


def joint(*parts: Overlap) -> Overlap:
    """The parts multiplied: EM, precision and recall; F1 is that of the products."""
    em = precision = recall = 1.0
    for part in parts:
        em, precision, recall = em * part.em, precision * part.precision, recall * part.recall
    return Overlap(em, harmonic(precision, recall), precision, recall)


# --- answers ----------------------------------------------------------------------------


def _tokens(prediction: str, gold: str) -> Overlap:
    """Compare normalised texts: equality, and the overlap of their bags of tokens."""
    predicted, expected = prediction.split(), gold.split()
    shared = sum((Counter(predicted) & Counter(expected)).values())
    em = float(prediction == gold)
    if not shared:
        return NOTHING._replace(em=em)
    precision, recall = shared / len(predicted), shared / len(expected)
    return Overlap(em, harmonic(precision, recall), precision, recall)


def squad_answer(prediction: str, gold: str) -> Overlap:
    """SQuAD v1.1 (huggingface/evaluate@a7dd338), and KILT's em and f1."""
    return _tokens(squad_normal(prediction), squad_normal(gold))


def hotpotqa_answer(prediction: str, gold: str) -> Overlap:
    """HotpotQA (hotpot_evaluate_v1.py@3635853), and 2Wiki for one accepted answer.

    If either side is yes, no or noanswer and the other differs, nothing overlaps.
    """
    predicted, expected = squad_normal(prediction), squad_normal(gold)
    if predicted != expected and {predicted, expected} & {"yes", "no", "noanswer"}:
        return NOTHING
    return _tokens(predicted, expected)


def musique_answer(prediction: str, gold: str) -> Overlap:
    """MuSiQue (evaluate_v1.0.py@922ac98): two empty texts agree in every number."""
    predicted, expected = squad_normal(prediction), squad_normal(gold)
    return _tokens(predicted, expected) if predicted or expected else ALL


def triviaqa_answer(prediction: str, gold: str) -> Overlap:
    """TriviaQA (triviaqa_evaluation.py@ca43b58)."""
    return _tokens(triviaqa_normal(prediction), triviaqa_normal(gold))


def against(
    compare: Callable[[str, str], Overlap], prediction: str, golds: Iterable[str]
) -> Overlap:
    """`best` of ``compare(prediction, gold)`` over the accepted answers."""
    return best(compare(prediction, gold) for gold in golds)


# --- support ----------------------------------------------------------------------------


def _membership(predicted: Collection[Any], gold: Collection[Any]) -> Overlap:
    """Each predicted item is looked up in gold, each gold item in the prediction.

    For sets this is plain set overlap. For lists, duplicates count.
    """
    hits = sum(item in gold for item in predicted)
    misses = sum(item not in predicted for item in gold)
    precision = hits / len(predicted) if predicted else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    em = float(hits == len(predicted) and not misses)
    return Overlap(em, harmonic(precision, recall), precision, recall)


def hotpotqa_support(predicted: Iterable[Fact], gold: Iterable[Fact]) -> Overlap:
    """Supporting facts as sets, titles verbatim; both empty: EM 1, the rest 0.

    Source: hotpot_evaluate_v1.py@3635853.
    """
    return _membership(set(predicted), set(gold))


def wiki2_support(predicted: Iterable[Fact], gold: Iterable[Fact]) -> Overlap:
    """As `hotpotqa_support`, but titles are lower-cased after duplicates were dropped.

    So two spellings of one title count twice. Source: 2wikimultihop_evaluate_v1.1.py@13800e5.
    """
    return _membership(_lower_titles(set(predicted)), _lower_titles(set(gold)))


def _lower_titles(facts: set[Fact]) -> list[Fact]:
    return [(title.lower(), *rest) for title, *rest in facts]


def musique_support(predicted: Collection[Hashable], gold: Collection[Hashable]) -> Overlap:
    """Supporting paragraphs as sets of ids; both empty agree in every number.

    Source: evaluate_v1.0.py@922ac98, which prints the F1 only.
    """
    return _membership(set(predicted), set(gold)) if predicted or gold else ALL


# --- 2Wiki's evidence -------------------------------------------------------------------

_Forms = tuple[set[str], str, set[str]]


def _normal_triples(triples: Iterable[Sequence[str]]) -> set[tuple[str, ...]]:
    return {tuple(map(wiki2_evidence_normal, triple)) for triple in triples}


def _normal_gold(gold: Iterable[GoldTriple]) -> list[_Forms]:
    return [
        (
            set(map(wiki2_evidence_normal, subjects)),
            wiki2_evidence_normal(relation),
            set(map(wiki2_evidence_normal, objects)),
        )
        for subjects, relation, objects in gold
    ]


def _is_form_of(triple: tuple[str, ...], gold: _Forms) -> bool:
    subjects, relation, objects = gold
    return (
        len(triple) == 3
        and triple[0] in subjects
        and triple[1] == relation
        and triple[2] in objects
    )


def wiki2_evidence(predicted: Iterable[Sequence[str]], gold: Sequence[GoldTriple]) -> Overlap:
    """Evidence triples as 2wikimultihop_evaluate_v1.1.py@13800e5 counts them, its bug included.

    Matches are counted per prediction: two aliases of one gold triple are two matches, so
    **recall and F1 can exceed 1**, and EM can be 1 although a gold triple was missed.
    """
    triples, forms = _normal_triples(predicted), _normal_gold(gold)
    matches = sum(any(_is_form_of(triple, form) for form in forms) for triple in triples)
    precision = matches / len(triples) if triples else 0.0
    recall = matches / len(forms) if forms else 0.0
    em = float(matches == len(triples) == len(forms))
    return Overlap(em, harmonic(precision, recall), precision, recall)


def wiki2_evidence_capped(predicted: Iterable[Sequence[str]], gold: Sequence[GoldTriple]) -> float:
    """Evidence F1 in 0..1 where each gold triple is matched by at most one prediction.

    Not an official number: it is what `wiki2_evidence` gives where no alias is used twice.
    """
    triples, forms = _normal_triples(predicted), _normal_gold(gold)
    if not triples or not forms:
        return 0.0
    owner: dict[int, tuple[str, ...]] = {}

    # Augmenting paths: the largest one-to-one matching, whatever the order of the predictions.
    def place(triple: tuple[str, ...], tried: set[int]) -> bool:
        for index, form in enumerate(forms):
            if index not in tried and _is_form_of(triple, form):
                tried.add(index)
                if index not in owner or place(owner[index], tried):
                    owner[index] = triple
                    return True
        return False

    matches = sum(place(triple, set()) for triple in triples)
    return harmonic(matches / len(triples), matches / len(forms))


# --- what tasks call --------------------------------------------------------------------


def _named(prefix: str, overlap: Overlap) -> dict[str, float]:
    return {
        f"{prefix}EM": overlap.em,
        f"{prefix}F1": overlap.f1,
        f"{prefix}Precision": overlap.precision,
        f"{prefix}Recall": overlap.recall,
    }


def _em_and_f1(prefix: str, overlap: Overlap) -> dict[str, float]:
    return {f"{prefix}EM": overlap.em, f"{prefix}F1": overlap.f1}


def _answer_and_support(
    answer: Answer,
    support: Support | None,
    gold: Gold,
    compare: Callable[[Support, Support], Overlap],
) -> tuple[dict[str, float], list[Overlap]]:
    """What HotpotQA and 2Wiki share: scores by name, and the parts that could be filled."""
    scores: dict[str, float] = {}
    parts: list[Overlap] = []
    if gold.answers:
        parts.append(against(hotpotqa_answer, answer.text, gold.answers))
        scores |= _named("", parts[-1])
    if support is not None and gold.sentences is not None:
        parts.append(compare(support, gold.sentences))
        scores |= _named("SP-", parts[-1])
    return scores, parts


def score_hotpotqa(answer: Answer, support: Support | None, gold: Gold) -> dict[str, float]:
    """EM, F1, Precision, Recall and the same under ``SP-`` and ``Joint-``, in 0..1.

    support: (title, sentence) pairs, or None if the system gave none: no SP and no Joint then.
    """
    scores, parts = _answer_and_support(answer, support, gold, hotpotqa_support)
    return scores | _named("Joint-", joint(*parts)) if len(parts) == 2 else scores


def score_2wikimultihopqa(answer: Answer, support: Support | None, gold: Gold) -> dict[str, float]:
    """As `score_hotpotqa`, with ``Evi-`` (uncapped, as v1.1) and Evi-F1-capped.

    Joint is over answer, support and evidence: a system without triples has none.
    """
    scores, parts = _answer_and_support(answer, support, gold, wiki2_support)
    if answer.triples is not None and gold.triples is not None:
        parts.append(wiki2_evidence(answer.triples, gold.triples))
        scores |= _named("Evi-", parts[-1])
        scores["Evi-F1-capped"] = wiki2_evidence_capped(answer.triples, gold.triples)
    return scores | _named("Joint-", joint(*parts)) if len(parts) == 3 else scores


def score_musique(answer: Answer, support: Support | None, gold: Gold) -> dict[str, float]:
    """EM, F1, SP-EM and SP-F1 in 0..1; nothing for an unanswerable question, as officially.

    support and ``gold.sentences`` are compared as opaque ids of paragraphs.
    """
    scores: dict[str, float] = {}
    if not gold.answerable:
        return scores
    if gold.answers:
        scores |= _em_and_f1("", against(musique_answer, answer.text, gold.answers))
    if support is not None and gold.sentences is not None:
        scores |= _em_and_f1("SP-", musique_support(support, gold.sentences))
    return scores


def score_triviaqa(answer: Answer, support: Support | None, gold: Gold) -> dict[str, float]:  # noqa: ARG001
    """EM and F1 in 0..1, the best over the accepted answers."""
    if not gold.answers:
        return {}
    return _em_and_f1("", against(triviaqa_answer, answer.text, gold.answers))


def score_squad(answer: Answer, support: Support | None, gold: Gold) -> dict[str, float]:  # noqa: ARG001
    """EM and F1 in 0..1, the best over the accepted answers; no yes/no rule."""
    if not gold.answers:
        return {}
    return _em_and_f1("", against(squad_answer, answer.text, gold.answers))

"""KILT: downstream, retrieval and the combined KILT-* metrics of a question and of a file, in 0..1.

Source: facebookresearch/KILT@2664322 (eval_downstream.py, eval_retrieval.py).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Sequence
from typing import Any

from harness.data import HarnessError
from harness.score.answers import against, squad_answer
from harness.score.checks import Report, field, items, mapping, mean, text

Pages = Collection[str]
"""The page ids of one provenance, which support one output together; "" is a page without id."""


def rprec(ranked: Sequence[str], provenances: Sequence[Pages]) -> float:
    """The best share of a provenance's R pages that stand among the first R distinct pages.

    Pages without id are left out of R.
    """
    distinct = list(dict.fromkeys(ranked))
    wanted = [set(pages) - {""} for pages in provenances]
    shares = [
        len(pages.intersection(distinct[: len(pages)])) / len(pages) for pages in wanted if pages
    ]
    return max(shares, default=0.0)


def recall(ranked: Sequence[str], provenances: Sequence[Pages], k: int = 5) -> float:
    """The share of distinct provenances found whole within the first ``k`` slots.

    A page of no provenance takes a slot. A provenance takes one slot, at the place of the last
    of its pages that was ranked, so depth k may see further than page k. An empty provenance
    counts and is never found, nor is one with a page without id.
    """
    distinct = list(dict.fromkeys(ranked))
    wanted = list(dict.fromkeys(map(frozenset, provenances)))
    slots: list[bool] = []
    for position, page in enumerate(distinct):
        mine = [pages for pages in wanted if page in pages]
        later = distinct[position + 1 :]
        ended = [pages <= set(distinct) for pages in mine if pages.isdisjoint(later)]
        slots += ended if mine else [False]
    return sum(slots[:k]) / len(wanted) if wanted and distinct else 0.0


def has_rouge() -> bool:
    """Whether the optional package ``rouge`` is installed."""
    return importlib.util.find_spec("rouge") is not None


def rouge_l(prediction: str, gold: str) -> float:
    """ROUGE-L F of the package ``rouge`` (1.0.1), no normalisation; needs `has_rouge`."""
    rouge = importlib.import_module("rouge").Rouge()
    try:
        return float(rouge.get_scores(prediction, gold, avg=True)["rouge-l"]["f"])
    except ValueError:  # its way to say that a side has no words
        return 0.0


def downstream(prediction: str, golds: Collection[str]) -> dict[str, float]:
    """accuracy (equal strings), em and f1 (SQuAD's), and rougel if `has_rouge`.

    Texts are already stripped; a blank prediction scores 0 whatever the golds are. Raises
    `HarnessError` if there is no gold.
    """
    names = ["accuracy", "em", "f1"] + ["rougel"] * has_rouge()
    if not prediction:
        return dict.fromkeys(names, 0.0)
    overlap = against(squad_answer, prediction, golds)
    scores = {"accuracy": float(prediction in golds), "em": overlap.em, "f1": overlap.f1}
    if "rougel" in names:
        scores["rougel"] = max(rouge_l(prediction, gold) for gold in golds)
    return scores


def score_kilt(
    prediction: str, golds: Collection[str], ranked: Sequence[str], provenances: Sequence[Pages]
) -> dict[str, float]:
    """All of KILT's metrics of one question under its own names, in 0..1.

    ``KILT-x`` is ``x`` where Rprec is 1, else 0.
    """
    answer = downstream(prediction, golds)
    precision = rprec(ranked, provenances)
    combined = {f"KILT-{name}": value * (precision == 1) for name, value in answer.items()}
    return answer | combined | {"Rprec": precision, "recall@5": recall(ranked, provenances)}


def kilt(guess: Any, gold: Any) -> Report:
    """KILT's script over whole files: accuracy, em, f1, their KILT-*, Rprec and recall@5.

    rougel and KILT-rougel are there if `has_rouge`. Both files are rows {"id", "output":
    [{"answer", "provenance": [{"wikipedia_id"}]}]}; a guess has exactly one output. Other
    guesses are ignored and logged. Raises `HarnessError` where the script fails.
    """
    rows, guesses = _by_id(gold, "gold file"), _by_id(guess, "prediction file")
    if missing := [question for question in rows if question not in guesses]:
        raise HarnessError(
            f"There is no prediction for question {missing[0]} ({len(missing)} missing).",
            "KILT wants every gold id predicted; write an empty answer for the rest.",
        )
    scored = [_score_row(guesses[question], row, question) for question, row in rows.items()]
    scores = mean(scored, len(scored)) or score_kilt("", (), (), ())
    log = [
        f"Ignored the prediction for {question}." for question in guesses if question not in rows
    ]
    return Report(scores, scores, tuple(log))


def _by_id(rows: Any, what: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for number, row in enumerate(items(rows, f"The {what}"), 1):
        question = str(field(row, "id", f"Row {number} of the {what}")).strip()
        if question in table:
            raise HarnessError(f"Id {question} stands twice in the {what}.", "Keep one of them.")
        table[question] = row
    return table


def _score_row(guess: Any, gold: Any, question: str) -> dict[str, float]:
    outputs = _outputs(guess, f"Prediction {question}")
    if len(outputs) != 1 or "answer" not in outputs[0]:
        raise HarnessError(
            f"Prediction {question} has {len(outputs)} outputs or no 'answer'.",
            "Give exactly one output with an answer.",
        )
    place = f"Gold question {question}"
    gold_outputs = _outputs(gold, place)
    if not gold_outputs:
        raise HarnessError(f"{place} has no output.", "Leave the question out.")
    golds = {text(o["answer"], place).strip() for o in gold_outputs if o.get("answer")} - {""}
    provenances = [
        [str(page.get("wikipedia_id", "")).strip() for page in _provenance(output, place)]
        for output in gold_outputs
        if "provenance" in output
    ]
    ranked = [
        str(page["wikipedia_id"]).strip()
        for page in _provenance(outputs[0], f"Prediction {question}")
        if "wikipedia_id" in page
    ]
    return score_kilt(str(outputs[0]["answer"]).strip(), golds, ranked, provenances)


def _outputs(row: Any, place: str) -> list[Any]:
    return [mapping(output, place) for output in items(field(row, "output", place), place)]


def _provenance(output: Any, place: str) -> list[Any]:
    return [mapping(page, place) for page in items(output.get("provenance", []), place)]

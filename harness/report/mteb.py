"""The ranking scores of a pipeline as mteb's result JSON (`mteb.results.TaskResult`, mteb 2.26).

The scores are this harness's, and the file says so: the task keeps its own name (a mini task stays
mini, and HotpotQA's pool setting is not mteb's HotpotQA), the revision is the fingerprint of the
prepared data, and ``mteb_version`` is null, for mteb computed nothing. Fields of ours stand beside
mteb's, which passes over them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.canonical import read_about
from harness.data import HarnessError
from harness.report.sheet import MINI
from harness.score.results import Sample, read_columns, score_heads
from harness.score.scoring import data_of

NAMES = {
    "nDCG": "ndcg",
    "AP": "map",
    "R": "recall",
    "P": "precision",
    "RR": "mrr",
    "Success": "hit_rate",
}
"""Our measure, cut at k, and mteb's name for it before ``_at_k``."""
MEASURE = re.compile(rf"({'|'.join(NAMES)})@(\d+)")
MAIN = "nDCG@10"
"""What mteb takes for the main score of a retrieval task."""
SCALE = 6
"""Digits behind the point that mteb writes."""


def result(
    folder: Path, entry: Mapping[str, Any], home: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The result of one pipeline of a scored run, and what to know of it.

    home: where prepared data is kept, see `data_of`
    Raises `HarnessError` for a run that is not scored, or has no `MAIN`.
    """
    sample = Sample.of(entry).digest
    columns = read_columns(folder)[sample, entry["system"]]
    means = {name: _mean(values) for name, values in columns.values.items()}
    if MAIN not in means:
        raise HarnessError(
            f"{entry['system']} has no {MAIN} on {entry['task']}, mteb's main score.",
            f"It ranks nothing, or write `python -m harness score {folder} --metric {MAIN}`.",
        )
    found = {name: value for name, value in means.items() if MEASURE.fullmatch(name)}
    scores = {_named(name): round(value, SCALE) for name, value in found.items()}
    told = {"main_score": scores[_named(MAIN)], "hf_subset": "default", "languages": ["eng-Latn"]}
    made = {
        "dataset_revision": entry["fingerprint"],
        "task_name": entry["task"],
        "mteb_version": None,
        "scores": {entry["split"]: [{**scores, **told}]},
        "evaluation_time": None,
        "kg_co2_emissions": None,
        "date": None,
        "evaluation_phases": None,
        "evaluated_by": "retrieval-qa-harness",
        "generated": entry["generated"],
        **{name: entry[name] for name in ("system", "setting", "limit", "seed", "questions")},
    }
    ranked = score_heads(folder)[sample]["ranking_metrics"]
    return made, list(_notes(entry, [name for name in ranked if name not in found], home))


def _mean(values: Any) -> float:
    return float(np.nanmean(np.asarray(values)))


def _named(measure: str) -> str:
    name, _, cut = measure.partition("@")
    return f"{NAMES[name]}_at_{cut}"


def _notes(entry: Mapping[str, Any], left: list[str], home: Path | None) -> Iterator[str]:
    yield "hf_subset is default and languages eng-Latn: change them if the data is another"
    if left:
        yield f"mteb has no {', '.join(left)}: left out"
    total = read_about(data_of(entry, "queries.jsonl", home))["questions"]
    if entry["questions"] < total:
        yield f"the run asked {entry['questions']} of {total} questions"
    if entry["setting"] == "pool":
        yield "each question's own candidates were ranked, where mteb ranks the whole corpus"
    if entry["generated"]:
        yield MINI

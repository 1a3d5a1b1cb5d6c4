"""Whether two systems were asked and scored alike, and in what not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harness.data import HarnessError
from harness.provenance import imported
from harness.report.pairs import Chosen, Entry, Pair, Scored, key_of, refusal
from harness.run.store import asked_rows
from harness.score.results import read_columns
from harness.score.scoring import score

ALIKE = {"dtype": "dtype", "instruction": "instruction", "max_new_tokens": "length of answers"}
"""Parts of a stage that must be equal, and what they are called."""


def unlike(one: Scored, other: Scored, pair: Pair) -> list[HarnessError]:
    """In what two systems were not asked alike."""
    mine, yours = one.parts(pair[0]), other.parts(pair[1])
    apart = [
        f"{what} {mine[part]!r} and {yours[part]!r}"
        for part, what in ALIKE.items()
        if part in mine and part in yours and mine[part] != yours[part]
    ]
    return [refusal(pair, f"they have {', '.join(apart)}")] if apart else []


def other_scorers(one: Scored, other: Scored) -> list[HarnessError]:
    """Whether the runs' scores were computed alike: if the code of the scorers is not the same,
    the base is scored again to see whether that makes a difference."""
    if one.scorer == other.scorer or one.is_run(other):
        return []
    try:
        apart = _scored_again(one, other)
    except HarnessError as error:
        return [
            HarnessError(
                f"not comparable, because the scorers differ, and {one.folder} cannot be scored "
                f"again ({error.message})",
                error.hint,
            )
        ]
    if not apart:
        return []
    return [
        HarnessError(
            f"not comparable, because the scorers differ: scored again, {one.folder} has other "
            f"values of {', '.join(sorted(apart))}.",
            f"If today's are right: `python -m harness score {one.folder}`, and say so in its log.",
        )
    ]


def _scored_again(one: Scored, other: Scored) -> set[str]:
    """The metrics of the base that today's scorer gives other values of."""
    data = {each["fingerprint"]: each["data"] for each in other.entries.values()}
    with TemporaryDirectory() as folder:
        again = Path(folder) / "run"
        again.mkdir()
        entries = []
        for entry in one.entries.values():
            rows = str(one.rows(entry).resolve())
            where = data.get(entry["fingerprint"], entry["data"])
            entries.append({**entry, "rows": rows, "data": where})
        told = json.dumps({**one.manifest, "pipelines": entries}, ensure_ascii=False)
        (again / "manifest.json").write_text(told, encoding="utf-8")
        extra = {
            metric
            for head in one.heads.values()
            for metric in (*head["answer_metrics"], *head["ranking_metrics"])
        }
        score(again, [each for each in sorted(extra) if each not in _own(one)])
        fresh = read_columns(again)
    apart = set()
    for key, columns in one.columns.items():
        for metric, values in columns.values.items():
            today = fresh[key].values.get(metric) if key in fresh else None
            if today is None or not np.allclose(values, today, rtol=0, atol=1e-9, equal_nan=True):
                apart.add(metric)
    return apart


def _own(run: Scored) -> set[str]:
    """The metrics that the tasks bring along."""
    return {
        metric
        for entry in run.entries.values()
        for metric in (*entry["answer_metrics"], *entry["ranking_metrics"])
    }


def other_depths(one: Scored, other: Scored, chosen: Chosen) -> Iterator[HarnessError]:
    """Two systems whose rankings are judged rank as deep."""
    pair, metric = chosen.pair, chosen.metric
    ranked = metric in other.heads[key_of(pair[1])[0]]["ranking_metrics"]
    if not (ranked and chosen.there) or pair[0]["system"] == pair[1]["system"]:
        return
    depths = [_depth(run, entry) for run, entry in zip((one, other), pair, strict=True)]
    if depths[0] != depths[1]:
        k = " and ".join(map(str, sorted(depths)))
        why = f"k differs: they rank {k} documents, which {metric} sees"
        ran = [each["system"] for each in pair if not imported(each)]
        hints = (
            "Import as many of both.",
            f"Write @{min(depths)} behind {''.join(ran)}, which was run, or import as many.",
            "Run both alike.",
        )
        yield refusal(pair, why, hints[len(ran)])


def _depth(run: Scored, entry: Entry) -> int:
    """The documents of the longest ranking."""
    ids = run.columns[key_of(entry)].ids
    return max((len(row.hits) for _, row in asked_rows(run.rows(entry), ids) if row), default=0)

"""Two runs, or the systems of one, compared question by question.

Compared is each system with its namesake in the base, or all of them with one system of the base.
What was not asked alike is not compared: other data, questions, scorers, depths, lengths or dtypes
give a reason and no number.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from harness.data import HarnessError, raise_together
from harness.report.cases import question_texts
from harness.report.gate import LEVEL, SAME, Tolerance, Verdict, tolerance_for, verdict
from harness.report.latency import passes
from harness.report.sheet import Sheet, Style, titled, written
from harness.run.store import asked_rows
from harness.score.changed import changed_rows
from harness.score.intervals import Floats
from harness.score.paired import Paired, draws_for, holm, paired
from harness.score.results import (
    Columns,
    Sample,
    read_columns,
    read_manifest,
    score_heads,
)
from harness.score.scoring import score

WORST = 10
SHOWN = 20
"""Changed questions that are listed by id."""
ALIKE = {"dtype": "dtype", "instruction": "instruction", "max_new_tokens": "length of answers"}
"""Parts of a stage that must be equal, and what they are called."""


@dataclass(frozen=True)
class Question:
    """One on which the new system does worse: scores and answers of both."""

    id: str
    base: float
    new: float
    base_answer: str
    new_answer: str
    text: str = ""


@dataclass(frozen=True)
class Comparison:
    """A metric of two systems on one sample of questions.

    p:       of the sign-flip test, adjusted by Holm for all comparisons of this command
    changed: questions whose rows differ, by kind of change; None: two systems, not one
    p50_ms:  of both, where one latency pass measured both; else None
    """

    task: str
    split: str
    setting: str
    generated: bool
    metric: str
    base: str
    new: str
    base_mean: float
    new_mean: float
    found: Paired
    p: float
    tolerance: Tolerance
    verdict: Verdict
    because: str
    changed: dict[str, int] | None
    changed_ids: tuple[str, ...]
    worst: tuple[Question, ...]
    p50_ms: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What is compared, in a line."""
        systems = self.new if self.new == self.base else f"{self.new} against {self.base}"
        return f"{self.task} {self.split}, {self.setting}: {systems}"

    def as_json(self) -> dict[str, Any]:
        """All of it as a JSON object; what is not known is null."""
        out = {**asdict(self), "tolerance": self.tolerance.as_json()}
        out["found"] = {k: None if v != v else v for k, v in out["found"].items()}
        return out


class _Run:
    """A run's scores and what they came from, read when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heads = score_heads(folder)
        self.manifest = read_manifest(folder)
        self.entries = {
            (Sample.of(each).digest, each["system"]): each for each in self.manifest["pipelines"]
        }

    @cached_property
    def columns(self) -> dict[tuple[str, str], Columns]:
        return read_columns(self.folder)

    @property
    def scorer(self) -> object:
        return json.loads((self.folder / "scores.json").read_text(encoding="utf-8")).get("scorer")

    def rows(self, entry: Mapping[str, Any]) -> Path:
        return self.folder / str(entry["rows"])

    def parts(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the last stage's key was made of."""
        stage = self.manifest.get("stages", {}).get(entry["key"], {})
        if "parts" in stage:
            return dict(stage["parts"])
        with suppress(OSError, ValueError):
            return dict(json.loads(self.rows(entry).with_name("stage.json").read_text("utf-8")))
        return {}


Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Entries of the base's and the new run's manifest."""


def compare(
    base: Path | str,
    new: Path | str,
    *,
    baseline: str = "",
    systems: Sequence[str] = (),
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    tolerances: Sequence[Tolerance] = (),
    seed: int = 0,
) -> list[Comparison]:
    """Compare scored runs; each system with its namesake, or all with ``baseline`` of the base.

    systems, tasks: only these; all of the base must be in the new run otherwise
    metrics:        those of the scores; left out: the first of each task that both have, its
                    answers' before its ranking's
    Raises `HarnessError` with every reason why something cannot be compared.
    """
    one, other = _Run(Path(base)), _Run(Path(new))
    raise_together(_unknown(one, other, baseline, systems, tasks))
    pairs, mistakes = _pairs(one, other, baseline, systems, tasks)
    raise_together(mistakes)
    mistakes = _scorers(one, other)
    chosen: list[tuple[Pair, list[str]]] = []
    for pair in pairs:
        mistakes += _unlike(one, other, pair)
        chosen.append((pair, _metrics(one, other, pair, metrics, mistakes)))
    raise_together(list({str(each): each for each in mistakes}.values()))
    draws = draws_for(sum(len(named) for _, named in chosen), LEVEL)
    tested = [each for chosen_ in chosen for each in _tested(one, other, *chosen_, seed, draws)]
    raise_together([error for each in tested for error in _same_rows_other_scores(each)])
    adjusted = iter(holm([each.found.p for each in tested if not each.same]))
    return [
        _comparison(one, other, each, 1.0 if each.same else next(adjusted), tolerances)
        for each in tested
    ]


# --- what can be compared -------------------------------------------------------------


def _unknown(
    one: _Run, other: _Run, baseline: str, systems: Sequence[str], tasks: Sequence[str]
) -> list[HarnessError]:
    """What is named and not there."""
    own = {system for _, system in one.entries}
    every = own | {system for _, system in other.entries}
    named = {str(each["task"]) for run in (one, other) for each in run.entries.values()}
    where = "these runs"
    asked = [
        ("baseline", [baseline] if baseline else [], own, str(one.folder)),
        ("system", systems, every, where),
        ("task", tasks, named, where),
    ]
    return [
        HarnessError(
            f"no {what} {each!r} is in {place}.", f"There are: {', '.join(sorted(there))}."
        )
        for what, wanted, there, place in asked
        for each in wanted
        if each not in there
    ]


def _pairs(
    one: _Run, other: _Run, baseline: str, systems: Sequence[str], tasks: Sequence[str]
) -> tuple[list[Pair], list[HarnessError]]:
    """Which entries are compared, and what is missing for that."""
    pairs: list[Pair] = []
    mistakes: list[HarnessError] = []
    for (sample, system), entry in (other if baseline else one).entries.items():
        left_out = (systems and system not in systems) or (tasks and entry["task"] not in tasks)
        if left_out or (system == baseline and one.folder == other.folder):
            continue
        mine = one.entries.get((sample, baseline or system))
        yours = other.entries.get((sample, system))
        if mine is not None and yours is not None:
            pairs.append((mine, yours))
            continue
        run, lacks = (one, baseline) if mine is None else (other, system)
        mistakes.append(
            HarnessError(
                f"{lacks} on {entry['task']} is not comparable, because "
                f"{_absent(run, entry, lacks)}.",
                "Run both alike, or name what to compare with --system and --task.",
            )
        )
    if not pairs and not mistakes:
        mistakes.append(HarnessError("there is nothing to compare.", "Name two runs."))
    return pairs, mistakes


def _absent(run: _Run, entry: Mapping[str, Any], system: str) -> str:
    """Why a run has no such system on these very questions."""
    wanted = Sample.of(entry)
    for (_, name), found in run.entries.items():
        there = Sample.of(found)
        if name == system and there.task == wanted.task:
            apart = [n for n in Sample._fields if getattr(there, n) != getattr(wanted, n)]
            told = ", ".join(f"{n} {getattr(there, n)} and not {getattr(wanted, n)}" for n in apart)
            return f"{run.folder} has it with {told}"
    return f"{run.folder} does not have it"


def _scorers(one: _Run, other: _Run) -> list[HarnessError]:
    """Whether the runs' scores were computed alike: if the code of the scorers is not the same,
    the base is scored again to see whether that makes a difference."""
    if one.scorer == other.scorer or one.folder == other.folder:
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


def _scored_again(one: _Run, other: _Run) -> set[str]:
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


def _own(run: _Run) -> set[str]:
    """The metrics that the tasks bring along."""
    return {
        metric
        for entry in run.entries.values()
        for metric in (*entry["answer_metrics"], *entry["ranking_metrics"])
    }


def _unlike(one: _Run, other: _Run, pair: Pair) -> list[HarnessError]:
    """In what two systems were not asked alike."""
    mine, yours = one.parts(pair[0]), other.parts(pair[1])
    apart = [
        f"{what} {mine[part]!r} and {yours[part]!r}"
        for part, what in ALIKE.items()
        if part in mine and part in yours and mine[part] != yours[part]
    ]
    return [_not(pair, f"they have {', '.join(apart)}")] if apart else []


def _not(pair: Pair, why: str) -> HarnessError:
    systems = " and ".join(dict.fromkeys(each["system"] for each in pair))
    return HarnessError(
        f"{systems} on {pair[1]['task']}: not comparable, because {why}.", "Run both alike."
    )


def _metrics(
    one: _Run, other: _Run, pair: Pair, wanted: Sequence[str], mistakes: list[HarnessError]
) -> list[str]:
    """The metrics of a pair; what has no value, or cannot be had alike, is a mistake."""
    sample = Sample.of(pair[0]).digest
    mine = one.columns.get((sample, pair[0]["system"]), Columns())
    yours = other.columns.get((sample, pair[1]["system"]), Columns())
    both = [metric for metric in mine.values if metric in yours.values]
    head = other.heads[sample]
    order = [m for m in (*head["answer_metrics"], *head["ranking_metrics"]) if m in both]
    if not order:
        mistakes.append(_not(pair, "they have no metric in common"))
    chosen = list(wanted) or order[:1]
    for metric in chosen:
        if metric not in both:
            known = ", ".join(order)
            mistakes.append(
                HarnessError(
                    f"{pair[1]['system']} on {pair[1]['task']} has no {metric}.",
                    f"Both have: {known}." if known else "Score both with --metric.",
                )
            )
    ranked = [metric for metric in chosen if metric in head["ranking_metrics"]]
    if ranked and pair[0]["system"] != pair[1]["system"]:
        depths = {_depth(run, entry) for run, entry in zip((one, other), pair, strict=True)}
        if len(depths) > 1:
            k = " and ".join(map(str, sorted(depths)))
            why = f"k differs: they rank {k} documents, which {ranked[0]} sees"
            mistakes.append(_not(pair, why))
    return [metric for metric in chosen if metric in both]


def _depth(run: _Run, entry: Mapping[str, Any]) -> int:
    """The documents of the longest ranking."""
    ids = run.columns[Sample.of(entry).digest, entry["system"]].ids
    return max((len(row.hits) for _, row in asked_rows(run.rows(entry), ids) if row), default=0)


# --- comparing ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tested:
    """One metric of a pair: both values of each question, and the rows that changed (None: two
    systems)."""

    pair: Pair
    metric: str
    ids: list[str]
    before: Floats
    after: Floats
    found: Paired
    changed: Mapping[str, Sequence[str]] | None

    @property
    def same(self) -> bool:
        """Every row is the same, so that there is nothing to infer."""
        return self.changed is not None and not self.changed


def _tested(
    one: _Run, other: _Run, pair: Pair, metrics: Sequence[str], seed: int, draws: int
) -> Iterator[_Tested]:
    """The differences of two systems, a metric each."""
    sample = Sample.of(pair[0]).digest
    mine = one.columns[sample, pair[0]["system"]]
    yours = other.columns[sample, pair[1]["system"]]
    places = {query_id: place for place, query_id in enumerate(mine.ids)}
    order = [places[query_id] for query_id in yours.ids]
    changed = None
    if pair[0]["system"] == pair[1]["system"]:
        rows = one.rows(pair[0]), other.rows(pair[1])
        changed = {each.id: each.kinds for each in changed_rows(*rows, yours.ids)}
    for metric in metrics:
        before = np.array(mine.values[metric])[order]
        after = np.array(yours.values[metric])
        found = paired(before, after, yours.groups, seed, draws=draws)
        yield _Tested(pair, metric, yours.ids, before, after, found, changed)


def _same_rows_other_scores(each: _Tested) -> list[HarnessError]:
    """The scorers differ, whatever they say of themselves, if a row has two scores."""
    if each.changed is None:
        return []
    apart = np.flatnonzero(~np.isclose(each.before, each.after, rtol=0, atol=1e-9, equal_nan=True))
    alike = [each.ids[place] for place in apart if each.ids[place] not in each.changed]
    if not alike:
        return []
    why = f"the scorers differ: {each.metric} of {len(alike)} rows that are the same is another one"
    return [_not(each.pair, f"{why} ({alike[0]})")]


def _comparison(
    one: _Run, other: _Run, each: _Tested, p: float, tolerances: Sequence[Tolerance]
) -> Comparison:
    before, after, (mine, yours) = each.before, each.after, each.pair
    there = ~(np.isnan(before) | np.isnan(after))
    tolerance = tolerance_for(tolerances, yours["task"], yours["system"], each.metric)
    said, because = verdict(each.found, p, tolerance.tolerance, each.same)
    worse = [(float(after[n] - before[n]), each.ids[n], n) for n in np.flatnonzero(after < before)]
    worst = [(name, float(before[n]), float(after[n])) for _, name, n in sorted(worse)[:WORST]]
    kinds = Counter(kind for kinds in (each.changed or {}).values() for kind in kinds)
    return Comparison(
        yours["task"],
        yours["split"],
        yours["setting"],
        yours["generated"],
        each.metric,
        mine["system"],
        yours["system"],
        float(before[there].mean()),
        float(after[there].mean()),
        each.found,
        p,
        tolerance,
        said,
        because,
        None if each.changed is None else dict(kinds),
        tuple(each.changed or ()),
        tuple(_questions(one, other, each.pair, worst)),
        _timed(one.folder, each.pair) if one.folder == other.folder else None,
    )


def _timed(folder: Path, pair: Pair) -> tuple[float, float] | None:
    """p50 of both systems from one pass; two passes ran under two loads."""
    names = ("task", "split", "setting")
    for cells in passes(folder):
        found = {
            cell.system: cell.p50_ms
            for cell in cells
            if all(getattr(cell, name) == pair[0][name] for name in names)
        }
        mine, yours = (found.get(entry["system"]) for entry in pair)
        if mine is not None and yours is not None:
            return mine, yours
    return None


def _questions(
    one: _Run, other: _Run, pair: Pair, worst: Sequence[tuple[str, float, float]]
) -> Iterator[Question]:
    """Questions with both answers, and their text where the prepared data is at hand."""
    ids = [query_id for query_id, *_ in worst]
    said = [
        {i: _said(row) for i, row in asked_rows(run.rows(entry), ids)}
        for run, entry in zip((one, other), pair, strict=True)
    ]
    texts: dict[str, str] = {}
    data = Path(pair[1]["data"])
    if ids and data.name == pair[1]["fingerprint"] and (data / "queries.jsonl").exists():
        texts = question_texts(data, ids)
    for query_id, before, after in worst:
        answers = [each.get(query_id, "") for each in said]
        text = texts.get(query_id, "")
        yield Question(query_id, before, after, answers[0], answers[1], text)


def _said(row: Any) -> str:
    """What a row answers, in words: its answer, or the documents that it ranks first."""
    if row is None:
        return "(no row)"
    if row.error:
        return f"(error: {row.error})"
    if row.answer is not None:
        return str(row.answer.text)
    return " ".join(hit.id for hit in row.hits[:5])


# --- what people see ------------------------------------------------------------------


def written_comparisons(found: Sequence[Comparison], style: Style = "table") -> str:
    """A table, then what each verdict means, changed rows and the worst questions."""
    several = any(each.base != each.new for each in found)
    same = sum(each.because == SAME for each in found)
    heads = ("system", "metric", "base", "new", "difference", "p (Holm)", "won/tied/lost",
             "n (groups)", "80 % power", "verdict")  # fmt: skip
    parts = []
    for title in dict.fromkeys(titled(each, each.generated) for each in found):
        rows = [_row(each) for each in found if titled(each, each.generated) == title]
        parts.append(written(Sheet(title, heads, tuple(rows)), style))
    baseline = f" Base: {found[0].base}." if several else ""
    parts.append(
        "Differences: new minus base, question by question, 95 % interval over groups; p: "
        f"sign-flip test, Holm over {len(found) - same} comparisons. 80 % power: the smallest "
        f"difference that four of five such samples would show.{baseline}"
    )
    parts += ["\n".join(_told(each)) for each in found if each.because != SAME]
    verdicts = Counter(each.verdict for each in found)
    told = ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.items()))
    parts.append(f"{told}" + (f" ({same}: {SAME})" if same else ""))
    return "\n\n".join(parts)


def _row(each: Comparison) -> tuple[str, ...]:
    found = each.found
    interval = "" if math.isnan(found.low) else f"\n{found.low:+.3f} to {found.high:+.3f}"
    return (
        each.new,
        each.metric,
        f"{each.base_mean:.3f}",
        f"{each.new_mean:.3f}",
        f"{found.difference:+.3f}{interval}",
        f"{each.p:.2g}",
        f"{found.wins}/{found.ties}/{found.losses}",
        f"{found.n} ({found.groups})",
        "–" if math.isnan(found.visible) else f"{found.visible:.3f}",
        each.verdict,
    )


def _told(each: Comparison) -> Iterator[str]:
    why = each.because[0].upper() + each.because[1:]
    yield f"{each.name}, {each.metric}: {each.verdict}. {why}."
    if each.changed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(each.changed.items()))
        more = "" if len(each.changed_ids) <= SHOWN else " …"
        ids = " ".join(each.changed_ids[:SHOWN])
        yield f"  rows that changed: {len(each.changed_ids)} ({kinds}): {ids}{more}"
    if each.p50_ms:
        yield "  p50 of a question, one pass: {:.1f} ms against {:.1f}".format(*each.p50_ms[::-1])
    for question in each.worst:
        yield (
            f"  {question.id} {question.base:.3f} -> {question.new:.3f}: "
            f"{question.base_answer!r} -> {question.new_answer!r}"
            + (f"  {question.text}" if question.text else "")
        )

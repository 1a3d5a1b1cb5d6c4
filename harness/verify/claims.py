"""Claimed scores against those that are computed here; claimed latencies, if they are sane."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import HarnessError
from harness.report.latency import records
from harness.run.timings import NAME, read_timings
from harness.score.results import Sample, read_manifest, read_scores
from harness.score.scoring import BEHIND, score
from harness.spelling import parse_spelled
from harness.verify.findings import Findings, counted, told
from harness.verify.strict import Unreadable, lines, loads

METRIC = re.compile(r"[A-Za-z]{1,24}(\([\w=.,: {}]{1,60}\))?(@\d{1,9})?")
"""Spellings of metrics that are looked at at all."""
MOST = 60
"""Metrics of a table."""
SAME = 1e-9


def check(run: Path, heads: Any, claimed: Path, found: Findings) -> None:
    """Score the run, and note where ``scores.json`` (``heads``) or ``scores.jsonl`` differ."""
    if not _shaped(heads):
        found.add(
            "scores",
            "scores.json",
            "it does not say by which scorer, or has no list of tables with the names of metrics.",
        )
        return
    try:
        score(run, _further(heads, read_manifest(run)))
    except HarnessError as error:
        found.add("scores", "scores.json", f"its metrics cannot be computed: {error}")
        return
    ours = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    for claim, computed in zip(heads["tables"], ours["tables"], strict=False):
        for name in computed.keys() | claim.keys():
            if claim.get(name) != computed.get(name):
                found.add("scores", "scores.json", f"{name[:40]} of a table is not as computed.")
    if heads.keys() != ours.keys() or len(heads["tables"]) != len(ours["tables"]):
        found.add("scores", "scores.json", "it has other tables than the manifest.")
    if not found:
        _compare(run, claimed, found)


def _shaped(heads: Any) -> bool:
    """Whether it can be read which metrics each table has."""
    tables = heads.get("tables") if isinstance(heads, dict) else None
    if not isinstance(tables, list) or not all(isinstance(head, dict) for head in tables):
        return False
    if not _is_scorer(heads.get("scorer")):
        return False
    named = [head.get(n) for head in tables for n in ("answer_metrics", "ranking_metrics")]
    return all(isinstance(each, list) and {*map(type, each)} <= {str} for each in named)


def _is_scorer(told: Any) -> bool:
    """Whether it is said by which scorer, as `harness.score.scoring.scorer` says it."""
    if not isinstance(told, dict) or not isinstance(versions := told.get("versions"), dict):
        return False
    texts = (told.get("sources"), *versions.values())
    return versions.keys() >= {*BEHIND} and {*map(type, texts)} == {str}


def _further(heads: Any, about: Mapping[str, Any]) -> list[str]:
    """The metrics that scores.json has beyond those of the tasks."""
    names: dict[str, None] = {}
    for head in heads["tables"]:
        names |= dict.fromkeys([*head["answer_metrics"], *head["ranking_metrics"]])
    if len(names) > MOST * len(about["pipelines"]):
        raise HarnessError("there are too many of them.")
    for entry in about["pipelines"]:
        for name in (*entry["answer_metrics"], *entry["ranking_metrics"]):
            names.pop(name, None)
        task = registry.task(parse_spelled(entry["task"]))
        for name in (*task.answer_metrics, *_spelled(task.ranking_metrics, task.rel)):
            names.pop(name, None)
    for name in names:
        if not METRIC.fullmatch(name):
            raise HarnessError(f"{told(name)} is no metric.")
    return list(names)


def _spelled(names: tuple[str, ...], rel: int) -> list[str]:
    """Ranking metrics as scores.json spells them."""
    from harness.score.ranking import measure

    return [str(measure(name, rel)) for name in names]


def _compare(run: Path, claimed: Path, found: Findings) -> None:
    """Every line of scores.jsonl is computed too, with the same values."""
    ours = {
        (table.sample.digest, line["system"], line["id"]): line
        for table in read_scores(run)
        for system in table.lines.values()
        for line in system
    }
    unread = 0
    try:
        for number, text in lines(claimed):
            where = f"scores.jsonl:{number}"
            try:
                line = loads(text)
            except Unreadable as error:
                found.add("json", where, f"{error}.")
                unread += 1
                continue
            key = tuple(line.get(n) for n in ("sample", "system", "id")) if _flat(line) else ()
            computed = ours.pop(key, None)
            if computed is None:
                found.add("scores", where, "no such score is computed, or it stands twice.")
            elif wrong := _differs(line, computed):
                found.add("scores", where, wrong)
    except Unreadable as error:  # and nothing behind it can be read
        found.add("json", "scores.jsonl", f"{error}.")
        return
    if (left := len(ours) - unread) > 0:
        _, system, query_id = next(iter(ours))
        one = "" if unread else f", such as that of {system} for {query_id}"
        found.add("scores", "scores.jsonl", f"it leaves out {counted(left, 'score')}{one}.")


def _flat(line: Any) -> bool:
    return isinstance(line, dict) and all(
        isinstance(line.get(name), str) for name in ("sample", "system", "id")
    )


def _differs(line: Mapping[str, Any], computed: Mapping[str, Any]) -> str:
    """In what a claimed line differs from the computed one; empty if in nothing."""
    for name in line.keys() | computed.keys():
        if name != "metrics" and line.get(name) != computed.get(name):
            both = told(line.get(name)), told(computed.get(name))
            return "{} is {}, computed is {}.".format(name[:40], *both)
    claimed, metrics = line.get("metrics"), computed["metrics"]
    if not isinstance(claimed, dict) or claimed.keys() != metrics.keys():
        return "it has other metrics than are computed."
    for name, value in metrics.items():
        if type(claimed[name]) not in (int, float) or abs(claimed[name] - value) > SAME:
            return f"{name} is {told(claimed[name])}, computed is {value}."
    return ""


def check_latency(run: Path, claimed: Path, found: Findings) -> None:
    """It can be read and shown, and is about pipelines of the run; its numbers are not checked."""
    shutil.copyfile(claimed, run / NAME)
    try:
        for number, line in lines(claimed):
            try:
                loads(line)
            except Unreadable as error:
                raise Unreadable(f"line {number}: {error}") from None
        timings = read_timings(run)
        records(run)
    except (Unreadable, HarnessError) as error:
        said = error.message.replace(f"{run}/", "") if isinstance(error, HarnessError) else error
        found.add("latency", NAME, f"no table can be made of it: {said}")
        return
    except (ValueError, LookupError, TypeError):
        found.add("latency", NAME, "no table can be made of it: some of its lists do not fit.")
        return
    known = {(*Sample.of(e)[:4], e["system"]) for e in read_manifest(run)["pipelines"]}
    for number, each in enumerate(timings, 1):
        if (each.task, each.split, each.setting, each.fingerprint, each.system) not in known:
            found.add("latency", f"{NAME}:{number}", "no pipeline of the bundle is that one.")
        elif each.measured and not all(0 <= ms < 1e9 for ms in each.measured.whole):
            found.add("latency", f"{NAME}:{number}", "it has times that nothing takes.")

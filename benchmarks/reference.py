"""The reference: five mini tasks × three profiles × three training seeds, as committed.

    python benchmarks/reference.py [--models data/models] [--questions 500] [--seeds 0 1 2]
    python benchmarks/reference.py --only bm25@10+dro@2

Needs depths.json (benchmarks/depths.py). Trains what is missing under ``--models`` (NAME-SEED; seed
0 is shipped), runs the matrix and writes ``results/reference/records.json`` and ``README.md``.
Interrupted, it goes on where it was. ``--only`` measures some pipelines and leaves the cells of all
others, floors and ceilings as they stand there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import orjson

from harness import api
from harness.cli import SYSTEMS, TASKS
from harness.data import Hit
from harness.report.sheet import MINI
from harness.run.progress import told
from harness.score.intervals import cluster_intervals
from harness.score.results import read_scores
from harness.spelling import Pipeline, Spelled, parse_pipeline
from harness.train import train, train_on
from systems.training import CHECKPOINTS

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "reference"
SHIPPED = ROOT / "systems" / "checkpoints"
PROFILES = ("standard", "hard", "shift")
FURTHER = (
    "e5+reader:model=mini-lm-mixtures@7",
    "e5+reader:model=mini-llama@7",
    "rico:steps=1+reader@2",
    "rico:init=bm25+reader@2",
    "rico:model=mini-lm-mixtures+reader@2",
    "rico-state:model=mini-lm-mixtures",
    "rico-soup",
    "bm25@10+dro:part=selector@2+reader@2",
    "retrollm:mode=released",
)
"""Beside those of the default run."""
CEILING = "gold+reader@10"
TOGETHER = ("EM", "nDCG@10")
SHOWN = ("EM", "F1", "nDCG@10", "R@2", "R@5", "RR@10")
HEAD = """# Reference

Five mini tasks, three profiles. Written by
`python benchmarks/reference.py --questions {questions}`; the cells are in `records.json`.

Under each metric: questions (groups). Cells: the shipped checkpoints' mean and 95 %
cluster-bootstrap interval over groups; {seeds}.
`random+reader@0` is the reader without passages, `gold` ranks by gold and reads nothing else: floor
and ceiling of reading.
"""
ONLY = """Last measured, with `--only`: {only}. All other rows stood here before.
"""
USES = {
    "e5": "mini-e5",
    "cross-encoder": "mini-cross-encoder",
    "query-likelihood": "mini-lm",
    "rico": "mini-lm",
    "rico-state": "mini-lm",
    "rico-soup": "mini-lm",
    "reader": "mini-lm",
    "dro": "mini-dro",
    "retrollm": "mini-retrollm",
    "raggd": "mini-raggd",
}


@api.register("systems", "gold")
class Gold:
    """The gold passages and nothing else: what a reader could do behind a perfect ranker. It reads
    gold.jsonl, which no system may, and is known in this script only."""

    def __init__(self, data: str) -> None:
        self.relevant: dict[str, list[str]] = {}
        for file in Path(data).glob("mini-*/*/gold.jsonl"):
            for line in file.read_bytes().splitlines():
                gold = orjson.loads(line)
                right = [each for each, grade in gold["relevance"].items() if grade > 0]
                self.relevant[gold["id"]] = sorted(right)

    def open(self, corpus, folder, brief) -> None:
        """Nothing to open."""

    def retrieve(self, queries, k):
        return [
            [Hit(each, -float(n)) for n, each in enumerate(self.relevant[query.id][:k])]
            for query in queries
        ]


def folder_of(models: Path, name: str, seed: int) -> Path:
    """Where a checkpoint of the matrix is."""
    return SHIPPED / name if seed == 0 else models / f"{name}-{seed}"


def pipelines(names: Sequence[str], models: Path, seed: int, data: Path) -> dict[str, str]:
    """Spellings to run, and what each is called: without the folders of models."""
    found = {}
    for name in names:
        stages = []
        for stage in parse_pipeline(name).stages:
            options = dict(stage.system.options)
            if stage.system.name == "gold":
                options["data"] = str(data)
            elif model := options.get("model") or USES.get(stage.system.name):
                option = "checkpoint" if model in ("mini-dro", "mini-raggd") else "model"
                options[option] = str(folder_of(models, model, seed))
            if stage.system.name == "retrollm":
                options["scorer"] = str(folder_of(models, "mini-cross-encoder", seed))
            stages.append(replace(stage, system=Spelled(stage.system.name, tuple(options.items()))))
        found[str(Pipeline(tuple(stages)).canonical)] = name
    return found


def needed(names: Sequence[str]) -> set[str]:
    """The checkpoints that pipelines use, and those that these are trained from."""
    stages = [stage.system for name in names for stage in parse_pipeline(name).stages]
    found = {dict(each.options).get("model") or USES.get(each.name, "") for each in stages}
    more = {"mini-dro": "mini-selector", "mini-retrollm": "mini-cross-encoder"}
    return found | {more[each] for each in found if each in more}


class Found(NamedTuple):
    """Of one profile and training seed: the cells (floors and ceilings with those of the shipped
    seed), and each question's scores by system and metric, (task, question, group, value)."""

    cells: list[dict]
    scores: dict[tuple[str, str], list[tuple[str, str, str, float]]]


def measured(
    profile: str, seed: int, names: Sequence[str], models: Path, work: Path, questions: int
) -> Found:
    """Run what is missing, and score it."""
    tasks = [f"{task}:profile={profile},questions={questions}" for task in TASKS]
    named = pipelines(names, models, seed, work / "data")
    out = work / f"{profile}-{seed}"
    run = api.run(tasks, list(named), out=out, data=work / "data", progress=told)
    api.score(run)
    cells = [
        {**asdict(cell), "system": named.get(line.system, line.system), "training_seed": seed}
        for table in api.tables(run)
        for line in table.lines
        for cell in line.cells.values()
        if line.system in named or (seed == 0 and CEILING in names)
    ]
    scores: dict[tuple[str, str], list[tuple[str, str, str, float]]] = defaultdict(list)
    for each in read_scores(run):
        for system, lines in each.lines.items():
            for line, metric in product(lines, TOGETHER):
                if system in named and metric in line["metrics"]:
                    score = (each.sample.task, line["id"], line["group"], line["metrics"][metric])
                    scores[named[system], metric].append(score)
    return Found(cells, dict(scores))


def trained(name: str, seed: int, models: Path) -> Path:
    """A checkpoint that a world teaches, trained if it is not there."""
    return train(name, models / f"{name}-{seed}", seed, progress=told)


def trained_dro(
    seed: int, models: Path, data: Path, name: str = "mini-dro", **options: str
) -> Path:
    """DRO from the selector of its seed, trained if it is not there."""
    if seed:
        options["selector"] = str(models / f"mini-selector-{seed}")
    out = models / f"{name}-{seed}"
    return train_on("dro", out, seed, options=options, data=data, progress=told)


def trained_retrollm(
    seed: int, models: Path, data: Path, name: str = "mini-retrollm", **options: str
) -> Path:
    """RetroLLM from the shipped base, trained if it is not there."""
    out = models / f"{name}-{seed}"
    return train_on("retrollm", out, seed, options=options, data=data, progress=told)


def trained_raggd(seed: int, models: Path, data: Path) -> Path:
    """RAG-GD from the shipped base, trained if it is not there."""
    return train_on("raggd", models / f"mini-raggd-{seed}", seed, data=data, progress=told)


OURS = {"mini-dro": trained_dro, "mini-retrollm": trained_retrollm, "mini-raggd": trained_raggd}
"""How those are made that are trained on tasks."""


def together(
    found: Mapping[tuple[str, int], Found], seeds: Sequence[int], kept: Sequence[str]
) -> list[str]:
    """All tasks together: the mean over training seeds of each question, and its interval; behind
    the rows that are ``kept``."""
    columns = list(product(TOGETHER, PROFILES))
    systems = dict.fromkeys(system for system, _ in found[PROFILES[0], seeds[0]].scores)
    rows = {system: [system] for system in systems}
    heads = []
    for metric, profile in columns:
        for system in systems:
            here = [found[profile, seed].scores.get((system, metric)) for seed in seeds]
            if not all(here):
                rows[system].append("–")
                continue
            mean = np.mean([[value for *_, value in each] for each in here], axis=0)
            groups = [f"{task} {group}" for task, _, group, _ in here[0]]
            (centre,), (low,), (high,), (count,) = cluster_intervals(mean[:, None], groups)
            rows[system].append(f"{centre:.3f} ({low:.3f}–{high:.3f})")
        heads.append(f"{metric}, {profile}<br>{len(mean)} ({count})")
    told = f"Mean over {len(seeds)} training seeds; intervals resample each task's groups."
    return [
        *("## Five tasks together", "", f"*{MINI}*", "", told, ""),
        "| system | " + " | ".join(heads) + " |",
        "|:--|" + ":--|" * len(columns),
        *kept,
        *(f"| {' | '.join(row)} |" for row in rows.values()),
        "",
    ]


def standing(names: Sequence[str]) -> tuple[list[dict], list[str]]:
    """Of the committed reference what does not belong to these pipelines: its cells, and its rows
    of all tasks together."""
    records = json.loads((OUT / "records.json").read_text())
    page = (OUT / "README.md").read_text()
    part = page.partition("## Five tasks together")[2].partition("\n### ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")][1:]
    kept = [row for row in rows if row.split(" | ")[0].removeprefix("| ") not in names]
    return [each for each in records if each["system"] not in names], kept


def summary(records: Sequence[Mapping], profile: str, task: str) -> list[str]:
    """A table as markdown: the shipped seed with its interval, then the range over seeds."""
    mine = [r for r in records if r["task"].startswith(f"{task}:") and r["profile"] == profile]
    metrics = [m for m in dict.fromkeys(r["metric"] for r in mine) if m in SHOWN]
    cells: dict[tuple[str, str], dict[int, Mapping]] = defaultdict(dict)
    for record in mine:
        cells[record["system"], record["metric"]][record["training_seed"]] = record
    systems = list(dict.fromkeys(r["system"] for r in mine))
    lines = [
        f"### {task}, {profile}",
        "",
        f"*{MINI}*",
        "",
        "| system | " + " | ".join(f"{m}<br>{_counts(mine, m)}" for m in metrics) + " |",
        "|" + ":--|" * (len(metrics) + 1),
    ]
    for system in systems:
        shown = [_cell(cells[system, metric]) for metric in metrics]
        lines.append(f"| {system} | " + " | ".join(shown) + " |")
    return [*lines, ""]


def _counts(records: Sequence[Mapping], metric: str) -> str:
    first = max((r for r in records if r["metric"] == metric), key=lambda r: r["n"])
    return f"{first['n']} ({first['groups']}), {first['gold']}"


def _cell(by_seed: Mapping[int, Mapping]) -> str:
    first = by_seed.get(0)
    if first is None:
        return "–"
    text = f"{first['value']:.3f}"
    if first["low"] is not None:
        text += f" ({first['low']:.3f}–{first['high']:.3f})"
    values = [record["value"] for record in by_seed.values()]
    if len(values) > 1 and len(set(values)) > 1:
        text += f"<br>seeds {min(values):.3f}–{max(values):.3f}, mean {fmean(values):.3f}"
    return text


def report(
    records: Sequence[Mapping], questions: int, pooled: Sequence[str], only: Sequence[str]
) -> str:
    """The page of the reference; ``only`` some pipelines were measured now."""
    count = len({record["training_seed"] for record in records})
    seeds = f"below, the range and mean over {count} training seeds"
    if count == 1:
        seeds = "trained systems stand here with one training seed"
    lines = [HEAD.format(questions=questions, seeds=seeds)]
    if only:
        lines += [ONLY.format(only=" ".join(f"`{each}`" for each in only))]
    lines += pooled
    for task, profile in product(TASKS, PROFILES):
        lines += summary(records, profile, task)
    return "\n".join(lines)


def main() -> None:
    """Train, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "reference")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    every = (*SYSTEMS, *FURTHER, CEILING)
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="PIPELINE")
    options = parser.parse_args()
    names = tuple(options.only)
    for profile in PROFILES:  # before the pool, which shares what is prepared
        for task in TASKS:
            spelled = f"{task}:profile={profile},questions={options.questions}"
            api.prepare(spelled, data=options.work / "data")
    with ProcessPoolExecutor(options.jobs) as pool:
        more = [seed for seed in options.seeds if seed]
        used = needed(names)
        missing = product((name for name in CHECKPOINTS if name in used), more)
        for job in [pool.submit(trained, *each, options.models) for each in missing]:
            job.result()
        data = options.work / "data"
        ours = product((each for name, each in OURS.items() if name in used), more)
        for job in [pool.submit(each, seed, options.models, data) for each, seed in ours]:
            job.result()
        rest = (names, options.models, options.work, options.questions)
        cells = product(PROFILES, options.seeds)
        jobs = {cell: pool.submit(measured, *cell, *rest) for cell in cells}
        found = {cell: job.result() for cell, job in jobs.items()}
    before, rows = standing(names) if names != every else ([], [])
    records = [*before, *(record for each in found.values() for record in each.cells)]
    OUT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(record) for record in records)
    (OUT / "records.json").write_text(f"[\n{lines}\n]\n")
    pooled = together(found, options.seeds, rows)
    (OUT / "README.md").write_text(
        report(records, options.questions, pooled, () if names == every else names)
    )


if __name__ == "__main__":
    main()

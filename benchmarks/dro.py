"""DRO and what it is to be compared with, on fresh mini worlds, from one command.

    python benchmarks/dro.py [--questions 500] [--seeds 0 1 2] [--models data/models]

For each training seed: a warm start (`mini-selector` of that seed, NAME-SEED under ``--models``; 0
is shipped), from which EM trains both models, the selector alone, the generator alone, and both
with one list a question (as the released code does); the warm-up is the same in all. Then all of
them answer questions of test worlds that nothing was tuned on, beside other readers and other
rankers in their place. Writes ``results/dro/README.md`` and ``figures.json``. Interrupted, it goes
on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from paired import cell
from reference import Gold, trained, trained_dro

from harness import api
from harness.canonical import open_corpus, read_gold
from harness.run.progress import told
from harness.run.store import read_rows
from harness.score.results import Sample, read_manifest, read_scores
from systems.dro.training import Dro, judged_list

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "dro"
WORLD = 71
"""Seed of the test worlds."""
TASKS = {"one hop": "mini-triviaqa", "two hops": "mini-hotpotqa", "two to four": "mini-musique"}
VARIANTS = {
    "warm start": {"iterations": "0"},
    "DRO": {},
    "without selector training": {"without": "selector"},
    "without generator training": {"without": "generator"},
    "one list a question": {"samples": "1"},
    "constant weights": {"norm": "none"},
}
KEEP = 2
SYSTEMS = {
    **{name: f"bm25@10+dro:checkpoint={{{name}}}@2" for name in VARIANTS},
    "its selector, another reader": "bm25@10+dro:checkpoint={DRO},part=selector@2+reader@2",
    "BM25, its generator": "bm25+dro:checkpoint={DRO},part=generator@2",
    "cross-encoder, its generator": "bm25@10+cross-encoder:model={encoder}"
    "+dro:checkpoint={DRO},part=generator@2",
    "gold passages, its generator": "gold:data={data}+dro:checkpoint={DRO},part=generator@2",
}
METRICS = ("EM", "F1", "answer_R", "support_R")
SHOWN = {"EM": "EM", "F1": "F1", "answer_R": "answer in the list", "support_R": "support in it"}


def checkpoint(name: str) -> str:
    """What the checkpoint of a variant is called, but for its seed."""
    return "mini-dro" if name == "DRO" else f"dro {name}".replace(" ", "-")


def variant(models: Path, name: str, seed: int) -> Path:
    """Where a variant's checkpoint is."""
    return models / f"{checkpoint(name)}-{seed}"


def taught(name: str, seed: int, models: Path, data: Path) -> None:
    """Train a variant, if it is not there."""
    trained_dro(seed, models, data, checkpoint(name), **VARIANTS[name])


def measured(seed: int, models: Path, work: Path, questions: int) -> list[dict]:
    """A line for each system, task and question: its scores."""
    places = {name: str(variant(models, name, seed)) for name in VARIANTS}
    places |= {"encoder": "mini-cross-encoder", "data": str(work / "data")}
    if seed:
        places["encoder"] = str(models / f"mini-cross-encoder-{seed}")
    named = {spelling.format(**places): name for name, spelling in SYSTEMS.items()}
    tasks = [f"{task}:questions={questions},seed={WORLD}" for task in TASKS.values()]
    run = api.run(tasks, list(named), out=work / f"seed-{seed}", data=work / "data", progress=told)
    api.score(run)
    read = {
        (Sample.of(entry).digest, entry["system"]): list(read_rows(run / entry["rows"]))
        for entry in read_manifest(run)["pipelines"]
    }
    known = {each.name: each for each in work.joinpath("data").glob("mini-*/*") if each.is_dir()}
    lines = []
    for table in read_scores(run):
        folder = known[table.sample.fingerprint]
        gold, corpus = read_gold(folder), open_corpus(folder)
        kind = next(name for name, task in TASKS.items() if table.sample.task.startswith(task))
        for system, scores in table.lines.items():
            if system not in named:
                continue
            rows = {row.id: row for row in read[table.sample.digest, system]}
            for line in scores:
                right = gold[line["id"]]
                if not right.answers or not right.answerable:
                    continue
                listed = [corpus[each] for each in rows[line["id"]].read[:KEEP]]
                support = [each for each, grade in right.relevance.items() if grade > 0]
                values = {
                    **{metric: line["metrics"][metric] for metric in ("EM", "F1")},
                    **judged_list(listed, right.answers, support),
                }
                place = {"kind": kind, "id": line["id"], "group": f"{kind} {line['group']}"}
                lines.append({"system": named[system], "seed": seed, **place, **values})
    return lines


def curves(seeds: Sequence[int], models: Path) -> list[str]:
    """What each iteration came to, the mean over seeds and the range."""
    lines = []
    for name in VARIANTS:
        by_turn: dict[int, list[dict]] = {}
        for seed in seeds:
            about = json.loads((variant(models, name, seed) / "about.json").read_text())
            for each in about["iterations"]:
                by_turn.setdefault(each["iteration"], []).append(each)
        lines += [f"### {name}", ""]
        keys = ("bound", "elbo", "ess", "variance", "m2_variance", "different")
        keys = (*keys, "dev_EM", "dev_F1", "dev_answer_R@5", "dev_support_R@5", "cpu_s")
        lines += [
            "| iteration | seeds | " + " | ".join(keys) + " |",
            "|--:" * (len(keys) + 2) + "|",
        ]
        for turn, records in by_turn.items():
            cells = []
            for key in keys:
                values = [each[key] for each in records if key in each]
                text = f"{fmean(values):.4g}" if values else "–"
                if len(values) > 1:
                    text += f" ({min(values):.4g}–{max(values):.4g})"
                cells.append(text)
            lines.append(f"| {turn} | {len(records)} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def report(lines: Sequence[Mapping], options: argparse.Namespace) -> str:
    """The page."""
    of = {name: [each for each in lines if each["system"] == name] for name in SYSTEMS}
    counts = {
        kind: len({line["id"] for line in of["DRO"] if line["kind"] == kind}) for kind in TASKS
    }
    told = ", ".join(f"{count} of {kind} ({TASKS[kind]})" for kind, count in counts.items())
    seeds = len(options.seeds)
    page = [
        "# DRO on the mini world",
        "",
        f"Written by `python benchmarks/dro.py --questions {options.questions}`: test worlds of "
        f"seed {WORLD}, questions that have an answer: {told}; lists of {KEEP} out of BM25's ten "
        f"best. Mean over {seeds} training seeds with a 95 % interval over groups of questions "
        "that share a gold passage; below it the paired difference to DRO. *Mini world: mechanism "
        "tests, nothing about real data.*",
        "",
    ]
    for metric in METRICS:
        page += [
            f"## {SHOWN[metric]}",
            "",
            "| system | " + " | ".join([*TASKS, "together"]) + " |",
            "|:--" * (len(TASKS) + 2) + "|",
        ]
        for name, mine in of.items():
            cells = []
            for kinds in [*([kind] for kind in TASKS), list(TASKS)]:
                part, dro = (
                    [line for line in some if line["kind"] in kinds] for some in (mine, of["DRO"])
                )
                cells.append(cell(part, dro, metric))
            page.append(f"| {name} | " + " | ".join(cells) + " |")
        page.append("")
    page += [
        "## Training",
        "",
        f"Taught by {', '.join(Dro.tasks)} behind `{Dro.first}`; dev questions are of the train "
        "split. Mean over seeds (range). `bound` is the log of the mean likelihood of the answer "
        "over the lists drawn, `elbo` the mean of its log, `ess` the effective number of 8 lists, "
        "`variance` that of their weights (which falls with m² by itself: `m2_variance`).",
        "",
        *curves(options.seeds, options.models),
    ]
    return "\n".join(page)


def main() -> None:
    """Train, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "dro")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    data = options.work / "data"
    for task in TASKS.values():  # before the pool, which shares what is prepared
        api.prepare(f"{task}:questions={options.questions},seed={WORLD}", data=data)
    for task in Dro.tasks:
        api.prepare(task, split="train", data=data)
    assert Gold  # known to the registry by being imported
    with ProcessPoolExecutor(options.jobs) as pool:
        ours = product(("mini-selector", "mini-cross-encoder"), filter(None, options.seeds))
        for job in [pool.submit(trained, *each, options.models) for each in ours]:
            job.result()
        every = product(VARIANTS, options.seeds)
        for job in [pool.submit(taught, *each, options.models, data) for each in every]:
            job.result()
        rest = (options.models, options.work, options.questions)
        jobs = [pool.submit(measured, seed, *rest) for seed in options.seeds]
        lines = [line for job in jobs for line in job.result()]
    OUT.mkdir(parents=True, exist_ok=True)
    figures = [
        {
            "system": name,
            "kind": kind,
            "training_seed": seed,
            "n": len(part),
            **{metric: round(fmean(each[metric] for each in part), 4) for metric in METRICS},
        }
        for name, kind, seed in product(SYSTEMS, TASKS, options.seeds)
        if (
            part := [
                line
                for line in lines
                if (line["system"], line["kind"], line["seed"]) == (name, kind, seed)
            ]
        )
    ]
    (OUT / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (OUT / "README.md").write_text(report(lines, options) + "\n")


if __name__ == "__main__":
    main()

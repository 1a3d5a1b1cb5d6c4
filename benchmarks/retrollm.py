"""RetroLLM and what it is to be compared with, on fresh mini worlds of 10,000 documents.

    python benchmarks/retrollm.py [--questions 500] [--seeds 0 1 2] [--models data/models]

Trains what is missing under ``--models`` (NAME-SEED; seed 0 of `mini-retrollm` is shipped), runs
all variants in the corpus setting on test worlds that nothing was tuned on, beside BM25 with a
reader of the same base model, and checks each evidence against the document that it names. Writes
``results/retrollm/README.md`` and ``figures.json``. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from paired import cell
from reference import SHIPPED, Gold, folder_of, trained, trained_retrollm

from harness import api
from harness.canonical import open_corpus
from harness.corpus import Corpus
from harness.data import Row
from harness.run.progress import told
from harness.run.store import read_rows
from harness.score.results import Sample, read_manifest, read_scores
from systems.models.language import open_lm
from systems.retrollm.form import sentence_spans
from systems.retrollm.texts import WordScript
from systems.retrollm.training import RetroLLM

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "retrollm"
WORLD = 83
"""Seed of the test worlds."""
TASKS = {
    "one hop": "mini-triviaqa:documents=10000,questions={questions},seed={seed}",
    "one hop, near twins and nicknames": "mini-triviaqa:documents=10000,profile=hard,"
    "questions={questions},seed={seed}",
    "two hops": "mini-hotpotqa:documents=10000,questions={questions},seed={seed}",
}
OURS = "retrollm:model={model},scorer={scorer}"
EVERYWHERE = {
    "RetroLLM": OURS,
    "without look-ahead (λ = 0)": f"{OURS},lookahead=0",
    "without clues": f"{OURS},clues=none",
    "without expansion": f"{OURS},expansion=none",
    "clues again behind evidence": "retrollm:model={again},scorer={scorer},again=3",
    "BM25, reader of 1": "bm25+reader:model=mini-llama@1",
    "BM25, reader of 5": "bm25+reader:model=mini-llama@5",
    "BM25, cross-encoder, reader of 1": "bm25@25+cross-encoder:model={scorer}"
    "+reader:model=mini-llama@1",
    "gold passages, reader": "gold:data={data}+reader:model=mini-llama@5",
}
ONE_HOP = {
    "as released (order of windows)": f"{OURS},mode=released",
    "evidence from any token (as written)": f"{OURS},starts=any",
    "constraint of the corpus alone": f"{OURS},constraint=corpus,clues=none",
    "no constraint": f"{OURS},constraint=none,clues=free",
    "raw scores": f"{OURS},scale=raw",
    "25 candidates": f"{OURS},candidates=25",
    "trained with 80 % masked": "retrollm:model={masked},scorer={scorer}",
}
"""On the first kind alone."""
SYSTEMS = {**EVERYWHERE, **ONE_HOP}
VARIANTS = {"mini-retrollm": {}, "again": {"again": "true"}, "masked": {"masked": "0.8"}}
METRICS = ("Acc", "AccOutput", "EvidenceR@1", "EvidenceR@5")
COUNTS = ("prompt_tokens", "new_tokens", "scored_tokens", "evidences")


def taught(name: str, seed: int, models: Path, data: Path) -> None:
    """Train a variant, if it is not there."""
    trained_retrollm(seed, models, data, name, **VARIANTS[name])


def places_of(seed: int, models: Path, data: Path) -> dict[str, str]:
    """Where the models of a seed are."""
    return {
        "model": str(folder_of(models, "mini-retrollm", seed)),
        "scorer": str(folder_of(models, "mini-cross-encoder", seed)),
        "again": str(models / f"again-{seed}"),
        "masked": str(models / f"masked-{seed}"),
        "data": str(data),
    }


def measured(seed: int, kind: str, models: Path, work: Path, questions: int) -> list[dict]:
    """A line for each system and question: its scores and counts."""
    named = {
        spelling.format(**places_of(seed, models, work / "data")): name
        for name, spelling in (SYSTEMS if kind == "one hop" else EVERYWHERE).items()
        if name != "trained with 80 % masked" or whole(models, "masked", seed)
    }
    task = TASKS[kind].format(questions=questions, seed=WORLD)
    out = work / f"{kind.replace(' ', '-').replace(',', '')}-{seed}"
    run = api.run([task], list(named), out=out, data=work / "data", setting="corpus", progress=told)
    api.score(run, metrics=METRICS)
    folders = {each.name: each for each in (work / "data").glob("mini-*/*") if each.is_dir()}
    entries = {each["system"]: each for each in read_manifest(run)["pipelines"]}
    lines = []
    for table in read_scores(run):
        corpus = open_corpus(folders[table.sample.fingerprint])
        for system, scores in table.lines.items():
            if system not in named:
                continue
            assert Sample.of(entries[system]) == table.sample
            rows = {row.id: row for row in read_rows(run / entries[system]["rows"])}
            for line in scores:
                if "EM" not in line["metrics"]:
                    continue
                row = rows[line["id"]]
                counts = {name: row.counts.get(name, 0) for name in COUNTS}
                checked = dict(zip(("spans", "sound"), evidence_of(row, corpus), strict=True))
                place = {"system": named[system], "kind": kind, "seed": seed}
                known = {"id": line["id"], "group": f"{kind} {line['group']}"}
                lines.append({**place, **known, **line["metrics"], **counts, **checked})
    return lines


def evidence_of(row: Row, corpus: Corpus) -> tuple[int, int]:
    """How many spans a row names, and how many of them are whole words of the document's text, by
    a reading of its own."""
    spans = [each for each in (row.answer and row.answer.evidence) or () if each.span]
    sound = 0
    for each in spans:
        text = corpus[each.doc_id].text
        (read,) = SCRIPT.read([text])
        start, end = each.span
        inside = [span for span in read.spans if start <= span[0] and span[1] <= end]
        whole = inside and (inside[0][0], inside[-1][1]) == (start, end)
        first = start in {begin for begin, _ in sentence_spans(corpus[each.doc_id])}
        (again,) = SCRIPT.read([text[start:end]])
        place = read.spans.index(inside[0]) if whole else 0
        sound += bool(whole and again.ids == read.ids[place : place + len(inside)] and first)
    return len(spans), sound


SCRIPT = WordScript(open_lm(SHIPPED / "mini-llama").prompts.words, growing=True)  # type: ignore[attr-defined]


def report(lines: Sequence[Mapping], options: argparse.Namespace) -> str:
    """The page."""
    of = {name: [each for each in lines if each["system"] == name] for name in SYSTEMS}
    full = of["RetroLLM"]
    counts = {k: len({line["id"] for line in full if line["kind"] == k}) for k in TASKS}
    told_counts = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    checked = [line for name in SYSTEMS for line in of[name] if SYSTEMS[name].startswith(OURS[:8])]
    checked = [line for line in checked if line["system"] not in UNCHECKED]
    spans, sound = (sum(line[name] for line in checked) for name in ("spans", "sound"))
    page = [
        "# RetroLLM on the mini world",
        "",
        f"Written by `python benchmarks/retrollm.py --questions {options.questions}`: worlds of "
        f"10,000 documents, seed {WORLD}, the whole corpus to be searched; questions that have an "
        f"answer: {told_counts}. Mean over {len(options.seeds)} training seeds (fewer where a row "
        "says so) with a 95 % interval over groups of questions that share a gold passage; below "
        "it the paired difference to RetroLLM. *Mini world: mechanism tests, nothing about real "
        "data.*",
        "",
        f"Of {spans:,} evidences that were written under a constraint and from sentence starts, "
        f"{sound:,} are, token for token, a run of the document that they name, from the beginning "
        "of a sentence.",
        "",
        "## EM",
        "",
        *table(of, full, list(TASKS), "EM"),
        "",
        "## One hop: what was written",
        "",
        "Means over questions and seeds. Tokens are those of the stage that answers, which a "
        "cross-encoder reads (`for scores`) apart.",
        "",
        *details(of),
        "",
    ]
    return "\n".join(page)


UNCHECKED = (
    "as released (order of windows)",
    "evidence from any token (as written)",
    "no constraint",
)
"""Variants whose evidence may begin anywhere."""


def table(
    of: Mapping[str, list], full: Sequence[Mapping], kinds: Sequence[str], metric: str
) -> Iterator[str]:
    """A metric of all systems."""
    yield "| system | " + " | ".join(kinds) + " |"
    yield "|:--" * (len(kinds) + 1) + "|"
    for name, mine in of.items():
        cells = []
        for kind in kinds:
            part = [line for line in mine if line["kind"] == kind]
            seeds = {line["seed"] for line in part}
            against = [line for line in full if line["kind"] == kind and line["seed"] in seeds]
            cells.append(cell(part, against, metric) if part else "–")
            if part and len(seeds) < len({line["seed"] for line in full}):
                cells[-1] += f"<br>{len(seeds)} of the seeds"
        yield f"| {name} | " + " | ".join(cells) + " |"


def details(of: Mapping[str, list]) -> Iterator[str]:
    """Accuracy of the answer and of all that was written, evidence, tokens; means."""
    yield "| system | EM | " + " | ".join(METRICS) + " | tokens in | out | for scores | evidences |"
    yield "|:--" * (len(METRICS) + 6) + "|"
    for name, mine in of.items():
        part = [line for line in mine if line["kind"] == "one hop"]
        cells = []
        for metric in ("EM", *METRICS):
            values = [line[metric] for line in part if metric in line]
            cells.append(f"{fmean(values):.3f}" if values else "–")
        for count in COUNTS:
            cells.append(f"{fmean(line[count] for line in part):.1f}" if part else "–")
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Train, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "retrollm")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--masked", type=int, nargs="*", default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    data = options.work / "data"
    for task in TASKS.values():  # before the pool, which shares what is prepared
        api.prepare(task.format(questions=options.questions, seed=WORLD), data=data)
    assert Gold  # known to the registry by being imported
    later = [seed for seed in options.seeds if seed]
    wanted = [("mini-retrollm", seed) for seed in later]
    wanted += [("again", seed) for seed in options.seeds]
    wanted += [("masked", seed) for seed in options.masked]
    if missing := [each for each in wanted if not whole(options.models, *each)]:
        for task in RetroLLM.tasks:
            api.prepare(task, split="train", data=data)
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(trained, "mini-cross-encoder", each, options.models) for each in later]
        jobs += [pool.submit(taught, *each, options.models, data) for each in missing]
        for job in jobs:
            job.result()
        rest = (options.models, options.work, options.questions)
        runs = [pool.submit(measured, *each, *rest) for each in product(options.seeds, TASKS)]
        lines = [line for job in runs for line in job.result()]
    OUT.mkdir(parents=True, exist_ok=True)
    figures = []
    for name, kind, seed in product(SYSTEMS, TASKS, options.seeds):
        part = [e for e in lines if (e["system"], e["kind"], e["seed"]) == (name, kind, seed)]
        if part:
            means = {
                metric: round(fmean(each[metric] for each in part if metric in each), 4)
                for metric in ("EM", "F1", *METRICS, *COUNTS)
                if any(metric in each for each in part)
            }
            place = {"system": name, "kind": kind, "training_seed": seed, "n": len(part)}
            figures.append({**place, **means})
    (OUT / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (OUT / "README.md").write_text(report(lines, options) + "\n")


def whole(models: Path, name: str, seed: int) -> bool:
    """Whether a training is done."""
    return (models / f"{name}-{seed}" / "about.json").exists()


if __name__ == "__main__":
    main()

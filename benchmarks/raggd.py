"""RAG-GD and what it is to be compared with, on forms of answers that only demonstrations tell.

    python benchmarks/raggd.py [--questions 65] [--seeds 0 1 2] [--models data/models]

Trains what is missing under ``--models`` (mini-raggd-SEED, of which seed 0 is shipped, and from
each its rivals, K = 1 and 10, and a predictor that sees the state at the end alone), runs all
methods on the same retrieval for the eight forms that no training saw and for two that it did,
compares updates with their targets, and measures what adapting costs. Writes
``results/raggd/README.md`` and ``figures.json``. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import torch
from paired import cell
from reference import folder_of, trained_raggd
from safetensors.torch import load_file, save_file

from harness import api
from harness.data import Example
from harness.examples import retrieved_examples, train_plan
from harness.manifest import file_hash
from harness.run.progress import told
from harness.score.results import read_manifest, read_scores
from harness.train import train_on
from systems.models.hub import base_folder
from systems.raggd.interface import Factors, Interface, Term, taken
from systems.raggd.predictor import distance, load_predictor
from systems.raggd.settings import Settings
from systems.raggd.system import RagGd
from systems.raggd.training import RagGd as Recipe
from systems.raggd.training import by_family

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "raggd"
WORLD = 83
"""Seed of the test worlds."""
OPENS, CLOSES = "at by for from in of to with".split(), "also first much one".split()
KINDS = {
    "held out": [(each, CLOSES[place % 4]) for place, each in enumerate(OPENS)],
    "trained": [(each, CLOSES[(place + 1) % 4]) for place, each in enumerate(OPENS[:2])],
}
"""Forms: first and last word."""
FORM = "mini-forms:opens={},closes={},questions={},seed={}"
OURS, OTHERS = "raggd:checkpoint={made}", "raggd:checkpoint={rivals}"
READER = "reader:model=mini-llama"
SYSTEMS = {
    "query only": f"{READER}@0",
    "vanilla": f"bm25+{READER}@5",
    "vanilla, few-shot": f"bm25+{READER},shots=3@5",
    "base adapter": f"bm25+{OURS},mode=base@5",
    "base adapter, few-shot": f"bm25+{OURS},mode=few-shot@5",
    "prompt tuning": f"bm25+{OTHERS},mode=prompt-tuning@5",
    "HyperTuning": f"bm25+{OTHERS},mode=hypertuning@5",
    **{f"TT-SGD, K = {k}": f"bm25+{OURS},mode=ttsgd,k={k}@5" for k in (1, 5, 10)},
    "RAG-GD, K = 1": f"bm25+{OTHERS},k=1@5",
    "RAG-GD, K = 5": f"bm25+{OURS},k=5@5",
    "RAG-GD, K = 10": f"bm25+{OTHERS},k=10@5",
    "RAG-GD, K = 5, a support for each question": f"bm25+{OURS},k=5,support=per-question@5",
    "RAG-GD, K = 5, the state at the end alone": "bm25+raggd:checkpoint={end}@5",
    "RAG-GD, K = 5, demonstrations of another form": "bm25+given:checkpoint={made},file={other}@5",
    "mean update, K = 5": "bm25+given:checkpoint={made},file={mean}@5",
}
MAIN = "RAG-GD, K = 5"
SUPPORTS, POOL = 4, 120
"""Of each form, whose updates are compared; of the training, whose mean update is taken."""


@api.register("systems", "given")
class Given(RagGd):
    """The base adapter with the update of a file."""

    def __init__(self, checkpoint: str, file: str) -> None:
        super().__init__(checkpoint, "base")
        self.given = Path(file)

    def files(self) -> Sequence[Path]:
        return [*super().files(), self.given]

    def open(self, corpus, folder, brief) -> None:
        super().open(corpus, folder, brief)
        self.update = Term(_factors(load_file(self.given)))


def _factors(found: Mapping[str, torch.Tensor]) -> Factors:
    names = sorted({name.rpartition(" ")[0] for name in found})
    return {name: (found[f"{name} B"], found[f"{name} A"]) for name in names}


def _write(factors: Factors, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        f"{n} {p}": each for n, pair in factors.items() for p, each in zip("BA", pair, strict=True)
    }
    save_file({name: each.contiguous() for name, each in parts.items()}, file)


# --- training -----------------------------------------------------------------------------


def taught(seed: int, models: Path, data: Path) -> None:
    """The checkpoints of a seed."""
    made = trained_raggd(seed, models, data) if seed else folder_of(models, "mini-raggd", 0)
    rest = {"model": str(made), "base_steps": "0"}
    rivals = {**rest, "steps_of_descent": "1,10", "rivals": "all"}
    parts = {"rivals": rivals} | ({} if seed else {"end": {**rest, "feature": "end"}})
    for name, options in parts.items():
        train_on("raggd", models / f"raggd-{name}-{seed}", seed, options=options, data=data)


def places_of(seed: int, models: Path) -> dict[str, Path]:
    """Where the models of a seed are."""
    others = {name: models / f"raggd-{name}-{seed}" for name in ("rivals", "end")}
    return {"made": folder_of(models, "mini-raggd", seed), **others}


def recipe_of(seed: int, models: Path, data: Path) -> Recipe:
    """A training that is over: its base adapter, its supports and their targets."""
    plan = train_plan(Recipe.tasks, Recipe.first, data=data)
    examples = retrieved_examples(plan, data.parent / f"first-{seed}", data, told)
    made = places_of(seed, models)["made"]
    return Recipe(examples, seed, Settings(model=str(made), base_steps=0))


def mean_update(recipe: Recipe) -> Factors:
    """The mean of the targets of `POOL` supports: one product of all their factors."""
    target = recipe._targets(range(POOL))[5]
    return {
        name: (b.transpose(0, 1).flatten(1) / POOL, a.flatten(0, 1))
        for name, (b, a) in target.items()
    }


# --- updates and their targets --------------------------------------------------------------


def supports(kind: str, seed: int, questions: int, data: Path) -> list[list[list[Example]]]:
    """Demonstrations of each form of a kind, of the train split of its tasks."""
    tasks = [FORM.format(*form, questions, WORLD) for form in KINDS[kind]]
    plan = train_plan(tasks, "bm25@5", data=data)
    found = retrieved_examples(plan, data.parent / f"{kind}-{seed}", data)
    families = by_family(found, 3)
    return [[each[3 * n : 3 * n + 3] for n in range(SUPPORTS)] for each in families]


def compared(seed: int, models: Path, work: Path, questions: int) -> list[dict[str, Any]]:
    """`compare`, once for a model."""
    made = places_of(seed, models)["made"]
    kept = work / f"compared-{seed}-{file_hash(made)}-{questions}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(compare(seed, models, work, questions)))
    asked = {" … ".join(form) for forms in KINDS.values() for form in forms}
    return [line for line in json.loads(kept.read_text()) if line["form"] in asked]


def compare(seed: int, models: Path, work: Path, questions: int) -> list[dict[str, Any]]:
    """How near predictions come to their targets, and files of updates for `Given`."""
    torch.set_num_threads(1)
    data, places = work / "data", places_of(seed, models)
    recipe = recipe_of(seed, models, data)
    mean = mean_update(recipe)
    _write(mean, work / "updates" / f"mean-{seed}.safetensors")
    interface = Interface.open(places["made"], base_folder(places["made"]), "cpu", "float32")
    lines: list[dict[str, Any]] = []
    for kind, forms in KINDS.items():
        drawn = supports(kind, seed, questions, data)
        rows = [[interface.demonstration(e) for e in one] for each in drawn for one in each]
        rate = recipe.settings.descent_rate
        target = interface.difference(interface.descended(rows, rate, [5])[5])
        found = updates_of(rows, target, mean, interface, places)
        for name, each in found.items():
            how = distance(each, target)
            of = (f for f in forms for _ in range(SUPPORTS))
            for form, cosine, ratio in zip(of, how.cosine, how.log_ratio, strict=True):
                place = {"what": name, "kind": kind, "seed": seed, "form": " … ".join(form)}
                lines.append({**place, "cosine": cosine.item(), "log_ratio": ratio.item()})
        for place, form in enumerate(forms):
            one = taken(found["prediction, of another form"], place * SUPPORTS)
            _write(one, work / "updates" / f"other-{seed}-{'-'.join(form)}.safetensors")
    return lines


def updates_of(
    rows: Sequence[Sequence[Any]],
    target: Factors,
    mean: Factors,
    interface: Interface,
    places: Mapping[str, Path],
) -> dict[str, Factors]:
    """Updates for supports, by what makes them."""
    count = len(rows)
    copies = {n: tuple(each.expand(count, -1, -1) for each in pair) for n, pair in mean.items()}
    found: dict[str, Factors] = {"mean update": copies}  # type: ignore[dict-item]
    with torch.no_grad():
        features = torch.stack([interface.features(one).mean(dim=0) for one in rows])
        for name, folder in (("prediction", "made"), ("prediction from the end alone", "end")):
            if (file := places[folder] / "predictor-5.safetensors").exists():
                found[name] = load_predictor(file, "cpu")[0](features)
    away = [(place + SUPPORTS) % count for place in range(count)]
    found["prediction, of another form"] = taken(found["prediction"], away)
    found["target, of another form"] = taken(target, away)
    return found


# --- answers --------------------------------------------------------------------------------


def measured(
    seed: int, kind: str, models: Path, work: Path, questions: int
) -> list[dict[str, Any]]:
    """A line for each form, system and question."""
    lines = []
    for form in KINDS[kind]:
        updates = work / "updates"
        places = {
            **places_of(seed, models),
            "mean": updates / f"mean-{seed}.safetensors",
            "other": updates / f"other-{seed}-{'-'.join(form)}.safetensors",
        }
        there = {name: text for name, text in SYSTEMS.items() if "{end}" not in text or seed == 0}
        named = {text.format(**places): name for name, text in there.items()}
        task = FORM.format(*form, questions, WORLD)
        out = work / f"{'-'.join(form)}-{seed}"
        run = api.run([task], list(named), out=out, data=work / "data", seed=seed, progress=told)
        api.score(run)
        assert {each["system"] for each in read_manifest(run)["pipelines"]} >= set(named)
        for table in read_scores(run):
            for system, scores in table.lines.items():
                for line in scores if system in named else ():
                    place = {"system": named[system], "kind": kind, "seed": seed}
                    known = {"id": f"{form} {line['id']}", "group": " … ".join(form)}
                    lines.append(
                        {**place, **known, "EM": line["metrics"]["EM"], "F1": line["metrics"]["F1"]}
                    )
    return lines


# --- cost -----------------------------------------------------------------------------------

TIMED = (
    "vanilla",
    "base adapter",
    "base adapter, few-shot",
    *(f"TT-SGD, K = {k}" for k in (1, 5, 10)),
    MAIN,
)
EACH = {
    f"{MAIN}, for each question": f"bm25+{OURS},k=5,support=per-question@5",
    "TT-SGD, K = 5, for each question": f"bm25+{OURS},mode=ttsgd,k=5,support=per-question@5",
}


def costs(models: Path, work: Path) -> list[dict[str, Any]]:
    """What adapting costs, and a question."""
    spelled = {**{name: SYSTEMS[name] for name in TIMED}, **EACH}
    texts = {text.format(**places_of(0, models)): name for name, text in spelled.items()}
    task = FORM.format(*KINDS["held out"][0], 400, WORLD)
    told_to = {"data": work / "data", "out": work / "latency", "rounds": 2}
    run = api.latency([task], list(texts), progress=told, **told_to)
    found = [each for each in api.latencies(run) if each.system in texts]
    return [
        {
            "system": texts[each.system],
            "adapt_once_ms": each.adapt_once_ms,
            "adapt_p50_ms": each.adapt_p50_ms,
            "p50_ms": each.p50_ms,
            "p95_ms": each.p95_ms,
            "tokens": each.tokens,
            "peak_mb": each.peak_bytes and each.peak_bytes / 1e6,
            "remark": each.remark,
        }
        for each in found
    ]


# --- the page -------------------------------------------------------------------------------


def over_seeds(lines: Sequence[Mapping], what: str) -> str:
    """A mean over training seeds, and their spread."""
    seeds = sorted({line["seed"] for line in lines})
    each = [fmean(line[what] for line in lines if line["seed"] == seed) for seed in seeds]
    return f"{fmean(each):.3f}" + (f" ± {stdev(each):.3f}" if len(each) > 1 else "")


def answers_table(lines: Sequence[Mapping], metric: str) -> Iterator[str]:
    """A metric of all systems on both kinds of forms."""
    yield "| system | " + " | ".join(KINDS) + " | seeds, held out |"
    yield "|:--" * (len(KINDS) + 2) + "|"
    for name in SYSTEMS:
        cells = []
        for kind in KINDS:
            mine, main = (
                [each for each in lines if (each["system"], each["kind"]) == (one, kind)]
                for one in (name, MAIN)
            )
            seeds = {each["seed"] for each in mine}
            cells.append(cell(mine, [each for each in main if each["seed"] in seeds], metric))
        held = [e for e in lines if (e["system"], e["kind"]) == (name, "held out")]
        yield f"| {name} | " + " | ".join(cells) + f" | {over_seeds(held, metric)} |"


def updates_table(lines: Sequence[Mapping]) -> Iterator[str]:
    """How near updates come to what descent makes."""
    yield "| update | " + " | ".join(f"cosine, {k} | log ratio, {k}" for k in KINDS) + " |"
    yield "|:--" * (2 * len(KINDS) + 1) + "|"
    for name in dict.fromkeys(each["what"] for each in lines):
        cells = []
        for kind in KINDS:
            part = [e for e in lines if (e["what"], e["kind"]) == (name, kind)]
            cells += [over_seeds(part, "cosine"), over_seeds(part, "log_ratio")]
        yield f"| {name} | " + " | ".join(cells) + " |"


def costs_table(found: Sequence[Mapping]) -> Iterator[str]:
    """Milliseconds and tokens."""
    heads = ("adapt_once_ms", "adapt_p50_ms", "p50_ms", "p95_ms", "tokens", "peak_mb", "remark")
    yield "| system | once, ms | a question, ms | p50, ms | p95, ms | tokens | peak, MB | |"
    yield "|:--" * (len(heads) + 1) + "|"
    for each in found:
        cells = [
            v if isinstance(v := each[h], str) else "–" if v is None else f"{v:.1f}" for h in heads
        ]
        yield f"| {each['system']} | " + " | ".join(cells) + " |"


def report(
    lines: Sequence[Mapping], updates: Sequence[Mapping], found: Sequence[Mapping], options: Any
) -> str:
    """The page."""
    count = {kind: len({e["id"] for e in lines if e["kind"] == kind}) for kind in KINDS}
    told_counts = ", ".join(f"{each} of forms {kind}" for kind, each in count.items())
    page = [
        "# RAG-GD on the mini world",
        "",
        f"Written by `python benchmarks/raggd.py --questions {options.questions}`: one-hop "
        "questions whose answers have to begin and end with a certain word, which demonstrations "
        f"alone tell (`mini-forms`); seed {WORLD} of the test worlds, pools of ten, of which the "
        f"five that BM25 ranks best are read; {told_counts}. Of the 32 forms, 8 were kept out of "
        f"every training. Means over {len(options.seeds)} training seeds, each with its own "
        "demonstrations (the state at the end: one seed), and a "
        "95 % interval that resamples the eight forms; below it the paired difference to "
        f"{MAIN}. The last column has the spread (standard deviation) of training seeds. *Mini "
        "world: mechanism tests, nothing about real data.*",
        "",
        "## EM",
        "",
        *answers_table(lines, "EM"),
        "",
        "## F1",
        "",
        *answers_table(lines, "F1"),
        "",
        "## Updates and what five steps of descent make",
        "",
        f"Means over projections, {SUPPORTS} supports of each form and training seeds (± their "
        "spread).",
        "",
        *updates_table(updates),
        "",
        "## Cost",
        "",
        "`harness latency` on one held-out form, one thread, the models of seed 0: what adapting "
        "costs once for a task, or for each question, and a whole question.",
        "",
        *costs_table(found),
        "",
    ]
    return "\n".join(page)


def main() -> None:
    """Train, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "raggd")
    parser.add_argument("--questions", type=int, default=65)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    data = options.work / "data"
    for task in Recipe.tasks:  # before the pool, which shares what is prepared
        api.prepare(task, split="train", data=data)
    for form, split in product([f for each in KINDS.values() for f in each], ("test", "train")):
        api.prepare(FORM.format(*form, options.questions, WORLD), split=split, data=data)
    models, work = options.models.resolve(), options.work
    with ProcessPoolExecutor(options.jobs) as pool:
        for job in [pool.submit(taught, each, models, data) for each in options.seeds]:
            job.result()
    with ProcessPoolExecutor(options.jobs) as pool:
        rest = (models, work, options.questions)
        parts = [pool.submit(compared, seed, *rest) for seed in options.seeds]
        updates = [line for part in parts for line in part.result()]
        runs = [pool.submit(measured, *each, *rest) for each in product(options.seeds, KINDS)]
        lines = [line for job in runs for line in job.result()]
    found = costs(models, work)
    OUT.mkdir(parents=True, exist_ok=True)
    kept = [
        {"system": name, "kind": kind, "training_seed": seed, "n": len(part)}
        | {metric: round(fmean(each[metric] for each in part), 4) for metric in ("EM", "F1")}
        for name, kind, seed in product(SYSTEMS, KINDS, options.seeds)
        if (part := [e for e in lines if (e["system"], e["kind"], e["seed"]) == (name, kind, seed)])
    ]
    figures = {"answers": kept, "updates": updates, "costs": found}
    (OUT / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (OUT / "README.md").write_text(report(lines, updates, found, options) + "\n")


if __name__ == "__main__":
    main()

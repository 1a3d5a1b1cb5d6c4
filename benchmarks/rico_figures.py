"""What RICO depends on, on dev worlds: where descent starts, how many steps, which layers, which
objective; how often the leave-one-out bound is broken; what a copy of the question does.

    python benchmarks/rico_figures.py [--questions 500] [--seeds 0 1 2] [--models data/models]

Writes ``results/rico/README.md`` and ``figures.json``. Half of the questions are on single facts,
half on chains of two, each with its mined pool (standard and shift 10, hard 20). nDCG@10 is the
mean over training seeds of mini-lm (NAME-SEED under ``--models``; 0 is shipped), intervals resample
worlds. Differences are paired, question by question. The defaults of `rico` were chosen on dev
worlds, which these are; `results/reference` asks test worlds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from math import log, log2
from pathlib import Path
from typing import Any

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from harness.data import Brief, Document
from harness.score.intervals import cluster_intervals
from systems.models.backends import Stepwise
from systems.models.hub import model_folder
from systems.models.language import Asked, open_lm
from systems.models.mamba2 import Mamba2, State
from systems.models.prompts import Prompt
from systems.models.words import PIECES
from systems.passages import words_of
from systems.rico.mixture import Loss, add_mixed, descend, products, slope, uniform
from systems.rico.states import Layout, encode
from systems.rico.system import Rico
from tasks.mini.mining import Index, pools, terms
from tasks.mini.questions import questions
from tasks.mini.world import World

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "rico"
PROFILES = ("standard", "hard", "shift")
KINDS = ("single", "bridge")
WORLDS, DOCUMENTS, BATCH = 10, 1000, 50
STEPS = (1, 3, 10, 20)
CHANGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Weights of one document, in units of 1/n, at which the loss is looked at."""
ENTROPY, HINGE, OVERLAP = 0.1, 2.0, 0.6


class Rows:
    """The states of a question's documents."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        yield slice(0, len(self.rows)), self.rows


@dataclass
class Case:
    """A question, its documents, which of them are gold, and its world."""

    question: str
    answer: str
    documents: list[Document]
    gold: list[bool]
    world: str
    bm25: list[float]
    idf: dict[str, float]


def cases(profile: Any, count: int) -> list[Case]:
    """Questions of both kinds on fresh worlds."""
    found, size = [], 20 if profile == "hard" else 10
    for seed, kind in product(range(WORLDS), KINDS):
        world = World(DOCUMENTS, 10_000 + seed, "dev", profile)
        asked = list(questions(world, [kind], count // (WORLDS * len(KINDS))))
        index = Index(map(world.passage, range(world.asked)))
        total = world.asked
        often = {word: len(set(at)) for word, at in index.postings.items()}
        for question, pool in zip(asked, pools(world, asked, size), strict=True):
            order = {n: place for place, n in enumerate(index.best(question.text, total))}
            passages = [world.passage(n) for n in pool]
            found.append(
                Case(
                    question.text,
                    question.answer,
                    [Document("", each.text, each.title) for each in passages],
                    [n in question.gold for n in pool],
                    str(seed),
                    [-order[n] for n in pool],
                    {w: idf(total, often.get(w, 0)) for w in terms(question.text)},
                )
            )
    return found


def idf(documents: int, often: int) -> float:
    """The inverse document frequency of BM25."""
    return log(1 + (documents - often + 0.5) / (often + 0.5))


def ndcg(scores: Sequence[float], gold: Sequence[bool]) -> float:
    """nDCG@10 of binary grades; ties keep the pool's drawn order."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[:10]
    gained = sum(1 / log2(place + 2) for place, each in enumerate(order) if gold[each])
    return gained / sum(1 / log2(place + 2) for place in range(min(10, sum(gold))))


class Bench:
    """A model and some questions, their documents encoded."""

    def __init__(self, folder: Path, some: Sequence[Case]) -> None:
        lm = open_lm(folder)
        assert isinstance(lm, Stepwise) and isinstance(lm.network, Mamba2)
        self.lm, self.cases = lm, some
        config = lm.network.config
        self.layout = Layout(config, tuple(range(config.layers)))
        self.base: Tensor | None = None
        self.kept = torch.ones(self.layout.size)
        texts = list(dict.fromkeys(each for case in some for each in case.documents))
        rows = torch.zeros(len(texts), self.layout.size)
        rendered = [lm.prompts.passage(each) for each in texts]
        for places, found in encode(lm, self.layout, rendered, 64):
            rows[places] = found
        at = {each: place for place, each in enumerate(texts)}
        self.rows = [rows[[at[each] for each in case.documents]] for case in some]
        self.words = [[words_of(each) for each in case.documents] for case in some]
        self.asked = [
            lm.asked(Prompt(None, behind=True), case.question, words)
            for case, words in zip(some, self.words, strict=True)
        ]

    def scores(
        self,
        loss: Callable[[Bench, Sequence[int]], Loss],
        steps: int,
        layers: Sequence[int] = (),
        base: Tensor | None = None,
        rate: float = 0.5,
    ) -> list[list[float]]:
        """Weights after descent; ``base``: a row to start from instead of the mean."""
        layout, found = self.layout, []
        self.base, self.kept = base, torch.ones(layout.size)
        for layer in set(layout.layers) - set(layers or layout.layers):
            for start, size in zip((0, layout.ssm), layout.of_layer, strict=True):
                self.kept[start + layer * size : start + (layer + 1) * size] = 0
        for start in range(0, len(self.cases), BATCH):
            here = range(start, min(start + BATCH, len(self.cases)))
            views = [Rows((self.rows[each] * self.kept)[:, : layout.ssm]) for each in here]
            weights = [uniform(len(each)) * (base is None) for each in views]
            point = torch.zeros(layout.size) if base is None else base * self.kept
            points = point[: layout.ssm].expand(len(here), -1)
            learned = descend(views, points, weights, loss(self, here), steps, rate)
            found += [mine.weights.tolist() for mine in learned]
        self.base, self.kept = None, torch.ones(layout.size)
        return found

    def state(self, h: Tensor, here: Sequence[int]) -> State:
        """States with the contexts that `rico` has there: the pool's mean, or the base's."""
        rows = [self.rows[place].mean(0) if self.base is None else self.base for place in here]
        context = (torch.stack(rows) * self.kept)[:, self.layout.ssm :]
        return self.layout.state(h, context)

    def behind(self, asked: Sequence[Asked], h: Tensor, here: Sequence[int]) -> Tensor:
        """log p of each token of questions (b, t) behind states."""
        return self.lm.target_log_p(asked, self.state(h, here))


# --- objectives -----------------------------------------------------------------------


def plain(bench: Bench, here: Sequence[int]) -> Loss:
    """The mean negative log-likelihood of the question's tokens."""

    def loss(h: Tensor, places: Sequence[int]) -> Tensor:
        mine = [here[place] for place in places]
        asked = [bench.asked[place] for place in mine]
        tokens = torch.tensor([len(each.ids) - each.start for each in asked])
        return -bench.behind(asked, h, mine).sum(1) / tokens

    return loss


def by_idf(power: float) -> Callable[[Bench, Sequence[int]], Loss]:
    """Tokens count by their inverse document frequency in the world."""

    def objective(bench: Bench, here: Sequence[int]) -> Loss:
        def loss(h: Tensor, places: Sequence[int]) -> Tensor:
            mine = [here[place] for place in places]
            asked = [bench.asked[place] for place in mine]
            found = bench.behind(asked, h, mine)
            weights = torch.zeros_like(found)
            for row, place in enumerate(mine):
                case = bench.cases[place]
                pieces = PIECES.findall(case.question)
                told = [case.idf.get(word.lower(), 0.0) ** power for word in pieces]
                weights[row, : len(told)] = torch.tensor(told)
            return -(found * weights).sum(1) / weights.sum(1)

        return loss

    return objective


def with_entropy(bench: Bench, here: Sequence[int]) -> Loss:
    """And a tenth of the entropy of the answer's first token."""
    first = plain(bench, here)

    def loss(h: Tensor, places: Sequence[int]) -> Tensor:
        mine = [here[place] for place in places]
        prompts = [
            bench.lm.prompts.render(
                Prompt(bench.cases[place].question, behind=True), bench.words[place]
            )
            for place in mine
        ]
        log_p = bench.lm.next_log_p(prompts, bench.state(h, mine))
        entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1)
        return first(h, places) + ENTROPY * entropy

    return loss


OBJECTIVES: dict[str, Callable[[Bench, Sequence[int]], Loss]] = {
    "question (the default)": plain,
    "idf-weighted": by_idf(1),
    "idf² -weighted": by_idf(2),
    "question + .1 entropy of the answer": with_entropy,
}


def overlap(case: Case) -> list[float]:
    """Of each document, the share of its words that stand in the question."""
    asked = set(terms(case.question))
    shares = []
    for each in case.documents:
        found = terms(words_of(each))
        shares.append(sum(word in asked for word in found) / max(1, len(found)))
    return shares


# --- measurements ---------------------------------------------------------------------


def likelihoods(bench: Bench) -> list[list[float]]:
    """Query likelihood of each document, under the same model."""
    return [
        [
            found.log_p
            for found in bench.lm.log_likelihood(
                [Prompt(None, [each]) for each in case.documents],
                [case.question] * len(case.documents),
            )
        ]
        for case in bench.cases
    ]


def constant(bench: Bench, mean: Tensor) -> Tensor:
    """The state that `rico:at=constant` fits to unlabelled questions of a train world."""
    world = World(DOCUMENTS, 10_000, "train")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{each.text}\n" for each in questions(world, KINDS, 400))
        file.flush()
        rico = Rico(at="constant", questions=file.name)
        rico.lm, rico.layout, rico.brief = bench.lm, bench.layout, Brief()
        return rico._fitted(mean)


def said(steps: int, at: str) -> str:
    return f"{steps} step{'s' * (steps > 1)}, {at}"


def rankings(bench: Bench, profile: str) -> dict[str, list[list[float]]]:
    """Scores of every row of the tables."""
    draw = random.Random(profile)
    found = {
        "random": [[draw.random() for _ in case.gold] for case in bench.cases],
        "bm25": [case.bm25 for case in bench.cases],
        "query likelihood": likelihoods(bench),
    }
    mean = torch.cat(bench.rows).mean(0)
    points = {
        "zero": torch.zeros(bench.layout.size),
        "mean": mean,
        "constant": constant(bench, mean),
    }
    for steps in STEPS:
        found[said(steps, "uniform")] = bench.scores(plain, steps)
    for name, base in points.items():
        for steps in (1, 10):
            found[said(steps, name)] = bench.scores(plain, steps, base=base)
    for layer in bench.layout.layers:
        found[f"10 steps, layer {layer} alone"] = bench.scores(plain, 10, layers=[layer])
    for name, objective in list(OBJECTIVES.items())[1:]:
        found[name] = bench.scores(objective, 10)
    mixed = [
        torch.randperm(len(rows), generator=torch.Generator().manual_seed(n))
        for n, rows in enumerate(bench.rows)
    ]
    kept, bench.rows = bench.rows, [r[m] for r, m in zip(bench.rows, mixed, strict=True)]
    found["1 step, states shuffled"] = bench.scores(plain, 1)
    bench.rows = kept
    return found


def broken_bounds(bench: Bench) -> dict[str, float]:
    """How often L(h) - L(h - αᵢhᵢ) exceeds αᵢ⟨∇L, hᵢ⟩ at the mean, where L is not convex."""
    broken = total = agree = 0
    for place in range(0, len(bench.cases), 5):
        loss, rows = plain(bench, [place]), bench.rows[place][:, : bench.layout.ssm]
        pool, share = Rows(rows), 1 / len(rows)
        point = torch.zeros(1, bench.layout.ssm)
        add_mixed(point[0], pool, uniform(len(rows)))
        without = point - share * rows
        (at,), slopes = slope(loss, point.clone(), [0])
        bound = share * products(pool, slopes[0])
        with torch.no_grad():
            change = at - torch.cat([loss(each[None], [0]) for each in without])
        broken += int((change > bound + 1e-6).sum())
        agree += int((change.sign() == bound.sign()).sum())
        total += len(rows)
    return {"documents": total, "broken": broken / total, "same sign": agree / total}


def curve(bench: Bench) -> dict[str, list[float]]:
    """The mean loss where one document has another weight than 1/n: a gold one, and another."""
    found: dict[str, list[float]] = {}
    for name, wanted in (("gold", True), ("not gold", False)):
        sums = np.zeros(len(CHANGES))
        some = range(0, len(bench.cases), 5)
        for place in some:
            rows = bench.rows[place][:, : bench.layout.ssm]
            which = bench.cases[place].gold.index(wanted)
            loss = plain(bench, [place])
            with torch.no_grad():
                for n, change in enumerate(CHANGES):
                    point = rows.mean(0) + (change - 1) / len(rows) * rows[which]
                    sums[n] += float(loss(point[None], [0]))
        found[name] = (sums / len(some)).round(4).tolist()
    return found


def copied(some: Sequence[Case]) -> list[Case]:
    """The last look-alike gives place to a document that says the question again."""
    found = []
    for case in some:
        place = max(n for n, gold in enumerate(case.gold) if not gold)
        documents = list(case.documents)
        documents[place] = Document("", case.question, "")
        found.append(replace(case, documents=documents))
    return found


def hinged(bench: Bench, scores: list[list[float]]) -> list[list[float]]:
    """Weights, less a penalty for documents most of whose words stand in the question."""
    return [
        [w - HINGE / len(row) * max(0.0, o - OVERLAP) for w, o in zip(row, shares, strict=True)]
        for row, shares in zip(scores, map(overlap, bench.cases), strict=True)
    ]


def copies(folder: Path, some: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Where a copy of the question ends up: its mean rank, that of the best gold passage, how
    often it is first, and nDCG@10."""
    bench = Bench(folder, copied(some))
    found = {}
    ten = bench.scores(plain, 10)
    rankings = {
        "1 step": bench.scores(plain, 1),
        "10 steps": ten,
        "10 steps, hinge": hinged(bench, ten),
    }
    for name, scores in rankings.items():
        ranks, best, gains = [], [], []
        for case, weights in zip(bench.cases, scores, strict=True):
            order = sorted(range(len(weights)), key=lambda place: -weights[place])
            place = next(n for n, each in enumerate(case.documents) if each.text == case.question)
            ranks.append(order.index(place) + 1)
            best.append(min(order.index(n) + 1 for n, gold in enumerate(case.gold) if gold))
            gains.append(ndcg(weights, case.gold))
        found[name] = {
            "rank of the copy": float(np.mean(ranks)),
            "copy first": float(np.mean(np.array(ranks) == 1)),
            "best rank of gold": float(np.mean(best)),
            "nDCG@10": float(np.mean(gains)),
        }
    return found


def measured(folder: Path, profile: str, count: int) -> dict[str, Any]:
    """All of one model and profile."""
    some = cases(profile, count)
    bench = Bench(folder, some)
    found = {
        name: [ndcg(row, case.gold) for row, case in zip(scores, some, strict=True)]
        for name, scores in rankings(bench, profile).items()
    }
    more = {"bounds": broken_bounds(bench), "curve": curve(bench), "copies": copies(folder, some)}
    return {"ndcg": found, "world": [case.world for case in some], **more}


# --- the page -------------------------------------------------------------------------


def table(found: dict[tuple[str, int], dict], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Each row's mean over seeds and interval, and its difference to ten steps, by profile."""
    rows = []
    for profile in PROFILES:
        here = [found[profile, seed] for seed in seeds]
        names = list(here[0]["ndcg"])
        values = np.array([[each["ndcg"][name] for name in names] for each in here])
        mean = values.mean(0).T
        against = mean - mean[:, [names.index("10 steps, uniform")]]
        both = np.hstack([mean, against / 2 + 0.5])
        centre, low, high, _ = cluster_intervals(both, here[0]["world"])
        for n, name in enumerate(names):
            d = len(names) + n
            rows.append(
                {
                    "profile": profile,
                    "row": name,
                    "n": len(mean),
                    "worlds": WORLDS,
                    "seeds": values[:, n].mean(1).round(4).tolist(),
                    "nDCG@10": [round(float(x[n]), 4) for x in (centre, low, high)],
                    "difference": [round(float(2 * x[d] - 1), 4) for x in (centre, low, high)],
                }
            )
    return rows


def page(rows: Sequence[dict], found: dict, seeds: Sequence[int], command: str) -> str:
    """The figures as markdown."""
    n = rows[0]["n"]
    lines = [
        "# What RICO depends on",
        "",
        f"Written by `{command}`: {n} questions a profile in {WORLDS} dev worlds (half single, "
        f"half chains of two), mean over {len(seeds)} training seeds of `mini-lm` with a 95 % "
        "interval over worlds; below it the paired difference to ten steps at the uniform mixture.",
        "*Mini world: mechanism tests, nothing about real data.*",
        "",
        "| nDCG@10 | " + " | ".join(PROFILES) + " |",
        "|:--|" + ":--|" * len(PROFILES),
    ]
    by = {(row["row"], row["profile"]): row for row in rows}
    for name in dict.fromkeys(row["row"] for row in rows):
        cells = []
        for profile in PROFILES:
            row = by[name, profile]
            mean, low, high = row["nDCG@10"]
            text = f"{mean:.3f} ({low:.3f}–{high:.3f})"
            if name != "10 steps, uniform":
                mean, low, high = row["difference"]
                text += f"<br>{mean:+.3f} ({low:+.3f} to {high:+.3f})"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## The loss against one document's weight", ""]
    lines += ["| profile, document | " + " | ".join(f"{each:g}/n" for each in CHANGES) + " |"]
    lines += ["|:--|" + "--:|" * len(CHANGES)]
    for profile, name in product(PROFILES, ("gold", "not gold")):
        values = np.mean([found[profile, seed]["curve"][name] for seed in seeds], axis=0)
        lines.append(f"| {profile}, {name} | " + " | ".join(f"{x:.3f}" for x in values) + " |")
    lines += ["", "## The leave-one-out bound at the mean, on the real (not convex) model", ""]
    lines += ["| profile | documents | bound broken | sign as predicted |", "|:--|--:|--:|--:|"]
    for profile in PROFILES:
        here = [found[profile, seed]["bounds"] for seed in seeds]
        mean = {name: np.mean([each[name] for each in here]) for name in here[0]}
        cells = f"{mean['documents']:.0f} | {mean['broken']:.1%} | {mean['same sign']:.1%}"
        lines.append(f"| {profile} | {cells} |")
    lines += ["", "## A document that says the question again", ""]
    rankings = found[PROFILES[0], seeds[0]]["copies"]
    names = list(rankings["1 step"])
    lines += ["| profile, ranking | " + " | ".join(names) + " |", "|:--|" + "--:|" * len(names)]
    for profile, how in product(PROFILES, rankings):
        here = [found[profile, seed]["copies"][how] for seed in seeds]
        cells = (f"{np.mean([each[name] for each in here]):.3f}" for name in names)
        lines.append(f"| {profile}, {how} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    folders = {seed: options.models / f"mini-lm-{seed}" for seed in options.seeds}
    folders |= {0: model_folder("mini-lm")} if 0 in folders else {}
    cells = list(product(PROFILES, options.seeds))
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(measured, folders[s], p, options.questions) for p, s in cells]
        found = {cell: job.result() for cell, job in zip(cells, jobs, strict=True)}
    rows = table(found, options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (options.out / "figures.json").write_text(f"[\n{lines}\n]\n")
    command = f"python benchmarks/rico_figures.py --questions {options.questions}"
    (options.out / "README.md").write_text(page(rows, found, options.seeds, command))


if __name__ == "__main__":
    main()

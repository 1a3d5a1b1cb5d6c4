"""What a trained layer of linear self-attention does, beside the step of gradient descent that a
constructed one makes (arXiv 2605.26356, section 4.1).

    python benchmarks/linear.py [--steps 1500] [--seeds 0 1 2] [--jobs 1]

Writes ``results/raggd/linear.json`` and ``docs/raggd-linear.svg`` (which needs matplotlib) and
prints the tables of ``docs/raggd.md``. Tasks and choices: `systems/raggd/synthetic.py`. Beside what
that names, the paper does not say, as far as known, how layers were trained. Here: all four
matrices of each layer free, normal of σ 0.05 at first, squared error at the query, Adam without
decay, one-cycle rate of at most 0.02 / (3 + depth), gradients cut at norm 1, 256 fresh tasks a
step. Stacked layers have matrices of their own. A seed sets the start, the tasks and Wz and M.

Everything is compared with K = depth steps of one rate η (line search on 10,000 tasks) on 10,000
other tasks. Controls: the layers before training; η/2 and 2η; descent on the labels of another
task; least squares, where descent ends; and "few numbers": the constructed layers with six free
numbers each, from η and for a quarter of the steps (rate 0.02 / depth): a rate for x1 and for x2, a
change of both by the second moment of the context (GD++ of von Oswald et al. 2023, arXiv
2212.07677), the weight of what is added to y, and that of the average document in the residual.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter
from typing import Any, NamedTuple

for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from systems.raggd.linear import Layer
from systems.raggd.synthetic import (
    Array,
    Reader,
    Setting,
    Tasks,
    answered,
    compared,
    descended,
    draw,
    line_search,
    loss,
    reader,
    solved,
    weights_of,
)

ROOT = Path(__file__).parent.parent
RESULTS, FIGURE = ROOT / "results" / "raggd" / "linear.json", ROOT / "docs" / "raggd-linear.svg"
INTERFACES, DOCUMENTS, DEPTHS = ("projection", "dot"), (2, 5, 10, 25), (1, 2, 5)
SHIFTS = (0.5, 1.0, 1.5, 2.0)
USUAL = 10
"""Documents where something else is varied."""
TASKS, WATCHED, BATCH = 10_000, 1000, 256
POINTS = (0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
"""Of training, at which layers are looked at."""
GD, LEARNED, FEW = "gradient descent", "learned", "few numbers"
OTHERS = ("untrained", "η/2", "2η", "other labels", "least squares")
Build = Callable[[Tensor], list[Layer]]


class Cell(NamedTuple):
    """One thing to train."""

    setting: Setting
    depth: int
    seed: int


# --- layers ---------------------------------------------------------------------------


def free(matrices: Tensor) -> list[Layer]:
    """Layers of four matrices each: (depth, 4, t, t)."""
    return [Layer(*each) for each in matrices]


def few(setting: Setting, read: Reader) -> Build:
    """Constructed layers of six numbers each, (depth, 6): see the module."""
    size, width = setting.inputs, 2 * setting.inputs + 1
    average = torch.zeros(width, width)
    if setting.interface == "dot":  # the mean of Σ d dᵀ is documents / 12
        row = setting.documents / 12 * (read.wz @ read.metric.T)[0]
        average[-1, size:-1] = torch.from_numpy(row)
    ones = torch.eye(3).repeat_interleave(torch.tensor([size, size, 1]), 1)  # (3, t)
    same = torch.diag(ones[0] + ones[1])

    def build(numbers: Tensor) -> list[Layer]:
        found = []
        for first, second, change1, change2, added, residual in numbers:
            key = torch.diag(first * ones[0] + second * ones[1])
            value = torch.eye(width) - residual * average
            output = -torch.diag(change1 * ones[0] + change2 * ones[1] + added * ones[2])
            found.append(Layer(same, key, value, output))
        return found

    return build


def fixed(build: Build, numbers: Tensor) -> list[Layer]:
    """As arrays of float64."""
    with torch.no_grad():
        return [Layer(*(each.double().numpy() for each in layer)) for layer in build(numbers)]


def trained(
    cell: Cell, read: Reader, build: Build, numbers: Tensor, steps: int, rate: float
) -> Iterator[Tensor]:
    """The numbers of layers before training, and after each step."""
    rng = np.random.default_rng([cell.seed, 1])
    numbers = numbers.clone().requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    yield numbers.detach().clone()
    for _ in range(steps):
        tasks = draw(cell.setting, read, rng, BATCH)
        arrays = (tasks.query(), tasks.context(), tasks.documents, tasks.targets[:, -1:])
        asked, seen, documents, y = (torch.from_numpy(each).float() for each in arrays)
        wrong = answered(build(numbers), asked, seen, documents) - y
        optimizer.zero_grad()
        (wrong**2).mean().backward()
        torch.nn.utils.clip_grad_norm_([numbers], 1.0)
        optimizer.step()
        schedule.step()
        yield numbers.detach().clone()


# --- measurements ---------------------------------------------------------------------


def figures(cell: Cell, tasks: Tasks, weights: Array, step: Array) -> dict[str, float]:
    """Of one method."""
    found = {"loss": loss(weights, tasks), "median_loss": loss(weights, tasks, np.median)}
    return found | compared(cell.setting, tasks, weights, step)


def measured(cell: Cell, steps: int) -> dict[str, Any]:
    """Train, and compare: the curve, and the figures of each method at each shift."""
    torch.set_num_threads(1)
    setting, depth, seed = cell
    read = reader(setting, np.random.default_rng([seed, 0]))
    fresh = [np.random.default_rng([seed, 2 + each]) for each in range(2)]
    eta = line_search(draw(setting, read, fresh[0], TASKS), depth)
    watched = draw(setting, read, fresh[1], WATCHED)
    step = descended(watched, eta, depth)
    generator = torch.Generator().manual_seed(seed)
    width = 2 * setting.inputs + 1
    start = 0.05 * torch.randn(depth, 4, width, width, generator=generator)
    points, curve, kept = {round(each * steps) for each in POINTS}, [], []
    for at, numbers in enumerate(trained(cell, read, free, start, steps, 0.02 / (3 + depth))):
        if at in points:
            kept.append(layers := fixed(free, numbers))
            curve.append({"step": at} | figures(cell, watched, weights_of(layers, watched), step))
    plain = torch.tensor([[eta / setting.examples] * 2 + [0, 0, 1, 0]] * depth)
    build = few(setting, read)
    *_, numbers = trained(cell, read, build, plain, steps // 4, 0.02 / depth)
    methods = {LEARNED: kept[-1], FEW: fixed(build, numbers), OTHERS[0]: kept[0]}
    found: dict[str, dict[str, float]] = {}
    shifts = SHIFTS if setting == Setting(setting.interface, USUAL) else (1.0,)
    for shift in shifts:
        for name, row in beside(cell, read, eta, methods, shift):
            found[f"{name}, α={shift:g}"] = row
    return {"rate": eta, "curve": curve, "methods": found}


def beside(
    cell: Cell, read: Reader, eta: float, methods: dict[str, list[Layer]], shift: float
) -> Iterator[tuple[str, dict[str, float]]]:
    """The figures of each method on fresh tasks; of the controls where nothing is shifted."""
    depth, rng = cell.depth, np.random.default_rng([cell.seed, 4])
    tasks = draw(cell.setting, read, rng, TASKS, shift)
    step = descended(tasks, eta, depth)
    yield GD, figures(cell, tasks, step, step)
    for name, layers in methods.items():
        if shift == 1 or name != OTHERS[0]:
            yield name, figures(cell, tasks, weights_of(layers, tasks), step)
    if shift == 1:
        other = tasks._replace(targets=np.roll(tasks.targets, 1, 0))
        weights = (
            descended(tasks, eta / 2, depth),
            descended(tasks, 2 * eta, depth),
            descended(other, eta, depth),
            solved(tasks),
        )
        for name, each in zip(OTHERS[1:], weights, strict=True):
            yield name, figures(cell, tasks, each, step)


def settings() -> list[tuple[Setting, int]]:
    """Everything that is trained, and how deep."""
    found = [(Setting(face, k), 1) for face, k in product(INTERFACES, DOCUMENTS)]
    found += [(Setting(face, USUAL, useful=False), 1) for face in INTERFACES]
    return found + [
        (Setting(face, USUAL), depth) for face, depth in product(INTERFACES, DEPTHS[1:])
    ]


def gathered(setting: Setting, depth: int, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rows of all seeds as one: of each figure, a list over seeds."""

    def lists(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
        return {name: [float(f"{row[name]:.4g}") for row in rows] for name in rows[0]}

    return {
        "interface": setting.interface,
        "documents": setting.documents,
        "useful": setting.useful,
        "depth": depth,
        "rate": [round(each["rate"], 4) for each in found],
        "methods": {
            name: lists([each["methods"][name] for each in found]) for name in found[0]["methods"]
        },
        "curve": {
            name: rows if name != "step" else [int(each[0]) for each in rows]
            for name in found[0]["curve"][0]
            for rows in [[lists(at)[name] for at in zip(*(e["curve"] for e in found), strict=True)]]
        },
    }


# --- what people see ------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean over seeds, and the least and the greatest."""
    mean, low, high = (f"{of(values):.{digits}f}".replace("-", "−") for of in (np.mean, min, max))
    return mean if low == high else f"{mean} ({low} to {high})"


def table(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> str:
    """In markdown; differences are from descent, as shares of its own sizes."""
    names = ("loss", "median_loss", "relative_difference", "cosine", "relative_distance")
    heads = ("loss", "median loss", "Δŷ / ŷ", "cosine", "Δ∂ŷ / ∂ŷ")
    lines = ["| interface, k, depth | method | " + " | ".join(heads) + " |"]
    lines += ["|:--|:--|" + "--:|" * len(names)]
    for row, method in product(rows, methods):
        values = row["methods"][f"{method}, α=1"]
        what = "" if row["useful"] else ", useless"
        what = f"{row['interface']}, {row['documents']}{what}, {row['depth']}"
        cells = " | ".join(spread(values[name]) for name in names)
        lines.append(f"| {what} | {method} | {cells} |")
    return "\n".join([*lines, ""])


def drawn(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    grey = "#7a7a7a"  # legible on white and on black
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    pyplot.rcParams.update(dict.fromkeys(names, grey))
    pyplot.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "linear", "font.size": 9, "axes.titlesize": 10}
    )
    figure, axes = pyplot.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for (curve, depth, shift), face in zip(axes, INTERFACES, strict=True):
        here = [row for row in rows if row["interface"] == face and row["useful"]]
        curves(curve, [row for row in here if row["depth"] == 1])
        depths(depth, [row for row in here if row["documents"] == USUAL])
        shifts(shift, next(r for r in here if (r["documents"], r["depth"]) == (USUAL, 1)))
        for axis in (curve, depth, shift):
            axis.patch.set_alpha(0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=8)
        curve.set_title(f"{face}: one layer, one step")
        depth.set_title(f"{face}: stacked, k = {USUAL}")
        shift.set_title(f"{face}: one layer, x shifted")
    figure.savefig(path, transparent=True, metadata={"Date": None})
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", path.read_text())  # hundredths of a point
    path.write_text("\n".join(line.strip() for line in text.splitlines()) + "\n")


COLOURS = ("#3d8fd1", "#d9822b", "#2ca25f", "#c2559d", "#8a8a8a")


def band(axis: Any, x: Sequence[float], values: Any, label: str, colour: str, mark: str) -> None:
    """The mean over seeds, and from the least to the greatest."""
    seeds = np.array(values)
    axis.fill_between(x, seeds.min(1), seeds.max(1), color=colour, alpha=0.3, linewidth=0)
    axis.plot(x, seeds.mean(1), mark, color=colour, label=label, linewidth=1.5, markersize=4)


def curves(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Cosine of sensitivities, over training."""
    for row, colour in zip(rows, COLOURS, strict=False):
        steps = row["curve"]["step"]
        band(axis, steps, row["curve"]["cosine"], f"k = {row['documents']}", colour, "-")
    usual = next(row for row in rows if row["documents"] == USUAL)["methods"]
    for name, style in (("least squares", "--"), ("other labels", ":")):
        value = np.mean(usual[f"{name}, α=1"]["cosine"])
        axis.axhline(value, color=COLOURS[-1], linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="training steps", ylabel="cosine of ∂ŷ/∂x with that of descent")


def depths(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Typical loss, over depth."""
    rows = sorted(rows, key=lambda row: row["depth"])
    at = range(len(rows))
    for name, colour, mark in zip(
        (GD, FEW, LEARNED, "least squares"), (*COLOURS[:3], COLOURS[-1]), "osvx", strict=True
    ):
        values = [row["methods"][f"{name}, α=1"]["median_loss"] for row in rows]
        band(axis, at, values, name, colour, f"{mark}-")
    axis.set_xticks(at, [str(row["depth"]) for row in rows])
    axis.set(xlabel="layers, steps", ylabel="median loss (ŷ = 0: 1)", ylim=(0, None))


def shifts(axis: Any, row: dict[str, Any]) -> None:
    """Loss over the scale of x."""
    for name, colour, mark in zip((GD, FEW, LEARNED), COLOURS[:3], "osv", strict=True):
        values = [row["methods"][f"{name}, α={each:g}"]["loss"] for each in SHIFTS]
        band(axis, SHIFTS, values, name, colour, f"{mark}-")
    axis.axhline(1, color=COLOURS[-1], linestyle=":", linewidth=1, label="ŷ = 0")
    axis.set(xlabel="α", ylabel="loss (ŷ = 0: 1)", yscale="log")
    axis.minorticks_off()
    axis.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--draw", action="store_true", help="only tables and figure, from the JSON")
    options = parser.parse_args()
    if not options.draw:
        begun, kinds = perf_counter(), settings()
        with ProcessPoolExecutor(options.jobs) as pool:
            jobs = {
                (*kind, seed): pool.submit(measured, Cell(*kind, seed), options.steps)
                for kind, seed in product(kinds, options.seeds)
            }
            found = [
                gathered(*kind, [jobs[*kind, seed].result() for seed in options.seeds])
                for kind in kinds
            ]
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
        used = getrusage(RUSAGE_CHILDREN)
        print(f"{perf_counter() - begun:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU-s\n")
    rows = json.loads(RESULTS.read_text())
    print(table(rows, (GD, LEARNED, FEW)))
    print(table([r for r in rows if r["documents"] == USUAL and r["useful"]], OTHERS))
    try:
        drawn(rows, FIGURE)
    except ModuleNotFoundError:
        raise SystemExit("the figure needs matplotlib: pip install matplotlib") from None


if __name__ == "__main__":
    main()

"""The learning curves of the shipped checkpoints and of their other seeds, as docs/checkpoints.md.

python benchmarks/curves.py [--models data/models]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from systems.training import CHECKPOINTS

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "systems" / "checkpoints"
POINTS = 12
"""Of each curve, about."""
HEAD = """# The shipped checkpoints

Tiny models trained from nothing on the generated world (`python -m harness train NAME --out DIR
--seed N`; `mini-selector` from `mini-llama`), one thread, deterministic by steps. Seed 0 is shipped
in `systems/checkpoints`; other seeds, where they stand, show how much the seed matters. They say
nothing about real text, and refuse real tasks. The recipes' settings are explained in
`systems/training/recipe.py`. `mini-dro`, two adapters of `mini-selector` and `mini-llama`, is what
`python -m harness train dro --out DIR` makes; its iterations are in `results/dro`. `mini-retrollm`,
an adapter of `mini-llama` with five signs of its own, is what `python -m harness train retrollm
--out DIR` makes (about 600 CPU-s), and `mini-raggd`, an adapter of it with a predictor of updates,
what `python -m harness train raggd --out DIR` makes (about 850 CPU-s).

`passages` is how far the curriculum had gone, `right` the share of training questions (of all kinds
and sizes so far, on worlds seen once) that were answered right; for rankers, whose first passage
was a gold one. The world of the curves is `{world}`. Written by `python benchmarks/curves.py`.
"""


def abouts(models: Path, name: str) -> Iterator[dict]:
    """What each seed's checkpoint says of itself."""
    shipped = SHIPPED / name / "about.json"
    others = sorted(models.glob(f"{name}-*/about.json"))
    for path in [shipped, *others]:
        about = json.loads(path.read_text())
        if about["name"] == name and (path == shipped or about["seed"] != 0):
            yield about


def chapter(name: str, found: list[dict]) -> list[str]:
    """The curve of each seed, side by side."""
    size = sum(file.stat().st_size for file in (SHIPPED / name).iterdir())
    seeds = [str(about["seed"]) for about in found]
    lines = [
        f"## {name}",
        "",
        f"{found[0]['steps']} steps; {size / 1e6:.2f} MB. Recipe:",
        f"`{json.dumps(found[0]['recipe'])}`",
        "",
        "| step | " + " | ".join(f"seed {seed}: passages, right, CPU s" for seed in seeds) + " |",
        "|--:|" + "--:|" * len(seeds),
    ]
    curve = found[0]["curve"]
    every = max(1, len(curve) // POINTS)
    for place in sorted({*range(every - 1, len(curve), every), len(curve) - 1}):
        points = [about["curve"][place] for about in found]
        cells = [f"{p['passages']:.0f}, {p['right']:.3f}, {p['cpu_s']:.0f}" for p in points]
        lines.append(f"| {points[0]['step']} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / "data" / "models")
    options = parser.parse_args()
    chapters, worlds = [], set()
    for name in CHECKPOINTS:
        found = list(abouts(options.models, name))
        worlds |= {about["world"] for about in found}
        chapters += chapter(name, found)
    page = "\n".join([HEAD.format(world=", ".join(sorted(worlds))), *chapters])
    out = ROOT / "docs" / "checkpoints.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text(page)


if __name__ == "__main__":
    main()

"""What `submit` writes scores in the official scorer as the run scores in the harness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from answering import Answering

from harness import api, registry
from harness.score.results import read_manifest, read_scores

SMALL = "documents=1000,questions=40,comparisons=true"
SYSTEM = "bm25+answering@3"


@pytest.fixture(autouse=True)
def _answering(_own_folder) -> None:
    registry.register("systems", "answering")(Answering)


def a_run(task: str, *systems: str, lost: int = 0, **options) -> Path:
    """A scored run, of which the last ``lost`` rows of each pipeline are missing."""
    folder = api.run([task], systems or ["random", "bm25", SYSTEM], out="run", **options)
    for entry in read_manifest(folder)["pipelines"]:
        path = folder / entry["rows"]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: len(lines) - lost]))
    return api.score(folder)


def means(folder: Path, system: str = SYSTEM) -> dict[str, float]:
    """The harness's mean of each metric."""
    (table,) = read_scores(folder)
    found: dict[str, list[float]] = {}
    for line in table.lines[system]:
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


PARTS = {"": "", "sp_": "SP-", "evi_": "Evi-", "joint_": "Joint-"}
NAMES = {"em": "EM", "f1": "F1", "prec": "Precision", "recall": "Recall"}
SECTIONS = {f"{p}{n}": f"{part}{name}" for p, part in PARTS.items() for n, name in NAMES.items()}
MUSIQUE = {"answer_em": "EM", "answer_f1": "F1", "support_f1": "Support-F1"}
SCRIPTS = {
    "hotpotqa": (SECTIONS, 1),
    "2wikimultihopqa": (SECTIONS, 100),
    "musique": (MUSIQUE, 1),
    "triviaqa": ({"exact_match": "EM", "f1": "F1"}, 100),
}


def same(scores: dict[str, float], ours: dict[str, float], fmt: str) -> None:
    """The official script's numbers are ours, name by name, on its scale."""
    names, scale = SCRIPTS[fmt]
    checked = {key: names[key] for key in scores if key in names}
    assert checked
    for key, name in checked.items():
        assert scores[key] == pytest.approx(ours[name] * scale, abs=1e-9), key


@pytest.mark.parametrize("fmt", SCRIPTS)
def test_a_mini_run_scores_in_its_file_as_in_the_harness(fmt: str) -> None:
    task = f"mini-{fmt}:{SMALL}"
    folder = a_run(task, lost=2)
    made = api.submit(folder, fmt, "made.json" + "l" * (fmt == "musique"))
    report = api.score_file(made.path, task)
    ours = means(folder)
    same(report.scores, ours, fmt)
    assert 0 < ours["EM"] < 1
    print(made.notes, report.warnings, report.scores)

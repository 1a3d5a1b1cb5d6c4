"""Cells of the pages that compare variants: means over training seeds, and paired differences.

A line is one question of one system and training seed: ``system kind id group`` and its metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from harness.score.intervals import cluster_intervals


def cell(lines: Sequence[Mapping], against: Sequence[Mapping], metric: str) -> str:
    """The mean over seeds with its interval over groups, and the paired difference to
    those that it stands against."""
    values, groups = averaged(lines, metric)
    (mean,), (low,), (high,), _ = cluster_intervals(values[:, None], groups)
    text = f"{mean:.3f} ({low:.3f}–{high:.3f})"
    other, _ = averaged(against, metric)
    if lines[0]["system"] == against[0]["system"]:
        return text
    if np.array_equal(other, values):
        return f"{text}<br>the same"
    (mean,), (low,), (high,), _ = cluster_intervals((other - values)[:, None], groups)
    return f"{text}<br>{-mean:+.3f} ({-high:+.3f} to {-low:+.3f})"


def averaged(lines: Sequence[Mapping], metric: str) -> tuple[np.ndarray, list[str]]:
    """A metric of each question, the mean over seeds, and its group."""
    found: dict[str, list[float]] = {}
    groups = {}
    for line in lines:
        found.setdefault(line["kind"] + line["id"], []).append(line[metric])
        groups[line["kind"] + line["id"]] = line["group"]
    return np.array([fmean(each) for each in found.values()]), list(groups.values())

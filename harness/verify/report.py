"""What the verifier says of a bundle, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.verify.findings import Finding, printable
from harness.verify.rerun import ENOUGH, Rerun

PROVES = (
    "Proven: scores follow from these rows and our gold, for exactly the questions asked. "
    "Not proven: that the system made the rows (gold is public), and latency."
)


@dataclass(frozen=True)
class Report:
    """What the verifier says of a bundle.

    findings: what is wrong; notices: what to know although nothing is
    reruns:   of each pipeline, if some questions were asked again; seed: what drew these
    unasked:  (task, pipeline) → why it could not be asked again here
    unknown:  pipeline → its systems that are not known here, so that nobody checked their options
    """

    bundle: str
    findings: tuple[Finding, ...]
    notices: tuple[str, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    seed: int | None = None
    submission: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unasked: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def badge(self) -> str:
        """What has been shown of it, in two words."""
        shown = self._badge(self.reruns)
        return f"{shown}, in part" if self.reruns and self.unasked else shown

    def badge_of(self, task: str, system: str) -> str:
        """What has been shown of one of its pipelines."""
        return self._badge([one for one in self.reruns if (one.task, one.system) == (task, system)])

    def _badge(self, reruns: Sequence[Rerun]) -> str:
        if self.findings:
            return "self-reported"
        if not reruns:
            return "arithmetic verified"
        asked = sum(each.questions for each in reruns)
        least = min(each.share for each in reruns)
        rule = "all must agree" if all(each.strict for each in reruns) else ENOUGH
        return f"re-run ({asked}, {least:.0%}; {rule})"

    def unchecked(self, system: str) -> list[str]:
        """The mark of a pipeline whose systems are not all known here; none of any other."""
        names = ", ".join(self.unknown.get(system, ()))
        return [f"options not checked: {names} unknown here"] if names else []


def text(report: Report) -> str:
    """The report for a terminal; its last line is the badge."""
    lines = [f"found {finding}" for finding in report.findings]
    lines += [f"note {notice}" for notice in report.notices]
    if report.seed is not None:
        lines.append(f"Questions to ask again were drawn by seed {report.seed}.")
    lines += [f"{each.task} {each.system}: {each}; {each.rule}" for each in report.reruns]
    lines += [f"{task} {name}: not asked again: {why}" for task, name, why in _unasked(report)]
    marks = dict.fromkeys(mark for system in report.unknown for mark in report.unchecked(system))
    badge = ", ".join([report.badge, *marks])
    return "\n".join([*lines, _proves(report), f"{report.bundle}: {badge}"])


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    reruns = [{**asdict(each), "rule": each.rule} for each in report.reruns]
    unasked = [dict(zip(("task", "system", "why"), each, strict=True)) for each in _unasked(report)]
    more = {"badge": report.badge, "proves": _proves(report), "unasked": unasked}
    return {**asdict(report), "reruns": reruns, **more}


def _unasked(report: Report) -> list[tuple[str, str, str]]:
    """Task, pipeline and why: those that could not be asked again."""
    return [(task, printable(name), why) for (task, name), why in report.unasked.items()]


def _proves(report: Report) -> str:
    return "Nothing is proven: there are findings." if report.findings else PROVES

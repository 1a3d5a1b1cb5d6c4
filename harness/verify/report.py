"""What the verifier says of a bundle, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.verify.findings import Finding
from harness.verify.rerun import Rerun

PROVES = (
    "Proven: scores follow from these rows and our gold, for exactly the questions asked. "
    "Not proven: that the system made the rows (gold is public), and latency."
)


@dataclass(frozen=True)
class Report:
    """What the verifier says of a bundle.

    findings: what is wrong; notices: what to know although nothing is
    reruns:   of each pipeline, if some questions were asked again; seed: what drew these
    """

    bundle: str
    findings: tuple[Finding, ...]
    notices: tuple[str, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    seed: int | None = None
    submission: Mapping[str, Any] = field(default_factory=dict)

    @property
    def badge(self) -> str:
        """What has been shown of it, in two words."""
        if self.findings:
            return "self-reported"
        if not self.reruns:
            return "arithmetic verified"
        asked = sum(each.questions for each in self.reruns)
        least = min(each.share for each in self.reruns)
        return f"re-run ({asked}, {least:.0%})"


def text(report: Report) -> str:
    """The report for a terminal; its last line is the badge."""
    lines = [f"found {finding}" for finding in report.findings]
    lines += [f"note {notice}" for notice in report.notices]
    if report.seed is not None:
        lines.append(f"Questions to ask again were drawn by seed {report.seed}.")
    lines += [f"{each.task} {each.system}: {each}" for each in report.reruns]
    return "\n".join([*lines, _proves(report), f"{report.bundle}: {report.badge}"])


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {**asdict(report), "badge": report.badge, "proves": _proves(report)}


def _proves(report: Report) -> str:
    return "Nothing is proven: there are findings." if report.findings else PROVES

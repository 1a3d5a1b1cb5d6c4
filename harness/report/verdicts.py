"""What people see of a comparison: a table, what each verdict means, and the questions of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.report.compare import Comparison
from harness.report.gate import SAME
from harness.report.sheet import Sheet, Style, titled, written

SHOWN = 20
"""Changed questions that are listed by id."""
NONE = "–"
"""For what is not there."""


def written_comparisons(found: Sequence[Comparison], style: Style = "table") -> str:
    """A table, then what each verdict means, changed rows and the worst questions."""
    several = any(each.base != each.new for each in found)
    same = sum(each.because == SAME for each in found)
    tested = sum(each.verdict is not None for each in found) - same
    heads = ("system", "metric", "base", "new", "difference", "p (Holm)", "won/tied/lost",
             "n (groups)\ngold", "80 % power", "verdict")  # fmt: skip
    parts = []
    for title in dict.fromkeys(titled(each, each.generated) for each in found):
        rows = [_row(each) for each in found if titled(each, each.generated) == title]
        parts.append(written(Sheet(title, heads, tuple(rows)), style))
    baseline = f" Base: {found[0].base}." if several else ""
    adjusted = f", Holm over {tested} comparisons" if tested > 1 else ""
    parts.append(
        "Differences: new minus base, question by question, 95 % interval over groups; p: "
        f"sign-flip test{adjusted}. 80 % power: the smallest difference that four of five such "
        f"samples would show.{baseline}"
    )
    parts += ["\n".join(_told(each)) for each in found if _has_news(each)]
    verdicts = Counter(each.verdict for each in found if each.verdict)
    told = ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.items()))
    parts.append(f"{told}" + (f" ({same}: {SAME})" if same else ""))
    return "\n\n".join(parts)


def _has_news(each: Comparison) -> bool:
    """Whether there is more to tell of it than its row of the table."""
    return bool(each.changed if each.verdict is None else each.because != SAME)


def _row(each: Comparison) -> tuple[str, ...]:
    found, same = each.found, each.because == SAME
    if not each.verdict:
        return each.new, each.metric, *[NONE] * 7, each.because
    interval = "" if math.isnan(found.low) else f"\n{found.low:+.3f} to {found.high:+.3f}"
    return (
        each.new,
        each.metric,
        f"{each.base_mean:.3f}",
        f"{each.new_mean:.3f}",
        NONE if same else f"{found.difference:+.3f}{interval}",
        NONE if same else f"{each.p:.2g}",
        f"{found.wins}/{found.ties}/{found.losses}",
        f"{found.n} ({found.groups})\n{each.gold}",
        NONE if same or math.isnan(found.visible) else f"{found.visible:.3f}",
        f"{each.verdict}: {SAME}" if same else each.verdict,
    )


def _told(each: Comparison) -> Iterator[str]:
    why = each.because[0].upper() + each.because[1:]
    yield f"{each.name}, {each.metric}: {each.verdict or 'not compared'}. {why}."
    if each.changed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(each.changed.items()))
        more = "" if len(each.changed_ids) <= SHOWN else " …"
        ids = " ".join(each.changed_ids[:SHOWN])
        yield f"  rows that changed: {len(each.changed_ids)} ({kinds}): {ids}{more}"
    if each.p50_ms:
        yield "  p50 of a question, one pass: {:.1f} ms against {:.1f}".format(*each.p50_ms[::-1])
    for question in each.worst:
        yield (
            f"  {question.id} {question.base:.3f} -> {question.new:.3f}: "
            f"{question.base_answer!r} -> {question.new_answer!r}"
            + (f"  {question.text}" if question.text else "")
        )

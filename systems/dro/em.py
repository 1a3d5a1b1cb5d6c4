"""The E-step's arithmetic: weights of drawn lists (arXiv 2505.03075, Eq. 6, 7 and 19).

w(z) ∝ p(y|x, d_z) for lists z that are drawn from p(z|x), normalised over the m drawn. Where they
are drawn from another q (a temperature, ``top_p``), w has the factor p(z|x) / q(z|x) too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import exp, inf, log
from typing import Literal, NamedTuple

from systems.dro.selector import Drawn

Norm = Literal["mean", "sum", "none"]


class Said(NamedTuple):
    """The answer that counts behind a list: log p, in how many tokens."""

    answer: str
    log_p: float
    tokens: int


class Posterior(NamedTuple):
    """What the E-step says of a question: different lists, the weight of each (they sum to 1), the
    answer that counted, and figures of the draws."""

    lists: list[tuple[int, ...]]
    weights: list[float]
    answers: list[str]
    figures: dict[str, float]


def posterior(
    drawn: Sequence[Drawn], said: Mapping[tuple[int, ...], Said], norm: Norm
) -> Posterior:
    """Weights of drawn lists; equal ones are one list with the sum of their weights.

    norm: the likelihood in the weights is the mean over the answer's tokens, or their sum; or
          there is none, and all draws weigh alike (a control: nothing is learned from the answer)
    Figures: ``elbo``, the mean over draws of log p(y, z|x) / q(z|x); ``bound``, the log of the mean
    of p(y, z|x) / q(z|x), which is tighter; ``ess``, the effective number of draws; ``variance`` of
    the m weights, which falls with m² by itself, since they sum to 1; ``different`` lists.
    """
    m, counts = len(drawn), Counter(each.places for each in drawn)
    ratio = {each.places: each.log_p - each.log_q for each in drawn}
    joint = {z: ratio[z] + said[z].log_p for z in counts}
    judged = {z: ratio[z] + _counted(said[z], norm) for z in counts}
    total = log_sum(log(counts[z]) + judged[z] for z in counts)
    each = {z: exp(judged[z] - total) for z in counts}  # of one draw
    figures = {
        "elbo": sum(counts[z] * joint[z] for z in counts) / m,
        "bound": log_sum(log(counts[z] / m) + joint[z] for z in counts),
        "ess": 1 / sum(counts[z] * each[z] ** 2 for z in counts),
        "variance": sum(counts[z] * (each[z] - 1 / m) ** 2 for z in counts) / m,
        "different": float(len(counts)),
    }
    weights = [counts[z] * each[z] for z in counts]
    return Posterior(list(counts), weights, [said[z].answer for z in counts], figures)


def _counted(said: Said, norm: Norm) -> float:
    """What of an answer's likelihood is in the weights."""
    return {"mean": said.log_p / said.tokens, "sum": said.log_p, "none": 0.0}[norm]


def log_sum(logs: Iterable[float]) -> float:
    """The log of a sum, from the logs of its parts."""
    parts = list(logs)
    most = max(parts)
    return most if most == -inf else most + log(sum(exp(each - most) for each in parts))

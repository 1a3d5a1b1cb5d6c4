"""The interface that RAG-GD adapts: LoRA on q, k and v of every attention layer of a frozen model
(Li et al. 2026, arXiv 2605.26356, section 5), and what gradient descent does to it.

    y = W x + Σ s B (A x)

where the terms are the base adapter W0 = (B0, A0, s) and, while an update is used, the update, of
scale 1. No weight of the model is ever written to: taking the terms away leaves it as it was.

Symbols: n supports, r rank, o and i outputs and inputs of a projection, l tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from harness.data import Example, HarnessError
from systems.models.backends import Stepwise
from systems.models.hub import load_model, with_adapter
from systems.models.language import Asked
from systems.models.prompts import Prompt
from systems.models.tuning import stepwise
from systems.raggd.settings import PROJECTIONS

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""By projection: B (o, r) and A (r, i); with one for each of n supports (n, o, r) and (n, r, i)."""


class Term(NamedTuple):
    """What is added beside the projections: ``scale`` B A."""

    factors: Factors
    scale: float = 1.0


class Interface:
    """A frozen model whose projections can be given low-rank terms.

    lm:     what reads and writes
    base:   the base adapter's factors, ``scale`` its scale s
    shapes: by projection, (o, i)
    """

    def __init__(self, lm: Stepwise, adapted: Any) -> None:
        """adapted: the model of ``lm`` with its adapter, as peft makes it; switched off here."""
        self.lm = lm
        found = {
            name: each
            for name, each in adapted.get_base_model().named_modules()
            if hasattr(each, "lora_A")
        }
        if not found or any(name.rpartition(".")[2] not in PROJECTIONS for name in found):
            raise HarnessError(
                "the adapter is not one on q, k and v alone.",
                "Make one with `python -m harness train raggd --out DIR`.",
            )
        trained = [each for each in adapted.parameters() if each.requires_grad]
        adapted.base_model.disable_adapter_layers()
        for each in trained:  # peft has frozen them
            each.requires_grad_(True)
        self.base: Factors = {
            name: (each.lora_B["default"].weight, each.lora_A["default"].weight)
            for name, each in found.items()
        }
        self.scale = float(next(iter(found.values())).scaling["default"])
        self.shapes = {name: (len(b), a.shape[1]) for name, (b, a) in self.base.items()}
        self.device = lm.vocabulary.known.device
        self.width: int = adapted.config.get_text_config().hidden_size
        self.terms: tuple[Term, ...] = ()
        for name, each in found.items():
            each.base_layer.register_forward_hook(self._adding(name))

    @classmethod
    def open(
        cls, folder: Path, base: Path, device: str, dtype: str, four_bit: bool = False
    ) -> Interface:
        """That of a checkpoint, an adapter of ``base``, ready to serve."""
        model = load_model("AutoModelForCausalLM", base, device, dtype, four_bit)
        adapted = with_adapter(model, folder).eval()
        for each in adapted.parameters():
            each.requires_grad_(False)
        return cls(stepwise(model, base)[0], adapted)

    def _adding(self, name: str) -> Any:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for factors, scale in self.terms:
                b, a = factors[name]
                x = inputs[0].to(a.dtype)
                low = linear(x, a) if a.dim() == 2 else x @ a.mT
                high = linear(low, b) if b.dim() == 2 else low @ b.mT
                output = output + (high * scale).to(output.dtype)
            return output

        return add

    @contextmanager
    def using(self, *terms: Term) -> Iterator[None]:
        """With these terms, and no others, meanwhile; none: the model alone."""
        before, self.terms = self.terms, terms
        try:
            yield
        finally:
            self.terms = before

    @property
    def adapter(self) -> Term:
        """The base adapter W0."""
        return Term(self.base, self.scale)

    # --- demonstrations ---------------------------------------------------------------

    def demonstration(self, example: Example, shown: Sequence[Example] = ()) -> Asked:
        """A question, its passages (the first ones that fit) and its answer as one row; behind
        others, if any are ``shown``."""
        prompt = Prompt(example.question, example.documents, example.instruction, shown=shown)
        end = list(self.lm.prompts.end)
        alone = self.lm.prompts.render(prompt._replace(passages=()))
        spare = len(self.lm.prompts.written(alone, example.answer)) + 1
        prompt = self.lm.fitted(prompt, spare)
        asked = self.lm.asked(prompt, example.answer)
        return asked._replace(ids=[*asked.ids, *end])

    def losses(self, rows: Sequence[Asked], start: Any = None) -> Tensor:
        """Cross-entropy of each row's answer, a mean over its tokens, (rows,) in float64; ``start``
        is what was read before all of them."""
        tokens = torch.tensor([len(row.ids) - row.start for row in rows])
        log_p = self.lm.target_log_p(rows, start)
        return -log_p.sum(dim=1) / tokens.to(log_p.device)

    def features(self, rows: Sequence[Asked]) -> Tensor:
        """Each row under the base adapter, (rows, 2 d) in float32: the last layer's hidden state at
        its end, and the mean of those of its answer."""
        with torch.no_grad(), self.using(self.adapter):
            hidden = self.lm.hidden(rows).float()
        found = []
        for row, states in zip(rows, hidden, strict=True):
            end = len(row.ids) - 1
            answer = states[row.start : end].mean(dim=0) if row.start < end else states[end]
            found.append(torch.cat([states[end], answer]))
        return torch.stack(found)

    # --- gradient descent -------------------------------------------------------------

    def descended(
        self, supports: Sequence[Sequence[Asked]], rate: float, steps: Sequence[int]
    ) -> dict[int, Factors]:
        """The adapter after each of some numbers of SGD steps on each support, from W0: each has
        factors of its own, (n, o, r) and (n, r, i). A support's loss is the mean of `losses` over
        its demonstrations; all have as many."""
        count, size = len(supports), len(supports[0])
        of = torch.arange(count).repeat_interleave(size)
        found: dict[int, Factors] = {}
        with torch.enable_grad():
            own = {
                name: tuple(_copies(each, count) for each in pair)
                for name, pair in self.base.items()
            }
            leaves = [each for pair in own.values() for each in pair]
            optimiser = torch.optim.SGD(leaves, rate)
            rows = [row for support in supports for row in support]
            for step in range(1, max(steps) + 1):
                with self.using(
                    Term({name: _for(pair, of) for name, pair in own.items()}, self.scale)
                ):
                    loss = self.losses(rows).view(count, size).mean(dim=1).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if step in steps:
                    found[step] = {
                        name: (b.detach().clone(), a.detach().clone())
                        for name, (b, a) in own.items()
                    }
        return found

    def difference(self, descended: Factors) -> Factors:
        """ΔW* = s (B_K A_K − B_0 A_0) (Eq. 8), which holds the scale, as factors of rank 2r: of
        s B_0 (A_K − A_0) and s (B_K − B_0) A_K, both of which are small, so that nothing large
        cancels in products with them."""
        found = {}
        for name, (b, a) in descended.items():
            b0, a0 = (each.detach().float().expand(len(b), -1, -1) for each in self.base[name])
            left = torch.cat([self.scale * b0, self.scale * (b - b0)], dim=2)
            found[name] = (left, torch.cat([a - a0, a], dim=1))
        return found


def _copies(weight: Tensor, count: int) -> Tensor:
    """So many copies of a weight, to be trained."""
    return weight.detach().float().expand(count, -1, -1).clone().requires_grad_(True)


def _for(pair: Sequence[Tensor], of: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the support of each row; of a single one, as they are."""
    b, a = (each[0] if len(each) == 1 else each[of.to(each.device)] for each in pair)
    return b, a


def taken(factors: Factors, places: Sequence[int] | int) -> Factors:
    """The factors of some supports; of a single one without the first dimension."""
    return {name: (b[places], a[places]) for name, (b, a) in factors.items()}


def inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """⟨B1 A1, B2 A2⟩ (n,), Frobenius, of factors (n, o, r) and (n, r, i): Σ (B1ᵀ B2) ∘ (A1 A2ᵀ),
    so that nothing of size o × i is ever made."""
    return ((one[0].mT @ other[0]) * (one[1] @ other[1].mT)).sum(dim=(1, 2))

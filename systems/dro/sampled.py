"""Which passages an answer rests on: lists drawn for a question, weighed by the answer given.

The E-step's weights (`systems.dro.em`) without its accepted answer y, which nobody who answers
knows: in its place stands ŷ, what the system itself answered from its greedy list. So
w(z) ∝ p(ŷ|x, d_z) says behind which lists the answer is likely, and so what it rests on; not
whether it is right, nor what training would make of it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from harness.data import Brief, Query
from systems.dro.em import Norm, Said, posterior
from systems.dro.reading import behind
from systems.dro.selector import Asked, Drawn, Selector
from systems.models.hub import library
from systems.models.language import TOKENS, CausalLM, Likelihood
from systems.models.prompts import Prompt


@dataclass(frozen=True)
class Sampler:
    """Draws ``times`` lists of a question from the selector (temperature 1) and weighs them.

    Draws follow from the brief's seed and the question alone, and each question is asked by itself,
    so that batches and resumption change nothing.
    """

    selector: Selector
    generator: CausalLM
    brief: Brief
    times: int
    norm: Norm

    def weighed(self, query: Query, asked: Asked, answer: str) -> tuple[dict[str, Any], int]:
        """What a row says of the lists behind an answer, and the tokens read and written for that,
        a prompt as often as it was continued.

        ``samples``: each different list, the heaviest first: its ids, how often it was drawn, its
        log-probability, that of the answer behind it (its end included), its weight (all sum to
        1); ``effective_samples`` of the draws; ``norm``: the likelihood in the weights
        """
        drawn = self._drawn(query, asked)
        different = list(dict.fromkeys(each.places for each in drawn))
        judged = dict(zip(different, self._judged(query, asked, different, answer), strict=True))
        # Where a model has no end, an empty answer has no tokens.
        said = {z: Said(answer, each.log_p, max(1, each.tokens)) for z, each in judged.items()}
        found = posterior(drawn, said, self.norm)
        often = Counter(each.places for each in drawn)
        log_p = {each.places: each.log_p for each in drawn}
        samples = [
            [[asked.candidates[place].id for place in z], often[z], log_p[z], said[z].log_p, weight]
            for z, weight in sorted(
                zip(found.lists, found.weights, strict=True), key=lambda each: -each[1]
            )
        ]
        read = sum(each.prompt_tokens + each.tokens for each in judged.values())
        told = {"effective_samples": found.figures["ess"], "norm": self.norm}
        return {"samples": samples, **told}, sum(each.tokens for each in drawn) + read

    def _drawn(self, query: Query, asked: Asked) -> list[Drawn]:
        """So many at once as are read in `TOKENS` tokens."""
        seed = random.Random(f"{self.brief.seed} {query.id}").getrandbits(60)
        generator = library("torch").Generator().manual_seed(seed)
        most = max(1, TOKENS // self.selector.lm.count(self.selector.prompt(asked)))
        found: list[Drawn] = []
        while (left := self.times - len(found)) > 0:
            found += self.selector.drawn([asked], min(most, left), generator)[0]
        return found

    def _judged(
        self, query: Query, asked: Asked, lists: list[tuple[int, ...]], answer: str
    ) -> list[Likelihood]:
        """How likely the answer is behind each list, of which is read what would be for answering:
        the passages that fit beside the longest answer."""
        prompts = (
            Prompt(query.text, [asked.candidates[place] for place in z], self.brief.instruction)
            for z in lists
        )
        fitted = (self.generator.fitted(each, self.brief.max_new_tokens) for each in prompts)
        return self.generator.judged([behind(self.generator, each, answer) for each in fitted])

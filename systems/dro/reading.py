"""The generator's side: an answer behind a list of passages, whose likelihood there is judged."""

from __future__ import annotations

from systems.models.language import Asked, CausalLM
from systems.models.prompts import Prompt


def behind(lm: CausalLM, prompt: Prompt, answer: str) -> Asked:
    """A prompt and an answer as ids, of which an end is the last; passages for which there is no
    room beside the answer are left out. With open words an answer can be said behind any list, for
    what it then is worth: as a first appearance it would be likely wherever it is not read."""
    alone = lm.prompts.render(prompt._replace(passages=()))
    prompt = lm.fitted(prompt, len(lm.prompts.written(alone, answer)) + 1)
    row = lm.prompts.render(prompt, [answer])
    target = [*lm.prompts.target(prompt, row, answer), *lm.prompts.end]
    return Asked([*row.ids, *target], len(row.ids), row)

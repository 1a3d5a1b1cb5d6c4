"""The door to causal language models: a prompt goes in, greedily generated text comes out.

Any causal model in Hugging Face format serves, with its chat template if it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.data import HarnessError
from systems.models.hub import library, load, padded, positions


class Prompt(NamedTuple):
    """What a user says, and what the system is told before."""

    user: str
    system: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote. ``stop`` is ``"stop"`` if it ended by itself, ``"length"`` if it was
    cut off; ``counts`` has ``prompt_tokens`` and ``new_tokens`` (its end token included)."""

    text: str
    stop: str
    counts: Mapping[str, float] = field(default_factory=dict)


class CausalLM:
    """A local causal language model.

    window: tokens that prompt and answer may have together; None if there is no limit
    """

    def __init__(self, folder: Path, device: str = "cpu", dtype: str = "float32") -> None:
        self.tokenizer, self.model = load("AutoModelForCausalLM", folder, device, dtype)
        self.window = positions(self.model)
        self.ends = self._ends()
        spare = self.ends[0] if self.ends else 0
        self.pad = spare if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        # The checkpoint's own settings (sampling, repetition penalty) are not greedy decoding.
        self.model.generation_config = self._greedy()

    def _ends(self) -> list[int]:
        """Every token that ends an answer, by the model's or the tokenizer's word."""
        own = self.model.generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own]
        return sorted({each for each in (*listed, self.tokenizer.eos_token_id) if each is not None})

    def _greedy(self, **settings: int) -> object:
        return library("transformers").GenerationConfig(
            do_sample=False, eos_token_id=self.ends or None, pad_token_id=self.pad, **settings
        )

    def tokens(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt as the model reads it, chat template included."""
        if not self.tokenizer.chat_template:
            text = f"{prompt.system}\n\n{prompt.user}" if prompt.system else prompt.user
            return list(self.tokenizer(text)["input_ids"])
        messages = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        try:
            ids = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                return_dict=False,
                # A passage that spells a control token must not become one.
                sanitize_control_tokens=True,
                enable_thinking=False,  # templates that know the word would spend the answer on it
            )
        except library("jinja2").TemplateError as error:
            raise HarnessError(
                f"the model's chat template refuses the prompt: {error}.",
                "Leave system_prompt= out." if prompt.system else "Choose another model.",
            ) from error
        return list(ids)

    def count(self, prompt: Prompt) -> int:
        """How many tokens a prompt has."""
        return len(self.tokens(prompt))

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Continue each prompt greedily by at most ``max_new_tokens``."""
        if not prompts:
            return []
        torch = library("torch")
        rows = [self.tokens(prompt) for prompt in prompts]
        ids, mask = (each.to(self.model.device) for each in padded(rows, self.pad, "left"))
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._greedy(max_new_tokens=max_new_tokens),
            )
        written = found[:, ids.shape[1] :].tolist()
        return [self._generated(row, new) for row, new in zip(rows, written, strict=True)]

    def _generated(self, row: Sequence[int], new: Sequence[int]) -> Generated:
        """Read what was written up to the first end token; behind it is padding."""
        end = next((place for place, token in enumerate(new) if token in self.ends), None)
        kept = new if end is None else new[: end + 1]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        counts = {"prompt_tokens": len(row), "new_tokens": len(kept)}
        return Generated(text, "length" if end is None else "stop", counts)

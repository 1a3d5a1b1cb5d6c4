"""Causal language models in training: all of their weights, or LoRA's, with gradients.

Any Hugging Face model with attention, and checkpoints with open words of that kind. They are run by
our own loop, which reads what several texts share once. Importing this module loads torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.data import HarnessError
from systems.models.backends import Attention, Stepwise, ends_of
from systems.models.hub import (
    base_folder,
    library,
    load_model,
    load_tokenizer,
    peft_alone,
    positions,
    read_config,
    with_adapter,
    writing,
)
from systems.models.openwords import (
    HASHED,
    ClosedVocabulary,
    OpenVocabulary,
    load_vocabulary,
)
from systems.models.prompts import Prompt, TokenPrompts, WordPrompts
from systems.models.words import FILE, has_open_words


class Tunable:
    """A model of a folder, open for training. An adapter there is trained further, or merged if all
    weights are.

    lm:      what reads and writes
    weights: those that are trained, by name; files: those that it begins with
    lora:    the rank of LoRA, on all linear layers with alpha twice as large; 0: all weights
    name:    by which an adapter will find its base; seed: of LoRA's first weights
    """

    def __init__(
        self, folder: Path, device: str = "cpu", lora: int = 0, name: str = "", seed: int = 0
    ) -> None:
        self.folder = folder
        base = base_folder(folder)
        self.files = sorted(each for at in {base, folder} for each in at.glob("*.safetensors"))
        if read_config(folder).get("model_type", "mamba2") == "mamba2":
            raise HarnessError(
                f"{name or folder} has no attention, and only models with it are trained here.",
                "Take another one, such as mini-llama.",
            )
        self.model = load_model("AutoModelForCausalLM", base if lora else folder, device, "float32")
        self.adapted = None
        if lora and base == folder:
            self.adapted = _adapted(self.model, lora, name or str(folder), seed)
        elif lora:
            self.adapted = _taken_up(self.model, folder, lora)
        known = self.model.get_input_embeddings().weight
        self.table: nn.Module | None = None
        self.prompts: TokenPrompts | WordPrompts
        vocabulary: OpenVocabulary | ClosedVocabulary
        if has_open_words(base):
            vocabulary = load_vocabulary(base, known)
            self.table = vocabulary.table
            self.prompts = WordPrompts(vocabulary.words)
        else:
            vocabulary = ClosedVocabulary(known)
            self.prompts = TokenPrompts(load_tokenizer(folder), ends_of(base))
        self.lm = Stepwise(Attention(self.model), self.prompts, vocabulary, _window(self.model))
        if isinstance(self.prompts, TokenPrompts):
            self._check_same(name or str(folder))
        named = dict(self.model.named_parameters())
        if self.table is not None:
            named[HASHED] = next(self.table.parameters())
        self.weights: dict[str, nn.Parameter] = {}
        for part, each in named.items():
            each.requires_grad_(not lora or "lora_" in part)
            if each.requires_grad:
                self.weights[part] = each

    def _check_same(self, name: str) -> None:
        """`HarnessError` if our loop is not the model: some scale embeddings or scores outside of
        the layers, and what is trained must be what serves."""
        asked = Prompt("Which river flows past the tower?", choose=1)
        row = self.lm.prompts.render(asked)
        with torch.no_grad():
            ours = self.lm.next_log_p([row])[0]
            ids = torch.tensor([row.ids], device=ours.device)
            own = self.model(input_ids=ids).logits[0, -1].float().log_softmax(dim=0)
        if not torch.allclose(ours.float(), own, atol=1e-2):
            raise HarnessError(
                f"{name} scales embeddings or scores in a way that training here does not know.",
                "Take a model of another kind, such as a Llama, Qwen or Mistral.",
            )

    @contextmanager
    def salted(self, salt: str) -> Iterator[None]:
        """Words that are not known get another hash meanwhile; of models with open words."""
        if not isinstance(self.prompts, WordPrompts):
            yield
            return
        before, self.prompts.salt = self.prompts.salt, salt
        try:
            yield
        finally:
            self.prompts.salt = before

    def save(self, folder: Path) -> None:
        """Write the model as it stands, or LoRA's adapter, in the precision it was saved in."""
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder):
            self._save(folder)

    def _save(self, folder: Path) -> None:
        precision = self._precision()
        if self.adapted is not None:
            whole = self.adapted.state_dict()
            weights = _cast({n: each for n, each in whole.items() if "lora_" in n}, precision)
            # Else peft would ask the hub whether the base has other embeddings.
            self.adapted.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        elif self.table is not None:
            base = base_folder(self.folder)
            for each in ("config.json", FILE):
                shutil.copyfile(base / each, folder / each)
            found = _cast(self.model.state_dict(), precision)
            found.pop("lm_head.weight", None)
            found[HASHED] = next(self.table.parameters()).detach().to(precision)
            save_file(found, folder / "model.safetensors", {"format": "pt"})
        elif isinstance(self.prompts, TokenPrompts):
            self.model.save_pretrained(folder, state_dict=_cast(self.model.state_dict(), precision))
            self.prompts.tokenizer.save_pretrained(folder)

    def _precision(self) -> torch.dtype:
        file = next(iter(sorted(base_folder(self.folder).glob("*.safetensors"))))
        with library("safetensors").safe_open(file, "pt") as weights:
            name = next(iter(weights.keys()))
            found: torch.dtype = weights.get_tensor(name).dtype
        return found


def _cast(weights: Mapping[str, Tensor], precision: torch.dtype) -> dict[str, Tensor]:
    """Weights in another precision."""
    return {name: each.detach().to(precision).contiguous() for name, each in weights.items()}


def _window(model: Any) -> int | None:
    """The tokens that may be read: a sliding window would drop those of padded rows."""
    sliding = getattr(model.config.get_text_config(), "sliding_window", None)
    return min((each for each in (positions(model), sliding) if each), default=None)


def _taken_up(model: Any, adapter: Path, rank: int) -> Any:
    """A model with an adapter that is trained further."""
    adapted = with_adapter(model, adapter, trained=True)
    if (found := adapted.peft_config["default"].r) != rank:
        raise HarnessError(f"{adapter} is an adapter of rank {found}.", f"Write lora={found}.")
    return adapted


def _adapted(model: Any, rank: int, name: str, seed: int) -> Any:
    """A model with LoRA on all its linear layers, which changes nothing yet."""
    with torch.random.fork_rng(devices=[]), peft_alone() as peft:
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted

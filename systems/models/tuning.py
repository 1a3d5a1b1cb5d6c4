"""Causal language models in training: all of their weights, or LoRA's, with gradients.

Any Hugging Face model with attention, and checkpoints with open words of that kind. They are run by
our own loop, which reads what several texts share once. Importing this module loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.data import HarnessError
from systems.models.backends import Attention, Stepwise
from systems.models.hub import (
    SIGNS,
    base_folder,
    library,
    load_model,
    peft_alone,
    positions,
    read_config,
    sign_rows,
    take_signs,
    with_adapter,
    writing,
)
from systems.models.openwords import HASHED, ClosedVocabulary, load_vocabulary
from systems.models.prompts import Prompt, TokenPrompts, WordPrompts, load_prompts


class Tunable:
    """A model of a folder, open for training. An adapter there is trained further, or merged if all
    weights are.

    lm:      what reads and writes
    weights: those that are trained, by name; files: those that it begins with
    lora:    the rank of LoRA; 0: all weights. alpha: its scale, twice the rank if 0; layers: that
             it is put on, by name, all linear ones if there are none
    name:    by which an adapter will find its base; seed: of LoRA's first weights
    signs:   that the model is to know, which no text spells
    four_bit: its own weights in NF4, beside LoRA's
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        lora: int = 0,
        name: str = "",
        seed: int = 0,
        signs: Sequence[str] = (),
        alpha: int = 0,
        layers: Sequence[str] = (),
        four_bit: bool = False,
    ) -> None:
        self.folder = folder
        base = base_folder(folder)
        self.files = sorted(each for at in {base, folder} for each in at.glob("*.safetensors"))
        if read_config(folder).get("model_type", "mamba2") == "mamba2":
            raise HarnessError(
                f"{name or folder} has no attention, and only models with it are trained here.",
                "Take another one, such as mini-llama.",
            )
        place = base if lora else folder
        self.model = load_model("AutoModelForCausalLM", place, device, "float32", four_bit)
        self.prompts, new = _prompts(folder, signs)
        ids = self.prompts.signs(signs)
        self.first = ids[0] if ids else 0
        if ids != list(range(self.first, self.first + len(ids))):
            raise HarnessError(
                f"{name or folder} knows some of the signs {' '.join(signs)} and not others.",
                "Take a model that knows none of them.",
            )
        if lora:
            take_signs(self.model, folder)
        self.signs = sign_rows(self.model, self.first, len(ids)) if ids else {}
        if new:
            self._begin_signs(seed)
        self.adapted = None
        if lora and base == folder:
            scale, wanted = alpha or 2 * lora, list(layers) or "all-linear"
            self.adapted = _adapted(self.model, lora, scale, wanted, name or str(folder), seed)
        elif lora:
            self.adapted = _taken_up(self.model, folder, lora)
        self.lm, self.table = stepwise(self.model, folder, self.prompts, name)
        self.weights = self._adapted_weights() if lora else self._all_weights()

    def _begin_signs(self, seed: int) -> None:
        """First embeddings of the signs, of the size that others have."""
        draws = torch.Generator().manual_seed(seed)
        for name, rows in self.signs.items():
            known = self._embeddings(name).data[: self.first]
            rows.copy_(torch.randn(rows.shape, generator=draws) * known.std().item())

    def _embeddings(self, name: str) -> Tensor:
        """The matrix that signs have rows in: ``input`` or ``output``."""
        layer = self.model.get_input_embeddings() if name == "input" else None
        found: Tensor = (layer or self.model.get_output_embeddings()).weight
        return found

    def _all_weights(self) -> dict[str, nn.Parameter]:
        named = dict(self.model.named_parameters())
        if self.table is not None:
            named[HASHED] = next(self.table.parameters())
        for each in named.values():
            each.requires_grad_(True)
        return named

    def _adapted_weights(self) -> dict[str, nn.Parameter]:
        """LoRA's, and the embeddings of the signs: parameters that share the memory of the model's
        own, and are handed the gradients of theirs."""
        for each in self.table.parameters() if self.table is not None else ():
            each.requires_grad_(False)
        found = {}
        for name, each in self.model.named_parameters():
            each.requires_grad_("lora_" in name)
            if "lora_" in name:
                found[name] = each
        for name, rows in self.signs.items():
            found[f"signs.{name}"] = part = nn.Parameter(rows)
            whole = self._embeddings(name).requires_grad_(True)
            whole.register_post_accumulate_grad_hook(_handing(part, self.first))
        return found

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
        precision = self.precision
        if self.adapted is not None:
            whole = self.adapted.state_dict()
            weights = _cast({n: each for n, each in whole.items() if "lora_" in n}, precision)
            # Else peft would ask the hub whether the base has other embeddings.
            self.adapted.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
            if self.signs:
                rows = {**_cast(self.signs, precision), "first": torch.tensor(self.first)}
                save_file(rows, folder / SIGNS, {"format": "pt"})
                self.prompts.save(folder)
        elif isinstance(self.prompts, WordPrompts):
            config = read_config(self.folder) | {"vocab_size": len(self.prompts.words)}
            (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
            self.prompts.save(folder)
            found = _cast(self.model.state_dict(), precision)
            found.pop("lm_head.weight", None)
            assert self.table is not None
            found[HASHED] = next(self.table.parameters()).detach().to(precision)
            save_file(found, folder / "model.safetensors", {"format": "pt"})
        else:
            self.model.save_pretrained(folder, state_dict=_cast(self.model.state_dict(), precision))
            self.prompts.save(folder)

    @property
    def precision(self) -> torch.dtype:
        """In which the weights of the model were saved."""
        file = next(iter(sorted(base_folder(self.folder).glob("*.safetensors"))))
        with library("safetensors").safe_open(file, "pt") as weights:
            name = next(iter(weights.keys()))
            found: torch.dtype = weights.get_tensor(name).dtype
        return found


def stepwise(
    model: Any, folder: Path, prompts: TokenPrompts | WordPrompts | None = None, name: str = ""
) -> tuple[Stepwise, nn.Module | None]:
    """A loaded model of a folder run by our own loop, with gradients, and the table of its open
    words if it has them. `HarnessError` if our loop is not the model."""
    prompts = prompts or load_prompts(folder)
    known = model.get_input_embeddings().weight
    if isinstance(prompts, WordPrompts):
        vocabulary = load_vocabulary(folder, known, prompts.words)
        return Stepwise(Attention(model), prompts, vocabulary, _window(model)), vocabulary.table
    lm = Stepwise(Attention(model), prompts, ClosedVocabulary(known), _window(model))
    _check_same(lm, model, name or str(folder))
    return lm, None


def _check_same(lm: Stepwise, model: Any, name: str) -> None:
    """`HarnessError` if our loop is not the model: some scale embeddings or scores outside of
    the layers, and what is trained must be what serves."""
    row = lm.prompts.render(Prompt("Which river flows past the tower?", choose=1))
    with torch.no_grad():
        ours = lm.next_log_p([row])[0]
        ids = torch.tensor([row.ids], device=ours.device)
        own = model(input_ids=ids).logits[0, -1].float().log_softmax(dim=0)
    if not torch.allclose(ours.float(), own, atol=1e-2):
        raise HarnessError(
            f"{name} scales embeddings or scores in a way that training here does not know.",
            "Take a model of another kind, such as a Llama, Qwen or Mistral.",
        )


def _prompts(folder: Path, signs: Sequence[str]) -> tuple[TokenPrompts | WordPrompts, bool]:
    """How a model reads and writes, with signs; and whether any of them is new to it."""
    prompts = load_prompts(folder)
    if isinstance(prompts, WordPrompts):
        words = prompts.words.with_signs(signs)
        return WordPrompts(words), len(words) > len(prompts.words)
    new = prompts.tokenizer.add_tokens(list(signs), special_tokens=True)
    return prompts, bool(new)


def _handing(part: nn.Parameter, first: int) -> Callable[[Tensor], None]:
    """A hook that hands the gradient of some rows of a matrix to the parameter they are of."""

    def hand(whole: Tensor) -> None:
        assert whole.grad is not None
        found = whole.grad[first : first + len(part)]
        part.grad = found.clone() if part.grad is None else part.grad + found
        whole.grad = None

    return hand


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


def _adapted(
    model: Any, rank: int, alpha: int, layers: list[str] | str, name: str, seed: int
) -> Any:
    """A model with LoRA on some linear layers, which changes nothing yet."""
    with torch.random.fork_rng(devices=[]), peft_alone() as peft:
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=layers, task_type="CAUSAL_LM"
        )
        try:
            adapted = peft.get_peft_model(model, config)
        except ValueError as error:
            wanted = layers if isinstance(layers, str) else ", ".join(layers)
            raise HarnessError(
                f"{name} has no layers that LoRA can be put on ({wanted}).",
                "Take a model of another kind, such as a Llama, Qwen or Mistral.",
            ) from error
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted

"""Texts to vectors through any encoder in Hugging Face format.

What it does not do: prompts and prefixes (the caller's), several vectors a text, training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.data import HarnessError
from systems.models.hub import library, load, padded, positions

Pooling = Literal["mean", "last", "cls"]
Vectors = npt.NDArray[np.float32]


class Encoder:
    """Encodes texts in batches of about equal length, so that little is padded.

    pooling:    ``mean`` over the tokens (as E5), the ``last`` or the first (``cls``) of them
    normalize:  whether vectors get length 1
    max_length: tokens after which a text is cut; never more than the model has positions for
    size:       the length of a vector
    """

    def __init__(
        self,
        folder: Path,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 512,
        batch_size: int = 32,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.tokenizer, self.model = load("AutoModel", folder, device, dtype)
        self.pooling, self.normalize, self.batch_size = pooling, normalize, batch_size
        limits = (max_length, self.tokenizer.model_max_length, positions(self.model))
        self.max_length = min(limit for limit in limits if limit)
        self.pad = self.tokenizer.pad_token_id or 0
        self.size = int(self.model.config.get_text_config().hidden_size)
        self.dtype = dtype

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, (n, size), on the CPU; it hardly depends on the other texts."""
        vectors = np.zeros((len(texts), self.size), np.float32)
        if not texts:
            return vectors
        found = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        rows = [row or [self.pad] for row in found["input_ids"]]
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            vectors[batch] = self._forward([rows[place] for place in batch])
        if not np.isfinite(vectors).all():
            raise HarnessError(
                f"the encoder's vectors are not finite in {self.dtype}.", "Try --dtype float32."
            )
        return vectors

    def _forward(self, rows: Sequence[Sequence[int]]) -> Vectors:
        torch = library("torch")
        # Padding on the right leaves every architecture's positions as they are.
        ids, mask = (each.to(self.model.device) for each in padded(rows, self.pad, "right"))
        with torch.inference_mode():
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors = pooled(hidden.float(), mask, self.pooling)
            if self.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
        result: Vectors = vectors.cpu().numpy()
        return result


def pooled(hidden: Any, mask: Any, how: Pooling) -> Any:
    """Hidden states (b, l, d) and their mask (b, l) to vectors (b, d), whichever side is padded."""
    if how == "mean":
        total = hidden.masked_fill(mask[..., None] == 0, 0.0).sum(dim=1)
        return total / mask.sum(dim=1, keepdim=True)
    rising = mask.cumsum(dim=1) * mask  # 1, 2, 3 … over real tokens, 0 over padding
    place = rising.argmax(dim=1) if how == "last" else (rising == 1).int().argmax(dim=1)
    return hidden[range(len(hidden)), place]

"""Texts to vectors through any encoder in Hugging Face format, open words included.

What it does not do: prompts and prefixes (the caller's), several vectors a text, training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.data import HarnessError
from systems.models.hub import by_length, library, load_model
from systems.models.inputs import Line, open_inputs

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
        self.model = load_model("AutoModel", folder, device, dtype)
        self.inputs = open_inputs(folder, self.model, max_length)
        self.pooling, self.normalize, self.batch_size = pooling, normalize, batch_size
        self.size = int(self.model.config.get_text_config().hidden_size)
        self.dtype = dtype

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, (n, size), on the CPU; it hardly depends on the other texts."""
        vectors = np.zeros((len(texts), self.size), np.float32)
        if not texts:
            return vectors
        lines = self.inputs.texts(texts)
        for batch in by_length([len(line.ids) for line in lines], self.batch_size):
            vectors[batch] = self._forward([lines[place] for place in batch])
        if not np.isfinite(vectors).all():
            raise HarnessError(
                f"the encoder's vectors are not finite in {self.dtype}.", "Try --dtype float32."
            )
        return vectors

    def _forward(self, lines: Sequence[Line]) -> Vectors:
        torch = library("torch")
        with torch.inference_mode():
            inputs = self.inputs.tensors(lines, self.model.device)
            hidden, mask = self.model(**inputs).last_hidden_state, inputs["attention_mask"]
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

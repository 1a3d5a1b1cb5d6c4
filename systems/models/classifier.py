"""How well a passage fits a question, by any sequence classifier in Hugging Face format that reads
both at once (Nogueira and Cho 2019, arXiv 1901.04085).

What it does not do: several classes, pairs of other things, training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.data import Document, HarnessError
from systems.models.hub import by_length, library, load_model
from systems.models.inputs import Line, open_inputs
from systems.ranking import Judged


class Classifier:
    """A classifier with one logit, which is the score (as BGE's rerankers), or with two, where the
    score is the log-odds of the second (as monoBERT).

    max_length: tokens of a pair; the passage is cut
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int = 512,
        batch_size: int = 32,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.model = load_model("AutoModelForSequenceClassification", folder, device, dtype)
        if self.model.config.num_labels not in (1, 2):
            raise HarnessError(
                f"the classifier in {folder} has {self.model.config.num_labels} labels.",
                "A cross-encoder has one, or two of which the second means that they fit.",
            )
        self.inputs = open_inputs(folder, self.model, max_length)
        self.batch_size, self.dtype = batch_size, dtype

    def judge(self, pairs: Sequence[tuple[str, Document]]) -> list[Judged]:
        """A score a pair, which hardly depends on the other pairs; higher fits better."""
        if not pairs:
            return []
        lines = self.inputs.pairs(pairs)
        found = [Judged(0.0, len(line.ids)) for line in lines]
        for batch in by_length([len(line.ids) for line in lines], self.batch_size):
            for place, score in zip(batch, self._forward([lines[p] for p in batch]), strict=True):
                found[place] = found[place]._replace(score=score)
        return found

    def _forward(self, lines: Sequence[Line]) -> list[float]:
        torch = library("torch")
        with torch.inference_mode():
            logits = self.model(**self.inputs.tensors(lines, self.model.device)).logits.float()
        score = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        if not score.isfinite().all():
            raise HarnessError(
                f"the classifier's scores are not finite in {self.dtype}.", "Try --dtype float32."
            )
        scores: list[float] = score.tolist()
        return scores

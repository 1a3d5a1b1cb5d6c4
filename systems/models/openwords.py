"""The embeddings of words that have no id of their own, and the scores of saying them again.

b rows, l tokens, u slots of a row's lexicon (as many as the longest has), k known words, d size.
Importing this module loads torch; the words themselves are in `systems.models.words`.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from harness.data import HarnessError
from systems.models.hub import base_folder, library
from systems.models.words import FILE, NEW, Lexicon, OpenWords, has_open_words

HASHED = "words.hashed"
"""The table's name among the weights of a checkpoint."""


class WordTable(nn.Module):
    """The hashed table of a checkpoint: a slot's embedding is the sum of its word's rows."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self.hashed = nn.Parameter(torch.empty(rows, size))
        nn.init.normal_(self.hashed, std=size**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (b, u, hashes) to the embeddings of slots (b, u, d)."""
        return F.embedding(codes, self.hashed).sum(dim=-2) * codes.shape[-1] ** -0.5


class OpenVocabulary:
    """What known words and slots mean to one checkpoint.

    known: the embeddings of its known words, (k, d)
    """

    def __init__(self, words: OpenWords, table: WordTable, known: Tensor) -> None:
        self.words, self.table, self.known = words, table, known

    def slots(self, lexicons: Sequence[Lexicon | None]) -> Tensor:
        """The embeddings of the slots of each row's lexicon, (b, u, d); what is too many in a row
        is never `seen`."""
        codes = [lexicon.codes() if lexicon else [] for lexicon in lexicons]
        width = max(1, *map(len, codes))
        none = (0,) * self.words.hashes
        filled = [[*each, *[none] * (width - len(each))] for each in codes]
        slots: Tensor = self.table(torch.tensor(filled, device=self.known.device))
        return slots

    def embed(self, ids: Tensor, slots: Tensor) -> Tensor:
        """Ids (b, l) to vectors (b, l, d)."""
        words = len(self.words)
        place = (ids - words).clamp(min=0)[..., None].expand(-1, -1, slots.shape[-1])
        plain = F.embedding(ids.clamp(max=words - 1), self.known)
        return torch.where((ids < words)[..., None], plain, slots.gather(1, place))

    def seen(self, ids: Tensor, given: Tensor) -> Tensor:
        """How many slots a row has met at each of its tokens, (b, l): slots are numbered by first
        appearance, and ``given`` (b, 1) of them count as met before."""
        met = (ids - len(self.words) + 1).cummax(dim=1).values
        return torch.maximum(met, given)

    def scores(self, known: Tensor, hidden: Tensor, slots: Tensor, seen: Tensor) -> Tensor:
        """Scores of what comes next, (b, l, k + u): those of known words (b, l, k), and for each
        slot the product of its embedding and the hidden state (b, l, d), -inf if not ``seen``."""
        again = (hidden.to(slots.dtype) @ slots.mT).to(known.dtype)
        unseen = torch.arange(slots.shape[1], device=seen.device) >= seen[..., None]
        return torch.cat([known, again.masked_fill(unseen, -torch.inf)], dim=-1)

    def said(self, targets: Tensor, seen: Tensor) -> Tensor:
        """What has to be said for ids (b, l) to come next: a word not seen before is ``<new>``."""
        return torch.where(targets - len(self.words) >= seen, NEW, targets)


class ClosedVocabulary:
    """Where every word has an id: the calls of `OpenVocabulary`, without slots."""

    def __init__(self, known: Tensor) -> None:
        self.known = known

    def slots(self, lexicons: Sequence[Lexicon | None]) -> Tensor:
        return self.known.new_empty(len(lexicons), 0, 0)

    def embed(self, ids: Tensor, slots: Tensor) -> Tensor:  # noqa: ARG002
        return F.embedding(ids, self.known)

    def seen(self, ids: Tensor, given: Tensor) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(ids)

    def scores(self, known: Tensor, hidden: Tensor, slots: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002
        return known

    def said(self, targets: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002
        return targets


def load_vocabulary(folder: Path, known: Tensor, words: OpenWords | None = None) -> OpenVocabulary:
    """The open words of a checkpoint; ``known`` are the embeddings of its known words, (k, d). An
    adapter may know more words than its base, and hashes the others as that does; ``words``, if
    they are not read from the folder."""
    base = base_folder(folder)
    words = words or OpenWords.read(folder if has_open_words(folder) else base)
    file = base / "model.safetensors"
    safetensors = library("safetensors")
    table = WordTable(words.rows, known.shape[1])
    try:
        with safetensors.safe_open(file, "pt") as weights:
            table.load_state_dict({"hashed": weights.get_tensor(HASHED)})
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise HarnessError(
            f"{file} holds no table of {words.rows} rows for its open words: {error}.",
            "Check the checkpoint's files.",
        ) from error
    if len(known) != len(words):
        raise HarnessError(
            f"the model in {folder} has {len(known)} known words, and {FILE} {len(words)}.",
            "Check the checkpoint's files.",
        )
    return OpenVocabulary(
        words, table.to(known.device, known.dtype).eval().requires_grad_(False), known
    )

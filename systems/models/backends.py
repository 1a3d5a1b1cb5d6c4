"""The two ways of running a causal language model: transformers' own, and a loop of ours.

b rows of a batch, l tokens of a row, t tokens of a text to judge, d hidden size, v ids. Importing
this module loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from harness.data import HarnessError
from systems.models.hub import (
    is_state_spaces,
    library,
    load_model,
    padded,
    positions,
    read_config,
)
from systems.models.language import Asked, CausalLM, Guiding, Hook
from systems.models.mamba2 import load_mamba2
from systems.models.openwords import ClosedVocabulary, OpenVocabulary, load_vocabulary
from systems.models.prompts import Prompts, Rendered, TokenPrompts, WordPrompts, load_prompts
from systems.models.words import has_open_words


def open_backend(folder: Path, device: str, dtype: str) -> CausalLM:
    """See `systems.models.language.open_lm`."""
    config = read_config(folder)
    if is_state_spaces(config) or config.get("model_type") == "mamba2":
        model = load_mamba2(folder, device, dtype)
        network: Network = model
        known = model.backbone.embeddings.weight.detach()
        if not has_open_words(folder):
            return Stepwise(network, load_prompts(folder), ClosedVocabulary(known), None)
    else:
        model = load_model("AutoModelForCausalLM", folder, device, dtype)
        network = Attention(model)
        known = model.get_input_embeddings().weight.detach()
        prompts = load_prompts(folder)
        if isinstance(prompts, TokenPrompts):
            return Transformer(model, prompts)
    vocabulary = load_vocabulary(folder, known)
    window = config.get("max_position_embeddings")
    return Stepwise(network, WordPrompts(vocabulary.words), vocabulary, window)


# --- transformers' own ----------------------------------------------------------------


class Transformer(CausalLM):
    """Any causal model in Hugging Face format, run by transformers."""

    def __init__(self, model: Any, prompts: TokenPrompts) -> None:
        super().__init__(prompts, positions(model))
        spare, pad = prompts.ends[0] if prompts.ends else 0, prompts.tokenizer.pad_token_id
        self.model, self.pad = model, spare if pad is None else pad
        # The checkpoint's own settings (sampling, repetition penalty) are not greedy decoding.
        self.model.generation_config = self._greedy()

    def _greedy(self, **settings: int) -> object:
        return library("transformers").GenerationConfig(
            do_sample=False,
            eos_token_id=list(self.ends) or None,
            pad_token_id=self.pad,
            **settings,
        )

    def _write(
        self, rows: Sequence[Rendered], most: int, hook: Hook | None, start: Any, times: int
    ) -> tuple[list[list[int]], float]:
        if start is not None:
            raise HarnessError("this model has no state to start from.", "Take a Mamba-2.")
        asked = [row.ids for row in rows for _ in range(times)]
        ids, mask = padded(asked, self.pad, "left")
        first: list[float] = []

        def watch(read: Tensor, scores: Tensor) -> Tensor:
            if hook is not None:
                written = [list(self.kept(row)) for row in read[:, ids.shape[1] :].tolist()]
                scores = hooked(hook, written, scores, self.ends)
            first.append(perf_counter())
            return scores

        with torch.inference_mode():
            found = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=self._greedy(max_new_tokens=most),
                logits_processor=[watch],
            )
        return found[:, ids.shape[1] :].tolist(), first[0]

    def _log_p(self, rows: Sequence[Asked]) -> list[float]:
        # Padding on the right leaves every architecture's positions as they are.
        ids, mask = padded([row.ids for row in rows], self.pad, "right")
        places, targets = spans(rows)
        kept = torch.arange(int(places.min()), int(places.max()) + 1)
        wanted = "logits_to_keep" in signature(self.model.forward).parameters
        device = self.model.device
        with torch.inference_mode():
            scores = self.model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                **({"logits_to_keep": kept.to(device)} if wanted else {}),
            ).logits
            places = (places - kept[0] if wanted else places).to(device)
            found: list[float] = log_p(picked(scores, places), targets.to(device)).sum(1).tolist()
        return found


# --- our loop -------------------------------------------------------------------------


class Network(Protocol):
    """A causal model that reads vectors, such as `systems.models.mamba2.Mamba2`."""

    def __call__(
        self, embedded: Tensor, mask: Tensor | None, state: Any, want_state: bool
    ) -> tuple[Tensor, Any]:
        """Read vectors (b, l, d), padded on the right where ``mask`` (b, l) is 0; give hidden
        states (b, l, d) and what was read so far, which may be given as ``state`` once."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of what comes next, (b, l, v)."""
        ...


class Read(NamedTuple):
    """What attention looks back on: keys and values, and which of them are real, (b, l)."""

    cache: Any
    mask: Tensor

    def rows(self, places: Sequence[int]) -> Read:
        """That of some rows, each as often as it is named; this one is spent."""
        chosen = torch.tensor(places, device=self.mask.device)
        self.cache.batch_select_indices(chosen)
        return Read(self.cache, self.mask[chosen])


class Attention:
    """A causal transformer as a `Network`: tokens after padding get the positions that they would
    have without it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self, embedded: Tensor, mask: Tensor | None, state: Read | None, want_state: bool
    ) -> tuple[Tensor, Read]:
        new = embedded.new_ones(embedded.shape[:2], dtype=torch.int64) if mask is None else mask
        whole = new if state is None else torch.cat([state.mask, new], dim=1)
        place = whole.cumsum(dim=1) - 1
        found = self.model.base_model(
            inputs_embeds=embedded,
            attention_mask=whole,
            position_ids=place[:, -embedded.shape[1] :],
            past_key_values=None if state is None else state.cache,
            use_cache=want_state,
        )
        return found.last_hidden_state, Read(found.past_key_values, whole)

    def logits(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.model.get_output_embeddings()(hidden).float()
        return scores


class Text(NamedTuple):
    """Rows for a network: ids and mask (b, l), slots (b, u, d), how many are seen (b, l)."""

    ids: Tensor
    mask: Tensor
    slots: Tensor
    seen: Tensor

    def rows(self, places: Sequence[int]) -> Text:
        """Some rows, each as often as it is named."""
        chosen = torch.tensor(places, device=self.ids.device)
        return Text(*(each[chosen] for each in self))


class Stepwise(CausalLM):
    """A network, token by token, with a vocabulary that may be open."""

    def __init__(
        self,
        network: Network,
        prompts: Prompts,
        vocabulary: OpenVocabulary | ClosedVocabulary,
        window: int | None,
    ) -> None:
        super().__init__(prompts, window)
        self.network, self.vocabulary = network, vocabulary

    def _write(
        self, rows: Sequence[Rendered], most: int, hook: Hook | None, start: Any, times: int
    ) -> tuple[list[list[int]], float]:
        copies = [place for place in range(len(rows)) for _ in range(times)]
        written: list[list[int]] = [[] for _ in copies]
        first = perf_counter()
        with torch.inference_mode():
            hidden, text, state = self._asked(rows, start)
            if times > 1:
                hidden, text, state = hidden[copies], text.rows(copies), state.rows(copies)
            for step in range(most):
                text = self._given(hook, rows, written, text)
                scores = self._scores(hidden, text)[:, 0]
                if not isinstance(hook, Guiding):
                    scores[:, list(self.prompts.forbidden)] = -torch.inf
                if hook is not None:
                    scores = hooked(hook, written, scores, self.ends)
                token = scores.argmax(dim=-1, keepdim=True)
                for row, (new,) in zip(written, token.tolist(), strict=True):
                    if not ended(row, self.ends):
                        row.append(new)
                if step == 0:
                    first = perf_counter()
                if step + 1 == most or all(ended(row, self.ends) for row in written):
                    break
                hidden, state = self._read(token, None, text, state)
        return written, first

    def _given(
        self,
        hook: Hook | None,
        rows: Sequence[Rendered],
        written: Sequence[Sequence[int]],
        text: Text,
    ) -> Text:
        """The text with the words that a hook gives before the next token is chosen."""
        if not isinstance(hook, Guiding):
            return text
        hook.prepare(rows, written)
        slots = [len(row.lexicon.slots) if row.lexicon else 0 for row in rows]
        if max(slots) == 0 or torch.equal(seen := torch.tensor(slots)[:, None], text.seen.cpu()):
            return text
        return text._replace(
            slots=self.vocabulary.slots([row.lexicon for row in rows]),
            seen=seen.to(text.seen.device),
        )

    def _log_p(self, rows: Sequence[Asked]) -> list[float]:
        with torch.inference_mode():
            found: list[float] = self.target_log_p(rows).sum(1).tolist()
        return found

    def target_log_p(self, rows: Sequence[Asked], start: Any = None) -> Tensor:
        """log p of each token of each row's text, (b, t) in float64, 0 behind a shorter one; with
        gradients into the state it starts from. No text is empty."""
        text = self._text([row.ids for row in rows], [row.rendered for row in rows])
        places, targets = (each.to(text.ids.device) for each in spans(rows))
        hidden, _ = self._read(text.ids, text.mask, text, start, want_state=False)
        text = text._replace(seen=picked(text.seen, places))
        scores = self._scores(picked(hidden, places), text)
        return log_p(scores, self.vocabulary.said(targets, text.seen))

    def hidden(self, rows: Sequence[Asked]) -> Tensor:
        """The last hidden states of whole rows, (b, l, d), those of padding meaning nothing."""
        text = self._text([row.ids for row in rows], [row.rendered for row in rows])
        return self._read(text.ids, text.mask, text, None, want_state=False)[0]

    def branched_log_p(
        self,
        rows: Sequence[Rendered],
        texts: Sequence[Sequence[int]],
        of: Sequence[int],
        allowed: Sequence[Sequence[Sequence[int]]] | None = None,
    ) -> Tensor:
        """log p of each id of each text, (n, t) in float64, 0 behind a shorter one, where a text
        stands behind the row that ``of`` names; each row is read once. With gradients.

        allowed: for each id of a text, among which ids it was the choice; all if None
        """
        hidden, text, state = self._asked(rows, None)
        hidden, text = hidden[list(of)], text.rows(of)
        targets, real = (each.to(hidden.device) for each in padded(texts, 0, "right"))
        seen = torch.cat([text.seen, self.vocabulary.seen(targets, text.seen)], dim=1)[:, :-1]
        if targets.shape[1] > 1:
            read = real[:, 1:]  # what has something behind it
            more, _ = self._read(targets[:, :-1], read, text, state.rows(of), want_state=False)
            hidden = torch.cat([hidden, more], dim=1)
        scores = self._scores(hidden, text._replace(seen=seen))
        if allowed is not None:
            scores = scores.masked_fill(~choices(allowed, scores), -torch.inf)
        targets = self.vocabulary.said(targets, seen).masked_fill(real == 0, -1)
        return log_p(scores, targets)

    def _asked(self, rows: Sequence[Rendered], start: Any) -> tuple[Tensor, Text, Any]:
        """Rows read to their ends: the last hidden states (b, 1, d), the text with what is seen
        there (b, 1), and what was read."""
        text = self._text([row.ids for row in rows], rows)
        hidden, state = self._read(text.ids, text.mask, text, start)
        last = text.mask.sum(dim=1, keepdim=True) - 1
        return picked(hidden, last), text._replace(seen=picked(text.seen, last)), state

    def next_log_p(self, rows: Sequence[Rendered], start: Any = None) -> Tensor:
        """log p of whatever may come behind each row, (b, v), with gradients as above."""
        text = self._text([row.ids for row in rows], rows)
        hidden, _ = self._read(text.ids, text.mask, text, start, want_state=False)
        last = text.mask.sum(dim=1, keepdim=True) - 1
        text = text._replace(seen=picked(text.seen, last))
        return self._scores(picked(hidden, last), text)[:, 0].log_softmax(dim=-1)

    def end_state(self, rows: Sequence[Rendered], start: Any = None) -> Any:
        """What the network has read at the end of each row; a row may be empty if not all are."""
        text = self._text([row.ids for row in rows], rows)
        return self._read(text.ids, text.mask, text, start)[1]

    def _text(self, rows: Sequence[Sequence[int]], rendered: Sequence[Rendered]) -> Text:
        slots = self.vocabulary.slots([row.lexicon for row in rendered])
        ids, mask = (each.to(slots.device) for each in padded(rows, 0, "right"))
        given = torch.tensor([[row.given] for row in rendered], device=slots.device)
        return Text(ids, mask, slots, self.vocabulary.seen(ids, given))

    def _read(
        self, ids: Tensor, mask: Tensor | None, text: Text, state: Any, want_state: bool = True
    ) -> tuple[Tensor, Any]:
        embedded = self.vocabulary.embed(ids, text.slots)
        return self.network(embedded, mask, state, want_state)

    def _scores(self, hidden: Tensor, text: Text) -> Tensor:
        return self.vocabulary.scores(self.network.logits(hidden), hidden, text.slots, text.seen)


# --- what both do ---------------------------------------------------------------------


def ended(row: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether the last thing written is an end."""
    return bool(row) and row[-1] in ends


def hooked(
    hook: Hook, written: Sequence[Sequence[int]], scores: Tensor, ends: Sequence[int]
) -> Tensor:
    """The scores as the hook wants them; `ValueError` if it leaves a row nothing to write."""
    changed: Tensor = hook(written, scores)
    for place in changed.isneginf().all(dim=-1).nonzero().flatten().tolist():
        if not ended(written[place], ends):
            raise ValueError(f"the hook allows nothing behind {list(written[place])}")
    return changed


def spans(rows: Sequence[Asked]) -> tuple[Tensor, Tensor]:
    """The places (b, t) whose scores say how likely a text is, and its ids (b, t); where a text is
    shorter its first place again, and -1."""
    width = max(len(row.ids) - row.start for row in rows)
    places = torch.tensor([[row.start - 1] for row in rows]) + torch.arange(width)
    targets, real = padded([row.ids[row.start :] for row in rows], -1, "right")
    return torch.where(real == 1, places, places[:, :1]), targets


def choices(allowed: Sequence[Sequence[Sequence[int]]], scores: Tensor) -> Tensor:
    """Where ids may stand: for each row and place those listed, (b, t, v); behind a row's last
    place all."""
    found = torch.ones(scores.shape, dtype=torch.bool)
    for row, places in zip(found, allowed, strict=True):
        for here, ids in zip(row, places, strict=False):
            here[:] = False
            here[list(ids)] = True
    return found.to(scores.device)


def picked(values: Tensor, places: Tensor) -> Tensor:
    """Values (b, l, …) at places (b, t): (b, t, …)."""
    return values[torch.arange(len(values), device=values.device)[:, None], places]


def log_p(scores: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of the ids (b, t) under scores (b, t, v), in float64; -1 is no id, and
    has 0."""
    found = scores.float().log_softmax(dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return found.masked_fill(targets < 0, 0.0).double()

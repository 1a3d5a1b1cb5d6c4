"""Causal language models from nothing, on the generated world: passages, a question, its answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaModel

from harness.data import Lesson
from systems.models.hub import model_folder
from systems.models.mamba2 import Mamba2, Mamba2Config, State
from systems.models.openwords import OpenVocabulary, WordTable
from systems.models.words import NUMBERS, OpenWords
from systems.training.recipe import Recipe
from systems.training.texts import WEIGHTS, Rows, Texts, joined, texts_of

KINDS = {
    "single": (4.0, 1),
    "unanswerable": (0.5, 1),
    "bridge": (3.0, 2),
    "composed": (1.5, 4),
}
"""Not comparisons and not yes or no: within our budget they stay at chance, with two layers or
three, and take their share of it from what is learned."""
ALONE = 0.5
"""Share of the steps of `MiniLMMixtures` in which each passage is read by itself."""


class Said(NamedTuple):
    """Hidden states (n, d), what should be said there (n,) and its weight (n,); the lesson whose
    words they may say (n,), how many of its slots were met (n,), and the question they answer
    (n,), -1 for none."""

    hidden: Tensor
    targets: Tensor
    weights: Tensor
    lesson: Tensor
    met: Tensor
    question: Tensor


class LanguageRecipe(Recipe):
    """A causal language model on open words; d is its width."""

    kinds = KINDS
    further: ClassVar[Mapping[str, Any]] = {"weights": list(WEIGHTS)}
    width: ClassVar[int]
    table: WordTable
    open: OpenVocabulary

    def read(self, texts: Texts, slots: Tensor, rng: random.Random) -> list[Said]:
        """What the model would say of passages and questions; ``slots`` (w, u, d)."""
        raise NotImplementedError

    def loss(self, lessons: list[Lesson], rng: random.Random) -> tuple[Tensor, float]:
        texts = texts_of(lessons, self.words, rng, bool(self.numbers))
        slots = self.open.slots(texts.lexicons)
        parts = zip(*self.read(texts, slots, rng), strict=True)
        said = Said(*map(torch.cat, parts))
        logits = self.logits(said, slots)
        losses = cross_entropy(logits, said.targets, reduction="none")
        loss = (losses * said.weights).sum() / said.weights.sum()
        return loss, _answered(logits, said, len(texts.gold))

    def new_words(self, known: nn.Embedding) -> None:
        """First embeddings of known and other words, of size 1."""
        self.table = WordTable(self.words.rows, self.width)
        nn.init.normal_(self.table.hashed)
        nn.init.normal_(known.weight)
        self.open = OpenVocabulary(self.words, self.table, known.weight)

    def logits(self, said: Said, slots: Tensor) -> Tensor:
        """Scores (n, K + u) of known words and of the slots met."""
        again = torch.bmm(slots[said.lesson], said.hidden[..., None])[..., 0]
        unmet = torch.arange(again.shape[1]) >= said.met[:, None]
        known = said.hidden @ self.open.known.T
        scale: float = self.width**-0.5
        return torch.cat([known, again.masked_fill(unmet, -torch.inf)], dim=-1) * scale

    def said(
        self, hidden: Tensor, rows: Rows, lesson: Tensor, begins: Tensor | None = None
    ) -> Said:
        """Where rows (r, l) of hidden states (r, l, d) say what counts.

        lesson: (r,) of each row; begins: (r,), where its answer begins, if it has one
        """
        counts = rows.weights[:, 1:] > 0
        row, place = counts.nonzero(as_tuple=True)
        question = torch.full_like(row, -1)
        if begins is not None:
            question = torch.where(place + 1 >= begins[row], row, question)
        met = self.open.seen(rows.ids, rows.before)[:, :-1]
        parts = (hidden[:, :-1], self.open.said(rows.ids[:, 1:], met), rows.weights[:, 1:], met)
        found, targets, weights, met = (each[counts] for each in parts)
        return Said(found, targets, weights, lesson[row], met, question)


def _answered(logits: Tensor, said: Said, questions: int) -> float:
    """The share of questions of which each token of the answer is the likeliest."""
    part = said.question >= 0
    missed = logits[part].argmax(-1) != said.targets[part]
    wrong = set(said.question[part][missed].tolist())
    return 1 - len(wrong) / questions


class MiniLM(LanguageRecipe):
    """A plain Mamba-2 language model: it reads passages and question as one text."""

    name = "mini-lm"
    width = 96
    shape: ClassVar[dict[str, Any]] = {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "state_size": 128,
        "head_dim": 32,
        "num_heads": 6,
        "expand": 2,
        "n_groups": 1,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "layer_norm_epsilon": 1e-5,
        "hidden_act": "silu",
        "rms_norm": True,
        "norm_before_gate": False,
        "residual_in_fp32": True,
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "chunk_size": 32,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 5,
    }
    memory: ClassVar[dict[str, Any]] = {"time_step": (0.05, 0.5), "decay": (0.02, 1.0)}
    """First values of dt and -A: a state that holds a document, not some characters."""
    model: nn.ModuleDict

    def new_model(self) -> nn.ModuleDict:
        self.config = {**self.shape, "vocab_size": len(self.words)}
        shape = Mamba2Config.from_huggingface(self.config)
        self.body = Mamba2(replace(shape, **self.memory))
        self.new_words(self.body.backbone.embeddings)
        return nn.ModuleDict({"body": self.body, "words": self.table})

    def read(self, texts: Texts, slots: Tensor, rng: random.Random) -> list[Said]:  # noqa: ARG002
        rows = joined(texts)
        hidden, state = self.body(self.open.embed(rows.ids, slots), rows.mask)
        start = State(*(tuple(each[texts.lesson] for each in part) for part in state))
        lessons = torch.arange(len(slots))
        return [self.said(hidden, rows, lessons), self.asked(texts, slots, start)]

    def asked(self, texts: Texts, slots: Tensor, start: State) -> Said:
        """The questions, each from the state (n, …) that its passages left."""
        rows = texts.questions
        embedded = self.open.embed(rows.ids, slots[texts.lesson])
        hidden, _ = self.body(embedded, rows.mask, start, want_state=False)
        return self.said(hidden, rows, texts.lesson, texts.begins)

    def weights(self) -> dict[str, Tensor]:
        found = dict(self.body.state_dict())
        found.pop("lm_head.weight")
        # The scale of the logits goes into the last norm, so that they are plain products.
        found["backbone.norm_f.weight"] = found["backbone.norm_f.weight"] * self.width**-0.5
        return {**found, "words.hashed": self.table.hashed}


class MiniLMMixtures(MiniLM):
    """The same budget, half of it on mixtures: the SSM state that a question starts from is a
    weighted sum of those of its passages, each read by itself; its convolution context is the mean
    of all of theirs."""

    name = "mini-lm-mixtures"
    further: ClassVar[Mapping[str, Any]] = {**MiniLM.further, "alone": ALONE}

    def read(self, texts: Texts, slots: Tensor, rng: random.Random) -> list[Said]:
        if rng.random() >= ALONE:
            return super().read(texts, slots, rng)
        rows = texts.passages
        hidden, states = self.body(self.open.embed(rows.ids, slots[texts.home]), rows.mask)
        size = len(rows.ids) // len(slots)
        weights = torch.tensor([mixture(size, gold, rng) for gold in texts.gold])
        start = State(
            tuple(_mixed(each, weights, texts.lesson) for each in states.ssm),
            tuple(each.unflatten(0, (-1, size)).mean(1)[texts.lesson] for each in states.conv),
        )
        return [self.said(hidden, rows, texts.home), self.asked(texts, slots, start)]


def mixture(size: int, gold: tuple[int, ...], rng: random.Random) -> list[float]:
    """Weights of a lesson's passages, in which its gold passages are never left out: all alike, a
    random subset, or random numbers; scaled somewhere between a sum and a mean."""
    how = rng.random()
    if how < 0.35:
        weights = [1.0] * size
    elif how < 0.7:
        weights = [float(place in gold or rng.random() < 0.5) for place in range(size)]
    else:
        weights = [
            rng.uniform(0.3, 1.0) if place in gold else rng.uniform(0.0, 1.0)
            for place in range(size)
        ]
    scale = max(sum(weights), 1.0) ** -rng.choice([0.0, rng.random(), 1.0])
    return [each * scale for each in weights]


def _mixed(states: Tensor, weights: Tensor, lesson: Tensor) -> Tensor:
    """States of passages (w s, …), weights (n, s), lessons (n,) to mixtures (n, …)."""
    apart = states.unflatten(0, (-1, weights.shape[1])).flatten(2)  # (w, s, …)
    return torch.einsum("ns,nsx->nx", weights, apart[lesson]).view(-1, *states.shape[1:])


class MiniLlama(LanguageRecipe):
    """A Llama-shaped model (attention, so LoRA and constrained caches are at home).

    The heads of the first layer begin by looking one, two, … tokens back: from nothing, and with
    names of which nothing can be learned by heart, binding a name to the words before it is what
    attention does not find within our budget.
    """

    name = "mini-llama"
    steps = 6_000
    width = 128
    rate = 2e-3
    shape: ClassVar[dict[str, Any]] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "intermediate_size": 320,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 5,
    }
    model: nn.ModuleDict

    def new_model(self) -> nn.ModuleDict:
        self.config = {**self.shape, "vocab_size": len(self.words)}
        self.body = LlamaModel(LlamaConfig(**self.config, attn_implementation="sdpa"))
        self.new_words(self.body.embed_tokens)
        for name, each in self.body.layers.named_parameters():
            if each.dim() == 2:
                into_sum = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(each, std=each.shape[1] ** -0.5 * (0.5 if into_sum else 1.0))
        look_back(self.body.layers[0].self_attn, self.config)
        return nn.ModuleDict({"body": self.body, "words": self.table})

    def read(self, texts: Texts, slots: Tensor, rng: random.Random) -> list[Said]:  # noqa: ARG002
        rows, asked, of = joined(texts), texts.questions, texts.lesson
        read = self.body(
            inputs_embeds=self.open.embed(rows.ids, slots), attention_mask=rows.mask, use_cache=True
        )
        cache = read.past_key_values
        cache.batch_select_indices(of)
        places = rows.mask.sum(1)[of, None] + torch.arange(asked.ids.shape[1])
        answered = self.body(
            inputs_embeds=self.open.embed(asked.ids, slots[of]),
            attention_mask=torch.cat([rows.mask[of], asked.mask], dim=1),
            position_ids=places,
            past_key_values=cache,
        )
        lessons = torch.arange(len(slots))
        return [
            self.said(read.last_hidden_state, rows, lessons),
            self.said(answered.last_hidden_state, asked, of, texts.begins),
        ]

    def weights(self) -> dict[str, Tensor]:
        found = {f"model.{name}": each for name, each in self.body.state_dict().items()}
        found["model.norm.weight"] = found["model.norm.weight"] * self.width**-0.5
        return {**found, "words.hashed": self.table.hashed}


class MiniSelector(MiniLlama):
    """The shipped `MiniLlama`, taught further to write the numbers of the passages that a question
    needs, in the order of its steps. Numbers are words of their own: a hashed one cannot be told
    from what it stands beside. (From nothing, and together with answering, it takes far longer.)
    """

    name = "mini-selector"
    steps = 3_000
    rate = 1e-3
    sizes = (2, 3, 4, 6, 8, 10, 15, 20)
    kinds: ClassVar[dict[str, tuple[float, int]]] = {
        "single": (4.0, 2),
        "bridge": (3.0, 2),
        "composed": (1.5, 4),
    }
    enough = 0.6
    numbers = NUMBERS
    start = "mini-llama"

    def new_model(self) -> nn.ModuleDict:
        made = super().new_model()
        folder = model_folder(self.start)
        file = folder / "model.safetensors"
        found = {name: each.float() for name, each in load_file(file).items()}
        self.table.hashed.data.copy_(found.pop("words.hashed"))
        body = {name.removeprefix("model."): each for name, each in found.items()}
        body["norm.weight"] = body["norm.weight"] * self.width**0.5
        known = self.open.known.data.clone()
        old = OpenWords.read(folder).ids
        both = [(place, old[word]) for word, place in self.words.ids.items() if word in old]
        to, of = map(list, zip(*both, strict=True))
        known[to] = body["embed_tokens.weight"][of]
        self.body.load_state_dict({**body, "embed_tokens.weight": known})
        return made

    def described(self) -> dict[str, Any]:
        found = super().described()
        weights = (model_folder(self.start) / "model.safetensors").read_bytes()
        start = {"start": self.start, "sha256": sha256(weights).hexdigest()[:16]}
        return {**found, "recipe": {**found["recipe"], **start}}


LOOK = 6.0
"""How large the biases of a head that looks back are: it begins with nearly all of its attention
at one distance."""


def look_back(attention: nn.Module, config: dict[str, Any]) -> None:
    """Let head n attend n + 1 tokens back: with q = 1 and k = exp(i θ (n + 1)) in each frequency θ
    of the rotary embedding, their product is greatest there."""
    half = config["head_dim"] // 2
    theta = config["rope_parameters"]["rope_theta"] ** -(torch.arange(half) / half)
    angles = theta * (torch.arange(config["num_attention_heads"]) + 1)[:, None]
    looks = {  # (heads, real and imaginary parts, half)
        attention.q_proj: torch.stack([torch.ones_like(angles), torch.zeros_like(angles)], dim=1),
        attention.k_proj: torch.stack([angles.cos(), angles.sin()], dim=1),
    }
    for each in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        nn.init.zeros_(each.bias)
    for each, look in looks.items():
        each.bias.data.copy_(LOOK * look.flatten())

"""Tiny models with seeded random weights, saved in the official formats, for tests.

Weights are drawn wide, so that what goes in really changes what comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from harness.corpus import Corpus, write_corpus
from harness.data import Document
from systems.models.openwords import WordTable
from systems.models.words import END, OpenWords

TEXTS = (
    "The tower of Ostrava was built by Mira Kolen in the year 1874.",
    "Mira Kolen was born in Brno and lived near the river.",
    "Question: which river flows past the tower? Answer: the Morava.",
    "passage: query: [1] [2] [3] who built what, when and where",
)
SPECIAL = ("<pad>", "<s>", "</s>", "[CLS]", "[SEP]", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEIGHTS = "model.safetensors"
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
HEADS = {"num_attention_heads": 4, "intermediate_size": 48}


def corpus_of(documents: list[Document], folder: Path) -> Corpus:
    """A corpus folder with these documents, opened."""
    folder.mkdir(parents=True)
    write_corpus(documents, folder, folder / "natives.txt")
    return Corpus(folder)


def make_tokenizer(**special: Any) -> Any:
    """A byte-level BPE tokenizer; ``special`` as for PreTrainedTokenizerFast."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    frame, pair = None, None
    if "cls_token" in special:
        frame, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
        special["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    elif "bos_token" in special:
        frame = f"{special['bos_token']} $A"
    if frame:
        ids = [(token, bpe.token_to_id(token)) for token in SPECIAL]
        bpe.post_processor = processors.TemplateProcessing(
            single=frame, pair=pair, special_tokens=ids
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def _saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bert(
    kind: Callable[..., Any], folder: Path, seed: int, positions: int, **settings: Any
) -> Path:
    tokenizer = make_tokenizer(pad_token="<pad>", cls_token="[CLS]", sep_token="[SEP]")
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions, **settings, **WIDE, **HEADS
    )
    return _saved(kind(config), tokenizer, folder)


def make_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT-shaped encoder, 64 positions."""
    return _bert(transformers.BertModel, folder, seed, 64)


def make_llama(folder: Path, seed: int = 0, positions: int = 256) -> Path:
    """A Llama-shaped language model; its tokenizer has no padding token."""
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **WIDE,
        **HEADS,
    )
    return _saved(transformers.LlamaForCausalLM(config), tokenizer, folder)


def make_mamba2(folder: Path, seed: int = 0) -> Path:
    """A Mamba-2 language model, which has no limit of positions."""
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="</s>")
    torch.manual_seed(seed)
    config = transformers.Mamba2Config(
        vocab_size=len(tokenizer),
        state_size=8,
        head_dim=16,
        num_heads=4,
        n_groups=1,
        expand=2,
        chunk_size=16,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **WIDE,
    )
    return _saved(transformers.Mamba2ForCausalLM(config), tokenizer, folder)


def make_qwen2(folder: Path, seed: int = 0, positions: int = 256) -> Path:
    """A Qwen2-shaped chat model with tied embeddings and unwelcome defaults."""
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHAT
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **WIDE,
        **HEADS,
    )
    model = transformers.Qwen2ForCausalLM(config)
    model.generation_config = transformers.GenerationConfig(
        do_sample=True,
        temperature=2.0,
        repetition_penalty=1.9,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("</s>")],
    )
    return _saved(model, tokenizer, folder)


KNOWN = "the of was by in who what when where which built born river tower past ? . : ,".split()
"""Words that tiny models with open words know; others get slots."""


def _with_open_words(
    model: Any, folder: Path, world: str = "", known: Sequence[str] = KNOWN
) -> Path:
    """Saved with a table of hashed words beside its weights, as shipped checkpoints are."""
    words = OpenWords.of(known)
    torch.manual_seed(words.rows)
    table = WordTable(words.rows, WIDE["hidden_size"])
    weights = {**model.state_dict(), "words.hashed": 3 * table.hashed.detach()}
    weights.pop("lm_head.weight", None)  # tied to the embeddings of known words
    model.config.save_pretrained(folder)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    words.write(folder)
    (folder / "about.json").write_text(json.dumps({"name": folder.name, "world": world}))
    return folder


def _open_config(kind: Callable[..., Any], known: Sequence[str] = KNOWN, **settings: Any) -> Any:
    words = len(OpenWords.of(known))
    return kind(vocab_size=words, tie_word_embeddings=True, eos_token_id=END, **settings, **WIDE)


def make_open_mamba2(folder: Path, seed: int = 0, world: str = "") -> Path:
    """A Mamba-2 language model with open words."""
    torch.manual_seed(seed)
    heads = {"head_dim": 16, "num_heads": 4, "n_groups": 1, "expand": 2}
    config = _open_config(transformers.Mamba2Config, state_size=8, chunk_size=16, **heads)
    return _with_open_words(transformers.Mamba2ForCausalLM(config), folder, world)


def make_open_llama(folder: Path, seed: int = 0, world: str = "", more: Sequence[str] = ()) -> Path:
    """A Llama-shaped language model with open words, 256 positions; it knows ``more`` words."""
    torch.manual_seed(seed)
    known = [*KNOWN, *more]
    config = _open_config(transformers.LlamaConfig, known, max_position_embeddings=256, **HEADS)
    return _with_open_words(transformers.LlamaForCausalLM(config), folder, world, known)


def make_open_bert(folder: Path, seed: int = 0, world: str = "", labels: int = 0) -> Path:
    """A BERT-shaped encoder with open words, 64 positions, or a classifier with ``labels``."""
    torch.manual_seed(seed)
    config = _open_config(
        transformers.BertConfig, max_position_embeddings=64, num_labels=labels or 1, **HEADS
    )
    kind = transformers.BertForSequenceClassification if labels else transformers.BertModel
    return _with_open_words(kind(config), folder, world)


def make_classifier(folder: Path, seed: int = 0, labels: int = 1, positions: int = 64) -> Path:
    """A BERT-shaped classifier of pairs."""
    kind = transformers.BertForSequenceClassification
    return _bert(kind, folder, seed, positions, num_labels=labels)


def make_masked(folder: Path, seed: int = 0) -> Path:
    """A BERT-shaped masked language model, 512 positions."""
    return _bert(transformers.BertForMaskedLM, folder, seed, 512)


OPEN: dict[str, Callable[..., Path]] = {
    "open-mamba2": make_open_mamba2,
    "open-llama": make_open_llama,
}
LANGUAGE: dict[str, Callable[..., Path]] = {
    "llama": make_llama,
    "mamba2": make_mamba2,
    "qwen2": make_qwen2,
}

"""What a step of RICO costs: ratios and limits of one process, one thread, random weights.

    python benchmarks/rico.py [--tokens 32] [--repeats 5]

At the shape of mamba2-130m (24 layers, 768 wide, 50,288 words), 10 documents, one question:

1. A step (mix the states, the question's loss, its gradient, a product for each document) over the
   same through transformers' Mamba-2 in plain torch, given the same states. Limit 1/5. The
   gradients agree to 1/1000.
2. The memory that a step takes at its peak, over that of transformers. Limit 0.7.
3. A step over the dense products alone (projections and output layer, forwards and back to the
   state). Aim 2.
4. Eight questions at once over eight one by one.

At the shape of the shipped mini-lm: what a step costs at 10 to 10,000 candidates, from a store.

Exit code 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import DynamicCache, Mamba2ForCausalLM
from transformers import Mamba2Config as TheirConfig
from transformers.cache_utils import LinearAttentionLayer

from harness.run.measure import peak_memory
from systems.models.hub import model_folder, read_config
from systems.models.mamba2 import Mamba2, Mamba2Config
from systems.rico.mixture import descend, uniform
from systems.rico.states import Layout, Store
from systems.rico.system import View

SHAPE = Mamba2Config(vocab_size=50_288, hidden_size=768, layers=24, tie=True)
CANDIDATES = (10, 100, 1_000, 10_000)


def ours(config: Mamba2Config) -> tuple[Mamba2, Layout]:
    """A model with random weights, and the layout of all of its layers."""
    torch.manual_seed(0)
    model = Mamba2(config).eval().requires_grad_(False)
    return model, Layout(config, tuple(range(config.layers)))


def loss_of(model: Mamba2, layout: Layout, ids: Tensor) -> Callable:
    """The loss of questions (b, l) behind states."""

    def loss(h: Tensor, places) -> Tensor:
        asked = ids[list(places)]
        conv = h.new_zeros(len(h), layout.size - layout.ssm)
        hidden, _ = model(model.embed(asked), None, layout.state(h, conv), want_state=False)
        scores = model.logits(hidden[:, :-1]).log_softmax(-1)
        return -scores.gather(-1, asked[:, 1:, None])[..., 0].mean(1)

    return loss


def step(loss: Callable, pools: list[View]) -> Tensor:
    """One step for each pool's question, all at once; the gradient of the first, (n,)."""
    base = torch.zeros(len(pools), pools[0].ssm)
    found = descend(pools, base, [uniform(len(pool)) for pool in pools], loss, 1, 0.5)
    return found[0].gradient


def pool_of(layout: Layout, rows: Tensor) -> View:
    """Documents as the system holds them, from a store in bfloat16."""
    keys, store = [str(n) for n in range(len(rows))], Store(layout.size, "bfloat16", len(rows))
    store.put(keys, rows)
    return View(store, keys, layout.ssm, rows.device)


class Given(LinearAttentionLayer):
    """A cache layer that starts from a given state and keeps its gradients."""

    def __init__(self, ssm: Tensor, conv: Tensor) -> None:
        super().__init__()
        self.recurrent_states[0], self.conv_states[0] = ssm, F.pad(conv, (1, 0))
        for there in (
            self.is_recurrent_states_initialized,
            self.is_conv_states_initialized,
            self.has_previous_state,
        ):
            there[0] = True
        self.conv_kernel_size[0] = 4
        self.dtype, self.device = ssm.dtype, ssm.device

    def update_recurrent_state(self, state, state_idx=0, **_):
        self.recurrent_states[state_idx] = state
        return state

    def update_conv_state(self, state, state_idx=0, conv_kernel_size=4, **_):
        past = self.conv_states[state_idx][..., -(conv_kernel_size - 1) :]
        full = torch.cat([past, state], -1)
        self.conv_states[state_idx] = full[..., -conv_kernel_size:]
        return full


def theirs(config: Mamba2Config) -> Mamba2ForCausalLM:
    """The same shape in transformers."""
    torch.manual_seed(0)
    made = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_heads=config.heads,
        head_dim=config.head_dim,
        state_size=config.state_size,
        n_groups=1,
        expand=2,
        tie_word_embeddings=True,
    )
    return Mamba2ForCausalLM(made).eval().requires_grad_(False)


def their_step(model: Mamba2ForCausalLM, layout: Layout, rows: Tensor, ids: Tensor) -> Tensor:
    """The gradient in the weights of documents, (n,)."""
    weights = torch.full((len(rows),), 1 / len(rows), requires_grad=True)
    conv = torch.zeros(1, layout.size - layout.ssm)
    state = layout.state((weights @ rows)[None], conv)
    cache = DynamicCache(config=model.config)
    cache.layers = [Given(ssm, conv) for ssm, conv in zip(*state, strict=True)]
    logits = model(ids, cache_params=cache, use_cache=True).logits
    loss = F.cross_entropy(logits[0, :-1], ids[0, 1:])
    return torch.autograd.grad(loss, weights)[0]


def dense(config: Mamba2Config, tokens: int) -> Callable[[], None]:
    """The projections and the output layer, forwards and backwards, and nothing between."""
    d, wide = config.hidden_size, config.inner + config.conv_dim + config.heads
    into = [torch.randn(wide, d) for _ in range(config.layers)]
    out = [torch.randn(d, config.inner) for _ in range(config.layers)]
    head = torch.randn(config.vocab_size, d)
    x, y, z = torch.randn(tokens, d), torch.randn(tokens, config.inner), torch.randn(tokens, wide)

    def run() -> None:
        logits = x @ head.T
        for a, b in zip(into, out, strict=True):
            x @ a.T
            y @ b.T
            z @ a
            x @ b
        logits @ head

    return run


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after one that does not count."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)


def inputs(tokens: int, questions: int = 1) -> tuple[Tensor, Tensor]:
    """States of ten documents and ids of questions, the same for everybody."""
    layout = Layout(SHAPE, tuple(range(SHAPE.layers)))
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, SHAPE.vocab_size, (questions, tokens), generator=draw)
    rows = torch.randn(10, layout.size, generator=draw) * 0.1
    rows[:, layout.ssm :] = 0
    return rows.bfloat16().float(), ids


def peak(who: str, tokens: int) -> float:
    """MiB that one step takes at its peak, in a process of its own."""
    command = [sys.executable, __file__, "--peak", who, "--tokens", str(tokens)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured_peak(who: str, tokens: int) -> float:
    """What `peak` asks its process for."""
    rows, ids = inputs(tokens)
    if who == "ours":
        model, layout = ours(SHAPE)
        loss = loss_of(model, layout, ids)
        pool = pool_of(layout, rows)
        before = forgotten_peak()
        step(loss, [pool])
    else:
        layout = Layout(SHAPE, tuple(range(SHAPE.layers)))
        their = theirs(SHAPE)
        before = forgotten_peak()
        their_step(their, layout, rows[:, : layout.ssm], ids)
    return (peak_memory() - before) / 2**20


def forgotten_peak() -> int:
    """Make this process forget the most memory it had so far (Linux); what it has now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def large(tokens: int, repeats: int) -> dict[str, float]:
    """Points 1, 3 and 4."""
    rows, ids = inputs(tokens, 8)
    model, layout = ours(SHAPE)
    loss = loss_of(model, layout, ids)
    pool, rows = pool_of(layout, rows), rows[:, : layout.ssm].contiguous()
    one = seconds(lambda: step(loss, [pool]), repeats)
    eight = seconds(lambda: step(loss, [pool] * 8), repeats)
    floor = seconds(dense(SHAPE, tokens), repeats)
    their = theirs(SHAPE)
    model.load_state_dict(their.state_dict())
    mine, same = step(loss, [pool]), their_step(their, layout, rows, ids[:1]).double()
    error = float((mine - same).abs().max() / same.abs().max())
    other = seconds(lambda: their_step(their, layout, rows, ids[:1]), max(1, repeats // 2))
    return {
        "step_ms": 1000 * one,
        "relative_difference_of_gradients": error,
        "over_transformers": one / other,
        "over_dense": one / floor,
        "eight_over_eight_single": eight / (8 * one),
    }


def by_candidates(tokens: int, repeats: int) -> list[dict[str, float]]:
    """A step of the shipped model's shape, and its parts, at each number of candidates."""
    config = Mamba2Config.from_huggingface(read_config(model_folder("mini-lm")))
    model, layout = ours(config)
    ids = torch.randint(0, config.vocab_size, (1, tokens))
    loss = loss_of(model, layout, ids)
    keys = [str(n) for n in range(max(CANDIDATES))]
    store = Store(layout.size, "bfloat16", len(keys))
    for start in range(0, len(keys), 500):
        store.put(keys[start : start + 500], 0.1 * torch.randn(500, layout.size))
    found = []
    alone = seconds(lambda: step(loss, [View(store, keys[:1], layout.ssm, "cpu")]), repeats)
    for count in CANDIDATES:
        pool = View(store, keys[:count], layout.ssm, "cpu")
        spent = seconds(lambda pool=pool: step(loss, [pool]), repeats)
        found.append({"candidates": count, "ms": 1000 * spent, "loss_ms": 1000 * alone})
    return found


def main() -> int:
    """Measure and print; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(measured_peak(options.peak, options.tokens))
        return 0
    mine, other = (peak(who, options.tokens) for who in ("ours", "theirs"))
    found: dict[str, float] = {"peak_mib": mine, "peak_over_transformers": mine / other}
    found |= large(options.tokens, options.repeats)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1))
    for line in by_candidates(options.tokens, options.repeats):
        print(json.dumps({name: round(value, 2) for name, value in line.items()}))
    broken = [
        found["over_transformers"] > 1 / 5,
        found["peak_over_transformers"] > 0.7,
        found["relative_difference_of_gradients"] > 1e-3,
    ]
    return int(any(broken))


if __name__ == "__main__":
    sys.exit(main())

"""Mamba-2 in plain torch: states go in, states come out, and gradients flow through both.

What it does: the chunked SSD forward of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) from any
initial state of every layer, and checkpoints of Hugging Face and of ``state-spaces/mamba2-*``.
What it does not do: Mamba-1, attention and MLP layers, sampling.

Symbols, as in the paper:

    b  rows of a batch            h  heads                  q  tokens of a chunk
    l  tokens of a row            p  channels of a head     k  taps of the convolution
    d  hidden size                n  size of a state        v  vocabulary
    g  groups of heads that share B and C                   r  heads of a group, h = g r

    x  (b, l, h, p)  input        A  (h,)  decay rate, < 0  dt  (b, l, h)  step size, ≥ 0
    B  (b, l, g, n)  what enters  D  (h,)  skip             H   (b, h, p, n)  state
    C  (b, l, g, n)  what is read                           y   (b, l, h, p)  output

Each head is a recurrence over tokens (section 2 of the paper, where A is one number a head):

    H_t = exp(dt_t A) H_{t-1} + dt_t x_t B_tᵀ          y_t = H_t C_t + D x_t

Padding is on the right and exact: where dt = 0, a state stays as it is. Importing this module
imports torch, so import it where a model is needed and not at the top of a module.
"""

# ruff: noqa: N803, N806, N812, E741 (the names of the paper)
# mypy: allow-subclassing-any

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data import HarnessError
from systems.models.hub import (
    PICKLED,
    checked_device,
    checked_dtype,
    is_state_spaces,
    library,
    read_config,
)

CHUNK = 32
"""The default of q, measured in training tiny models on one CPU thread."""
KERNEL_CHUNK = 256
"""q in the CUDA kernel, as in the official models."""


class State(NamedTuple):
    """What a model remembers of the tokens it has read.

    ssm:  one for each layer, (b, h, p, n), in float32 or better
    conv: one for each layer, (b, h p + 2 g n, k - 1): the last inputs of its convolution
    """

    ssm: tuple[Tensor, ...] = ()
    conv: tuple[Tensor, ...] = ()

    def rows(self, places: Sequence[int]) -> State:
        """The states of some rows of the batch."""
        chosen = torch.tensor(places, device=self.ssm[0].device)
        return State(*(tuple(each[chosen] for each in part) for part in self))


class Run(NamedTuple):
    """What one call of the model tells a mixer: see `Mamba2` and its `forward`."""

    mask: Tensor | None
    start: tuple[Tensor, Tensor] | None
    want_state: bool
    chunk: int
    kernel: bool


HUGGINGFACE = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "state_size": "state_size",
    "head_dim": "head_dim",
    "n_groups": "groups",
    "expand": "expand",
    "conv_kernel": "conv_kernel",
    "layer_norm_epsilon": "eps",
    "tie_word_embeddings": "tie",
    "use_bias": "bias",
    "use_conv_bias": "conv_bias",
    "residual_in_fp32": "residual_in_fp32",
}
"""transformers' config in our words. Older files say norm_before_gate, which nothing reads."""
STATE_SPACES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layer": "layers",
    "tie_embeddings": "tie",
    "residual_in_fp32": "residual_in_fp32",
}
SSM_CFG = {
    "d_state": "state_size",
    "headdim": "head_dim",
    "ngroups": "groups",
    "expand": "expand",
    "d_conv": "conv_kernel",
    "bias": "bias",
    "conv_bias": "conv_bias",
    "norm_before_gate": "norm_before_gate",
}
"""The original config and the ssm_cfg inside it."""
HARMLESS = {"chunk_size", "use_mem_eff_path", "conv_init", "A_init_range"}
HARMLESS |= {"dt_min", "dt_max", "dt_init_floor"}
"""Of ssm_cfg, what says how a model began or how it is computed, and not what."""


@dataclass(frozen=True, kw_only=True)
class Mamba2Config:
    """The shape of a model, and what a new one begins with.

    time_step_limit:  what dt is clamped to
    time_step, decay: least and greatest dt and -A in a new model
    residual_in_fp32: whether the sum over layers is float32 where the layers are bfloat16
    norm_before_gate: norm(y) silu(z) instead of norm(y silu(z))
    """

    vocab_size: int
    hidden_size: int
    layers: int
    state_size: int = 128
    head_dim: int = 64
    groups: int = 1
    expand: int = 2
    conv_kernel: int = 4
    eps: float = 1e-5
    time_step_limit: tuple[float, float] = (0.0, math.inf)
    time_step: tuple[float, float] = (0.001, 0.1)
    decay: tuple[float, float] = (1.0, 16.0)
    tie: bool = False
    bias: bool = False
    conv_bias: bool = True
    residual_in_fp32: bool = True
    norm_before_gate: bool = False

    def __post_init__(self) -> None:
        if self.inner % self.head_dim or self.heads % self.groups:
            raise HarnessError(
                f"{self.inner} channels do not divide into heads of {self.head_dim} channels "
                f"and {self.groups} equal groups of heads.",
                "Check the model's config.",
            )

    @property
    def inner(self) -> int:
        """Channels of all heads, h p."""
        return self.expand * self.hidden_size

    @property
    def heads(self) -> int:
        return self.inner // self.head_dim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.inner + 2 * self.groups * self.state_size

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> Mamba2Config:
        """From a config.json of ``Mamba2ForCausalLM``."""
        if config.get("model_type") != "mamba2":
            raise HarnessError(f"the model is a {config.get('model_type')!r}, not a mamba2.")
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise HarnessError(f"the activation {config['hidden_act']!r} is not supported.")
        found = _renamed(config, HUGGINGFACE, ("vocab_size", "hidden_size", "num_hidden_layers"))
        found.setdefault("groups", 8)
        if "time_step_limit" in config:
            low, high = map(_number, config["time_step_limit"])
            found["time_step_limit"] = (low, high)
        made = cls(**found)
        if config.get("num_heads", made.heads) != made.heads:
            raise HarnessError(
                f"{config['num_heads']} heads of {made.head_dim} are not {made.inner} channels.",
                "Check the model's config.",
            )
        return made

    @classmethod
    def from_state_spaces(cls, config: Mapping[str, Any]) -> Mamba2Config:
        """From a config.json of the original ``state-spaces/mamba2-*``."""
        ssm = dict(config.get("ssm_cfg") or {})
        kind = ssm.pop("layer", "Mamba1")
        refused = {
            f"layers of {kind}": kind != "Mamba2",
            "attention layers": config.get("attn_layer_idx"),
            "MLP layers": config.get("d_intermediate"),
            "LayerNorm": not config.get("rms_norm", True),
            "a skip for each channel": ssm.pop("D_has_hdim", False),
            "no gated norm": not ssm.pop("rmsnorm", True),
        }
        refused |= {f"the option {name}": name not in {*SSM_CFG, *HARMLESS} for name in ssm}
        for what, there in refused.items():
            if there:
                raise HarnessError(f"the checkpoint has {what}, which is not supported.")
        found = {"tie": True} | _renamed(config, STATE_SPACES, ("vocab_size", "d_model", "n_layer"))
        multiple = config.get("pad_vocab_size_multiple", 1)
        found["vocab_size"] = math.ceil(found["vocab_size"] / multiple) * multiple
        return cls(**found, **_renamed(ssm, SSM_CFG))


def _renamed(
    config: Mapping[str, Any], names: Mapping[str, str], needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    for name in needed:
        if name not in config:
            raise HarnessError(f"the model's config has no {name}.", "Check its config.json.")
    return {new: config[old] for old, new in names.items() if old in config}


def _number(value: Any) -> float:
    """A number of a config; transformers writes an infinite one as {"__float__": "Infinity"}."""
    return float(value["__float__"] if isinstance(value, Mapping) else value)


# --- the scan -------------------------------------------------------------------------


def scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, H: Tensor | None, run: Run
) -> tuple[Tensor, Tensor | None]:
    """`ssd` by the way that is fastest here."""
    if x.shape[1] == 1:
        return ssd_step(x, dt, A, B, C, H)
    if run.kernel and _on_gpu(x) and x.dtype != torch.float64 and _kernel():
        return ssd_kernel(x, dt, A, B, C, H)
    return ssd(x, dt, A, B, C, H, run.chunk, run.want_state)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    H: Tensor | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The recurrence, without D, as matrix products over chunks of tokens (section 6).

    Shapes as at the top of this file; H is the state before the first token, None for zeros.
    Gives y and the state after the last token (None if not wanted), in float32 or better.
    """
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    u = precise(x) * dt[..., None]  # (b, l, h, p)
    if H is not None:
        H = precise(H).reshape(b, g, -1, n)  # (b, g, r p, n)
    future = torch.ones(min(chunk, l), min(chunk, l), dtype=torch.bool, device=x.device).triu(1)
    found = []
    # One split, and not a slice for each chunk, which costs a gradient of all tokens for each.
    parts = [each.split(chunk, dim=1) for each in (u, dt * A, precise(B), precise(C))]
    last = len(parts[0]) - 1
    for place, (u_, a, B_, C_) in enumerate(zip(*parts, strict=True)):
        y, H = _ssd_chunk(u_, a, B_, C_, H, future, want_state or place < last)
        found.append(y)
    return torch.cat(found, dim=1) if last else found[0], None if H is None else H.view(b, h, p, n)


def _ssd_chunk(
    u: Tensor, a: Tensor, B: Tensor, C: Tensor, H: Tensor | None, future: Tensor, want_state: bool
) -> tuple[Tensor, Tensor | None]:
    """One chunk: u = dt x, a = dt A (b, q, h), H (b, g, r p, n), future (q, q) true for j > i."""
    _, q, h, p = u.shape
    g = B.shape[2]
    B, C = B.transpose(1, 2), C.transpose(1, 2)  # (b, g, q, n)
    s = a.cumsum(dim=1)  # (b, q, h)
    s_ = s.transpose(1, 2).unflatten(1, (g, -1))  # (b, g, r, q)
    # Within the chunk: y_i = Σ_{j ≤ i} exp(s_i - s_j) (C_i · B_j) u_j
    decay = (s_[..., :, None] - s_[..., None, :]).masked_fill(future[:q, :q], -math.inf).exp()
    weights = decay * (C @ B.mT)[:, :, None]  # (b, g, r, q, q)
    y = weights @ u.unflatten(2, (g, -1)).permute(0, 2, 3, 1, 4)  # (b, g, r, q, p)
    y = y.permute(0, 3, 1, 2, 4).flatten(2, 3)  # (b, q, h, p)
    if H is not None:  # y_i += exp(s_i) H C_i
        y = torch.addcmul(y, (C @ H.mT).transpose(1, 2).reshape(-1, q, h, p), s.exp()[..., None])
    if not want_state:
        return y, None
    # H_q = exp(s_q) H + Σ_j exp(s_q - s_j) u_j B_jᵀ
    late = u * (s[:, -1:] - s).exp()[..., None]
    end = late.flatten(2).unflatten(2, (g, -1)).permute(0, 2, 3, 1) @ B  # (b, g, r p, n)
    if H is not None:
        end = end + H * s[:, -1].exp().repeat_interleave(p, 1).view(-1, g, H.shape[2], 1)
    return y, end


def ssd_step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, H: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`ssd` for l = 1: the recurrence itself."""
    b, _, h, p = x.shape
    g, n = B.shape[2:]
    u = (precise(x) * dt[..., None]).view(b, g, -1, 1)  # (b, g, r p, 1)
    end = u * precise(B).view(b, g, 1, n)
    if H is not None:
        decay = (dt.squeeze(1) * A).exp()[..., None, None]  # (b, h, 1, 1)
        end = end + (precise(H) * decay).view(b, g, -1, n)
    y = end @ precise(C).view(b, g, n, 1)
    return y.view(b, 1, h, p), end.view(b, h, p, n)


def ssd_kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, H: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`ssd` in mamba_ssm's Triton kernel, which has gradients into H and out of the last state.

    dt comes as it is used, with bias, softplus, clamp and padding, all of which the kernel would
    do but the padding.
    """
    y, end = _kernel()(
        x, dt, A, B, C, KERNEL_CHUNK, initial_states=H, return_final_states=True, dt_softplus=False
    )
    return precise(y), precise(end)


def _on_gpu(x: Tensor) -> bool:
    return bool(x.is_cuda)


@cache
def _kernel() -> Any:
    """mamba_ssm's scan, None where it cannot be imported."""
    try:
        module = import_module("mamba_ssm.ops.triton.ssd_combined")
    except ImportError:
        return None
    return module.mamba_chunk_scan_combined


def precise(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


# --- the model ------------------------------------------------------------------------


class Mamba2(nn.Module):
    """A Mamba-2 language model. Its weights have the names of ``Mamba2ForCausalLM``.

    In bfloat16 the scan, its state and (as in transformers, if the config says so) the sum over
    layers are float32, and the rest is bfloat16.

    chunk:  tokens of a chunk of the scan in plain torch
    kernel: whether mamba_ssm's kernel may do the scan, if the tensors are on a GPU and it is there
    """

    def __init__(self, config: Mamba2Config, *, chunk: int = CHUNK, kernel: bool = True) -> None:
        super().__init__()
        self.config, self.chunk, self.kernel = config, chunk, kernel
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the last layer the embeddings, if the config says so."""
        if self.config.tie:
            self.lm_head.weight = self.backbone.embeddings.weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (b, l) to the vectors (b, l, d) that `forward` reads."""
        embedded: Tensor = self.backbone.embeddings(ids)
        return embedded

    def forward(
        self,
        embedded: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        want_state: bool = True,
    ) -> tuple[Tensor, State]:
        """Read tokens (b, l, d), l ≥ 1; give hidden states (b, l, d) and the state at their end.

        mask:  (b, l), 1 where a token is real and 0 behind, on the right; a row may be all 0
        state: what was read before, None for nothing; it stays as it is
        want_state: without it the state given is empty, and some work is saved
        """
        x = precise(embedded) if self.config.residual_in_fp32 else embedded
        ends = []
        for place, block in enumerate(self.backbone.layers):
            start = None if state is None else (state.ssm[place], state.conv[place])
            run = Run(mask, start, want_state, self.chunk, self.kernel)
            mixed, end = block.mixer(block.norm(x), run)
            x = x + mixed
            ends.append(end)
        return self.backbone.norm_f(x), State(*zip(*ends, strict=True)) if want_state else State()

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, d) to scores of the next token (…, v), in float32 or better."""
        return precise(self.lm_head(hidden))


class Backbone(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embeddings.weight, std=config.hidden_size**-0.5)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_f = Norm(config.hidden_size, config.eps)


class Block(nn.Module):
    """A layer's norm and mixer; the layer is x + mixer(norm(x))."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.norm = Norm(config.hidden_size, config.eps)
        self.mixer = Mixer(config)


class Norm(nn.Module):
    """Root mean square norm over each of ``groups`` equal parts of the channels, in float32."""

    def __init__(self, size: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.groups = eps, groups

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.groups, -1)
        weight = precise(self.weight).view(shape)
        normed: Tensor = RMSNorm.apply(precise(x).unflatten(-1, shape), weight, self.eps)
        return normed.flatten(-2).to(self.weight.dtype)


def inverse_root(x: Tensor, eps: float) -> Tensor:
    """1 / √(mean x² + ε) over the last axis, which is kept."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
    return (square / x.shape[-1] + eps).rsqrt()


class RMSNorm(torch.autograd.Function):
    """x w / √(mean x² + ε) over the last axis, in half the passes over memory that torch's takes.

    The gradient of x, with i = 1 / √(mean x² + ε):  i w dy - x i³ mean(x w dy).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return (x * inverse_root(x, eps)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        inverse = inverse_root(x, ctx.eps)  # made again, so that there are second derivatives
        by_group = (dy * x).flatten(0, -3).transpose(0, 1)  # (g, tokens, size)
        inverse_ = inverse.flatten(0, -3).transpose(0, 1)  # (g, tokens, 1)
        dweight = (inverse_.mT @ by_group).squeeze(1)  # products, which read it once
        mean = (by_group @ weight[..., None]).transpose(0, 1).view_as(inverse) / x.shape[-1]
        return torch.addcmul(dy * weight * inverse, x, -mean * inverse**3), dweight, None


class Mixer(nn.Module):
    """The Mamba-2 block (section 7): project, convolve, scan, gate and norm, project."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        d, inner = config.hidden_size, config.inner
        channels, heads = config.conv_dim, config.heads
        self.in_proj = nn.Linear(d, inner + channels + heads, bias=config.bias)
        self.conv1d = nn.Conv1d(
            channels, channels, config.conv_kernel, groups=channels, bias=config.conv_bias
        )
        low, high = map(math.log, config.time_step)
        step = torch.empty(heads).uniform_(low, high).exp()
        self.dt_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus makes it step
        low, high = map(math.log, config.decay)
        self.A_log = nn.Parameter(torch.linspace(low, high, heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = Norm(inner, config.eps, config.groups)
        self.out_proj = nn.Linear(inner, d, bias=config.bias)
        nn.init.normal_(self.in_proj.weight, std=d**-0.5)
        # So that the sum over layers keeps its size whatever their number.
        nn.init.normal_(self.out_proj.weight, std=(2 * config.layers * inner) ** -0.5)

    def forward(self, x: Tensor, run: Run) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """(b, l, d) to (b, l, d), and the states at the end."""
        c = self.config
        # Three products of contiguous results: splitting one costs another pass over memory.
        parts = [c.inner, c.conv_dim, c.heads]
        biases = self.in_proj.bias.split(parts) if c.bias else (None, None, None)
        weights = self.in_proj.weight.split(parts)
        z, xBC, dt = (F.linear(x, w, bias) for w, bias in zip(weights, biases, strict=True))
        xBC, context = self._convolved(xBC, run)
        x, B, C = xBC.split([c.inner, c.groups * c.state_size, c.groups * c.state_size], dim=-1)
        x = x.unflatten(-1, (c.heads, c.head_dim))  # (b, l, h, p)
        B, C = (each.unflatten(-1, (c.groups, c.state_size)) for each in (B, C))  # (b, l, g, n)
        A = -precise(self.A_log).exp()
        H = run.start[0] if run.start else None
        dt = self._steps(dt, run.mask)
        y, H = scan(x, dt, A, B, C, H, run)
        y = torch.addcmul(y, precise(x), precise(self.D)[:, None]).flatten(2)  # (b, l, h p)
        gate = F.silu(z)
        y = self.norm(y) * gate if c.norm_before_gate else self.norm(y * gate)
        return self.out_proj(y), None if H is None or context is None else (H, context)

    def _steps(self, dt: Tensor, mask: Tensor | None) -> Tensor:
        """dt (b, l, h) from its logits, 0 on padding."""
        dt = F.softplus(precise(dt) + self.dt_bias)
        if self.config.time_step_limit != (0.0, math.inf):
            dt = dt.clamp(*self.config.time_step_limit)
        return dt if mask is None else dt * mask[..., None].to(dt.dtype)

    def _convolved(self, x: Tensor, run: Run) -> tuple[Tensor, Tensor | None]:
        """The causal convolution of x (b, l, c), with silu, and its context at the end."""
        past = self.config.conv_kernel - 1
        if run.start is None:
            whole = F.pad(x, (0, 0, past, 0))  # (b, k - 1 + l, c)
        else:
            whole = torch.cat([run.start[1].mT.to(x.dtype), x], dim=1)
        # Two-dimensional: torch convolves (b, c, 1, l) with channels innermost as it lies.
        found = F.conv2d(
            whole.mT[:, :, None],
            self.conv1d.weight[:, :, None],
            self.conv1d.bias,
            groups=whole.shape[2],
        )
        context = self._context(whole, run.mask) if run.want_state else None
        return F.silu(found.squeeze(2).mT), context

    def _context(self, whole: Tensor, mask: Tensor | None) -> Tensor:
        """The k - 1 columns (b, c, k - 1) up to the last token of each row of (b, k - 1 + l, c).

        A row shorter than that shows what stood before it. It is a copy, so that keeping it does
        not keep all columns.
        """
        past = self.config.conv_kernel - 1
        if mask is None:
            return whole[:, whole.shape[1] - past :].mT.contiguous()
        places = mask.sum(1).long()[:, None] + torch.arange(past, device=whole.device)
        return whole.mT.gather(2, places[:, None].expand(-1, whole.shape[2], -1))


# --- checkpoints ----------------------------------------------------------------------


EMBEDDINGS = "backbone.embeddings.weight"


def read_shape(folder: Path) -> Mamba2Config:
    """The shape of a folder's model, from its config alone."""
    said = read_config(folder)
    if is_state_spaces(said):
        return Mamba2Config.from_state_spaces(said)
    return Mamba2Config.from_huggingface(said)


def load_mamba2(folder: Path, device: str = "cpu", dtype: str = "float32") -> Mamba2:
    """The model of a folder in Hugging Face's format or in that of ``state-spaces/mamba2-*``.

    What the decay is made of stays in float32, to which a long memory is sensitive.
    """
    place, precision = checked_device(device), checked_dtype(dtype)
    original = is_state_spaces(read_config(folder))
    config, weights = read_shape(folder), _pickled(folder / PICKLED) if original else _safe(folder)
    if config.tie and EMBEDDINGS in weights:
        weights["lm_head.weight"] = weights[EMBEDDINGS]
    with torch.device("meta"):
        model = Mamba2(config)
    _check(weights, model.state_dict(), folder)
    exact = {name for name in weights if name.endswith((".A_log", ".dt_bias"))}
    model.load_state_dict(
        {
            name: weight.to(place, torch.float32 if name in exact else precision)
            for name, weight in weights.items()
        },
        assign=True,
    )
    model.tie()
    model.eval().requires_grad_(False)
    return model


def _safe(folder: Path) -> dict[str, Tensor]:
    """The weights in model.safetensors, or in the files that its index names, but for the table of
    open words, which is for `systems.models.openwords`."""
    index = folder / "model.safetensors.index.json"
    try:
        files = {"model.safetensors"}
        if index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        found: dict[str, Tensor] = {}
        for file in sorted(files):
            found |= library("safetensors.torch").load_file(folder / file)
    except (OSError, ValueError, LookupError, library("safetensors").SafetensorError) as error:
        raise HarnessError(
            f"the weights in {folder} cannot be read: {error}.", "Download the model again."
        ) from error
    found.pop("words.hashed", None)
    return found


def _pickled(file: Path) -> dict[str, Tensor]:
    """The weights in a pickle, of which nothing but tensors is read."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HarnessError(
            f"{file} holds something other than tensors, which is never executed.",
            "Do not use it; download the model from state-spaces again.",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise HarnessError(
            f"{file} cannot be read: {error}.", "Download the model again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise HarnessError(f"{file} holds no weights by name.", "Download the model again.")
    return {
        EMBEDDINGS if name == "backbone.embedding.weight" else name: weight
        for name, weight in found.items()
    }


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Path) -> None:
    """`HarnessError` that names the first weight which is missing, too many or of another shape."""
    shapes = [
        name for name in expected if name in found and found[name].shape != expected[name].shape
    ]
    for what, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has unknown", found.keys() - expected.keys()),
        ("has other shapes for", shapes),
    ):
        if names:
            raise HarnessError(
                f"the checkpoint in {folder} {what} {len(names)} weights (such as {min(names)}).",
                "Check that its config.json belongs to it.",
            )

"""The Mamba-2 forward against the recurrence, against transformers, and against itself."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.data import HarnessError
from systems.models import mamba2
from systems.models.hub import model_folder, tokenizer_folder
from systems.models.mamba2 import Mamba2, Mamba2Config, State, load_mamba2, ssd
from systems.reader import Reader

TINY = Mamba2Config(
    vocab_size=23,
    hidden_size=16,
    layers=2,
    state_size=5,
    head_dim=8,
    time_step=(0.05, 0.9),
    decay=(0.02, 2.0),
)
TWO = replace(TINY, groups=2, bias=True, norm_before_gate=True, time_step_limit=(0.1, 0.7))


def made(config: Mamba2Config, **options: Any) -> Any:
    """A model in float64 of which no weight is left at a neutral value."""
    torch.manual_seed(1)
    model = Mamba2(config, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def drawn(model: Any, rows: int, seed: int = 2) -> State:
    """A state that is not zero anywhere."""
    c, draw = model.config, torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return State(
        tuple(normal(rows, c.heads, c.head_dim, c.state_size) for _ in range(c.layers)),
        tuple(normal(rows, c.conv_dim, c.conv_kernel - 1) for _ in range(c.layers)),
    )


def tokens(rows: int, length: int, seed: int = 3) -> Any:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn((rows, length, TINY.hidden_size), generator=draw, dtype=torch.float64)


def distance(one: State, other: State) -> float:
    """The largest difference of two states."""
    pairs = zip((*one.ssm, *one.conv), (*other.ssm, *other.conv), strict=True)
    return max(float((a - b).abs().max().item()) for a, b in pairs)


# --- the scan -------------------------------------------------------------------------


def recurrence(x: Any, dt: Any, a: Any, b: Any, c: Any, h: Any) -> tuple[Any, Any]:
    """The definition, token by token."""
    heads, outputs = x.shape[2] // b.shape[2], []
    for t in range(x.shape[1]):
        b_t, c_t = (each[:, t].repeat_interleave(heads, 1)[:, :, None] for each in (b, c))
        h = (dt[:, t] * a).exp()[..., None, None] * h
        h = h + (dt[:, t, :, None] * x[:, t])[..., None] * b_t
        outputs.append((h * c_t).sum(-1))
    return torch.stack(outputs, 1), h


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 150])
def test_chunks_are_the_recurrence(length: int, groups: int) -> None:
    torch.manual_seed(0)
    x, dt = torch.randn(2, length, 4, 3).double(), torch.rand(2, length, 4).double()
    a, h = -torch.rand(4).double() * 3, torch.randn(2, 4, 3, 5).double()
    b, c = (torch.randn(2, length, groups, 5).double() for _ in range(2))
    for start in (h, torch.zeros_like(h)):
        y, end = recurrence(x, dt, a, b, c, start)
        for chunk in (1, 7, 16, 64, 200):
            found, last = ssd(x, dt, a, b, c, start if start is h else None, chunk)
            assert (found - y).abs().max() < 1e-10 and (last - end).abs().max() < 1e-10
            again, none = ssd(x, dt, a, b, c, start, chunk, want_state=False)
            assert none is None or length > chunk
            assert (again - y).abs().max() < 1e-10


def test_a_step_is_a_chunk_of_one() -> None:
    torch.manual_seed(0)
    x, dt, h = (
        torch.randn(3, 1, 4, 3).double(),
        torch.rand(3, 1, 4).double(),
        torch.rand(4).double(),
    )
    state, (b, c) = torch.randn(3, 4, 3, 5).double(), torch.randn(2, 3, 1, 2, 5).double()
    for start in (state, None):
        for found, wanted in zip(
            mamba2.ssd_step(x, dt, -h, b, c, start), ssd(x, dt, -h, b, c, start), strict=True
        ):
            assert (found - wanted).abs().max() < 1e-12


# --- states ---------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, TWO], ids=["plain", "groups"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_gradients_flow_into_tokens_states_and_contexts(config: Mamba2Config, length: int) -> None:
    config = replace(config, hidden_size=4, head_dim=4, state_size=2)
    model, mask = made(config, chunk=2), torch.ones(2, length)
    mask[1, 2:] = 0
    state = drawn(model, 2)
    leaves = [torch.randn(2, length, 4).double(), *state.ssm, *state.conv]
    leaves = [each.clone().requires_grad_() for each in leaves]

    def through(embedded: Any, *parts: Any) -> tuple[Any, ...]:
        start = State(parts[: config.layers], parts[config.layers :])
        hidden, end = model(embedded, mask, start)
        return hidden, *end.ssm, *end.conv

    assert torch.autograd.gradcheck(through, leaves)


def test_the_norm_has_second_derivatives() -> None:
    norm = mamba2.Norm(6, 1e-5, groups=2).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 2, 6).double().requires_grad_()
    wanted = torch.nn.functional.rms_norm(x.view(3, 2, 2, 3), (3,), eps=1e-5).flatten(-2)
    assert torch.allclose(norm(x), wanted * norm.weight)
    weight = norm.weight.detach().view(2, 3).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(mamba2.RMSNorm.apply, (x.view(3, 2, 2, 3), weight, 1e-5))


@pytest.mark.parametrize("config", [TINY, TWO], ids=["plain", "groups"])
@given(cuts=st.lists(st.integers(1, 39), max_size=4, unique=True).map(sorted))
@settings(max_examples=15, deadline=None)
def test_reading_in_parts_is_reading_at_once(config: Mamba2Config, cuts: list[int]) -> None:
    model, start = made(config, chunk=8), drawn(made(config), 2)
    with torch.no_grad():
        whole, end = model(tokens(2, 40), state=start)
        parts, state = [], start
        for low, high in zip([0, *cuts], [*cuts, 40], strict=True):
            hidden, state = model(tokens(2, 40)[:, low:high], state=state)
            parts.append(hidden)
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-11 and distance(state, end) < 1e-11


@pytest.mark.parametrize("length", [1, 9])
def test_the_caller_s_state_stays_as_it_is(length: int) -> None:
    model, state, before = made(TINY), drawn(made(TINY), 2), drawn(made(TINY), 2)
    with torch.no_grad():
        _, end = model(tokens(2, length), state=state)
        for each in (*end.ssm, *end.conv):
            each.zero_()
    assert distance(state, before) == 0


def test_a_state_that_is_not_wanted_is_empty() -> None:
    model = made(TINY)
    for length in (1, 3, 50):
        hidden, state = model(tokens(2, length), want_state=False)
        assert state == State() and torch.allclose(hidden, model(tokens(2, length))[0])


def test_a_kept_state_does_not_keep_the_tokens() -> None:
    with torch.no_grad():
        _, state = made(TINY)(tokens(1, 100))
    assert all(each.untyped_storage().size() == each.nelement() * 8 for each in state.conv)


# --- padding --------------------------------------------------------------------------

LENGTHS = (40, 17, 3, 2, 1, 0)


def padding_leaks(model: Any) -> float:
    """How far padding moves the final states: by what it holds, and by being there."""
    start = drawn(model, len(LENGTHS))
    mask = (torch.arange(40) < torch.tensor(LENGTHS)[:, None]).double()
    one, other = tokens(len(LENGTHS), 40), tokens(len(LENGTHS), 40, seed=9)
    other = torch.where(mask[..., None] > 0, one, other)
    with torch.no_grad():
        (_, end), (_, same) = model(one, mask, start), model(other, mask, start)
        leak = distance(end, same)
        for row, length in enumerate(LENGTHS):
            own = State(*(tuple(each[row : row + 1] for each in part) for part in start))
            alone = model(one[row : row + 1, :length], None, own)[1] if length else own
            ours = State(*(tuple(each[row : row + 1] for each in part) for part in end))
            # Matrices of other sizes are summed in another order: the last bits may differ.
            leak = max(leak, 0.0 if distance(ours, alone) < 1e-13 else distance(ours, alone))
    return leak


@pytest.mark.parametrize("config", [TINY, TWO], ids=["plain", "groups"])
def test_padding_leaves_no_trace(config: Mamba2Config) -> None:
    assert padding_leaks(made(config, chunk=8)) == 0


def test_a_step_of_padding_leaves_no_trace() -> None:
    model = made(TINY)
    start, mask = drawn(model, 2), torch.tensor([[1], [0]])
    with torch.no_grad():
        _, end = model(tokens(2, 1), mask, start)
        _, real = model(tokens(2, 1), None, start)
    for before, after, moved in zip(
        (*start.ssm, *start.conv), (*end.ssm, *end.conv), (*real.ssm, *real.conv), strict=True
    ):
        assert torch.equal(after[1], before[1]) and torch.equal(after[0], moved[0])


@pytest.mark.parametrize("sabotaged", ["_steps", "_context"])
def test_padding_that_is_not_masked_is_seen(
    sabotaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(mamba2.Mixer, sabotaged)
    monkeypatch.setattr(mamba2.Mixer, sabotaged, lambda mixer, x, mask: real(mixer, x, None))
    assert padding_leaks(made(TINY, chunk=8)) > 1e-3


# --- transformers and checkpoints -----------------------------------------------------


def official(folder: Path, groups: int = 1, biases: bool = False, tie: bool = False) -> Any:
    """A tiny model of transformers with wide weights, saved in ``folder``."""
    torch.manual_seed(4)
    config = transformers.Mamba2Config(
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        head_dim=16,
        num_heads=4,
        n_groups=groups,
        use_bias=biases,
        use_conv_bias=biases,
        chunk_size=16,
        tie_word_embeddings=tie,
    )
    model = transformers.Mamba2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("A_log"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


def logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model.logits(model(model.embed(ids))[0])


IDS = torch.randint(0, 48, (3, 70), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_logits_are_those_of_transformers(groups: int, biases: bool, tmp_path: Path) -> None:
    reference = official(tmp_path, groups, biases)
    with torch.no_grad():
        wanted = reference(IDS).logits
    model = load_mamba2(tmp_path)
    assert wanted.std() > 0.3
    assert (logits(model, IDS) - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())
    with torch.no_grad():
        _, state = model(model.embed(IDS[:, :-1]))
        last = model.logits(model(model.embed(IDS[:, -1:]), state=state)[0])
    assert (last - wanted[:, -1:]).abs().max() < 1e-5 * max(1, wanted.abs().max())
    plain = Mamba2(model.config)
    plain.load_state_dict(reference.state_dict(), strict=True)
    assert torch.equal(logits(plain, IDS), logits(model, IDS))


ORIGINAL = {
    "d_model": 32,
    "d_intermediate": 0,
    "n_layer": 2,
    "vocab_size": 45,
    "ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 16, "conv_bias": False},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}


def write_original(folder: Path, weights: Any, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(ORIGINAL | changes))
    old = {name.replace("embeddings", "embedding"): weight for name, weight in weights.items()}
    torch.save(old, folder / "pytorch_model.bin")
    return folder


def test_both_formats_of_the_same_weights_give_the_same(tmp_path: Path) -> None:
    reference = official(tmp_path / "new", tie=True)
    new = load_mamba2(model_folder(str(tmp_path / "new")))
    folder = write_original(tmp_path / "old", reference.state_dict())
    old = load_mamba2(model_folder(str(folder)))
    assert old.config == new.config and old.lm_head.weight is old.backbone.embeddings.weight
    assert torch.equal(logits(old, IDS), logits(new, IDS))


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    official(tmp_path / "one")
    official(tmp_path / "many").save_pretrained(tmp_path / "many", max_shard_size="20KB")
    (tmp_path / "many" / "model.safetensors").unlink(missing_ok=True)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = load_mamba2(tmp_path / "one"), load_mamba2(tmp_path / "many")
    assert torch.equal(logits(one, IDS), logits(many, IDS))


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x, protocol=2))]
)
def test_a_pickle_with_code_is_refused_and_not_run(write: Any, tmp_path: Path) -> None:
    folder = write_original(tmp_path / "old", official(tmp_path / "new").state_dict())
    write({"lm_head.weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(HarnessError, match="other than tensors, which is never executed"):
        load_mamba2(folder)
    assert not (tmp_path / "sprung").exists()


def test_torn_and_empty_pickles_are_one_sentence(tmp_path: Path) -> None:
    folder = write_original(tmp_path / "old", official(tmp_path / "new").state_dict())
    file = folder / "pytorch_model.bin"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(HarnessError, match=r"pytorch_model\.bin"):
            load_mamba2(folder)
    torch.save([torch.zeros(2)], file)
    with pytest.raises(HarnessError, match="no weights by name"):
        load_mamba2(folder)


def test_a_checkpoint_that_does_not_fit_says_where(tmp_path: Path) -> None:
    weights, file = official(tmp_path).state_dict(), tmp_path / "model.safetensors"
    a_log = "backbone.layers.0.mixer.A_log"
    for changed, said in (
        ({name: weights[name] for name in weights if name != a_log}, f"lacks 1 .*{a_log}"),
        (weights | {"backbone.extra": torch.zeros(1)}, r"unknown 1 .*backbone\.extra"),
        (weights | {a_log: torch.zeros(3)}, f"other shapes for 1 .*{a_log}"),
    ):
        save_file({name: each.clone() for name, each in changed.items()}, file)
        with pytest.raises(HarnessError, match=said):
            load_mamba2(tmp_path)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(HarnessError, match="cannot be read"):
        load_mamba2(tmp_path)
    file.unlink()
    with pytest.raises(HarnessError, match="cannot be read"):
        load_mamba2(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attn_layer_idx": [3]}, "attention layers"),
        ({"d_intermediate": 64}, "MLP layers"),
        ({"rms_norm": False}, "LayerNorm"),
        ({"ssm_cfg": {"layer": "Mamba1"}}, "layers of Mamba1"),
        ({"ssm_cfg": {}}, "layers of Mamba1"),
        ({"ssm_cfg": {"layer": "Mamba2", "d_ssm": 8}}, "the option d_ssm"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 48}}, "heads of 48"),
    ],
)
def test_what_an_original_config_asks_in_vain_is_refused(change: Any, said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        Mamba2Config.from_state_spaces(ORIGINAL | change)


def test_configs_are_read_as_they_are_published() -> None:
    original = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}}
    found = Mamba2Config.from_state_spaces(ORIGINAL | original)
    assert (found.vocab_size, found.heads, found.conv_dim, found.tie) == (50288, 24, 1792, True)
    theirs = {"model_type": "mamba2", "vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 1}
    assert Mamba2Config.from_huggingface(theirs | {"n_groups": 1}).heads == 2
    limited = theirs | {"n_groups": 1, "time_step_limit": [0.1, {"__float__": "Infinity"}]}
    assert Mamba2Config.from_huggingface(limited).time_step_limit == (0.1, float("inf"))
    for change, said in (
        ({"model_type": "mamba"}, "'mamba', not a mamba2"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"n_groups": 1, "num_heads": 3}, "3 heads"),
        ({}, "8 equal groups"),
    ):
        with pytest.raises(HarnessError, match=said):
            Mamba2Config.from_huggingface(theirs | change)
    with pytest.raises(HarnessError, match="no n_layer"):
        Mamba2Config.from_state_spaces(
            {"d_model": 4, "vocab_size": 4, "ssm_cfg": {"layer": "Mamba2"}}
        )


def test_an_original_folder_borrows_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = write_original(tmp_path / "old", {})
    for asked in (lambda: tokenizer_folder(folder), Reader(str(folder)).files):
        with pytest.raises(HarnessError, match="hf download EleutherAI/gpt-neox-20b"):
            asked()
    repository = tmp_path / "cache" / "models--EleutherAI--gpt-neox-20b"
    snapshot = repository / "snapshots" / ("a" * 40)
    for each in (snapshot, repository / "refs"):
        each.mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "tokenizer.json").write_text("{}")
    assert tokenizer_folder(folder) == snapshot
    reader = Reader(str(folder))
    assert reader.files() == [folder, snapshot / "tokenizer.json"]
    (folder / "tokenizer.json").write_text("{}")
    assert tokenizer_folder(folder) == folder
    assert reader.files() == [folder]


def test_only_an_original_folder_may_hold_a_pickle(tmp_path: Path) -> None:
    folder = write_original(tmp_path / "old", {})
    assert model_folder(str(folder)) == folder
    configs: list[dict[str, Any]] = [{}, {"ssm_cfg": {}}, {"ssm_cfg": None}]
    for config in configs:
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(HarnessError, match="pickled ones are never opened"):
            model_folder(str(folder))


# --- precision and kernel -------------------------------------------------------------


def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    official(tmp_path)
    exact, rough = (load_mamba2(tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16"))
    wanted, found = logits(exact, IDS), logits(rough, IDS)
    assert found.dtype == torch.float32 and rough.backbone.embeddings.weight.dtype == torch.bfloat16
    assert (found - wanted).abs().mean() < 0.03 * wanted.std()
    hidden, state = rough(rough.embed(IDS))
    assert hidden.dtype == torch.bfloat16
    assert {each.dtype for each in state.ssm} == {torch.float32}
    assert {each.dtype for each in state.conv} == {torch.bfloat16}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A stand-in for mamba_ssm's kernel; it counts its calls."""
    calls: list[int] = []

    def run(
        *tensors: Any, initial_states: Any, return_final_states: bool, dt_softplus: bool
    ) -> Any:
        assert return_final_states and not dt_softplus
        calls.append(1)
        x, dt, a, b, c, chunk = tensors
        assert chunk == mamba2.KERNEL_CHUNK
        return ssd(x, dt, a, b, c, initial_states)

    monkeypatch.setattr(mamba2, "_kernel", lambda: run)
    yield calls


def test_the_kernel_does_the_scan_where_it_can(kernel: list[int], monkeypatch: Any) -> None:
    ids = torch.randint(0, 23, (2, 9))
    model = made(TINY).float()
    wanted, end = model(model.embed(ids))
    assert not kernel
    monkeypatch.setattr(mamba2, "_on_gpu", lambda x: True)
    found, last = model(model.embed(ids))
    assert len(kernel) == 2 and torch.equal(found, wanted) and distance(last, end) == 0
    model.kernel = False
    model(model.embed(ids))
    made(TINY)(made(TINY).embed(ids))
    assert len(kernel) == 2

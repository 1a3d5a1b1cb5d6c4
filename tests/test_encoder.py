from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness.data import HarnessError
from harness.manifest import file_hash
from systems.e5 import E5
from systems.models import hub
from systems.models.encoder import Encoder, pooled
from systems.models.hub import about, library, model_folder
from systems.models.words import Lexicon, OpenWords
from systems.reader import Reader

TEXTS = [
    "the river",
    "",
    "Mira Kolen was born in Brno and lived near the river. " * 9,
    "tower",
    "é",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: Any) -> Path:
    return tiny_models.make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: Any) -> Path:
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


def alone(folder: Path, text: str, pooling: str, length: int) -> Any:
    """One text straight through transformers, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        hidden = model(input_ids=ids).last_hidden_state[0]
    vector = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling]
    return vector.numpy()


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_batches_give_what_each_text_gives_alone(kind: str, pooling: str, request: Any) -> None:
    folder = request.getfixturevalue(kind)
    length = 40
    for batch_size in (1, 2, 5):
        encoder = Encoder(
            folder, pooling=pooling, normalize=False, max_length=length, batch_size=batch_size
        )
        found = encoder.encode(TEXTS)
        assert found.dtype == np.float32 and found.shape == (5, 32)
        for text, vector in zip(TEXTS, found, strict=True):
            np.testing.assert_allclose(vector, alone(folder, text, pooling, length), atol=1e-5)


def test_order_of_texts_does_not_matter(bert: Path) -> None:
    encoder = Encoder(bert, batch_size=2)
    np.testing.assert_allclose(encoder.encode(TEXTS)[::-1], encoder.encode(TEXTS[::-1]), atol=1e-5)


def test_normalised_vectors_have_length_one(bert: Path) -> None:
    found = Encoder(bert).encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    plain = Encoder(bert, normalize=False).encode(TEXTS)
    np.testing.assert_allclose(
        found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5
    )


def test_texts_are_cut_at_the_positions_of_the_model(bert: Path) -> None:
    encoder = Encoder(bert, max_length=512)
    assert encoder.inputs.max_length == 64
    assert np.isfinite(encoder.encode(["river " * 500])).all()


@pytest.mark.parametrize("how", ["mean", "last", "cls"])
def test_pooling_ignores_padding_on_either_side(how: Any) -> None:
    hidden = torch.arange(24.0).reshape(1, 4, 6)
    trash = torch.full((1, 3, 6), float("nan"))
    ones, zeros = torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)
    bare = pooled(hidden, ones, how)
    right = pooled(torch.cat([hidden, trash], 1), torch.cat([ones, zeros], 1), how)
    left = pooled(torch.cat([trash, hidden], 1), torch.cat([zeros, ones], 1), how)
    expected = {"mean": hidden.mean(1), "last": hidden[:, -1], "cls": hidden[:, 0]}[how]
    for found in (bare, right, left):
        torch.testing.assert_close(found, expected)


def test_a_model_that_gives_nan_is_an_error(tmp_path: Path) -> None:
    folder = tiny_models.make_bert(tmp_path)
    model = transformers.BertModel.from_pretrained(folder)
    torch.nn.init.constant_(model.embeddings.LayerNorm.weight, float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(HarnessError, match="not finite"):
        Encoder(folder).encode(["river"])


def test_a_checkpoint_of_another_kind_is_an_error(bert: Path) -> None:
    from systems.models.language import open_lm

    with pytest.raises(HarnessError, match=r"lacks .* weights"):
        open_lm(bert)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "abacus"}, "abacus"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_impossible_device_or_dtype_is_one_sentence(
    bert: Path, options: dict[str, str], said: str
) -> None:
    with pytest.raises(HarnessError, match=said):
        Encoder(bert, **options)  # type: ignore[arg-type]


def test_bfloat16_stays_close(bert: Path) -> None:
    rough, fine = Encoder(bert, dtype="bfloat16").encode(TEXTS), Encoder(bert).encode(TEXTS)
    assert ((rough * fine).sum(axis=1) > 0.98).all()


# --- open words -----------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_open_words_are_read_as_the_sum_of_their_hashed_rows(tmp_path: Path, pooling: Any) -> None:
    folder = tiny_models.make_open_bert(tmp_path)
    model = transformers.BertModel.from_pretrained(folder).eval()
    hashed = load_file(folder / "model.safetensors")["words.hashed"]
    known = model.get_input_embeddings().weight
    encoder = Encoder(folder, pooling=pooling, normalize=False, max_length=12, batch_size=2)
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        lexicon = Lexicon(OpenWords.read(folder))
        ids = (lexicon.read(text) or [0])[:12]
        slots = [sum(hashed[row] for row in codes) / 3**0.5 for codes in lexicon.codes()]
        read = torch.stack([known[i] if i < len(known) else slots[i - len(known)] for i in ids])
        with torch.no_grad():
            hidden = model(inputs_embeds=read[None]).last_hidden_state[0]
        expected = hidden.mean(0) if pooling == "mean" else hidden[0]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_a_checkpoint_without_its_table_is_one_sentence(tmp_path: Path) -> None:
    folder = tiny_models.make_open_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["words.hashed"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(HarnessError, match="holds no table of 1024 rows"):
        Encoder(folder)


# --- where models come from -----------------------------------------------------------


def test_a_name_leads_to_its_snapshot_in_the_cache(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--acme--bert"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(bert)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "refs" / "v2").write_text("b" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in ("", "main", "a" * 40):
        found = model_folder("acme/bert", revision)
        assert found == snapshot
    assert Encoder(found).size == 32
    with pytest.raises(HarnessError, match="hf download acme/bert --revision v2"):
        model_folder("acme/bert", "v2")
    with pytest.raises(HarnessError, match="`hf download acme/other` and"):
        model_folder("acme/other")


def test_a_shipped_checkpoint_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / "mini-any"
    folder.mkdir(parents=True)
    tiny_models.make_open_bert(folder, world="mini-9")
    assert hub.shipped() == ["mini-any"] and model_folder("mini-any") == folder
    assert about(folder)["world"] == "mini-9"
    with pytest.raises(HarnessError, match="no revisions"):
        model_folder("mini-any", "main")
    with pytest.raises(HarnessError, match=r"mini-other is no folder.* Shipped are mini-any\.$"):
        model_folder("mini-other")


def test_a_folder_that_is_called_as_a_shipped_checkpoint_is_not_passed_over(bert: Path) -> None:
    Path("mini-e5").symlink_to(bert)
    with pytest.raises(HarnessError, match=r"mini-e5 is a shipped.* Write \./mini-e5 for the"):
        model_folder("mini-e5")
    assert model_folder("./mini-e5") == Path("mini-e5")


def test_a_key_does_not_depend_on_what_training_cost(tmp_path: Path) -> None:
    folder = tiny_models.make_open_bert(tmp_path)
    system = E5(str(folder))
    before = [file_hash(path) for path in system.files()]
    (folder / "about.json").write_text('{"world": "mini-9", "curve": [{"cpu_s": 7}]}')
    assert [file_hash(path) for path in system.files()] == before
    for name in ("config.json", "model.safetensors", "words.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b" ")
        assert [file_hash(path) for path in system.files()] != before
        (folder / name).write_bytes(kept)


def test_a_system_knows_its_world_without_being_asked_for_files(tmp_path: Path) -> None:
    folder = tiny_models.make_open_bert(tmp_path, world="mini-9")
    assert E5(str(folder)).world == Reader(str(folder)).world == "mini-9"
    assert Reader("acme/large", endpoint="http://localhost:8000/v1").world == ""


def test_wrong_names_and_folders_are_one_sentence(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="does not exist"):
        model_folder(str(tmp_path / "nowhere"))
    with pytest.raises(HarnessError, match="neither a folder nor"):
        model_folder("no such name")
    with pytest.raises(HarnessError, match="no revisions"):
        model_folder(str(bert), "main")
    with pytest.raises(HarnessError, match=r"no config\.json"):
        model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(HarnessError, match="pickled ones are never opened"):
        model_folder(str(tmp_path))


def test_torn_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = tiny_models.make_bert(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HarnessError, match="cannot be loaded"):
        Encoder(folder)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = tiny_models.make_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(HarnessError, match="cannot be loaded"):
        Encoder(folder)
    assert not (tmp_path / "ran").exists()


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(HarnessError, match=r"Run pip install no_such_package\."):
        library("no_such_package")


def test_importing_the_systems_loads_no_heavy_package() -> None:
    code = (
        "import sys, systems.e5, systems.reader, systems.cross_encoder, systems.query_likelihood\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'tokenizers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"

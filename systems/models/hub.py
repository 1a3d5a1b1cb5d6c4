"""From a model's name to a loaded model: a checkpoint that is shipped here, a folder, or a snapshot
in the local Hugging Face cache.

Nothing is fetched, and no code that comes with a checkpoint is run. Pickled weights are refused,
but for those of the original Mamba-2, which exist in no other form and are read as tensors only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EIO
from functools import cached_property
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any, Literal

from harness.data import HarnessError
from systems.models.words import FILE, has_open_words

DTYPES = ("float32", "bfloat16", "float16")
PICKLED = "pytorch_model.bin"
"""The weights of an original Mamba-2."""
NEOX = "EleutherAI/gpt-neox-20b"
"""Whose tokenizer the original Mamba-2 models use; their own folders hold none."""
SHIPPED = Path(__file__).parent.parent / "checkpoints"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""What peft writes: where LoRA's base is named, and its weights."""
SIGNS = "signs.safetensors"
"""Beside an adapter, the embeddings of signs that its base does not know: ``input`` (n, d) from the
id ``first`` on, and ``output``, where that is a matrix of its own."""
ABOUT = "about.json"
"""What a checkpoint of ours says of itself; of a single model, no result depends on it."""


def library(name: str) -> Any:
    """The module ``name``; `HarnessError` with what to install if it is not there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise HarnessError(
            f"models need the package {error.name or name}, which is not installed.",
            f"Run pip install {error.name or name}.",
        ) from error


def model_folder(model: str, revision: str = "") -> Path:
    """The folder with a model's files: a shipped one, ``model`` itself, or its snapshot in the
    local cache.

    revision: a branch, tag or commit of the hub, which defaults to main
    """
    folder = Path(model).expanduser()
    if model in shipped():
        if folder.is_dir():
            raise HarnessError(
                f"{model} is a shipped model and a folder here.", f"Write ./{model} for the folder."
            )
        folder = SHIPPED / model
    if folder.is_dir():
        if revision:
            raise HarnessError(f"{model} is a folder and has no revisions.", "Leave revision= out.")
        return _checked(folder)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise HarnessError(f"the folder {model} does not exist.", "Check the path.")
    found = _cached(model, "config.json", revision) or _cached(model, ADAPTER[0], revision)
    if not found:
        if "/" not in model:
            raise HarnessError(
                f"{model} is no folder, no shipped model and not in the local cache.",
                f"Shipped are {', '.join(shipped())}.",
            )
        at, option = (f" at {revision}", f" --revision {revision}") if revision else ("", "")
        raise HarnessError(
            f"the model {model}{at} is not on this machine, and nothing is fetched during a run.",
            f"Run `hf download {model}{option}` and start again, or give a folder.",
        )
    return _checked(found)


def shipped() -> list[str]:
    """The names of the checkpoints that come with the harness."""
    files = (each for name in ("config.json", ADAPTER[0]) for each in SHIPPED.glob(f"*/{name}"))
    return sorted(each.parent.name for each in files)


def lasting(name: str) -> str:
    """A model's name as it is found from any place: a folder by its whole path."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() and name not in shipped() else name


def about(folder: Path) -> dict[str, Any]:
    """What a checkpoint of ours says of itself: name, world, recipe, seed, steps …"""
    return read_object(folder / ABOUT) if (folder / ABOUT).is_file() else {}


def check_sizes(system: str, **sizes: int) -> None:
    """`HarnessError` for an option of a system that should be 1 or more and is not."""
    for name, size in sizes.items():
        if size < 1:
            raise HarnessError(f"{system}:{name}={size} is wrong.", "It should be 1 or more.")


def check_least(recipe: str, told: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """`HarnessError` for a setting of a recipe that is below its least."""
    for name, value in told.items():
        if name in least and not value >= least[name]:
            raise HarnessError(f"{recipe}:{name}={value} is wrong.", f"Give {least[name]} or more.")


class OneModel:
    """A system on one checkpoint: the files it depends on, and the world it was made for.

    takes: how the architecture of a checkpoint with open words ends, if the system can use it
    """

    takes: str
    model: str
    revision: str

    def folder(self) -> Path:
        """The folder of the checkpoint."""
        return model_folder(self.model, self.revision)

    def files(self) -> Sequence[Path]:
        """The folder; of a checkpoint of ours its files, but for `ABOUT`. And the files of a
        tokenizer that lies elsewhere, and of an adapter's base."""
        folder = self.folder()
        base = base_folder(folder)
        own = [folder / name for name in (*ADAPTER, SIGNS, FILE, *TOKENIZER) if base != folder]
        own = [each for each in own if each.is_file()]
        if has_open_words(base):
            self._check_kind(base)
            return [*own, *sorted(each for each in base.iterdir() if each.name != ABOUT)]
        if not is_state_spaces(read_config(base)):
            return [*own, base]
        other = tokenizer_folder(base)
        spoken = (other / name for name in TOKENIZER if other != base)
        return [*own, base, *(each for each in spoken if each.is_file())]

    def _check_kind(self, folder: Path) -> None:
        """`HarnessError` for a checkpoint of another kind, which would load and mean nothing."""
        kind = _architecture(folder)
        if not kind or kind.endswith(self.takes):
            return
        places = {name: model_folder(name) for name in shipped()}
        fitting = [name for name in places if _architecture(places[name]).endswith(self.takes)]
        raise HarnessError(
            f"{self.model} is a {kind}, and needed is a …{self.takes}.",
            f"Shipped are {', '.join(fitting)}.",
        )

    @cached_property
    def world(self) -> str:
        """The generated world that the checkpoint was made for; empty: none."""
        return str(about(base_folder(self.folder())).get("world", ""))


class Checkpoint(OneModel):
    """A model that a system has beside its own."""

    def __init__(self, model: str, takes: str) -> None:
        self.model, self.revision, self.takes = model, "", takes


def _architecture(folder: Path) -> str:
    return str((read_config(folder).get("architectures") or [""])[0])


def _cached(model: str, file: str, revision: str = "") -> Path | None:
    """The snapshot in the local cache that holds a model's file."""
    hub = library("huggingface_hub")
    try:
        found = hub.try_to_load_from_cache(model, file, revision=revision or None)
    except hub.errors.HFValidationError:
        raise HarnessError(
            f"{model!r} is neither a folder nor a model's name.", "Write ORG/NAME or a folder."
        ) from None
    return Path(found).parent if isinstance(found, str) else None


def base_folder(folder: Path) -> Path:
    """The folder itself; of an adapter, that of the model it is for."""
    config = folder / ADAPTER[0]
    if (folder / "config.json").is_file() or not config.is_file():
        return folder
    said = read_object(config)
    named, kind = said.get("base_model_name_or_path"), said.get("peft_type")
    if not named:
        raise HarnessError(f"{config} names no base model.", "Write base_model_name_or_path there.")
    if kind != "LORA":
        raise HarnessError(f"{folder} is an adapter of kind {kind}.", "LoRA alone can be merged.")
    base = Path(str(named)).expanduser()
    if base.is_dir() and not (base / "config.json").is_file():
        raise HarnessError(f"{folder}: its base {named} is no model.", "Name one in its config.")
    return model_folder(str(named))


def _checked(folder: Path) -> Path:
    if base_folder(folder) != folder:
        if not (folder / ADAPTER[1]).is_file():
            raise HarnessError(f"{folder} has no {ADAPTER[1]}.", "Get the adapter again.")
        return folder
    if not (folder / "config.json").is_file():
        raise HarnessError(f"{folder} is no model: it has no config.json.", "Check the path.")
    original = (folder / PICKLED).is_file() and is_state_spaces(read_config(folder))
    if not original and not any(folder.glob("*.safetensors")):
        raise HarnessError(
            f"{folder} has no safetensors weights, and pickled ones are never opened.",
            "Download it again, or save it with save_pretrained.",
        )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """What a model's config.json says, for an adapter that of its base."""
    return read_object(base_folder(folder) / "config.json")


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"{file} cannot be read ({error}).", "Get the model again.") from error
    if not isinstance(found, dict):
        raise HarnessError(f"{file} is no object.", "Get the model again.")
    return found


def is_state_spaces(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of an original ``state-spaces/mamba2-*``."""
    ssm = config.get("ssm_cfg")
    return isinstance(ssm, dict) and ssm.get("layer") == "Mamba2"


def tokenizer_folder(folder: Path) -> Path:
    """The folder with a model's tokenizer: its own, or for an original Mamba-2 that of GPT-NeoX."""
    if any((folder / name).is_file() for name in TOKENIZER):
        return folder
    if not is_state_spaces(read_config(folder)):
        raise HarnessError(f"{folder} has no tokenizer.", f"Put its {TOKENIZER[0]} there.")
    found = _cached(NEOX, TOKENIZER[0])
    if not found:
        raise HarnessError(
            f"the model in {folder} uses the tokenizer of {NEOX}, which is not on this machine.",
            f"Run `hf download {NEOX} {' '.join(TOKENIZER)}`.",
        )
    return found


def ends_of(folder: Path) -> object:
    """The ids that end a text by a checkpoint's own word."""
    own = folder / "generation_config.json"
    said = read_object(own) if own.is_file() else read_config(folder)
    return said.get("eos_token_id")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; of an adapter that of its base, unless it has signs of its own.
    See `tokenizer_folder`."""
    own = (folder / SIGNS).is_file()
    return _loaded("AutoTokenizer", folder if own else base_folder(folder))


def load_model(kind: str, folder: Path, device: str, dtype: str, four_bit: bool = False) -> Any:
    """The model of a folder, ready to serve; an adapter is merged into its base.

    kind: the class of transformers that builds the model, such as ``AutoModel``
    four_bit: the weights of its linear layers in NF4, computing in dtype (of a base, not of an
              adapter, which cannot be merged into such weights)
    """
    place, precision = checked_device(device), checked_dtype(dtype)
    settings = {"dtype": precision, "use_safetensors": True, "output_loading_info": True}
    if four_bit:
        settings |= {"quantization_config": _four_bits(place, precision), "device_map": device}
    base = base_folder(folder)
    model, report = _loaded(kind, base, **settings)
    # An encoder is often saved without its pooler, which we do not use.
    spare = "pooler" if kind == "AutoModel" else None
    absent = sorted(name for name in report["missing_keys"] if not spare or spare not in name)
    if absent:
        raise HarnessError(
            f"the checkpoint in {folder} lacks {len(absent)} weights (such as {absent[0]}).",
            "Check that it holds this kind of model.",
        )
    if base != folder:
        take_signs(model, folder)
        model = with_adapter(model, folder).merge_and_unload()
    return model.eval() if four_bit else model.to(place).eval()


def _four_bits(device: Any, precision: Any) -> Any:
    """How transformers loads weights in NF4; `HarnessError` where that cannot be."""
    if device.type != "cuda":
        raise HarnessError(
            f"4-bit weights need CUDA and the package bitsandbytes, and the device is {device}.",
            "Write --device cuda, or leave four_bit out.",
        )
    library("bitsandbytes")
    return library("transformers").BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=precision
    )


def take_signs(model: Any, adapter: Path) -> None:
    """Give a model the embeddings of the signs that stand beside an adapter, if there are any."""
    if not (adapter / SIGNS).is_file():
        return
    try:
        found = library("safetensors.torch").load_file(adapter / SIGNS)
        made = sign_rows(model, int(found["first"]), len(found["input"]))
        for name, rows in made.items():
            rows.copy_(found[name])
    except (OSError, KeyError, RuntimeError, library("safetensors").SafetensorError) as error:
        raise HarnessError(
            f"{adapter / SIGNS} does not fit the model: {error}.", "Check the checkpoint's files."
        ) from error


def sign_rows(model: Any, first: int, count: int) -> dict[str, Any]:
    """The embeddings (n, d) of ``count`` ids from ``first`` on, for which room is made, as views of
    the model's own: ``input``, and ``output`` where that is a matrix of its own."""
    words = model.get_input_embeddings().weight
    if first + count > len(words):
        random = library("torch").random
        with random.fork_rng(devices=[]):
            random.manual_seed(0)
            model.resize_token_embeddings(first + count, mean_resizing=False)
        words = model.get_input_embeddings().weight
    found = {"input": words}
    if (out := model.get_output_embeddings()) is not None and out.weight is not words:
        found["output"] = out.weight
    return {name: each.data[first : first + count] for name, each in found.items()}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What safetensors cannot write (on a full disk) is an `OSError`, as everywhere."""
    try:
        yield
    except library("safetensors").SafetensorError as error:
        raise OSError(EIO, str(error), str(path)) from error


@contextmanager
def peft_alone() -> Iterator[Any]:
    """The library peft, without its warnings: it asks transformers in its old words."""
    peft = library("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield peft


def with_adapter(model: Any, adapter: Path, trained: bool = False) -> Any:
    """A model with a LoRA adapter on it, all of which fits; ``trained``: to be trained further."""
    broken = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError)
    errors = (*broken, library("safetensors").SafetensorError)
    try:
        with (
            peft_alone() as peft,
            library("safetensors").safe_open(adapter / ADAPTER[1], "pt") as weights,
        ):
            held = set(weights.keys())
            adapted = peft.PeftModel.from_pretrained(model, adapter, is_trainable=trained)
            wanted = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except errors as error:
        reason = str(error).strip().partition("\n")[0]
        raise HarnessError(
            f"the adapter in {adapter} cannot be loaded: {reason}", "Check its files."
        ) from error
    if odd := sorted(held ^ wanted):
        raise HarnessError(
            f"the adapter in {adapter} does not fit its base: {len(odd)} weights (such as "
            f"{odd[0]}) are on one side alone.",
            "Check that base_model_name_or_path is the model it was made for.",
        )
    return adapted


def _loaded(kind: str, folder: Path, **settings: Any) -> Any:
    """What a class of transformers makes of a folder, without network and foreign code."""
    transformers = library("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    safe = {"local_files_only": True, "trust_remote_code": False}
    broken = (OSError, ValueError, KeyError, RuntimeError, library("safetensors").SafetensorError)
    try:
        return getattr(transformers, kind).from_pretrained(folder, **settings, **safe)
    except broken as error:
        reason = str(error).strip().partition("\n")[0]
        raise HarnessError(
            f"the model in {folder} cannot be loaded: {reason}", "Check its files."
        ) from error


def checked_device(name: str) -> Any:
    """The torch device of a name; `HarnessError` if it cannot be used."""
    try:
        return library("torch").zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise HarnessError(
            f"the device {name!r} cannot be used here.", "Choose another, such as cpu."
        ) from error


def checked_dtype(name: str) -> Any:
    """The torch dtype of a name; `HarnessError` if it is not one of `DTYPES`."""
    if name not in DTYPES:
        raise HarnessError(f"there is no dtype {name!r}.", f"Choose from {', '.join(DTYPES)}.")
    return getattr(library("torch"), name)


def padded(rows: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"]) -> Any:
    """Token ids as a rectangle, and 1 where a token is real: two int64 tensors (b, l)."""
    torch = library("torch")
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[place, where] = torch.tensor(row)
        mask[place, where] = 1
    return ids, mask


def by_length(lengths: Sequence[int], size: int, tokens: float = inf) -> Iterator[list[int]]:
    """Places in batches of about equal length, the longest first, so that little is padded; at
    most ``size`` in each, and ``tokens`` with padding where it holds more than one."""
    order, start = sorted(range(len(lengths)), key=lambda place: -lengths[place]), 0
    while start < len(order):
        room = int(min(size, max(1, tokens / max(1, lengths[order[start]]))))
        yield order[start : start + room]
        start += room


def positions(model: Any) -> int | None:
    """How many tokens a model has positions for; None if it has no such limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None

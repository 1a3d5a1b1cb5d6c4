"""From a model's name to a loaded model: a folder, or a snapshot in the local Hugging Face cache.

Nothing is fetched, no pickle is read, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from harness.data import HarnessError

DTYPES = ("float32", "bfloat16", "float16")


def library(name: str) -> Any:
    """The module ``name``; `HarnessError` with what to install if it is not there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise HarnessError(
            f"models need the package {error.name or name}, which is not installed.",
            "Run pip install 'retrieval-qa-harness[models]'.",
        ) from error


def model_folder(model: str, revision: str = "") -> Path:
    """The folder with a model's files: ``model`` itself, or its snapshot in the local cache.

    revision: a branch, tag or commit of the hub, which defaults to main
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision:
            raise HarnessError(f"{model} is a folder and has no revisions.", "Leave revision= out.")
        return _checked(folder)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise HarnessError(f"the folder {model} does not exist.", "Check the path.")
    hub = library("huggingface_hub")
    try:
        config = hub.try_to_load_from_cache(model, "config.json", revision=revision or None)
    except hub.errors.HFValidationError:
        raise HarnessError(
            f"{model!r} is neither a folder nor a model's name.", "Write ORG/NAME or a folder."
        ) from None
    if not isinstance(config, str):
        at, option = (f" at {revision}", f" --revision {revision}") if revision else ("", "")
        raise HarnessError(
            f"the model {model}{at} is not on this machine, and nothing is fetched during a run.",
            f"Run `hf download {model}{option}` and start again, or give a folder.",
        )
    return _checked(Path(config).parent)


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise HarnessError(f"{folder} is no model: it has no config.json.", "Check the path.")
    if not any(folder.glob("*.safetensors")):
        raise HarnessError(
            f"{folder} has no safetensors weights, and pickled ones are never opened.",
            "Download it again, or save it with save_pretrained.",
        )
    return folder


def load(kind: str, folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder, ready to serve.

    kind: the class of transformers that builds the model, such as ``AutoModel``
    """
    torch, transformers = library("torch"), library("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place = _device(torch, device)
    if dtype not in DTYPES:
        raise HarnessError(f"there is no dtype {dtype!r}.", f"Choose from {', '.join(DTYPES)}.")
    safe = {"local_files_only": True, "trust_remote_code": False}
    broken = (OSError, ValueError, KeyError, RuntimeError, library("safetensors").SafetensorError)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe)
        model, report = getattr(transformers, kind).from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **safe,
        )
    except broken as error:
        reason = str(error).strip().partition("\n")[0]
        raise HarnessError(
            f"the model in {folder} cannot be loaded: {reason}", "Check its files."
        ) from error
    # An encoder is often saved without its pooler, which we do not use.
    absent = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if absent:
        raise HarnessError(
            f"the checkpoint in {folder} lacks {len(absent)} weights (such as {absent[0]}).",
            "Check that it holds this kind of model.",
        )
    return tokenizer, model.to(place).eval()


def _device(torch: Any, name: str) -> Any:
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise HarnessError(
            f"the device {name!r} cannot be used here.", "Choose another, such as cpu."
        ) from error


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


def positions(model: Any) -> int | None:
    """How many tokens a model has positions for; None if it has no such limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None

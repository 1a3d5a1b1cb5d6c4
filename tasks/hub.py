"""Files of the Hugging Face hub, at a pinned revision, through the cache of its own library.

`fetch` is the only function here that uses the network, and only `harness prepare` gets to it.
`datasets` says which files make up a split (it runs no code of the dataset: scripts are refused
since version 4); each file is downloaded whole, so an interrupted download goes on where it
stopped and nothing is downloaded twice; rows are then streamed from the local copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch

from harness.data import HarnessError
from harness.files import Numbered

INSTALL = "pip install -c constraints.txt -e '.[hub]', or give your own copy with --from PATH."
MEND = "Check the network, or give your own copy with --from PATH."


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub.

    revision:  a commit, 40 hex digits
    splits:    the harness's name of a split → the hub's
    """

    id: str
    config: str
    revision: str
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"validation": "validation", "train": "train"}
    )


def fetch(hub: Hub, split: str) -> list[Path]:
    """Local copies of the files of a split, downloaded if need be."""
    if not fullmatch("[0-9a-f]{40}", hub.revision):
        raise HarnessError(
            f"{hub.id}: {hub.revision!r} is not a commit of 40 hex digits.",
            "Pin the commit that the dataset's page shows.",
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise HarnessError("the package huggingface_hub is not installed.", INSTALL) from None
    try:
        return [
            Path(hf_hub_download(hub.id, name, repo_type="dataset", revision=hub.revision))
            for name in names_of(hub, split)
        ]
    except (OSError, RuntimeError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise HarnessError(f"{hub.id} cannot be fetched from the hub ({reason}).", MEND) from error


def names_of(hub: Hub, split: str) -> list[str]:
    """The files of a split inside the dataset's repository."""
    try:
        import datasets
    except ImportError:
        raise HarnessError("the package datasets is not installed.", INSTALL) from None
    builder = datasets.load_dataset_builder(hub.id, hub.config or None, revision=hub.revision)
    listed = (builder.config.data_files or {}).get(hub.splits[split])
    if not listed:
        raise HarnessError(f"{hub.id} ({hub.config}) has no split {hub.splits[split]!r}.", MEND)
    return [str(url).rpartition(f"@{hub.revision}/")[2] for url in listed]


def parquet_rows(path: Path) -> Numbered:
    """(place, row) of a parquet file, some hundred rows in memory at a time."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise HarnessError(
            f"{path}: reading parquet needs the package datasets.",
            "pip install -c constraints.txt -e '.[hub]'",
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise HarnessError(
            f"{path} row {number + 1}: not a whole parquet file ({reason}).",
            "Fetch the file again.",
        ) from None
    if not number:
        raise HarnessError(f"{path} is empty.", "Fetch the file again.")

"""Opening a system: its index is built once a corpus, renamed into place when whole."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from shutil import rmtree
from typing import Any

from harness import manifest
from harness.corpus import Corpus
from harness.data import Brief, HarnessError
from harness.files import json_value
from harness.registry import described
from harness.run.progress import Advance, Progress
from harness.spelling import Spelled


def build_index(
    system: Any, spelled: Spelled, corpus: Corpus, indexes: Path, brief: Brief, progress: Progress
) -> Path | None:
    """The folder of a system's index, built if it is not there; None if it has none.

    indexes: the folder of all indexes of this corpus
    Raises `HarnessError` naming the system if it cannot be built.
    """
    if not hasattr(system, "build"):
        return None
    with _blaming(spelled, "started", "Mend that or its options."):
        return _indexed(system, spelled, corpus, indexes, brief, progress)


def open_system(
    system: Any, spelled: Spelled, corpus: Corpus, index: Path | None, brief: Brief
) -> None:
    """Make a system ready to serve; `HarnessError` naming it if it cannot be started.

    index: what `build_index` returned
    """
    if hasattr(system, "open"):
        with _blaming(spelled, "started", "Mend that or its options."):
            system.open(corpus, index, brief)


def close_system(system: Any, spelled: Spelled) -> None:
    """Let a system go of what it took."""
    if hasattr(system, "close"):
        with _blaming(spelled, "closed", "Its rows are kept."):
            system.close()


def index_about(index: Path) -> dict[str, Any]:
    """What was noted when an index was built: system, documents, seconds, bytes."""
    about: dict[str, Any] = json_value(index.with_suffix(".json"))
    return about


@contextmanager
def _blaming(spelled: Spelled, what: str, mend: str) -> Iterator[None]:
    """Turns whatever other people's code raises into one sentence that names the system."""
    try:
        yield
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:
        raise HarnessError(f"{spelled} cannot be {what} ({described(error)}).", mend) from error


def _indexed(
    system: Any, spelled: Spelled, corpus: Corpus, indexes: Path, brief: Brief, progress: Progress
) -> Path:
    """The folder of the system's index; beside it ``<key>.json``: documents, seconds, bytes."""
    place = indexes / _key(system, spelled, brief)
    if place.exists():
        return place
    indexes.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=indexes))
    start = time.perf_counter()
    try:
        with progress(f"{spelled}: index", len(corpus), 0) as advance:
            system.on_progress = _steps(advance)
            system.build(corpus, work, brief)
        about = {
            "system": str(spelled),
            "documents": len(corpus),
            "seconds": round(time.perf_counter() - start, 3),
            "bytes": sum(file.stat().st_size for file in work.rglob("*") if file.is_file()),
        }
        place.with_suffix(".json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        with _already_there_is_fine():
            work.rename(place)
    finally:
        rmtree(work, ignore_errors=True)
    return place


@contextmanager
def _already_there_is_fine() -> Iterator[None]:
    """Another process may have built the same index meanwhile."""
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise


def _key(system: Any, spelled: Spelled, brief: Brief) -> str:
    """What an index depends on beside its corpus; of the options those that the system names
    in ``index_options``, or all."""
    named = getattr(system, "index_options", None)
    options = [
        option for option in spelled.canonical.options if named is None or option[0] in ("", *named)
    ]
    named_files = getattr(system, "index_files", getattr(system, "files", tuple))
    return manifest.digest(
        {
            "system": spelled.name,
            "options": options,
            "files": [manifest.file_hash(Path(path)) for path in named_files()],
            "sources": manifest.class_sources(type(system)),
            "versions": manifest.versions(type(system).__module__),
            "device": brief.device,
            "dtype": brief.dtype,
        }
    )


def _steps(advance: Advance) -> Callable[[int, int], None]:
    """What a system calls with how much is done so far."""
    before = 0

    def told(done: int, _: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return told

"""Results computed elsewhere, from a task's native ids to ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.canonical import native_documents, native_queries
from harness.corpus import Corpus
from harness.data import HarnessError, Hit, Reply

NOT_IN_FILE = Reply(counts={"not_in_file": 1})
"""What a stage from outside says of a question that its file does not know."""


def wants_rankings(system: object) -> bool:
    """Whether a system is to be handed rankings that were computed elsewhere."""
    return callable(getattr(system, "rankings", None))


def from_outside(system: object) -> bool:
    """Whether results of a system depend on files with a task's native ids."""
    return hasattr(system, "external") or wants_rankings(system)


def hand_rankings(system: Any, folder: Path, corpus: Corpus) -> None:
    """Give a system the rankings that it wants, if it does, in our ids; see `translate`."""
    if wants_rankings(system):
        system.ranked = translate(system.rankings(), folder, corpus)


def translate(outside: Mapping[str, Reply], folder: Path, corpus: Corpus) -> dict[str, Reply]:
    """Replies by our query ids, hits in trec_eval's order (`trec_order`) of native ids.

    folder: the prepared task. Questions that the task does not have are left out; a file with
    none of its questions, or with documents that its corpus lacks, is a `HarnessError`.
    """
    queries = native_queries(folder)
    ours = {queries[native]: reply for native, reply in outside.items() if native in queries}
    if not ours:
        has = f"it has {next(iter(outside))!r}" if outside else "it has none at all"
        raise HarnessError(
            f"the file knows none of the task's questions ({has}).",
            "Check that it belongs to this task and split.",
        )
    wanted = {hit.id for reply in ours.values() for hit in reply.hits}
    documents = native_documents(folder, corpus, wanted)
    strange = sorted(wanted - documents.keys())
    unknown = [d for d, place in zip(strange, corpus.positions(strange), strict=True) if place < 0]
    if unknown:
        raise HarnessError(
            f"the file ranks {len(unknown)} documents that the corpus does not have "
            f"(such as {unknown[0]!r}).",
            "Check that it belongs to this task's corpus.",
        )
    return {query_id: _in_our_ids(reply, documents) for query_id, reply in ours.items()}


def trec_order(hits: Iterable[Hit]) -> list[Hit]:
    """Hits as trec_eval orders them: by 32-bit scores, ties by falling id."""
    rounded = (Hit(hit.id, float(np.float32(hit.score))) for hit in hits)
    by_id = sorted(rounded, key=lambda hit: hit.id, reverse=True)
    return sorted(by_id, key=lambda hit: -hit.score)


def _in_our_ids(reply: Reply, documents: Mapping[str, str]) -> Reply:
    ordered = trec_order(reply.hits)
    hits = tuple(Hit(documents.get(hit.id, hit.id), hit.score) for hit in ordered)
    return Reply(reply.answer, hits, reply.raw)

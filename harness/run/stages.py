"""One stage of a pipeline over one batch of questions, and the one door for what it returns.

A stage never fails a run: whatever a system does wrong with a question becomes that question's
error row, which names the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import ge
from typing import Any

from harness.corpus import Corpus
from harness.data import Answer, Evidence, HarnessError, Hit, Query, Reply, Row

DEPTH = 100
"""Documents a retriever ranks in the corpus setting when the pipeline does not say."""
READ = 5
"""Passages an answering stage is given when the pipeline does not say."""


NOT_IN_FILE = Reply(counts={"not_in_file": 1})


class Misbehaviour(Exception):
    """What a system did wrong with one question."""


@dataclass
class Station:
    """A system ready to serve, at its place in a pipeline."""

    label: str
    system: Any
    corpus: Corpus
    depth: int | None = None
    translated: Mapping[str, Reply] | None = None
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.corpus)

    def rows(self, queries: Sequence[Query], before: Sequence[Row] | None) -> list[Row]:
        """One row a query; ``before`` are the rows of the previous stage, if there is one."""
        open_rows: list[tuple[int, Query]] = []
        rows: list[Row] = []
        for place, query in enumerate(queries):
            earlier = before[place] if before else Row(query.id)
            rows.append(earlier)
            if not earlier.error:
                open_rows.append((place, self._asked(query, earlier) if before else query))
        if open_rows:
            served = self._served([query for _, query in open_rows])
            for (place, query), outcome in zip(open_rows, served, strict=True):
                rows[place] = self._row(query, outcome, rows[place])
        return rows

    def _asked(self, query: Query, before: Row) -> Query:
        """The query as this stage sees it: closed to what the stage before passed on."""
        pool = tuple(sorted(hit.id for hit in before.hits))
        return replace(query, pool=pool, prior=before.hits)

    def _served(self, queries: Sequence[Query]) -> list[Reply | Misbehaviour]:
        """Ask for the batch; if that fails, ask one by one, so that only the culprit errs."""
        try:
            return self._ask(queries)
        except Exception as error:  # noqa: BLE001  (a system may raise anything)
            if len(queries) == 1:
                known = isinstance(error, Misbehaviour | HarnessError)
                kind = "" if known else f"{type(error).__name__}: "
                return [Misbehaviour(f"{kind}{error}".strip(": "))]
            return [outcome for query in queries for outcome in self._served([query])]

    def _ask(self, queries: Sequence[Query]) -> list[Reply | Misbehaviour]:
        if self.translated is not None:
            return [self._cut(self.translated.get(query.id, NOT_IN_FILE)) for query in queries]
        if hasattr(self.system, "solve"):
            replies = _as_many(self.system.solve(queries, self._k(queries)), queries)
            return [_guarded(self._solved, q, r) for q, r in zip(queries, replies, strict=True)]
        if hasattr(self.system, "retrieve"):
            k = self._k(queries)
            found = _as_many(self.system.retrieve(queries, k), queries)
            outcomes = [
                _guarded(self._ranked, q, h, k) for q, h in zip(queries, found, strict=True)
            ]
        else:
            outcomes = [Reply(hits=query.prior) for query in queries]
        if hasattr(self.system, "answer"):
            return self._read(queries, outcomes)
        return outcomes

    def _k(self, queries: Sequence[Query]) -> int:
        """How many hits to ask for: the depth, else whole pools, else `DEPTH`.

        An answering stage's depth is what it reads, so its own ranking covers the pool.
        """
        if self.depth is not None and not hasattr(self.system, "answer"):
            return self.depth
        pools = [len(query.pool) for query in queries if query.pool is not None]
        return max([1, *pools]) if len(pools) == len(queries) else DEPTH

    def _read(
        self, queries: Sequence[Query], ranked: Sequence[Reply | Misbehaviour]
    ) -> list[Reply | Misbehaviour]:
        """Let the system answer from the best documents of each ranking."""
        outcomes = list(ranked)
        ready = [place for place, outcome in enumerate(ranked) if isinstance(outcome, Reply)]
        asked, documents = [], []
        for place in ready:
            hits = _hits(ranked[place])
            asked.append(replace(queries[place], prior=hits))
            read = hits[: self.depth or READ]
            documents.append([self.corpus[hit.id] for hit in read])
        if not ready:
            return outcomes
        replies = _as_many(self.system.answer(asked, documents), asked)
        for place, reply in zip(ready, replies, strict=True):
            hits = _hits(ranked[place])
            outcomes[place] = _guarded(self._answered, reply, hits)
        return outcomes

    def _ranked(self, query: Query, hits: object, k: int) -> Reply:
        return Reply(hits=check_ranking(hits, query, self.known, k))

    def _answered(self, reply: object, hits: tuple[Hit, ...]) -> Reply:
        return replace(check_reply(reply), hits=hits)

    def _solved(self, query: Query, reply: object) -> Reply:
        checked = check_reply(reply)
        return replace(checked, hits=check_ranking(checked.hits, query, self.known, None))

    def _cut(self, reply: Reply) -> Reply | Misbehaviour:
        return replace(reply, hits=reply.hits[: self.depth]) if self.depth else reply

    def _row(self, query: Query, outcome: Reply | Misbehaviour, before: Row) -> Row:
        if isinstance(outcome, Misbehaviour):
            return Row(query.id, before.hits, error=f"{self.label}: {outcome}")
        hits, r = outcome.hits, outcome
        if self.translated is not None and query.pool is not None:
            outside = next((hit.id for hit in hits if hit.id not in query.pool), None)
            if outside is not None:
                why = f"ranks {outside}, which is not in the question's pool"
                return Row(query.id, before.hits, error=f"{self.label}: {why}")
        return Row(query.id, hits, r.answer, r.raw, r.read, r.counts, r.stop)


def _hits(outcome: Reply | Misbehaviour) -> tuple[Hit, ...]:
    return outcome.hits if isinstance(outcome, Reply) else ()


def _guarded(check: Callable[..., Reply], *arguments: object) -> Reply | Misbehaviour:
    try:
        return check(*arguments)
    except Misbehaviour as wrong:
        return wrong


def _as_many(outcomes: Any, queries: Sequence[Query]) -> list[Any]:
    """The outcomes as a list with one a query."""
    if not isinstance(outcomes, Sequence) or isinstance(outcomes, str):
        raise Misbehaviour(f"returned {type(outcomes).__name__}, expected a list")
    if len(outcomes) != len(queries):
        raise Misbehaviour(f"returned {len(outcomes)} results for {len(queries)} questions")
    return list(outcomes)


def check_ranking(hits: object, query: Query, known: Known, k: int | None) -> tuple[Hit, ...]:
    """The one door for rankings: ids are strings, unique and known; scores finite and falling."""
    if not isinstance(hits, Sequence) or isinstance(hits, str):
        raise Misbehaviour(f"returned {type(hits).__name__}, expected a list of hits")
    if k is not None and len(hits) > k:
        raise Misbehaviour(f"returned {len(hits)} hits, more than the {k} asked for")
    for hit in hits:
        if not isinstance(hit, Hit):
            raise Misbehaviour(f"returned {type(hit).__name__}, expected Hit(id, score)")
        if not isinstance(hit.id, str):
            raise Misbehaviour(f"the id {hit.id!r} is {type(hit.id).__name__}, not a string")
    ids = [hit.id for hit in hits]
    scores = [hit.score for hit in hits]
    if any(type(score) is not float for score in scores):
        scores = list(map(float, scores))
        hits = list(map(Hit, ids, scores))
    if not all(map(math.isfinite, scores)):
        wrong = next(hit for hit in hits if not math.isfinite(hit.score))
        raise Misbehaviour(f"the score of {wrong.id} is {wrong.score}")
    if not all(map(ge, scores, scores[1:])):
        place = next(n for n in range(1, len(ids)) if scores[n] > scores[n - 1])
        raise Misbehaviour(f"scores rise at {ids[place]} ({scores[place - 1]} to {scores[place]})")
    if len(set(ids)) < len(ids):
        raise Misbehaviour(f"ranks {next(each for each in ids if ids.count(each) > 1)} twice")
    foreign = known.outside(ids) if query.pool is None else set(ids).difference(query.pool)
    if foreign:
        where = "the corpus" if query.pool is None else "the question's pool"
        raise Misbehaviour(f"ranks {min(foreign)}, which is not in {where}")
    return tuple(hits)


class Known:
    """Ids of a corpus, remembered once looked up."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._seen: set[str] = set()

    def outside(self, ids: Sequence[str]) -> set[str]:
        """Those of ``ids`` that the corpus does not have."""
        fresh = [doc_id for doc_id in ids if doc_id not in self._seen]
        places = self.corpus.positions(fresh)
        self._seen.update(fresh)
        if (places >= 0).all():
            return set()
        foreign = {doc_id for doc_id, place in zip(fresh, places, strict=True) if place < 0}
        self._seen -= foreign
        return foreign


def check_reply(reply: object) -> Reply:
    """The one door for answers: text, an `Answer` or a `Reply` with one."""
    if isinstance(reply, str):
        return Reply(Answer(reply))
    if isinstance(reply, Answer):
        reply = Reply(reply)
    if not isinstance(reply, Reply) or reply.answer is None:
        kind = type(reply).__name__
        raise Misbehaviour(f"answered {kind}, expected a string, an Answer or a Reply")
    answer = reply.answer
    if not isinstance(answer.text, str):
        raise Misbehaviour(f"the answer is {type(answer.text).__name__}, not a string")
    for evidence in answer.evidence or ():
        if not isinstance(evidence, Evidence) or not isinstance(evidence.doc_id, str):
            raise Misbehaviour(f"the evidence {evidence!r} is not an Evidence(doc_id, …)")
    return reply

"""One stage of a pipeline over one batch of questions, and the one door for what it returns.

A stage never fails a run: whatever a system does wrong with a question becomes that question's
error row, which names the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import ge, index
from typing import Any, TypeVar

from harness.corpus import Corpus
from harness.data import Answer, Evidence, HarnessError, Hit, Query, Reply, Row
from harness.registry import capabilities, described
from harness.run.external import NOT_IN_FILE
from harness.run.spans import span

T = TypeVar("T")
DEPTH = 100
"""Documents a retriever ranks in the corpus setting when the pipeline does not say."""
READ = 5
"""Passages an answering stage is given when the pipeline does not say."""


class Misbehaviour(Exception):
    """What a system did wrong with one question."""


@dataclass
class Station:
    """A system ready to serve, at its place in a pipeline.

    depth:      the pipeline's ``@n``
    translated: for results from outside, the replies by query id
    """

    label: str
    system: Any
    corpus: Corpus
    depth: int | None = None
    translated: Mapping[str, Reply] | None = None
    known: Known = field(init=False)
    can: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.corpus)
        self.can = capabilities(self.system)
        if hasattr(self.system, "asked_depth"):
            self.system.asked_depth = self.depth

    def rows(self, queries: Sequence[Query], before: Sequence[Row] | None) -> list[Row]:
        """One row a query; ``before`` are the rows of the previous stage, if there is one."""
        asked: list[tuple[int, Query]] = []
        rows: list[Row] = []
        for place, query in enumerate(queries):
            earlier = before[place] if before else Row(query.id)
            rows.append(earlier)
            if not earlier.error:
                asked.append((place, self._closed(query, earlier) if before else query))
        if asked:
            served = self._served([query for _, query in asked])
            for (place, query), outcome in zip(asked, served, strict=True):
                rows[place] = self._row(query, outcome, rows[place])
        return rows

    def _closed(self, query: Query, before: Row) -> Query:
        """The query as this stage sees it: closed to what the stage before passed on."""
        pool = tuple(sorted(hit.id for hit in before.hits))
        return replace(query, pool=pool, prior=before.hits)

    def _served(self, queries: Sequence[Query]) -> list[Reply | Misbehaviour]:
        """Ask for the batch; if that fails, ask one by one, so that only the culprit errs."""
        try:
            return self._ask(queries)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a system may raise anything)
            if len(queries) == 1:
                known = isinstance(error, Misbehaviour | HarnessError)
                return [Misbehaviour(str(error) if known else described(error))]
            return [outcome for query in queries for outcome in self._served([query])]

    def _ask(self, queries: Sequence[Query]) -> list[Reply | Misbehaviour]:
        if self.translated is not None:
            return [_guarded(self._from_outside, query) for query in queries]
        k = self._k(queries)
        if "solve" in self.can:
            with span("solve"):
                replies = _as_many(self.system.solve(queries, k), queries)
            pairs = zip(queries, replies, strict=True)
            return [_guarded(self._solved, query, reply) for query, reply in pairs]
        outcomes: list[Reply | Misbehaviour] = [Reply(hits=query.prior) for query in queries]
        if "retrieve" in self.can:
            with span("retrieve"):
                found = _as_many(self.system.retrieve(queries, k), queries)
            pairs = zip(queries, found, strict=True)
            outcomes = [_guarded(self._ranked, query, hits, k) for query, hits in pairs]
        return self._read(queries, outcomes) if "answer" in self.can else outcomes

    def _k(self, queries: Sequence[Query]) -> int:
        """How many hits to ask for: the depth, else whole pools, else `DEPTH`.

        An answering stage's depth is what it reads, so its own ranking covers the pool.
        """
        if self.depth is not None and "answer" not in self.can:
            return self.depth
        pools = [len(query.pool) for query in queries if query.pool is not None]
        return max([1, *pools]) if len(pools) == len(queries) else DEPTH

    def _read(
        self, queries: Sequence[Query], ranked: Sequence[Reply | Misbehaviour]
    ) -> list[Reply | Misbehaviour]:
        """Let the system answer from the best documents of each ranking."""
        outcomes = list(ranked)
        ready = [(place, each) for place, each in enumerate(ranked) if isinstance(each, Reply)]
        if not ready:
            return outcomes
        depth = READ if self.depth is None else self.depth
        asked = [replace(queries[place], prior=each.hits) for place, each in ready]
        documents = [[self.corpus[hit.id] for hit in each.hits[:depth]] for _, each in ready]
        with span("answer"):
            replies = _as_many(self.system.answer(asked, documents), asked)
        for (place, each), reply in zip(ready, replies, strict=True):
            outcomes[place] = _guarded(self._answered, reply, each)
        return outcomes

    def _ranked(self, query: Query, found: object, k: int) -> Reply:
        reply = check_reply(found) if isinstance(found, Reply) else Reply()
        hits = found.hits if isinstance(found, Reply) else found
        return replace(reply, hits=check_ranking(hits, query, self.known, k))

    def _answered(self, reply: object, ranked: Reply) -> Reply:
        return replace(check_answer(reply), hits=ranked.hits)

    def _solved(self, query: Query, reply: object) -> Reply:
        checked = check_answer(reply)
        return replace(checked, hits=check_ranking(checked.hits, query, self.known, None))

    def _from_outside(self, query: Query) -> Reply:
        reply = (self.translated or {}).get(query.id, NOT_IN_FILE)
        hits = reply.hits if reply.hits or reply.answer is None else query.prior
        return replace(reply, hits=check_ranking(hits[: self.depth], query, self.known, None))

    def _row(self, query: Query, outcome: Reply | Misbehaviour, before: Row) -> Row:
        if isinstance(outcome, Misbehaviour):
            return Row(query.id, before.hits, error=f"{self.label}: {outcome}")
        r = outcome
        return Row(query.id, r.hits, r.answer, r.raw, r.read, r.counts, r.stop, extras=r.extras)


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
        foreign = {doc_id for doc_id, place in zip(fresh, places, strict=True) if place < 0}
        self._seen.update(set(fresh) - foreign)
        return foreign


def check_answer(reply: object) -> Reply:
    """The one door for answers: text, an `Answer` or a `Reply` with one; or why there is none."""
    if isinstance(reply, Exception):
        raise Misbehaviour(str(reply) if isinstance(reply, HarnessError) else described(reply))
    if isinstance(reply, str):
        reply = Answer(reply)
    if isinstance(reply, Answer):
        reply = Reply(reply)
    if not isinstance(reply, Reply) or reply.answer is None:
        kind = type(reply).__name__
        raise Misbehaviour(f"answered {kind}, expected a string, an Answer or a Reply")
    return check_reply(reply)


def check_reply(reply: Reply) -> Reply:
    """All that a reply says beside its hits, in plain types that can be written and read back."""
    try:
        return Reply(
            None if reply.answer is None else _plain_answer(reply.answer),
            tuple(reply.hits),
            _typed(reply.raw, str, "raw"),
            tuple(_typed(doc_id, str, "an id in read") for doc_id in reply.read),
            {_typed(name, str, "a count's name"): _number(n) for name, n in reply.counts.items()},
            _typed(reply.stop, str, "stop"),
            dict(reply.extras),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise Misbehaviour(f"its reply is malformed: {error}") from error


def _plain_answer(answer: Answer) -> Answer:
    evidence, triples, answerable = answer.evidence, answer.triples, answer.answerable
    return Answer(
        _typed(answer.text, str, "the answer"),
        None if evidence is None else tuple(map(_plain_evidence, evidence)),
        None if triples is None else tuple((str(s), str(r), str(o)) for s, r, o in triples),
        None if answerable is None else bool(answerable),
    )


def _plain_evidence(evidence: Evidence) -> Evidence:
    _typed(evidence, Evidence, "the evidence")
    sentence, span = evidence.sentence, evidence.span
    if span is not None:
        start, end = span
        span = (index(start), index(end))
    doc_id = _typed(evidence.doc_id, str, "the evidence's doc_id")
    return Evidence(doc_id, None if sentence is None else index(sentence), span)


def _typed(value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise Misbehaviour(f"{what} is {type(value).__name__}, not {kind.__name__}")
    return value


def _number(value: Any) -> float:
    """A count as a plain finite number."""
    plain = value if type(value) is int else float(value)
    if not math.isfinite(plain):
        raise Misbehaviour(f"a count is {plain}")
    return plain

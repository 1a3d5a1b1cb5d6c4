"""The systems of RICO.

    rico        reranks a pool by the documents' weights
    rico-state  learns the weights and answers from the mixed state h(α)
    rico-soup   answers from the mean state, the baseline of every mixture (as PICASO's "soup")

What they do not do: retrieve from a corpus (they need a pool or a stage before), mix the caches of
attention models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from harness import manifest
from harness.corpus import Corpus, content_id
from harness.data import Answer, Brief, Document, HarnessError, Query, Reply
from harness.registry import options_of
from harness.run.spans import span
from systems.bm25 import BM25
from systems.models.hub import OneModel, check_sizes, is_state_spaces, library, read_config
from systems.models.language import Asked, Generated, open_lm
from systems.models.prompts import Prompt
from systems.passages import words_of
from systems.ranking import pool_hits
from systems.reader import extracted
from systems.sizes import arithmetic, readable

if TYPE_CHECKING:
    from torch import Tensor

    from systems.models.backends import Stepwise
    from systems.rico.mixture import Learned
    from systems.rico.states import Layout, Store

At = Literal["uniform", "zero", "mean", "constant"]
Init = Literal["uniform", "prior", "bm25"]
SAMPLE = 1000
"""Documents of a corpus whose states make its mean."""
QUESTION = 2048
"""Tokens that a question may have."""
HELD = 512 * 2**20
"""Bytes of pools' states, in float32, that are held between steps: more questions take turns. A
single pool that is larger is read again in each step."""
SLACK = 8
"""Signs that a passage has beside its own words, at most."""
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
READERS = "systems.rico.states"
"""The module on whose code, and that of all it imports, states depend."""
POINT = "point.npy"
FITTING = {"steps": 120, "questions": 48, "rate": 3e-3}
"""How a constant state is fitted: Adam's steps, questions a step, and rate."""


class Rico(OneModel):
    """Options: the ``model`` (a Mamba-2: shipped, on the hub or a folder) and its ``revision``;
    ``steps`` of descent and its ``rate`` c.

    at:         where it starts: at the mixture of the weights to begin with (``uniform``), at a
                ``zero`` state, at the ``mean`` of the corpus, or at a ``constant`` state that is
                fitted to the ``questions`` of a file, one a line
    init:       the weights to begin with at ``uniform``: 1/n (``uniform``), or a softmax of the
                scores of the stage before (``prior``) or of BM25's
    layers:     how many are kept, evenly spread (0: all)
    conv:       the convolution context before the question: ``zero``, or the ``mean`` of the
                documents' (at ``mean`` and ``constant`` of the corpus', at ``zero`` none)
    max_length: tokens of a document after which it is cut (0: never; else 2048, and whole
                documents in ``rico-state`` and ``rico-soup``)
    store:      a folder that keeps the states from run to run; without it they are kept in memory
    room_gib:   for how much of them there is room, ``states`` being their dtype
    ahead:      encode the whole corpus before the first question (into ``store``)
    batch_size: documents encoded at a time, at most
    """

    takes = "Mamba2ForCausalLM"
    needs_pool = True
    index_options: tuple[str, ...] = (
        *("model", "revision", "at", "init", "layers", "conv", "max_length", "questions"),
        *("states", "store", "ahead"),
    )
    name = "rico"
    usual_length = 2048

    def __init__(
        self,
        model: str = "mini-lm",
        steps: int = 10,
        at: At = "uniform",
        init: Init = "uniform",
        rate: float = 0.5,
        layers: int = 0,
        conv: Literal["mean", "zero"] = "mean",
        max_length: int | None = None,
        questions: str = "",
        store: str = "",
        room_gib: float = 1.0,
        states: Literal["bfloat16", "float16", "float32"] = "bfloat16",
        ahead: bool = False,
        batch_size: int = 32,
        revision: str = "",
    ) -> None:
        check_sizes(self.name, batch_size=batch_size)
        wrong = [
            (steps < 0, f"steps={steps}", "It should be 0 or more."),
            (not 0 < rate < inf, f"rate={rate}", "It should be more than 0."),
            (not 0 < room_gib < inf, f"room_gib={room_gib}", "It should be more than 0."),
            ((max_length or 0) < 0, f"max_length={max_length}", "It should be 0 or more."),
            (layers < 0, f"layers={layers}", "It should be 0 or more."),
            (
                init != "uniform" and at != "uniform",
                f"init={init},at={at}",
                "Weights to begin with are for at=uniform; elsewhere they begin at 0.",
            ),
            (
                (at == "constant") != bool(questions),
                f"at={at},questions={questions}",
                "Give at=constant the questions=FILE that it is fitted to, and only that.",
            ),
            (ahead and not store, "ahead=true", "Say where to: store=FOLDER."),
        ]
        for is_so, what, hint in wrong:
            if is_so:
                raise HarnessError(f"{self.name}:{what} is wrong.", hint)
        self.model, self.revision = model, revision
        self.steps, self.at, self.init, self.rate = steps, at, init, rate
        self.layers, self.conv = layers, conv
        self.max_length = self.usual_length if max_length is None else max_length
        self.questions, self.place, self.room, self.dtype = questions, store, room_gib, states
        self.ahead, self.batch_size = ahead, batch_size
        self.bm25 = BM25() if init == "bm25" else None
        self.needs_prior = init == "prior"
        self.lengths: dict[str, int] = {}
        """Tokens of documents that may be cut, by key."""
        self.on_progress: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005

    def files(self) -> Sequence[Path]:
        folder = self.folder()
        config = read_config(folder)
        if not is_state_spaces(config) and config.get("model_type") != "mamba2":
            raise HarnessError(
                f"{self.model} is a {config.get('model_type')}, and {self.name} mixes the states "
                "of a Mamba-2.",
                f"Write {self.name}:model=state-spaces/mamba2-130m, or leave model= out.",
            )
        asked = Path(self.questions).expanduser()
        if self.questions and not asked.is_file():
            raise HarnessError(f"there is no file {asked}.", "Check questions=.")
        return [*super().files(), *([asked] if self.questions else [])]

    def needs(self, documents: int) -> str:
        """The room that states take, by arithmetic alone."""
        from systems.models.mamba2 import read_shape
        from systems.rico.states import Layout, spread

        config = read_shape(self.folder())
        layout = Layout(config, spread(config.layers, self.layers))
        each = layout.size * BYTES[self.dtype]
        self._check_room(documents, each)
        where = f"in {self.place}" if self.place else "in memory"
        room = f"room {where} for {readable(self.room * 2**30)} of those that are met"
        return f"{arithmetic(documents, each)}; {room}"

    def _check_room(self, documents: int, each: int) -> int:
        """How many rows of so many bytes there is room for; `HarnessError` if that is too few."""
        capacity = int(self.room * 2**30 / each)
        needed = documents if self.ahead else min(1, documents)
        if needed > capacity:
            raise HarnessError(
                f"{arithmetic(needed, each)}: more than room_gib={self.room:g}.",
                "Give more room, keep fewer layers (layers=), or rerank what another system finds "
                f"(bm25@20+{self.name}).",
            )
        return capacity

    # --- getting ready

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        """What no question is needed for: the point of descent, BM25's index, or all states."""
        if self.bm25 is not None:
            (folder / "bm25").mkdir()
            self.bm25.build(corpus, folder / "bm25", brief)
        if self.at in ("mean", "constant"):
            self._load(corpus, brief)
            np.save(folder / POINT, self._point().cpu().numpy())
        if self.ahead:
            self._load(corpus, brief)
            self._all()
        self.close()

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        if folder is None:
            raise HarnessError(f"{self.name} was opened without an index.", "Call build first.")
        self._load(corpus, brief)
        self.store  # noqa: B018  (what is wrong with it is told before the first question)
        if self.bm25 is not None:
            self.bm25.open(corpus, folder / "bm25", brief)
        torch = library("torch")
        row = torch.zeros(self.layout.size)
        if (folder / POINT).is_file():
            row = torch.from_numpy(np.load(folder / POINT))
        row = row.to(self.lm.vocabulary.known.device)
        self.base, self.context = row[: self.layout.ssm], row[self.layout.ssm :]
        if self.conv == "zero":
            self.context = torch.zeros_like(self.context)

    def close(self) -> None:
        """Let go of the model and the states; those in a folder stay there."""
        for name in ("lm", "store"):
            self.__dict__.pop(name, None)

    def _load(self, corpus: Corpus, brief: Brief) -> None:
        from systems.models.backends import Stepwise
        from systems.models.mamba2 import Mamba2
        from systems.rico.states import Layout, spread

        self.corpus, self.brief = corpus, brief
        lm = open_lm(self.folder(), brief.device, brief.dtype)
        assert isinstance(lm, Stepwise) and isinstance(lm.network, Mamba2)  # see `files`
        self.lm: Stepwise = lm
        config = lm.network.config
        self.layout: Layout = Layout(config, spread(config.layers, self.layers))

    @cached_property
    def store(self) -> Store:
        """Where the states are kept; in a folder only those of this checkpoint, read by this
        code."""
        from systems.rico.states import FileStore, Store

        size = self.layout.size
        capacity = self._check_room(len(self.corpus), size * BYTES[self.dtype])
        if not self.place:
            return Store(size, self.dtype, min(capacity, len(self.corpus)))
        about = {
            "checkpoint": manifest.digest([manifest.file_hash(each) for each in super().files()]),
            "layers": list(self.layout.layers),
            "computed by": manifest.digest(
                [manifest.sources(READERS), manifest.versions(READERS), self.brief.dtype]
            ),
        }
        return FileStore.at(Path(self.place), about, size, self.dtype, capacity)

    def _point(self) -> Tensor:
        """The mean row of a sample of the corpus, or the constant that was fitted from there."""
        torch = library("torch")
        count = min(SAMPLE, len(self.corpus))
        if not count:
            return torch.zeros(self.layout.size)
        places = np.linspace(0, len(self.corpus) - 1, count).astype(int).tolist()
        documents = [self.corpus[place] for place in dict.fromkeys(places)]
        total, done = torch.zeros(self.layout.size, dtype=torch.float64), 0
        for _, rows in self._encoded([each for each in documents if words_of(each).strip()]):
            total, done = total + rows.double().sum(0).cpu(), done + len(rows)
            self.on_progress(done, len(documents))
        mean = (total / max(1, done)).float().to(self.lm.vocabulary.known.device)
        return mean if self.at == "mean" else self._fitted(mean)

    def _fitted(self, start: Tensor) -> Tensor:
        """The constant state behind which the questions of the file are likeliest."""
        torch = library("torch")
        lines = Path(self.questions).expanduser().read_text(encoding="utf-8").splitlines()
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise HarnessError(f"{self.questions} holds no question.", "Write one on each line.")
        order = np.random.default_rng(0)
        start = start.clone()
        if self.conv == "zero":
            start[self.layout.ssm :] = 0
        point = start[: self.layout.ssm].clone().requires_grad_()
        adam = torch.optim.Adam([point], lr=FITTING["rate"])
        for _ in range(int(FITTING["steps"])):
            size = min(len(texts), int(FITTING["questions"]))
            chosen = [texts[place] for place in order.choice(len(texts), size, replace=False)]
            # The words of all are known to each, so that none is told by being a word at all.
            asked = [self._asked(text, chosen) for text in chosen]
            states = (each.expand(size, -1) for each in (point, start[self.layout.ssm :]))
            adam.zero_grad()
            self._surprise(asked, *states).mean().backward()
            adam.step()
        return torch.cat([point.detach(), start[self.layout.ssm :]])

    def _all(self) -> None:
        """Encode the corpus; what is there already is not done again."""
        for start in range(0, len(self.corpus), SAMPLE):
            found = self.corpus[start : start + SAMPLE]
            told = [each for each in found if words_of(each).strip()]
            self._kept({self.key(each): each for each in told})
            self.on_progress(start + len(found), len(self.corpus))

    # --- documents

    def _encoded(self, documents: Sequence[Document]) -> Iterator[tuple[list[int], Tensor]]:
        """Places and rows of documents, none of which is empty."""
        from systems.rico.states import encode

        rendered = [self.lm.prompts.passage(each) for each in documents]
        if self.max_length:
            rendered = [each._replace(ids=each.ids[: self.max_length]) for each in rendered]
        for places, rows in encode(self.lm, self.layout, rendered, self.batch_size):
            for place, fine in zip(places, rows.isfinite().all(1).tolist(), strict=True):
                if not fine:
                    raise HarnessError(
                        f"the state of document {documents[place].id} holds numbers that are none.",
                        "Use --dtype float32, or check the model's weights.",
                    )
            yield places, rows

    def key(self, document: Document) -> str:
        """Of a document's state: its content, and where it is cut if it is."""
        key = content_id(document.title, document.text)
        most = self.max_length
        # A token is a byte or more, so that a short document need not be tokenised for this.
        if not most or len(words_of(document).encode()) + SLACK <= most:
            return key
        if key not in self.lengths:
            self.lengths[key] = len(self.lm.prompts.passage(document).ids)
        return f"{key}-{most}" if self.lengths[key] > most else key

    def _kept(self, documents: Mapping[str, Document]) -> set[str]:
        """Have the states of documents, by key, in the store; which had to be encoded."""
        missing = self.store.missing(list(documents))
        if missing:
            with span("encode"):
                for places, rows in self._encoded([documents[key] for key in missing]):
                    self.store.put([missing[place] for place in places], rows)
        return set(missing)

    # --- questions

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """The pool by weight. ``extras`` has the weights, the loss before each step, and how many
        of the pool's states had to be encoded (once in a batch), of how many bytes each."""
        return [each.reply(k) for some in self._turns(queries) for each in self._mixtures(some)]

    def _turns(self, queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
        """As many questions at a time as there is room for their pools' states."""
        start, held, met = 0, 0, set[str]()
        for place, query in enumerate(queries):
            pool = query.pool or ()
            held += 4 * self.layout.size * len(pool)
            met.update(pool)
            if place > start and (held > HELD or len(met) > self.store.capacity):
                yield queries[start:place]
                start, held, met = place, 4 * self.layout.size * len(pool), set(pool)
        yield queries[start:]

    def _mixtures(self, queries: Sequence[Query]) -> list[Mixture]:
        """What is learned for questions, as many as are worked on at a time."""
        from systems.rico.mixture import descend

        torch = library("torch")
        pools = [self._candidates(query) for query in queries]
        new = self._kept({key: each for pool in pools for key, each in pool.documents.items()})
        place = (self.layout.ssm, self.base.device)
        views = [View(self.store, list(pool.documents), *place) for pool in pools]
        contexts = torch.stack([self._context(view) for view in views])
        asked = [
            self._asked(query.text, pool.texts) for query, pool in zip(queries, pools, strict=True)
        ]

        def loss(h: Tensor, places: Sequence[int]) -> Tensor:
            return self._surprise([asked[place] for place in places], h, contexts[list(places)])

        base = self.base.expand(len(queries), -1)
        first = [self._first(*each) for each in zip(queries, pools, strict=True)]
        with span("descend"):
            learned = descend(views, base, first, loss, self.steps, self.rate)
        noted = []
        for pool in pools:
            here = new & pool.documents.keys()
            new -= here
            noted.append({"encoded": len(here), "bytes": self.store.bytes})
        return list(map(Mixture, pools, views, learned, noted))

    def _candidates(self, query: Query) -> Candidates:
        """A question's documents; `HarnessError` if there are none, or one is empty."""
        if query.pool is None:
            raise HarnessError("there is no pool.", "Put a retriever before it.")
        if not query.pool:
            raise HarnessError("the pool is empty.", "Give it candidates.")
        documents, keys = {}, {}
        for document in (self.corpus[each] for each in sorted(query.pool)):
            if not words_of(document).strip():
                raise HarnessError(f"document {document.id} is empty.", "Leave it out of the pool.")
            keys[document.id] = self.key(document)
            documents[keys[document.id]] = document
        return Candidates(documents, keys)

    def _context(self, view: View) -> Tensor:
        """The convolution context before a question, (c,)."""
        if self.at != "uniform" or self.conv == "zero":
            return self.context
        return view.mean_context().to(self.context)

    def _first(self, query: Query, pool: Candidates) -> Tensor:
        """The weights that descent begins with, one for each different document."""
        from systems.rico.mixture import by_scores, uniform

        size = len(pool.documents)
        if self.at != "uniform":
            return uniform(size) * 0
        if self.init == "uniform":
            return uniform(size)
        hits = query.prior if self.bm25 is None else self.bm25.retrieve([query], len(pool.keys))[0]
        scores = {pool.keys[hit.id]: hit.score for hit in hits}
        return by_scores([scores[key] for key in pool.documents])

    def _asked(self, question: str, texts: Sequence[str]) -> Asked:
        """A question as the model is to say it; with open words, those of ``texts`` can be said."""
        asked = self.lm.asked(Prompt(None, behind=True), question, texts)
        tokens = len(asked.ids) - asked.start
        if not 0 < tokens <= QUESTION:
            raise HarnessError(
                f"the question has {tokens} tokens, and should have 1 to {QUESTION}.",
                "Shorten it, or leave it out.",
            )
        return asked

    def _surprise(self, asked: Sequence[Asked], ssm: Tensor, conv: Tensor) -> Tensor:
        """L of questions (b,) behind SSM states (b, ssm) and convolution contexts (b, …)."""
        tokens = library("torch").tensor([len(each.ids) - each.start for each in asked])
        found = self.lm.target_log_p(asked, self.layout.state(ssm, conv)).sum(1)
        return -found / tokens.to(found.device)


class RicoState(Rico):
    """Options: those of `Rico`; the answer is written from the mixed state h(α). Where a depth is
    given (``rico-state@5``), the documents behind the best so many have no part in it."""

    name = "rico-state"
    usual_length = 0

    def solve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """Ranking of the whole pool, and answer; ``read`` is what has a part in it."""
        replies = []
        for some in self._turns(queries):
            found = self._mixtures(some)
            kept = [mixture.best(k) for mixture in found]
            written = self._written(some, found, kept)
            for mixture, best, text in zip(found, kept, written, strict=True):
                ranked = mixture.reply(len(mixture.pool.keys))
                reply = replace(
                    ranked,
                    answer=Answer(extracted(text.text)),
                    raw=text.text,
                    read=tuple(h.id for h in ranked.hits if mixture.pool.keys[h.id] in best),
                    counts=text.counts,
                    stop=text.stop,
                )
                replies.append(reply)
        return replies

    def _written(
        self, queries: Sequence[Query], found: Sequence[Mixture], kept: Sequence[Sequence[str]]
    ) -> Sequence[Generated]:
        """The answers, each from its own state; of each mixture only the documents ``kept``."""
        from systems.rico.mixture import add_mixed

        points, contexts, words = self.base.repeat(len(found), 1), [], []
        for point, each, best in zip(points, found, kept, strict=True):
            places = [place for place, key in enumerate(each.pool.documents) if key in best]
            view = View(
                self.store, [each.view.keys[p] for p in places], each.view.ssm, point.device
            )
            add_mixed(point, view, each.learned.weights[places])
            contexts.append(self._context(view))
            words.append([words_of(each.pool.documents[key]) for key in best])
        return self.lm.generate(
            [Prompt(query.text, behind=True) for query in queries],
            self.brief.max_new_tokens,
            words=words,
            start=self.layout.state(points, library("torch").stack(contexts)),
        )


class RicoSoup(RicoState):
    """Options: those of `Rico` that say how documents are read and kept. It answers from the mean
    state of the best documents of the stage before it (``bm25+rico-soup@5``), or of the whole
    pool, and does not rank."""

    name = "rico-soup"

    def __init__(
        self,
        model: str = "mini-lm",
        layers: int = 0,
        conv: Literal["mean", "zero"] = "mean",
        max_length: int = 0,
        store: str = "",
        room_gib: float = 1.0,
        states: Literal["bfloat16", "float16", "float32"] = "bfloat16",
        batch_size: int = 32,
        revision: str = "",
    ) -> None:
        given = dict(locals())
        super().__init__(steps=0, **{name: given[name] for name in options_of(RicoSoup)})

    retrieve = None  # type: ignore[assignment]

    def solve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """The answer, and the ranking of the stage before."""
        best = [
            replace(query, pool=tuple(hit.id for hit in query.prior[:k]) or query.pool)
            for query in queries
        ]
        whole = max(len(query.pool or ()) for query in best)
        return [
            replace(reply, hits=query.prior)
            for query, reply in zip(queries, super().solve(best, whole), strict=True)
        ]


# --- what one question is made of -----------------------------------------------------


@dataclass(frozen=True)
class Candidates:
    """A question's documents: by a key for each different text, and the key of each id."""

    documents: Mapping[str, Document]
    keys: Mapping[str, str]

    @property
    def texts(self) -> list[str]:
        return [words_of(each) for each in self.documents.values()]


class View:
    """Rows of a store as a `systems.rico.mixture.Pool`: their first ``ssm`` numbers. Those of a
    small pool are kept, so that each step does not read them again."""

    def __init__(self, store: Store, keys: Sequence[str], ssm: int, device: object) -> None:
        self.store, self.keys, self.ssm, self.device = store, keys, ssm, device
        self.held: list[tuple[slice, Tensor]] | None = None
        if 4 * len(keys) * store.size <= HELD:
            self.held = list(self._rows())

    def __len__(self) -> int:
        return len(self.keys)

    def _rows(self) -> Iterator[tuple[slice, Tensor]]:
        if self.held is not None:
            return iter(self.held)
        return ((here, rows.to(self.device)) for here, rows in self.store.blocks(self.keys))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        return ((here, rows[:, : self.ssm]) for here, rows in self._rows())

    def mean_context(self) -> Tensor:
        """The mean of the numbers behind, the convolution contexts."""
        parts = [rows[:, self.ssm :].sum(0) for _, rows in self._rows()]
        total: Tensor = sum(parts[1:], parts[0])
        return total / len(self)


class Mixture(NamedTuple):
    """What was learned for a question, and from what."""

    pool: Candidates
    view: View
    learned: Learned
    states: Mapping[str, int]

    def best(self, k: int) -> list[str]:
        """The keys of the best ``k`` documents, of which equal ones have one."""
        return list(dict.fromkeys(self.pool.keys[hit.id] for hit in self.reply(k).hits))

    def reply(self, k: int) -> Reply:
        """The ranking by weight, ties broken by id."""
        by_key = dict(zip(self.pool.documents, self.learned.weights.tolist(), strict=True))
        weights = {doc_id: by_key[key] for doc_id, key in self.pool.keys.items()}
        return Reply(
            hits=tuple(pool_hits(list(weights), np.array(list(weights.values())), k)),
            extras={
                "weights": weights,
                "losses": self.learned.losses,
                "states": {**self.states, "documents": len(self.view)},
            },
        )

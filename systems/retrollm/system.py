"""RetroLLM as a system: one decoding pass writes clues, then evidence that stands in the corpus,
then the answer (Li et al. 2024, arXiv 2412.11919).

Where the released code and the paper differ, ``mode=paper`` (the default) is the paper. What it
does not do: beams, evidence that goes over the end of a passage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import exp, inf
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.corpus import Corpus
from harness.data import Answer, Brief, Document, Evidence, HarnessError, Hit, Query, Reply
from harness.run.spans import span
from systems.models.classifier import Classifier
from systems.models.hub import Checkpoint, OneModel, check_sizes
from systems.models.language import Generated, open_lm
from systems.models.prompts import Prompt, load_prompts
from systems.passages import part_of
from systems.reader import extracted
from systems.retrollm import clues as by_clues
from systems.retrollm.decoding import (
    Clues,
    Constraint,
    Found,
    Guide,
    Mode,
    Rules,
    Sources,
    Starts,
    Walk,
)
from systems.retrollm.expansion import MOST_WORDS, Outside, expander
from systems.retrollm.form import SIGNS, Form
from systems.retrollm.texts import Shelf, script_of
from systems.retrollm.windows import Text, Window, windows
from systems.sizes import readable

MINI = "mini-retrollm"
SCORES = "ForSequenceClassification"
"""What judges windows."""
PAPER_SIZES = {"candidates": 25, "window": 32, "merged": 128}
MINI_SIZES = {"candidates": 5, "window": 8, "merged": 24}
"""What suits the short passages of the mini world best, tuned on its dev questions."""
RANKED = 100
"""Documents of the expander's ranking."""
TOKENS = 150
"""Of a document, title included, for an estimate."""
LARGEST = 50_000_000
"""Tokens of a corpus, all of which may be evidence."""
LEAST = 32
"""Tokens that there has to be room for before an answer."""


class Seen(NamedTuple):
    """A window: characters of a document's text, and its score."""

    doc_id: str
    start: int
    end: int
    score: float


class Scored(NamedTuple):
    """The documents that a question's clues and the expander speak for, best first, the tokens
    that the scorer read, and the windows that it liked best."""

    documents: list[int]
    tokens: int
    windows: list[Seen]


@dataclass
class Pass:
    """One question on its way."""

    query: Query
    shelf: Shelf
    walk: Walk
    ranking: list[int]
    words: list[list[list[int]]]
    scored: Scored | None = None


class RetroLLM(OneModel):
    """Options: the model (shipped, on the hub or a folder), which was trained for this.

    expansion:  the expander: ``bm25``, ``prior`` (the stage before), ``trec:FILE``, a SPLADE model,
                or ``none``
    scorer:     the cross-encoder that judges windows; ``scale``: its scores through a sigmoid, or
                raw
    mode:       ``paper``: look-ahead (Eq. 12); ``released``: evidence j begins in the first fifth
                of the j-th best window, and goes on from there in its document
    lookahead:  λ
    clues:      n-grams of the ``corpus``, ``free`` or ``none``
    constraint: evidence stands in a candidate document (``documents``), anywhere in the ``corpus``,
                or nowhere (``none``)
    starts:     evidence begins at a ``sentence``, or ``any`` token (as the paper has it)
    evidences:  at most
    again:      times that clues may be written again behind evidence, of a model that was trained
                so (not of the paper)
    candidates: documents, at most (25; with mini models 5)
    window, merged: tokens around a clue, and of merged windows, at most (32 and 128; with mini
                models 8 and 24)
    """

    takes = "ForCausalLM"
    index_options = ("model", "expansion")

    def __init__(
        self,
        model: str = MINI,
        expansion: str = "bm25",
        scorer: str = "mini-cross-encoder",
        scale: Literal["sigmoid", "raw"] = "sigmoid",
        mode: Mode = "paper",
        lookahead: float = 100.0,
        clues: Clues = "corpus",
        constraint: Constraint = "documents",
        starts: Starts = "sentence",
        candidates: int | None = None,
        evidences: int = 5,
        again: int = 0,
        window: int | None = None,
        merged: int | None = None,
    ) -> None:
        sizes = {"candidates": candidates, "window": window, "merged": merged}
        given = {name: size for name, size in sizes.items() if size is not None}
        check_sizes("retrollm", evidences=evidences, **given)
        for name, value in (("lookahead", lookahead), ("again", again)):
            if not 0 <= value < inf:
                raise HarnessError(f"retrollm:{name}={value} is wrong.", "Give 0 or more.")
        if clues == "none" and expansion == "none" and constraint == "documents":
            raise HarnessError(
                "retrollm:clues=none,expansion=none leaves no candidate documents.",
                "Leave one of the two out, or write constraint=corpus.",
            )
        if (clues == "none" and again) or (constraint == "corpus" and mode == "released"):
            both = "clues=none,again" if again else "constraint=corpus,mode=released"
            raise HarnessError(f"retrollm:{both} contradicts itself.", "Leave one of the two out.")
        self.model, self.revision = model, ""
        self.expander, self.scorer, self.scale = (
            expander(expansion),
            Checkpoint(scorer, SCORES),
            scale,
        )
        self.sizes = given
        self.needs_prior = self.needs_pool = expansion == "prior"
        self.rules = Rules(
            mode, lookahead, clues, constraint, starts, evidences=evidences, again=again
        )
        self.judges = constraint == "documents" and (lookahead > 0 or mode == "released")
        self.ranked: Mapping[str, Reply] = {}
        self.on_progress: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005
        if not isinstance(self.expander, Outside):
            self.rankings = None  # type: ignore[assignment,method-assign]

    def files(self) -> Sequence[Path]:
        judge = self.scorer.files() if self.judges else ()
        return [*super().files(), *judge, *self.expander.files()]

    @cached_property
    def world(self) -> str:
        """Of the model; the scorer has to be of the same."""
        found = super().world
        if self.judges and self.scorer.world != found:
            raise HarnessError(
                f"{self.model} and the scorer {self.scorer.model} are not of one world.",
                "Name another scorer=, such as BAAI/bge-reranker-base.",
            )
        return found

    def index_files(self) -> Sequence[Path]:
        """What the index depends on: the model's files and those of a SPLADE model."""
        outside = isinstance(self.expander, Outside)
        return [*super().files(), *(() if outside else self.expander.files())]

    def needs(self, documents: int) -> str:
        """What an index of so many documents of 100 words takes."""
        size = documents * TOKENS
        return f"{readable(21 * size)} of memory to build n-grams, {readable(10 * size)} of disk"

    def rankings(self) -> dict[str, Reply]:
        """The rankings of the expander that come from outside; the runner makes ``ranked`` of
        them."""
        assert isinstance(self.expander, Outside)
        return self.expander.run.external()

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        """Write the n-grams of the corpus, of 2³¹ tokens at most, and the expander's index."""
        prompts = load_prompts(self.folder())
        Form.of(prompts)  # a model that was not taught the signs is told before the work
        script = script_of(prompts)
        Shelf.of(script, corpus, lambda done: self.on_progress(done, len(corpus))).save(folder)
        script.save(folder)
        (folder / "expander").mkdir()
        self.expander.build(corpus, folder / "expander", brief)

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        assert folder is not None
        self.corpus = corpus
        self.lm = open_lm(self.folder(), brief.device, brief.dtype)
        self.form = Form.of(self.lm.prompts)
        self.script = script_of(self.lm.prompts, folder)
        self.shelf = Shelf.open(folder)
        self.expander.open(corpus, folder / "expander", brief)
        if isinstance(self.expander, Outside):
            self.expander.ranked = self.ranked
        if self.judges:
            place = self.scorer.folder()
            self.classifier = Classifier(place, device=brief.device, dtype=brief.dtype)
        sizes = {**(MINI_SIZES if self.world else PAPER_SIZES), **self.sizes}
        self.candidates = sizes["candidates"]
        self.around, self.longest = sizes["window"], sizes["merged"]
        self.rules = self._rules(brief.max_new_tokens)

    def _rules(self, answer: int) -> Rules:
        around, rules = self.around, replace(self.rules, answer_tokens=answer)
        if rules.mode == "paper":
            return rules
        return replace(rules, shortest=2 * around, evidence_tokens=5 * around)

    def solve(self, queries: Sequence[Query], k: int) -> list[Reply]:
        """Clues, evidence and answer in one pass; hits are the documents of the evidence in their
        order, then the other candidates. ``extras`` has the clues, and as many of the best windows
        as evidence may have places: document, characters from and to, score."""
        self._spans: dict[str, list[tuple[int, int]]] = {}
        with span("expand"):
            passes = self._passes(queries)

        def begin(places: Sequence[int]) -> None:
            with span("score"):
                self._begin([passes[place] for place in places])

        walks = [each.walk for each in passes]
        guide = Guide(walks, self.script, self.lm.prompts, begin)
        prompts = [Prompt(query.text, seek=True) for query in queries]
        with span("generate"):
            written = self.lm.generate(prompts, self.rules.most_tokens, guide)
        rows = [speech.row for speech in guide.speech]
        return [
            self._reply(one, text, row, k)
            for one, text, row in zip(passes, written, rows, strict=True)
        ]

    def _passes(self, queries: Sequence[Query]) -> list[Pass]:
        """The questions with what the expander says of them."""
        rankings = self.expander.rankings(queries, RANKED)
        words = self.expander.words(queries)
        found = []
        for query, hits, more in zip(queries, rankings, words, strict=True):
            shelf = self._shelf(query.pool)
            local = self._local(shelf, [hit.id for hit in hits])
            forms = [dict.fromkeys((each, each.lower(), each.capitalize())) for each in more]
            spelled = [[read.ids for read in self.script.read(list(each))] for each in forms]
            walk = Walk(self.rules, self.form, shelf.ngrams, self._room(query))
            found.append(Pass(query, shelf, walk, local, spelled))
        return found

    def _room(self, query: Query) -> float:
        """Tokens that a pass may have before its answer."""
        if self.lm.window is None:
            return inf
        asked = self.lm.count(Prompt(query.text, seek=True))
        room = self.lm.window - asked - len(self.form.lead) - self.rules.answer_tokens - 1
        if room < LEAST:
            raise HarnessError(
                f"the question takes {asked} of the model's {self.lm.window} tokens and leaves "
                "none to clues and evidence.",
                "Take a model that reads more.",
            )
        return room

    def _shelf(self, pool: Sequence[str] | None) -> Shelf:
        if pool is None:
            return self.shelf
        return self.shelf.some(sorted(self.corpus.positions(pool).tolist()))

    def _local(self, shelf: Shelf, ids: Sequence[str]) -> list[int]:
        """The numbers of documents on a shelf."""
        numbers: list[int] = self.corpus.positions(ids).tolist()
        if shelf.numbers is None:
            return numbers
        place = {number: place for place, number in enumerate(shelf.numbers)}
        return [place[number] for number in numbers]

    def _begin(self, passes: Sequence[Pass]) -> None:
        """Candidates, windows and their scores, for questions whose clues are written."""
        made = [self._sources(each) for each in passes]
        places = [
            [self._window(one, documents, text, each) for each in spans]
            for one, (documents, text, spans) in zip(passes, made, strict=True)
        ]
        pairs = [
            (one.query.text, part_of(document, document.text[start:end]))
            for one, seen in zip(passes, places, strict=True)
            for document, start, end in seen
        ]
        judged = iter(self.classifier.judge(pairs) if pairs else [])
        for one, (documents, text, spans), seen in zip(passes, made, places, strict=True):
            here = [*islice(judged, len(spans))]
            scores = [self._scaled(each.score) for each in here]
            before = one.scored or Scored([], 0, [])
            tokens = before.tokens + sum(each.tokens for each in here)
            found = [Seen(d.id, s, e, score) for (d, s, e), score in zip(seen, scores, strict=True)]
            one.scored = Scored(documents, tokens, self._best([*before.windows, *found]))
            whole = self.rules.constraint == "corpus"
            within = range(one.shelf.documents) if whole else documents[: self.candidates]
            one.walk.begin(Sources(within, text, spans, scores))

    def _scaled(self, score: float) -> float:
        return score if self.scale == "raw" else 1 / (1 + exp(-max(-700.0, score)))

    def _sources(self, one: Pass) -> tuple[list[int], Text, list[Window]]:
        """The candidates of a question, their texts, and the windows to be judged."""
        shelf, walk = one.shelf, one.walk
        # What is looked for behind evidence, the expander knows nothing of.
        ranking = one.ranking if not walk.evidence else []
        scored = by_clues.scores(shelf, walk.clues)
        first = by_clues.best(scored, by_clues.KEPT if ranking else self.candidates)
        fused = by_clues.fused([first, ranking])
        documents = by_clues.ranked(fused)
        if self.rules.constraint == "corpus":
            return documents, self._whole(shelf), []
        kept = documents[: self.candidates] if self.rules.constraint == "documents" else []
        text = Text.of(shelf, kept)
        if not self.judges:
            return documents, text, []
        words = [*walk.clues, *by_clues.rarest(shelf.ngrams, one.words, MOST_WORDS)]
        return documents, text, windows(text, words, self.around, self.longest)

    def _whole(self, shelf: Shelf) -> Text:
        """The text of a whole shelf; that of the corpus is kept."""
        return self._corpus_text if shelf is self.shelf else Text.of(shelf, range(shelf.documents))

    @cached_property
    def _corpus_text(self) -> Text:
        if (size := len(self.shelf.ngrams.tokens)) > LARGEST:
            raise HarnessError(
                f"retrollm:constraint=corpus looks at all {size:,} tokens for each one it writes, "
                f"and that is done up to {LARGEST:,}.",
                "Write constraint=documents.",
            )
        return Text.of(self.shelf, range(self.shelf.documents))

    def _best(self, windows: Iterable[Seen]) -> list[Seen]:
        """As many as evidence may have places."""
        return sorted(windows, key=lambda each: -each.score)[: self.rules.evidences]

    def _window(
        self, one: Pass, documents: Sequence[int], text: Text, window: Window
    ) -> tuple[Document, int, int]:
        """Where a window stands: its document, and characters of its text."""
        which, place = text.place(window[0])
        document = self.corpus[one.shelf.number(documents[which])]
        return document, *self._characters(document, place, window[1] - window[0])

    def _characters(self, document: Document, place: int, count: int) -> tuple[int, int]:
        """Where tokens of a document's text stand in it."""
        if document.id not in self._spans:
            self._spans[document.id] = self.script.read([document.text])[0].spans
        spans = self._spans[document.id]
        return spans[place][0], spans[place + count - 1][1]

    def _reply(self, one: Pass, written: Generated, row: Any, k: int) -> Reply:
        walk, scored = one.walk, one.scored
        assert scored is not None
        evidence = [self._evidence(one, each) for each in walk.evidence]
        known = [each for each in evidence if each is not None]
        text = self.lm.prompts.text(row, walk.answer)
        ids = list(dict.fromkeys(each.doc_id for each in known))
        return Reply(
            Answer(extracted(text).removesuffix("."), tuple(known)),
            tuple(self._hits(one, ids, k)),
            raw=self._raw(one, known, text),
            read=tuple(ids),
            counts={
                **written.counts,
                **({"not_in_file": 1} if self._unknown(one.query) else {}),
                "scored_tokens": scored.tokens,
                "clues": len(walk.said),
                "evidences": len(walk.evidence),
            },
            stop="length" if walk.cut else written.stop,
            extras={
                "clues": [self.script.say(each) for each in walk.said],
                **({"windows": [list(each) for each in scored.windows]} if self.judges else {}),
            },
        )

    def _unknown(self, query: Query) -> bool:
        """Whether the file of rankings does not have the question."""
        return isinstance(self.expander, Outside) and query.id not in self.ranked

    def _raw(self, one: Pass, evidence: Sequence[Evidence], answer: str) -> str:
        """All that was written, as text."""
        clue, end_clue, sep, begin, end = SIGNS
        clues = sep.join(self.script.say(each) for each in one.walk.said)
        said = [self.script.say(each.ids) for each in one.walk.evidence]
        for place, each in enumerate(evidence):
            said[place] = self.corpus[each.doc_id].text[slice(*each.span or (0, 0))]
        return f"{clue}{clues}{end_clue}{begin}{sep.join(said)}{end}{answer}"

    def _evidence(self, one: Pass, found: Found) -> Evidence | None:
        """Where an evidence stands in its document, in characters."""
        if found.document is None:
            return None
        document = self.corpus[one.shelf.number(found.document)]
        return Evidence(document.id, span=self._characters(document, found.place, len(found.ids)))

    def _hits(self, one: Pass, first: Sequence[str], k: int) -> list[Hit]:
        assert one.scored is not None
        numbers = [one.shelf.number(each) for each in one.scored.documents]
        more = self.corpus.ids_at(np.array(numbers, np.int64))
        rest = sorted(one.query.pool or ())
        order = list(dict.fromkeys([*first, *more, *rest]))
        return [Hit(doc_id, float(-rank)) for rank, doc_id in enumerate(order[:k], 1)]

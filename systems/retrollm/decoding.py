"""RetroLLM's decoding: what may be written next, and what that is worth.

Each question goes through three stages. A clue is an n-gram of the corpus. An evidence is a run of
tokens of a candidate document, and the score of a token t that continues it is adjusted by what is
ahead (Eq. 12):

    l(t) + λ max S_w(w)   over the windows w that hold a place where t would continue the prefix

The answer is free. The paper leaves open when an evidence may end and what stops it from being
written again: here a closing sign may follow the end of a sentence, with the best bonus at hand
(with λ = 100 nothing would ever be closed otherwise), and the places of an evidence are spent.

`Walk` is one question's way; `Guide` steers a batch, as a hook of `CausalLM.generate`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from systems.models.prompts import Prompts, Rendered
from systems.models.words import NEW
from systems.retrollm.form import Form
from systems.retrollm.ngrams import Ngrams
from systems.retrollm.texts import WordScript
from systems.retrollm.windows import BORDER, Places, Text, Window, bonus, least

Mode = Literal["paper", "released"]
Clues = Literal["corpus", "free", "none"]
Constraint = Literal["documents", "corpus", "none"]
Starts = Literal["sentence", "any"]
SIGNS_LEFT = 4
"""Signs for which there has to be room, to come to an answer from anywhere."""
NOTHING: Places = np.zeros(0, np.int64)
MANY = 64
"""Words that are not known, of which a model with open words is given so many at a time."""


@dataclass(frozen=True)
class Rules:
    """How a pass goes.

    mode:       ``paper``, or the order of windows as in the released code
    lookahead:  λ
    clues:      n-grams of the ``corpus``, ``free`` text, or ``none``
    constraint: of evidence: candidate ``documents``, the whole ``corpus``, or ``none``
    starts:     where an evidence may begin: at a ``sentence``, or at ``any`` token (the paper)
    most_clues, clue_tokens: of a question, of a clue
    evidences, evidence_tokens: of a question, of an evidence
    again:      times that clues may be written again behind evidence (not of the paper)
    shortest:   tokens from which an evidence may be closed in ``released``
    answer_tokens: of an answer
    """

    mode: Mode = "paper"
    lookahead: float = 100.0
    clues: Clues = "corpus"
    constraint: Constraint = "documents"
    starts: Starts = "sentence"
    most_clues: int = 5
    clue_tokens: int = 7
    evidences: int = 5
    evidence_tokens: int = 160
    again: int = 0
    shortest: int = 64
    answer_tokens: int = 32

    @property
    def most_tokens(self) -> int:
        """Tokens of a whole pass."""
        clues = (self.again + 1) * (self.most_clues * (self.clue_tokens + 1) + 3)
        return clues + self.evidences * (self.evidence_tokens + 1) + self.answer_tokens + 32


class Sources(NamedTuple):
    """What the evidence of one question may come from.

    documents: the candidates, or all; ``text``: of them
    windows:   and ``scores``, S_w of each
    """

    documents: Sequence[int]
    text: Text
    windows: Sequence[Window] = ()
    scores: Sequence[float] = ()


class Found(NamedTuple):
    """An evidence: its ids, and the document and the place in its text where it stands, if it
    does."""

    ids: tuple[int, ...]
    document: int | None = None
    place: int = 0


class Options(NamedTuple):
    """What may come next.

    ids:    of the corpus, in order, and the ``bonus`` of each
    signs:  of the model, with one bonus for all
    free:   anything but signs may come as well
    unread: words that were not read may come; at the beginning of a clue they say nothing
    last:   the sign that comes if a model with open words can say none of all that
    """

    ids: Places
    bonus: npt.NDArray[np.float64]
    signs: Sequence[int] = ()
    sign_bonus: float = 0.0
    free: bool = False
    unread: bool = True
    last: int = 0


def only(*signs: int) -> Options:
    """Nothing but one of these may come."""
    return Options(NOTHING, np.zeros(0), signs)


class Walk:
    """One question's way through the stages.

    ngrams:  of what clues are taken from
    clues:   those since its last evidence; evidence, answer: what was written so far
    said:    all clues
    sources: of its evidence, once it has them
    room:    tokens before its answer, at most
    """

    def __init__(self, rules: Rules, form: Form, ngrams: Ngrams, room: float = inf) -> None:
        self.rules, self.form, self.ngrams = rules, form, ngrams
        self.room = room
        self.stage: Literal["clue", "evidence", "between", "answer"] = "clue"
        self.forced = deque([form.clue])
        if rules.clues == "none":
            self.forced.append(form.end_clue)
        self.clues: list[tuple[int, ...]] = []
        self.said: list[tuple[int, ...]] = []
        self.again = rules.again
        self.evidence: list[Found] = []
        self.answer: list[int] = []
        self.sources: Sources | None = None
        self._prefix = ngrams.prefix(())
        self._written: list[int] = []
        self._live = NOTHING

    # --- clues ------------------------------------------------------------------------

    @property
    def cut(self) -> bool:
        """Whether its answer is as long as one may be."""
        return len(self.answer) >= self.rules.answer_tokens

    @property
    def waiting(self) -> bool:
        """Its clues are written, and it is to be given `sources`."""
        return self.stage == "evidence" and self.sources is None

    def options(self) -> Options:
        """What may come next."""
        if self.forced:
            return only(self.forced[0])
        if self.stage == "clue":
            return self._clue_options()
        if self.stage == "evidence":
            return self._evidence_options()
        if self.stage == "between":
            more = [self.form.clue] if self.room > SIGNS_LEFT else []
            return only(*more, self.form.lead[0])
        if self.cut:
            return only(*self.form.end[:1])
        return Options(NOTHING, np.zeros(0), self.form.end[:1], free=True)

    def write(self, sign: int, token: int) -> None:
        """Note what came: an id of the model, and of the corpus (-1: it has none)."""
        self.room -= 1
        if self.forced:
            self.forced.popleft()
            if sign == self.form.end_clue:
                self._end_clues()
            return
        if self.stage == "clue":
            self._write_clue(sign, token)
        elif self.stage == "evidence":
            self._write_evidence(sign, token)
        elif self.stage == "between":
            self._go_on(sign)
        elif sign not in self.form.end:
            self.answer.append(sign)

    def _clue_options(self) -> Options:
        size, form = len(self._written), self.form
        if self.room <= SIGNS_LEFT:
            return only(form.end_clue)
        close = [form.end_clue] if size else []
        if size and len(self.clues) + 1 < self.rules.most_clues:
            close.append(form.sep)
        if size >= self.rules.clue_tokens:
            return only(*close)
        if self.rules.clues == "free":
            return Options(NOTHING, np.zeros(0), close, free=True)
        ids = self.ngrams.following(self._prefix).ids.astype(np.int64)
        return Options(ids, np.zeros(len(ids)), close, unread=size > 0, last=form.end_clue)

    def _write_clue(self, sign: int, token: int) -> None:
        if sign not in (self.form.sep, self.form.end_clue):
            self._written.append(token)
            self._prefix = self.ngrams.longer(self._prefix, token)
            return
        if self._written:
            self.clues.append(tuple(self._written))
            self.said.append(self.clues[-1])
        self._written, self._prefix = [], self.ngrams.prefix(())
        if sign == self.form.end_clue:
            self._end_clues()

    def _end_clues(self) -> None:
        self.stage = "evidence"
        self.forced.append(self.form.evidence)

    # --- evidence ---------------------------------------------------------------------

    def begin(self, sources: Sources) -> None:
        """Take the sources; evidence can be written now."""
        self.sources = sources
        size = len(sources.text.ids)
        self._spent = np.zeros(size, bool)
        self._bonus = bonus(size, sources.windows, sources.scores)
        self._least, self._before = least(sources.scores), len(self.evidence)
        for each in self.evidence:
            if each.document in sources.documents:
                start = sources.text.starts[sources.documents.index(each.document)] + each.place
                self._spend([int(start)], len(each.ids))
        order = np.argsort(-np.array(sources.scores), kind="stable").tolist()
        self._best = [sources.windows[place] for place in order]
        self._start_evidence()

    def _start_evidence(self) -> None:
        """All places where the next evidence may start."""
        assert self.sources is not None
        text = self.sources.text
        self._written = []
        free = (text.ids != BORDER) & ~self._spent
        if self.rules.mode == "released" and self.rules.constraint == "documents":
            inside = np.zeros(len(text.ids), bool)
            if (number := len(self.evidence) - self._before) < len(self._best):
                start, end = self._best[number]
                inside[start : start + max(1, (end - start) // 5)] = True
            free &= inside
        elif self.rules.starts == "sentence":
            free &= text.begins
        self._live = np.flatnonzero(free)

    def _evidence_options(self) -> Options:
        assert self.sources is not None
        size, form, text = len(self._written), self.form, self.sources.text
        if self.room <= SIGNS_LEFT:
            return only(form.end_evidence)
        close = [form.end_evidence]
        if len(self.evidence) + 1 < self.rules.evidences:
            close.append(form.sep)
        if self.rules.constraint == "none":
            if size >= self.rules.evidence_tokens:
                return only(*close)
            return Options(NOTHING, np.zeros(0), close if size else (), free=True)
        here = self._live[~self._spent[self._live]]
        here = here[text.ids[here] != BORDER]
        if size >= self.rules.evidence_tokens:
            here = NOTHING
        ids, which = np.unique(text.ids[here], return_inverse=True)
        worth = np.zeros(len(ids))
        if self.rules.mode == "paper" and self.rules.lookahead:
            worth = np.full(len(ids), -np.inf)
            np.maximum.at(worth, which, self._bonus[here])
            worth *= self.rules.lookahead
        if not len(ids):
            return only(*(close if size else close[:1]))
        if not self._may_close():
            return Options(ids, worth, last=form.end_evidence)
        return Options(ids, worth, close, float(worth.max()))

    def _may_close(self) -> bool:
        """Whether what is written ends a sentence; in ``released``, is long enough."""
        assert self.sources is not None
        if not self._written:
            return False
        if self.rules.mode == "released":
            return len(self._written) >= self.rules.shortest
        return bool(self.sources.text.ends[self._live - 1].any())

    def _write_evidence(self, sign: int, token: int) -> None:
        assert self.sources is not None
        if sign in (self.form.sep, self.form.end_evidence):
            self._end_evidence()
            if sign == self.form.sep:
                self._start_evidence()
            elif self.again and len(self.evidence) < self.rules.evidences:
                self.stage = "between"
            else:
                self.stage = "answer"
                self.forced.extend(self.form.lead)
            return
        self._written.append(token)
        if self.rules.constraint != "none":
            same = self.sources.text.ids[self._live] == token
            self._live = self._live[same & ~self._spent[self._live]] + 1

    def _end_evidence(self) -> None:
        """Note the evidence that is written; its places are spent."""
        size = len(self._written)
        if not size:
            return
        if self.rules.constraint == "none":
            self.evidence.append(Found(tuple(self._written)))
            return
        assert self.sources is not None
        starts = self._live - size
        ended = self.sources.text.ends[self._live - 1]
        chosen = starts[ended] if ended.any() else starts
        worth = [float(self._bonus[start : start + size].max()) for start in chosen.tolist()]
        which, place = self.sources.text.place(int(chosen[int(np.argmax(worth))]))
        self.evidence.append(Found(tuple(self._written), self.sources.documents[which], place))
        self._spend(starts.tolist(), size)

    def _spend(self, starts: Sequence[int], size: int) -> None:
        """Take places out of what may still be evidence."""
        for start in starts:
            self._spent[start : start + size] = True
            self._bonus[start : start + size] = self._least

    # --- behind evidence --------------------------------------------------------------

    def _go_on(self, sign: int) -> None:
        """Look for more, or answer."""
        if sign == self.form.clue:
            self.stage, self.clues, self.sources = "clue", [], None
            self._written, self._prefix = [], self.ngrams.prefix(())
            self.again -= 1
        else:
            self.stage = "answer"
            self.forced.extend(self.form.lead[1:])


class Speech:
    """The ids of one prompt's text for those of the corpus. With open words they differ, and a word
    that was not read has to be given before it can be said."""

    def __init__(self, script: Any, row: Rendered | None) -> None:
        self.script = script if isinstance(script, WordScript) else None
        self.row = row
        self.known = len(script.words) if isinstance(script, WordScript) else 0
        slots = row.lexicon.slots if row is not None and row.lexicon is not None else {}
        self.read = {self.known + slot for slot in slots.values()}

    def give(self, options: Options) -> None:
        """Let the words that may come be said, `MANY` at most, those of the best bonus first."""
        if self.script is None or not options.unread:
            return
        assert self.row is not None and self.row.lexicon is not None
        open_ = options.ids >= self.known
        best = np.sort(np.argsort(-options.bonus[open_], kind="stable")[:MANY])
        for each in options.ids[open_][best].tolist():
            self.row.lexicon.read(self.script.word(each))

    def said(self, ids: Places) -> tuple[Places, Places, npt.NDArray[np.bool_]]:
        """Those of the corpus' ids that can be said, as what, and whether each was read."""
        if self.script is None:
            return ids, ids, np.ones(len(ids), bool)
        assert self.row is not None and self.row.lexicon is not None
        plain, slots = ids[ids < self.known], self.row.lexicon.slots
        own = {
            self.script.ids[word]: slot for word, slot in slots.items() if word in self.script.ids
        }
        more = np.intersect1d(ids[ids >= self.known], np.array(list(own), np.int64))
        as_slots = [self.known + own[each] for each in more.tolist()]
        read = [True] * len(plain) + [each in self.read for each in as_slots]
        said = np.concatenate([plain, np.array(as_slots, np.int64)])
        return np.concatenate([plain, more]), said, np.array(read, bool)

    def of(self, written: int) -> int:
        """The corpus' id of what was written, -1 if it has none."""
        if self.script is None or written < self.known:
            return written
        assert self.row is not None and self.row.lexicon is not None
        self.read.add(written)
        word = list(self.row.lexicon.slots)[written - self.known]
        found: int = self.script.ids.get(word, -1)
        return found

    def unread(self, size: int) -> list[int]:
        """Which of ``size`` ids were given but never read."""
        if self.script is None:
            return []
        return [each for each in range(self.known, size) if each not in self.read]


class Guide:
    """Steers the passes of a batch: a hook of `CausalLM.generate`.

    prompts: how the model reads and writes
    begin:   gives sources to the walks (by place) whose clues are written
    """

    def __init__(
        self,
        walks: Sequence[Walk],
        script: Any,
        prompts: Prompts,
        begin: Callable[[Sequence[int]], None],
    ) -> None:
        self.walks, self.script, self.begin = walks, script, begin
        self.ends, self.shut = set(prompts.ends), {*prompts.ends, *prompts.forbidden}
        self.done = [0] * len(walks)
        self.speech: list[Speech] = []
        self.options: list[Options | None] = []

    def prepare(self, rows: Sequence[Rendered], written: Sequence[Sequence[int]]) -> None:
        """Follow what was written, and give what may come next to models with open words."""
        if not self.speech:
            self.speech = [Speech(self.script, row) for row in rows]
        self._follow(written)
        for speech, options in zip(self.speech, self.options, strict=True):
            if options is not None:
                speech.give(options)

    def __call__(self, written: Sequence[Sequence[int]], scores: Any) -> Any:
        if not self.speech:
            self.speech = [Speech(self.script, None) for _ in self.walks]
        if not self.options:
            self._follow(written)
        for place, options in enumerate(self.options):
            if options is not None:
                scores[place] = self._adjusted(place, options, scores[place])
        self.options = []
        return scores

    def _follow(self, written: Sequence[Sequence[int]]) -> None:
        """Bring the walks up to what was written, and see what may come next in each."""
        for place, ids in enumerate(written):
            for each in ids[self.done[place] :]:
                self.walks[place].write(each, self.speech[place].of(each))
            self.done[place] = len(ids)
        waiting = [place for place, walk in enumerate(self.walks) if walk.waiting]
        if waiting:
            self.begin(waiting)
        self.options = [
            None if ids and ids[-1] in self.ends else walk.options()
            for walk, ids in zip(self.walks, written, strict=True)
        ]

    def _adjusted(self, place: int, options: Options, scores: Any) -> Any:
        """The scores (ids,) of one prompt: -inf for what may not come."""
        speech, form = self.speech[place], self.walks[place].form
        if options.free:
            found = scores.clone()
            shut = {*form.signs, *self.shut} - set(options.signs)
            found[[*shut, *speech.unread(len(scores))]] = -np.inf
            return found
        found = scores.new_full(scores.shape, -np.inf)
        ids, said, read = speech.said(options.ids)
        worth = options.bonus[np.searchsorted(options.ids, ids)]
        values = scores[said.tolist()].double().cpu().numpy()
        if not read.all():  # what was not read shares what a new word is worth
            share = np.log(np.count_nonzero(~read) + len(options.ids) - len(ids))
            values[~read] = float(scores[NEW]) - share
        found[said.tolist()] = scores.new_tensor(values + worth)
        for sign in options.signs or ([] if len(said) else [options.last]):
            found[sign] = scores[sign] + options.sign_bonus
        return found

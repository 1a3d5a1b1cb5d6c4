"""The mini world asked in the five official row shapes, through the same parsers as real data.

From 1000 documents on, each task has one row of the odd sort that its parser meets in real files.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.contract import Setting, Task
from harness.data import Document, Explained, HarnessError, Lesson, Loaded, RawQuestion
from harness.score.msmarco import NO_ANSWER
from harness.score.normalise import triviaqa_normal
from tasks import shapes
from tasks.hotpotqa import HotpotQA
from tasks.mini import mining, words
from tasks.mini.judge import MiniJudge
from tasks.mini.lessons import DOCUMENTS, Lessons
from tasks.mini.questions import Question, questions
from tasks.mini.world import ODD, VERSION, Draws, Entity, Passage, Profile, World
from tasks.msmarco import MSMarcoQA
from tasks.musique import MuSiQue
from tasks.triviaqa import WORDS, TriviaQA, TriviaQALong
from tasks.twowiki import TwoWiki

BYTES = 512
"""Of chance, enough for a lesson of twenty passages."""
PAGES, ON_PAGE = 4, 16
"""Long pages of a question, and passages on each."""
ALIASES = "_aliases"
"""Where a 2Wiki-shaped row holds what stands in a file of its own in the real data."""


class Mini(Task):
    """What the mini tasks share.

    documents:   of the world; questions: asked
    profile:     ``standard`` (10 candidates), ``hard`` (20, near twins and nicknames), ``shift``
                 (10, in syllables, wordings and compositions that train never has)
    comparisons: whether tasks whose original has them ask comparisons and yes or no, too; the
                 shipped readers answer these at chance, so that otherwise there is one of each
    """

    kinds: tuple[str, ...]
    choices: tuple[str, ...] = ()
    """Kinds of question that have two possible answers, if its shape has them."""
    names = False
    """Only names are asked for, no years, trades or genres."""
    size: int | None = None
    """Candidates in every profile."""
    splits: tuple[str, ...] = ("test", "dev", "train")
    group_by = "documents"
    max_new_tokens = 16
    licence = "generated, as free as the harness"
    citation = ""
    version = VERSION
    offline = True
    generated = True
    question: Any

    def __init__(
        self,
        documents: int = 2000,
        questions: int = 200,
        seed: int = 0,
        profile: Profile = "standard",
        comparisons: bool = False,
    ) -> None:
        self.documents, self.questions, self.seed = documents, questions, seed
        self.comparisons = comparisons
        self.profile: Profile = profile
        self._taught: tuple[str, Lessons] | None = None

    def files(self, source: Path | None, split: str) -> list[Path]:  # noqa: ARG002
        """None: everything is generated."""
        return []

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Generate the split's world; see `Task.load`."""
        if source is not None:
            raise HarnessError("a mini task is generated from its seed.", "Leave --from out.")
        world = World(self.documents, self.seed, split, self.profile)
        rows = enumerate(self.rows(world), 1)
        loaded = shapes.pooled(((f"mini row {n}", row) for n, row in rows), self.parse, limit)
        loaded.documents = (each for passage in world for each in self.cut(passage))
        return loaded

    def known_words(self) -> Sequence[str]:
        """The words of the train split that are not names; see `Teacher`."""
        return words.TRAINED

    def lesson(
        self, world: str, rng: random.Random, size: int, kinds: Mapping[str, float]
    ) -> Lesson:
        """A lesson of the train world of that name; see `Teacher` and `Lessons`."""
        if self._taught is None or self._taught[0] != world:
            made = World(DOCUMENTS, world, "train", self.profile)
            self._taught = world, Lessons(made)
        return self._taught[1].lesson(Draws(rng.randbytes(BYTES)), size, kinds)

    def rows(self, world: World) -> Iterator[dict[str, Any]]:
        """The questions as rows of the real task's files, the odd one first."""
        asked, odd = self._with_odd(world), world.documents >= ODD
        pools = mining.pools(world, asked, self.size or (20 if self.profile == "hard" else 10))
        for number, (question, pool) in enumerate(zip(asked, pools, strict=True)):
            passages = [world.passage(each) for each in pool]
            row = self.row(world, question, passages)
            yield self.oddly(row) if odd and number == 0 else row

    def _with_odd(self, world: World) -> list[Question]:
        """What is asked, the odd one and one of each choice among it."""
        asked = self._asked(world)
        if world.documents >= ODD:
            asked[0] = self.odd(world, asked[0])
            for place, kind in enumerate(self.choices[: len(asked) - 1], 1):
                asked[place] = next(questions(world, (kind,), 1, self.name))
        return asked

    def judge(self, split: str) -> MiniJudge:
        """The exact judge of a split's questions."""
        world = World(self.documents, self.seed, split, self.profile)
        asked = self._with_odd(world)
        return MiniJudge(world, {each.text: (each, self.accepted(each)) for each in asked})

    def accepted(self, question: Question) -> tuple[str, ...]:
        """The answers to a question that count as right."""
        return (question.answer, *question.aliases)

    def _asked(self, world: World) -> list[Question]:
        kinds = (*self.kinds, *self.choices) if self.comparisons else self.kinds
        return list(questions(world, kinds, self.questions, self.name, self.names))

    def explained(self, split: str) -> dict[str, Explained]:
        """Clues and evidence of the questions that are chains of facts, by their text."""
        world = World(self.documents, self.seed, split, self.profile)
        chains = ("single", "bridge", "composed")
        asked = (each for each in self._asked(world) if each.kind in chains)
        return {each.text: explained(world, each) for each in asked}

    def odd(self, world: World, question: Question) -> Question:  # noqa: ARG002
        """The question of the odd row, in place of this one."""
        return question

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        """One question in the real task's shape."""
        raise NotImplementedError

    def oddly(self, row: dict[str, Any]) -> dict[str, Any]:
        """The odd row."""
        return row

    def parse(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion | None:
        """The real task's parser."""
        found: RawQuestion | None = self.question(row, place, notes)
        return found

    def cut(self, passage: Passage) -> Iterator[Document]:
        """The documents that the real task's parser makes of a passage."""
        yield Document("", passage.text, passage.title)


def _spaced(passage: Passage) -> tuple[str, ...]:
    """Sentences that carry the space before them."""
    return tuple(f" {each}" if n else each for n, each in enumerate(passage.sentences))


def explained(world: World, question: Question) -> Explained:
    """The clues of a chain are what it calls its subject, and of each relation one of the ways in
    which passages say it, drawn without a look at them: the question determines no other. Its
    evidence: the sentence that gives a nickname, if it uses one, and that of each step."""
    draws, subject = world.draws(f"clues {question.id}"), question.steps[0].subject
    alias = world.alias(subject)
    nicknamed = alias.lower() in mining.terms(question.text)
    clues, evidence = [alias if nicknamed else world.name(subject)], []
    for fact in question.steps:
        said = words.RELATIONS[fact.relation]
        told = draws.pick(
            said.shifted_told + said.shifted_turned if world.shift else said.told + said.turned
        )
        clues.append(max(re.split(r"\{\w\}", told), key=len).strip())
        passage = world.passage(world.told_in(fact))
        if nicknamed and fact is question.steps[0] and passage.aliased is not None:
            evidence.append(passage.sentences[passage.aliased])
        evidence.append(passage.sentences[passage.facts.index(fact)])
    bridges = tuple(world.name(fact.subject) for fact in question.steps[1:])
    return Explained(tuple(clues), tuple(dict.fromkeys(evidence)), bridges)


def _facts(world: World, question: Question) -> list[list[Any]]:
    """(title, sentence) of each step, and of the alias where the question uses it."""
    facts = []
    for fact in question.steps:
        passage = world.passage(world.told_in(fact))
        facts.append([passage.title, passage.facts.index(fact)])
        alias = world.alias(fact.subject).lower()
        if alias in mining.terms(question.text) and passage.aliased != facts[-1][1]:
            facts.append([passage.title, passage.aliased])
    return facts


class MiniHotpotQA(Mini, HotpotQA):
    """Generated: bridge questions, comparisons and yes or no in HotpotQA's shape."""

    name = "mini-hotpotqa"
    kinds = ("bridge",)
    choices = ("comparison", "yesno")

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        return {
            "_id": question.id,
            "question": question.text,
            "answer": question.answer,
            "type": "bridge" if question.kind == "bridge" else "comparison",
            "level": "hard",
            "supporting_facts": _facts(world, question),
            "context": [[passage.title, list(_spaced(passage))] for passage in pool],
        }

    def oddly(self, row: dict[str, Any]) -> dict[str, Any]:
        """A supporting fact names a sentence that its paragraph does not have."""
        return {**row, "supporting_facts": [*row["supporting_facts"], [row["context"][0][0], 99]]}

    def cut(self, passage: Passage) -> Iterator[Document]:
        yield Document("", passage.text, passage.title, _spaced(passage))


class MiniTwoWiki(Mini, TwoWiki):
    """Generated: chains of two to four facts, comparisons and yes or no in 2WikiMultihopQA's
    shape."""

    name = "mini-2wikimultihopqa"
    kinds = ("bridge", "composed")
    choices = ("comparison", "yesno")
    cut = MiniHotpotQA.cut

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        facts = question.steps
        chain = question.kind in ("bridge", "composed")
        identifier = None if question.kind == "yesno" else facts[0].subject
        if chain:
            identifier = facts[-1].object
        aliases = {
            _identifier(entity): (world.name(entity), alias)
            for fact in facts
            for entity in (fact.subject, fact.object)
            if (alias := world.alias(entity))
        }
        return {
            "_id": question.id,
            "type": "compositional" if chain else "comparison",
            "question": question.text,
            "context": [[passage.title, list(passage.sentences)] for passage in pool],
            "supporting_facts": _facts(world, question),
            "evidences": [[world.name(s), by, world.name(o)] for s, by, o in facts],
            "answer": question.answer,
            "evidences_id": [[_identifier(s), by, _identifier(o)] for s, by, o in facts],
            "answer_id": _identifier(identifier) if identifier else None,
            ALIASES: aliases,
        }

    def oddly(self, row: dict[str, Any]) -> dict[str, Any]:
        """Without Wikidata ids, as in the first release."""
        return {key: value for key, value in row.items() if not key.endswith("s_id")}

    def parse(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion | None:
        plain = dict(row)
        aliases = plain.pop(ALIASES)
        return self.question(plain, place, notes, aliases=aliases)  # type: ignore[no-any-return]


def _identifier(entity: Entity) -> str:
    return f"Q-{entity.kind}-{entity.number}"


class MiniMuSiQue(Mini, MuSiQue):
    """Generated: questions of two to four hops over twenty passages in MuSiQue's shape."""

    name = "mini-musique"
    kinds: tuple[str, ...] = ("bridge", "composed")
    size: int | None = 20

    def rows(self, world: World) -> Iterator[dict[str, Any]]:
        """The last one is the twin of the first, without the passage that has the answer."""
        rows = list(super().rows(world))
        if world.documents >= ODD and len(rows) > 1:
            rows[-1] = _twin(rows[0], rows[1])
        return iter(rows)

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        support = {world.told_in(fact) for fact in question.steps}
        return {
            "id": f"{len(question.steps)}hop__{question.id}",
            "paragraphs": [
                {
                    "idx": number,
                    "title": passage.title,
                    "paragraph_text": passage.text,
                    "is_supporting": passage.number in support,
                }
                for number, passage in enumerate(pool)
            ],
            "question": question.text,
            "question_decomposition": [],
            "answer": question.answer,
            "answer_aliases": list(question.aliases),
            "answerable": True,
        }


def _twin(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A row that is not answerable: a passage of another one in the place of the answer's."""
    lost = next(
        each
        for each in row["paragraphs"]
        if row["answer"] in each["paragraph_text"] and each["is_supporting"]
    )
    held = [each["paragraph_text"] for each in row["paragraphs"]]
    new = next(
        each
        for each in other["paragraphs"]
        if each["paragraph_text"] not in held and not each["is_supporting"]
    )
    paragraphs = [
        {**(new if each is lost else each), "idx": each["idx"]} for each in row["paragraphs"]
    ]
    return {**row, "paragraphs": paragraphs, "answerable": False}


Opening = Literal["at", "by", "for", "from", "in", "of", "to", "with"]
Closing = Literal["also", "first", "much", "one"]


class MiniForms(MiniMuSiQue):
    """Generated: one-hop questions in MuSiQue's shape, whose answers have to begin and to end with
    a certain word. Neither question nor instruction tells which: only demonstrations do.

    opens, closes: the two words; each pair has questions of its own on the same world
    """

    name = "mini-forms"
    kinds = ("single",)
    size = None

    def __init__(
        self,
        opens: Opening = "at",
        closes: Closing = "also",
        documents: int = 2000,
        questions: int = 200,
        seed: int = 0,
        profile: Profile = "standard",
    ) -> None:
        super().__init__(documents, questions, seed, profile)
        self.opens, self.closes = opens, closes

    def _asked(self, world: World) -> list[Question]:
        about = f"{self.name} {self.opens} {self.closes}"
        return list(questions(world, self.kinds, self.questions, about))

    def rows(self, world: World) -> Iterator[dict[str, Any]]:
        """None of them is odd, and the last one is no twin."""
        return Mini.rows(self, world)

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        found = super().row(world, question, pool)
        found["answer"] = self._formed(found["answer"])
        found["answer_aliases"] = [self._formed(each) for each in found["answer_aliases"]]
        return found

    def accepted(self, question: Question) -> tuple[str, ...]:
        return tuple(map(self._formed, super().accepted(question)))

    def _formed(self, answer: str) -> str:
        return f"{self.opens} {answer} {self.closes}"


class MiniTriviaQA(Mini, TriviaQA):
    """Generated: one-hop questions in TriviaQA's shape; a passage is relevant by its words."""

    name = "mini-triviaqa"
    kinds = ("single",)
    names = True

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:  # noqa: ARG002
        aliases = [question.answer, *question.aliases]
        return {
            "question": question.text,
            "question_id": question.id,
            "question_source": "",
            "entity_pages": {
                "doc_source": [""] * len(pool),
                "filename": [f"{passage.number}.txt" for passage in pool],
                "title": [passage.title for passage in pool],
                "wiki_context": [passage.text for passage in pool],
            },
            "search_results": {"title": [], "search_context": []},
            "answer": {
                "value": question.answer,
                "aliases": aliases,
                "normalized_aliases": list(map(triviaqa_normal, aliases)),
            },
        }

    def oddly(self, row: dict[str, Any]) -> dict[str, Any]:
        """With a web page of which nothing was kept."""
        return {**row, "search_results": {"title": ["Not found"], "search_context": [" "]}}

    def cut(self, passage: Passage) -> Iterator[Document]:
        found = passage.text.split()
        for start in range(0, len(found), WORDS):
            yield Document("", " ".join(found[start : start + WORDS]), passage.title)


class MiniTriviaQALong(MiniTriviaQA, TriviaQALong):
    """Generated: the same questions over a few long pages, in each of which one of the candidates
    stands among passages that have nothing to do with it."""

    name = "mini-triviaqa-long"
    settings: tuple[Setting, ...] = ("pool",)
    ranking_metrics = ("nDCG@10", "R@1", "R@2", "RR@10", "AP")

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Its documents are the pages of its questions; see `Task.load`."""
        loaded = super().load(source, split, limit)
        loaded.documents = ()
        return loaded

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:
        draws = world.draws(f"pages {question.id}")
        found = super().row(world, question, pool)
        numbers = [place for place, each in enumerate(pool) if each.number in question.gold]
        numbers += [place for place in range(len(pool)) if place not in numbers]
        kept = draws.some(numbers[:PAGES], PAGES)
        said = {question.answer, *question.aliases}
        pages = found["entity_pages"]
        texts = [self._page(world, pool[place], said, draws) for place in kept]
        for column, values in pages.items():
            pages[column] = [values[place] for place in kept]
        pages["wiki_context"] = texts
        return found

    def _page(self, world: World, passage: Passage, said: set[str], draws: Draws) -> str:
        """A passage at a drawn place among others of its world that do not name the answer."""
        others: list[str] = []
        while len(others) < ON_PAGE - 1:
            text = world.passage(draws.below(world.asked)).text
            others += [text] if not any(each in text for each in said) else []
        place = draws.below(ON_PAGE)
        return " ".join([*others[:place], passage.text, *others[place:]])


class MiniMSMarco(Mini, MSMarcoQA):
    """Generated: one-hop questions in MS MARCO's shape, passages without titles."""

    name = "mini-msmarco"
    kinds = ("single",)

    def odd(self, world: World, question: Question) -> Question:  # noqa: ARG002
        """A question that people selected a passage for which does not answer it."""
        return next(questions(world, ("unanswerable",), 1, self.name))

    def row(self, world: World, question: Question, pool: list[Passage]) -> dict[str, Any]:  # noqa: ARG002
        selected = mining.held_by(question)
        return {
            "query_id": int(question.id, 16),
            "query": question.text,
            "query_type": "entity",
            "passages": {
                "is_selected": [int(passage.number in selected) for passage in pool],
                "passage_text": [passage.text for passage in pool],
                "url": [""] * len(pool),
            },
            "answers": [question.answer or NO_ANSWER],
            "wellFormedAnswers": [] if question.answer else "[]",
        }

    def cut(self, passage: Passage) -> Iterator[Document]:
        yield Document("", passage.text)

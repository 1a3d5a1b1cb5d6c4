"""The mini world asked in the five official row shapes, through the same parsers as real data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.contract import Task
from harness.data import Document, HarnessError, Loaded, RawQuestion
from harness.score.normalise import triviaqa_normal
from tasks import shapes
from tasks.hotpotqa import HotpotQA
from tasks.mini.world import VERSION, Passage, Question, World, words_of
from tasks.msmarco import MSMarcoQA
from tasks.musique import MuSiQue
from tasks.triviaqa import TriviaQA
from tasks.twowiki import TwoWiki


class Mini(Task):
    """What the mini tasks share: ``documents`` of the world, ``questions`` asked, ``seed``."""

    kinds: tuple[str, ...] = ("bridge", "comparison")
    size: int = 10
    splits: tuple[str, ...] = ("test", "train")
    group_by = "documents"
    licence = "generated, as free as the harness"
    citation = ""
    version = VERSION
    offline = True
    generated = True
    question: Any

    def __init__(self, documents: int = 2000, questions: int = 200, seed: int = 0) -> None:
        self.documents, self.questions, self.seed = documents, questions, seed

    def files(self, source: Path | None, split: str) -> list[Path]:  # noqa: ARG002
        """None: everything is generated."""
        return []

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        """Generate the split's world; see `Task.load`."""
        if source is not None:
            raise HarnessError("a mini task is generated from its seed.", "Leave --from out.")
        world = World(self.documents, self.seed, split)
        self.aliases = {each.id: (each.alias,) for each in world.entities if each.alias}
        rows = enumerate(self.rows(world), 1)
        loaded = shapes.pooled(((f"mini row {n}", row) for n, row in rows), self.parse, limit)
        loaded.documents = map(self.document, world.passages)
        return loaded

    def rows(self, world: World) -> Iterator[dict[str, Any]]:
        """The questions as rows of the real task's files."""
        for question in world.questions(self.kinds, self.questions, self.name):
            yield self.row(question, world.pool(question, self.size))

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        """One question in the real task's shape."""
        raise NotImplementedError

    def parse(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion | None:
        """The real task's parser."""
        found: RawQuestion | None = self.question(row, place, notes)
        return found

    def document(self, passage: Passage) -> Document:
        """A passage of the world, as the real task's parser makes it."""
        return Document("", " ".join(passage.sentences), passage.title)


def _spaced(passage: Passage) -> list[str]:
    """Sentences that carry the space before them."""
    return [f" {each}" if number else each for number, each in enumerate(passage.sentences)]


def _facts(question: Question) -> list[list[Any]]:
    """(title, sentence) of each step, and of the alias where the question uses it."""
    facts = []
    for subject, relation in question.steps:
        passage = subject.told[relation]
        if subject.alias and subject.alias.lower() in words_of(question.text):
            facts.append([passage.title, 0])
        facts.append([passage.title, passage.stated.index(relation)])
    return facts


class MiniHotpotQA(Mini, HotpotQA):
    """Generated: bridge and comparison questions in HotpotQA's shape."""

    name = "mini-hotpotqa"

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        return {
            "_id": question.id,
            "question": question.text,
            "answer": question.answer,
            "type": question.kind,
            "level": "hard",
            "supporting_facts": _facts(question),
            "context": [[passage.title, _spaced(passage)] for passage in pool],
        }

    def document(self, passage: Passage) -> Document:
        return Document("", " ".join(passage.sentences), passage.title, tuple(_spaced(passage)))


class MiniTwoWiki(Mini, TwoWiki):
    """Generated: bridge and comparison questions in 2WikiMultihopQA's shape, with aliases."""

    name = "mini-2wikimultihopqa"
    document = MiniHotpotQA.document

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        objects = [(subject, by, subject.facts[by]) for subject, by in question.steps]
        compared = question.kind == "comparison"
        return {
            "_id": question.id,
            "type": "comparison" if compared else "compositional",
            "question": question.text,
            "context": [[passage.title, passage.sentences] for passage in pool],
            "supporting_facts": _facts(question),
            "evidences": [[subject.name, by, found.name] for subject, by, found in objects],
            "answer": question.answer,
            "evidences_id": [[subject.id, by, found.id] for subject, by, found in objects],
            "answer_id": None if compared else objects[-1][2].id,
        }

    def parse(self, row: Any, place: str, notes: Counter[str]) -> RawQuestion | None:
        return self.question(row, place, notes, aliases=self.aliases)  # type: ignore[no-any-return]


class MiniMuSiQue(Mini, MuSiQue):
    """Generated: two-hop questions over twenty passages in MuSiQue's shape."""

    name = "mini-musique"
    kinds = ("bridge",)
    size = 20

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        return {
            "id": f"2hop__{question.id}",
            "paragraphs": [
                {
                    "idx": number,
                    "title": passage.title,
                    "paragraph_text": " ".join(passage.sentences),
                    "is_supporting": passage in question.gold,
                }
                for number, passage in enumerate(pool)
            ],
            "question": question.text,
            "question_decomposition": [],
            "answer": question.answer,
            "answer_aliases": [question.alias] if question.alias else [],
            "answerable": True,
        }


class MiniTriviaQA(Mini, TriviaQA):
    """Generated: one-hop questions in TriviaQA's shape; a passage is relevant by its words."""

    name = "mini-triviaqa"
    kinds = ("single",)

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        aliases = [question.answer, *([question.alias] if question.alias else [])]
        columns = ("doc_source", "filename", "title", "wiki_context")
        pages = [
            ("", f"{passage.id}.txt", passage.title, " ".join(passage.sentences))
            for passage in pool
        ]
        return {
            "question": question.text,
            "question_id": question.id,
            "question_source": "",
            "entity_pages": dict(zip(columns, map(list, zip(*pages, strict=True)), strict=True)),
            "search_results": {"title": [], "search_context": []},
            "answer": {
                "value": question.answer,
                "aliases": aliases,
                "normalized_aliases": list(map(triviaqa_normal, aliases)),
            },
        }


class MiniMSMarco(Mini, MSMarcoQA):
    """Generated: one-hop questions in MS MARCO's shape, passages without titles."""

    name = "mini-msmarco"
    kinds = ("single",)

    def row(self, question: Question, pool: list[Passage]) -> dict[str, Any]:
        return {
            "query_id": int(question.id),
            "query": question.text,
            "query_type": "entity",
            "passages": {
                "is_selected": [int(passage in question.gold) for passage in pool],
                "passage_text": [" ".join(passage.sentences) for passage in pool],
                "url": [""] * len(pool),
            },
            "answers": [question.answer],
            "wellFormedAnswers": [],
        }

    def document(self, passage: Passage) -> Document:
        return Document("", " ".join(passage.sentences))

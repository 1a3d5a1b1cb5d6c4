"""Questions of a train split with what a pipeline retrieves for them: what trainings learn from.

The pipeline runs as it does in any run: its rows can be resumed, and gold stays out of it. Only
then are answers put beside them, of the train split alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import registry
from harness.canonical import read_gold
from harness.contract import Task
from harness.corpus import Corpus
from harness.data import DATA, Example, Explained, Gold, HarnessError, Row
from harness.run import runner
from harness.run.plan import Job, Plan, make_plan, serves
from harness.run.progress import Progress, silent
from harness.run.shown import example_of
from harness.run.store import asked_rows
from harness.run.work import work_of
from harness.score.outputs import contains
from harness.spelling import parse_spelled


def train_plan(
    tasks: Sequence[str],
    first: str,
    world: str = "",
    setting: str | None = None,
    data: Path = DATA,
) -> Plan:
    """A run of a pipeline on train splits, checked: one that ranks, such as ``bm25@20``.

    world: of the models to begin with, which serve no task that is of another one
    """
    for name in tasks:
        if not serves(world, registry.task(parse_spelled(name))):
            raise HarnessError(
                f"the models to begin with are of the generated world {world}, not for {name}.",
                "Name others, by the options that `list recipes` shows.",
            )
    plan = make_plan(tasks, [first], split="train", setting=setting, data=data)
    last = plan.pipelines[0].stages[-1].system
    if not registry.ranks(registry.create("systems", last)):
        raise HarnessError(f"{first} ranks nothing at its end.", "Write a retriever, such as bm25.")
    return plan


def retrieved_examples(
    plan: Plan,
    out: Path | None = None,
    data: Path = DATA,
    progress: Progress = silent,
    *,
    explained: bool = False,
) -> list[Example]:
    """An example for each question that has an answer and for which anything is retrieved; its
    documents are the hits, best first, and no others.

    plan: a `train_plan`; out: the folder of its run
    explained: with how they are answered, where the task knows or its gold tells (`by_support`)
    Raises `HarnessError` if there are none.
    """
    folder = runner.run(plan, out, data, progress)
    found: list[Example] = []
    for place, job in enumerate(plan.jobs):
        work = work_of(job, plan, folder)
        gold = read_gold(job.folder)
        for node in work.nodes.values():
            if node.asked:
                rows = asked_rows(node.rows, [query.id for query in work.asked])
                texts = {query.id: query.text for query in work.asked}
                corpus, told = work.questions.corpus, work.questions.instruction
                known = ((texts[name], row, gold[name]) for name, row in rows if row)
                how = job.task.explained(job.split) if explained else None
                made = _examples(known, corpus, told, how)
                found += (replace(each, family=str(place)) for each in made)
    if not found:
        raise HarnessError(
            f"{plan.pipelines[0]} retrieved nothing for any train question that has an answer.",
            "Choose another task or pipeline.",
        )
    return found


def _examples(
    rows: Iterator[tuple[str, Row, Gold]],
    corpus: Corpus,
    instruction: str,
    how: Mapping[str, Explained] | None,
) -> Iterator[Example]:
    for question, row, gold in rows:
        if not gold.answers or not gold.answerable or not row.hits:
            continue
        known = None
        if how is not None:
            known = how.get(question) if how else by_support(question, gold, corpus)
        yield example_of(question, row.hits, gold, corpus, instruction, explained=known)


def explains(job: Job) -> bool:
    """Whether a task says how its questions are answered, or its gold does."""
    own = type(job.task).explained is not Task.explained
    return own or any(gold.sentences for gold in read_gold(job.folder).values())


def by_support(question: str, gold: Gold, corpus: Corpus) -> Explained | None:
    """How a question is answered, by its supporting facts: its clues are the titles among theirs
    that it names, its evidence the facts, those of the named titles first; the other titles are
    bridges. None where there are no facts or it names no title."""
    relevant = [corpus[doc_id] for doc_id, grade in gold.relevance.items() if grade > 0]
    held = {document.title: document.sentences for document in relevant}
    facts = [fact for fact in gold.sentences or () if 0 <= fact[1] < len(held.get(fact[0], ()))]
    titles = list(dict.fromkeys(title for title, _ in facts))
    named = [title for title in titles if contains(question, [title])]
    if not named:
        return None
    facts.sort(key=lambda fact: fact[0] not in named)
    evidence = (held[title][place].strip() for title, place in facts)
    bridges = (title for title in titles if title not in named)
    return Explained(tuple(named), tuple(dict.fromkeys(evidence)), tuple(bridges))

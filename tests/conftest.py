"""What many tests need: a prepared toy task, and the folder of real data where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import registry
from harness.contract import Task
from harness.data import Candidate, Document, Loaded, RawQuestion

WORDS = "amber birch cedar delta ember fjord glade heron islet jetty kelp larch".split()


def toy_questions(count: int = 40) -> list[RawQuestion]:
    """Questions with five candidates each, of which the first is right."""
    questions = []
    for number in range(count):
        word = f"{WORDS[number % 12]}{number}"
        passages = [f"The {word} stands by the {WORDS[(number + 5) % 12]} gate."]
        passages += [
            f"A {WORDS[(number + j) % 12]} of {number * 7 + j} rests." for j in range(1, 5)
        ]
        candidates = tuple(
            Candidate(Document("", text, f"Title {number} {place}"), int(place == 0))
            for place, text in enumerate(passages)
        )
        questions.append(
            RawQuestion(
                f"native-{number}",
                f"Where stands the {word}?",
                candidates,
                answers=(f"by the {WORDS[(number + 5) % 12]} gate",),
                where=f"toy:{number}",
            )
        )
    return questions


class Toy(Task):
    """A task made of `toy_questions`."""

    name = "toy"
    ranking_metrics = ("nDCG@10", "R@2", "RR@10", "RR", "P@1", "AP")
    offline = True

    def __init__(self, count: int = 40, asks: str = "Answer briefly.") -> None:
        self.count, self.instruction = count, asks

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        return Loaded(toy_questions(self.count)[:limit])


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in its own folder, with the toy task known and nothing else registered."""
    monkeypatch.chdir(tmp_path)
    known = {kind: {"toy": Toy} if kind == "tasks" else {} for kind in registry.PACKAGES}
    monkeypatch.setattr(registry, "_registered", known)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-data", default=os.environ.get("HARNESS_REAL_DATA", ""))


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    """The folder of real data; tests that need it skip without."""
    given = request.config.getoption("--real-data")
    if not given:
        pytest.skip("needs real data: set HARNESS_REAL_DATA to its folder")
    return Path(given).resolve()

"""Our formulas and our files against the package ragchecker, question by question: `tox -e
ragchecker`.

Where it reads what a model wrote, it is a process of its own, and the model is a script.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_tables import drawn
from exploits import EXPLOITS

from harness.data import Document
from harness.report.ragchecker import result
from harness.score.claims import METRICS, Tables, claim_metrics
from harness.score.judging import Asked, Case
from systems.judges.labels import Labels

ragchecker = pytest.importorskip(
    "ragchecker", reason="needs the package ragchecker: tox -e ragchecker"
)
ROOT = Path(__file__).parent.parent.parent


def asked(name: str, passages: int) -> Asked:
    """A question whose answer read so many passages."""
    read = tuple(Document(f"d{n}", f"Text {n}.", "Title") for n in range(passages))
    return Asked(name, name, "", Case(name, "Which?", "gold", "response", read))


QUESTION = asked("q", 2)
LABELS = "Entailment\nNeutral\nContradiction"


def claimed(tables: Tables) -> dict[str, Any]:
    """A line of claims.jsonl with these tables."""
    said, right = ([(f"s{n}", "is", "o") for n in range(len(each))] for each in tables[:2])
    return {"response_claims": said, "answer_claims": right, **tables._asdict()}


def contradicted(value: Any, rng: random.Random) -> Any:
    """Labels of which some that are Neutral are Contradiction, which means the same to it."""
    if isinstance(value, list):
        return [contradicted(each, rng) for each in value]
    return rng.choice(["Neutral", "Contradiction"]) if value == "Neutral" else value


def refused(prompts: list[str]) -> list[str]:
    raise AssertionError("a model was asked")


def test_a_thousand_questions_go_through_the_package_and_come_back() -> None:
    rng = random.Random(11)
    every = [drawn(rng) for _ in range(1000)]
    widths = [max((len(row) for table in t[2:] for row in table), default=0) for t in every]
    cases = [asked(f"q{n}", width) for n, width in enumerate(widths)]
    rows = [result(*each) for each in zip(cases, map(claimed, every), strict=True)]
    for row in rows:
        row |= {name: contradicted(row[name], rng) for name in Tables._fields}
    results = ragchecker.RAGResults.from_json(json.dumps({"results": rows}))
    ragchecker.RAGChecker(custom_llm_api_func=refused).evaluate(results)
    ours = [claim_metrics(tables) for tables in every]
    for one, tables, mine in zip(results.results, every, ours, strict=True):
        assert mine == pytest.approx(one.metrics), tables
    means = {name: v for group in results.metrics.values() for name, v in group.items()}
    assert means == {m: round(np.mean([each[m] for each in ours]) * 100, 1) for m in METRICS}

    Path("out.json").write_text(results.to_json(indent=2))
    labels = Labels(Path("out.json"))
    labels.expect([each.case for each in cases])
    for one, tables in zip(cases, every, strict=True):
        found = labels.judged(one.case)
        assert claim_metrics(found.tables) == claim_metrics(tables)
        assert [list(row) for row in found.tables.retrieved2response] == tables.retrieved2response


def package(how: str, replies: list[str]) -> dict[str, Any]:
    """What the package makes of replies, in a process of its own that works in this folder."""
    script = ROOT / "tests" / "parity" / "ragchecker_process.py"
    given = {"question": result(QUESTION, None), "labels": LABELS, "replies": replies}
    done = subprocess.run(
        [sys.executable, str(script), how],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_what_a_model_writes_is_read_and_never_run() -> None:
    harmless = '("it", "is", "so")\n- ("The \\"X\\"", \'by\', "Zoë (b. 1900), 東京 🦉")'
    replies = [harmless, *(f"{each}\n{harmless}" for each in EXPLOITS)]
    plain, *ran = package("open", replies)["judged"]
    assert not plain["ran"] and all(each["ran"] for each in ran)  # so there is a hole
    shut = package("shut", replies)
    assert not any(each["ran"] for each in shut["judged"])
    assert shut["judged"][0] == plain and len(plain["row"]["response_claims"]) == 2
    assert shut["unread"] > len(EXPLOITS)
    for each in shut["judged"]:
        assert ["it", "is", "so"] in each["row"]["response_claims"]
        Path("out.json").write_text(json.dumps([each["row"]]))
        labels = Labels(Path("out.json"))
        labels.expect([QUESTION.case])
        mine = claim_metrics(labels.judged(QUESTION.case).tables)
        assert mine == pytest.approx(each["row"]["metrics"])

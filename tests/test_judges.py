"""Judges that ask a model: what they ask, how replies are read, budget and cache."""

# ruff: noqa: F811 (a fixture's name is its parameter's)

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from answering import Answering
from test_reader import Served, completion, served  # noqa: F401
from tiny_models import make_qwen2

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError
from systems.judges import asking
from systems.judges.asking import EndpointJudge, read_claims, read_labels

TASK = "mini-triviaqa:documents=300,questions=6"
EXPLOIT = "__import__('pathlib').Path('ran').write_text('x')"


@pytest.mark.parametrize(
    ("reply", "claims"),
    [
        ('["a", "is", "b"]\n["c", "has", "d"],', [("a", "is", "b"), ("c", "has", "d")]),
        ('Claims:\n["a", "is", "b"]\n["a", "is", "b"]', [("a", "is", "b")]),
        ('[["a", "is", "b"], ["c", "has", "d"]]', [("a", "is", "b"), ("c", "has", "d")]),
        ("NONE", []),
        ("none", []),
        ("[]", []),
        ("", None),
        ("I cannot.", None),
        ('["a", "is"]', None),
        ('["a", "is", 3]', None),
        ('["a", "is", "b"]\n["c", "has', None),
        (f'["a", "is", {EXPLOIT}]', None),
        (EXPLOIT, None),
        pytest.param("[" * 100_000, None, id="deep"),
    ],
)
def test_claims_are_read_and_never_run(reply: str, claims: Any) -> None:
    assert read_claims(reply) == claims
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ("1: Entailment\n2: Neutral\n3: Contradiction", [True, False, False]),
        ("**2.** entailment\n- 1) NEUTRAL because", [False, True, None]),
        ("1: Entailment\n1: Neutral\n3: Entailment", [None, None, True]),
        ("Entailment", [None] * 3),
        ("1: Entailments\n7: Entailment", [None] * 3),
        (f"1: {EXPLOIT}", [None] * 3),
    ],
)
def test_labels_are_read_and_never_run(reply: str, labels: list[bool | None]) -> None:
    assert read_labels(reply, 3) == labels
    assert not Path("ran").exists()


def answer(body: dict[str, Any]) -> str:
    """A model that takes any answer for one claim and finds it where its object stands."""
    said = body["messages"][-1]["content"]
    text = said.partition("[1]\n")[2].rpartition("\n\nQuestion:")[0]
    if said.startswith("Break"):
        return json.dumps(["it", "is", text])
    claims = [line for line in said.splitlines() if line[:1].isdigit() and ": [" in line]
    objects = [json.loads(line.partition(": ")[2])[2] for line in claims]
    labels = ("Entailment" if each in text else "Neutral" for each in objects)
    return "\n".join(f"{n}: {label}" for n, label in enumerate(labels, 1))


class Thinking(list[Any]):
    """A script that answers what was asked last."""

    def __init__(self, served: Served) -> None:
        super().__init__([None])
        self.served = served

    def __getitem__(self, place: Any) -> Any:
        return 200, completion(answer(self.served.asked[-1][2]))


@pytest.fixture
def run() -> Path:
    registry.register("systems", "answering")(Answering)
    return api.run([TASK], ["bm25+answering@3"])


def test_an_endpoint_judges_and_is_asked_nothing_twice(served: Served, run, capsys) -> None:
    served.script = Thinking(served)
    judge = f"endpoint:url={served.url},model=big"
    assert main(["claims", str(run), "--judge", judge]) == 0
    out = capsys.readouterr().out
    asked = len(served.asked)
    (head,) = json.loads((run / "claims.json").read_text())
    assert head["replies"] >= asked > 0 and head["unread"] == 0
    assert head["prompt"] and head["prompt"] in out and f"unread=0/{head['replies']}" in out
    lines = [json.loads(line) for line in (run / "claims.jsonl").read_text().splitlines()]
    for each in lines:
        same = bool(each["response_claims"]) and each["response_claims"] == each["answer_claims"]
        assert each["metrics"]["f1"] == same
        if same:
            assert each["metrics"]["claim_recall"] == each["metrics"]["faithfulness"]
    assert any(each["metrics"]["claim_recall"] for each in lines)
    first = (run / "claims.jsonl").read_bytes()
    assert main(["claims", str(run), "--judge", judge]) == 0
    assert len(served.asked) == asked and (run / "claims.jsonl").read_bytes() == first
    assert main(["claims", str(run), "--judge", judge.replace("big", "bigger")]) == 0
    assert len(served.asked) == 2 * asked


def test_a_budget_stops_and_the_same_command_goes_on(served: Served, run, capsys) -> None:
    served.script = Thinking(served)
    judge = f"endpoint:url={served.url},model=big,budget=7"
    assert main(["claims", str(run), "--judge", judge]) == 2
    assert "budget of 7 requests is used up" in capsys.readouterr().err
    assert len(served.asked) == 7 and not (run / "claims.json").exists()
    assert main(["claims", str(run), "--judge", judge.replace("=7", "=70")]) == 0
    bodies = [json.dumps(body) for _, _, body in served.asked]
    assert len(set(bodies)) == len(bodies) > 7


def test_replies_that_cannot_be_read_are_counted_and_shown(served: Served, run, capsys) -> None:
    served.script = [(200, completion(EXPLOIT))]
    judge = f"endpoint:url={served.url},model=big"
    assert main(["claims", str(run), "--judge", judge]) == 0
    (head,) = json.loads((run / "claims.json").read_text())
    assert head["unread"] == head["replies"] > 0
    assert f"unread={head['unread']}/{head['replies']}" in capsys.readouterr().out
    assert {cell.unread for cell in api.claim_records(run)} == {1.0}
    assert not Path("ran").exists()


def test_a_busy_endpoint_is_asked_again_and_a_lost_one_is_an_error(served: Served, run) -> None:
    served.script = [(503, "busy"), (200, completion("NONE"))]
    api.claims(run, f"endpoint:url={served.url},model=big")
    served.script = [(503, "gone")]
    with pytest.raises(HarnessError, match="status 503"):
        api.claims(run, f"endpoint:url={served.url},model=other,tries=2")


def test_labels_that_cannot_be_read_are_counted_and_entail_nothing(served: Served) -> None:
    served.script = [(200, completion("1: Entailment"))]
    judge = EndpointJudge(served.url, "big")
    assert judge.check("what?", [("it", "is", "so")] * 2, ["text"]) == [[True, False]]
    assert (judge.replies, judge.unread) == (1, 1)


def test_many_claims_are_checked_a_few_at_a_time(served: Served) -> None:
    served.script = Thinking(served)
    judge = EndpointJudge(served.url, "big")
    claims = [("it", "is", f"<{n}>") for n in range(12)]
    texts = ["<0> <5> <11>", "<7>"]
    found = judge.check("what?", claims, texts)
    assert found == [[object_ in text for *_, object_ in claims] for text in texts]
    assert len(served.asked) == 6 == judge.replies


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("endpoint:model=x", "needs url="),
        ("endpoint:url=http://x,model=x,budget=0", "budget=0"),
        ("endpoint:url=ftp://x,model=x", "no URL"),
        ("model:mini-lm", "cannot judge"),
        ("model:nobody/nothing", "hf download"),
    ],
)
def test_a_mistake_is_one_sentence(judge: str, said: str, run, capsys) -> None:
    assert main(["claims", str(run), "--judge", judge]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_a_local_model_judges_by_the_same_prompts(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(asking, "TOKENS", 8)
    folder = make_qwen2(tmp_path / "lm", positions=2048)
    (head,) = api.claims(run, f"model:{folder}")
    assert head["unread"] == head["replies"] > 0  # its weights are random
    kept = list(Path("data/judgements").glob("*.jsonl"))
    assert len(kept) == 1 and kept[0].read_text()
    monkeypatch.setattr(asking.ModelJudge, "write", lambda self, prompts: [None] * len(prompts))
    assert api.claims(run, f"model:{folder}")[0] == head
    assert re.fullmatch("model:lm#[0-9a-f]{8}", head["judge"])
    assert str(tmp_path) not in (run / "claims.json").read_text()
    assert str(tmp_path) not in api.page(api.score(run), "page.html").read_text()


def test_a_local_model_is_named_by_its_folder_and_what_is_in_it(tmp_path: Path) -> None:
    one, other = (make_qwen2(tmp_path / name / "lm", positions=64) for name in ("a", "b"))
    names = [asking.ModelJudge(str(each)).name for each in (one, other)]
    assert names[0] == names[1]
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert asking.ModelJudge(str(other)).name != names[0]
    cached = asking.ModelJudge("org/name", "v1", "cuda", "bfloat16")
    assert cached.name == "model:org/name@v1,dtype=bfloat16"


def test_a_text_that_does_not_fit_is_not_judged(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(asking, "TOKENS", 8)
    with pytest.raises(HarnessError, match="not fit"):
        api.claims(run, f"model:{make_qwen2(tmp_path / 'lm', positions=64)}")

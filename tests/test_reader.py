"""The reader without a local model: prompt, extraction, endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from reading import INSTRUCTION, PASSAGES, QUESTIONS, SHOWN, brief

from harness.data import Document, HarnessError, Hit, Query, Reply
from harness.run.stages import Station
from systems.models import endpoint
from systems.models.prompts import Prompt, prompt_text, turns, whole_text
from systems.reader import Reader, extracted

# --- prompt and answer, without any model ---------------------------------------------


def test_the_prompt_has_instruction_numbered_passages_and_question() -> None:
    assert prompt_text(Prompt("who?", PASSAGES[:2], "Say.")) == (
        "Say.\n\n[1] Tower\nThe tower was built by Mira Kolen.\n\n"
        "[2]\nMira Kolen was born in Brno.\n\nQuestion: who?\nAnswer:"
    )
    assert prompt_text(Prompt("who?")) == "Question: who?\nAnswer:"
    assert prompt_text(Prompt(None, PASSAGES[:1])) == (
        "Passage: Tower The tower was built by Mira Kolen.\n\n"
        "Please write a question based on this passage."
    )


def test_demonstrations_stand_before_in_the_form_of_the_prompt() -> None:
    prompt = Prompt("who?", PASSAGES[1:2], "Say.", "Be brief.", shown=SHOWN)
    first = (
        "Say.\n\n[1] Dam\nThe dam was built by Ada Lund.\n\n[2]\nAda Lund rests.\n\n"
        "Question: who built the dam?\nAnswer:"
    )
    second = "Say.\n\nQuestion: where is Osk?\nAnswer:"
    asked = "Say.\n\n[1]\nMira Kolen was born in Brno.\n\nQuestion: who?\nAnswer:"
    assert whole_text(prompt) == (
        f"Be brief.\n\n{first} Ada Lund\n\n{second} in Norland\n\n{asked}"
    )
    assert turns(prompt) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": first},
        {"role": "assistant", "content": "Ada Lund"},
        {"role": "user", "content": second},
        {"role": "assistant", "content": "in Norland"},
        {"role": "user", "content": asked},
    ]


@pytest.mark.parametrize("other", [{"question": None}, {"choose": 1}, {"seek": True}])
def test_only_a_prompt_that_asks_for_an_answer_has_demonstrations(other: dict[str, Any]) -> None:
    prompt = Prompt("who?", PASSAGES[:1])._replace(**other)
    assert whole_text(prompt._replace(shown=SHOWN)) == whole_text(prompt) == prompt_text(prompt)


@pytest.mark.parametrize(
    "text, answer",
    [
        (" Brno\n\nQuestion: who?", "Brno"),
        ("\n\n  Answer: Brno \nmore", "Brno"),
        ("answer:\nBrno", "Brno"),
        ("<think>the\nriver?</think>\n\nBrno", "Brno"),
        ("the river?\n</think>\nAnswer: Brno", "Brno"),
        ("<think>never ends", ""),
        ("<think>a</think>Brno<think>b</think>", "Brno"),
        ("", ""),
        ("The Answer: Brno", "The Answer: Brno"),
    ],
)
def test_the_answer_is_the_first_line_without_thoughts(text: str, answer: str) -> None:
    assert extracted(text) == answer


@pytest.mark.parametrize(
    "options, said",
    [
        ({"endpoint": "http://localhost:8000/v1"}, "model=NAME"),
        ({"model": "m", "tries": 0}, "tries=0"),
        ({"model": "m", "max_input_tokens": -1}, "max_input_tokens=-1"),
        ({"shots": -1}, "shots=-1"),
        ({"model": "m", "endpoint": "localhost:8000"}, "http://localhost:8000/v1"),
        ({"model": "m", "endpoint": "file:///etc/passwd"}, "no URL"),
        ({"model": "m", "endpoint": "http://[x"}, "no URL"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError) as caught:
        Reader(**options)
    assert said in str(caught.value)


# --- an endpoint on the loopback ------------------------------------------------------


@dataclass
class Served:
    """An endpoint that gives the scripted (status, body) in turn, the last one for ever."""

    url: str = ""
    script: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)


def completion(text: str | None, stop: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": stop}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4},
    }


@pytest.fixture
def served(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    server_state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server_state.asked.append((self.path, dict(self.headers), body))
            script = server_state.script
            status, reply = script.pop(0) if len(script) > 1 else script[0]
            data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", server_state.url + "/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server_state.url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setattr(endpoint, "BACKOFF", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield server_state
    server.shutdown()
    thread.join()
    server.server_close()


def remote(served: Served, **options: Any) -> Reader:
    reader = Reader("acme-large", served.url + "/", **options)
    reader.open(None, None, brief())  # type: ignore[arg-type]
    return reader


def first(reader: Reader) -> HarnessError:
    """What stands in the place of the first question's reply."""
    (found,) = reader.answer(QUESTIONS[:1], [PASSAGES])
    assert isinstance(found, HarnessError)
    return found


def test_one_refused_question_costs_no_other_its_answer(served: Served) -> None:
    served.script = [(200, completion("one")), (400, "too long"), (200, completion("three"))]
    reader = remote(served)
    one, two, three = reader.answer([QUESTIONS[0]] * 3, [PASSAGES] * 3)
    assert isinstance(one, Reply) and isinstance(three, Reply)
    assert isinstance(two, HarnessError) and "too long" in str(two)
    assert len(served.asked) == 3


def test_a_lost_endpoint_gets_one_try_a_question(served: Served) -> None:
    served.script = [(503, "gone")]
    reader = remote(served, tries=2)
    for _ in range(5):
        first(reader)
    assert len(served.asked) == 3 * 2 + 2 * 1


def test_an_endpoint_is_asked_as_openai_says(served: Served) -> None:
    served.script = [(200, completion("Answer: Brno\nor so")), (200, completion(None, "length"))]
    reader = remote(served, system_prompt="Be brief.")
    first, second = reader.answer(QUESTIONS[:2], [PASSAGES, PASSAGES[:1]])
    path, headers, body = served.asked[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert body == {
        "model": "acme-large",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": prompt_text(Prompt(QUESTIONS[0].text, PASSAGES, INSTRUCTION)),
            },
        ],
        "temperature": 0,
        "seed": 3,
        "max_tokens": 6,
    }
    assert first.answer is not None and first.answer.text == "Brno"
    assert (first.raw, first.stop, first.read) == (
        "Answer: Brno\nor so",
        "stop",
        ("d1", "d2", "d3"),
    )
    assert first.counts == {"prompt_tokens": 11, "new_tokens": 4, "passages_dropped": 0}
    assert second.answer is not None
    assert (second.answer.text, second.stop, second.read) == ("", "length", ("d1",))


def test_an_endpoint_makes_results_non_deterministic(served: Served) -> None:
    assert remote(served).deterministic is False
    assert remote(served).files() == []
    assert Reader("acme/small").deterministic is True


def test_passages_for_an_endpoint_are_dropped_by_estimate(served: Served) -> None:
    served.script = [(200, completion("x"))]
    prompt = prompt_text(Prompt("where?", PASSAGES[:2], INSTRUCTION))
    room = -(-len(prompt) // endpoint.CHARACTERS)
    (reply,) = remote(served, max_input_tokens=room).answer(QUESTIONS[1:2], [PASSAGES])
    assert reply.read == ("d1", "d2") and reply.counts["passages_dropped"] == 1
    assert served.asked[0][2]["messages"][0]["content"] == prompt
    (reply,) = remote(served, max_input_tokens=room - 1).answer(QUESTIONS[1:2], [PASSAGES])
    assert reply.read == ("d1",) and reply.counts["passages_dropped"] == 2


def test_passages_for_an_endpoint_are_cut_by_estimate(served: Served) -> None:
    served.script = [(200, completion("x"))]
    page = [Document("p", "tower " * 500)]
    for long in ("cut", "chunks"):
        (reply,) = remote(served, max_input_tokens=400, long=long).answer(QUESTIONS[:1], [page])
        assert reply.read == ("p",)
        (message,) = served.asked[-1][2]["messages"]
        assert 200 < len(message["content"]) / endpoint.CHARACTERS <= 400


def test_an_endpoint_is_shown_demonstrations_and_counts_them(served: Served) -> None:
    served.script = [(200, completion("x"))]
    reader = remote(served, shots=2)
    reader.brief = replace(brief(), examples=SHOWN)
    prompt = Prompt("where?", PASSAGES[:1], INSTRUCTION, shown=SHOWN)
    (reply,) = reader.answer(QUESTIONS[1:2], [PASSAGES[:1]])
    assert isinstance(reply, Reply)
    assert served.asked[0][2]["messages"] == turns(prompt) and len(turns(prompt)) == 5
    exact = reader.lm.count(prompt)
    characters = sum(len(each["content"]) for each in turns(prompt))
    assert exact == -(-characters // endpoint.CHARACTERS)
    reader.room = exact - 1
    (reply,) = reader.answer(QUESTIONS[1:2], [PASSAGES[:1]])
    assert isinstance(reply, Reply) and reply.read == ()
    assert len(served.asked[1][2]["messages"]) == 5
    reader.room = reader.lm.count(prompt._replace(passages=())) - 1
    (failed,) = reader.answer(QUESTIONS[1:2], [PASSAGES[:1]])
    assert isinstance(failed, HarnessError) and "Write fewer shots=" in str(failed)
    assert len(served.asked) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(served: Served, status: int) -> None:
    served.script = [(status, "busy"), (status, "busy"), (200, completion("Brno"))]
    (reply,) = remote(served).answer(QUESTIONS[:1], [PASSAGES])
    assert reply.raw == "Brno" and len(served.asked) == 3


def test_an_endpoint_that_stays_busy_is_an_error(served: Served) -> None:
    served.script = [(503, "busy")]
    with pytest.raises(HarnessError, match=r"127\.0\.0\.1.* failed 2 times.*status 503"):
        raise first(remote(served, tries=2))
    assert len(served.asked) == 2


def test_an_unreachable_endpoint_is_an_error(served: Served) -> None:
    reader = Reader("m", "http://127.0.0.1:9/v1", tries=2)
    reader.open(None, None, brief())  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match=r"127\.0\.0\.1:9.* failed 2 times.*refused"):
        raise first(reader)


@pytest.mark.parametrize("status", [307, 302, 400, 401, 404])
def test_a_refusal_is_final(served: Served, status: int) -> None:
    served.script = [(status, "no such model")]
    with pytest.raises(HarnessError, match=f"refused with status {status}.*no such model"):
        raise first(remote(served))
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    "body", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": 1}]}']
)
def test_what_is_no_completion_is_an_error(served: Served, body: str) -> None:
    served.script = [(200, body)]
    with pytest.raises(HarnessError, match="not with a chat completion"):
        raise first(remote(served))


def test_the_key_is_sent_and_shown_nowhere(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("ACME_KEY", f" {key}\n")
    served.script = [
        (401, f"Incorrect API key provided: {key}. Find yours."),
        (200, completion("Brno")),
    ]
    reader = remote(served, api_key_env="ACME_KEY")
    hits = tuple(Hit(d.id, -float(n)) for n, d in enumerate(PASSAGES))
    station = Station("reader", reader, {d.id: d for d in PASSAGES})  # type: ignore[arg-type]
    rows = []
    for _ in range(2):
        query = Query("q", "where?", pool=("d1", "d2", "d3"), prior=hits)
        rows += station.rows([query], None)
    assert "Incorrect API key" in rows[0].error and rows[1].error == ""
    assert {headers["Authorization"] for _, headers, _ in served.asked} == {f"Bearer {key}"}
    told = capfd.readouterr()
    for text in (repr(rows), repr(vars(reader)), repr(vars(reader.lm)), told.out, told.err):
        assert key not in text
    monkeypatch.setenv("ACME_KEY", f"{key}\nX-Other: 1")
    with pytest.raises(HarnessError, match="ACME_KEY") as caught:
        raise first(reader)
    assert key not in str(caught.value)


def test_a_key_in_the_url_is_refused() -> None:
    for url in ("https://me:secret@acme.org/v1", "https://acme.org/v1?key=secret"):
        with pytest.raises(HarnessError, match="api_key_env") as caught:
            Reader("m", url)
        assert "secret" not in str(caught.value)

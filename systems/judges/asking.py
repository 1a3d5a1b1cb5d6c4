"""Judges that ask a language model: behind an OpenAI-compatible endpoint, or on this machine.

Two prompts: which claims a text makes, and which of some claims a text entails. What a model writes
is read as JSON or by a pattern and is never evaluated; what cannot be read is counted, and taken
for no claim and for no entailment. Each reply is kept under a hash of all that it depends on, so
that nothing is asked twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.contract import Task
from harness.data import Document, HarnessError, Triple
from harness.files import json_rows
from harness.manifest import digest, file_hash
from systems.models.endpoint import Endpoint, checked_url
from systems.models.hub import OneModel, check_sizes
from systems.models.prompts import Prompt

EXTRACT = (
    "Break the text below into claims: the single facts that it states as an answer to the "
    "question. Write each claim on a line of its own as a JSON list of three strings, "
    '["subject", "relation", "object"], with names instead of pronouns. Add nothing that the text '
    "does not say. If it states nothing, write NONE."
)
CHECK = (
    "Decide for each numbered claim whether the text below supports it. Write one line a claim: "
    "its number, a colon, and one word. Entailment: the text says so. Contradiction: the text says "
    "otherwise. Neutral: neither. Go by the text alone.\n\n{claims}"
)
TOGETHER = 5
"""Claims that are checked in one prompt."""
TOKENS = 512
"""A reply may have, at most."""
LABEL = re.compile(r"\W*(\d{1,4})\W{1,4}(entailment|contradiction|neutral)\b", re.IGNORECASE)


class Asking:
    """What judges with a model share: prompts, reading replies, the cache."""

    prompt = f"{EXTRACT}\n{CHECK}\n{TOGETHER} {TOKENS}"

    def __init__(self) -> None:
        self.replies = self.unread = self.asked = 0
        self._kept: dict[str, str] = {}
        self._file: Path | None = None

    def identity(self) -> list[str]:
        """What a reply depends on beside the prompt."""
        raise NotImplementedError

    def write(self, prompts: Sequence[Prompt]) -> Iterable[str]:
        """What the model writes to each prompt."""
        raise NotImplementedError

    def open(self, task: Task, split: str, folder: Path) -> None:  # noqa: ARG002
        """Read the replies that are kept under ``folder``."""
        path = folder / "judgements" / f"{digest(self.identity())}.jsonl"
        if path != self._file and path.exists():
            self._kept = {row["key"]: row["text"] for _, row in json_rows(path)}
        self._file = path

    def claims(self, question: str, text: str) -> list[Triple]:
        """The claims that a text makes as an answer to the question."""
        (reply,) = self._replies([Prompt(question, (Document("", text),), EXTRACT)])
        found = read_claims(reply)
        self.unread += found is None
        return found or []

    def check(
        self, question: str, claims: Sequence[Triple], references: Sequence[str]
    ) -> list[list[bool]]:
        """Whether each text entails each claim, `TOGETHER` claims a prompt."""
        parts = [claims[n : n + TOGETHER] for n in range(0, len(claims), TOGETHER)]
        prompts = [
            Prompt(question, (Document("", text),), CHECK.format(claims=listed(part)))
            for text in references
            for part in parts
        ]
        replies = iter(self._replies(prompts))
        rows = []
        for _ in references:
            row: list[bool] = []
            for part in parts:
                labels = read_labels(next(replies), len(part))
                self.unread += None in labels
                row += [bool(label) for label in labels]
            rows.append(row)
        return rows

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        """A reply to each prompt, the kept ones unasked."""
        keys = [digest([each.question, each.passages, each.instruction]) for each in prompts]
        new = {key: each for key, each in zip(keys, prompts, strict=True) if key not in self._kept}
        for key, text in zip(new, self.write(list(new.values())), strict=True):
            self._keep(key, text)
        self.replies += len(prompts)
        return [self._kept[key] for key in keys]

    def _keep(self, key: str, text: str) -> None:
        self._kept[key] = text
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "text": text}) + "\n")


class EndpointJudge(Asking):
    """A model behind an OpenAI-compatible endpoint, asked at temperature 0.

    url: its base URL; model: its name there; api_key_env: the variable with the key
    budget: requests that may be made; tries: a request, with growing pauses
    """

    def __init__(
        self,
        url: str,
        model: str,
        budget: int = 10_000,
        tries: int = 4,
        api_key_env: str = "OPENAI_API_KEY",
    ) -> None:
        super().__init__()
        check_sizes("endpoint", budget=budget, tries=tries)
        self.url, self.model, self.budget = checked_url(url), model, budget
        self._endpoint = Endpoint(url, model, api_key_env, tries, seed=0)

    def identity(self) -> list[str]:
        return [self.url, self.model, self.prompt]

    def write(self, prompts: Sequence[Prompt]) -> Iterable[str]:
        """One after the other, so that what is paid for is kept at once."""
        for prompt in prompts:
            if self.asked == self.budget:
                raise HarnessError(
                    f"the budget of {self.budget} requests is used up.",
                    "Write a greater budget=: the same command goes on with the replies so far.",
                )
            self.asked += 1
            yield self._endpoint.generate([prompt], TOKENS)[0].text


class ModelJudge(OneModel, Asking):
    """A Hugging Face causal LM of this machine: a folder or a name in the local cache."""

    takes = "ForCausalLM"

    def __init__(
        self, model: str, revision: str = "", device: str = "cpu", dtype: str = "float32"
    ) -> None:
        super().__init__()
        self.model, self.revision, self.device, self.dtype = model, revision, device, dtype
        self._lm: Any = None

    @property
    def name(self) -> str:
        """What tables call it: of a folder its own name, without those above it, and a hash of what
        is in it. Where it computes is left out: no kept reply depends on it."""
        folder = Path(self.model).expanduser()
        if folder.is_dir():
            shown = f"{folder.resolve().name}#{digest(self._hashes())[:8]}"
        else:
            shown = self.model + (f"@{self.revision}" if self.revision else "")
        return f"model:{shown}" + (f",dtype={self.dtype}" if self.dtype != "float32" else "")

    def identity(self) -> list[str]:
        return [*self._hashes(), self.dtype, self.prompt]

    def _hashes(self) -> list[str]:
        return [file_hash(each) for each in self.files()]

    def open(self, task: Task, split: str, folder: Path) -> None:
        """Load the model, and read the replies that are kept under ``folder``."""
        if self.world:
            raise HarnessError(
                f"{self.model} was made to answer questions of a generated world; it cannot judge.",
                "Name a model that follows instructions, or write --judge exact.",
            )
        super().open(task, split, folder)
        if self._lm is None:
            from systems.models.language import open_lm

            self._lm = open_lm(self.folder(), self.device, self.dtype)

    def write(self, prompts: Sequence[Prompt]) -> Iterable[str]:
        fitted = [self._lm.fitted(each, TOKENS) for each in prompts]
        if cut := sum(not each.passages for each in fitted):
            raise HarnessError(
                f"{cut} texts to judge do not fit into the model's {self._lm.window} tokens.",
                "Take a model that reads more.",
            )
        return [each.text for each in self._lm.generate(fitted, TOKENS)]


def listed(claims: Sequence[Triple]) -> str:
    """Claims as numbered lines."""
    return "\n".join(f"{n}: {json.dumps(c, ensure_ascii=False)}" for n, c in enumerate(claims, 1))


def read_claims(reply: str) -> list[Triple] | None:
    """The claims in a reply, each once; None if a line that should be one is not, or if there is
    nothing that could be read."""
    found: list[Triple] = []
    lines = [line.strip().rstrip(",") for line in reply.splitlines()]
    for line in (each for each in lines if each.startswith("[") and each not in ("[", "[]")):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        claims = value if value and isinstance(value[0], list) else [value]
        for claim in claims:
            if not (isinstance(claim, list) and list(map(type, claim)) == [str] * 3):
                return None
            found.append((claim[0], claim[1], claim[2]))
    if not found and "NONE" not in reply.upper().split() and "[]" not in lines:
        return None
    return list(dict.fromkeys(found))


def read_labels(reply: str, count: int) -> list[bool | None]:
    """Whether each of so many claims is entailed; None where the reply does not say, or says two
    things."""
    found: dict[int, set[bool]] = {}
    for line in reply.splitlines():
        if match := LABEL.match(line):
            found.setdefault(int(match[1]), set()).add(match[2].lower() == "entailment")
    said = [found.get(number, set()) for number in range(1, count + 1)]
    return [next(iter(each)) if len(each) == 1 else None for each in said]

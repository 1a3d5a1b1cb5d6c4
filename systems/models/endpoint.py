"""A language model behind an OpenAI-compatible endpoint that the user typed.

The key is read from the environment when a request is made and goes nowhere else.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from harness.data import HarnessError
from systems.models.language import Generated
from systems.models.prompts import Prompt, cut_behind, turns

TIMEOUT = 120.0
"""Seconds to wait for one reply."""
BACKOFF = 1.0
"""Seconds before the second try; doubled before each further one."""
CHARACTERS = 4
"""Characters taken for a token, since the endpoint's tokenizer is not known."""


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None: ...


GIVE_UP = 3
"""Requests lost in a row after which an endpoint gets one try a request, until it answers."""


class Endpoint:
    """Chat completions at ``url`` by the served ``model``; counts and generates as a
    `CausalLM` does.

    key_env: the environment variable with the key; if it is unset, no key is sent
    tries:   how often a request is made before a busy or unreachable endpoint is an error
    """

    window: int | None = None

    def __init__(self, url: str, model: str, key_env: str, tries: int, seed: int) -> None:
        self.url = f"{checked_url(url)}/chat/completions"
        self.model, self.key_env, self.tries, self.seed = model, key_env, tries, seed
        self._opener = build_opener(_NoRedirect)
        self._lost = 0

    def count(self, prompt: Prompt) -> int:
        """An estimate of a prompt's tokens."""
        characters = sum(len(each["content"]) for each in turns(prompt))
        return math.ceil(characters / CHARACTERS)

    def clipped(self, text: str, tokens: int) -> str:
        """About the first ``tokens`` tokens of a text."""
        return text[: tokens * CHARACTERS]

    def pieces(self, text: str, tokens: int) -> list[str]:
        """A text cut behind about every ``tokens`` tokens."""
        return cut_behind(text, range(tokens * CHARACTERS, len(text), tokens * CHARACTERS))

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Ask for each prompt in turn, at temperature 0."""
        return [self._one(prompt, max_new_tokens) for prompt in prompts]

    def _one(self, prompt: Prompt, max_new_tokens: int) -> Generated:
        body = {
            "model": self.model,
            "messages": turns(prompt),
            "temperature": 0,
            "seed": self.seed,
            "max_tokens": max_new_tokens,
        }
        reply = self._post(json.dumps(body).encode())
        try:
            found = json.loads(reply)
            choice, usage = found["choices"][0], found.get("usage") or {}
            text, stop = choice["message"].get("content") or "", choice.get("finish_reason") or ""
        except (ValueError, LookupError, TypeError, AttributeError):
            raise HarnessError(
                f"{self.url} answered, but not with a chat completion.",
                "Check that endpoint= is the base URL, such as http://localhost:8000/v1.",
            ) from None
        names = {"prompt_tokens": "prompt_tokens", "completion_tokens": "new_tokens"}
        counts = {n: usage[name] for name, n in names.items() if isinstance(usage.get(name), int)}
        return Generated(str(text), str(stop), counts)

    def _post(self, body: bytes) -> bytes:
        """The reply's body; tries again while the endpoint is busy or cannot be reached."""
        headers = {"Content-Type": "application/json"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        why = ""
        tries = self.tries if self._lost < GIVE_UP else 1
        for attempt in range(tries):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                request = Request(self.url, body, headers)
                with self._opener.open(request, timeout=TIMEOUT) as reply:
                    found: bytes = reply.read()
                    self._lost = 0
                    return found
            except HTTPError as error:
                why = f"status {error.code}"
                if error.code != 429 and error.code < 500:
                    raise self._refused(error, key) from None
            except (OSError, http.client.HTTPException) as error:
                why = str(getattr(error, "reason", error)) or type(error).__name__
        self._lost += 1
        raise HarnessError(
            f"{self.url} failed {tries} times, the last time with: {why}.",
            "Check that it serves, then run again.",
        )

    def _refused(self, error: HTTPError, key: str) -> HarnessError:
        with error:
            said = " ".join(error.read(2000).decode(errors="replace").split())
        if key:
            said = said.replace(key, "…")
        hint = f"Check the model's name and the key in {self.key_env}."
        return HarnessError(f"{self.url} refused with status {error.code}: {said[:200]}", hint)

    def _key(self) -> str:
        key = os.environ.get(self.key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise HarnessError(
                f"the key in {self.key_env} has characters that no key has.", "Set it again."
            )
        return key


def checked_url(url: str) -> str:
    """The base URL without a slash at its end; `HarnessError` if it cannot be one."""
    mend = "Write one such as http://localhost:8000/v1."
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise HarnessError(f"endpoint= is no URL ({error}).", mend) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HarnessError("endpoint= is no URL of http or https.", mend)
    if parts.username or parts.password or parts.query:
        raise HarnessError(
            "endpoint= must not carry a key or a query: it is written into results.",
            "Put the key into the environment and name the variable with api_key_env=.",
        )
    return url.rstrip("/")

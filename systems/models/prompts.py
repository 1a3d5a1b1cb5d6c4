"""What a language model is asked, and how each kind of model reads it: prompts to ids and back.

Checkpoints with open words know one form of prompt (see `systems.models.words`); all others read
`prompt_text`, inside their chat template if they have one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.data import Document, Example, HarnessError
from systems.models.hub import (
    base_folder,
    ends_of,
    is_state_spaces,
    library,
    load_tokenizer,
    read_config,
    tokenizer_folder,
)
from systems.models.words import (
    ANSWER,
    END,
    NEW,
    NUMBERS,
    PAD,
    PASSAGE,
    PIECES,
    QUESTION,
    Lexicon,
    OpenWords,
    clipped,
    has_open_words,
)
from systems.passages import words_of


class Prompt(NamedTuple):
    """What a model is to continue: with the answer to a question, or, where that is None, with a
    question about the passages. ``system`` is what a chat model is told before. ``behind``: the
    passages are in the state that the model starts from, and the prompt is what follows them.
    ``choose``: so many passages are to be named by their numbers, instead of an answer. ``seek``:
    what the model writes is to begin with the evidence it looks for. ``shown``: demonstrations that
    stand before a prompt that asks for an answer, each with its own passages (see `before`)."""

    question: str | None
    passages: Sequence[Document] = ()
    instruction: str = ""
    system: str = ""
    behind: bool = False
    choose: int = 0
    seek: bool = False
    shown: Sequence[Example] = ()

    def before(self) -> list[tuple[Prompt, str]]:
        """Its demonstrations as prompts of its own form, and how each is answered; none where
        something else than an answer is asked for, or the passages are in the state."""
        other = self.question is None or self.behind or self.choose or self.seek
        return [
            (Prompt(each.question, each.documents, self.instruction), each.answer)
            for each in (() if other else self.shown)
        ]


class Named(NamedTuple):
    """The ids that write the name of each passage: as the ``first`` of a list, and ``later``,
    with what stands between. None begins with another one."""

    first: list[list[int]]
    later: list[list[int]]


class Tokens(NamedTuple):
    """A text as ids, and the characters of it that each stands for."""

    ids: list[int]
    spans: list[tuple[int, int]]


class Rendered(NamedTuple):
    """A prompt as ids; with open words also the lexicon that its slots stand in, of which the
    first ``given`` may be said without having been read."""

    ids: list[int]
    lexicon: Lexicon | None = None
    given: int = 0


class Prompts(Protocol):
    """How one model reads and writes.

    ends:      the ids that end what it writes
    end:       what stands behind a target where its end is not part of it
    forbidden: ids that it never writes
    """

    ends: tuple[int, ...]
    end: tuple[int, ...]
    forbidden: tuple[int, ...]

    def render(self, prompt: Prompt, words: Sequence[str] = ()) -> Rendered:
        """A prompt as ids, with further words that may be said after it."""
        ...

    def passage(self, document: Document) -> Rendered:
        """A passage that is read by itself; nothing where the document is empty."""
        ...

    def signs(self, signs: Sequence[str]) -> list[int]:
        """The ids of signs that it was taught; `HarnessError` if it was not."""
        ...

    def save(self, folder: Path) -> None:
        """Write what it takes to read and write so into a checkpoint's folder."""
        ...

    def names(self, prompt: Prompt) -> Named:
        """How the passages of a prompt are named in the list that it asks for."""
        ...

    def written(self, rendered: Rendered, text: str) -> list[int]:
        """The ids by which a text is written after a prompt, without an end."""
        ...

    def within(self, rendered: Rendered, text: str) -> list[int]:
        """The ids of a text that stands within others."""
        ...

    def target(self, prompt: Prompt, rendered: Rendered, text: str) -> list[int]:
        """What has to be written for the text to be the whole continuation of the prompt."""
        ...

    def text(self, rendered: Rendered, ids: Sequence[int]) -> str:
        """What was written after a prompt, its end left out."""
        ...

    def clipped(self, text: str, tokens: int) -> str:
        """The first ``tokens`` tokens of a text."""
        ...

    def pieces(self, text: str, tokens: int) -> list[str]:
        """A text cut behind every ``tokens`` tokens."""
        ...


class TokenPrompts:
    """Prompts through a Hugging Face tokenizer.

    A target is tokenised apart from its prompt, so that the prompt's tokens are those that
    `generate` continues: as it stands behind a chat template, else as it stands behind a colon
    and a space. Its end token is not part of it.
    """

    forbidden: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, ends: object) -> None:
        self.tokenizer = tokenizer
        listed = ends if isinstance(ends, list) else [ends]
        known = {each for each in (*listed, tokenizer.eos_token_id) if each is not None}
        self.ends = tuple(sorted(known))
        own = tokenizer.eos_token_id
        self.end = self.ends[:1] if own is None else (own,)

    def render(self, prompt: Prompt, words: Sequence[str] = ()) -> Rendered:  # noqa: ARG002
        """Any word can be said: ``words`` change nothing."""
        if prompt.behind:
            return Rendered(self._plain(_following(prompt.question)))
        if not self.tokenizer.chat_template:
            return Rendered(list(self.tokenizer(whole_text(prompt))["input_ids"]))
        try:
            ids = self.tokenizer.apply_chat_template(
                turns(prompt),
                add_generation_prompt=True,
                return_dict=False,
                # A passage that spells a control token must not become one.
                sanitize_control_tokens=True,
                enable_thinking=False,  # templates that know the word would spend the answer on it
            )
        except library("jinja2").TemplateError as error:
            raise HarnessError(
                f"the model's chat template refuses the prompt: {error}.",
                "Leave system_prompt= out." if prompt.system else "Choose another model.",
            ) from error
        return Rendered(list(ids))

    def passage(self, document: Document) -> Rendered:
        parts = [each for each in (document.title, document.text) if each]
        return Rendered(self._plain("\n".join(parts) + "\n\n") if parts else [])

    def written(self, rendered: Rendered, text: str) -> list[int]:  # noqa: ARG002
        return self._behind(text)

    def _behind(self, text: str) -> list[int]:
        """A text as it stands behind any prompt."""
        if self.tokenizer.chat_template or not text:
            return self._plain(text)
        # Some tokenizers put a space before any text: only behind something is it there once.
        return self._plain(f": {text}")[len(self._plain(":")) :]

    def within(self, rendered: Rendered, text: str) -> list[int]:  # noqa: ARG002
        return self.tokens([text])[0].ids

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Texts as they stand within others, with a space before them."""
        if not self.tokenizer.is_fast:
            raise HarnessError(
                "this tokenizer does not say where its tokens stand in a text.",
                "Take a model with a tokenizer.json.",
            )
        before = len(self._plain(":"))
        found = self.tokenizer(
            [f": {text}" for text in texts],
            add_special_tokens=False,
            split_special_tokens=True,  # a text that spells a sign does not become one
            return_offsets_mapping=True,
        )
        return [
            Tokens(
                ids[before:],
                [_bare(text, start - 2, end - 2) for start, end in spans[before:]],
            )
            if text
            else Tokens([], [])
            for text, ids, spans in zip(
                texts, found["input_ids"], found["offset_mapping"], strict=True
            )
        ]

    def signs(self, signs: Sequence[str]) -> list[int]:
        known = self.tokenizer.get_added_vocab()
        return [_sign(known, each) for each in signs]

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)

    def names(self, prompt: Prompt) -> Named:
        numbers = range(1, len(prompt.passages) + 1)
        first = [self._behind(f"[{number}]") for number in numbers]
        behind = len(self._plain("]"))
        return Named(first, [self._plain(f"] > [{number}]")[behind:] for number in numbers])

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def target(self, prompt: Prompt, rendered: Rendered, text: str) -> list[int]:  # noqa: ARG002
        return self.written(rendered, text)

    def text(self, rendered: Rendered, ids: Sequence[int]) -> str:  # noqa: ARG002
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def clipped(self, text: str, tokens: int) -> str:
        ends = self._ends(text)
        return text if len(ends) <= tokens else text[: ends[tokens - 1]]

    def pieces(self, text: str, tokens: int) -> list[str]:
        return cut_behind(text, self._ends(text)[tokens - 1 :: tokens])

    def _ends(self, text: str) -> list[int]:
        """Where each token of a text ends."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in found["offset_mapping"]]


class WordPrompts:
    """Prompts in open words. Instruction and system prompt are not read: the model knows one
    instruction. An answer's target includes its end.

    salt: of the hash of words that are not known; another one for each text in training
    """

    ends: tuple[int, ...] = (END,)
    end: tuple[int, ...] = ()  # it is in the target
    forbidden: tuple[int, ...] = (PAD, NEW, PASSAGE, QUESTION, ANSWER)

    def __init__(self, words: OpenWords) -> None:
        self.words = words
        self.salt = ""

    def render(self, prompt: Prompt, words: Sequence[str] = ()) -> Rendered:
        lexicon = Lexicon(self.words, self.salt)
        lexicon.read(" ".join(words))
        given = len(lexicon.slots)
        if prompt.choose:
            self._check_numbers(len(prompt.passages))
        if prompt.seek:
            return Rendered(lexicon.question(prompt.question or ""), lexicon, given)
        ids: list[int] = []
        for each, answer in prompt.before():
            ids += [*lexicon.prompt(each.passages, each.question), *lexicon.read(answer), END]
        ids += lexicon.prompt(prompt.passages, prompt.question, bool(prompt.choose))
        return Rendered(ids, lexicon, given)

    def _check_numbers(self, passages: int) -> None:
        first = (place for place, each in enumerate(NUMBERS) if each not in self.words.ids)
        known = next(first, len(NUMBERS))
        if passages > known:
            raise HarnessError(
                f"the model knows {known} numbers of passages, and there are {passages}.",
                f"Put fewer before it (@{known})." if known else "Take mini-selector.",
            )

    def signs(self, signs: Sequence[str]) -> list[int]:
        return [_sign(self.words.ids, each) for each in signs]

    def save(self, folder: Path) -> None:
        self.words.write(folder)

    def names(self, prompt: Prompt) -> Named:
        self._check_numbers(len(prompt.passages))
        called = [[self.words.ids[number]] for number in NUMBERS[: len(prompt.passages)]]
        return Named(called, called)

    def passage(self, document: Document) -> Rendered:
        lexicon = Lexicon(self.words, self.salt)
        empty = not words_of(document).strip()
        return Rendered([] if empty else lexicon.passage(document), lexicon)

    def written(self, rendered: Rendered, text: str) -> list[int]:
        """A word that was not read gets a slot of its own, and ``<new>`` is what can be said."""
        return _lexicon(rendered).read(text)

    def within(self, rendered: Rendered, text: str) -> list[int]:
        return self.written(rendered, text)

    def target(self, prompt: Prompt, rendered: Rendered, text: str) -> list[int]:
        return self.written(rendered, text) + ([END] if prompt.question is not None else [])

    def text(self, rendered: Rendered, ids: Sequence[int]) -> str:
        return _lexicon(rendered).say(ids)

    def clipped(self, text: str, tokens: int) -> str:
        return clipped(text, tokens)

    def pieces(self, text: str, tokens: int) -> list[str]:
        ends = [each.end() for each in PIECES.finditer(text)]
        return cut_behind(text, ends[tokens - 1 :: tokens])


def load_prompts(folder: Path) -> TokenPrompts | WordPrompts:
    """How the model of a folder reads and writes; loads no weights."""
    base = base_folder(folder)
    if has_open_words(base):
        return WordPrompts(OpenWords.read(folder if has_open_words(folder) else base))
    place = tokenizer_folder(base) if is_state_spaces(read_config(base)) else folder
    return TokenPrompts(load_tokenizer(place), ends_of(base))


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Characters of a text, without the space before them."""
    start = max(0, start)
    while start < end and text[start].isspace():
        start += 1
    return start, max(start, end)


def _sign(known: Mapping[str, int], sign: str) -> int:
    if sign not in known:
        raise HarnessError(
            f"the model does not know the sign {sign}.",
            "Train it: `python -m harness train retrollm --model ORG/NAME --out DIR`.",
        )
    return known[sign]


def _lexicon(rendered: Rendered) -> Lexicon:
    assert rendered.lexicon is not None
    return rendered.lexicon


def cut_behind(text: str, ends: Sequence[int]) -> list[str]:
    """A text cut at these places; without empty parts."""
    parts = [text[start:end] for start, end in pairwise([0, *ends, len(text)])]
    return [each for each in parts if each.strip()]


def _following(question: str | None) -> str:
    """What stands behind passages that are in the state: up to where a question begins, or its
    answer."""
    return "\n\nQuestion:" if question is None else f"\n\nQuestion: {question}\nAnswer:"


CHOOSE = (
    "Here are {passages} numbered passages and a question. Which {choose} of them help most to "
    "answer it? A passage helps if it states something that the answer rests on. Write their "
    "numbers and nothing else, the most helpful first, like this: [2] > [1]."
)
"""What a model that chooses passages is told."""


def prompt_text(prompt: Prompt) -> str:
    """The one text for all models that read text: instruction, numbered passages, question.

    Without a question it asks for one, as UPR does (Sachan et al. 2022, arXiv 2204.07496); where
    passages are to be chosen it asks for their numbers, as RankGPT does (Sun et al. 2023, arXiv
    2304.09542).
    """
    if prompt.question is None:
        parts = [f"Passage: {words_of(passage)}" for passage in prompt.passages]
        return "\n\n".join([*parts, "Please write a question based on this passage."])
    parts = [prompt.instruction] if prompt.instruction else []
    if prompt.choose:
        parts = [CHOOSE.format(passages=len(prompt.passages), choose=prompt.choose)]
    for number, passage in enumerate(prompt.passages, 1):
        title = f" {passage.title}" if passage.title else ""
        parts.append(f"[{number}]{title}\n{passage.text}")
    if prompt.seek:  # as in the paper of RetroLLM
        return f"Question: {prompt.question}\nYour Response:"
    asked = "Numbers" if prompt.choose else "Answer"
    parts.append(f"Question: {prompt.question}\n{asked}:")
    return "\n\n".join(parts)


def whole_text(prompt: Prompt) -> str:
    """All that a model without a chat template reads: what it is told before, demonstrations with
    their answers, the prompt."""
    parts = [prompt.system] if prompt.system else []
    parts += [f"{prompt_text(each)} {answer}" for each, answer in prompt.before()]
    return "\n\n".join([*parts, prompt_text(prompt)])


def turns(prompt: Prompt) -> list[dict[str, str]]:
    """The same as the messages of a chat; demonstrations are turns that went before."""
    said = [("system", prompt.system)] if prompt.system else []
    for each, answer in prompt.before():
        said += [("user", prompt_text(each)), ("assistant", answer)]
    said.append(("user", prompt_text(prompt)))
    return [{"role": role, "content": content} for role, content in said]


def fitting(prompt: Prompt, room: int | None, count: Callable[[Prompt], int]) -> int:
    """How many of a prompt's passages, the first ones, fit whole into so many tokens; negative if
    it has more tokens without any."""

    def tokens(passages: int) -> int:
        return count(prompt._replace(passages=prompt.passages[:passages]))

    most = len(prompt.passages)
    if room is None or tokens(most) <= room:
        return most
    return bisect_right(range(most), room, key=tokens) - 1

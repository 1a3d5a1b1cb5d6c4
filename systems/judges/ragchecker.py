"""RAGChecker's own program on what ``claims RUN --export`` wrote, with its hole shut.

    python -m systems.judges.ragchecker --input_path FILE --output_path FILE …

It is ``ragchecker-cli`` with all its options, in a process and an environment of its own (it needs
an older transformers than the harness). That program evaluates what a model writes as Python
(refchecker 0.2.17, ``ExtractorBase._parse_triplets``). Here it is handed, of each reply, the claims
alone that a pattern found in it, with every sign spelled out that could end a string.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

STRING = r"""(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)')"""
CLAIM = re.compile(rf"\(\s*{STRING}\s*,\s*{STRING}\s*,\s*{STRING}\s*\)")
OPENS = re.compile(r"\(\s*['\"]")
"""What looks like a claim."""
PLAIN = " .,:;-"
"""What is written as it is, besides letters and digits."""


def cleaned(reply: str) -> tuple[str, bool]:
    """The claims that stand in a reply, one a line, as literals that have no effect when they are
    evaluated; and whether something in it looked like a claim and is none."""
    claims = CLAIM.findall(reply)
    lines = []
    for parts in claims:
        texts = (parts[n] or parts[n + 1] for n in (0, 2, 4))
        lines.append(f"({', '.join(map(_literal, texts))})")
    return "\n".join(lines), bool(OPENS.search(CLAIM.sub("", reply)))


def _literal(text: str) -> str:
    """A text as a Python literal without quotation marks, brackets or breaks inside."""
    meant = re.sub(r"\\(['\"\\])", r"\1", text)
    spelled = (c if c.isalnum() or c in PLAIN else f"\\U{ord(c):08x}" for c in meant)
    return f'"{"".join(spelled)}"'


def shut() -> list[bool]:
    """Have the package's extractor get cleaned replies, whatever model it asks. The list grows by
    a member a reply: whether something of it could not be read."""
    extractor: Any = import_module("refchecker.extractor.llm_extractor")
    ask: Callable[..., Sequence[str] | None] = extractor.get_model_batch_response
    unread: list[bool] = []

    def asked(*args: Any, **options: Any) -> list[str]:
        found = [cleaned(reply) for reply in ask(*args, **options) or ()]
        unread.extend(bad for _, bad in found)
        return [text for text, _ in found]

    extractor.get_model_batch_response = asked
    return unread


def main() -> None:
    """``ragchecker-cli`` behind `shut`."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it is fetched
    try:
        cli: Any = import_module("ragchecker.cli")
    except ImportError as error:
        sys.exit(f"{error}. Install ragchecker==0.1.9 into an environment of its own.")
    unread = shut()
    cli.main()
    print(f"replies with claims that could not be read: {sum(unread)} of {len(unread)}")


if __name__ == "__main__":
    main()

"""The command line: ``python -m harness …``.

Exit codes: 0 fine · 1 a regression, a repeat that changed rows, or a bundle with findings ·
2 usage, not comparable, nothing could be done, or a mistake of the harness itself ·
3 finished with errored questions · 4 inconclusive · 130 interrupted. A user's mistake is one
sentence, never a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from harness.cli import exchange, looking, running, trust
from harness.cli.common import SYSTEMS, TASKS, complain
from harness.data import HarnessError
from harness.spelling import FORMS

__all__ = ["SYSTEMS", "TASKS", "main", "spread"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Evaluate retrieval-augmented question answering: official scores, honest tables.",
)
for part in (running, looking, exchange, trust):
    app.add_typer(part.app)

MANY = ("--task", "--system", "--metric", "--set")
"""Options that take all the words up to the next option."""
SINGLE = ("submit", "score-file", "claims", "import", "export")
"""Commands whose options take one word."""
RESUMED = {"run", "repeat", "latency", "train", "claims", "challenge run"}
"""Commands that keep what was finished when they are interrupted, and go on from there."""
OURS = "this is a mistake of the harness, not yours. Please report it with the lines above."


def spread(words: Sequence[str]) -> list[str]:
    """``--system a b`` as ``--system a --system b``, which the option parser understands, and
    ``run FILE.yaml`` as ``run --experiment FILE.yaml``."""
    if words and words[0] in SINGLE:
        return list(words)
    if words[:1] == ["run"] and "".join(words[1:2]).endswith(FORMS):
        words = ["run", "--experiment", *words[1:]]
    out: list[str] = []
    current, fresh = "", False
    for word in words:
        if word.startswith("-"):
            option, equals, _ = word.partition("=")
            current, fresh = (option, not equals) if option in MANY else ("", False)
            out.append(word)
        elif current:
            out.extend([word] if fresh else [current, word])
            fresh = False
        else:
            out.append(word)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    command: Any = typer.main.get_command(app)
    code: object = 0
    try:
        code = command(spread(argv), prog_name="harness", standalone_mode=False, obj=argv)
    except HarnessError as error:
        complain(error)
        return 2
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.TyperException as error:
        if message := error.format_message():
            print(f"harness: {message.rstrip('.')}. --help shows all.", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        why = f"{error.filename or 'a file'}: {error.strerror or error}"
        print(f"harness: cannot write or read {why}. Mend it and start again.", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:  # noqa: BLE001  (it must not look like a finding or a regression)
        traceback.print_exception(error)
        print(f"harness: {type(error).__name__}: {OURS}", file=sys.stderr)
        return 2
    if code == 130:
        kept = " What was finished is kept: the same command goes on from there."
        resumed = RESUMED & {*argv[:1], " ".join(argv[:2])}
        print(f"harness: interrupted.{kept if resumed else ''}", file=sys.stderr)
    return code if isinstance(code, int) else 0

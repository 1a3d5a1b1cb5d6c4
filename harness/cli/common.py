"""What the commands share: options, and what is said of mistakes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.data import HarnessError

TASKS = ("mini-hotpotqa", "mini-musique", "mini-2wikimultihopqa", "mini-triviaqa", "mini-msmarco")
SYSTEMS = (
    "random+reader@0",
    "bm25+reader@10",
    "e5+reader@7",
    "cross-encoder+reader@2",
    "query-likelihood+reader@7",
    "rico+reader@2",
    "rico-state",
    "bm25@10+dro@2",
    "retrollm",
    "bm25+raggd@5",
)
"""Each reader reads as deep as was best on dev worlds (results/reference/depths.json)."""
Tasks = Annotated[list[str], typer.Option(help="Tasks, one or more.")]
Systems = Annotated[list[str], typer.Option(help="Pipelines, one or more.")]
Split = Annotated[str | None, typer.Option(help="The split; each task's first if left out.")]
Setting = Annotated[str | None, typer.Option(help="pool (each question's candidates) or corpus.")]
Seed = Annotated[int, typer.Option(help="Of the sample, of random and of decoding.")]
Overrides = Annotated[
    list[str], typer.Option("--set", help="stage.option=value, wherever the stage occurs.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run the Python files that pipelines name (file.py:Class), with all your rights.",
    ),
]
Data = Annotated[Path, typer.Option(help="Where prepared data and indexes are kept.")]
Moved = Annotated[
    Path, typer.Option("--data", help="Where prepared data is, if not where it was for the run.")
]
Runs = Annotated[list[Path], typer.Argument(help="Folders that run printed.")]
Metrics = Annotated[
    list[str],
    typer.Option("--metric", help="Further metrics: P@1, nDCG@5, Acc, AccOutput, EvidenceR@1 …"),
]
Published = Annotated[
    str | None,
    typer.Option("--challenge-seed", help="What was published: only bundles of that challenge."),
]
LENIENT = {"ignore_unknown_options": True, "allow_extra_args": True}


def _from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Take the values of options that are not typed from an experiment file."""
    if path is not None:
        from harness.experiment import parameters

        context.default_map = parameters(path)
    return path


Experiment = Annotated[
    Path | None,
    typer.Option(
        is_eager=True, callback=_from_file, help="A YAML file: options that are not typed."
    ),
]


def complain(error: HarnessError) -> None:
    for sentence in error.sentences:
        print(f"harness: {sentence}", file=sys.stderr)


def extra(context: typer.Context) -> list[HarnessError]:
    """Words that no option took."""
    known = [name for parameter in context.command.params for name in parameter.opts]
    command = str(context.command.name)
    return [_unknown_option(word, known, command) for word in context.args]


def _unknown_option(word: str, known: Sequence[str], command: str) -> HarnessError:
    from difflib import get_close_matches

    name = word.partition("=")[0]
    close = get_close_matches(name, known, n=1)
    guess = f"Did you mean {close[0]}? " if close else ""
    return HarnessError(
        f"{command} takes no {name!r}.", f"{guess}`python -m harness {command} --help`."
    )


def show_tables(folder: Path, metrics: Sequence[str]) -> None:
    """Score a run if its scores are not those of its rows, and print its tables; without its
    gold, say that it is not scored."""
    from harness.report.tables import report
    from harness.score.scoring import score

    try:
        if metrics:
            score(folder, metrics)
        typer.echo(report(folder))
    except HarnessError:
        try:
            score(folder, metrics)
        except HarnessError as error:
            typer.echo(f"The rows are written but not scored: {error}", err=True)
            return
        typer.echo(report(folder))

"""Commands for what people exchange: leaderboards' files, bundles, other tools' formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import Data, Moved, Setting, Split, show_tables
from harness.data import DATA, HarnessError

Limit = Annotated[
    int | None, typer.Option(min=1, help="Questions, drawn by --seed as those of a run.")
]
SampleSeed = Annotated[int, typer.Option(help="Of the sample.")]
SHOWN = 5
"""Lines of a script's log that are printed."""

app = typer.Typer()


@app.command("submit")
def submit_(
    run: Annotated[Path, typer.Argument(help="The folder that run printed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    style: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="hotpotqa, musique, 2wikimultihopqa, triviaqa, msmarco-passage, msmarco-qa, trec.",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="Of several pipelines.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of several tasks.")] = None,
    split: Annotated[str | None, typer.Option(help="Of several splits.")] = None,
    setting: Annotated[str | None, typer.Option(help="Of several settings.")] = None,
    gold: Annotated[
        Path | None,
        typer.Option(help="An official file whose rows (musique) or keys (triviaqa) to follow."),
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Pack the whole run for `verify`; needs --submission.")
    ] = False,
    submission: Annotated[
        Path | None, typer.Option(help="What you say of the system, for --bundle.")
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Write a submission.json to fill in.")
    ] = False,
    data: Moved = DATA,
) -> None:
    """Write the file that a leaderboard takes from a run's rows; nothing is run again."""
    if bundle or template:
        from harness.report import bundle as packing

        given = (style, system, task, split, setting, gold)
        if any(given) or (bundle and template):
            raise HarnessError("--bundle and --template go alone.", "Leave the other options out.")
        if template:
            typer.echo(packing.write_template(run, out))
            return
        typer.echo(packing.pack(run, submission, out, data=data))
        for note in packing.quoting(run):
            typer.echo(note, err=True)
        return
    from harness.report.submission import submit

    made = submit(
        run, out, style, gold=gold, system=system, task=task, split=split, setting=setting,
        data=data,
    )  # fmt: skip
    for note in made.notes:
        typer.echo(f"{made.system}: {note}", err=True)
    typer.echo(made.path)


@app.command("score-file")
def score_file_(
    file: Annotated[Path, typer.Argument(help="A prediction file; .gz and .bz2 are unpacked.")],
    task: Annotated[
        str, typer.Option("--task", help="A task; or, with --gold, squad or kilt, too.")
    ],
    style: Annotated[
        str | None, typer.Option("--format", help="trec, or the task's own if left out.")
    ] = None,
    split: Split = None,
    gold: Annotated[
        Path | None, typer.Option(help="The official gold file; left out: the prepared data.")
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="id_aliases.json, which 2Wiki's --gold needs.")
    ] = None,
    limit: Limit = None,
    seed: SampleSeed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, unrounded.")] = False,
    data: Data = DATA,
) -> None:
    """Score a prediction file, yours or anybody's, as its benchmark's official script does."""
    from harness.report.sheet import MINI
    from harness.score.submitted import generated, origin, score_against

    report = score_against(file, task, style, split, data, gold, aliases, limit, seed)
    against = origin(task, split, gold, report)
    note = f"official script's arithmetic, {against}; not a leaderboard entry"
    note += f"; {MINI}" if generated(task, gold) else ""
    if as_json:
        typer.echo(json.dumps({"task": task, "note": note, **asdict(report)}, indent=1))
        return
    for line in [*report.warnings, *report.log[:SHOWN]]:
        typer.echo(line, err=True)
    if more := report.log[SHOWN:]:
        typer.echo(f"… and {len(more)} more such lines (--json has all)", err=True)
    typer.echo(f"{task}: {note}")
    for key, value in report.printed.items():
        typer.echo(f"{key}: {value}")


@app.command("export")
def export_(
    what: Annotated[str, typer.Argument(help="A task, or a run's folder: its questions.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or folder to write.")],
    style: Annotated[
        str,
        typer.Option("--format", help="trec-qrels, beir or flashrag; mteb for a run's scores."),
    ],
    split: Split = None,
    system: Annotated[str | None, typer.Option("--system", help="Of a run's pipelines.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of a run's tasks.")] = None,
    setting: Annotated[str | None, typer.Option(help="Of a run's settings.")] = None,
    data: Data = DATA,
) -> None:
    """Write prepared data, its gold included, or a run's ranking scores for another tool."""
    from harness.report.exports import export
    from harness.run.progress import told

    made = export(
        what, style, out, system=system, task=task, split=split, setting=setting, data=data,
        progress=told,
    )  # fmt: skip
    for note in made.notes:
        typer.echo(note, err=True)
    typer.echo(made.path)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A TREC run or answers; .gz and .bz2 are unpacked.")],
    task: Annotated[str, typer.Option("--task", help="The task whose questions it answers.")],
    name: Annotated[str, typer.Option(help="What to call the system: imported:NAME in tables.")],
    style: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="trec, predictions or one that submit writes for the task; "
            "left out: predictions for .json and .jsonl, else trec.",
        ),
    ] = None,
    rankings: Annotated[
        Path | None, typer.Option(help="A TREC run that goes with the answers of FILE.")
    ] = None,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Leave out evidence and the like.")
    ] = False,
    split: Split = None,
    setting: Setting = None,
    limit: Limit = None,
    seed: SampleSeed = 0,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A new folder, or a run's; else under results/runs."),
    ] = None,
    data: Data = DATA,
) -> None:
    """Make a run of a file computed elsewhere, score it and show it; its folder is the last line.

    It stands in tables, comparisons, pages and bundles as imported, and cannot be run again.
    """
    from harness.run.imported import import_files

    made = import_files(
        file, task, name, style, rankings=rankings, answers_only=answers_only, split=split,
        setting=setting, limit=limit, seed=seed, out=out, data=data,
    )  # fmt: skip
    show_tables(made.folder, [])
    for note in made.notes:
        typer.echo(f"{made.system}: {note}", err=True)
    typer.echo(made.folder)
    raise typer.Exit(3 if made.errors else 0)

"""Commands that check what others claim: bundles, challenges, leaderboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, get_args

import typer

from harness.cli.common import TASKS, Data, Published, Setting
from harness.data import DATA, HarnessError

app = typer.Typer()
challenge = typer.Typer(no_args_is_help=True, help="Worlds that nobody could train on.")
app.add_typer(challenge, name="challenge")


@challenge.command("register")
def register_(
    system: Annotated[list[str], typer.Option(help="Pipelines, one or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The registration; publish it.")],
    task: Annotated[list[str], typer.Option(help="Mini tasks (and profile=).")] = list(TASKS),  # noqa: B006
    setting: Setting = None,
) -> None:
    """Write down what pipelines are made of, before the worlds are known that they will meet."""
    from harness.verify.challenge import register

    typer.echo(register(system, task, out, setting))


@challenge.command("run")
def challenged_(
    registration: Annotated[Path, typer.Argument(help="What `challenge register` wrote.")],
    seed: Annotated[str, typer.Option(help="A random number published after the registration.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write.")],
    submission: Annotated[
        Path, typer.Option(help="What you say of the system; see submit --template.")
    ],
    data: Data = DATA,
) -> None:
    """Run the registered pipelines on the worlds that the published seed gives, and pack them."""
    from harness.run.progress import told
    from harness.verify.challenge import run

    typer.echo(run(registration, seed, submission, out, data, told))


@app.command("verify")
def verify_(
    bundle: Annotated[Path, typer.Argument(help="What `submit --bundle` wrote.")],
    rerun: Annotated[
        int | None, typer.Option(min=1, help="Ask so many questions of each pipeline again.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draws these; left out: drawn, so that nobody knows it.")
    ] = None,
    published: Published = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    data: Data = DATA,
) -> None:
    """Check a bundle from its rows and your own gold; exit code 1 if anything is found."""
    from harness.run.progress import told
    from harness.verify.checks import verify
    from harness.verify.report import as_json as values
    from harness.verify.report import text

    report = verify(bundle, data, rerun or 0, seed, told, published)
    typer.echo(json.dumps(values(report), indent=1) if as_json else text(report))
    raise typer.Exit(int(bool(report.findings)))


@app.command("leaderboard")
def leaderboard_(
    folder: Annotated[Path, typer.Argument(help="A folder of bundles (*.zip).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    style: Annotated[str, typer.Option("--format", help="html, markdown or json.")] = "html",
    metric: Annotated[
        str | None, typer.Option(help="Ranks by another metric than the task's first.")
    ] = None,
    rerun: Annotated[
        int | None, typer.Option(min=1, help="Ask so many questions of each pipeline again.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws these; left out: drawn.")] = None,
    published: Published = None,
    data: Data = DATA,
) -> None:
    """Verify every bundle of a folder and rank those without findings."""
    from harness.report.board import Format, render
    from harness.report.leaderboard import leaderboard
    from harness.report.written import check_place, place
    from harness.run.progress import told
    from harness.verify.findings import counted, printable

    if style not in get_args(Format):
        raise HarnessError(
            f"there is no format {style!r}.", f"Formats: {', '.join(get_args(Format))}."
        )
    check_place(out)
    board = leaderboard(folder, data, metric, rerun or 0, seed, told, published)
    for name in board.left_out:
        if (folder / name).resolve() != out.resolve():
            typer.echo(f"not a bundle, left out: {printable(name)}", err=True)
    for report in board.refused:
        typer.echo(
            f"{report.bundle}: not ranked, {counted(len(report.findings), 'finding')}", err=True
        )
    place(out, render(board, style))  # type: ignore[arg-type]
    typer.echo(out)

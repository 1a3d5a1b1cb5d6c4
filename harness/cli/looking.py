"""Commands that look at what can be run and at what was: lists, scores, tables, pages,
comparisons."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from harness.cli.common import LENIENT, Data, Metrics, Moved, Runs, extra
from harness.data import DATA, HarnessError, raise_together

app = typer.Typer()


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="tasks, systems, recipes, judges or reported; the first two if left out."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the tasks, systems, recipes and judges that can be named, with their options.

    reported: the numbers that papers print, in tables of their own, never ranked with ours.
    """
    from harness.listing import listing, text

    if what == "reported":
        typer.echo(_reported(as_json))
        return
    if what not in ("", "tasks", "systems", "recipes", "judges"):
        raise HarnessError(
            f"there is no list of {what!r}.", "Say tasks, systems, recipes, judges or reported."
        )
    found = listing(["tasks", "systems"] if not what else [what])
    typer.echo(json.dumps(found, indent=1) if as_json else text(found))


def _reported(as_json: bool) -> str:
    from harness.report.reported import reported, text

    return json.dumps([asdict(each) for each in reported()], indent=1) if as_json else text()


@app.command()
def doctor(data: Data = DATA) -> None:
    """Say what can be used on this machine, and why the rest cannot."""
    from harness.listing import diagnosis

    typer.echo(diagnosis(data))


@app.command()
def score(runs: Runs, metric: Metrics = [], data: Moved = DATA) -> None:  # noqa: B006
    """Score runs against their gold; writes scores.jsonl in each folder."""
    from harness.score.scoring import score

    for folder in runs:
        typer.echo(score(folder, metric, data))


@app.command()
def report(
    runs: Runs,
    style: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = "table",
) -> None:
    """Print the tables of scored runs, all systems of a task side by side."""
    from harness.report.tables import Format, report

    if style not in get_args(Format):
        raise HarnessError(
            f"there is no format {style!r}.", f"Formats: {', '.join(get_args(Format))}."
        )
    typer.echo(report(runs, style))  # type: ignore[arg-type]


@app.command("page")
def page_(
    runs: Runs,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")],
    texts: Annotated[
        bool,
        typer.Option(
            "--texts",
            help="Put in questions, passages and answers of tasks that are not generated, too.",
        ),
    ] = False,
    data: Moved = DATA,
) -> None:
    """Write scored runs as one HTML file: tables, where answers were lost, every question.

    The file needs no network and no other file.
    """
    from harness.report.page import page

    made = page(runs, out, texts, data)
    typer.echo(f"{made} ({made.stat().st_size / 1e6:.1f} MB)")


@app.command("show")
def show_(
    run: Annotated[Path, typer.Argument(help="The folder that run printed.")],
    question: Annotated[
        str, typer.Argument(help="Its id or the benchmark's, or the beginning of one.")
    ],
    data: Moved = DATA,
) -> None:
    """Print all that is known of one question: rankings, answers, where they were lost."""
    from harness.report.show import show

    typer.echo(show(run, question, data))


@app.command("claims")
def claims_(
    run: Annotated[Path, typer.Argument(help="The folder that run printed.")],
    judge: Annotated[
        str | None, typer.Option(help="As list judges spells it; exact if left out.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of several tasks.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="Of several pipelines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write one pipeline's answers, with the data's texts, as RAGChecker reads them; "
            "with --judge what it says of them, too."
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Where prepared data, if it was moved, and judges' replies are.")
    ] = DATA,
) -> None:
    """Judge a run's answers claim by claim, with RAGChecker's metrics; nothing is run again.

    Exit code 3: the judge failed on some questions; the same command asks about them again.
    """
    from harness.report import ragchecker
    from harness.report.claims import claim_records, claims_report
    from harness.run.progress import told
    from harness.score.judging import judge_run

    if as_json and export is not None:
        raise HarnessError("--export and --json do not go together.", "Leave out one.")
    entry = None if export is None else ragchecker.ready(run, export, task, system)
    heads: list[dict[str, Any]] = []
    if judge is not None or entry is None:
        heads = judge_run(run, judge or "exact", task=task, system=system, data=data, progress=told)
    if export is not None and entry is not None:
        typer.echo(ragchecker.write(run, export, entry, heads, data), err=True)
        typer.echo(export)
    elif as_json:
        typer.echo(json.dumps([asdict(each) for each in claim_records(run, heads)], indent=1))
    else:
        typer.echo(claims_report(run, only=heads))
    for head in heads:
        if head["failed"]:
            typer.echo(f"{head['system']}: {head['failed']} not judged: {head['why']}", err=True)
    raise typer.Exit(3 if any(head["failed"] for head in heads) else 0)


@app.command(context_settings=LENIENT)
def compare(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(help="The run to compare with.")],
    new: Annotated[Path, typer.Argument(help="The run to judge; the base itself with --baseline.")],
    baseline: Annotated[
        str,
        typer.Option(help="Compare all systems with this one of the base, not each with itself."),
    ] = "",
    system: Annotated[list[str], typer.Option(help="Only these.")] = [],  # noqa: B006
    task: Annotated[list[str], typer.Option(help="Only these.")] = [],  # noqa: B006
    metric: Annotated[
        list[str], typer.Option(help="Metrics of the scores; else the first of each task.")
    ] = [],  # noqa: B006
    tolerance_file: Annotated[
        Path | None, typer.Option(help="YAML: what may fall by how much, with a date and a reason.")
    ] = None,
    fail: Annotated[
        bool,
        typer.Option("--fail-on-regression", help="Exit 1 at a regression, 4 if inconclusive."),
    ] = False,
    accept_: Annotated[
        bool, typer.Option("--accept", help="Then put the new run in the base's place.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why it is accepted.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Compare two runs question by question: which rows changed, and whether quality fell.

    Not comparable (other data, questions, scorers, depths, dtype): exit 2 and the reasons.
    """
    from harness.report.compare import check_tolerances, compare, remarks
    from harness.report.gate import loosened, read_tolerances
    from harness.report.snapshot import accept, check_accept, last_accepted, restore
    from harness.report.verdicts import written_comparisons

    pointless = HarnessError(
        "--reason says why a run is accepted, and nothing is accepted without --accept.",
        "Add --accept, or leave --reason out.",
    )
    raise_together([*extra(context), *([pointless] if reason and not accept_ else [])])
    if restore(base):
        typer.echo(f"{base}: an interrupted --accept had put it aside; it is back.", err=True)
    tolerances = read_tolerances(tolerance_file) if tolerance_file else []
    if accept_:
        check_accept(base, new, reason, whole=not (baseline or system or task or metric))
    found = []
    if accept_ and not base.exists():
        check_tolerances(tolerances, new)
    else:
        only: Any = {"baseline": baseline, "systems": system, "tasks": task}
        found = compare(base, new, metrics=metric, tolerances=tolerances, **only)
        cases = [(each.task, each.new, each.metric) for each in found]
        raise_together(loosened(tolerances, last_accepted(base), cases))
        typer.echo(
            json.dumps([each.as_json() for each in found], indent=1)
            if as_json
            else written_comparisons(found)
        )
        for note in remarks(base, new, found, tolerances=tolerances, **only):
            typer.echo(note, err=True)
    if accept_:
        accept(base, new, reason, tolerances)
        typer.echo(f"{base}: accepted {new}{'' if found else ' as the first base'}", err=as_json)
    verdicts = {each.verdict for each in found}
    if fail and not accept_:
        raise typer.Exit(1 if "regression" in verdicts else 4 if "inconclusive" in verdicts else 0)

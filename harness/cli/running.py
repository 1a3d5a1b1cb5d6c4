"""Commands that prepare data, run pipelines, time them and train them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    LENIENT,
    SYSTEMS,
    TASKS,
    AllowCode,
    Data,
    Device,
    Dtype,
    Experiment,
    Metrics,
    Overrides,
    Seed,
    Setting,
    Split,
    Systems,
    Tasks,
    complain,
    extra,
    show_tables,
)
from harness.data import DATA, HarnessError, raise_together

if TYPE_CHECKING:
    from harness.run.latency import Protocol
    from harness.run.plan import Plan

app = typer.Typer()


@app.command()
def prepare(
    task: Annotated[str, typer.Argument(help="A task as list tasks spells it.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A file or folder; left out: the hub, pinned.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split; the task's first if left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many rows.")] = None,
    data: Data = DATA,
) -> None:
    """Make a task's data ready. The only command that uses the network, and only without --from."""
    from harness.canonical import read_about
    from harness.prepare import prepare

    folder = prepare(task, source, split, limit, data)
    about = read_about(folder)
    typer.echo(f"{about['task']}: {about['questions']} questions, ", nl=False)
    typer.echo(f"{about['documents']} documents, licence {about['licence']}")
    for reason, count in about["notes"].items():
        typer.echo(f"  {count} {reason}")
    typer.echo(folder)


@app.command(context_settings=LENIENT)
def run(
    context: typer.Context,
    task: Tasks = list(TASKS),  # noqa: B006
    system: Systems = list(SYSTEMS),  # noqa: B006
    split: Split = None,
    setting: Setting = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions a task, drawn by --seed.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; else under results/runs.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    metric: Metrics = [],  # noqa: B006
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions a batch.")] = 32,
    latency: Annotated[
        str | None,
        typer.Option(
            help="none, short (the first task, few questions) or full: measure it too. "
            "Left out: short without --task and --system, else none."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what it needs, and stop.")
    ] = False,
    data: Data = DATA,
    allow_code: AllowCode = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the tables there, too: .md, .csv, .tex, .json, .txt.")
    ] = None,
    experiment: Experiment = None,  # noqa: ARG001  (`from_file` has read it)
) -> None:
    """Run pipelines on tasks, score them and show the tables; its folder is the last line.

    The same command again finishes what is missing or errored. Without --task and --system: five
    mini tasks, offline, and a short look at latency. `run FILE.yaml`: options from a file.
    """
    from harness.own_code import code_allowed
    from harness.report.written import unwritable, write_report
    from harness.run.plan import make_plan

    context.with_resource(code_allowed(allow_code))
    mistakes = [*extra(context), *unwritable(report)]
    bare = task == list(TASKS) and system == list(SYSTEMS)
    protocol = _protocol(latency or ("short" if bare else "none"), mistakes)
    try:
        plan = make_plan(
            task,
            system,
            split=split,
            setting=setting,
            overrides=overrides,
            metrics=metric,
            data=data,
            limit=limit,
            seed=seed,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    typer.echo(plan)
    if dry_run:
        raise typer.Exit(_needed(plan, protocol))
    code, folder = _carry_out(plan, out, data, context.obj, metric, protocol)
    typer.echo(folder)
    if report:
        write_report(folder, report)
    raise typer.Exit(code)


def _needed(plan: Plan, protocol: Protocol | None) -> int:
    """Say what a plan needs; returns the exit code."""
    from harness.run.latency import unmeasurable
    from harness.run.plan import needs

    if protocol:
        raise_together(unmeasurable(plan))
    for line in needs(plan):
        typer.echo(f"needs: {line}")
    return 0


def _protocol(name: str, mistakes: list[HarnessError]) -> Protocol | None:
    """How much latency is measured along with a run, if any."""
    from harness.run.latency import FULL, SHORT

    known = {"none": None, "short": SHORT, "full": FULL}
    if name not in known:
        mistakes.append(HarnessError(f"--latency {name} is wrong.", f"Write {', '.join(known)}."))
    return known.get(name)


def _carry_out(
    plan: Plan,
    out: Path | None,
    data: Path,
    argv: Sequence[str],
    metrics: Sequence[str],
    protocol: Protocol | None,
) -> tuple[int, Path]:
    """Run, show the tables, tell what went wrong; returns the exit code and the run's folder."""
    from harness.run import latency, runner
    from harness.run.progress import told

    if protocol:
        raise_together(latency.unmeasurable(plan))
    code, timed = 0, {}
    try:
        folder = runner.run(plan, out, data, told, argv)
    except runner.Unfinished as error:
        folder, code = error.folder, 2
        complain(error)
    try:
        if protocol:
            latency.latency(plan, protocol, folder, data, told)
            timed = latency.failures(folder, plan, protocol)
    finally:
        show_tables(folder, metrics)
    for pipeline, what in {**runner.errored(folder, plan), **timed}.items():
        typer.echo(f"{pipeline}: {what}", err=True)
        code = code or 3
    return code, folder


@app.command()
def repeat(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that run printed.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The new run's folder; else under results/runs."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where prepared data is; else where it was.")
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Run a run again from its manifest alone and compare the rows; its folder is the last line.

    Exit code 0: the rows are the same; 1: some changed; 2: it cannot be repeated.
    """
    from harness.own_code import code_allowed
    from harness.run.progress import told
    from harness.run.repeat import repeat, resolve

    context.with_resource(code_allowed(allow_code))
    again = resolve(base, out, data)
    for line in again.differences:
        typer.echo(f"differs: {line}")
    done = repeat(again, told, context.obj)
    for each in (*done.pipelines, done.folder):
        typer.echo(each)
    for error in done.failures:
        complain(error)
    raise typer.Exit(2 if done.failures else int(not done.same))


@app.command(context_settings=LENIENT)
def latency(
    context: typer.Context,
    task: Tasks = [TASKS[0]],  # noqa: B006
    system: Systems = list(SYSTEMS),  # noqa: B006
    split: Split = None,
    setting: Setting = None,
    questions: Annotated[int, typer.Option(min=1, help="Timed in each round.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Fresh processes a pipeline.")] = 5,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="A run's folder; else under results/runs.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    data: Data = DATA,
    allow_code: AllowCode = False,
) -> None:
    """Measure how long pipelines take, one question at a time in fresh processes with one thread.

    The same command again measures what is missing or failed. Needs no run before it.
    """
    from harness.own_code import code_allowed
    from harness.run.latency import Protocol, unmeasurable
    from harness.run.plan import make_plan

    context.with_resource(code_allowed(allow_code))
    mistakes = extra(context)
    try:
        plan = make_plan(
            task,
            system,
            split=split,
            setting=setting,
            overrides=overrides,
            data=data,
            seed=seed,
            device=device,
            dtype=dtype,
        )
        mistakes += unmeasurable(plan)
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    raise typer.Exit(_time(plan, Protocol(questions, rounds), out, data, as_json))


def _time(plan: Plan, protocol: Protocol, out: Path | None, data: Path, as_json: bool) -> int:
    """Measure, show the tables, tell what went wrong; returns the exit code."""
    from harness.report.latency import as_json as values
    from harness.report.latency import report
    from harness.run.latency import failures, latency
    from harness.run.progress import told

    if not as_json:
        typer.echo(replace(plan, limit=protocol.questions))
    folder = latency(plan, protocol, out, data, told)
    typer.echo(json.dumps(values(folder), indent=1) if as_json else f"{report(folder)}\n{folder}")
    failed = failures(folder, plan, protocol)
    for pipeline, what in failed.items():
        typer.echo(f"{pipeline}: {what}", err=True)
    return 3 if failed else 0


@app.command(context_settings=LENIENT)
def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A recipe as list recipes spells it.")],
    out: Annotated[Path, typer.Option(help="The checkpoint's folder, new or empty.")],
    seed: Annotated[int, typer.Option(help="Of the first weights and of what is drawn.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; the recipe's if left out.")
    ] = None,
    task: Annotated[
        list[str], typer.Option(help="Tasks whose train split it learns from; else the recipe's.")
    ] = [],  # noqa: B006
    first: Annotated[
        str, typer.Option(help="The pipeline that retrieves for it; else the recipe's.")
    ] = "",
    setting: Setting = None,
    data: Data = DATA,
) -> None:
    """Train a shipped checkpoint again, or a system on tasks of your choice; on one thread.

    A recipe's own options (list recipes) are written as --OPTION VALUE. The same command again goes
    on where it was interrupted, and ends with the same weights.
    """
    from harness import registry
    from harness.run.progress import told
    from harness.train import by_questions, train, train_on

    options = _pairs(context)
    on_tasks = by_questions(registry.find("recipes", name))
    if on_tasks and steps is not None:
        raise HarnessError(f"{name} takes no --steps.", "`list recipes` has its options.")
    if not on_tasks and not (task or first or setting or options):
        typer.echo(train(name, out, seed, steps, told))
        return
    typer.echo(
        train_on(
            name,
            out,
            seed,
            tasks=task,
            first=first,
            options=options,
            setting=setting,
            data=data,
            progress=told,
        )
    )


def _pairs(context: typer.Context) -> dict[str, str]:
    """``--option value`` and ``--option=value`` that the command itself does not know."""
    words, found = list(context.args), {}
    while words:
        option, equals, value = words.pop(0).partition("=")
        alone = not equals and (not words or words[0].startswith("--"))
        if not option.startswith("--") or alone:
            raise HarnessError(f"{option} stands alone.", "Write --OPTION VALUE.")
        found[option.removeprefix("--").replace("-", "_")] = value if equals else words.pop(0)
    return found

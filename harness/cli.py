"""The command line: ``python -m harness …``.

Exit codes: 0 fine · 1 a regression, a repeat that changed rows, or a bundle with findings ·
2 usage, not comparable, nothing could be done, or a mistake of the harness itself ·
3 finished with errored questions · 4 inconclusive · 130 interrupted. A user's mistake is one
sentence, never a traceback.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from harness.data import DATA, HarnessError, raise_together
from harness.spelling import FORMS

if TYPE_CHECKING:
    from harness.run.latency import Protocol
    from harness.run.plan import Plan

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
MANY = ("--task", "--system", "--metric", "--set")
"""Options that take all the words up to the next option."""
SINGLE = ("submit", "score-file", "claims", "import", "export")
"""Commands whose options take one word."""

RESUMED = {"run", "repeat", "latency", "train", "claims", "challenge run"}
"""Commands that keep what was finished when they are interrupted, and go on from there."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Evaluate retrieval-augmented question answering: official scores, honest tables.",
)
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
Runs = Annotated[list[Path], typer.Argument(help="Folders that run printed.")]
Metrics = Annotated[
    list[str],
    typer.Option("--metric", help="Further metrics: P@1, nDCG@5, Acc, AccOutput, EvidenceR@1 …"),
]
Published = Annotated[
    str | None,
    typer.Option("--challenge-seed", help="What was published: only bundles of that challenge."),
]
SHOWN = 5
"""Lines of a script's log that are printed."""
OURS = "this is a mistake of the harness, not yours. Please report it with the lines above."
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
    from harness.prepare import prepare, read_about

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
    experiment: Experiment = None,  # noqa: ARG001  (`_from_file` has read it)
) -> None:
    """Run pipelines on tasks, score them and show the tables; its folder is the last line.

    The same command again finishes what is missing or errored. Without --task and --system: five
    mini tasks, offline, and a short look at latency. `run FILE.yaml`: options from a file.
    """
    from harness.own_code import code_allowed
    from harness.report.written import unwritable, write_report
    from harness.run.plan import make_plan

    context.with_resource(code_allowed(allow_code))
    mistakes = [*_extra(context), *unwritable(report)]
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
        _complain(error)
    try:
        if protocol:
            latency.latency(plan, protocol, folder, data, told)
            timed = latency.failures(folder, plan, protocol)
    finally:
        _show(folder, metrics)
    for pipeline, what in {**runner.errored(folder, plan), **timed}.items():
        typer.echo(f"{pipeline}: {what}", err=True)
        code = code or 3
    return code, folder


def _complain(error: HarnessError) -> None:
    for sentence in error.sentences:
        print(f"harness: {sentence}", file=sys.stderr)


def _extra(context: typer.Context) -> list[HarnessError]:
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


def _show(folder: Path, metrics: Sequence[str]) -> None:
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
        _complain(error)
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
    mistakes = _extra(context)
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


@app.command()
def score(runs: Runs, metric: Metrics = []) -> None:  # noqa: B006
    """Score runs against their gold; writes scores.jsonl in each folder."""
    from harness.score.scoring import score

    for folder in runs:
        typer.echo(score(folder, metric))


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
) -> None:
    """Write scored runs as one HTML file: tables, where answers were lost, every question.

    The file needs no network and no other file.
    """
    from harness.report.page import page

    made = page(runs, out, texts)
    typer.echo(f"{made} ({made.stat().st_size / 1e6:.1f} MB)")


@app.command("show")
def show_(
    run: Annotated[Path, typer.Argument(help="The folder that run printed.")],
    question: Annotated[
        str, typer.Argument(help="Its id or the benchmark's, or the beginning of one.")
    ],
) -> None:
    """Print all that is known of one question: rankings, answers, where they were lost."""
    from harness.report.show import show

    typer.echo(show(run, question))


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
) -> None:
    """Write the file that a leaderboard takes from a run's rows; nothing is run again."""
    if bundle or template:
        from harness.report import bundle as packing

        given = (style, system, task, split, setting, gold)
        if any(given) or (bundle and template):
            raise HarnessError("--bundle and --template go alone.", "Leave the other options out.")
        typer.echo(
            packing.write_template(run, out) if template else packing.pack(run, submission, out)
        )
        for note in packing.quoting(run) if bundle else ():
            typer.echo(note, err=True)
        return
    from harness.report.submission import submit

    made = submit(
        run, out, style, gold=gold, system=system, task=task, split=split, setting=setting
    )
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
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, unrounded.")] = False,
    data: Data = DATA,
) -> None:
    """Score a prediction file, yours or anybody's, as its benchmark's official script does."""
    from harness.report.sheet import MINI
    from harness.score.submitted import generated, origin, score_against

    report = score_against(file, task, style, split, data, gold, aliases)
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
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions, drawn by --seed as those of a run.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
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
    _show(made.folder, [])
    for note in made.notes:
        typer.echo(f"{made.system}: {note}", err=True)
    typer.echo(made.folder)
    raise typer.Exit(3 if made.errors else 0)


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
    raise_together([*_extra(context), *([pointless] if reason and not accept_ else [])])
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
        _complain(error)
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

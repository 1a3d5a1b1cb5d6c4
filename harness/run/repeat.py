"""Running a run again from its manifest alone, and comparing the rows, question by question.

Code, packages and machine may be others than then: that is told, and the comparison says what it
changes. Data, checkpoints and files from outside may not: then nothing is run, and every reason
is told. What it does not do: score; fetch what is missing; go back to the code of then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data import HarnessError, raise_together
from harness.provenance import imported, missing, parts_of
from harness.run.environment import code, machine, packages, threads
from harness.run.plan import Plan, make_plan
from harness.run.progress import Progress, silent
from harness.run.runner import Unfinished, run
from harness.run.sessions import Place, place_of
from harness.run.work import RUNS, Node, Work, work_of
from harness.score.changed import TOLERANCE, Changed, changed_rows
from harness.score.results import read_manifest
from harness.spelling import parse_pipeline

SHOWN = 5
"""Changed questions and differing names that are told one by one."""
SIZES = ("limit", "seed", "device", "dtype", "batch_size")


Entry = Mapping[str, Any]
"""A pipeline in a manifest."""


@dataclass(frozen=True)
class Asked:
    """Pipelines that are asked again by one plan, and the folder of the data that it takes."""

    entries: tuple[Entry, ...]
    plan: Plan
    data: Path

    def works(self, folder: Path) -> Iterator[tuple[Work, list[tuple[Entry, Node]]]]:
        """Each task of the plan, with its pipelines as they were and as they are now."""
        for work in (work_of(job, self.plan, folder) for job in self.plan.jobs):
            ours = [each for each in self.entries if each["task"] == str(work.job.spelled)]
            names = (str(parse_pipeline(each["system"]).canonical) for each in ours)
            yield work, [(each, work.nodes[name]) for each, name in zip(ours, names, strict=True)]


@dataclass(frozen=True)
class Again:
    """A run that can be repeated; ``differences``: what is not as it was then, a line each."""

    base: Path
    new: Path
    asked: tuple[Asked, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """The rows of one pipeline, then and now.

    rounded: rows that are the same but for scores within `TOLERANCE`; they count as the same
    kinds:   changed rows by kind; a row may be of several
    """

    place: Place
    deterministic: bool
    questions: int
    rounded: int
    changed: int
    kinds: Mapping[str, int]
    first: tuple[Changed, ...]

    def __str__(self) -> str:
        task, split, setting, system = self.place
        told = [f"{self.questions - self.changed} of {self.questions} rows the same"]
        told += [f"{self.rounded} of them by rounding"] if self.rounded else []
        told += [f"{kind} changed in {count}" for kind, count in self.kinds.items()]
        told += [] if self.deterministic else ["not deterministic: not counted"]
        lines = [f"{task} {split}, {setting}: {system}: {'; '.join(told)}"]
        lines += [f"  {each.id}: {', '.join(each.kinds)}" for each in self.first]
        more = self.changed - len(self.first)
        return "\n".join([*lines, f"  and {more} more"] if more else lines)


@dataclass(frozen=True)
class Repeated:
    """What came of a repeat; ``failures``: stages that could not be started."""

    folder: Path
    pipelines: tuple[Compared, ...]
    failures: tuple[HarnessError, ...] = ()

    @property
    def same(self) -> bool:
        """Whether every pipeline that is deterministic gave the rows that it gave."""
        return not any(each.changed for each in self.pipelines if each.deterministic)


def resolve(base: Path, out: Path | None = None, data: Path | None = None) -> Again:
    """What a repeat of a run will do, checked before anything is asked.

    out:  the folder of the new run; by default ``repeat-…`` under ``results/runs``
    data: where prepared data is; by default where it was
    Raises `HarnessError` with all reasons why it cannot be repeated.
    """
    old = _whole(base)
    new = out or RUNS / f"repeat-{base.resolve().name}"
    if new.resolve() == base.resolve():
        raise HarnessError(f"{new} is the run itself.", "Give another folder with -o.")
    mistakes: list[HarnessError] = []
    found: list[Asked] = []
    others: set[str] = set()
    for entries in _grouped(old["pipelines"]):
        try:
            asked = _asked(entries, data)
            for work, pairs in asked.works(new):
                for entry, node in pairs:
                    mistakes += _other_inputs(entry, node, work, old)
                    others |= _made_otherwise(entry, node, old)
            found.append(asked)
        except HarnessError as error:
            mistakes.append(error)
    raise_together(list({str(each): each for each in mistakes}.values()))
    notes = list(_elsewhere(old))
    if others:
        notes.append(f"stages, made of other: {_some(sorted(others))}")
    if (new / "manifest.json").exists():
        notes.append(f"{new} was there already: only what it lacks is asked")
    return Again(base, new, tuple(found), tuple(notes))


def repeat(
    again: Again, progress: Progress = silent, argv: Sequence[str] | None = None
) -> Repeated:
    """Run it again and compare its rows with those of then; finished rows are not asked again."""
    failures: list[HarnessError] = []
    compared: list[Compared] = []
    for asked in again.asked:
        try:
            run(asked.plan, again.new, asked.data, progress, argv)
        except Unfinished as error:
            failures.append(error)
        for work, pairs in asked.works(again.new):
            ids = [query.id for query in work.asked]
            compared += [_compared(entry, ids, again.base, node.rows) for entry, node in pairs]
    return Repeated(again.new, tuple(compared), tuple(failures))


def _compared(entry: Entry, ids: Sequence[str], base: Path, rows: Path) -> Compared:
    """Count what differs, and keep the first."""
    counts: Counter[str] = Counter()
    rounded, changed = 0, 0
    first: list[Changed] = []
    for each in changed_rows(base / entry["rows"], rows, ids, tolerance=0.0):
        kinds = tuple(kind for kind in each.kinds if kind != "scores" or each.off > TOLERANCE)
        if not kinds:
            rounded += 1
            continue
        changed += 1
        counts.update(kinds)
        first += [each._replace(kinds=kinds)] if len(first) < SHOWN else []
    return Compared(
        place_of(entry), entry["deterministic"], len(ids), rounded, changed, counts, tuple(first)
    )


# --- from the manifest to plans -------------------------------------------------------


def _whole(base: Path) -> dict[str, Any]:
    """The manifest of a run; `HarnessError` if it lacks anything, or if nobody ran a part of it."""
    old = read_manifest(base)
    if lacking := missing(old):
        raise HarnessError(
            f"{base / 'manifest.json'} does not hold what a repeat needs: {_some(lacking)}.",
            "An older version wrote less: run it anew, then it can be repeated.",
        )
    if read := [entry["system"] for entry in old["pipelines"] if imported(entry)]:
        raise HarnessError(
            f"{base} cannot be repeated: {_some(read)} was read from a file.",
            "Repeat a run of what made that file.",
        )
    return old


def _grouped(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Pipelines that one plan can ask: the same systems on each of its tasks, under the same
    sizes."""
    by_task: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        sizes = (str(_root(entry)), entry["split"], entry["setting"], *map(entry.get, SIZES))
        by_task.setdefault((sizes, entry["task"]), []).append(entry)
    together: dict[tuple[Any, ...], list[Entry]] = {}
    for (sizes, _), found in by_task.items():
        systems = tuple(entry["system"] for entry in found)
        together.setdefault((sizes, systems), []).extend(found)
    yield from together.values()


def _root(entry: Entry) -> Path:
    """The folder of all data that a pipeline's was in."""
    return Path(entry["data"]).parent.parent


def _asked(entries: Sequence[Entry], data: Path | None) -> Asked:
    """The plan that asks these pipelines again."""
    first, place = entries[0], data or _root(entries[0])
    plan = make_plan(
        list(dict.fromkeys(entry["task"] for entry in entries)),
        list(dict.fromkeys(entry["system"] for entry in entries)),
        split=first["split"],
        setting=first["setting"],
        data=place,
        **{name: first[name] for name in SIZES},
    )
    return Asked(tuple(entries), plan, place)


# --- what differs ---------------------------------------------------------------------


def _other_inputs(
    entry: Entry, node: Node, work: Work, old: Mapping[str, Any]
) -> Iterator[HarnessError]:
    """Why a pipeline cannot be repeated: data, checkpoints or files that are not those of then."""
    task, split = work.job.spelled, work.job.split
    if entry["fingerprint"] != work.questions.fingerprint:
        yield _other_data(f"{task} ({split})", entry["fingerprint"], work)
    for key, each in zip(entry["stages"], node.chain, strict=True):
        then, stage, shown = parts_of(old, key), each.pipeline.stages[-1], each.shown
        if then["files"] != each.parts["files"]:
            before, after = dict(map(tuple, old["stages"][key]["files"])), dict(each.files)
            yield HarnessError(
                f"{stage}: its files are not those of the run ({_some(_apart(before, after))}).",
                "Put those of then in their place.",
            )
        if then["natives"] != each.parts["natives"]:
            yield HarnessError(
                f"{stage}: the native ids of {task} are not those of the run.",
                "Prepare it again from the source of then.",
            )
        train = then.get("shown", {}).get("train")
        if shown and train != shown.train.questions.fingerprint:
            yield _other_data(f"{task} (train)", train, shown.train)


def _other_data(what: str, then: str, work: Work) -> HarnessError:
    return HarnessError(
        f"{what}: its data is {work.questions.fingerprint} and was {then}.",
        "Prepare it again from the source of then, or name its folder with --data.",
    )


def _made_otherwise(entry: Entry, node: Node, old: Mapping[str, Any]) -> set[str]:
    """What is not as it was then of what a pipeline's stages are made of, but for their files."""
    found: set[str] = set()
    for key, each in zip(entry["stages"], node.chain, strict=True):
        then = parts_of(old, key)
        found |= {*_apart(then["sources"], each.parts["sources"])}
        told = (
            name for name in ("instruction", "max_new_tokens") if then[name] != each.parts[name]
        )
        found |= {f"{name} of {entry['task']}" for name in told}
    return found


def _elsewhere(old: Mapping[str, Any]) -> Iterator[str]:
    """How code, packages and machine differ from those of the last session, a line each."""
    last, facts = old["sessions"][-1], old["facts"]
    for name in ("machine", "code", "packages"):
        several = {session[name] for session in old["sessions"]}
        if len(several) > 1:
            yield f"{name}: the sessions of the run had {len(several)}; compared with the last"
    then, now = facts[last["machine"]], machine()
    names = [name for name in _apart(then, now) if name != "flags"]
    yield from (f"{name}: {now[name]}, was {then[name]}" for name in names)
    if flags := set(then["flags"].split()) ^ set(now["flags"].split()):
        yield f"flags of the processor: {_some(sorted(flags))}"
    then, now = last["threads"], threads()
    names = [name for name in _apart(then, now) if name.isupper()]
    yield from (f"{name}: {now.get(name)}, was {then.get(name)}" for name in names)
    then, now = facts[last["code"]], code()
    if (then["commit"], then["diff"]) != (now["commit"], now["diff"]):
        yield f"code: {_state(now)}, was {_state(then)}"
    then, now = facts[last["packages"]], packages()
    for group in ("numeric", "others"):
        before, after = then[group], now[group]
        names = _apart(before, after)
        if told := [f"{n} {after.get(n, 'none')}, was {before.get(n, 'none')}" for n in names]:
            yield f"packages ({group}): {_some(told, '; ')}"


def _apart(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names under which two maps do not say the same."""
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def _state(told: Mapping[str, Any]) -> str:
    """A state of the harness in words."""
    if told["commit"] is None:
        return f"version {told['version']} ({told['reason']})"
    dirt = f" with changes ({_some(told['changed'])})" if told["diff"] else ""
    return f"{told['commit'][:12]}{dirt}"


def _some(names: Sequence[str], comma: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return comma.join([*names[:SHOWN], *([f"and {more} more"] if more > 0 else [])])

"""The manifest of a run while it is being written; what must be in it: `harness.provenance`.

A session is one start that asked something or changed what the run consists of; a start that has
nothing to do leaves the file as it was. A session that was killed has no end in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.canonical import read_about
from harness.files import json_value
from harness.manifest import digest
from harness.provenance import FORMAT, SHARED, pruned
from harness.run.environment import code, machine, packages, threads
from harness.run.store import RowFile
from harness.score.results import read_manifest

if TYPE_CHECKING:
    from harness.run.plan import Job, Plan
    from harness.run.work import Node, Work

Place = tuple[str, str, str, str]
ENDS = ("errors",)
"""What a pipeline's entry says of how it ended, not of what was asked."""


def place_of(entry: Mapping[str, Any]) -> Place:
    """What a pipeline of a run is known by: task, split, setting, system."""
    return entry["task"], entry["split"], entry["setting"], entry["system"]


@contextmanager
def recorded(
    folder: Path, plan: Plan, works: Sequence[Work], argv: Sequence[str] | None = None
) -> Iterator[Callable[[], None]]:
    """Keep the manifest true while the stages of a run are finished.

    What is given is to be called before anything is asked: it opens a session, if none is open.
    """
    record = _Record(folder, plan, works, argv)
    if record.news():
        record.begin()
    try:
        yield record.begin
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to tell
            record.end("interrupted" if isinstance(error, KeyboardInterrupt) else "errors")
        raise
    record.end()


@dataclass
class _Record:
    """The manifest of one folder, and the session of this start, once there is one.

    ours: the pipelines of this start with their entries
    """

    folder: Path
    plan: Plan
    works: Sequence[Work]
    argv: Sequence[str] | None
    started: str = field(default_factory=lambda: _now())
    session: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        there = (self.folder / "manifest.json").exists()
        old: dict[str, Any] = read_manifest(self.folder) if there else {"pipelines": []}
        self.entries = {place_of(entry): entry for entry in old["pipelines"]}
        self.sessions: list[dict[str, Any]] = list(old.get("sessions", ()))
        self.stages: dict[str, Any] = dict(old.get("stages", {}))
        self.facts: dict[str, Any] = dict(old.get("facts", {}))
        asked = [(n, work) for work in self.works for n in work.nodes.values() if n.asked]
        self.ours = [(node, work, self._entry(node, work)) for node, work in asked]

    def news(self) -> bool:
        """Whether the manifest lacks a pipeline of this start, or says anything else of it.

        An old manifest says less; that alone is no news."""
        for _, _, entry in self.ours:
            old = self.entries.get(place_of(entry))
            if old is None or any(entry.get(n) != old[n] for n in old if n not in ENDS):
                return True
        return False

    def begin(self) -> None:
        """Open the session of this start, if it is not open."""
        if self.session is None:
            self.entries |= {place_of(entry): entry for _, _, entry in self.ours}
            self.session = {
                "command": _command(self.plan, self.argv),
                "started": self.started,
                "ended": None,
                "ended_how": None,
                "threads": threads(),
                "machine": self._fact(machine()),
                "code": self._fact(code()),
                "packages": self._fact(packages()),
            }
            self.sessions.append(self.session)
            self.write()

    def end(self, how: str = "") -> None:
        """Say how the pipelines ended, and close the session, if one is open.

        how: if not as the pipelines say
        """
        before = [dict(self.entries[place_of(entry)]) for _, _, entry in self.ours]
        for node, work, entry in self.ours:
            told = self.entries[place_of(entry)]
            if "errors" in told:
                told["errors"] = _lacking(node, work) if node.failed else node.errors
            for each in _all_of(node):
                self.stages[each.key]["demonstrations"] = _shown_to(each)
        if self.session is not None:
            well = all(entry["errors"] == 0 for _, _, entry in self.ours)
            how = how or ("finished" if well else "errors")
            self.session |= {"ended": _now(), "ended_how": how, "threads": threads()}
        if self.session or before != [self.entries[place_of(each)] for _, _, each in self.ours]:
            self.write()

    def write(self) -> None:
        """Write the manifest; what nothing points at is left out."""
        new = {
            "format": FORMAT,
            "pipelines": list(self.entries.values()),
            "sessions": self.sessions,
            "stages": self.stages,
            "facts": self.facts,
        }
        write_manifest(self.folder, pruned(new))

    def _fact(self, fact: Any) -> str:
        """Keep what others point at; returns its digest."""
        key = digest(fact)
        self.facts[key] = fact
        return key

    def _entry(self, node: Node, work: Work) -> dict[str, Any]:
        """What the manifest says of one pipeline on one task."""
        job = work.job
        systems = [registry.create("systems", stage.system) for stage in node.pipeline.stages]
        for each in _all_of(node):
            self.stages.setdefault(each.key, self._stage(each))
        train = next((each.shown.train.job for each in node.chain if each.shown), None)
        return {
            "task": str(job.spelled),
            "split": job.split,
            "setting": job.setting,
            "system": str(node.pipeline),
            "generated": job.task.generated,
            "answer_metrics": list(job.task.answer_metrics),
            "ranking_metrics": list(job.task.ranking_metrics),
            "ranks": any(map(registry.ranks, systems)),
            "answers": any(map(registry.answers, systems)),
            "deterministic": all(getattr(system, "deterministic", True) for system in systems),
            "fingerprint": work.questions.fingerprint,
            "data": str(job.folder),
            "limit": self.plan.limit,
            "seed": self.plan.seed,
            "device": self.plan.device,
            "dtype": self.plan.dtype,
            "batch_size": self.plan.batch_size,
            "questions": len(work.asked),
            "errors": None,
            "key": node.key,
            "rows": str(node.rows.relative_to(self.folder)),
            "source": self._fact(source_of(job)),
            "train": self._fact(source_of(train)) if train else None,
            "stages": [each.key for each in node.chain],
        }

    def _stage(self, node: Node) -> dict[str, Any]:
        """What a stage's key was made of; its modules and versions are facts."""
        parts = {**node.parts, **{name: self._fact(node.parts[name]) for name in SHARED}}
        return {
            "shown": parts.pop("shown", None),
            "parts": parts,
            "files": [list(each) for each in node.files],
            "demonstrations": [],
        }


def write_manifest(folder: Path, told: Mapping[str, Any]) -> None:
    """Write the manifest of a run, renamed into place when whole."""
    part = folder / "manifest.part"
    part.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / "manifest.json")


def _lacking(node: Node, work: Work) -> int:
    """Questions of a pipeline that have no good row."""
    rows = RowFile(node.rows)
    return sum(not rows.good(query.id) for query in work.asked)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _all_of(node: Node) -> list[Node]:
    """The stages of a pipeline, and those that retrieve for its demonstrations."""
    retrieving = [each.shown.after for each in node.chain if each.shown]
    return [*node.chain, *(each for last in retrieving if last for each in last.chain)]


def _shown_to(node: Node) -> list[str]:
    """Digests of the questions that a stage was shown."""
    path = node.folder / "stage.json"
    told: list[str] = json_value(path).get("demonstrations", []) if path.exists() else []
    return told


def _command(plan: Plan, argv: Sequence[str] | None) -> dict[str, Any]:
    """What was asked for: as typed (None: from Python) and as it was resolved."""
    return {
        "argv": None if argv is None else [_homeless(word) for word in argv],
        "jobs": [
            {"task": str(job.spelled), "split": job.split, "setting": job.setting}
            for job in plan.jobs
        ],
        "systems": list(map(str, plan.pipelines)),
        "overrides": list(plan.overrides),
        "limit": plan.limit,
        "seed": plan.seed,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch_size": plan.batch_size,
    }


def _homeless(word: str) -> str:
    """A word of a command with ``~`` for the home folder, which has the user's name in it."""
    home = Path.home()
    return re.sub(rf"{re.escape(str(home))}(?=/|$)", "~", word) if len(home.parts) > 1 else word


def source_of(job: Job) -> dict[str, Any]:
    """What the prepared data of a job was made from, but for where that lay."""
    about = read_about(job.folder)
    told = {name: about[name] for name in ("files", "limit", "fingerprint", "corpus")}
    return {
        "from": Path(about["source"]).name or ("the task" if job.task.offline else "hub"),
        "version": job.task.version,
        **told,
        **{name: about[name] for name in ("documents", "questions", "notes", "licence")},
    }

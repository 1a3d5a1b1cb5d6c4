"""The manifest of a run holds all that a repeat needs, says how each start ended, and no more."""

from __future__ import annotations

import copy
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Toy, toy_questions
from test_runner import SLOW

from harness import api, registry
from harness.canonical import read_gold, read_lines
from harness.cli import main
from harness.data import Hit, Loaded
from harness.provenance import FIELDS, altered, missing
from harness.run import environment
from harness.run.environment import code, machine, packages, threads

DOCS = Path(__file__).parent.parent / "docs" / "provenance.md"
FREE = {"files", "notes", "numeric", "others", "sources", "shown.sources", "versions"}
"""Maps whose keys are names of files, packages or modules, not fields."""


class Taught(Toy):
    """The toy task with a train split, for demonstrations."""

    splits = ("test", "train")

    def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
        questions = toy_questions(self.count + 20)
        return Loaded(questions[: self.count] if split == "test" else questions[self.count :])


class Pupil:
    """Wants demonstrations, and depends on a file."""

    independent = True

    def __init__(self, shots: int = 2, model: Path = Path("model.bin")) -> None:
        self.shots, self.model = shots, model

    def files(self) -> list[Path]:
        return [self.model] if self.model.exists() else []

    def answer(self, queries: Any, documents: Any) -> list[str]:
        return [passages[0].text if passages else "none" for passages in documents]


def manifest_of(folder: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "manifest.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def whole() -> dict[str, Any]:
    """The manifest of a run with everything in it: files, demonstrations, two sessions."""
    registry.register("tasks", "toy")(Taught)
    registry.register("systems", "pupil")(Pupil)
    Path("model.bin").write_bytes(b"weights")
    api.run(["toy"], ["bm25@3+pupil@2"], out="r", limit=10)
    return manifest_of(api.run(["toy"], ["bm25", "bm25@3+pupil@2"], out="r", limit=20))


Removed = tuple[str, dict[str, Any], Any]
"""A place as `missing` says it, the map that holds the field, its key."""


def fields(value: Any, place: str) -> Iterator[Removed]:
    """Every field below a value, but for those of free maps."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from fields(each, f"{place}[{number}]")
    if isinstance(value, dict):
        for key, each in value.items():
            here = f"{place}.{key}" if place else key
            if place not in ("stages", "facts"):
                yield here, value, key
            if key not in FREE:
                yield from fields(each, here)


def every_field(whole: dict[str, Any]) -> list[Removed]:
    """Every field of a manifest, those of facts under the place of whoever points at them."""
    facts = whole["facts"]
    found = [each for each in fields(whole, "") if not each[0].startswith("facts.")]
    for number, entry in enumerate(whole["pipelines"]):
        for name in ("source", "train"):
            if entry[name]:
                found += fields(facts[entry[name]], f"pipelines[{number}].{name}*")
    for number, session in enumerate(whole["sessions"]):
        for name in ("machine", "code", "packages"):
            found += fields(facts[session[name]], f"sessions[{number}].{name}*")
    gpus = [each for each in found if ".gpus[" in each[0]]
    return [each for each in found if each not in gpus]


def test_a_run_lacks_nothing(whole: dict[str, Any]) -> None:
    assert whole["format"] == 2
    assert missing(whole) == []
    assert altered(whole) == []


def test_any_one_field_that_is_removed_empty_or_of_a_wrong_type_is_named(
    whole: dict[str, Any],
) -> None:
    places = every_field(whole)
    assert len(places) > 150
    for place, holder, key in places:
        kept, before = holder[key], dict(holder)
        del holder[key]
        assert place in missing(whole), place
        holder[key] = 1.5
        assert place in missing(whole), place
        holder.clear()
        holder.update(before)
        if isinstance(kept, str | list | dict) and kept and place.rpartition(".")[2] not in FREE:
            holder[key] = type(kept)()
            named = missing(whole)
            field = next((f for f in FIELDS if f.path.replace("!", "") == _path(place)), None)
            assert field is not None, place
            assert (place in named) != field.empty, place
            holder[key] = kept
    assert missing(whole) == []


def _path(place: str) -> str:
    """The path in the table that a place belongs to."""
    path = re.sub(r"\[\d+\]", "[]", place)
    return re.sub(r"^stages\.[0-9a-f]{16}", "stages{}", path)


def test_a_fact_or_a_stage_that_nobody_kept_is_named(whole: dict[str, Any]) -> None:
    for table in ("facts", "stages"):
        for key in list(whole[table]):
            spoiled = copy.deepcopy(whole)
            del spoiled[table][key]
            assert missing(spoiled), key


def test_a_fact_or_a_stage_that_was_altered_is_named(whole: dict[str, Any]) -> None:
    session = whole["sessions"][0]
    whole["facts"][session["machine"]]["memory"] += 1
    assert altered(whole) == [f"facts.{session['machine']}"]
    key = whole["pipelines"][0]["key"]
    whole["stages"][key]["parts"]["seed"] = 7
    assert altered(whole) == [f"facts.{session['machine']}", f"stages.{key}"]
    whole["stages"][key]["parts"]["seed"] = 0
    whole["stages"][key]["shown"] = None
    assert f"stages.{key}" in altered(whole)


def test_the_page_names_every_field() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for field in FIELDS:
        assert field.path.rpartition(".")[2].rstrip("[]{}*") in page, field.path


def test_what_a_stage_is_made_of_stands_under_its_key(whole: dict[str, Any]) -> None:
    pupil = next(each for each in whole["pipelines"] if "pupil" in each["system"])
    first, last = (whole["stages"][key] for key in pupil["stages"])
    assert last["parts"]["after"] == pupil["stages"][0]
    assert [name for name, _ in last["files"]] == ["model.bin"]
    assert len(last["demonstrations"]) == 2 and not first["demonstrations"]
    assert last["shown"]["after"] in whole["stages"]
    assert "systems.bm25" in whole["facts"][first["parts"]["sources"]]
    assert {"python", "bm25s"} <= whole["facts"][first["parts"]["versions"]].keys()
    assert whole["facts"][pupil["train"]]["questions"] == 20
    assert whole["facts"][pupil["source"]]["questions"] == 40


# --- sessions -------------------------------------------------------------------------


def ends(folder: Path | str) -> list[str | None]:
    return [session["ended_how"] for session in manifest_of(folder)["sessions"]]


def test_each_start_that_has_something_to_do_is_a_session_and_no_other() -> None:
    assert main(["run", "--task", "toy", "--system", "bm25", "--out", "r", "--limit", "5"]) == 0
    once = Path("r/manifest.json").read_bytes()
    assert main(["run", "--task", "toy", "--system", "bm25", "--out", "r", "--limit", "5"]) == 0
    assert Path("r/manifest.json").read_bytes() == once
    words = ["run", "--task", "toy", "--system", "bm25", "--out=r", "--set", "bm25.k1=1"]
    assert main(words) == 0
    api.run(["toy"], ["random"], out="r", seed=3)
    sessions = manifest_of("r")["sessions"]
    argv = [each["command"]["argv"] for each in sessions]
    assert argv[0] == ["run", "--task", "toy", "--system", "bm25", "--out", "r", "--limit", "5"]
    assert argv[1:] == [words, None]
    assert [each["command"]["limit"] for each in sessions] == [5, None, None]
    assert [each["command"]["seed"] for each in sessions] == [0, 0, 3]
    assert sessions[1]["command"]["overrides"] == ["bm25.k1=1"]
    assert sessions[1]["command"]["systems"] == ["bm25:k1=1"]
    assert all(each["started"] <= each["ended"] for each in sessions)
    assert ends("r") == ["finished"] * 3
    assert len({each["machine"] for each in sessions}) == 1


def test_a_start_that_asks_for_fewer_is_a_session_though_no_question_is_asked() -> None:
    api.run(["toy"], ["bm25"], out="r", limit=9)
    api.run(["toy"], ["bm25"], out="r", limit=5)
    found = manifest_of("r")
    assert [entry["limit"] for entry in found["pipelines"]] == [5]
    assert [each["command"]["limit"] for each in found["sessions"]] == [9, 5]
    assert found["pipelines"][0]["errors"] == 0


def test_what_no_pipeline_is_made_of_any_more_is_left_out(monkeypatch) -> None:
    api.run(["toy"], ["bm25"], out="r")
    before = manifest_of("r")
    monkeypatch.setattr(Toy, "version", "2")
    api.run(["toy"], ["bm25"], out="r", batch_size=8)
    found = manifest_of("r")
    (entry,) = found["pipelines"]
    assert list(found["stages"]) == entry["stages"] != before["pipelines"][0]["stages"]
    assert before["pipelines"][0]["source"] not in found["facts"]
    assert missing(found) == []


def test_facts_that_sessions_share_stand_once_and_others_are_kept(monkeypatch) -> None:
    api.run(["toy"], ["bm25"], out="r", limit=5)
    with monkeypatch.context() as patched:
        told = {**machine(), "cpu": "another"}
        patched.setattr("harness.run.sessions.machine", lambda: told)
        api.run(["toy"], ["bm25"], out="r", limit=6)
    api.run(["toy"], ["bm25"], out="r", limit=7)
    found = manifest_of("r")
    one, two, three = (session["machine"] for session in found["sessions"])
    assert one == three != two
    assert found["facts"][two]["cpu"] == "another"
    assert missing(found) == []
    sources = [entry["source"] for entry in found["pipelines"]]
    kinds = {one, two, *sources, *(s[n] for s in found["sessions"] for n in ("code", "packages"))}
    parts = [stage["parts"] for stage in found["stages"].values()]
    assert found["facts"].keys() == kinds | {p[n] for p in parts for n in ("sources", "versions")}


class Stops:
    """Is interrupted at its third batch, if ``when`` says so."""

    independent = True
    when = True
    asked = 0

    def retrieve(self, queries: Any, k: int) -> list[list[Hit]]:
        Stops.asked += 1
        if Stops.when and Stops.asked == 3:
            raise KeyboardInterrupt
        return [[Hit(d, 0.0) for d in q.pool[:k]] for q in queries]


def test_an_interrupted_start_says_so_and_going_on_is_a_session(monkeypatch, capsys) -> None:
    registry.register("systems", "stops")(Stops)
    monkeypatch.setattr(Stops, "asked", 0)
    words = ["run", "--task", "toy", "--system", "bm25", "stops", "--batch-size", "4"]
    assert main([*words, "--out", "r"]) == 130
    assert ends("r") == ["interrupted"]
    found = manifest_of("r")
    assert [entry["errors"] for entry in found["pipelines"]] == [0, None]
    assert found["sessions"][0]["ended"] is not None
    assert missing(found) == []
    monkeypatch.setattr(Stops, "when", False)
    assert main([*words, "--out", "r"]) == 0
    assert ends("r") == ["interrupted", "finished"]
    assert [entry["errors"] for entry in manifest_of("r")["pipelines"]] == [0, 0]


def test_a_killed_start_has_no_end_and_going_on_is_a_session(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script), "r"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while not list(Path("r").rglob("rows.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert ends("r") == [None]
    assert manifest_of("r")["sessions"][0]["ended"] is None
    assert missing(manifest_of("r")) == []
    subprocess.run(command, check=True, capture_output=True)
    assert ends("r") == [None, "finished"]


def test_errors_are_counted_by_pipeline() -> None:
    broken = True

    class Moody:
        def retrieve(self, queries, k):
            if broken and any("3" in q.text for q in queries):
                raise RuntimeError("not today")
            return [[Hit(q.pool[0], 1.0)] for q in queries]

    class Dead:
        def open(self, corpus, folder, brief):
            raise KeyError("klingon")

        def retrieve(self, queries, k):
            return []

    registry.register("systems", "moody")(Moody)
    registry.register("systems", "dead")(Dead)
    api.run(["toy"], ["bm25", "moody"], out="r")
    assert [entry["errors"] for entry in manifest_of("r")["pipelines"]] == [0, 13]
    broken = False
    with pytest.raises(api.HarnessError, match="klingon"):
        api.run(["toy"], ["bm25", "moody", "dead"], out="r")
    assert [entry["errors"] for entry in manifest_of("r")["pipelines"]] == [0, 0, 40]
    assert ends("r") == ["errors", "errors"]


def test_a_full_disk_is_told_as_before_and_the_session_ends_with_errors(monkeypatch) -> None:
    from harness.run.store import RowFile

    def full(self, rows, label):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowFile, "append", full)
    with pytest.raises(api.HarnessError, match="No space left"):
        api.run(["toy"], ["bm25"], out="r")
    assert ends("r") == ["errors"]


def test_an_old_manifest_is_read_and_left_alone_until_there_is_something_to_do() -> None:
    folder = api.run(["toy"], ["bm25"], out="r", limit=5)
    new = manifest_of(folder)
    names = [n for n in new["pipelines"][0] if n not in ("device", "dtype", "batch_size")]
    names = [n for n in names if n not in ("errors", "source", "train", "stages")]
    old = {"format": 1, "pipelines": [{n: e[n] for n in names} for e in new["pipelines"]]}
    (folder / "manifest.json").write_text(json.dumps(old))
    api.run(["toy"], ["bm25"], out="r", limit=5)
    assert manifest_of(folder) == old
    api.score(folder)
    assert api.records(folder)
    assert {"sessions", "stages", "facts"} <= {name.partition("[")[0] for name in missing(old)}
    api.run(["toy"], ["random"], out="r", limit=5)
    mixed = manifest_of(folder)
    assert mixed["format"] == 2 and ends(folder) == ["finished"]
    lacking = missing(mixed)
    assert lacking and all(name.startswith("pipelines[0].") for name in lacking)
    api.run(["toy"], ["bm25"], out="r", limit=6)
    assert missing(manifest_of(folder)) == []


# --- code, machine, packages ----------------------------------------------------------


def checkout(folder: Path) -> Callable[..., None]:
    """A repository with the harness in it, and what runs git there."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    (folder / "harness").mkdir(parents=True)
    (folder / "harness" / "__init__.py").write_text("")

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return git


def test_an_installed_package_says_that_it_is_no_checkout(tmp_path: Path) -> None:
    (tmp_path / "site" / "harness").mkdir(parents=True)
    (tmp_path / "site" / "harness" / "__init__.py").write_text("")
    told = code(tmp_path / "site")
    assert told["commit"] is None and told["diff"] is None
    assert told["reason"] == "not a git checkout"
    checkout(tmp_path / "theirs")
    shutil.move(tmp_path / "site", tmp_path / "theirs" / "site")
    assert code(tmp_path / "theirs" / "site") == told


def test_without_git_it_says_so(tmp_path: Path, monkeypatch) -> None:
    checkout(tmp_path / "c")
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert code(tmp_path / "c")["reason"] == "git is not installed"
    api.run(["toy"], ["bm25"], out="r")
    assert missing(manifest_of("r")) == []


def test_a_changed_checkout_is_told_by_a_hash_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    git = checkout(folder)
    clean = code(folder)
    assert len(clean["commit"]) == 40 and clean["reason"] == ""
    assert (clean["diff"], clean["changed"]) == (None, [])
    (folder / "harness" / "new.py").write_text("secret = 1")
    assert code(folder) == clean | {"changed": ["harness/new.py"]}
    (folder / "harness" / "__init__.py").write_text("secret = 2")
    one = code(folder)
    assert one["changed"] == ["harness/__init__.py", "harness/new.py"]
    (folder / "harness" / "__init__.py").write_text("secret = 3")
    assert code(folder)["diff"] not in (None, one["diff"])
    assert "secret" not in json.dumps(one)
    git("commit", "-am", "second")
    assert code(folder)["commit"] != clean["commit"] and code(folder)["diff"] is None


def test_a_gpu_is_what_nvidia_smi_tells(tmp_path: Path, monkeypatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    program.write_text("#!/bin/sh\necho 'Big One, 550.54, 81559 MiB'\n")
    program.chmod(0o755)
    gpu = {"name": "Big One", "driver_version": "550.54", "memory.total": "81559 MiB"}
    assert machine()["gpus"] == [gpu]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine()["gpus"] == []


def test_numeric_packages_stand_apart() -> None:
    told = packages()
    assert {"numpy", "numba", "torch", "bm25s"} <= told["numeric"].keys()
    assert {"typer", "pandas"} <= told["others"].keys()
    assert not told["numeric"].keys() & told["others"].keys()


def test_threads_are_as_set_and_nothing_is_imported_for_them() -> None:
    code = (
        "import json, sys; from harness.run.environment import *; machine(); packages();"
        "print(json.dumps([threads({'OMP_NUM_THREADS': '3'}), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, loaded = json.loads(done.stdout)
    assert told["OMP_NUM_THREADS"] == "3" and told["MKL_NUM_THREADS"] is None
    assert told["torch"] is None and not loaded
    import torch

    assert threads()["torch"] == torch.get_num_threads()


# --- what must not be in it -----------------------------------------------------------


def test_no_question_answer_or_passage_is_in_it() -> None:
    registry.register("systems", "pupil")(Pupil)
    task = "mini-hotpotqa:documents=300,questions=40"
    folder = api.run([task], ["random", "bm25@3+pupil@2"], limit=10)
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    homes = [path.parent for path in Path("data").glob("mini-hotpotqa*/*/queries.jsonl")]
    assert len(homes) == 2
    found: set[str] = set()
    for home in homes:
        found |= {row["text"] for row in read_lines(home / "queries.jsonl")}
        found |= {a for gold in read_gold(home).values() for a in gold.answers}
    for path in Path("data/corpora").glob("*/documents.jsonl"):
        for row in read_lines(path):
            found |= {row["text"], row.get("title", ""), *row.get("sentences", ())}
    told = {each.strip() for each in found if len(each.strip()) > 4}
    assert len(told) > 900
    assert not [each for each in told if each in text]


def test_no_name_of_a_user_or_a_host_is_in_it(tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "home" / "annabel"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert main(["run", "--task", "toy", "--system", "bm25", "--out", f"{home}/r"]) == 0
    found = manifest_of(home / "r")
    assert found["sessions"][0]["command"]["argv"][-1] == "~/r"
    words = set(re.findall(r"[\w.-]+", json.dumps(found)))
    assert not words & {"annabel", socket.gethostname(), getpass.getuser()}
    assert str(environment.ROOT) not in json.dumps(found)


def test_the_source_of_data_is_told_by_name_and_checksum(tmp_path: Path) -> None:
    class Filed(Toy):
        offline = False

        def load(self, source: Path | None, split: str, limit: int | None) -> Loaded:
            loaded = super().load(source, split, limit)
            loaded.notes["rows without an answer"] += 2
            return loaded

        def files(self, source: Path | None, split: str) -> list[Path]:
            assert source is not None
            return [source]

    registry.register("tasks", "filed")(Filed)
    place = tmp_path / "private" / "rows.json"
    place.parent.mkdir()
    place.write_text("[]")
    api.prepare("filed", place)
    found = manifest_of(api.run(["filed"], ["bm25"]))
    told = found["facts"][found["pipelines"][0]["source"]]
    assert told["from"] == "rows.json"
    assert told["files"].keys() == {"rows.json"} and len(told["files"]["rows.json"]) == 64
    assert told["notes"] == {"rows without an answer": 2}
    assert told["licence"] == "not stated"
    assert "private" not in json.dumps(found)


def test_scores_say_what_computed_them() -> None:
    folder = api.score(api.run(["toy"], ["bm25"]))
    told = json.loads((folder / "scores.json").read_text())["scorer"]
    assert len(told["sources"]) == 16
    assert {"ir-measures", "numpy"} <= told["versions"].keys()

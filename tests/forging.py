"""Bundles for the tests of the verifier: good ones, made once, and ways to forge them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from harness import api
from harness.manifest import digest, stage_key
from harness.provenance import parts_of
from harness.report.bundle import archive, pack

TASK = "mini-hotpotqa:documents=300,questions=40"
SUBMISSION = {
    "system": "A system",
    "description": "Ranks by words, reads two passages. Zürich, 東京 and π too.",
    "contact": "somebody at example.org",
    "licence": "Apache-2.0",
    "training_data": ["the mini world"],
    "hardware": "two cores",
}
Files = dict[str, bytes]


def packed(
    place: Path,
    data: Path,
    tasks: Sequence[str] = (TASK,),
    systems: Sequence[str] = ("random", "bm25@5"),
    name: str = "good",
    submission: Mapping[str, Any] = SUBMISSION,
    **options: Any,
) -> Path:
    """A run, scored and packed: ``place/name.zip``; its folder is ``place/name``."""
    folder = api.run(tasks, systems, out=place / name, data=data, **options)
    api.score(folder)
    told = place / f"{name}.submission.json"
    told.write_text(json.dumps(submission))
    return pack(folder, told, place / f"{name}.zip")


def files_of(bundle: Path) -> Files:
    """The files of a bundle, but for bundle.json."""
    with ZipFile(bundle) as opened:
        return {n: opened.read(n) for n in opened.namelist() if n != "bundle.json"}


def forged(bundle: Path, change: Callable[[Files], object], out: Path | None = None) -> Path:
    """A copy of a bundle with changed files and a bundle.json that fits them."""
    files = files_of(bundle)
    change(files)
    out = out or Path("forged.zip")
    out.write_bytes(archive(files))
    return out


def rows_name(files: Files, system: str = "bm25") -> str:
    """The rows of a pipeline."""
    return next(n for n in files if n.endswith("/rows.jsonl") and f"/{system}" in n)


def edit(files: Files, name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file as a value."""
    value = json.loads(files[name])
    change(value)
    files[name] = (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def edit_row(
    files: Files, change: Callable[[dict[str, Any]], object], system: str = "bm25"
) -> None:
    """Change the first row of a pipeline, written as a run writes it."""
    name = rows_name(files, system)
    first, *rest = files[name].splitlines(keepends=True)
    row = json.loads(first)
    change(row)
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    files[name] = b"".join([text.encode() + b"\n", *rest])


def edit_line(files: Files, name: str, change: Callable[[bytes], bytes], number: int = 0) -> None:
    """Change one line as bytes."""
    lines = files[name].splitlines(keepends=True)
    lines[number] = change(lines[number])
    files[name] = b"".join(lines)


def rehash(about: dict[str, Any]) -> None:
    """Give facts, stages and pipelines of a manifest the keys that its changed contents have."""
    facts = {key: digest(fact) for key, fact in about["facts"].items()}
    about["facts"] = {facts[key]: fact for key, fact in about["facts"].items()}
    text = json.dumps({name: about[name] for name in ("pipelines", "stages", "sessions")})
    for old, new in facts.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    about |= json.loads(text)
    for entry in about["pipelines"]:
        keys: list[str] = []
        for key in entry["stages"]:
            stage = json.loads(json.dumps(about["stages"][key]))
            stage["parts"]["after"] = keys[-1] if keys else None
            new = {**about, "stages": {"new": stage}}
            keys.append(stage_key(parts_of(new, "new")))
            about["stages"][keys[-1]] = stage
        entry["stages"], entry["key"] = keys, keys[-1]
    used = {key for entry in about["pipelines"] for key in entry["stages"]}
    about["stages"] = {key: stage for key, stage in about["stages"].items() if key in used}


def rescored(files: Files, about: Mapping[str, Any], data: Path, place: Path) -> None:
    """Put the scores in that these rows really have: arithmetic alone finds nothing wrong."""
    folder = place / "rescored"
    for entry in about["pipelines"]:
        path = folder / entry["rows"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[entry["rows"]])
    own = [{**e, "data": str(data / e["data"])} for e in about["pipelines"]]
    (folder / "manifest.json").write_text(json.dumps({**about, "pipelines": own}))
    api.score(folder)
    for name in ("scores.json", "scores.jsonl"):
        files[name] = (folder / name).read_bytes()


def zip_of(write: Callable[[ZipFile], object]) -> bytes:
    """The bytes of a zip that somebody else's tool wrote."""
    out = BytesIO()
    with ZipFile(out, "w") as opened:
        write(opened)
    return out.getvalue()

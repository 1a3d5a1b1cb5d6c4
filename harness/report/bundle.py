"""A run as one file that somebody else can check: ``submit RUN --bundle``.

    bundle.json      {"format": 1, "files": {name: {"bytes": …, "blake2b": …}}}
    manifest.json    how the run came about; where data lay is cut to <task>/<fingerprint>
    submission.json  what the submitter says of it: `FIELDS`
    scores.json, scores.jsonl      what is claimed
    <task>/<pipeline>/rows.jsonl   a row a question asked, in order, and no other
    latency.jsonl    if it was measured     challenge.json  if it answers one

There is no corpus text in it but what a system wrote itself (``raw``, answers, extras); what judges
said (claims.json, claims.jsonl) stays out, for it has the claims of the gold answers. Names are
sorted and dates fixed, so that the same run packs to the same bytes.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from harness.canonical import read_lines, sample
from harness.data import HarnessError, raise_together
from harness.files import json_value, taken
from harness.provenance import missing
from harness.run import timings
from harness.run.store import RowFile, row_line
from harness.score.results import Sample, read_manifest, read_scores
from harness.score.scoring import data_of

LATENCY = timings.NAME
FORMAT = 1
FIELDS = {
    "system": "what to call it in a table",
    "description": "what it does, in a few sentences",
    "contact": "where to ask",
    "licence": "of the system, or that it has none",
    "training_data": "a list of all data sets that it or a model in it was trained on; [] is none",
    "hardware": "what it ran on",
}
"""What submission.json holds: all are texts but for training_data, a list of texts."""
MEBI = 1 << 20
LIMITS = {
    "bundle.json": MEBI,
    "submission.json": MEBI >> 4,
    "challenge.json": MEBI,
    "manifest.json": 64 * MEBI,
    "scores.json": 16 * MEBI,
    "scores.jsonl": 2048 * MEBI,
    LATENCY: 512 * MEBI,
}
"""The files of a bundle beside its rows, and how many bytes each may have."""
ALWAYS = ("manifest.json", "submission.json", "scores.json", "scores.jsonl")
ROWS = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.,=@+_-]{0,119}/[A-Za-z0-9][A-Za-z0-9.,=@+_-]{0,119}/rows\.jsonl"
)
LONG = 2_000
"""Characters of a text in submission.json."""
_DATE = (1980, 1, 1, 0, 0, 0)


def limit_of(name: str) -> int:
    """How many bytes a file of a bundle may have."""
    return LIMITS.get(name, 2048 * MEBI)


def pack(
    run: Path,
    submission: Path | None,
    out: Path,
    challenge: Path | None = None,
    data: Path | str | None = None,
) -> Path:
    """Write a run as a bundle; returns ``out``. It must be finished and scored.

    submission: the filled-in file that `template` writes
    data:       where prepared data is kept, if it is not where it was when the run was made
    Raises `HarnessError`, with all mistakes together; then nothing is written.
    """
    told, mistakes = read_submission(submission, out, str(run))
    scores = ""
    try:
        read_scores(run)
        scores = (run / "scores.jsonl").read_text(encoding="utf-8")
        about = _whole_manifest(run)
    except HarnessError as error:
        mistakes.append(error)
    raise_together(mistakes)
    rows = {_checked(entry["rows"]): _rows(run, entry, data) for entry in about["pipelines"]}
    files = {
        **rows,
        "manifest.json": _json(_homeless(about)),
        "submission.json": _json(told),
        "scores.json": _json(_heads(run, about, rows)),
        "scores.jsonl": scores.encode(),
    }
    for name, path in ((LATENCY, run / LATENCY), ("challenge.json", challenge)):
        if path is not None and path.exists():
            files[name] = path.read_bytes()
    _place(out, archive(files))
    return out


def _checked(name: str) -> str:
    """The name of a file of rows; `HarnessError` if no verifier would take it."""
    if not ROWS.fullmatch(name):
        raise HarnessError(
            f"{name} cannot stand in a bundle: a folder's name begins with a letter or a digit.",
            "Run it again into a new folder.",
        )
    return name


def quoting(run: Path) -> list[str]:
    """The pipelines that wrote something about data which is not generated: it may quote."""
    about = read_manifest(run)
    return [
        f"{each['system']} on {each['task']}: its rows hold what it wrote itself, which may quote "
        f"passages. Licence of the data: {about['facts'][each['source']]['licence']}"
        for each in about["pipelines"]
        if each["answers"] and not each["generated"]
    ]


def write_template(run: Path, out: Path) -> Path:
    """Write submission.json to be filled in; what the run knows itself stands in it."""
    raise_together(taken(out))
    about = read_manifest(run)
    facts = about.get("facts", {})
    machines = [facts.get(each.get("machine"), {}) for each in about.get("sessions", ())]
    last: Mapping[str, Any] = machines[-1] if machines else {}
    gpus = [str(gpu.get("name", gpu)) for gpu in last.get("gpus", ())]
    words = [str(last["cpu"]), f"{last['cores']} cores", *gpus] if last else []
    blank: dict[str, Any] = dict.fromkeys(FIELDS, "")
    _place(out, _json({**blank, "training_data": None, "hardware": ", ".join(words)}))
    return out


def wrong_fields(told: object) -> list[str]:
    """What is wrong with submission.json as a value, a sentence each."""
    if not isinstance(told, dict):
        return ["it is no object."]
    found = [f"{name!r} is no field of it." for name in told.keys() - FIELDS.keys()]
    for name, what in FIELDS.items():
        value = told.get(name)
        texts = value if name == "training_data" else [value]
        if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
            found.append(f"{name} is missing: {what}.")
        elif any(len(text) > LONG for text in texts):
            found.append(f"{name} is longer than {LONG} characters.")
    return found


def read_submission(
    path: Path | None, out: Path, run: str = "RUN"
) -> tuple[dict[str, Any], list[HarnessError]]:
    """What a submission says, and all that can be wrong with a bundle before anything is run."""
    blank = f"`submit {run} --template -o submission.json` writes one to fill in."
    mistakes = taken(out)
    if path is None:
        return {}, [*mistakes, HarnessError("a bundle needs --submission.", blank)]
    try:
        told = json_value(path)
    except HarnessError as error:
        return {}, [*mistakes, error]
    wrong = [HarnessError(f"{path}: {each}", blank) for each in wrong_fields(told)]
    return told, mistakes + wrong


def _whole_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run that is finished and says all that it has to."""
    about, again = read_manifest(run), "Run the same command again."
    if lacking := missing(about):
        raise HarnessError(
            f"{run}: its manifest lacks {', '.join(lacking[:3])}"
            + (f" and {len(lacking) - 3} more." if len(lacking) > 3 else "."),
            f"{again} A folder of an older version has to be run anew.",
        )
    for entry in about["pipelines"]:
        if entry["errors"] is None:
            raise HarnessError(f"{run}: {entry['system']} is not finished.", again)
    return about


def _rows(run: Path, entry: Mapping[str, Any], home: Path | str | None) -> bytes:
    """The rows of the questions that were asked, in order."""
    file = data_of(entry, "queries.jsonl", home) / "queries.jsonl"
    every = [row["id"] for row in read_lines(file)]
    ids, rows = sample(every, entry["limit"], entry["seed"]), RowFile(run / entry["rows"])
    lacking = sum(query_id not in rows for query_id in ids)
    if lacking:
        raise HarnessError(
            f"{run}: {entry['system']} has no row for {lacking} of {len(ids)} questions.",
            "Run the same command again.",
        )
    return b"".join(map(row_line, rows.read(ids)))


def _homeless(about: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without the folders of the submitter's machine that data lay in."""
    entries = [{**e, "data": "/".join(Path(e["data"]).parts[-2:])} for e in about["pipelines"]]
    return {**about, "pipelines": entries}


def _heads(run: Path, about: Mapping[str, Any], rows: Mapping[str, bytes]) -> dict[str, Any]:
    """scores.json, fitted to the rows that are packed."""
    heads: dict[str, Any] = json_value(run / "scores.json")
    sizes = {(Sample.of(e).digest, e["system"]): len(rows[e["rows"]]) for e in about["pipelines"]}
    for head in heads["tables"]:
        for system, told in head["systems"].items():
            told["bytes"] = sizes[head["sample"], system]
    return heads


# --- bytes ----------------------------------------------------------------------------


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files as the bytes of a bundle, with its bundle.json."""
    about = {
        name: {"bytes": len(data), "blake2b": blake2b(data).hexdigest()}
        for name, data in sorted(files.items())
    }
    listed = {"bundle.json": _json({"format": FORMAT, "files": about}), **files}
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name in sorted(listed):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            packed.writestr(info, listed[name], zipfile.ZIP_DEFLATED, 6)
    return out.getvalue()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _place(out: Path, data: bytes) -> None:
    """Write a file under its name once it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".part-{out.name}")
    try:
        part.write_bytes(data)
        part.rename(out)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)

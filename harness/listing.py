"""What there is to use: ``list`` and ``doctor``. Nothing heavy is imported to find out."""

from __future__ import annotations

import inspect
import platform
import shutil
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from harness import registry
from harness.data import HarnessError
from harness.registry import Kind

NEEDS = {
    "scores, tables, bm25": (
        ("bm25s", "ir-measures", "pandas"),
        "pip install -c constraints.txt -e .",
    ),
    "models: e5 … raggd": (
        ("torch", "transformers", "peft"),
        "pip install -c constraints.txt -e .",
    ),
    "retrollm's n-grams": (
        ("pydivsufsort", "numba"),
        "pip install -c constraints.txt -e .",
    ),
    "prepare from the hub": (("datasets",), "pip install -c constraints.txt -e '.[hub]'"),
    "Mamba-2 CUDA kernels": (
        ("mamba-ssm",),
        "pip install -c constraints.txt -e '.[cuda]' on Linux with CUDA",
    ),
    "4-bit base weights": (("bitsandbytes",), "pip install bitsandbytes, with CUDA"),
    "MS MARCO ROUGE and BLEU": (("spacy",), "pip install -c constraints.txt -e '.[msmarco]'"),
}


def listing(kinds: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Names, options and what to know of each task, system, recipe or judge; why one cannot be
    loaded."""
    return {
        kind: [_entry(cast(Kind, kind), name) for name in sorted(registry.table(cast(Kind, kind)))]
        for kind in kinds
    }


def _entry(kind: Kind, name: str) -> dict[str, Any]:
    try:
        cls: Any = registry.find(kind, name)
    except HarnessError as error:
        return {"name": name, "unusable": str(error)}
    if kind == "recipes":  # to look at one is to load torch
        told = registry.options_of(cls.options) if hasattr(cls, "options") else {}
        return {"name": name, "options": {option: p.default for option, p in told.items()}}
    options = {
        option: "(required)" if p.default is inspect.Parameter.empty else p.default
        for option, p in registry.options_of(cls).items()
    }
    entry: dict[str, Any] = {"name": name, "options": options}
    entry["about"] = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    if kind == "judges":
        return entry
    if kind == "systems":
        return entry | {"can": list(registry.capabilities(cls))}
    known = (
        *("splits", "settings", "answer_metrics", "ranking_metrics", "licence", "citation"),
        "generated",
    )
    return entry | {key: getattr(cls, key) for key in known}


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The listing for people."""
    lines = []
    for kind, entries in found.items():
        lines.append(kind)
        for entry in entries:
            if "unusable" in entry:
                lines.append(f"  {entry['name']:<22} not usable: {entry['unusable']}")
                continue
            options = ",".join(f"{key}={value}" for key, value in entry["options"].items())
            more = {
                "tasks": lambda e: f"{'/'.join(e['splits'])}; {'/'.join(e['settings'])}",
                "systems": lambda e: ", ".join(e["can"]),
                "recipes": lambda e: f"python -m harness train {e['name']} --out DIR",
                "judges": lambda e: str(e["about"]),
            }[kind](entry)
            lines.append(f"  {entry['name']:<22} {more}{f'; {options}' if options else ''}")
    return "\n".join(lines)


def diagnosis(data: Path) -> str:
    """What can be used on this machine, a line each."""
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for use, (packages, mend) in NEEDS.items():
        missing = [package for package in packages if not _version(package)]
        there = ", ".join(f"{p} {_version(p)}" for p in packages if _version(p))
        state = f"no: {', '.join(missing)} missing; {mend}" if missing else f"yes: {there}"
        lines.append(f"{use:<26} {state}")
    places = import_module("systems.models.hub").SHIPPED.glob("*/")
    shipped = sorted(place.name for place in places)
    lines.append(f"{'shipped checkpoints':<26} {', '.join(shipped) or 'none'}")
    lines.append(f"{'GPU':<26} {_gpu()}")
    room = shutil.disk_usage(data if data.exists() else Path.cwd())
    lines.append(f"{'disk':<26} {room.free / 2**30:.0f} GiB free")
    pointers = sorted(data.glob("*/*.json")) if data.exists() else []
    prepared = ", ".join(f"{p.parent.name} ({p.stem})" for p in pointers)
    lines.append(f"{f'prepared in {data}':<26} {prepared or 'nothing yet: harness prepare TASK'}")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _gpu() -> str:
    if find_spec("torch") is None:
        return "unknown: torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "no: torch sees no CUDA device; --device cpu"
    return f"yes: {torch.cuda.get_device_name(0)}; --device cuda"

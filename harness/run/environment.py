"""What a run's numbers may depend on beside its stages: machine, code, packages, threads.

Nothing is imported to find out: torch and numba are asked for their threads if they are loaded,
a GPU is what nvidia-smi tells. No name of a user or host and no path is among it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import harness
from harness import manifest
from harness.provenance import THREADS
from harness.run.timings import cpu_model

ROOT = Path(harness.__file__).parent.parent
"""Where the packages of the harness lie: a checkout, or an environment that it is installed in."""
DISTRIBUTION = "retrieval-qa-harness"
PATIENCE = 10.0
"""Seconds that git or nvidia-smi may take."""


def machine() -> dict[str, Any]:
    """The processor, memory, GPUs, system and Python of this process."""
    cores = os.cpu_count() or 1
    affine = getattr(os, "sched_getaffinity", None)
    return {
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cpu": cpu_model(),
        "flags": _flags(),
        "cores": cores,
        "usable_cores": len(affine(0)) if affine else cores,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
    }


def _flags() -> str:
    """The processor's instruction sets, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":") for line in lines)
    told = (value for name, _, value in named if name.strip() in ("flags", "Features"))
    return " ".join(sorted(next(told, "").split()))


def _gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each GPU that nvidia-smi tells of."""
    names = ("name", "driver_version", "memory.total")
    told = _said("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader")
    lines = (told or b"").decode().splitlines()
    return [dict(zip(names, map(str.strip, line.split(",")), strict=False)) for line in lines]


def code(root: Path = ROOT) -> dict[str, Any]:
    """The state of the harness: its commit and what differs from it, or why there is none.

    diff:    hash of `git diff HEAD`; None where nothing differs
    changed: files that differ from the commit, and modules that it does not have
    """
    commit, reason = None, ""
    if shutil.which("git") is None:
        reason = "git is not installed"
    elif _git(root, "ls-files", "--error-unmatch", "--", "harness/__init__.py") is None:
        reason = "not a git checkout"
    elif (head := _git(root, "rev-parse", "HEAD")) is None:
        reason = "the checkout has no commit"
    else:
        commit = head.decode().strip()
    dirt = _dirt(root) if commit else {"diff": None, "changed": []}
    return {"version": _version(), "commit": commit, **dirt, "reason": reason}


def _dirt(root: Path) -> dict[str, Any]:
    """What differs from the commit: a hash, and the names of files."""
    diff = _git(root, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD") or b""
    names = _git(root, "diff", "--name-only", "-z", "HEAD") or b""
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", *manifest.FIRST_PARTY)
    changed = {
        each.decode(errors="replace") for each in (names + (new or b"")).split(b"\0") if each
    }
    return {
        "diff": blake2b(diff, digest_size=8).hexdigest() if diff else None,
        "changed": sorted(changed),
    }


def _git(root: Path, *words: str) -> bytes | None:
    return _said("git", "--no-optional-locks", "-C", str(root), *words)


def _said(*words: str) -> bytes | None:
    """What a program prints; None if it is not there, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


def packages() -> dict[str, dict[str, str]]:
    """Versions of all that is installed; those apart that can change a score."""
    names = {*manifest.ALWAYS, *(each for names in manifest.NUMERIC.values() for each in names)}
    found: dict[str, str] = {}
    for each in distributions():
        found.setdefault(each.name, each.version)
    return {
        "numeric": {name: found[name] for name in sorted(found) if name in names},
        "others": {name: found[name] for name in sorted(found) if name not in names},
    }


def threads(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Threads of each library: as set in the environment, and as torch and numba say if they are
    loaded."""
    names = (f"{library}_NUM_THREADS" for library in THREADS)
    told: dict[str, Any] = {name: environment.get(name) for name in names}
    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    told["torch"] = torch.get_num_threads() if torch else None
    told["numba"] = numba.config.NUMBA_NUM_THREADS if numba else None
    return told

"""What an index of all n-grams costs, and how fast it says what can follow.

    python benchmarks/ngrams.py [--tokens 10 100] [--words 50000]

For each size (in million tokens; words by Zipf's law, 100 to a document, each word often followed
by the same few, as in text): seconds and peak bytes a token to build, bytes a token on disk,
milliseconds to open it again, and microseconds for the tokens that follow prefixes of 1, 2, 3 and 5
tokens taken from the corpus, by the compiled loop alone and by the call that decoding makes. Beside
it, on the smallest size, what one scan of all tokens takes, and, where g++ and Debian's libsdsl-dev
are there, an FM-index (``sdsl.cpp``); all must agree. Exit code 1 if
they do not, if opening takes more than 100 ms, or if the compiled loop takes more than 1 µs from
three tokens on.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numba
import numpy as np

from systems.retrollm.ngrams import Ngrams
from systems.retrollm.suffixes import continued

DEPTHS, PREFIXES, DOCUMENT = (1, 2, 3, 5), 20_000, 100


def corpus(size: int, words: int) -> np.ndarray:
    """Documents (n, `DOCUMENT`): a word is drawn anew, or follows the one before it as it often
    does."""
    rng = np.random.default_rng(size)
    shares = 1 / np.arange(1, words + 1) ** 1.07
    drawn = np.searchsorted((shares / shares.sum()).cumsum(), rng.random(size)).clip(0, words - 1)
    often = rng.integers(0, words, size=(words, 4))
    rows = drawn.reshape(-1, DOCUMENT)
    for place in range(1, DOCUMENT):
        follows = rng.random(len(rows)) < 0.6
        chosen = often[rows[:, place - 1], rng.integers(0, 4, len(rows))]
        rows[:, place] = np.where(follows, chosen, rows[:, place])
    return rows


def build(size: int, words: int, folder: Path) -> None:
    """Build an index and print its seconds and this process's peak memory, beyond the corpus."""
    documents = corpus(size, words)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun = time.perf_counter()
    made = Ngrams.of(documents)
    spent = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    made.save(folder)
    print(f"{spent} {peak / size}")


@numba.njit
def loop(tokens, suffixes, lows, highs, depth, ids, counts):
    """What follows many prefixes, one after the other."""
    total = 0
    for place in range(len(lows)):
        total += continued(tokens, suffixes, lows[place], highs[place], depth, ids, counts)
    return total


def followed(index: Ngrams, depth: int) -> tuple[float, float, float]:
    """Of prefixes of so many tokens: microseconds of the loop and of the call, and how many tokens
    follow."""
    grams = grams_of(index, depth)
    prefixes = [index.prefix(gram) for gram in grams]
    lows = np.array([each.low for each in prefixes])
    highs = np.array([each.high for each in prefixes])
    room = (
        np.empty(len(index._root.ids) + 1, np.int64),
        np.empty(len(index._root.ids) + 1, np.int64),
    )
    arrays = np.asarray(index.tokens), np.asarray(index.suffixes)
    loop(*arrays, lows[:1], highs[:1], depth, *room)
    begun = time.perf_counter()
    total = loop(*arrays, lows, highs, depth, *room)
    inside = time.perf_counter() - begun
    begun = time.perf_counter()
    for each in prefixes:
        index.following(each)
    called = time.perf_counter() - begun
    return 1e6 * inside / PREFIXES, 1e6 * called / PREFIXES, total / PREFIXES


def grams_of(index: Ngrams, depth: int) -> list[list[int]]:
    """Prefixes of so many tokens, taken from the corpus."""
    rng, grams = np.random.default_rng(depth), []
    while len(grams) < PREFIXES:
        document = index.document(int(rng.integers(index.documents)))
        start = int(rng.integers(len(document) - depth))
        grams.append(document[start : start + depth])
    return grams


def compiled(folder: Path) -> Path | None:
    """The FM-index's program, if it can be made here."""
    made = folder / "sdsl"
    libraries = ["-lsdsl", "-ldivsufsort", "-ldivsufsort64"]
    source = str(Path(__file__).with_name("sdsl.cpp"))
    try:
        command = ["g++", "-std=c++17", "-O3", "-DNDEBUG", "-o", str(made), source, *libraries]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return made


def by_sdsl(program: Path, index: Ngrams, folder: Path) -> bool:
    """Print what the FM-index takes; whether as many tokens follow."""
    documents = (index.document(each) for each in range(index.documents))
    parts = [np.array([*each[::-1], -1], np.int32) + 2 for each in documents]
    np.concatenate(parts).tofile(folder / "tokens")
    same = True
    for depth in DEPTHS:
        grams = grams_of(index, depth)
        (np.array(grams, np.int32) + 2).tofile(folder / "queries")
        given = [str(folder / "tokens"), str(folder / "queries"), str(depth)]
        told = subprocess.run([program, *given], check=True, capture_output=True, text=True)
        built, size, spent, total = map(float, told.stdout.split())
        if depth == DEPTHS[0]:
            each = size / len(index.tokens)
            print(f"  FM-index (sdsl): built in {built:.1f} s, {each:.1f} bytes a token")
        print(f"  {depth}: {1e6 * spent / PREFIXES:.2f} µs by the FM-index")
        same &= total == sum(len(index.following(index.prefix(gram)).ids) for gram in grams)
    return same


def scanned(index: Ngrams, gram: list[int]) -> tuple[float, bool]:
    """Milliseconds of looking through all tokens for what follows, and whether it is the same."""
    tokens = np.asarray(index.tokens)
    begun = time.perf_counter()
    there = np.ones(len(tokens) - len(gram), dtype=bool)
    for place, each in enumerate(gram):
        there &= tokens[place : len(there) + place] == each + 1
    ids, counts = np.unique(tokens[len(gram) :][there], return_counts=True)
    spent = time.perf_counter() - begun
    found = index.following(index.prefix(gram))
    inside = ids > 0
    same = np.array_equal(ids[inside] - 1, found.ids) and np.array_equal(
        counts[inside], found.counts
    )
    return 1e3 * spent, same


def main() -> int:
    """Print a line a size; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[10, 100], help="in millions")
    parser.add_argument("--words", type=int, default=50_000)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.tokens[0] * 1_000_000, options.words, options.build)
        return 0
    good = True
    for place, millions in enumerate(options.tokens):
        with tempfile.TemporaryDirectory() as name:
            sizes = ["--tokens", str(millions), "--words", str(options.words)]
            told = subprocess.run(
                [sys.executable, __file__, *sizes, "--build", name],
                check=True,
                capture_output=True,
                text=True,
            )
            seconds, peak = map(float, told.stdout.split())
            disk = sum(file.stat().st_size for file in Path(name).iterdir()) / (millions * 1e6)
            begun = time.perf_counter()
            index = Ngrams.open(Path(name))
            opened = 1e3 * (time.perf_counter() - begun)
            print(
                f"{millions}M tokens: built in {seconds:.1f} s, peak {peak:.1f} bytes a token, "
                f"{disk:.1f} on disk, opened in {opened:.1f} ms"
            )
            good &= opened < 100
            for depth in DEPTHS:
                inside, called, following = followed(index, depth)
                print(f"  {depth}: {following:.1f} follow; {inside:.2f} µs, called {called:.2f} µs")
                good &= depth < 3 or inside <= 1
            if place == 0:
                gram = index.document(1)[:2]
                spent, same = scanned(index, gram)
                print(f"  a scan of all tokens {spent:.0f} ms, {'equal' if same else 'NOT EQUAL'}")
                good &= same
                if program := compiled(Path(name)):
                    good &= by_sdsl(program, index, Path(name))
                else:
                    print("  no FM-index: g++ and libsdsl-dev are not here")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

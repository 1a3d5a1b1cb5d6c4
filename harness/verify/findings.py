"""What is wrong with a bundle: a rule, a place and a sentence for each finding."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

RULES = {
    "archive": "a zip as `submit --bundle` writes it: whole, plain, nothing hidden between files",
    "encrypted": "no encrypted entries",
    "link": "no links and no special files",
    "name": "only names that a bundle has; none that leads elsewhere",
    "duplicate": "no name twice, also not by case or Unicode form",
    "size": "sizes, their number, ratio and the generated world within limits",
    "checksum": "each file has the size and hash that bundle.json gives, and none is left out",
    "json": "UTF-8 JSON with one reading: no repeated key, NaN, number beyond 64 bits, lone half "
    "of a surrogate pair, or depth without end",
    "provenance": "the manifest is whole (`harness.provenance`)",
    "keys": "facts, stages and keys are what their contents hash to, and agree with the pipeline",
    "manifest": "task, split, setting, pipeline, metrics, counts and times are such as a run "
    "writes",
    "submission": "submission.json has its fields, filled",
    "text": "nothing that a table or a page could take for a formula or markup",
    "gold": "no gold in options, overrides or words of a command",
    "data": "the verifier has the task's data",
    "fingerprint": "the data that was run is the verifier's",
    "coverage": "each asked question has exactly one row, and nothing else has one",
    "row": "each row is, byte for byte, what a run would write of such a result; counts, stop and "
    "errors are such as its last stage can have",
    "ranking": "unique ids, finite scores that do not rise, at most as many as the pipeline says",
    "pool": "only documents of the question's pool, or of the corpus, are ranked and read",
    "read": "only passages that the last stage was given to read, as many as the pipeline says; of "
    "one that finds them itself, no more than the stage before passes on",
    "evidence": "documents, sentences and spans that are pointed at exist",
    "scores": "every claimed score is the recomputed one to 1e-9, and none is left out",
    "latency": "latency.jsonl can be read and is about pipelines of the bundle",
    "challenge": "registered stages, unchanged, on the worlds that the published seed gives",
    "rerun": "asked again, the pipeline answers as its rows say",
}
"""Every rule: what holds where it finds nothing."""
LONG = 40
"""Characters of a value that are shown."""
SHOWN = 3
"""Findings of one rule about one file that are told one by one."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. where: a file, with its line if it has lines."""

    rule: str
    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.sentence}"


@dataclass
class Findings:
    """A list of findings that stays short: of a rule and file the first are told, then a count."""

    _told: list[Finding] = field(default_factory=list)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, rule: str, where: str, sentence: str) -> None:
        """Note one. The place is made printable: it may come from a bundle."""
        assert rule in RULES
        where = printable(where)
        key = rule, where.partition(":")[0]
        self._counts[key] += 1
        if self._counts[key] <= SHOWN:
            self._told.append(Finding(rule, where, printable(sentence, 400)))

    def __bool__(self) -> bool:
        return bool(self._told)

    def __iter__(self) -> Iterator[Finding]:
        yield from self._told
        for (rule, file), count in self._counts.items():
            if count > SHOWN:
                yield Finding(rule, file, f"and {count - SHOWN} more like these.")


def counted(number: int, thing: str) -> str:
    """So many of a thing: "1 row", "2 rows"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def told(value: object) -> str:
    """A value of a bundle as JSON, cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def printable(text: str, most: int = 120) -> str:
    """Foreign text for a terminal or a page: what does not print is escaped, long ones are cut."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"

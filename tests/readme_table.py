"""Put the table that the README shows into it: ``python tests/readme_table.py``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from harness import api
from harness.cli import SYSTEMS, TASKS

README = Path(__file__).parent.parent / "README.md"
PLACE = re.compile(
    r"(?<=<!-- table: python -m harness run -->\n).*?(?=<!-- end of table -->)", re.S
)


def first_table(folder: Path) -> str:
    """The first table of the run without options, as markdown."""
    run = api.run(TASKS[:1], SYSTEMS, out=folder / "run", data=folder / "data")
    api.score(run)
    return f"\n{api.report(run, 'markdown')}\n\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        table = first_table(Path(name))
    README.write_text(PLACE.sub(lambda _: table, README.read_text()))

"""Run the README's first command where only the wheel is installed and no socket opens."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import NoReturn


def refused(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a socket was opened")


socket.socket.connect = refused  # type: ignore[method-assign]
socket.create_connection = refused  # type: ignore[assignment]
socket.getaddrinfo = refused  # type: ignore[assignment]

import harness  # noqa: E402
from harness.cli import main  # noqa: E402

if __name__ == "__main__":
    if Path(harness.__file__).parent.parent == Path(__file__).parent.parent:
        sys.exit(f"this is the checkout's harness ({harness.__file__}), not the wheel's")
    sys.exit(main(["run"]) or main(["list"]) or main(["doctor"]))

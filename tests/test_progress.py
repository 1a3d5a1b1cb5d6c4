"""Plain progress lines: one every ten seconds, whether one job is long or many are short."""

from __future__ import annotations

import pytest

from harness.run import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_last_line", now[0])
    return now


def test_many_short_jobs_are_told_of_now_and_then(clock: list[float], capsys) -> None:
    for number in range(8):
        with progress.told(f"job {number}", 2, 0) as advance:
            for _ in range(2):
                clock[0] += 2
                advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"job {n}: {'1/2, about 2' if n in (2, 7) else '2/2, about 0'} s left" for n in (2, 4, 7)
    ]


def test_a_resumed_job_estimates_by_what_is_new(clock: list[float], capsys) -> None:
    with progress.told("long", 100, 90) as advance:
        clock[0] += 20
        advance(5)
        advance(1)
    assert capsys.readouterr().err == "long: 95/100, about 20 s left\n"

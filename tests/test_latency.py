"""Latency is its own pass: what a system really takes, told apart, one question at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import timed_systems
from conftest import Toy

from harness import api, registry
from harness.cli import main
from harness.data import HarnessError
from harness.report import latency as report
from harness.run import latency as timing
from harness.run.plan import make_plan
from harness.run.spans import recorded, span
from harness.run.timings import NAME, Measured, Timing, append, read_timings


@pytest.fixture(autouse=True)
def _known() -> None:
    for name in ("Timed", "Threaded", "Speaker", "Solver", "Judge", "Pupil"):
        registry.register("systems", name.lower())(getattr(timed_systems, name))


def measured(*systems: str, questions: int = 8, rounds: int = 1, **more: Any) -> dict[str, Any]:
    """Latencies on the toy task, by pipeline."""
    folder = api.latency(["toy"], systems, questions=questions, rounds=rounds, **more)
    return {cell.system: cell for cell in api.latencies(folder)}


# --- what is measured -----------------------------------------------------------------


def test_a_system_that_sleeps_20_ms_takes_20_to_22_at_the_median() -> None:
    (cell,) = measured("timed:sleep=0.02", questions=30).values()
    assert 20 <= cell.p50_ms <= 22
    assert 20 <= cell.retrieval_p50_ms <= cell.p50_ms
    assert (cell.questions, cell.p95_ms, cell.answer_p50_ms) == (30, None, None)


def test_a_slow_first_question_is_under_first_and_a_slow_start_under_cold() -> None:
    (cell,) = measured("timed:first=2").values()
    assert 2000 <= cell.first_ms <= 2200
    assert cell.p50_ms < 5
    assert cell.cold_ms < 1900


def test_memory_that_a_system_holds_is_in_its_peak_and_the_parents_is_not() -> None:
    ours = b"x" * 400_000_000
    cells = measured("timed:hold=300", "timed")
    more = cells["timed:hold=300"].peak_bytes - cells["timed"].peak_bytes
    assert 270e6 <= more <= 330e6
    assert cells["timed"].peak_bytes < 200e6 < len(ours)
    assert cells["timed"].before_bytes <= cells["timed"].peak_bytes


def test_every_call_has_one_question_and_no_question_comes_twice_in_a_process() -> None:
    log = Path("calls").absolute()
    measured(f"timed:log={log}", questions=20, rounds=2)
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    assert {len(call) for call in calls} == {2}
    for pid in {pid for pid, *_ in calls}:
        asked = [text for number, text in calls if number == pid]
        assert len(asked) == len(set(asked)) == 1 + timing.WARM + 20
    assert len({pid for pid, *_ in calls}) == 2


def test_a_task_without_questions_to_spare_has_all_of_them_timed_over_the_rounds() -> None:
    log = Path("calls").absolute()
    folder = api.latency(["toy"], [f"timed:log={log}"], questions=40, rounds=2)
    (cell,) = api.latencies(folder)
    assert cell.questions == 40
    assert "34 questions × 2 rounds (40 different ones)" in report.report(folder)
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    assert len(calls) == len({tuple(call) for call in calls}) == 80
    api.latency(["toy"], ["random"], questions=34, rounds=2, out="spare")
    one, two = (each.measured.ids for each in read_timings(Path("spare")))
    assert one == two and len(one) == 34


def test_a_task_with_few_questions_times_what_it_has() -> None:
    folder = api.latency(["toy:count=4"], ["timed"], rounds=1)
    (cell,) = api.latencies(folder)
    assert cell.questions == 3
    (cell,) = api.latencies(api.latency(["toy:count=1"], ["timed"], rounds=1))
    assert (cell.questions, cell.p50_ms, cell.spread) == (0, None, None)
    assert cell.first_ms is not None


def test_answering_is_told_from_retrieving_and_tokens_are_counted() -> None:
    cells = measured("timed:sleep=0.004@3+speaker", "solver")
    cell = cells["timed:sleep=0.004@3+speaker"]
    assert 10 <= cell.answer_p50_ms <= 12
    assert 4 <= cell.retrieval_p50_ms <= 5.5
    assert cell.tokens == 12
    assert cell.answer_ms_per_new_token == pytest.approx(cell.answer_p50_ms / 5, rel=0.3)
    assert (cells["solver"].answer_p50_ms, cells["solver"].retrieval_p50_ms) == (None, None)
    (folder,) = Path("results/runs").iterdir()
    inside = next(each.measured for each in read_timings(folder) if "speaker" in each.system)
    assert 5 <= median(inside.spans["half"]) <= 6
    for whole, *stages in zip(inside.whole, *inside.stages, strict=True):
        assert whole == pytest.approx(sum(stages), abs=0.01)


def test_adapting_is_told_apart_once_and_for_each_question() -> None:
    cells = measured("timed+pupil:once=0.05", "timed+pupil:each=0.02", "timed+pupil", rounds=2)
    once, each, never = cells.values()
    assert 50 <= once.adapt_once_ms <= 60 and once.adapt_p50_ms is None
    assert once.adapt_once_ms < once.cold_ms and once.p50_ms < 10
    assert 20 <= each.adapt_p50_ms <= each.answer_p50_ms <= each.p50_ms < 30
    assert each.adapt_once_ms is None
    assert (never.adapt_once_ms, never.adapt_p50_ms) == (None, None)


def test_tokens_of_every_stage_count_and_a_reranker_alone_reads_too() -> None:
    cells = measured("timed@3+judge@3+judge@3+speaker", "timed@3+judge", "timed")
    assert {name: cell.tokens for name, cell in cells.items()} == {
        "timed@3+judge@3+judge@3+speaker": 212, "timed@3+judge": 100, "timed": None,
    }  # fmt: skip
    cell = cells["timed@3+judge@3+judge@3+speaker"]
    assert cell.answer_ms_per_new_token == pytest.approx(cell.answer_p50_ms / 5, rel=0.3)


def test_threads_are_fixed_before_anything_is_imported(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (cell,) = measured("threaded").values()
    assert cell.failed == ""


def test_an_index_is_built_before_and_its_seconds_and_bytes_are_told() -> None:
    cells = measured("bm25", "timed")
    assert cells["bm25"].index_seconds > 0 and cells["bm25"].index_bytes > 1000
    assert cells["timed"].index_seconds is None
    (about,) = (json.loads(path.read_text()) for path in Path("data/indexes").glob("*/*.json"))
    assert about["seconds"] == cells["bm25"].index_seconds


# --- what goes wrong ------------------------------------------------------------------


def test_a_pipeline_that_fails_says_how_and_leaves_the_others_alone() -> None:
    names = {
        "open": "cannot be started (ValueError: no such luck)",
        "kill": "ended by SIGKILL",
        "exit": "exit code 7",
        "quit": "its process ended before it had measured",
        "hang": "more than 1 s to open, for one question or to close",
        "close": "more than 1 s to open, for one question or to close",
    }
    cells = measured(*(f"timed:fails={how}" for how in names), "timed", rounds=2, patience=1)
    for how, said in names.items():
        cell = cells[f"timed:fails={how}"]
        assert said in cell.failed and f"failed: {cell.failed}" == cell.remark
        assert (cell.rounds, cell.p50_ms) == (0, None)
    assert (cells["timed"].rounds, cells["timed"].failed) == (2, "")


def test_an_errored_question_is_counted_and_not_timed(capsys) -> None:
    folder = api.latency(["toy"], ["timed:fails=some"], rounds=1)
    (cell,) = api.latencies(folder)
    assert cell.errors > 0 and cell.errors + cell.questions == 40 - 1 - timing.WARM
    assert f"errors={cell.errors}" in cell.remark
    assert main(["latency", "--task", "toy", "--system", "timed:fails=some", "--rounds", "1"]) == 3
    assert "RuntimeError: not this one" in capsys.readouterr().err


def test_a_failure_under_another_protocol_device_seed_or_machine_is_not_told() -> None:
    folder = api.latency(["toy"], ["timed:fails=kill"], questions=2, rounds=1)
    plan, protocol = make_plan(["toy"], ["timed:fails=kill"]), timing.Protocol(2, 1)
    assert list(timing.failures(folder, plan, protocol)) == ["toy timed:fails=kill: latency"]
    (line,) = read_timings(folder)
    for other in (
        {"asked": 3}, {"seed": 9}, {"device": "cuda"}, {"dtype": "float16"}, {"round": 1},
        {"machine": {**line.machine, "cpu": "abacus"}}, {"fingerprint": "old"}, {"split": "dev"},
        {"system": "timed"},
    ):  # fmt: skip
        (folder / NAME).unlink()
        append(folder, replace(line, **other))
        assert timing.failures(folder, plan, protocol) == {}, other


def test_what_a_fresh_process_cannot_measure_is_refused_before_anything_starts(tmp_path) -> None:
    @api.register("systems", "typed")
    class Typed:
        def retrieve(self, queries, k):
            return [[] for _ in queries]

    (tmp_path / "a.run").write_text("q 0 d 1 1 x\n")
    with pytest.raises(HarnessError) as caught:
        measured("typed", "trec:file=a.run")
    assert "typed is known in this process alone" in str(caught.value)
    assert "trec:file=a.run is or needs a result from elsewhere" in str(caught.value)
    assert not Path("results").exists()


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
sys.path.insert(0, {tests!r})
import timed_systems
from conftest import Toy
from harness import api
api.register("tasks", "toy")(Toy)
api.register("systems", "timed")(timed_systems.Timed)
api.latency(["toy"], ["timed", "timed:fails=hang,log=calls"], rounds=1, out="r")
"""


def test_interrupted_it_stops_its_process_and_keeps_what_was_finished(tmp_path: Path) -> None:
    script = INTERRUPTED.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    calls = Path("calls")
    while not (calls.exists() and calls.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(calls.read_text().split()[0]), 0)
    assert [each.system for each in read_timings(Path("r"))] == ["timed"]


# --- the file -------------------------------------------------------------------------


def lines(folder: Path) -> list[tuple[int, str]]:
    return [(each.round, each.system) for each in read_timings(folder)]


def test_each_round_begins_with_another_pipeline() -> None:
    systems = ["timed", "random"]
    folder = api.latency(["toy"], systems, questions=1, rounds=3)
    found = [[system for number, system in lines(folder) if number == r] for r in range(3)]
    assert found == [systems, systems[::-1], systems]


def test_the_same_command_measures_what_is_missing_and_nothing_that_is_there() -> None:
    def again(rounds: int = 2, **more: Any) -> bytes:
        api.latency(["toy"], ["random", "timed"], questions=2, rounds=rounds, out="r", **more)
        return path.read_bytes()

    path = Path("r", NAME)
    whole = again()
    state = path.stat()
    assert again() == whole and path.stat().st_mtime_ns == state.st_mtime_ns
    path.write_bytes(whole[:-9])
    mended = again()
    kept = b"".join(whole.splitlines(keepends=True)[:-1])
    assert mended.startswith(kept) and lines(Path("r")) == [
        (0, "random"), (0, "timed"), (1, "timed"), (1, "random"),
    ]  # fmt: skip
    assert again(rounds=3).startswith(mended)
    assert len(lines(Path("r"))) == 6
    assert len(again(rounds=1, seed=1).splitlines()) == 6 + 2


def test_a_failed_or_outdated_line_is_measured_again_and_replaced() -> None:
    folder = api.latency(["toy"], ["random"], questions=2, rounds=1)
    (good,) = read_timings(folder)
    for old in (replace(good, measured=None, failed="a power cut"), replace(good, key="old")):
        (folder / NAME).unlink()
        append(folder, old)
        api.latency(["toy"], ["random"], questions=2, rounds=1)
        (new,) = read_timings(folder)
        assert (new.key, new.failed) == (good.key, "")


def test_a_whole_line_that_cannot_be_read_is_told_and_never_erased(capsys) -> None:
    words = ["latency", "--task", "toy", "--system", "random", "--out", "r"]
    assert main([*words, "--questions", "2", "--rounds", "1"]) == 0
    path = Path("r", NAME)
    found = path.read_bytes().replace(b'"cold"', b'"chilly"') + path.read_bytes()
    path.write_bytes(found)
    capsys.readouterr()
    assert main([*words, "--questions", "2", "--rounds", "2"]) == 2
    assert "latency.jsonl:1 is not a timing that can be read" in capsys.readouterr().err
    assert path.read_bytes() == found


def test_an_error_of_the_latency_pass_does_not_hide_the_tables(capsys) -> None:
    Path("r").mkdir()
    Path("r", NAME).write_text("{}\n")
    words = ["run", "--task", "toy", "--system", "bm25", "--out", "r", "--latency", "short"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert "nDCG@10" in out and "latency.jsonl:1 is not a timing" in err


def test_quality_never_feeds_latency_and_latency_no_rows(capsys) -> None:
    sizes = ["--questions", "3", "--rounds", "1"]
    assert main(["latency", "--task", "toy", "--system", "bm25", "--out", "r", *sizes]) == 0
    before = Path("r", NAME).read_bytes()
    assert not list(Path("r").rglob("rows.jsonl"))
    assert "latency" in capsys.readouterr().out
    assert main(["report", "r"]) == 0
    assert "nDCG" not in (alone := capsys.readouterr().out) and "latency" in alone
    assert main(["run", "--task", "toy", "--system", "bm25", "--out", "r"]) == 0
    both = capsys.readouterr().out
    assert both.index("nDCG@10") < both.index("toy · test · pool · latency")
    assert Path("r", NAME).read_bytes() == before


def test_run_measures_too_if_asked_and_a_second_time_does_nothing(capsys) -> None:
    words = ["run", "--task", "toy", "toy:count=30", "--system", "bm25", "--out", "r"]
    assert main(words) == 0
    assert not Path("r", NAME).exists()
    assert main([*words, "--latency", "short"]) == 0
    assert "30 questions × 2 rounds" in capsys.readouterr().out
    assert lines(Path("r")) == [(0, "bm25"), (1, "bm25")]
    files = [path for path in Path("r").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main([*words, "--latency", "short"]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert main([*words, "--latency", "long"]) == 2
    assert "Write none, short, full" in capsys.readouterr().err


def test_without_task_and_system_run_has_a_short_look(monkeypatch, capsys) -> None:
    asked = []
    done = (0, Path("run"))
    carried_out = "harness.cli.running._carry_out"
    monkeypatch.setattr(carried_out, lambda *words: asked.append(words[-1]) or done)
    monkeypatch.setattr("harness.run.plan.make_plan", lambda *_, **__: None)
    main(["run"])
    main(["run", "--limit", "5"])
    main(["run", "--system", "random"])
    assert asked == [timing.SHORT, timing.SHORT, None]
    main(["run", "--help"])
    assert "without --task and --system" in " ".join(capsys.readouterr().out.lower().split())


# --- what people see ------------------------------------------------------------------


def line(system: str, whole: float, *, answer: float = 0.0, start: int = 0, **more: Any) -> Timing:
    """A line of the file: 100 questions, numbered from ``start``, that took ``whole`` ms, of
    which ``answer`` answering."""
    spans = {"retrieve": [whole - answer] * 100} | ({"answer": [answer] * 100} if answer else {})
    found = Measured(
        cold=100.0,
        first=9.0,
        before=10**7,
        peak=10**8,
        ids=[str(n) for n in range(start, start + 100)],
        whole=[whole] * 100,
        stages=[[whole] * 100],
        spans=spans,
        counts={"prompt_tokens": [None] * 100, "new_tokens": [None] * 100},
        errors=0,
        error="",
        load=[0.5, 0.7],
    )
    parts: dict[str, Any] = {
        "task": "toy",
        "split": "test",
        "setting": "pool",
        "fingerprint": "f",
        "generated": False,
        "asked": 100,
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "machine": {"cpu": "abacus", "cores": 2, "system": "Linux", "python": "3.11.7"},
        "system": system,
        "key": "k",
        "round": 0,
        "versions": {},
        "measured": found,
    }
    return Timing(**parts | more)


def seen(*timings: Timing) -> dict[str, report.Latency]:
    for each in timings:
        append(Path(), each)
    return {cell.system: cell for cell in report.records(".")}


def test_ratios_are_over_bm25_and_over_bm25_reader_at_the_same_depth() -> None:
    cells = seen(
        line("bm25", 2.0),
        line("e5", 8.0),
        line("bm25:k1=0.9", 4.0),
        line("bm25+reader@5", 42.0, answer=40.0),
        line("bm25+reader@3", 22.0, answer=20.0),
        line("e5@100+rico", 84.0, answer=74.0),
        line("bm25+reader@2", 12.0, answer=10.0),
        line("bm25+reader:model=a@2", 24.0, answer=10.0),
        line("e5+reader:model=a@2", 36.0, answer=10.0),
        line("rico@2", 36.0, answer=10.0),
        line("e5+reader:model=b@5", 84.0, answer=10.0),
    )
    assert {name: cell.over_bm25 for name, cell in cells.items()} == {
        "bm25": 1, "e5": 4, "bm25:k1=0.9": 2, "bm25+reader@5": 1, "bm25+reader@3": 1,
        "e5@100+rico": 5, "bm25+reader@2": 1, "bm25+reader:model=a@2": 7,
        "e5+reader:model=a@2": 13, "rico@2": 13, "e5+reader:model=b@5": 37,
    }  # fmt: skip
    assert {name: cell.over_bm25_reader for name, cell in cells.items() if "+" in name} == {
        "bm25+reader@5": 1, "bm25+reader@3": 1, "e5@100+rico": 2, "bm25+reader@2": 1,
        "bm25+reader:model=a@2": 1, "e5+reader:model=a@2": 1.5, "e5+reader:model=b@5": None,
    }  # fmt: skip
    assert cells["e5"].over_bm25_reader is None
    assert cells["rico@2"].over_bm25_reader is None


def test_without_bm25_there_are_no_ratios() -> None:
    cells = seen(line("e5", 8.0), line("e5+reader@5", 8.0, answer=4.0))
    assert {(cell.over_bm25, cell.over_bm25_reader) for cell in cells.values()} == {(None, None)}


def test_a_95th_percentile_needs_200_different_questions() -> None:
    seen(line("bm25", 2.0))
    twice = seen(line("bm25", 2.0, round=1))["bm25"]
    assert (twice.questions, twice.p95_ms) == (100, None)
    more = seen(line("bm25", 2.0, round=2, start=100))["bm25"]
    assert (more.questions, more.p95_ms) == (200, 2.0)


def test_one_round_is_neither_noisy_nor_calm() -> None:
    cell = seen(line("bm25", 2.0))["bm25"]
    assert (cell.spread, cell.remark) == (None, "one round")


def test_rounds_that_differ_are_called_noisy() -> None:
    calm = seen(line("bm25", 2.0), line("bm25", 2.1, round=1))
    assert calm["bm25"].remark == ""
    wild = seen(line("bm25", 2.4, round=2))
    assert wild["bm25"].remark == "noisy: rounds differ by 19%"
    assert "noisy: rounds differ" in report.report(".")


def test_other_machines_and_questions_stand_in_tables_of_their_own() -> None:
    other = {"cpu": "quipu", "cores": 1, "system": "Linux", "python": "3.11.7"}
    seen(line("bm25", 2.0), line("bm25", 3.0, machine=other), line("bm25", 4.0, asked=30))
    text = report.report(".", "markdown")
    assert text.count("**toy · test · pool · latency**") == 3
    assert "abacus, 2 cores" in text and "quipu, 1 cores" in text


def test_a_table_says_mini_has_milliseconds_first_and_leaves_empty_columns_out() -> None:
    seen(line("bm25", 2.0, generated=True), line("e5", 1234.5, generated=True))
    text = report.report(".", "markdown")
    assert "says nothing about the real datasets" in text
    heads = next(row for row in text.splitlines() if "pipeline" in row)
    assert heads.index("p50<br>ms") < heads.index("×bm25")
    assert "p95<br>ms" in heads and "answer" not in heads and "+reader" not in heads
    assert "1,234" in text and "100 questions × 1 rounds" in text and "load 0.5–0.7" in text
    for style in ("table", "latex"):
        assert "bm25" in report.report(".", style)  # type: ignore[arg-type]


def adapted(number: int, once: float, each: float) -> Timing:
    """A round of a pipeline that adapts itself."""
    plain = line("bm25+rag", 30.0, answer=25.0, round=number)
    assert plain.measured is not None
    spans = {**plain.measured.spans, "adapt": [each] * 100}
    found = replace(plain.measured, spans=spans, opening={"adapt": once, "load": 1.0})
    return replace(plain, measured=found)


def test_columns_of_adapting_are_there_where_a_pipeline_adapts() -> None:
    seen(line("bm25", 2.0))
    assert "adapt<br>" not in report.report(".", "markdown")
    rounds = (adapted(0, 700.0, 11.0), adapted(1, 900.0, 13.0), adapted(2, 800.0, 13.0))
    cells = seen(*rounds)
    assert (cells["bm25+rag"].adapt_once_ms, cells["bm25+rag"].adapt_p50_ms) == (800.0, 13.0)
    text = report.report(".", "markdown")
    assert "adapt<br>once ms" in text and "adapt<br>p50 ms" in text
    assert "adapt once:" in text and "adapt p50:" in text
    (plain,) = (row for row in text.splitlines() if row.startswith("| bm25 "))
    assert plain.count("–") >= 2 and " 800 " in text and " 13.0 " in text
    found = {each["system"]: each for each in report.as_json(".")}
    assert found["bm25+rag"]["adapt_once_ms"] == 800.0 and found["bm25"]["adapt_p50_ms"] is None


def test_a_line_from_before_opening_was_spanned_still_reads() -> None:
    append(Path(), line("bm25", 2.0))
    path = Path(NAME)
    old = json.loads(path.read_text())
    del old["measured"]["opening"]
    path.write_text(json.dumps(old) + "\n")
    (cell,) = report.records(".")
    assert (cell.p50_ms, cell.adapt_once_ms) == (2.0, None)


def test_the_command_prints_a_table_or_json(capsys) -> None:
    class Generated(Toy):
        generated = True

    registry.register("tasks", "toy")(Generated)
    words = ["latency", "--task", "toy", "--system", "bm25", "--questions", "4", "--rounds", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "4 questions × 2 rounds" in out and "generated world" in out
    assert Path(out.splitlines()[-1], NAME).exists()
    assert main([*words, "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert (cell["system"], cell["questions"], cell["over_bm25"]) == ("bm25", 4, 1.0)
    assert main(["latency", "--task", "toi", "--system", "bm52", "--round", "3"]) == 2
    err = capsys.readouterr().err
    assert all(said in err for said in ("toi", "bm52", "--round"))


# --- spans ----------------------------------------------------------------------------


def test_a_span_counts_where_it_is_recorded_and_costs_nothing_elsewhere() -> None:
    with span("outside"):
        pass
    start = time.perf_counter_ns()
    with recorded() as spent:
        for _ in range(2):
            with span("outer"), span("inner"), span("outer"):
                time.sleep(0.001)
    assert list(spent) == ["inner", "outer"]
    assert 2e6 <= spent["inner"] <= spent["outer"] <= time.perf_counter_ns() - start
    with span("free"):
        pass
    assert span("free") is span("another")
    assert "free" not in spent

"""Alerts that have fired get their reports: made by the running monitor, stored, and found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.applying import apply_spec
from store.client import ClickHouse
from store.reports import read_report
from tests import truth
from tests.feeding import finish, send
from tests.role_process import REPOSITORY
from tests.stacks import RunningStack, run_stack, wait_until

ROLES = ("monitor", "sink")
JOB = "streams.report_job"
# A report takes seconds, a second attempt comes after ten, and the machine may be busy.
WAIT_S = 150.0


@pytest.fixture(scope="module")
def known() -> truth.Truth:
    return truth.make_truth(num_windows=2)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningStack]:
    with run_stack(tmp_path, "embedded", 1, ROLES) as running:
        yield running


@pytest.fixture
def store(running: RunningStack) -> Iterator[ClickHouse]:
    store = ClickHouse(running.runtime.clickhouse)
    yield store
    store.close()


def find_jobs() -> set[int]:
    """Processes that make a report, of any monitor on this machine."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and JOB.encode() in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def find_jobs_of(monitor: int) -> set[int]:
    """Those that a monitor has started."""
    found = set()
    for pid in find_jobs():
        try:
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == monitor:
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def runs(pid: int) -> bool:
    return pid in find_jobs()


def run_command(running: RunningStack, *arguments: str) -> str:
    data = running.runtime.data
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_")}
    ended = subprocess.run(
        [sys.executable, "-m", "driftloop", "--data", data, *arguments],
        cwd=REPOSITORY,
        env=environment
        | {
            "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": running.runtime.kafka.bootstrap_servers,
            "DRIFTLOOP_CLICKHOUSE_URL": running.runtime.clickhouse.url,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def find_fired(store: ClickHouse, model: str) -> list[str]:
    rows = store.query(
        "SELECT DISTINCT alert_id FROM alerts WHERE model = {model:String} AND state = 'firing' AND segment = ''",
        {"model": model},
    )
    return [row[0] for row in rows]


def feed(running: RunningStack, known: truth.Truth, folder: Path, model: str = truth.MODEL, alerts: str = "") -> None:
    """Apply a model's spec and send its stream; the second of its two windows drifts."""
    spec, _ = truth.write_truth(known, folder)
    text = spec.read_text().replace(f"model: {truth.MODEL}\n", f"model: {model}\n")
    spec.write_text(text + alerts)
    apply_spec(running.runtime, spec)
    renamed = f'"model": "{model}"'.encode()
    send(running, [(*each, value.replace(b'"model": "credit"', renamed)) for *each, value in truth.make_events(known)])
    finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS, model=model)


def test_a_fired_alert_has_a_report_unless_the_rule_wants_none(
    running: RunningStack, store: ClickHouse, known: truth.Truth, tmp_path: Path
) -> None:
    without = "alerts: [{when: drift, severity: high, report: false}]\n"
    feed(running, known, tmp_path / "quiet", "quiet", without)
    wait_until(lambda: bool(find_fired(store, "quiet")), WAIT_S, "the alert that wants no report")
    feed(running, known, tmp_path / "credit")
    wait_until(lambda: bool(find_fired(store, "credit")), WAIT_S, "the alert")
    (alert,) = find_fired(store, "credit")
    wait_until(lambda: read_report(store, "credit", alert) is not None, WAIT_S, "the report")
    report = read_report(store, "credit", alert)
    assert report is not None
    assert (report.window_start, report.window_end) == (
        known.window_starts[-1],
        known.window_starts[-1] + truth.SIZE_MS,
    )
    fired = store.query(
        "SELECT transition_id FROM alerts WHERE alert_id = {id:String} AND state = 'firing'", {"id": alert}
    )
    assert (report.transition_id,) in fired
    assert report.html.lstrip().lower().startswith("<!doctype html")
    assert "amount" in report.html
    # Of the two models' alerts the one without a report had fired first, and reports are made in that order.
    assert store.query("SELECT DISTINCT model FROM reports") == [("credit",)]
    assert dict(store.query("SELECT alert_id, has_report FROM open_alerts WHERE segment = ''")) == {
        alert: True,
        **dict.fromkeys(find_fired(store, "quiet"), False),
    }
    page = tmp_path / "page.html"
    assert str(page) in run_command(running, "report", "credit", "--alert", alert, "--output", str(page))
    assert page.read_bytes() == report.html.encode()
    assert '"has_report": true' in run_command(running, "alerts", "--model", "credit", "--json")


def test_a_report_whose_process_was_killed_is_made_at_the_next_attempt_and_none_outlives_the_monitor(
    running: RunningStack, store: ClickHouse, known: truth.Truth, tmp_path: Path
) -> None:
    feed(running, known, tmp_path / "files")
    first = catch_job(running)
    os.kill(first, signal.SIGKILL)
    second = catch_job(running, other_than=first)
    assert "its process ended with status -9" in (running.stack.logs / "monitor.log").read_text()
    # As the kernel does where memory is short: the monitor alone, at once.
    running.kill("monitor")
    wait_until(lambda: not runs(second), 10.0, "the process to end with its monitor")
    wait_until(lambda: store.query("SELECT count() FROM reports") == [(1,)], WAIT_S, "the report")


def catch_job(running: RunningStack, other_than: int = 0) -> int:
    """Wait for the monitor's process that makes a report; gives its id."""
    found: set[int] = set()

    def look() -> bool:
        found.update(find_jobs_of(running.pid("monitor")) - {other_than})
        return bool(found)

    wait_until(look, WAIT_S, "a process that makes a report")
    return found.pop()

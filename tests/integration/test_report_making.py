"""Which alerts get reports and how often it is tried, on a real store with real processes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from schemas.connections import ClickHouseConnection
from schemas.errors import Retryable
from schemas.events import Alert, Measurement
from schemas.spec import AlertRule, ModelHistory, PublishedSpec, encode_published
from store.alerts import insert_alerts
from store.measurements import insert_measurements
from store.reports import read_report
from streams.processes import ProcessPool
from streams.report_making import ReportMaker
from streams.report_process import ReportedAlert, ReportProcess, ReportTask
from tests import truth
from tests.integration.test_measuring import SIZE_MS, START_MS, World
from tests.role_process import REPOSITORY
from tests.stored import run_store

DAY_MS = 86_400_000
NOW_MS = START_MS + 10 * DAY_MS


class SetClock:
    """Stands still but for what a test adds to `now_s`."""

    now_s = 0.0

    def now_ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with run_store(tmp_path_factory.mktemp("clickhouse")) as connection:
        # Nothing is measured here.
        world = World(connection, cast("ProcessPool", None), truth.SPEC, truth.make_truth(2, 200))
        yield world
        world.close()


@pytest.fixture
def world(shared: World) -> World:
    for table in ("alerts", "reports", "measurements"):
        shared.ch.command(f"TRUNCATE TABLE {table}")
    return shared


def tell(world: World, alert_id: str, state: str, window: int, **changes: object) -> None:
    fields = {
        "alert_id": alert_id, "transition_id": f"{alert_id}-{state}", "model": truth.MODEL, "model_version": "",
        "rule": "drift", "kind": "drift", "feature": "amount", "metric": "ks_counts", "segment": "", "severity": "info",
        "state": state, "value": 0.3, "threshold": 0.1, "harm": None, "reason": "drift",
        "window_start": START_MS + window * SIZE_MS, "window_end": START_MS + (window + 1) * SIZE_MS, "at": NOW_MS,
    }  # fmt: skip
    insert_alerts(world.ch, [Alert(**{**fields, **changes})])  # type: ignore[arg-type]


def mark_measured(world: World, window: int) -> None:
    start = START_MS + window * SIZE_MS
    marker = Measurement(
        model=truth.MODEL, model_version="", window_start=start, window_end=start + SIZE_MS, segment="", feature="",
        kind="quality", metric="num_rows", value=200.0, lower=None, upper=None, p_value=None, alpha=None,
        threshold=None, status="ok", num_rows=200, num_sampled=200, label_coverage=None, covered=1, revision=1,
        spec_version=1, computed_at=NOW_MS,
    )  # fmt: skip
    insert_measurements(world.ch, [marker])


def find(maker: ReportMaker, published: PublishedSpec) -> list[tuple[int, str, list[str]]]:
    """The windows (by number) and segments that reports are to be made of, and for which alerts."""
    found = maker.find({published.model: ModelHistory([published])})
    return [
        ((each.window_start - START_MS) // SIZE_MS, each.segment, [alert[0] for alert in each.alerts]) for each in found
    ]


def test_what_has_fired_lately_and_is_measured_gets_one_of_the_window_in_which_it_began(world: World) -> None:
    maker = ReportMaker(world.ch, SetClock())
    tell(world, "waits", "pending", 0)
    tell(world, "lasting", "pending", 0)
    tell(world, "lasting", "firing", 1, at=NOW_MS + 2)
    tell(world, "harm", "firing", 0, rule="harm", at=NOW_MS + 1)
    tell(world, "over", "firing", 1, at=NOW_MS)
    tell(world, "over", "resolved", 2, at=NOW_MS + 3)
    tell(world, "of a segment", "firing", 1, segment="country=DE", at=NOW_MS - 1)
    tell(world, "of a key", "firing", 1, segment="country", rule="fairness")
    tell(world, "of old", "firing", 1, at=NOW_MS - 4 * DAY_MS)
    tell(world, "of others", "firing", 1, model="other")
    assert find(maker, world.published) == []
    mark_measured(world, 1)
    assert find(maker, world.published) == [(1, "", ["over"]), (1, "country=DE", ["of a segment"])]
    mark_measured(world, 0)
    assert find(maker, world.published) == [
        (1, "", ["over"]), (0, "", ["harm", "lasting"]), (1, "country=DE", ["of a segment"]),
    ]  # fmt: skip
    rules = [AlertRule(when="harm", severity="high"), AlertRule(when="drift", severity="info", report=False)]
    told = msgspec.structs.replace(world.published, spec=msgspec.structs.replace(world.published.spec, alerts=rules))
    assert find(maker, told) == [(0, "", ["harm"])]


def test_a_report_that_fails_is_tried_three_times_with_growing_pauses(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The window is said to be measured, and has no rows."""
    clock = SetClock()
    maker = ReportMaker(world.ch, clock)
    tell(world, "a1", "firing", 9)
    mark_measured(world, 9)
    histories = {truth.MODEL: ModelHistory([world.published])}
    tried_s = []
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            for missing in maker.find(histories):
                tried_s.append(clock.now_s)
                maker.make(missing)
            clock.now_s += 5
    assert tried_s == [0, 10, 50]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert all("alert a1 is not made: its process ended with status 1" in line for line in lines)
    assert all("no rows of 'credit' are stored" in line for line in lines)
    assert [line.rpartition("; ")[2] for line in lines] == ["again in 10 s", "again in 40 s", "it is not tried again"]


def test_alerts_of_a_window_share_its_page(world: World) -> None:
    world.send(1, ("records", "predictions"))
    maker = ReportMaker(world.ch, SetClock())
    tell(world, "a1", "firing", 1)
    tell(world, "a2", "firing", 1, rule="harm")
    mark_measured(world, 1)
    (missing,) = maker.find({truth.MODEL: ModelHistory([world.published])})
    maker.make(missing)
    first, second = (read_report(world.ch, truth.MODEL, alert) for alert in ("a1", "a2"))
    assert first is not None
    assert second is not None
    assert first.html == second.html
    assert (first.transition_id, second.transition_id) == ("a1-firing", "a2-firing")
    assert find(maker, world.published) == []


def make_task(world: World) -> ReportTask:
    return ReportTask(world.connection, encode_published(world.published), START_MS, "", [ReportedAlert("a1", "t1")])


def test_a_process_that_hangs_is_ended_at_its_deadline_or_when_the_monitor_stops(world: World) -> None:
    process = ReportProcess()
    reasons: list[str] = []

    def run(timeout_s: float) -> threading.Thread:
        thread = threading.Thread(target=lambda: reasons.append(process.run(make_task(world), timeout_s)))
        thread.start()
        deadline_s = time.monotonic() + 30
        while process.pid is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        return thread

    run(1.0).join(30)
    waiting = run(100.0)
    process.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert reasons == ["it took longer than 1 s and was ended", "the monitor stops"]
    assert process.run(make_task(world), 1.0) == "the monitor stops"


def test_a_store_that_is_away_is_no_failure_of_the_report(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = ClickHouseConnection(f"http://127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(Retryable, match="is not reachable"):
        ReportProcess().run(msgspec.structs.replace(make_task(world), clickhouse=nobody), 100.0)


# As the monitor does it, with the task from standard input.
PARENT = """
import sys, msgspec
from streams.report_process import ReportProcess, ReportTask
print(ReportProcess().run(msgspec.json.decode(sys.stdin.buffer.read(), type=ReportTask), 100.0))
"""


def test_a_process_ends_with_a_monitor_that_is_killed(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # A store that never answers holds the process for two minutes.
        task = msgspec.structs.replace(
            make_task(world), clickhouse=ClickHouseConnection(f"http://127.0.0.1:{silent.getsockname()[1]}")
        )
        parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, cwd=REPOSITORY)
        assert parent.stdin is not None
        parent.stdin.write(msgspec.json.encode(task))
        parent.stdin.close()
        # It asks: so it runs.
        silent.settimeout(60)
        asked, _ = silent.accept()
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 1
        parent.kill()
        parent.wait(10)
        deadline_s = time.monotonic() + 30
        while runs(children[0]):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        asked.close()


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""The supervisor starts a child again: at once when it had been running well, with backoff when it keeps ending."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.supervisor import BACKOFF_FIRST_S, HEALTHY_AFTER_S, Child, Supervisor


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def supervisor(reports: list[str], tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(reports.append)
    supervisor.add(Child("role", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "role.log"))
    yield supervisor
    supervisor.stop_all(5.0)


def kill(child: Child) -> None:
    assert child.process is not None
    child.process.kill()
    child.process.wait(10)


def grow_old(child: Child) -> None:
    child.started_at_s -= HEALTHY_AFTER_S + 1


def test_a_child_that_ran_well_is_started_again_at_once(supervisor: Supervisor, reports: list[str]) -> None:
    (child,) = supervisor.children
    for _ in range(2):
        grow_old(child)
        kill(child)
        supervisor.tend(child)
        assert child.running
    assert len(reports) == 2
    assert "SIGKILL" in reports[0]
    assert "at once" in reports[0]


def test_a_child_that_ends_soon_after_its_start_waits_longer_each_time(supervisor: Supervisor) -> None:
    (child,) = supervisor.children
    for number in range(3):
        kill(child)
        killed_s = time.monotonic()
        supervisor.tend(child)
        assert not child.running
        assert child.restart_at_s is not None
        assert child.restart_at_s >= killed_s + BACKOFF_FIRST_S * 2**number
        child.restart_at_s = killed_s  # as if that time had passed
        supervisor.tend(child)
        assert child.running


def test_a_child_with_a_wrong_configuration_is_not_tried_again_soon(tmp_path: Path) -> None:
    supervisor = Supervisor(lambda _: None)
    child = Child("role", [sys.executable, "-c", "raise SystemExit(2)"], tmp_path / "role.log")
    supervisor.add(child)
    assert child.process is not None
    assert child.process.wait(60) == 2
    grow_old(child)
    supervisor.tend(child)
    assert not child.running

"""The pool of measuring processes survives what is done to a process, and ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import Retryable
from streams.processes import ProcessPool

ROOT = Path(__file__).resolve().parents[3]


def prepare() -> None:
    """Nothing to prepare."""


def get_pid() -> int:
    return os.getpid()


def hang() -> None:
    threading.Event().wait()


def refuse() -> None:
    raise ValueError("as told")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    pool = ProcessPool(1, prepare, ())
    yield pool
    pool.close()


def test_a_process_that_dies_costs_its_task_alone(pool: ProcessPool) -> None:
    first = pool.run(60, get_pid)
    assert first != os.getpid()
    with pytest.raises(Retryable, match="died"):
        pool.run(60, die)
    assert pool.run(60, get_pid) != first


def test_a_process_that_hangs_is_ended_at_its_deadline(pool: ProcessPool) -> None:
    pid = pool.run(60, get_pid)
    with pytest.raises(Retryable, match="longer than"):
        pool.run(0.2, hang)
    assert pool.run(60, get_pid) != pid
    wait_until_gone(pid)


def test_an_error_in_a_task_is_the_callers(pool: ProcessPool) -> None:
    pid = pool.run(60, get_pid)
    with pytest.raises(ValueError, match="as told"):
        pool.run(60, refuse)
    assert pool.run(60, get_pid) == pid


PARENT = """
import os, signal
from tests.unit.streams.test_processes import ProcessPool, get_pid, prepare
if __name__ == "__main__":
    print(ProcessPool(1, prepare, ()).run(60, get_pid), flush=True)
    signal.pause()
"""


def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(child)


def wait_until_gone(pid: int, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while is_alive(pid):
        assert time.monotonic() < deadline_s, f"process {pid} is still there"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""The process that makes a report, as the monitor sees it: started, waited for, and never left behind.

A process of its own because Evidently takes seconds and hundreds of megabytes, which must not be the monitor's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from schemas.connections import ClickHouseConnection
from schemas.errors import Retryable

# How the process ends when the store is away.
AWAY = os.EX_TEMPFAIL

# What is told of a failure: the end of a traceback is its reason.
_ERROR_BYTES_MAX = 2_000
_KILL_TIMEOUT_S = 5.0


class ReportedAlert(NamedTuple):
    """An alert that a report is kept for, and the state change that asked for it."""

    alert_id: str
    transition_id: str


class ReportTask(msgspec.Struct, frozen=True):
    """What a process is to do: the window that starts then (epoch ms), as a report for each of the alerts.

    `published` is the spec in force there, encoded; `segment` (empty: all rows) is what the alerts are about.
    """

    clickhouse: ClickHouseConnection
    published: bytes
    window_start: int
    segment: str
    alerts: list[ReportedAlert]


class ReportProcess:
    """Runs one task at a time; `run` by one thread, `close` by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The id of the process that runs now."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def run(self, task: ReportTask, timeout_s: float) -> str:
        """Make the report and return when it is stored: an empty text, or the reason why it is not.

        A process that takes longer than `timeout_s` is ended. Raises `Retryable` when the store is away.
        """
        # Without a name: nothing is left of it, however this process ends.
        with tempfile.TemporaryFile() as errors:
            process = self._start(errors.fileno())
            if process is None:
                return "the monitor stops"
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(msgspec.json.encode(task) + b"\n")
                    # Left open: its end tells the process that the monitor is gone.
                    process.stdin.flush()
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return f"it took longer than {timeout_s:g} s and was ended"
            finally:
                process.kill()
                process.wait(_KILL_TIMEOUT_S)
                with suppress(BrokenPipeError):
                    process.stdin.close()
                with self._lock:
                    self._process = None
            if status and self._is_closed:
                return "the monitor stops"
            if status == AWAY:
                raise Retryable(_read_last_line(errors))
            return "" if status == 0 else f"its process ended with status {status}: {_read_last_line(errors)}"

    def close(self) -> None:
        """End the process that runs, if any; none is started from now on."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()

    def _start(self, errors: int) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._is_closed:
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.report_job"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # One thread: more would take from those who measure, and a buffer each.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                # The packages are found from where they lie, installed or in a checkout.
                cwd=Path(__file__).resolve().parents[1],
            )
            return self._process


def _read_last_line(errors: BinaryIO) -> str:
    end = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, end - _ERROR_BYTES_MAX))
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

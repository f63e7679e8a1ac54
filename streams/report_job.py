"""One report, start to end, in a process of its own, with what the machine has left over.

Run as `python -m streams.report_job` with the task as a line of standard input; when that input closes, the monitor is
gone, and the process ends. It says what went wrong on standard error.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading

import msgspec

from schemas.clock import SystemClock
from schemas.errors import DriftloopError, Retryable
from schemas.spec import decode_published
from store.client import ClickHouse
from store.reports import StoredReport, insert_reports
from streams.report_process import AWAY, ReportTask

_STDIN = 0
# Below everything else that wants the processor.
_NICENESS = 19
# Of private memory, as asked for: libraries ask for up to 1.5 GB and touch a quarter of it, so as much is left for the
# data. A window of 50,000 rows and 19 features takes 0.15 GB.
_MEMORY_BYTES_MAX = 3 << 30


def run_task(task: ReportTask) -> None:
    """Make the report and store it for each of the task's alerts; safe to repeat."""
    # Evidently; only here, so that the limits of this process hold for it.
    from streams.reporting import report_window

    published = decode_published(task.published)
    ch = ClickHouse(task.clickhouse)
    try:
        html = report_window(ch, published, task.window_start, segment=task.segment)
        end = task.window_start + published.window_size_ms
        now = SystemClock().now_ms()
        # One at a time: each has megabytes.
        for each in task.alerts:
            report = StoredReport(published.model, *each, task.window_start, end, html, now)
            insert_reports(ch, [report])
    finally:
        ch.close()


def main() -> int:
    """Do the one task; 0 when it is stored, `AWAY` when the store is away."""
    # Ctrl-C reaches the whole group, and it is the monitor that ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    logging.basicConfig(level=logging.ERROR)
    task = msgspec.json.decode(_read_line(), type=ReportTask)
    threading.Thread(target=_end_with_monitor, daemon=True, name="monitor-watch").start()
    try:
        run_task(task)
    except DriftloopError as error:
        print(error, file=sys.stderr)
        return AWAY if isinstance(error, Retryable) else 1
    return 0


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_STDIN, 65_536)
        if not part:
            raise EOFError("the task was cut off: the monitor is gone")
        line += part
    return line


def _end_with_monitor() -> None:
    # A monitor that was killed cannot say so; the end of our input does.
    while os.read(_STDIN, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    # Without waiting for libraries' threads: all is stored.
    os._exit(main())

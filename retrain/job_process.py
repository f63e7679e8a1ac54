"""A job's process as the trainer sees it: started, listened to, and never left behind.

Owns the process's life, its deadline and what it prints. A fresh interpreter, because neither CUDA nor threads
survive a fork; it must not interpret the reports.
"""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from retrain.order import JobOrder, JobReport, decode_report, encode_line
from schemas.clock import Clock

log = logging.getLogger(__name__)

# A job reports a few dozen lines; more would be a defect of ours.
_NUM_REPORTS_MAX = 10_000
_TERMINATE_TIMEOUT_S = 2.0
# What a process prints beyond that between two looks, or in one line, is cut off.
_NUM_LINES_MAX = 5_000
_LINE_CHARS_MAX = 2_000


class Printed(NamedTuple):
    """A line that a job's process printed, and when it was heard (epoch ms)."""

    at: int
    text: str


PROGRAM = ("-m", "retrain.job")


def start_process(program: Sequence[str] = PROGRAM) -> subprocess.Popen[bytes]:
    """Start a process that waits for an order on its standard input, and ends with it."""
    return subprocess.Popen(
        [sys.executable, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The packages are found from where they lie, installed or in a checkout.
        cwd=Path(__file__).resolve().parents[1],
        # A Ctrl-C on the terminal is for the trainer, which ends its process in order.
        start_new_session=True,
    )


class SpareProcess:
    """A process that has imported PyTorch before there is a job for it: a job begins seconds sooner."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start one unless one waits; returns at once."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = start_process()

    def take(self) -> subprocess.Popen[bytes] | None:
        """Give the process away, None if there is none that waits."""
        process, self._process = self._process, None
        if process is not None and process.poll() is not None:
            _close(process)
            return None
        return process

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_TERMINATE_TIMEOUT_S)
            _close(process)


class JobProcess:
    """One running job; `read_reports` brings what it has said since, `is_over` whether it has ended.

    `program` are the interpreter's arguments: another one may run the job in several processes. A `spare` process that
    waits for an order already is taken instead.
    """

    def __init__(
        self,
        order: JobOrder,
        timeout_s: float,
        clock: Clock,
        program: Sequence[str] = PROGRAM,
        spare: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._clock = clock
        self._deadline_s = clock.monotonic_s() + timeout_s
        self._reports: queue.Queue[JobReport] = queue.Queue(_NUM_REPORTS_MAX)
        self._printed: deque[Printed] = deque(maxlen=_NUM_LINES_MAX)
        self._process = spare or start_process(program)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode_line(order))
            # Left open: its end tells the process that the trainer is gone.
            self._process.stdin.flush()
        except BrokenPipeError:
            log.error("job %s: the process ended before it had its order", order.job_id)
        self._listeners = [
            threading.Thread(target=self._listen, args=(pipe, hear), name=f"job-{order.job_id[:8]}", daemon=True)
            for pipe, hear in ((self._process.stdout, self._hear_report), (self._process.stderr, self._hear_line))
        ]
        for listener in self._listeners:
            listener.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def name(self) -> str:
        """The process, in words."""
        return f"process {self.pid}"

    @property
    def trouble(self) -> str:
        """Nothing: a process runs, or is over."""
        return ""

    def read_reports(self) -> list[JobReport]:
        """Return what the process has reported since the last call, in order; returns at once."""
        reports = []
        while True:
            try:
                reports.append(self._reports.get_nowait())
            except queue.Empty:
                return reports

    def read_printed(self) -> list[Printed]:
        """Return what the process has printed since the last call; returns at once."""
        printed = []
        while self._printed:
            printed.append(self._printed.popleft())
        return printed

    def is_over(self) -> bool:
        """Say whether the process has ended and everything it said has been heard."""
        is_heard = not any(listener.is_alive() for listener in self._listeners)
        return self._process.poll() is not None and is_heard and self._reports.empty()

    def is_late(self) -> bool:
        """Say whether it has run for longer than it may."""
        return self._clock.monotonic_s() > self._deadline_s

    def describe_end(self) -> str:
        """Say how the process ended, in words."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended with status {status}"

    def stop(self) -> None:
        """End the process, with SIGKILL if it must be; returns when it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_TERMINATE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_TERMINATE_TIMEOUT_S)
        for listener in self._listeners:
            listener.join(_TERMINATE_TIMEOUT_S)
        _close(self._process)

    def _listen(self, pipe: IO[bytes] | None, hear: Callable[[bytes], None]) -> None:
        assert pipe is not None
        for line in pipe:
            hear(line)
        self._process.wait()

    def _hear_report(self, line: bytes) -> None:
        try:
            self._reports.put(decode_report(line), timeout=60)
        except msgspec.MsgspecError:
            self._hear_line(line)  # a library that prints must not end the job

    def _hear_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()[:_LINE_CHARS_MAX]
        self._printed.append(Printed(self._clock.now_ms(), text))


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()

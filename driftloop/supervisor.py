"""Keeps child processes alive: restart, with backoff when it happens again; one log a process; stop within a deadline.

Knows nothing of what the processes do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 10.0
# A process that lived this long is taken for healthy, and is started again at once.
HEALTHY_AFTER_S = 20.0
POLL_S = 0.05
LOG_BYTES_MAX = 20_000_000
CONFIGURATION_EXIT = 2

Report = Callable[[str], None]


@dataclass(slots=True)
class Child:
    """One supervised process. `argv` is started with `environment` on top of ours; output goes to `log`."""

    name: str
    argv: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started_at_s: float = 0.0
    restart_at_s: float | None = None
    num_failures: int = 0

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the children in order.
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self.started_at_s = time.monotonic()
        self.restart_at_s = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL for the process and whatever it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def choose_delay(code: int, num_failures: int) -> float:
    """Give the seconds until a process is started again that has ended so many times in a row soon after its start."""
    if code == CONFIGURATION_EXIT:
        return BACKOFF_MAX_S
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (num_failures - 1)) if num_failures else 0.0


class Supervisor:
    """Starts children, starts them again when they end, stops them in reverse order."""

    def __init__(self, report: Report) -> None:
        self.children: list[Child] = []
        self.report = report
        self._lock = threading.Lock()

    def add(self, child: Child) -> None:
        with self._lock:
            child.start()
            self.children.append(child)

    def watch(self, stop: threading.Event) -> None:
        """Restart what ends, until `stop` is set. Returns promptly after that; call `stop_all` next."""
        while not stop.wait(POLL_S):
            with self._lock:
                for child in self.children:
                    # Asked again under the lock: what `stop_all` ended meanwhile is not to come back.
                    if not stop.is_set():
                        self.tend(child)

    def tend(self, child: Child) -> None:
        now_s = time.monotonic()
        if child.running:
            return
        if child.restart_at_s is None:
            assert child.process is not None
            code = child.process.returncode
            child.kill_group()  # what it left behind must not write beside its successor
            healthy = now_s - child.started_at_s > HEALTHY_AFTER_S
            child.num_failures = 0 if healthy else child.num_failures + 1
            delay_s = choose_delay(code, child.num_failures)
            child.restart_at_s = now_s + delay_s
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            when = f"in {delay_s:.1f} s" if delay_s else "at once"
            self.report(f"{child.name} ended ({how}); starting it again {when}; see {child.log}")
        if now_s >= child.restart_at_s:
            child.start()

    def stop_all(self, deadline_s: float) -> None:
        """SIGTERM in reverse order of start, each group of equals together; SIGKILL at the deadline.

        The roles stop before the servers they write to: the last ones get their time after the others ended.
        """
        with self._lock:
            end_s = time.monotonic() + deadline_s
            for group in reversed(self.group_by_layer()):
                for child in group:
                    child.signal(signal.SIGTERM)
                share_s = max(1.0, (end_s - time.monotonic()) / 2)
                for child in group:
                    self.await_end(child, time.monotonic() + share_s)

    def group_by_layer(self) -> list[list[Child]]:
        servers = [child for child in self.children if child.name in ("kafka", "clickhouse")]
        return [servers, [child for child in self.children if child not in servers]]

    def await_end(self, child: Child, until_s: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(timeout=max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.report(f"{child.name} did not stop in time and was killed")
        child.kill_group()

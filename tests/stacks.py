"""The whole system for tests: servers and roles as real processes, on free ports, in a folder of the test's own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from driftloop.settings import read_settings
from driftloop.stack import Stack
from schemas.connections import Runtime
from tests.brokers import AnyBroker, ApacheKafka, available_brokers, find_free_port, find_kafka_home

BROKER_KINDS = ("embedded", "kafka")


def why_not(kind: str) -> str | None:
    """Why tests on this kind of broker cannot run here; None when they can."""
    return None if kind in available_brokers() else "KAFKA_HOME is not set, or there is no Java to run it"


class RunningStack:
    """A started system. `kill` takes a role's name, `kafka` or `clickhouse`; what was killed comes back by itself."""

    def __init__(self, stack: Stack, external: AnyBroker | None) -> None:
        self.stack = stack
        self.external = external
        self.reports: list[str] = []

    @property
    def runtime(self) -> Runtime:
        return self.stack.runtime

    def pid(self, name: str) -> int:
        child = next(child for child in self.stack.supervisor.children if child.name == name)
        assert child.process is not None
        return child.process.pid

    def kill(self, name: str) -> None:
        """SIGKILL, and return when the supervisor has started it again (the external broker: started by us)."""
        if name == "kafka" and self.external is not None:
            self.external.kill()
            self.external.start()
            return
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.pid(name) != before, 30.0, f"{name} to be started again")


@contextmanager
def run_stack(
    folder: Path,
    kind: str = "embedded",
    num_partitions: int = 4,
    roles: tuple[str, ...] = ("monitor", "sink", "notify", "score", "train"),
    environ: dict[str, str] | None = None,
    broker_properties: dict[str, str] | None = None,
) -> Iterator[RunningStack]:
    """Start everything on the kind of broker named; stop it afterwards, and print the end of each log on failure."""
    external: AnyBroker | None = None
    variables = {"DRIFTLOOP_PARTITIONS": str(num_partitions), **(environ or {})}
    if kind == "kafka":
        home = find_kafka_home()
        assert home is not None
        external = ApacheKafka(home, folder / "kafka", properties=broker_properties or {})
        external.start()
        variables.setdefault("DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS", external.bootstrap)
    reports: list[str] = []
    stack = Stack(read_settings(folder / "data", variables), find_free_port(), find_free_port(), reports.append, roles)
    running = RunningStack(stack, external)
    running.reports = reports
    try:
        stack.start()
        yield running
    except BaseException:
        print_logs(stack.logs)
        raise
    finally:
        stack.stop()
        if external is not None:
            external.stop()


def print_logs(logs: Path, num_lines: int = 25) -> None:
    for log in sorted(logs.glob("*.log")):
        print(f"--- {log.name}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-num_lines:]))


def wait_until(is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until true; AssertionError naming what did not come."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)

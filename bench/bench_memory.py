"""How much memory does one monitor need for many models: 1,000 with 50 features, two open windows, 20,000 rows each?

The long form sends just that, and has the limit. The short form sends less: it shows that nothing has gone wrong, not
what so many models need, since buffers that have a size of their own outweigh what each model adds. Memory is that of
the monitor and its measuring processes, shared pages divided among those who share them (PSS), the highest seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.models import NUM_FEATURES, Models
from bench.processes import list_tree, read_cpu_s, read_memory
from bench.progress import Markers
from bench.results import Limit, Result
from bench.surroundings import Options, Role, run_roles, run_servers, separate, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.summaries import read_stamps

NUM_MODELS, NUM_ROWS = 1_000, 20_000
LIMIT = Limit("value", "at most", 2_048)
HOUR_MS = 3_600_000
# The older window is still open when the newer one has events, and no partition is ever idle.
WINDOWS = "{size: 1h, lateness: 1h, idle: 1d}"
TIMEOUT_S = 7_200.0
SAMPLE_S = 0.5
IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """After so many rows of so many models each: what is resident now, and at most so far, in MiB."""

    num_models: int
    num_rows: int
    resident_mib: float
    peak_mib: float


def run(options: Options) -> Iterator[Result]:
    stages = [(160, 2_000), (160, 6_000)]
    if not options.short:
        stages = [(NUM_MODELS // 4, NUM_ROWS), (NUM_MODELS // 2, NUM_ROWS), (NUM_MODELS, NUM_ROWS)]
    with run_servers(options) as servers:
        runtime = separate(servers.runtime, "memory")
        models = Models(runtime, WINDOWS)
        with run_roles(runtime, "monitor") as (monitor,):
            steps = list(send_stages(runtime, models, monitor, stages))
            check_counts(runtime, stages[-1])
            pids = {"monitor": monitor.pid, **servers.pids}
            idle = measure_idle(pids)
    yield from describe(steps, options)
    used = ", ".join(f"{name} {cores:.3f}" for name, cores in idle.items())
    yield Result(f"{stages[-1][0]:,} models and nothing to do ({used})", sum(idle.values()), "cores")


def send_stages(runtime: Runtime, models: Models, monitor: Role, stages: list[tuple[int, int]]) -> Iterator[Step]:
    """Send what each stage has more than the one before, and wait until it is counted."""
    now_ms = time.time_ns() // 1_000_000 // HOUR_MS * HOUR_MS
    windows = (now_ms - HOUR_MS, now_ms)
    watch = MemoryWatch(runtime, monitor)
    num_models = num_rows = num_messages = 0
    try:
        for more_models, more_rows in stages:
            models.publish(more_models)
            num_messages += models.send(range(num_models, more_models), range(more_rows), windows)
            num_messages += models.send(range(num_models), range(num_rows, more_rows), windows)
            num_models, num_rows = more_models, more_rows
            wait_until(lambda: watch.reach(num_messages), TIMEOUT_S, f"{num_messages:,} messages", [monitor], SAMPLE_S)  # noqa: B023
            yield Step(num_models, num_rows, watch.resident_mib, watch.peak_mib)
    finally:
        watch.close()


class MemoryWatch:
    """Samples the memory of a monitor and of its processes while it gets on."""

    def __init__(self, runtime: Runtime, monitor: Role) -> None:
        self._markers = Markers(runtime)
        self._monitor = monitor
        self.resident_mib = self.peak_mib = 0.0

    def reach(self, num_messages: int) -> bool:
        """Take a sample; tell whether so many messages have been counted."""
        self.resident_mib = sum(read_memory(pid).proportional_mib for pid in list_tree(self._monitor.pid))
        self.peak_mib = max(self.peak_mib, self.resident_mib, read_memory(self._monitor.pid).peak_mib)
        return self._markers.read_monitor() >= num_messages

    def close(self) -> None:
        self._markers.close()


def check_counts(runtime: Runtime, stage: tuple[int, int]) -> None:
    """See that everything was counted where it belongs: every model in two windows on every partition."""
    num_models, num_rows = stage
    store = ClickHouse(runtime.clickhouse)
    stamps = read_stamps(store, runtime.topics(MONITOR))
    store.close()
    found = len(stamps), sum(stamp.num_rows for stamp in stamps)
    # Rows count once as inputs and once as outputs.
    expected = num_models * 2 * runtime.num_partitions, num_models * num_rows * 2
    if found != expected:
        raise RuntimeError(f"(windows by partition, rows) are {found}, not {expected}")


def measure_idle(pids: Mapping[str, int]) -> dict[str, float]:
    """Give the cores that each process keeps busy while nothing comes in."""
    before = {name: read_cpu_s(pid) for name, pid in pids.items()}
    time.sleep(IDLE_S)
    return {name: (read_cpu_s(pid) - before[name]) / IDLE_S for name, pid in pids.items()}


def describe(steps: list[Step], options: Options) -> Iterator[Result]:
    few, *_, last = steps
    name = f"monitor's memory: {last.num_models:,} models × {NUM_FEATURES} features × {last.num_rows:,} rows"
    yield Result(name, last.peak_mib, "MiB", limit=None if options.short else LIMIT)
    if not options.short:
        slope = (last.resident_mib - few.resident_mib) / (last.num_models - few.num_models)
        yield Result(f"monitor's memory a model of {NUM_ROWS:,} rows", slope, "MiB")

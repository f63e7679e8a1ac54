"""Topics filled with so much that a monitor is busy for a while, however fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.events import ARROW_HEADERS, apply_model
from bench.filling import NUM_ARROW_ROWS, fill_arrow, fill_json
from bench.progress import Progress, watch
from bench.surroundings import Servers, run_roles, separate
from schemas.connections import Runtime

# Event time: ten windows of an hour, however many events there are.
SPAN_MS = 10 * 3_600_000
TIMEOUT_S = 600.0
# Growing by more in one step, a topic might be filled for nothing.
_GROWTH_MAX = 12.0


@dataclass(frozen=True, slots=True)
class Load:
    """Events of one encoding, `num_rows` in a message; from `num_first` to `num_most` of them on the topic."""

    name: str
    num_rows: int
    num_first: int
    num_most: int
    fill: Callable[[Runtime, int, int, int], None]
    headers: Any = None


JSON = Load("JSON", 1, 100_000, 8_000_000, fill_json)
ARROW = Load("Arrow", NUM_ARROW_ROWS, 500_000, 40_000_000, fill_arrow, ARROW_HEADERS)


@dataclass(frozen=True, slots=True)
class Busy:
    """A full topic, and how the monitor got on with it alone."""

    runtime: Runtime
    num_messages: int
    monitor: Progress


def keep_busy(servers: Servers, load: Load, elapsed_s: float) -> Busy:
    """Find out how many events keep one monitor busy for so long: topic after topic, each with more."""
    start_ms = (time.time_ns() // 1_000_000 - SPAN_MS) // 3_600_000 * 3_600_000
    num_events = load.num_first
    while True:
        runtime = separate(servers.runtime, f"{load.name.lower()}_{num_events}")
        apply_model(runtime, window="1h")
        load.fill(runtime, num_events, start_ms, SPAN_MS)
        num_messages = num_events // load.num_rows
        monitor = measure_roles(runtime, num_messages, "monitor")["monitor"]
        if monitor.steady_s >= elapsed_s or num_events == load.num_most:
            return Busy(runtime, num_messages, monitor)
        growth = min(_GROWTH_MAX, 1.3 * elapsed_s / max(monitor.steady_s, 0.1))
        num_events = min(load.num_most, int(num_events * growth) // load.num_rows * load.num_rows)


def measure_roles(runtime: Runtime, num_messages: int, *names: str) -> dict[str, Progress]:
    """Give the progress of each role, all started at once on a full topic."""
    with run_roles(runtime, *names) as roles:
        return watch(runtime, roles, num_messages, TIMEOUT_S)

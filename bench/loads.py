"""Topics filled with so much that a monitor is busy for a while, however fast it is, and seen by it all at once.

Roles are started first, and sent a few events until they have imported everything; only then the load appears. So its
rate is that of a worker that has been running, on the whole of the load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka.admin import AdminClient

from bench.events import ARROW_HEADERS, JsonEvents, apply_model
from bench.filling import NUM_ARROW_ROWS, Fill, fill_arrow, fill_json
from bench.processes import is_running, list_tree
from bench.progress import Markers, Progress, watch
from bench.surroundings import Role, Servers, run_roles, separate, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR

# Event time: ten windows of an hour, however many events there are.
SPAN_MS = 10 * 3_600_000
TIMEOUT_S = 600.0
WARM_TIMEOUT_S = 180.0
WARM_POLL_S = 0.2
# A process that has not wanted a processor so often in a row is done with its imports.
_NUM_RESTING = 10
_ANSWER_TIMEOUT_S = 10.0
_NUM_WARM_FIRST = 9_000_000_000
# Growing by more in one step, a topic might be filled for nothing.
_GROWTH_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Load:
    """Events of one encoding, `num_rows` in a message; from `num_first` to `num_most` of them on the topic."""

    name: str
    num_rows: int
    num_first: int
    num_most: int
    put: Callable[[Fill, int, int, int], None]
    headers: Any = None


JSON = Load("JSON", 1, 200_000, 8_000_000, fill_json)
ARROW = Load("Arrow", NUM_ARROW_ROWS, 1_000_000, 40_000_000, fill_arrow, ARROW_HEADERS)


@dataclass(frozen=True, slots=True)
class Taken:
    """A topic whose messages have been taken, and how roles got on with them."""

    runtime: Runtime
    num_events: int
    num_messages: int
    progress: dict[str, Progress]


def keep_busy(servers: Servers, load: Load, elapsed_s: float) -> Taken:
    """Find out how many events keep one monitor busy for about so long: topic after topic, each with more."""
    num_events = load.num_first
    while True:
        taken = take(servers, load, num_events, f"{num_events}", "monitor")
        monitor = taken.progress["monitor"]
        if monitor.steady_s >= 0.6 * elapsed_s or num_events == load.num_most:
            return taken
        # The tick of the markers makes short loads look slower, so that the next one is rather too small.
        growth = min(_GROWTH_MAX, 1.5 * elapsed_s / monitor.elapsed_s)
        num_events = min(load.num_most, int(num_events * growth) // load.num_rows * load.num_rows)


def take(servers: Servers, load: Load, num_events: int, name: str, *roles: str) -> Taken:
    """Let warm roles take so many events."""
    start_ms = (time.time_ns() // 1_000_000 - SPAN_MS) // 3_600_000 * 3_600_000
    runtime = separate(servers.runtime, f"{load.name.lower()}_{name}")
    apply_model(runtime, window="1h")
    with run_roles(runtime, *roles) as running:
        num_messages = num_events // load.num_rows + warm_up(runtime, running, start_ms)
        with Fill(runtime, runtime.topics("predictions"), is_held=True) as fill:
            load.put(fill, num_events, start_ms, SPAN_MS)
            fill.flush()
            fill.release()
        return Taken(runtime, num_events, num_messages, watch(servers, runtime, running, num_messages, TIMEOUT_S))


def warm_up(runtime: Runtime, roles: list[Role], start_ms: int) -> int:
    """Send events until every role has worked and rests; gives how many."""
    warmth = Warmth(runtime, roles, start_ms)
    try:
        wait_until(warmth.is_enough, WARM_TIMEOUT_S, "the roles to be warm", roles, WARM_POLL_S)
        return warmth.num_sent
    finally:
        warmth.close()


class Warmth:
    """Sends an event to every partition at each sample, until nothing is left to be imported."""

    def __init__(self, runtime: Runtime, roles: list[Role], start_ms: int) -> None:
        self._runtime = runtime
        self._roles = roles
        self._start_ms = start_ms
        self._markers = Markers(runtime)
        self._admin = AdminClient({"log_level": 2} | runtime.kafka.librdkafka())
        self._events = JsonEvents()
        self._num_resting = 0
        self.num_sent = 0

    def is_enough(self) -> bool:
        """Take a sample; tell whether every role is warm and has taken everything."""
        monitors = [role for role in self._roles if role.name == "monitor"]
        measuring = [list_tree(role.pid)[1:] for role in monitors]
        if not all(measuring) or not self._is_shared(len(monitors)):
            self._send()
            return False
        # Under load a process that waits for a processor is as good as running.
        self._num_resting = 0 if any(is_running(pid) for pids in measuring for pid in pids) else self._num_resting + 1
        return self._num_resting >= _NUM_RESTING and self._is_taken()

    def _is_taken(self) -> bool:
        reads = {"monitor": self._markers.read_monitor, "sink": self._markers.read_sink}
        return all(reads[name]() >= self.num_sent for name in {role.name for role in self._roles})

    def _send(self) -> None:
        with Fill(self._runtime, self._runtime.topics("predictions")) as fill:
            for _ in range(self._runtime.num_partitions):
                fill.send(self._events.make(_NUM_WARM_FIRST + self.num_sent, self._start_ms))
                self.num_sent += 1

    def _is_shared(self, num_workers: int) -> bool:
        """Whether so many members of the monitor's group have partitions of the topic of predictions."""
        group, topic = self._runtime.topics(MONITOR), self._runtime.topics("predictions")
        described = self._admin.describe_consumer_groups([group], request_timeout=_ANSWER_TIMEOUT_S)[group].result()
        owners = [
            member
            for member in described.members
            if member.assignment and any(place.topic == topic for place in member.assignment.topic_partitions)
        ]
        return len(owners) == num_workers

    def close(self) -> None:
        self._markers.close()

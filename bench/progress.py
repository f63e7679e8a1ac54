"""How fast roles get on: their markers in ClickHouse, sampled with the processor time that they have used.

What is below stage 1's marker is validated, deduplicated, counted and durable; below the sink's marker it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.processes import read_cpu_s
from bench.surroundings import Role, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.markers import read_sink_markers
from store.summaries import read_markers

# Markers come about once a second, so a sample is at most this late; asking costs the machine 5 ms.
_SAMPLE_S = 0.2
_NUM_STEPS_MIN = 4


@dataclass(frozen=True, slots=True)
class Step:
    """The sum of a role's markers at an instant (time.perf_counter), and its processor time so far."""

    at_s: float
    reached: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages a second, processor seconds a message, and how long that was measured."""

    per_s: float
    cpu_s: float
    elapsed_s: float


class Progress:
    """Samples one marker until it has reached `end`; processor time is that of all `roles` together."""

    def __init__(self, read: Callable[[], int], end: int, roles: Sequence[Role]) -> None:
        self._read = read
        self._end = end
        self._roles = roles
        self.steps: list[Step] = []

    def is_done(self) -> bool:
        """Take a sample; tell whether everything is done."""
        if self.steps and self.steps[-1].reached >= self._end:
            return True
        reached = self._read()
        if not self.steps or reached > self.steps[-1].reached:
            cpu_s = sum(read_cpu_s(role.pid) for role in self._roles)
            self.steps.append(Step(time.perf_counter(), reached, cpu_s))
        return False

    @property
    def steady_s(self) -> float:
        """How long every second was a full one: without the first one, and the last, in which reading ended; or 0."""
        grown = self._list_grown()
        return grown[-2].at_s - grown[0].at_s if len(grown) >= _NUM_STEPS_MIN else 0.0

    def measure(self) -> Pace:
        """Give the pace of the steady part; where there was none that of all, in the worst case with the start."""
        grown = self._list_grown()
        begin, end = (
            (grown[0], grown[-2]) if self.steady_s else (grown[0] if len(grown) > 1 else self.steps[0], grown[-1])
        )
        num, elapsed_s = end.reached - begin.reached, end.at_s - begin.at_s
        return Pace(num / elapsed_s, (end.cpu_s - begin.cpu_s) / num, elapsed_s)

    def _list_grown(self) -> list[Step]:
        return [step for step in self.steps if step.reached]


class Markers:
    """Reads the sums of markers on the topic of predictions."""

    def __init__(self, runtime: Runtime) -> None:
        self._store = ClickHouse(runtime.clickhouse)
        self._topics = [runtime.topics("predictions")]
        self._job = runtime.topics(MONITOR)

    def read_monitor(self) -> int:
        """Give how many messages stage 1 has made durable."""
        return sum(marker.next_offset for marker in read_markers(self._store, self._job, self._topics))

    def read_sink(self) -> int:
        """Give how many messages the sink has stored."""
        return sum(read_sink_markers(self._store, self._topics).values())

    def close(self) -> None:
        self._store.close()


def watch(runtime: Runtime, roles: Sequence[Role], num_messages: int, timeout_s: float) -> dict[str, Progress]:
    """Wait until every role has taken all messages, all of which are on the topic; give what was sampled, by name."""
    markers = Markers(runtime)
    reads = {"monitor": markers.read_monitor, "sink": markers.read_sink}
    names = dict.fromkeys(role.name for role in roles)
    progress = {name: Progress(reads[name], num_messages, [r for r in roles if r.name == name]) for name in names}
    try:
        # Summed, since `all` would stop looking at the first that is not done.
        wait_until(
            lambda: sum(each.is_done() for each in progress.values()) == len(progress),
            timeout_s,
            f"{num_messages:,} messages",
            roles,
            _SAMPLE_S,
        )
        return progress
    finally:
        markers.close()

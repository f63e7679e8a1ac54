"""How fast roles get on: their markers in ClickHouse, sampled with the processor time that they have used.

What is below stage 1's marker is validated, deduplicated, counted and durable; below the sink's marker it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.processes import read_cpu_s
from bench.surroundings import Role, Servers, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.markers import read_sink_markers
from store.summaries import read_markers

# Markers come about once a second, so a sample is at most this late; asking costs the machine 5 ms.
_SAMPLE_S = 0.2
_NUM_STEPS_MIN = 5


@dataclass(frozen=True, slots=True)
class Step:
    """The sum of a role's markers at an instant (time.perf_counter), and the processor time of each process so far."""

    at_s: float
    reached: int
    cpu_s: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages a second, processor seconds a message, and how long that was measured."""

    per_s: float
    cpu_s: float
    elapsed_s: float


class Progress:
    """Samples the marker of some workers of one role from now on, until it has reached `end`."""

    def __init__(self, read: Callable[[], int], end: int, workers: Sequence[int], others: Mapping[str, int]) -> None:
        """`workers` are their processes, `others` those whose processor time is of interest too."""
        self._read = read
        self._end = end
        self._workers = workers
        self._others = others
        self.steps: list[Step] = []

    def is_done(self) -> bool:
        """Take a sample; tell whether everything is done."""
        if self.steps and self.steps[-1].reached >= self._end:
            return True
        reached = self._read()
        if not self.steps or reached > self.steps[-1].reached:
            pids = [*self._workers, *self._others.values()]
            self.steps.append(Step(time.perf_counter(), reached, {pid: read_cpu_s(pid) for pid in pids}))
        return False

    @property
    def elapsed_s(self) -> float:
        """How long all of it took, the tick of the markers included."""
        return self.steps[-1].at_s - self.steps[0].at_s

    @property
    def steady_s(self) -> float:
        """How long every second was a full one: without the first one, and the last, in which reading ended; or 0."""
        return self.steps[-2].at_s - self.steps[1].at_s if len(self.steps) >= _NUM_STEPS_MIN else 0.0

    def measure(self) -> Pace:
        """Give the pace of the steady part, or where there was none of all."""
        begin, end = self._find_part()
        num, elapsed_s = end.reached - begin.reached, end.at_s - begin.at_s
        cpu_s = sum(end.cpu_s[pid] - begin.cpu_s[pid] for pid in self._workers)
        return Pace(num / elapsed_s, cpu_s / num, elapsed_s)

    def measure_cores(self) -> dict[str, float]:
        """Give how many cores each process kept busy meanwhile."""
        begin, end = self._find_part()
        pids = {f"worker {number}": pid for number, pid in enumerate(self._workers, 1)} | dict(self._others)
        return {name: (end.cpu_s[pid] - begin.cpu_s[pid]) / (end.at_s - begin.at_s) for name, pid in pids.items()}

    def _find_part(self) -> tuple[Step, Step]:
        return (self.steps[1], self.steps[-2]) if self.steady_s else (self.steps[0], self.steps[-1])


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


def watch(
    servers: Servers, runtime: Runtime, roles: Sequence[Role], num_messages: int, timeout_s: float
) -> dict[str, Progress]:
    """Wait until every role has taken all messages, which are on the topic now; give what was sampled, by name."""
    markers = Markers(runtime)
    reads = {"monitor": markers.read_monitor, "sink": markers.read_sink}
    workers: dict[str, list[int]] = {}
    for role in roles:
        workers.setdefault(role.name, []).append(role.pid)
    progress = {name: Progress(reads[name], num_messages, pids, servers.pids) for name, pids in workers.items()}
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

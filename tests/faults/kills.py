"""SIGKILLs at random moments, each only after progress since the last, some of them while something is being written.

Whether a kill hit a write under way is not taken from the aim: it is read from what is left, once the victim is dead.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import Retryable
from tests.faults.installation import Installation

KINDS = ("monitor", "sink", "clickhouse")
WAIT_S = 300.0
AIM_S = 30.0
SETTLE_S = 0.5
OUTAGE_S_MAX = 2.0

# Stage 1: summaries stamped beyond the marker, by partition. The marker comes last.
_COUNTED_BEYOND = """
    SELECT topic, partition FROM
    (SELECT topic, topic_id, partition, max(stamp) AS reached FROM summaries GROUP BY topic, topic_id, partition) AS s
    LEFT JOIN
    (SELECT topic, topic_id, partition, max(next_offset) AS marker FROM stage1_markers
     GROUP BY topic, topic_id, partition) AS m USING (topic, topic_id, partition)
    WHERE reached > marker SETTINGS final = 0
"""
# The sink: events beyond its marker.
_STORED_BEYOND = """
    SELECT topic, partition FROM
    (
        SELECT topic, topic_id, partition, max(offset) + 1 AS reached FROM
        (SELECT topic, topic_id, partition, offset FROM records
         UNION ALL SELECT topic, topic_id, partition, offset FROM predictions
         UNION ALL SELECT topic, topic_id, partition, offset FROM labels)
        GROUP BY topic, topic_id, partition
    ) AS s
    LEFT JOIN
    (SELECT topic, topic_id, partition, max(next_offset) AS marker FROM sink_markers
     GROUP BY topic, topic_id, partition) AS m USING (topic, topic_id, partition)
    WHERE reached > marker SETTINGS final = 0
"""
_WRITTEN_BEYOND = {"monitor": _COUNTED_BEYOND, "sink": _STORED_BEYOND}

# Inserts under way, by who makes them; of those that come before a marker.
_INSERTING = "SELECT 1 FROM system.processes WHERE query_kind = 'Insert' AND match(query, {tables:String})"
_TABLES = {"monitor": "identities|summaries|dead_letters", "sink": "records|predictions|labels", "clickhouse": ""}

# What a role says when its write broke off, unlike a write that found nobody there.
_BROKEN_WRITE = re.compile(r"(?:flushing waits|waiting: )(?!.*refused).*not reachable.*")
_ASSIGNED = re.compile(r"streams\.counting: counts (.*)")


@dataclass(frozen=True)
class Kill:
    """A planned kill: at a random moment, or `aimed` at a write."""

    kind: str
    is_aimed: bool


@dataclass
class Toll:
    """What was killed, in order, and how many of each kind were hit while writing."""

    killed: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str) -> int:
        return sum(name.startswith(kind) for name in self.killed)


def plan_kills(rng: random.Random, num_each: int) -> list[Kill]:
    """Give as many kills of each kind, every other aimed, in random order."""
    plan = [Kill(kind, number % 2 == 0) for kind in KINDS for number in range(num_each)]
    rng.shuffle(plan)
    return plan


class Killer:
    """Kills and starts again; `feed` sends some more of the stream."""

    def __init__(self, running: Installation, rng: random.Random, feed: Callable[[], None]) -> None:
        self.toll = Toll()
        self._running = running
        self._rng = rng
        self._feed = feed
        self._before = (0, 0)

    def strike(self, kill: Kill) -> None:
        """Feed, wait for progress of both readers since the last kill, kill, and start the victim again."""
        self._feed()
        self._wait_for_progress()
        if kill.is_aimed:
            self._feed()
        if kill.kind == "clickhouse":
            self._strike_clickhouse(kill)
            return
        workers = [each for each in self._running.roles if each.startswith(kill.kind)]
        name = self._rng.choice(workers)
        if kill.is_aimed:
            name = self._catch_writing(kill.kind, workers) or name
        self._running.kill(name)
        self.toll.killed.append(name)
        self.toll.hits[kill.kind] += self._find_writer(kill.kind, [name]) is not None
        self._before = self._read_progress()
        self._running.start(name)

    def _strike_clickhouse(self, kill: Kill) -> None:
        log_sizes = {name: role.log_path.stat().st_size for name, role in self._running.roles.items()}
        if kill.is_aimed:
            self._wait_for_insert(kill.kind, time.monotonic() + AIM_S)
        self._running.kill(kill.kind)
        self.toll.killed.append(kill.kind)
        # Sometimes it is away long enough for much to be counted and not stored.
        time.sleep(self._rng.uniform(0.0, OUTAGE_S_MAX))
        self._running.start(kill.kind)
        self._before = self._read_progress()
        self._feed()
        self._wait_for_progress()
        # Whose write broke off has said so before it went on.
        tails = [role.log[log_sizes[name] :] for name, role in self._running.roles.items()]
        self.toll.hits[kill.kind] += any(_BROKEN_WRITE.search(tail) for tail in tails)

    def _catch_writing(self, kind: str, workers: list[str]) -> str | None:
        """Wait for a write under way and say whose it is: that one is left frozen. None if they are too quick."""
        deadline_s = time.monotonic() + AIM_S
        while self._wait_for_insert(kind, deadline_s):
            for name in workers:
                self._running.roles[name].freeze()
            writer = self._find_writer(kind, workers)
            for name in workers:
                if name != writer:
                    self._running.roles[name].thaw()
            if writer is not None:
                return writer
        return None

    def _wait_for_insert(self, kind: str, deadline_s: float) -> bool:
        while time.monotonic() < deadline_s:
            if self._running.store.query(_INSERTING, {"tables": _TABLES[kind]}):
                return True
        return False

    def _find_writer(self, kind: str, stopped: list[str]) -> str | None:
        """Say which of these, dead or frozen, has written beyond its marker."""
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            # What the server has received it writes, whoever is dead meanwhile.
            is_inserting = self._running.store.query(_INSERTING, {"tables": _TABLES[kind]})
            for place in self._running.store.query(_WRITTEN_BEYOND[kind]):
                for name in stopped:
                    if self._is_owner(name, *place):
                        return name
            if not is_inserting or time.monotonic() > deadline_s:
                return None

    def _is_owner(self, name: str, topic: str, partition: int) -> bool:
        """Say whether a partition is written by a role: of the monitor's workers it is the one that said so last."""
        if not name.startswith("monitor"):
            return True
        said = _ASSIGNED.findall(self._running.roles[name].log)
        return bool(said) and f"{topic}/{partition}@" in said[-1]

    def _read_progress(self) -> tuple[int, int]:
        """How many messages stage 1 and the sink have behind their markers."""
        ((counted,),) = self._running.store.query("SELECT sum(next_offset) FROM stage1_markers")
        ((stored,),) = self._running.store.query(
            "SELECT sum(next_offset) FROM sink_markers WHERE topic != 't-dead-letters'"
        )
        return int(counted), int(stored)

    def _wait_for_progress(self) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                counted, stored = self._read_progress()
                if counted > self._before[0] and stored > self._before[1]:
                    return
            except Retryable:
                pass  # ClickHouse is still starting
            self._running.require_alive()
            assert time.monotonic() < deadline_s, f"no progress in {WAIT_S} s after {self.toll.killed[-1:]}"
            time.sleep(0.02)

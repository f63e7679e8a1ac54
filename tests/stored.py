"""A store filled as stage 1 and the sink fill it, through their own code but without a broker; and a monitor on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from schemas.clock import SystemClock
from schemas.columns import EventColumns, Kind
from schemas.connections import ClickHouseConnection
from schemas.errors import Retryable
from schemas.events import RoleMap
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, ModelHistory, PublishedSpec
from schemas.topics import WATERMARK_HEADER
from schemas.validation import validate
from store.client import ClickHouse
from store.dead_letters import dead_letter_rows
from store.events import insert_events
from store.markers import write_sink_markers
from store.migrations import migrate
from store.summaries import Place, StoredPartition, insert_ids, insert_markers, insert_summaries
from streams import measuring
from streams.judging import Judge
from streams.logic.partition import Partition
from streams.monitoring import Monitor, Pace
from streams.processes import ProcessPool
from tests.clickhouses import EmbeddedClickHouse

JOB = "monitor"
KEY = b"a key of the tests"
KAFKA_TIME_MS = 1_900_000_000_000
TOPIC_IDS = {
    "records": "00000000-0000-0000-0000-000000000001",
    "predictions": "00000000-0000-0000-0000-000000000002",
    "labels": "00000000-0000-0000-0000-000000000003",
}


@contextmanager
def run_store(folder: Path) -> Iterator[ClickHouseConnection]:
    """A server of its own with all tables in it."""
    server = EmbeddedClickHouse(folder)
    server.start()
    try:
        connection = ClickHouseConnection(server.url)
        store = ClickHouse(connection)
        migrate(store)
        store.close()
        yield connection
    finally:
        server.stop()


@dataclass
class StoredRoles:
    """Role maps as the log would have them."""

    maps: list[RoleMap] = field(default_factory=list)

    def at(self, model: str, ts_ms: int) -> RoleMap | None:
        known = [each for each in self.maps if each.model == model and each.at <= ts_ms]
        return max(known, key=lambda each: each.epoch, default=None)


@dataclass
class SentEvents:
    """What was sent, by topic, in order; after `num_until_away` times the log is away once."""

    events: dict[str, list[msgspec.Struct]] = field(default_factory=dict)
    num_until_away: int | None = None

    def send(self, topic: str, events: Sequence[msgspec.Struct], model: str) -> None:
        if self.num_until_away == 0:
            self.num_until_away = None
            raise Retryable("the log is away")
        if self.num_until_away is not None:
            self.num_until_away -= 1
        self.events.setdefault(topic, []).extend(events)


class StoredStream:
    """The three inbound topics, each with some partitions, written message by message."""

    def __init__(self, ch: ClickHouse, published: PublishedSpec, num_partitions: int = 1) -> None:
        self._ch = ch
        self.published = published
        self.catalogue = Catalogue()
        self.catalogue.add(published)
        self.num_partitions = num_partitions
        self._next: dict[tuple[str, int], int] = {}
        self._held: list[tuple[Kind, int, list[EventColumns]]] = []
        self._partitions = {
            (kind, index): Partition.restore(
                Place(kind, TOPIC_IDS[kind], index), kind, StoredPartition(None), 0, self.catalogue
            )
            for kind in ("records", "predictions")
            for index in range(num_partitions)
        }

    def send(self, kind: Kind, values: Sequence[bytes], partition: int = 0, sink: bool = True) -> None:
        """Take in messages of one partition: the sink stores their rows, stage 1 their summaries."""
        places = self._places(kind, partition, len(values))
        self._take(kind, partition, MessageBatch(kind, TOPIC_IDS[kind], partition, *places, list(values)), sink)

    def send_watermark(self, ms: int, sink: bool = True, flush: bool = True) -> None:
        """Say on every partition that nothing before an instant will follow; stage 1 makes it durable, or not yet."""
        for kind, partition in self._partitions:
            batch = MessageBatch(kind, TOPIC_IDS[kind], partition, *self._places(kind, partition, 1), [None],
                                 {0: [(WATERMARK_HEADER, str(ms).encode())]},
                                 {0: self.published.model.encode()})  # fmt: skip
            self._take(kind, partition, batch, sink, flush)

    def _places(self, kind: str, partition: int, num: int) -> tuple[np.ndarray, np.ndarray]:
        first = self._next.get((kind, partition), 0)
        self._next[kind, partition] = first + num
        return np.arange(first, first + num), np.full(num, KAFKA_TIME_MS)

    def _take(self, kind: Kind, partition: int, batch: MessageBatch, sink: bool, flush: bool = True) -> None:
        validated = validate(kind, batch, self.catalogue, KEY)
        assert not validated.dead, validated.dead[0].message
        self._held.append((kind, partition, validated.columns))
        if sink:
            self.catch_up()
        state = self._partitions.get((kind, partition))
        if state is None:
            return
        end = self._next[kind, partition]
        state.advance(state.compute(batch, validated, self.catalogue), end)
        if not flush:
            return
        taken = state.snapshot()
        insert_ids(self._ch, JOB, [(taken.place, block) for block in taken.ids])
        insert_summaries(self._ch, JOB, taken.rows())
        self._ch.insert_arrow("dead_letters", dead_letter_rows(taken.dead))
        insert_markers(self._ch, JOB, [taken.marker])
        state.confirm(taken)

    def catch_up(self) -> None:
        """Store what the sink has not stored yet, and its markers."""
        for kind, partition, blocks in self._held:
            for columns in blocks:
                insert_events(self._ch, columns, kind, TOPIC_IDS[kind], partition)
            place = (kind, TOPIC_IDS[kind], partition)
            write_sink_markers(self._ch, {place: self._next[kind, partition]}, KAFKA_TIME_MS)
        self._held.clear()


class StoredMonitor:
    """Stages 2 and 3 on a store, with real measuring processes; what it sends is kept in `sent`."""

    def __init__(self, connection: ClickHouseConnection, pool: ProcessPool, num_partitions: int = 1) -> None:
        self.ch = ClickHouse(connection)
        self.roles = StoredRoles()
        self.sent = SentEvents()
        self.stop = threading.Event()
        self.monitor = Monitor(
            self.ch,
            JOB,
            {kind: kind for kind in TOPIC_IDS},
            pool,
            self.sent,
            lambda explain: Judge(self.ch, self.sent, self.roles, explain, SystemClock()),
            lambda: {(kind, TOPIC_IDS[kind]): num_partitions for kind in ("records", "predictions")},
            SystemClock(),
            self.stop,
        )

    def look(self, published: PublishedSpec) -> Pace:
        return self.monitor.look(ModelHistory([published]))

    def close(self) -> None:
        self.ch.close()


def start_pool(connection: ClickHouseConnection) -> ProcessPool:
    pool = ProcessPool(1, measuring.start_process, (connection, KEY))
    pool.warm_up()
    return pool

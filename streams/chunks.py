"""Faust's transport, delivering one message per fetched chunk of a partition instead of one per event.

    app.transport = ChunkTransport.of(app, topics={"records"})
    topic = app.topic("records", key_serializer="raw", value_serializer="raw")   # event.value is a Chunk

Stock Faust costs 70 µs an event, whatever one tunes, because it handles each message in several tasks. A chunk is
handled as seldom as a message, and its events are never objects of their own. Other topics are left as they are.

What it touches of aiokafka is private, and `check_internals` refuses to start on sources other than these:
1. `Fetcher._proc_fetch_request` is wrapped on the one instance: it alone fills `Fetcher._records`; what it puts fetched
   bytes into is our `RecordSet`, which remembers them, for every consumer of the process;
2. `Fetcher._records[tp]._partition_records` is replaced by our subclass of `PartitionRecords`;
3. `PartitionRecords._unpack_records` is mirrored (control batches, aborted transactions, positions);
4. `AIOKafkaConsumer._isolation_level` and `_fetch_max_wait_ms` are set, for which Faust has no settings;
5. `AIOKafkaConnection._read` and `AIOKafkaProtocol` are replaced by those of `streams.sockets`, for every connection.
Stock `fetched_records`, `getall`, positions, seeks and limits then work as ever: they see chunks as records.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import weakref
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from aiokafka import conn as connecting
from aiokafka.consumer import fetcher as fetching
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from schemas.errors import ConfigurationError
from streams.record_sets import RecordBatch, RecordSet
from streams.sockets import read_in_place

# When one of these changes upstream, the mirror must be read again: better no start than a wrong count.
_MIRRORED = {
    PartitionRecords._unpack_records: "b803e6d46480",
    FetchResult.getall: "3e717e30de50",
    FetchResult.check_assignment: "b5340df67e3f",
    Fetcher._proc_fetch_request: "59bf948fff47",
    connecting.AIOKafkaConnection._read: "7b892995c0b8",
    connecting.AIOKafkaConnection.connect: "b0f9ba7f0cf6",
    connecting.AIOKafkaProtocol: "0f94e2d60152",
}

# A partition whose chunk was just taken waits for the fetch under way, which waits this long for news of others.
_FETCH_WAIT_MS = 100
# While partitions are restored, questions about offsets wait behind it, and so does the first fetch from the new place:
# a broker answers one connection in order.
_RESTORING_WAIT_MS = 10


def check_internals(mirrored: Mapping[Any, str] = _MIRRORED) -> None:
    """Refuse to start on an aiokafka whose functions are not those that the transport was written against."""
    changed = [f.__qualname__ for f, known in mirrored.items() if hash_source(f) != known]
    if changed:
        raise ConfigurationError(
            f"this aiokafka is not the one that the chunk transport mirrors: {', '.join(changed)} changed",
            remedy="Install the pinned version, or read the new source and bring streams/chunks.py up to it",
        )


def hash_source(function: Any) -> str:
    """Give the first 12 hex digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


class Chunk:
    """The undecoded batches of one partition between offsets [start, next_offset).

    `start` is the position that was fetched from, not the first record's offset. So `start` is the previous chunk's
    `next_offset` even where offsets have holes, and a start beyond the expected offset proves a loss. A chunk without
    batches holds control records or aborted transactions only.
    """

    __slots__ = ("__weakref__", "batches", "is_void", "next_offset", "num_records_max", "start", "tp")

    def __init__(
        self, tp: TP, start: int, next_offset: int, num_records_max: int = 0, batches: list[RecordBatch] | None = None
    ) -> None:
        self.tp = tp
        self.start = start
        self.next_offset = next_offset
        self.num_records_max = num_records_max
        self.batches = [] if batches is None else batches
        self.is_void = False

    def take(self) -> list[RecordBatch]:
        """Hand over the batches, once; the chunk no longer counts against what its partition may hold."""
        batches, self.batches = self.batches, []
        self.num_records_max = 0
        return batches

    def void(self) -> None:
        """Drop the chunk: it will come again, or is somebody else's; no acknowledgement will come."""
        self.take()
        self.is_void = True


class ChunkRecords(PartitionRecords):  # type: ignore[misc]
    """One fetch response as chunks; mirrors `PartitionRecords._unpack_records` without its loop over records."""

    next_fetch_offset: int

    def __init__(self, plain: PartitionRecords, num_records_max: int) -> None:
        # The plain one has parsed nothing yet: its generator has not been started.
        self.__dict__.update(plain.__dict__)
        self._num_records_max = num_records_max
        self._records_iterator = self._unpack_records()

    def _unpack_records(self) -> Iterator[Chunk]:
        start = end = self.next_fetch_offset
        batches: list[RecordBatch] = []
        count = 0
        for batch in self._records.batches():
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            is_hidden = self._is_hidden(batch)
            size = 0 if is_hidden else batch.num_records
            if count and count + size > self._num_records_max:
                self.next_fetch_offset = end
                yield Chunk(self._tp, start, end, count, batches)
                start, batches, count = end, [], 0
            if not is_hidden:
                batches.append(batch)
                count += size
            end = batch.next_offset
        self.next_fetch_offset = end
        if end > start:
            # Also when nothing in it is visible: the commit and the check for losses must get past control records.
            yield Chunk(self._tp, start, end, count, batches)

    def _is_hidden(self, batch: RecordBatch) -> bool:
        if self._isolation_level == READ_COMMITTED:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch.parse()):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Reads committed messages only, and puts chunks where aiokafka keeps records."""

    def _create_worker_consumer(self, transport: ChunkTransport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS if transport.resume is None else _RESTORING_WAIT_MS
        return consumer

    async def on_start(self) -> None:
        fetching.MemoryRecords = RecordSet
        read_in_place()
        await super().on_start()
        fetcher, transport = self._consumer._fetcher, self.transport
        stock = fetcher._proc_fetch_request

        async def proc_fetch_request(assignment: Any, node_id: Any, request: Any) -> Any:
            # No await lies between filling _records and here, so nobody sees the plain records.
            wake_up = await stock(assignment, node_id, request)
            for tp, result in fetcher._records.items():
                if (
                    tp.topic in transport.chunk_topics
                    and type(result) is FetchResult
                    and type(result._partition_records) is PartitionRecords
                ):
                    result._partition_records = ChunkRecords(result._partition_records, transport.num_records_max)
            return wake_up

        fetcher._proc_fetch_request = proc_fetch_request

    def wait_for_news(self, wait_ms: int) -> None:
        """From the next fetch on have the broker wait so long for something to send."""
        if self._consumer is not None:
            self._consumer._fetcher._fetch_max_wait_ms = wait_ms

    async def on_thread_stop(self) -> None:
        if self._consumer is not None and self._has_others():
            # aiokafka lets a static member keep its place till its session ends, but these go on at once.
            self._consumer._coordinator._group_instance_id = None
        await super().on_thread_stop()

    def _has_others(self) -> bool:
        """Whether others read partitions, too. Alone, a place is better kept: an empty group waits for more members."""
        topics = self.transport.chunk_topics
        num_mine = sum(tp.topic in topics for tp in self._consumer.assignment())
        return num_mine < sum(len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics)


class ReadOffsets(defaultdict[TP, int | None]):
    """Faust's memory of what it has read, empty for chunk topics.

    Faust drops what lies below it. But a chunk under way during a seek would set it back to the old place afterwards,
    and the chunks sought would be dropped in silence. Ours are told apart by their `start`.
    """

    def __init__(self, is_chunked: Callable[[TP], bool]) -> None:
        super().__init__(lambda: None)
        self._is_chunked = is_chunked

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._is_chunked(tp) else super().__getitem__(tp)


class ChunkConsumer(driver.Consumer):  # type: ignore[misc]
    """Stock for other topics. For chunk topics: own acknowledgements, back-pressure and resume offsets."""

    callback: Callable[[ConsumerMessage], Awaitable[None]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Messages handed to the agent and not yet committed, in order of delivery.
        self._ledger: defaultdict[TP, deque[ConsumerMessage]] = defaultdict(deque)
        # Chunks not yet taken; weak, so that those dropped on the way vanish by themselves.
        self._held: defaultdict[TP, weakref.WeakSet[Chunk]] = defaultdict(weakref.WeakSet)
        self._conduct = self.callback
        self.callback = self._deliver
        self._seek_lock = asyncio.Lock()
        self._read_offset = ReadOffsets(self._is_chunked)

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _is_chunked(self, tp: TP) -> bool:
        return tp.topic in self.transport.chunk_topics

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if type(record) is not Chunk:
            return super()._to_message(tp, record)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.next_offset - 1,
            timestamp=None,
            timestamp_type=None,
            headers=None,
            key=None,
            value=record,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _deliver(self, message: ConsumerMessage) -> None:
        if not self._is_chunked(message.tp):
            await self._conduct(message)
            return
        self._held[message.tp].add(message.value)
        await self._conduct(message)
        # Not after a rebalance in between: the stream will skip that message, and its ack would never come.
        if message.generation_id == self.app.consumer_generation_id:
            self._ledger[message.tp].append(message)

    async def _getmany(self, active_partitions: set[TP], timeout: float) -> Any:
        full = {
            tp
            for tp, held in self._held.items()
            if sum(bool(chunk.batches) for chunk in held) >= self.transport.num_held_max
        }
        active = active_partitions - full
        if not active:
            # Never pass an empty set on: aiokafka takes it for "all partitions".
            await self.sleep(0.01)
            return {}
        # Come back soon for the full ones.
        return await super()._getmany(active, 0.02 if full else timeout)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        known = list(super()._filter_tps_with_pending_acks(topics))
        return iter([*known, *(tp for tp in self._ledger if tp not in known and topics is None)])

    def _new_offset(self, tp: TP) -> int | None:
        """Give the next_offset of the longest acknowledged prefix in order of delivery.

        By message identity, not by offset: stock arithmetic needs dense offsets, and a chunk delivered again has the
        offset of the one before the rebalance. Works with the Cython stream too, which acks without `Consumer.ack`.
        """
        if not self._is_chunked(tp):
            offset: int | None = super()._new_offset(tp)
            return offset
        reached, ledger = None, self._ledger[tp]
        while ledger and (ledger[0].acked or ledger[0].value.is_void):
            message = ledger.popleft()
            reached = reached if message.value.is_void else message.value.next_offset
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return reached

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self._is_chunked(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def on_buffer_full(self, tp: TP) -> None:
        if not self._is_chunked(tp):
            super().on_buffer_full(tp)

    def forget(self, tps: Iterable[TP]) -> None:
        """Forget what was delivered of these partitions: their position is about to change."""
        for tp in tps:
            self._ledger.pop(tp, None)
            self._held.pop(tp, None)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)  # the app's last chance to flush and commit
        self.forget(revoked)
        if self.transport.resume is not None:
            self._thread.wait_for_news(_RESTORING_WAIT_MS)

    async def seek_chunks(self, offsets: Mapping[TP, int]) -> None:
        """Read on from these offsets; chunks already delivered are recognised by their `start`."""
        self.forget(offsets)
        # Not seek(): that calls into the other thread's event loop from ours.
        await self.seek_wait(offsets)

    async def perform_seek(self) -> None:
        """Called by Faust after each rebalance, before the flow resumes."""
        await super().perform_seek()
        await self.restore()

    async def restore(self, unless: Callable[[], bool] = lambda: False) -> None:
        """Go to the app's own offsets; not if `unless` says that another call, which this one waited for, has done so.

        Gives up at a third of broker_request_timeout: when perform_seek takes longer than that, Faust's recovery
        service ends without a word and the worker idles for ever. The flow resumes, and the agent asks again when it
        meets a chunk of a partition without state.
        """
        if self.transport.resume is None:
            return
        async with self._seek_lock:
            if unless():
                return
            try:
                async with asyncio.timeout(self.app.conf.broker_request_timeout / 3):
                    generation: object = object()
                    offsets: dict[TP, int] = {}
                    while generation != self.app.consumer_generation_id:  # assigned anew meanwhile: once more
                        generation = self.app.consumer_generation_id
                        tps = {TP(*tp) for tp in self.assignment() if self._is_chunked(tp)}
                        offsets = await self.transport.resume(tps) if tps else {}
                    if offsets:
                        await self.seek_chunks(offsets)
            except (TimeoutError, KafkaError) as error:  # the latter: revoked meanwhile, or the broker is away
                self.log.warning("partitions are not restored yet: %r", error)
            finally:
                self._thread.wait_for_news(_FETCH_WAIT_MS)


Resume = Callable[[set[TP]], Awaitable[dict[TP, int]]]


class ChunkTransport(driver.Transport):  # type: ignore[misc]
    """`resume` gives the offsets to begin at for newly assigned partitions; without it Kafka's committed ones rule."""

    Consumer = ChunkConsumer

    chunk_topics: frozenset[str] = frozenset()
    # One chunk; cut between batches only, so that a batch of more is a chunk of its own.
    num_records_max = 20_000
    # Delivered and not yet taken, per partition: in bytes this times consumer_max_fetch_size.
    num_held_max = 3
    resume: Resume | None = None

    @classmethod
    def of(cls, app: Any, topics: Iterable[str], resume: Resume | None = None) -> ChunkTransport:
        """Make the transport of a Faust app that reads `topics` in chunks."""
        check_internals()
        transport = cls(app.conf.broker_consumer, app)
        transport.chunk_topics = frozenset(topics)
        transport.resume = resume
        return transport

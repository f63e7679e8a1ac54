"""Stage 1's agent: takes chunks, counts them into the partitions' states, and flushes these to the store.

State lives in `logic.partition`, durability in `state`; here is what has to wait for something. Partitions are counted
side by side: what a batch adds is worked out in a thread, which only reads the partition's state. What changes that
state runs on the event loop without an await in between, so a flush sees it at a message boundary.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.clock import Clock
from schemas.columns import Kind
from schemas.connections import Runtime
from schemas.errors import DriftloopError, Retryable
from schemas.messages import MessageBatch
from schemas.topics import INBOUND
from schemas.validation import Validated, validate
from store.alerts import insert_alerts
from store.client import ClickHouse
from store.log import SpecFollower, describe_topics
from store.summaries import Place
from streams.batches import cut_batch, read_chunk, slice_batch
from streams.chunks import Chunk
from streams.lanes import Lanes
from streams.logic.breaker import PAUSE_S, Breaker
from streams.logic.deltas import Delta
from streams.logic.partition import Partition, Snapshot
from streams.refusals import make_breaker_alert, refuse_message
from streams.state import StateStore

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# What a batch costs whatever its size is what 5,000 events cost, so a fetched chunk of 12,000 is to be one batch. Much
# more, and its columns would not stay in the cache.
_NUM_MESSAGES_MAX = 16_384
_NUM_BYTES_MAX = 8 << 20
# Of the first chunk after an assignment: others may have waited for it, and a flush follows its first part.
_NUM_MESSAGES_FIRST = 1_024

# Unflushed events over the flush interval is a hard cap on the rate: 4 M/s at 1 s. Each keeps up to 32 bytes.
_NUM_UNFLUSHED_MAX = 4_000_000
# So many are flushed without waiting for the interval: a flush takes longer the more there is.
_NUM_FLUSHED_EARLY = 1_000_000
_FLUSH_INTERVAL_S = 1.0
# A closed window is flushed at once; so much later, so that what closes together is flushed together.
_URGENT_DELAY_S = 0.03
_BACKOFF_S_MAX = 5.0

_LOOK_INTERVAL_S = 2.0
_CLEAN_INTERVAL_S = 60.0
_HAND_OVER_S = 2.0
_SEEK_INTERVAL_S = 1.0
# What else the worker does begins when the first chunks are durable, or after this when none come.
_HEAD_START_S = 3.0


class LostLog(DriftloopError):
    """The store knows more of a log than the log itself: it was cut off, or is another one."""


@dataclass(slots=True)
class Owned:
    """An assigned partition; `waiting` are the messages to acknowledge with the next flush."""

    partition: Partition
    waiting: list[Any] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a thread reads the partition's state
    marker_due: bool = False
    is_resumed: bool = False  # something was counted since it was assigned
    sought_at_s: float = -_SEEK_INTERVAL_S


class Counting:
    """Counts the inbound topics of one worker. `failure` is set when it cannot go on; then the worker must stop."""

    def __init__(
        self, app: Any, runtime: Runtime, store: ClickHouse, job: str, specs: SpecFollower, clock: Clock
    ) -> None:
        self.kinds: dict[str, Kind] = {runtime.topics(kind): kind for kind in INBOUND}  # type: ignore[misc]
        self.failure: BaseException | None = None
        self.num_events = 0
        self.num_lost = 0
        self._app = app
        self._runtime = runtime
        self._store = store
        self._state = StateStore(runtime, store, job, clock)
        self._specs = specs
        self._clock = clock
        self._owned: dict[TP, Owned] = {}
        self._topic_ids: dict[str, str] = {}
        self._breakers = {topic: Breaker() for topic in self.kinds}
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="counting")
        # Kernels let go of the interpreter's lock, so threads are of use as far as there are cores.
        self._counters = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="count")
        self._lanes = Lanes(self._take, self.fail)
        self._flush_lock = asyncio.Lock()
        self._specs_lock = asyncio.Lock()
        self._topics_lock = asyncio.Lock()
        self._urgent = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_underway = asyncio.Event()

    # --- taking chunks

    async def process(self, stream: Any) -> None:
        """Count one topic's chunks for ever, each partition's in order; an agent's body."""
        events: AsyncIterator[Any] = stream.noack().events()
        async for event in events:
            await self._lanes.put(TP(*event.value.tp), event)

    def fail(self, error: BaseException) -> None:
        """Note that the worker cannot go on."""
        if self.failure is None:
            log.critical("the monitor stops: %s", error, exc_info=error)
            self.failure = error

    async def _take(self, event: Any) -> None:
        chunk: Chunk = event.value
        tp = TP(*chunk.tp)
        await self._wait_for_room()
        owned = self._owned.get(tp)
        if owned is None:  # not ours any more, or the store was away when it was assigned
            chunk.void()
            if event.message.generation_id == self._app.consumer_generation_id:
                await asyncio.sleep(0.1)
                await self._app.consumer.restore(unless=lambda: tp in self._owned)
        elif chunk.start > owned.partition.next_offset:
            chunk.void()
            await self._close_gap(tp, owned)
        else:
            await self._count_chunk(tp, owned, chunk)
            owned.waiting.append(event)

    async def _count_chunk(self, tp: TP, owned: Owned, chunk: Chunk) -> None:
        partition = owned.partition
        if chunk.next_offset <= partition.next_offset:
            chunk.take()
            return
        num_messages_max = _NUM_MESSAGES_MAX if owned.is_resumed else _NUM_MESSAGES_FIRST
        for part in await self._work_out(lambda: _read_parts(chunk, partition, num_messages_max)):
            delta = await self._count(owned, part)
            if delta is None or self._owned.get(tp) is not owned:
                return
            if self._breakers[partition.place.topic].note(len(part), delta.dead):
                await self._pause(partition.place.topic)
        if self._owned.get(tp) is owned:
            partition.skip_to(chunk.next_offset)

    async def _count(self, owned: Owned, batch: MessageBatch) -> Delta | None:
        """Count a batch, or what of it can be counted; None if the partition was taken away meanwhile."""
        partition = owned.partition
        async with owned.lock:
            try:
                validated, delta = await self._work_out(lambda: self._compute(partition, batch))
                if validated.unknown_models:
                    await self.refresh_specs()
                    validated, delta = await self._work_out(lambda: self._compute(partition, batch))
            except Exception as error:
                failure: Exception | None = error
            else:
                failure = None
                if self._owned.get(TP(partition.place.topic, partition.place.partition)) is not owned:
                    return None
                await self._work_out(lambda: partition.remember(delta))
                self._take_in(partition, delta, int(batch.offsets[-1]) + 1)
                if not owned.is_resumed:
                    # Others may have waited for this partition; they see that it goes on when this is durable.
                    owned.is_resumed = True
                    self._urgent.set()
        return delta if failure is None else await self._bisect(owned, batch, failure)

    def _compute(self, partition: Partition, batch: MessageBatch) -> tuple[Validated, Delta]:
        catalogue = self._specs.catalogue
        validated = validate(partition.kind, batch, catalogue, self._runtime.privacy_key)
        return validated, partition.compute(batch, validated, catalogue)

    async def _bisect(self, owned: Owned, batch: MessageBatch, error: Exception) -> Delta | None:
        """Find the message that cannot be counted; it becomes a dead letter, and the others count."""
        if len(batch) == 1:
            log.error("offset %d of %s cannot be counted", batch.offsets[0], owned.partition.place, exc_info=error)
            delta = Delta(dead=[refuse_message(batch, error)], num_events=1, num_ordinals=1)
            self._take_in(owned.partition, delta, int(batch.offsets[0]) + 1)
            return delta
        middle = len(batch) // 2
        first = await self._count(owned, slice_batch(batch, 0, middle))
        second = await self._count(owned, slice_batch(batch, middle, len(batch))) if first is not None else None
        if first is None or second is None:
            return None
        return Delta(dead=first.dead + second.dead)

    def _take_in(self, partition: Partition, delta: Delta, next_offset: int) -> None:
        partition.take_in(delta, next_offset)
        self.num_events += delta.num_events
        if partition.is_urgent or partition.num_unflushed > _NUM_FLUSHED_EARLY:
            self._urgent.set()

    async def _wait_for_room(self) -> None:
        """With the store away stop taking chunks; the transport then stops fetching."""
        while sum(owned.partition.num_unflushed for owned in self._owned.values()) > _NUM_UNFLUSHED_MAX:
            self._has_room.clear()
            self._urgent.set()
            await self._has_room.wait()

    async def _close_gap(self, tp: TP, owned: Owned) -> None:
        """Drop chunks from before a seek; seek again if the right one does not come; admit what retention took."""
        now_s = self._clock.monotonic_s()
        if now_s - owned.sought_at_s < _SEEK_INTERVAL_S:
            return
        owned.sought_at_s = now_s
        partition = owned.partition
        earliest = int((await self._app.consumer.earliest_offsets(tp))[tp])
        if earliest > partition.next_offset:
            num_lost = earliest - partition.next_offset
            self.num_lost += num_lost
            log.error("%s lost %d messages: retention deleted them before they were read", partition.place, num_lost)
            partition.skip_to(earliest)
        if self._owned.get(tp) is owned:
            await self._app.consumer.seek_chunks({tp: partition.next_offset})

    async def _pause(self, topic: str) -> None:
        reason = f"nearly nothing on topic {topic} can be decoded; reading it pauses for {PAUSE_S:.0f} s"
        log.critical("%s", reason)
        alert = make_breaker_alert(topic, reason, self._clock.now_ms())
        try:
            await self._call(lambda: insert_alerts(self._store, [alert]))
        except Retryable as error:
            log.warning("the alert could not be stored: %s", error)
        await asyncio.sleep(PAUSE_S)

    # --- restoring

    async def prepare(self) -> None:
        """Find out, while the group has yet to assign partitions, what does not depend on which they are."""
        await asyncio.gather(self.refresh_specs(), self._read_topic_ids(set(self.kinds)))

    async def wait_for_head_start(self) -> None:
        """Return when the first chunks are durable, or none have come for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEAD_START_S):
                await self._is_underway.wait()

    async def resume(self, tps: set[TP]) -> dict[TP, int]:
        """Load newly assigned partitions; waits for the store as long as the caller lets it."""
        _, _, earliest = await asyncio.gather(
            self.refresh_specs(),
            self._read_topic_ids({tp.topic for tp in tps}),
            self._app.consumer.earliest_offsets(*tps),
        )
        known = [tp for tp in tps if tp.topic in self._topic_ids]
        loaded = await self._load({tp: int(earliest[tp]) for tp in known})
        # Asked last: the marker may be of a former owner who is still reading.
        ends = await self._app.consumer.highwaters(*known) if known else {}
        for tp, partition in zip(known, loaded, strict=True):
            if partition.next_offset > int(ends[tp]):
                self.fail(
                    LostLog(
                        f"{partition.place} ends at offset {ends[tp]}, but was counted up to {partition.next_offset}. "
                        "The log was cut off; restore it, or delete and make the topic again"
                    )
                )
                self._owned = {}
                return {}
        # A marker says that the partition was taken in, even if nothing is in it.
        self._owned = {
            tp: Owned(partition, marker_due=partition.durable < 0) for tp, partition in zip(known, loaded, strict=True)
        }
        self._has_room.set()
        self._urgent.set()
        log.info(
            "counts %s",
            ", ".join(f"{tp.topic}/{tp.partition}@{o.partition.next_offset}" for tp, o in self._owned.items()),
        )
        return {tp: owned.partition.next_offset for tp, owned in self._owned.items()}

    async def _load(self, starts: Mapping[TP, int]) -> list[Partition]:
        places = {tp: Place(tp.topic, self._topic_ids[tp.topic], tp.partition) for tp in starts}
        kinds = {place: self.kinds[place.topic] for place in places.values()}
        earliest = {places[tp]: start for tp, start in starts.items()}
        return await self._persist(lambda: self._state.load(kinds, earliest, self._specs.catalogue))

    async def refresh_specs(self) -> None:
        """Bring the catalogue to the present end of `specs`."""
        async with self._specs_lock:
            await self._persist(self._specs.refresh)

    async def _read_topic_ids(self, topics: set[str]) -> set[str]:
        """Read the ids of topics; gives those that are another log than before."""
        async with self._topics_lock:
            described = await self._persist(lambda: describe_topics(self._runtime.kafka, topics))
            changed = {
                topic: topic_id for topic, (topic_id, _) in described.items() if self._topic_ids.get(topic) != topic_id
            }
            if changed:
                await self._persist(lambda: self._state.forget_other_lives(changed))
                self._topic_ids |= changed
            return set(changed)

    # --- looking after it

    async def look_after(self) -> None:
        """Every 2 s: follow the specs, notice topics made anew, and note which partitions are read to their end."""
        cleaned_at_s = self._clock.monotonic_s()
        while self.failure is None:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            try:
                await self._look()
                if self._clock.monotonic_s() - cleaned_at_s > _CLEAN_INTERVAL_S:
                    cleaned_at_s = self._clock.monotonic_s()
                    await self._clean()
            except (Retryable, KafkaError) as error:
                log.warning("%s", error)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.fail(error)

    async def _look(self) -> None:
        if not self._owned:
            return
        await self._call(self._specs.refresh)
        if await self._read_topic_ids({tp.topic for tp in self._owned}):
            log.warning("a topic was deleted and made again: it is another log, and begins at its beginning")
            await self._app.consumer.restore()
            return
        asked_at_ms = self._clock.now_ms()
        owned_before = dict(self._owned)
        ends = await self._app.consumer.highwaters(*owned_before)
        for tp, owned in owned_before.items():
            if owned.partition.next_offset >= int(ends[tp]):
                owned.partition.at_end_at = max(owned.partition.at_end_at, asked_at_ms)
                owned.marker_due = True

    async def _clean(self) -> None:
        everything = list(self._owned.values())
        for owned in everything:
            async with owned.lock:
                owned.partition.forget_expired()
        partitions = [owned.partition for owned in everything]
        await self._call(lambda: self._state.delete_expired(partitions, self._specs.catalogue))

    # --- flushing

    async def flush_forever(self) -> None:
        """Flush every second, and at once when a window closed or a closed one changed."""
        num_failures = 0
        while self.failure is None:
            delay_s = min(_BACKOFF_S_MAX, 0.25 * 2**num_failures) if num_failures else _FLUSH_INTERVAL_S
            try:
                async with asyncio.timeout(delay_s):
                    await self._urgent.wait()
                # Nothing closes together with the first chunk after a start, and it was waited for.
                urgent_delay_s = _URGENT_DELAY_S if self._is_underway.is_set() else 0.0
                await asyncio.sleep(delay_s if num_failures else urgent_delay_s)
            except TimeoutError:
                pass
            try:
                await self.flush()
                num_failures = 0
            except Retryable as error:
                num_failures += 1
                log.warning("flushing waits, nothing is lost: %s", error)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.fail(error)

    async def flush(self) -> None:
        """Make durable what was counted, then acknowledge it; on any error all of it stays to be flushed."""
        async with self._flush_lock:
            self._urgent.clear()
            taken: list[tuple[Owned, Snapshot, list[Any]]] = []
            for owned in self._owned.values():
                if owned.partition.has_news or owned.marker_due:
                    taken.append((owned, owned.partition.snapshot(), owned.waiting))
                    owned.waiting, owned.marker_due = [], False
            if not taken:
                return
            try:
                await self._call(lambda: self._state.write([snapshot for _, snapshot, _ in taken]))
            except BaseException:
                for owned, snapshot, waiting in taken:
                    owned.partition.give_back(snapshot)
                    owned.waiting, owned.marker_due = waiting + owned.waiting, True
                raise
            for owned, snapshot, waiting in taken:
                owned.partition.confirm(snapshot)
                for event in waiting:
                    event.ack()
            self._has_room.set()
            if any(snapshot.num_unflushed for _, snapshot, _ in taken):
                self._is_underway.set()

    async def hand_over(self) -> None:
        """On revoke or stop: flush for at most 2 s, since the store may be away and the group is waiting."""
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await self.flush()
                await self._app.consumer.commit()
        except (TimeoutError, Retryable) as error:
            log.warning("handed over without a last flush, the next owner reads again: %r", error)
        self._owned = {}
        self._has_room.set()

    def close(self) -> None:
        """Let go of threads and connections."""
        self._lanes.close()
        self._counters.shutdown(wait=False, cancel_futures=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._state.close()

    async def _work_out(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._counters, function)

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def _persist(self, function: Callable[[], Result]) -> Result:
        """Call until it works; the caller has the deadline, or the event loop is being stopped."""
        delay_s = 0.1
        while True:
            try:
                return await self._call(function)
            except Retryable as error:
                log.warning("%s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(_BACKOFF_S_MAX, 2 * delay_s)


def _read_parts(chunk: Chunk, partition: Partition, num_messages_max: int) -> list[MessageBatch]:
    batch = read_chunk(chunk, partition.place.topic_id, partition.next_offset)
    return list(cut_batch(batch, num_messages_max, _NUM_BYTES_MAX))

"""A partition: segments in a folder, appended to at the end, read from anywhere, removed from the front.

It decides what may be appended (sizes, times, sequence numbers) and what committed readers may see. It is synchronous;
whoever waits for new batches is called back through `on_append`.
"""

import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from driftloop.embedded.broker.batches import (
    BatchHeader,
    encode_marker,
    is_commit_marker,
    iterate_records,
    read_header,
    stamp_batch,
    validate_batch,
)
from driftloop.embedded.broker.configs import TopicConfig
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.producers import AbortedTransaction, ProducerState
from driftloop.embedded.broker.segment import Segment
from driftloop.embedded.broker.wire import Bytes


class Appended(NamedTuple):
    """Where a batch went; the time is -1 where the producer's own times hold."""

    base_offset: int
    append_time_ms: int


class Log:
    """One partition's batches."""

    def __init__(self, folder: Path, config: TopicConfig, start_offset: int = 0) -> None:
        """Opens or makes the partition's folder and repairs what a killed process left behind."""
        self.folder = folder
        self.config = config
        self.on_append: set[Callable[[], None]] = set()
        self.is_closed = False
        folder.mkdir(parents=True, exist_ok=True)
        self.segments, self.producers = self._open_segments(start_offset)
        self.start_offset = max(start_offset, self.segments[0].base_offset)
        # Compaction has read every record below this offset; at this time it may remove the next tombstones.
        self.clean_offset = 0
        self.next_horizon_ms: int | None = None
        self._active_since = time.monotonic()

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    @property
    def end_offset(self) -> int:
        return self.active.next_offset

    @property
    def stable_offset(self) -> int:
        """Where the first open transaction begins; readers of committed data see nothing from here on."""
        return min(self.producers.open_since.values(), default=self.end_offset)

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    def _open_segments(self, start_offset: int) -> tuple[list[Segment], ProducerState]:
        for leftover in (*self.folder.glob("*-new"), *self.folder.glob("*.cleaned")):
            leftover.unlink()
        bases = sorted(int(path.stem) for path in self.folder.glob("*.log"))
        segments: list[Segment] = []
        for base in bases or [start_offset]:
            segment = Segment(Segment.locate(self.folder, base), base)
            if segments and base < segments[-1].next_offset:
                segment.delete()  # Compaction had merged it into the one before when the process ended.
                continue
            if base != bases[-1] if bases else False:
                self._open_sealed(segment)
            segments.append(segment)
        return segments, self._recover_producers(segments)

    @staticmethod
    def _open_sealed(segment: Segment) -> None:
        if not segment.load_index():
            for _ in segment.recover(verify=False):
                pass
            segment.save_index()

    @staticmethod
    def _recover_producers(segments: list[Segment]) -> ProducerState:
        """The producers' state: the newest snapshot, and every batch after it; reads the active segment."""
        state, first = ProducerState(), 0
        for at in range(len(segments) - 1, -1, -1):
            try:
                state = ProducerState.load(json.loads(segments[at].state_path.read_text()))
            except (FileNotFoundError, ValueError, KeyError):
                continue
            first = at
            break
        for segment in segments[first:-1]:
            for position, header in segment.iterate_headers():
                batch = segment.read_bytes(position, header.size) if header.is_control else b""
                state.note(header, is_commit_marker(batch) if batch else None)
        for header, batch in segments[-1].recover(verify=True):
            state.note(header, is_commit_marker(batch) if batch else None)
        return state

    def append(self, batch: Bytes, now_ms: int, may_write: Callable[[BatchHeader], None] | None = None) -> Appended:
        """Appends a producer's batch and says where; a batch that is there already is answered with its place.

        `may_write` is asked before a transaction's first batch and refuses it by raising. Raises Refusal.
        """
        header = validate_batch(batch, self.config.max_message_bytes)
        self._validate_time(header, now_ms)
        if self.config.is_compacted and any(record.key is None for record in iterate_records(batch)):
            raise Refusal(Code.INVALID_RECORD, "a compacted topic needs a key on every record")
        if header.has_producer:
            duplicate = self.producers.find_duplicate(header)
            if duplicate is not None:
                return Appended(duplicate.base_offset, -1)
            if header.is_transactional and may_write and header.producer_id not in self.producers.open_since:
                may_write(header)
        append_time_ms = now_ms if self.config.uses_append_time else None
        base_offset = self._write(bytearray(batch), append_time_ms, None)
        return Appended(base_offset, -1 if append_time_ms is None else append_time_ms)

    def end_transaction(self, producer_id: int, producer_epoch: int, is_commit: bool, now_ms: int) -> None:
        """Writes the marker that ends this producer's transaction; safe to repeat."""
        if producer_id in self.producers.open_since:
            self._write(encode_marker(producer_id, producer_epoch, is_commit, now_ms), None, is_commit)

    def _validate_time(self, header: BatchHeader, now_ms: int) -> None:
        if self.config.uses_append_time:
            return
        if header.max_timestamp_ms > now_ms + self.config.timestamp_after_max_ms:
            raise Refusal(
                Code.INVALID_TIMESTAMP,
                f"timestamp {header.max_timestamp_ms} is further ahead than message.timestamp.after.max.ms allows",
            )
        if 0 <= header.base_timestamp_ms < now_ms - self.config.timestamp_before_max_ms:
            raise Refusal(
                Code.INVALID_TIMESTAMP,
                f"timestamp {header.base_timestamp_ms} is further back than message.timestamp.before.max.ms allows",
            )

    def _write(self, batch: bytearray, append_time_ms: int | None, is_commit: bool | None) -> int:
        if self.active.size and self.active.size + len(batch) > self.config.segment_bytes:
            self.seal()
        if not self.active.size:
            self._active_since = time.monotonic()
        base_offset = self.end_offset
        stamp_batch(batch, base_offset, append_time_ms)
        header = read_header(batch)
        self.active.append(batch, header)
        self.producers.note(header, is_commit)
        for wake in tuple(self.on_append):
            wake()
        return base_offset

    def seal(self) -> None:
        """Ends the active segment and begins the next; the index and the producers' state are kept beside them."""
        self.active.save_index()
        segment = Segment(Segment.locate(self.folder, self.end_offset), self.end_offset)
        self.producers.forget(self.start_offset, int(time.time() * 1000))
        temporary = segment.state_path.with_suffix(".state-new")
        temporary.write_text(json.dumps(self.producers.dump()))
        os.replace(temporary, segment.state_path)
        self.segments.append(segment)

    def read(self, offset: int, max_bytes: int, limit_offset: int, at_least_one: bool) -> bytes:
        """Whole batches from this offset on, below the limit; the first may hold records before the offset."""
        first = max(bisect_right(self.segments, offset, key=lambda segment: segment.base_offset) - 1, 0)
        for segment in self.segments[first:]:
            if segment.base_offset >= limit_offset:
                break
            data = segment.read(offset, max_bytes, limit_offset, at_least_one)
            if data or segment.find_position(offset) < segment.size:
                return data  # Nothing here means: nothing that fits. A hole at the segment's end has no batch at all.
        return b""

    def find_aborted(self, offset: int, data: bytes) -> list[AbortedTransaction]:
        """The aborted transactions that a reader of committed data needs to know for what `read` gave."""
        if not data or not self.producers.aborted:
            return []
        end_offset, at = offset, 0
        while at < len(data):
            header = read_header(data, at)
            end_offset, at = header.last_offset + 1, at + header.size
        return [
            aborted
            for aborted in self.producers.aborted
            if aborted.last_offset >= offset and aborted.first_offset < end_offset
        ]

    def find_time(self, timestamp_ms: int, limit_offset: int) -> tuple[int, int] | None:
        """Offset and time of the first record at or after a time, exactly; None if there is none below the limit."""
        for segment in self.segments:
            found = segment.find_time(timestamp_ms, self.start_offset)
            if found is not None:
                return found if found[0] < limit_offset else None
        return None

    def find_latest_time(self, limit_offset: int) -> tuple[int, int] | None:
        """Offset and time of the first record with the largest time."""
        largest = max(segment.max_timestamp_ms for segment in self.segments)
        return None if largest < 0 else self.find_time(largest, limit_offset)

    def delete_before(self, offset: int) -> int:
        """Moves the log's start up to this offset (-1: its end) and removes the segments before it."""
        if offset == -1:
            offset = self.end_offset
        if not 0 <= offset <= self.end_offset:
            raise Refusal(Code.OFFSET_OUT_OF_RANGE, f"offset {offset} is beyond the end {self.end_offset}")
        self.start_offset = max(self.start_offset, offset)
        if self.active.size and self.start_offset == self.end_offset:
            self.seal()
        while len(self.segments) > 1 and self.segments[1].base_offset <= self.start_offset:
            self._drop_first()
        return self.start_offset

    def enforce_retention(self, now_ms: int) -> None:
        """Seals an old segment and removes those that are too old or too much; whole segments only."""
        if self.active.size and self._is_aged(now_ms):
            self.seal()
        if not self.config.is_deleted:
            return
        while len(self.segments) > 1:
            first = self.segments[0]
            is_excess = 0 <= self.config.retention_bytes <= self.size - first.size
            if first.next_offset > self.stable_offset or not (is_excess or self._is_expired(first, now_ms)):
                break
            self._drop_first()

    def _is_aged(self, now_ms: int) -> bool:
        """Whether the active segment has been open long enough, for itself, for retention or for compaction."""
        config = self.config
        age_ms = (time.monotonic() - self._active_since) * 1000
        if age_ms > config.segment_ms or (config.is_deleted and self._is_expired(self.active, now_ms)):
            return True
        return config.is_compacted and self.active.first_timestamp_ms < now_ms - config.max_compaction_lag_ms

    def _is_expired(self, segment: Segment, now_ms: int) -> bool:
        return self.config.retention_ms >= 0 and segment.max_timestamp_ms < now_ms - self.config.retention_ms

    def _drop_first(self) -> None:
        self.segments.pop(0).delete()
        self.start_offset = max(self.start_offset, self.segments[0].base_offset)

    def close(self) -> None:
        self.is_closed = True
        for segment in self.segments:
            segment.close()
        for wake in tuple(self.on_append):
            wake()

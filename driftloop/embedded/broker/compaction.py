"""Log compaction: of the records with one key, only the last stays; offsets never change, so holes appear.

A pass reads the sealed segments that are new since the last one, notes the last offset of every key, and writes all
sealed segments anew, small neighbours into one. A tombstone (no value) stays for `delete.retention.ms` after the pass
that first met it; until when is written into its batch (KIP-534). Records of aborted transactions go, markers stay.

A new file takes the place of the old ones by one rename. If the process dies before the old neighbours are removed, a
start finds their offsets in the file before and removes them.
"""

import asyncio
import os
from collections.abc import Iterator

from driftloop.embedded.broker.batches import (
    DELETE_HORIZON,
    LOG_APPEND_TIME,
    BatchHeader,
    Record,
    encode_batch,
    iterate_records,
    read_header,
)
from driftloop.embedded.broker.log import Log
from driftloop.embedded.broker.segment import Segment

# 100 bytes of memory or so for each key; what is beyond it waits for the next pass.
MAX_KEYS = 1_000_000
# The event loop is handed back after this many batches, so that clients do not wait for a pass.
BATCHES_PER_TURN = 50


def find_dirty(log: Log, now_ms: int) -> list[Segment]:
    """The sealed segments that no pass has read and that may be compacted already."""
    limit = log.stable_offset
    dirty = []
    for segment in log.segments[:-1]:
        if segment.next_offset > limit or segment.max_timestamp_ms > now_ms - log.config.min_compaction_lag_ms:
            break
        if segment.base_offset >= log.clean_offset and segment.size:
            dirty.append(segment)
    return dirty


def is_due(log: Log, dirty: list[Segment], now_ms: int) -> bool:
    """Whether a pass pays: enough is dirty, something waited too long, or tombstones may go."""
    if log.next_horizon_ms is not None and log.next_horizon_ms <= now_ms:
        return True
    if not dirty:
        return False
    num_bytes = sum(segment.size for segment in dirty)
    total = sum(segment.size for segment in log.segments[:-1])
    oldest_ms = min(segment.first_timestamp_ms for segment in dirty)
    return num_bytes >= log.config.min_dirty_ratio * total or oldest_ms < now_ms - log.config.max_compaction_lag_ms


async def compact(log: Log, now_ms: int) -> None:
    """One pass over a partition, if one is due; gives up silently when the partition changes meanwhile."""
    dirty = find_dirty(log, now_ms)
    if not log.config.is_compacted or not is_due(log, dirty, now_ms):
        return
    last_offsets, end_offset = await _read_keys(log, dirty)
    horizons: list[int] = []
    for group in _group_segments(log, max(end_offset, log.clean_offset)):
        cleaned = await _rewrite(log, group, last_offsets, now_ms, horizons)
        if cleaned is None:
            return
        _swap(log, group, cleaned)
    log.clean_offset = max(end_offset, log.clean_offset)
    log.next_horizon_ms = min(horizons, default=None)


def _iterate_batches(segment: Segment) -> Iterator[bytes]:
    for position, header in segment.iterate_headers():
        yield segment.read_bytes(position, header.size)


async def _read_keys(log: Log, dirty: list[Segment]) -> tuple[dict[bytes, int], int]:
    """The last offset of each key in the dirty segments, and the offset up to which they were read."""
    last_offsets: dict[bytes, int] = {}
    end_offset = log.clean_offset
    for segment in dirty:
        if len(last_offsets) > MAX_KEYS:
            break
        for number, batch in enumerate(_iterate_batches(segment)):
            header = read_header(batch)
            if not header.is_control and not _is_aborted(log, header):
                last_offsets.update((r.key, r.offset) for r in iterate_records(batch) if r.key is not None)
            if number % BATCHES_PER_TURN == 0:
                await asyncio.sleep(0)
            if log.is_closed or segment not in log.segments:
                return {}, log.clean_offset
        end_offset = segment.next_offset
    return last_offsets, end_offset


def _is_aborted(log: Log, header: BatchHeader) -> bool:
    return header.is_transactional and log.producers.is_aborted(header.producer_id, header.base_offset)


def _group_segments(log: Log, end_offset: int) -> list[list[Segment]]:
    """The segments below the offset, neighbours together as long as they fit into one."""
    groups: list[list[Segment]] = []
    for segment in log.segments[:-1]:
        if segment.next_offset > end_offset:
            break
        if groups and sum(one.size for one in groups[-1]) + segment.size <= log.config.segment_bytes:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


async def _rewrite(
    log: Log, group: list[Segment], last_offsets: dict[bytes, int], now_ms: int, horizons: list[int]
) -> Segment | None:
    """A new segment with what stays of these; None when the log changed meanwhile."""
    path = group[0].path.with_suffix(".cleaned")
    path.unlink(missing_ok=True)
    cleaned = Segment(path, group[0].base_offset)
    number = 0
    for segment in group:
        for batch in _iterate_batches(segment):
            kept = _clean_batch(log, batch, last_offsets, now_ms)
            if kept:
                header = read_header(kept)
                if header.attributes & DELETE_HORIZON:
                    horizons.append(header.base_timestamp_ms)
                cleaned.append(bytearray(kept), header)
            number += 1
            if number % BATCHES_PER_TURN == 0:
                await asyncio.sleep(0)
            if log.is_closed or any(one not in log.segments for one in group):
                cleaned.delete()
                return None
    return cleaned


def _clean_batch(log: Log, batch: bytes, last_offsets: dict[bytes, int], now_ms: int) -> bytes | None:
    """The batch without what a later record replaced; None when nothing of it stays."""
    header = read_header(batch)
    if header.is_control:
        return batch
    if _is_aborted(log, header):
        return None
    has_horizon = bool(header.attributes & DELETE_HORIZON)
    is_over = has_horizon and header.base_timestamp_ms <= now_ms

    def stays(record: Record) -> bool:
        if record.key is None or last_offsets.get(record.key, -1) > record.offset:
            return False
        return record.value is not None or not is_over

    records = list(iterate_records(batch))
    kept = [record for record in records if stays(record)]
    if not kept:
        return None
    needs_horizon = not has_horizon and any(record.value is None for record in kept)
    if len(kept) == len(records) and not needs_horizon:
        return batch
    if needs_horizon:
        header = header._replace(
            attributes=header.attributes | DELETE_HORIZON, base_timestamp_ms=now_ms + log.config.delete_retention_ms
        )
    if not header.attributes & LOG_APPEND_TIME:
        header = header._replace(max_timestamp_ms=max(record.timestamp_ms for record in kept))
    return encode_batch(header, kept)


def _swap(log: Log, group: list[Segment], cleaned: Segment) -> None:
    """Puts the new segment into the place of the old ones."""
    first = group[0]
    first.index_path.unlink(missing_ok=True)
    os.replace(cleaned.path, first.path)
    first.close()
    cleaned.path = first.path
    cleaned.save_index()
    for segment in group[1:]:
        segment.delete()
    at = log.segments.index(first)
    log.segments[at : at + len(group)] = [cleaned]

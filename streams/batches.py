"""Turns a chunk into message batches: columns, with objects only for the messages that need them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from schemas.messages import MessageBatch
from streams.chunks import Chunk

_LOG_APPEND_TIME = 1


def read_chunk(chunk: Chunk, topic_id: str, since: int) -> MessageBatch:
    """Give the messages of a chunk from offset `since` on. Takes the chunk's batches: once only.

    The first batch may begin before the offset that was asked for.
    """
    since = max(since, chunk.start)
    offsets, timestamps = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    values: list[bytes | None] = []
    headers: dict[int, list[tuple[str, bytes]]] = {}
    keys: dict[int, bytes | None] = {}
    for batch in chunk.take():
        if batch.next_offset <= since:
            continue
        records = list(batch)
        if batch.base_offset < since:
            records = [record for record in records if record.offset >= since]
        begin = len(values)
        values += [record.value for record in records]
        if len(records) == batch.next_offset - batch.base_offset:
            offsets.append(np.arange(batch.base_offset, batch.next_offset, dtype=np.int64))
        else:
            offsets.append(np.array([record.offset for record in records], np.int64))
        if batch.timestamp_type == _LOG_APPEND_TIME:
            timestamps.append(np.full(len(records), batch.max_timestamp, np.int64))
        else:
            timestamps.append(np.array([record.timestamp for record in records], np.int64))
        for index, record in enumerate(records, begin):
            if record.headers:
                headers[index] = [(name, content or b"") for name, content in record.headers]
                keys[index] = record.key
            elif record.value is None:
                keys[index] = record.key
    topic, partition = chunk.tp
    return MessageBatch(
        topic, topic_id, partition, np.concatenate(offsets), np.concatenate(timestamps), values, headers, keys
    )


def cut_batch(batch: MessageBatch, num_messages_max: int, num_bytes_max: int) -> Iterator[MessageBatch]:
    """Cut a batch into consecutive ones that are small enough to be counted without holding the event loop."""
    if not len(batch):
        return
    sizes = np.fromiter((0 if value is None else len(value) for value in batch.values), np.int64, len(batch))
    block = (np.cumsum(sizes) - sizes) // num_bytes_max
    changes = np.flatnonzero(block[1:] != block[:-1]) + 1
    begin = 0
    for end in [*changes.tolist(), len(batch)]:
        while begin < end:
            stop = min(end, begin + num_messages_max)
            yield slice_batch(batch, begin, stop)
            begin = stop


def slice_batch(batch: MessageBatch, begin: int, end: int) -> MessageBatch:
    """Give the messages at positions begin…end-1."""
    if begin == 0 and end == len(batch):
        return batch
    return MessageBatch(
        batch.topic,
        batch.topic_id,
        batch.partition,
        batch.offsets[begin:end],
        batch.timestamps[begin:end],
        batch.values[begin:end],
        {index - begin: found for index, found in batch.headers.items() if begin <= index < end},
        {index - begin: key for index, key in batch.keys.items() if begin <= index < end},
    )

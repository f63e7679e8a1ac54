"""Turns a chunk into message batches: columns, with objects only for the messages that need them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from aiokafka.errors import CorruptRecordException

from schemas.messages import MessageBatch, MessageValues
from streams.chunks import Chunk
from streams.record_sets import Records, unpack

Headers = list[tuple[str, bytes]]


def read_chunk(chunk: Chunk, topic_id: str, since: int) -> MessageBatch:
    """Give the messages of a chunk from offset `since` on. Takes the chunk's batches: once only.

    The first batch may begin before the offset that was asked for.
    """
    since = max(since, chunk.start)
    records = unpack([batch for batch in chunk.take() if batch.next_offset > since], since)
    topic, partition = chunk.tp
    values = MessageValues(records.buffer, records.value_start, records.value_length)
    headers = _read_headers(records)
    with_key = [*headers, *np.flatnonzero((records.value_length < 0) & (records.num_headers == 0)).tolist()]
    keys = {index: _slice(records, int(records.key_start[index]), int(records.key_length[index])) for index in with_key}
    return MessageBatch(topic, topic_id, partition, records.offset, records.timestamp, values, headers, keys)


def _read_headers(records: Records) -> dict[int, Headers]:
    """Give the headers of the messages that have any; most producers send the same with every message."""
    known: dict[bytes, Headers] = {}
    headers: dict[int, Headers] = {}
    for index in np.flatnonzero(records.num_headers).tolist():
        start, length = int(records.headers_start[index]), int(records.headers_length[index])
        sent = records.buffer[start : start + length].tobytes()
        if sent not in known:
            known[sent] = _parse_headers(sent, int(records.num_headers[index]))
        headers[index] = known[sent]
    return headers


def _parse_headers(sent: bytes, num_headers: int) -> Headers:
    headers, position = [], 0
    for _ in range(num_headers):
        size, position = decode_varint(sent, position)
        name, position = sent[position : position + size], position + size
        size, position = decode_varint(sent, position)
        content, position = sent[position : position + max(0, size)], position + max(0, size)
        headers.append((name.decode("utf-8", "replace"), content))
    return headers


def decode_varint(sent: bytes, position: int) -> tuple[int, int]:
    """Read a zigzag varint; gives it and the position behind it. CorruptRecordException if it does not end."""
    bits = 0
    for shift, byte in enumerate(sent[position : position + 10]):
        bits |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return (bits >> 1) ^ -(bits & 1), position + shift + 1
    raise CorruptRecordException("the headers of a record cannot be read")


def _slice(records: Records, start: int, length: int) -> bytes | None:
    return None if length < 0 else records.buffer[start : start + length].tobytes()


def cut_batch(batch: MessageBatch, num_messages_max: int, num_bytes_max: int) -> Iterator[MessageBatch]:
    """Cut a batch into consecutive ones that are small enough to be counted without holding the event loop."""
    if not len(batch):
        return
    sizes = np.maximum(MessageValues.of(batch.values).length, 0).astype(np.int64)
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

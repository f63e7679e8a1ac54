"""Encodings, one file each; told apart by the content-type header, else by magic bytes, never guessed from content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from schemas.codecs.arrow import CONTENT_TYPE, MAGIC, decode_arrow
from schemas.codecs.blocks import MESSAGE_BYTES_MAX, Block, Mapping, Refusal
from schemas.codecs.json import decode_json
from schemas.codecs.shredding import shred_json
from schemas.messages import NULL_LENGTH, MessageBatch, MessageValues
from schemas.problems import Problem

__all__ = ["MESSAGE_BYTES_MAX", "Block", "Mapping", "Refusal", "decode_batch"]

# Objects of so many events stay in the processor's cache until they are columns: 20,000 take half as long again.
_JSON_ROWS = 1_000

_JSON, _ARROW = "application/json", CONTENT_TYPE
_KNOWN = f"Known are {_JSON} and {_ARROW}."
_EMPTY = Problem("empty", "", "The message has no value. Send an event, or a watermark with its header.")
_TOO_LARGE = Problem(
    "too_large", "", "The message is over 10 MB. Send smaller batches, or references instead of content."
)


def decode_batch(batch: MessageBatch, skip: frozenset[int] = frozenset()) -> Iterator[Block | Refusal]:
    """Decode every message of a batch but those at the indices `skip`.

    Blocks come in any order, and their rows may interleave: `message` and `row` say where each stands in the log. The
    rows of one block are in the order of the log.
    """
    values = MessageValues.of(batch.values)
    indices, others = np.arange(len(values)), []
    if batch.headers or skip or (values.length == NULL_LENGTH).any():
        is_text = values.length != NULL_LENGTH
        for index, headers in batch.headers.items():
            is_text[index] &= _read_content_type(headers) in (_JSON, None)
        is_text[list(skip)] = False
        others = [index for index in np.flatnonzero(~is_text).tolist() if index not in skip]
        indices = np.flatnonzero(is_text)
        values = values.take(indices)
    # What the kernel takes apart is JSON, and only the rest has to be looked at.
    for block, unusual in shred_json(values, indices):
        if block is not None:
            yield block
        yield from _decode_each(batch, unusual.tolist())
    yield from _decode_each(batch, others)


def _decode_each(batch: MessageBatch, indices: Iterable[int]) -> Iterator[Block | Refusal]:
    """Decode messages of any encoding, or refuse them."""
    texts: list[int] = []
    tables: list[int] = []
    for index in indices:
        value = batch.values[index]
        encoding = _choose(value, batch.headers.get(index, [])) if value else _EMPTY
        if isinstance(encoding, Problem):
            yield Refusal(index, 0, encoding, value or b"")
        else:
            (texts if encoding == _JSON else tables).append(index)
    sent: list[bytes] = batch.values  # type: ignore[assignment]  # None was refused above
    for start in range(0, len(texts), _JSON_ROWS):
        chosen = texts[start : start + _JSON_ROWS]
        yield from decode_json([sent[index] for index in chosen], chosen)
    yield from decode_arrow([sent[index] for index in tables], tables)


def _choose(value: bytes, headers: list[tuple[str, bytes]]) -> str | Problem:
    """Name the encoding of a message, or say why it is refused."""
    if len(value) > MESSAGE_BYTES_MAX:
        return _TOO_LARGE
    content_type = _read_content_type(headers)
    if content_type in (_JSON, _ARROW):
        return content_type
    if content_type is not None:
        return Problem("unknown_encoding", "", f"The content type {content_type[:100]!r} is not known. {_KNOWN}")
    if value[:4] == MAGIC:
        return _ARROW
    if value[0] == 0:
        sentence = (
            "The message begins with a zero byte, as a schema registry's framing does; no registry is configured."
        )
        return Problem("unknown_encoding", "", f"{sentence} {_KNOWN}")
    return _JSON


def _read_content_type(headers: list[tuple[str, bytes]]) -> str | None:
    """Give the media type that a message declares; None if it declares none."""
    sent = [content for name, content in headers if content and name.lower() == "content-type"]
    return _read_media_type(sent[-1]) if sent else None


@lru_cache(maxsize=64)
def _read_media_type(content: bytes) -> str:
    return content.decode("utf-8", "replace").partition(";")[0].strip().lower()

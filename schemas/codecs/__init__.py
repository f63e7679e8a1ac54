"""Encodings, one file each; told apart by the content-type header, else by magic bytes, never guessed from content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.codecs.arrow import CONTENT_TYPE, MAGIC, decode_arrow
from schemas.codecs.blocks import Block, Mapping, Refusal
from schemas.codecs.json import decode_json
from schemas.messages import MessageBatch
from schemas.problems import Problem

__all__ = ["MESSAGE_BYTES_MAX", "Block", "Mapping", "Refusal", "decode_batch"]

# Ten times Kafka's own default limit for a message.
MESSAGE_BYTES_MAX = 10_000_000
# Decoded and turned into columns while they are in the processor's cache: 20,000 at once take half as long again.
_JSON_ROWS = 1_000

_JSON, _ARROW = "application/json", CONTENT_TYPE
_KNOWN = f"Known are {_JSON} and {_ARROW}."
_EMPTY = Problem("empty", "", "The message has no value. Send an event, or a watermark with its header.")
_TOO_LARGE = Problem(
    "too_large", "", "The message is over 10 MB. Send smaller batches, or references instead of content."
)


def decode_batch(batch: MessageBatch, skip: frozenset[int] = frozenset()) -> Iterator[Block | Refusal]:
    """Decode every message of a batch but those at the indices `skip`; consecutive JSON messages share a block."""
    if not batch.headers and None not in batch.values:
        sent: list[bytes] = batch.values  # type: ignore[assignment]  # no None, as was just asked
        # The usual batch: an object a message, without a content type.
        if {value[:1] for value in sent} == {b"{"} and max(map(len, sent)) <= MESSAGE_BYTES_MAX:
            yield from _decode_json(sent, range(len(sent)))
            return
    values: list[bytes] = []
    indices: list[int] = []
    for index, value in enumerate(batch.values):
        if index in skip:
            continue
        encoding = _choose(value, batch.headers.get(index, [])) if value else _EMPTY
        if isinstance(encoding, Problem):
            yield Refusal(index, 0, encoding, value or b"")
        elif encoding == _JSON:
            assert value is not None
            values.append(value)
            indices.append(index)
        else:
            assert value is not None
            yield from _decode_json(values, indices)
            values, indices = [], []
            yield from decode_arrow(value, index)
    yield from _decode_json(values, indices)


def _decode_json(values: list[bytes], indices: Sequence[int]) -> Iterator[Block | Refusal]:
    for start in range(0, len(values), _JSON_ROWS):
        yield from decode_json(values[start : start + _JSON_ROWS], indices[start : start + _JSON_ROWS])


def _choose(value: bytes, headers: list[tuple[str, bytes]]) -> str | Problem:
    """Name the encoding of a message, or say why it is refused."""
    if len(value) > MESSAGE_BYTES_MAX:
        return _TOO_LARGE
    declared = [content for name, content in headers if name.lower() == "content-type" and content]
    if declared:
        content_type = declared[-1].decode("utf-8", "replace").partition(";")[0].strip().lower()
        if content_type in (_JSON, _ARROW):
            return content_type
        return Problem("unknown_encoding", "", f"The content type {content_type[:100]!r} is not known. {_KNOWN}")
    if value[:4] == MAGIC:
        return _ARROW
    if value[0] == 0:
        sentence = (
            "The message begins with a zero byte, as a schema registry's framing does; no registry is configured."
        )
        return Problem("unknown_encoding", "", f"{sentence} {_KNOWN}")
    return _JSON

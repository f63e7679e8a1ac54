"""Encodings, one file each; told apart by the content-type header, else by magic bytes, never guessed from content."""

from __future__ import annotations

from schemas.codecs.arrow import CONTENT_TYPE, MAGIC, decode_arrow
from schemas.codecs.blocks import Block, Decoded, Mapping, Refusal
from schemas.codecs.json import decode_json
from schemas.messages import MessageBatch
from schemas.problems import Problem

__all__ = ["MESSAGE_BYTES_MAX", "Block", "Decoded", "Mapping", "Refusal", "decode_batch"]

# Ten times Kafka's own default limit for a message.
MESSAGE_BYTES_MAX = 10_000_000

_JSON, _ARROW = "application/json", CONTENT_TYPE
_KNOWN = f"Known are {_JSON} and {_ARROW}."
_EMPTY = Problem("empty", "", "The message has no value. Send an event, or a watermark with its header.")
_TOO_LARGE = Problem(
    "too_large", "", "The message is over 10 MB. Send smaller batches, or references instead of content."
)


def decode_batch(batch: MessageBatch, skip: frozenset[int] = frozenset()) -> Decoded:
    """Decode every message of a batch but those at the indices `skip`; consecutive JSON messages share a block."""
    decoded = Decoded()
    values: list[bytes] = []
    indices: list[int] = []
    for index, value in enumerate(batch.values):
        if value is None or len(value) == 0:
            if index not in skip:
                decoded.refusals.append(Refusal(index, 0, _EMPTY, b""))
            continue
        headers = batch.headers.get(index)
        # The usual case first: an object without a content type is JSON.
        if (headers is None and value[0] == 0x7B) and len(value) <= MESSAGE_BYTES_MAX:
            values.append(value)
            indices.append(index)
            continue
        encoding = _choose(value, headers or [])
        if isinstance(encoding, Problem):
            decoded.refusals.append(Refusal(index, 0, encoding, value))
        elif encoding == _JSON:
            values.append(value)
            indices.append(index)
        else:
            _add(decoded, *decode_json(values, indices))
            values, indices = [], []
            _add(decoded, *decode_arrow(value, index))
    _add(decoded, *decode_json(values, indices))
    return decoded


def _add(decoded: Decoded, blocks: list[Block], refusals: list[Refusal]) -> None:
    decoded.blocks += blocks
    decoded.refusals += refusals


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

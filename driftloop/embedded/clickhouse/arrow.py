"""Arrow IPC streams glued into one: the engine hands out a big result as a stream of its own per piece."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# A message is 0xFFFFFFFF, the length of its metadata (little-endian), the metadata and a body. A stream ends with
# such a prefix and length 0. https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_PREFIX_BYTES = 8


def join_streams(streams: Iterator[bytes]) -> Iterator[bytes]:
    """Yield one stream from whole ones of the same schema: the first schema, every batch, one end.

    Dictionaries are sent again with every piece, which replaces them, as the format allows.
    """
    num_streams = 0
    for stream in streams:
        start = _schema_bytes(stream) if num_streams else 0
        yield stream[start:].removesuffix(_END)
        num_streams += 1
    if num_streams:
        yield _END


def _schema_bytes(stream: bytes) -> int:
    marker, metadata_bytes = struct.unpack_from("<Ii", stream)
    assert marker == 0xFFFFFFFF  # the engine writes the current framing; a schema has no body
    return _PREFIX_BYTES + int(metadata_bytes)

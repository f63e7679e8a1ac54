"""HTTP content encodings, both ways and piece by piece: gzip, deflate, zstd and lz4 frames."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import lz4.frame
import zstandard

from driftloop.embedded.clickhouse.errors import UNKNOWN_COMPRESSION_METHOD, ServerError

# The order of preference where a client accepts several: the fastest first.
_PREFERENCE = ("lz4", "zstd", "gzip", "deflate")


class Compressor(Protocol):
    """Compresses pieces of one stream; `flush` ends it."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Plain:
    """No encoding, for either direction."""

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class Lz4Frame:
    """One lz4 frame whose header goes out with the first piece."""

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._header: bytes = self._frame.begin()

    def compress(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._header + bytes(self._frame.flush())


_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "": Plain,
    "lz4": Lz4Frame,
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "gzip": lambda: zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS),
    "deflate": lambda: zlib.compressobj(1),
}

# Each makes an object for one frame: `decompress`, and afterwards `eof` and `unused_data`.
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    "deflate": zlib.decompressobj,
}


def choose_encoding(accepted: str) -> str:
    """Return the encoding for an Accept-Encoding header; empty when none of ours is in it."""
    offered = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((encoding for encoding in _PREFERENCE if encoding in offered), "")


def make_compressor(encoding: str) -> Compressor:
    """Return a compressor for an encoding that `choose_encoding` gave."""
    return _COMPRESSORS[encoding]()


class Decompressor:
    """Decodes the pieces of one body; frames may follow each other, as some clients send a frame a block."""

    def __init__(self, encoding: str) -> None:
        if encoding not in _DECOMPRESSORS:
            raise ServerError(UNKNOWN_COMPRESSION_METHOD, f"Unknown compression method: {encoding}")
        self._make = _DECOMPRESSORS[encoding]
        self._encoding = encoding
        self._frame = self._make()
        self._midway = False  # inside a frame: the body must not end here

    def decompress(self, data: bytes) -> bytes:
        """Return what the piece decodes to; ServerError for bytes that are not of the encoding."""
        pieces = []
        try:
            while data:
                if self._frame.eof:
                    self._frame = self._make()
                pieces.append(self._frame.decompress(data))
                data = self._frame.unused_data if self._frame.eof else b""
        except (zlib.error, zstandard.ZstdError, RuntimeError) as error:
            raise ServerError(117, f"Cannot decompress the {self._encoding} body: {error}") from error
        self._midway = not self._frame.eof
        return b"".join(pieces)

    def finish(self) -> None:
        """Raise ServerError when the body ended in the middle of a frame."""
        if self._midway:
            raise ServerError(117, f"The {self._encoding} body ends in the middle of a frame.")

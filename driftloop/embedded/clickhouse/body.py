"""The body of an HTTP request, read piece by piece: by length or chunked, decoded, and bounded in memory."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase

from driftloop.embedded.clickhouse.compression import Decompressor
from driftloop.embedded.clickhouse.errors import BAD_ARGUMENTS, ServerError

PIECE_BYTES = 1 << 20
# A refused request's remaining body is read up to here, so that the client gets to see the answer.
_DRAIN_BYTES_MAX = 64 << 20


class Body:
    """An iterator over the decoded pieces of one request's body.

    ConnectionError when the client goes away before the end, TimeoutError when it stalls, ServerError when the
    body is not what its headers say.
    """

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self._stream = stream
        self._chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self._length = _content_length(headers)
        encoding = (headers.get("Content-Encoding") or "identity").lower()
        self._decompressor = None if encoding == "identity" else Decompressor(encoding)
        self.is_read = False  # to its end, so that the connection can carry another request
        self._raw_pieces = self._raw()
        self._pieces = self._decoded()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self, limit_bytes: int) -> bytes:
        """Return the whole rest of the body; ServerError when it is longer than the limit."""
        pieces, num_bytes = [], 0
        for piece in self:
            num_bytes += len(piece)
            if num_bytes > limit_bytes:
                raise ServerError(BAD_ARGUMENTS, f"The request's body is larger than {limit_bytes} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    def drain(self) -> bool:
        """Read and drop what is left, within bounds; return whether the connection can carry another request."""
        num_bytes = 0
        try:
            for piece in self._raw_pieces:
                num_bytes += len(piece)
                if num_bytes > _DRAIN_BYTES_MAX:
                    break
        except (OSError, ServerError):
            return False
        return self.is_read

    def _decoded(self) -> Iterator[bytes]:
        for piece in self._raw_pieces:
            decoded = self._decompressor.decompress(piece) if self._decompressor else piece
            if decoded:
                yield decoded
        if self._decompressor:
            self._decompressor.finish()

    def _raw(self) -> Iterator[bytes]:
        yield from self._chunks() if self._chunked else self._stretch(self._length)
        self.is_read = True

    def _chunks(self) -> Iterator[bytes]:
        while num_bytes := self._chunk_size():
            yield from self._stretch(num_bytes)
            self._stream.readline(3)
        while self._stream.readline(8192) not in (b"\r\n", b"\n", b""):
            pass  # trailers

    def _chunk_size(self) -> int:
        line = self._stream.readline(256)
        if not line:
            raise ConnectionError("the client went away inside a chunked body")
        try:
            return int(line.split(b";")[0], 16)
        except ValueError as error:
            raise ServerError(BAD_ARGUMENTS, f"Bad chunk size in the request's body: {line!r}") from error

    def _stretch(self, num_bytes: int) -> Iterator[bytes]:
        while num_bytes > 0:
            piece = self._stream.read(min(num_bytes, PIECE_BYTES))
            if not piece:
                raise ConnectionError("the client went away inside a request's body")
            num_bytes -= len(piece)
            yield piece


def _content_length(headers: Message) -> int:
    text = headers.get("Content-Length") or "0"
    if not text.isdecimal():
        raise ServerError(BAD_ARGUMENTS, f"Bad Content-Length: {text!r}")
    return int(text)

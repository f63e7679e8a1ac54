"""Reads a broker's responses from the socket into the place where they stay.

asyncio's streams gather what arrives in a buffer that grows, and copy a response out of it when it is whole: of
megabytes, with all the copying of a buffer that grows. Here the length in front of a response makes its place.
Stands in for parts of `aiokafka.conn`, for every connection of the process; `streams.chunks` knows which.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any

import numpy as np
from aiokafka import conn as connecting

_LENGTH = struct.Struct(">i")
# Responses up to this are taken out of what has been read; larger ones get a place of their own.
_HEAD_BYTES = 64 << 10


def read_in_place() -> None:
    """Have connections made from now on read like this."""
    connecting.AIOKafkaProtocol = FrameProtocol
    connecting.AIOKafkaConnection._read = staticmethod(read_responses)


class FrameProtocol(connecting.AIOKafkaProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]
    """Cuts what is read into responses, each behind its length."""

    def __init__(self, *arguments: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*arguments, loop=loop)
        self._frames: deque[bytes | memoryview] = deque()
        self._head = memoryview(bytearray(_HEAD_BYTES))
        self._num_head = 0
        self._frame: memoryview | None = None  # a large response under way
        self._num_filled = 0
        self._lost: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._frame_loop = loop

    def get_buffer(self, sizehint: int) -> memoryview:
        """For asyncio: where to put what arrives; never empty."""
        return self._head[self._num_head :] if self._frame is None else self._frame[self._num_filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """For asyncio: so much has been put there."""
        if self._frame is None:
            self._num_head += nbytes
            self._cut()
        else:
            self._num_filled += nbytes
            if self._num_filled == len(self._frame):
                self._frames.append(self._frame)
                self._frame = None
        if self._frames:
            self._wake()

    def _cut(self) -> None:
        """Take the responses out of what has been read; the last may not be whole yet."""
        begin = 0
        while self._num_head - begin >= _LENGTH.size and self._frame is None:
            (size,) = _LENGTH.unpack_from(self._head, begin)
            if size < 0:
                self._lose(ValueError(f"a response of {size} bytes"))
                break
            first, end = begin + _LENGTH.size, begin + _LENGTH.size + size
            if end <= self._num_head:
                self._frames.append(bytes(self._head[first:end]))
                begin = end
            elif _LENGTH.size + size > _HEAD_BYTES:
                self._num_filled = self._num_head - first
                self._frame = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]
                self._frame[: self._num_filled] = self._head[first : self._num_head]
                begin = self._num_head
            else:
                break
        self._num_head -= begin
        self._head[: self._num_head] = bytes(self._head[begin : begin + self._num_head])

    def eof_received(self) -> bool:
        self._lose(asyncio.IncompleteReadError(b"", None))
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or asyncio.IncompleteReadError(b"", None))
        super().connection_lost(exc)

    def _lose(self, error: Exception) -> None:
        self._lost = self._lost or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read_frame(self) -> bytes | memoryview:
        """Give the next response; raises what ended the connection when there are no more."""
        while not self._frames:
            if self._lost is not None:
                raise self._lost
            self._waiter = self._frame_loop.create_future()
            await self._waiter
        return self._frames.popleft()


async def read_responses(connection_ref: Any) -> None:
    """Hand a connection its responses; mirrors `AIOKafkaConnection._read`, which knows it by a weak reference only."""
    connection = connection_ref()
    if connection is None:
        return
    protocol = connection._protocol
    while True:
        del connection
        frame = await protocol.read_frame()
        connection = connection_ref()
        if connection is None:
            return
        connection._handle_frame(frame)
        del frame

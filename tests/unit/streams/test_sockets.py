"""A broker's responses come out whole and in order however the network cut them; a lost connection is an error."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from streams.sockets import FrameProtocol

_TIMEOUT_S = 10.0
# Around what is taken out of the common buffer: 64 KiB with the length.
SIZES = [0, 1, 3, 100, 65_531, 65_532, 65_533, 70_000, 400_000]


def make_protocol() -> FrameProtocol:
    loop = asyncio.get_running_loop()
    return FrameProtocol(loop.create_future(), asyncio.StreamReader(loop=loop), loop=loop)


def put(protocol: FrameProtocol, sent: bytes) -> int:
    """Put bytes where the protocol wants them, as the transport does; gives how many fitted."""
    place = protocol.get_buffer(-1)
    size = min(len(place), len(sent))
    assert size > 0
    place[:size] = sent[:size]
    protocol.buffer_updated(size)
    return size


@pytest.mark.parametrize("seed", range(20))
def test_responses_come_out_however_they_were_cut(seed: int) -> None:
    rng = random.Random(seed)
    responses = [rng.randbytes(rng.choice(SIZES)) for _ in range(30)]
    sent = b"".join(struct.pack(">i", len(response)) + response for response in responses)

    async def run() -> list[bytes]:
        protocol, begin = make_protocol(), 0

        async def read() -> list[bytes]:
            return [bytes(await protocol.read_frame()) for _ in responses]

        reading = asyncio.create_task(read())
        while begin < len(sent):
            begin += put(protocol, sent[begin : begin + rng.choice([1, 2, 5, 1_000, 60_000, 1_000_000])])
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        return await asyncio.wait_for(reading, _TIMEOUT_S)

    assert asyncio.run(run()) == responses


def test_what_came_before_the_end_is_read_and_then_the_end_is_an_error() -> None:
    async def run() -> None:
        protocol = make_protocol()
        put(protocol, struct.pack(">i", 2) + b"ab" + struct.pack(">i", 5) + b"c")
        protocol.eof_received()
        assert await protocol.read_frame() == b"ab"
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(protocol.read_frame(), _TIMEOUT_S)

    asyncio.run(run())


def test_a_lost_connection_wakes_who_waits() -> None:
    async def run() -> None:
        protocol = make_protocol()
        reading = asyncio.create_task(protocol.read_frame())
        await asyncio.sleep(0)
        protocol.connection_lost(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reading, _TIMEOUT_S)

    asyncio.run(run())


def test_a_length_below_zero_is_an_error() -> None:
    async def run() -> None:
        protocol = make_protocol()
        put(protocol, struct.pack(">i", -1) + b"abc")
        with pytest.raises(ValueError, match="-1 bytes"):
            await asyncio.wait_for(protocol.read_frame(), _TIMEOUT_S)

    asyncio.run(run())

"""Lanes keep the order of each key, work on several keys at once, and hold back whoever puts too much."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from streams.lanes import Lanes

TIMEOUT_S = 10.0


def test_keys_go_on_side_by_side_and_each_in_order() -> None:
    async def run() -> dict[str, list[int]]:
        done: defaultdict[str, list[int]] = defaultdict(list)
        first_of_each = {"a": asyncio.Event(), "b": asyncio.Event()}

        async def work(item: tuple[str, int]) -> None:
            key, number = item
            first_of_each[key].set()
            # Only possible if the other key's first item is worked on meanwhile.
            await asyncio.gather(*(event.wait() for event in first_of_each.values()))
            done[key].append(number)

        lanes = Lanes(work, lambda error: pytest.fail(str(error)))
        async with asyncio.timeout(TIMEOUT_S):
            for number in range(5):
                for key in ("a", "b"):
                    await lanes.put(key, (key, number))
            while sum(map(len, done.values())) < 10:  # noqa: ASYNC110 - within the deadline above
                await asyncio.sleep(0)
        lanes.close()
        return done

    assert asyncio.run(run()) == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}


def test_what_a_lane_raises_is_told_and_ends_it_while_the_others_go_on() -> None:
    async def run() -> tuple[list[str], list[str]]:
        told: list[str] = []
        done: list[str] = []

        async def work(item: str) -> None:
            if item == "poison":
                raise ZeroDivisionError(item)
            done.append(item)

        lanes = Lanes(work, lambda error: told.append(str(error)))
        async with asyncio.timeout(TIMEOUT_S):
            for key, item in [("a", "poison"), ("b", "x"), ("a", "after"), ("b", "y")]:
                await lanes.put(key, item)
            while len(done) < 2:  # noqa: ASYNC110 - within the deadline above
                await asyncio.sleep(0)
        lanes.close()
        return told, done

    assert asyncio.run(run()) == (["poison"], ["x", "y"])


def test_who_puts_too_much_waits() -> None:
    async def run() -> int:
        gate = asyncio.Event()

        async def work(_: int) -> None:
            await gate.wait()

        lanes = Lanes(work, lambda error: pytest.fail(str(error)))
        num_put = 0

        async def put() -> None:
            nonlocal num_put
            for number in range(100):
                await lanes.put("a", number)
                num_put += 1

        putting = asyncio.create_task(put())
        for _ in range(1000):
            await asyncio.sleep(0)
        held = num_put
        gate.set()
        async with asyncio.timeout(TIMEOUT_S):
            await putting
        lanes.close()
        return held

    assert asyncio.run(run()) == 2

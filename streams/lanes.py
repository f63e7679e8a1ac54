"""One line of work a key: items of a key one after the other, those of different keys side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

# One item is worked on and one waits, so that the line never runs dry; who puts more waits.
_NUM_WAITING_MAX = 1


class Lanes:
    """`work` is called with each item, in the order of `put` for each key; what it raises goes to `fail`, and the lane

    takes nothing more. Keys are few and stay: partitions of topics.
    """

    def __init__(self, work: Callable[[Any], Awaitable[None]], fail: Callable[[BaseException], None]) -> None:
        self._work = work
        self._fail = fail
        self._queues: dict[Hashable, asyncio.Queue[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def put(self, key: Hashable, item: Any) -> None:
        """Put an item behind the others of its key; waits while there is no room, a failed lane for ever."""
        if key not in self._queues:
            self._queues[key] = asyncio.Queue(_NUM_WAITING_MAX)
            self._tasks.append(asyncio.create_task(self._run(self._queues[key]), name=f"lane {key}"))
        await self._queues[key].put(item)

    def close(self) -> None:
        """End all lanes, wherever they are."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, queue: asyncio.Queue[Any]) -> None:
        while True:
            item = await queue.get()
            try:
                await self._work(item)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._fail(error)
                return

"""Restoring partitions is asked for by a rebalance and by chunks that find no state, and is done once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.chunks import ChunkConsumer


@pytest.mark.parametrize(("is_done_by_first", "num_calls"), [(True, 1), (False, 2)])
def test_who_waited_for_another_restore_asks_whether_anything_is_left(is_done_by_first: bool, num_calls: int) -> None:
    """A chunk of a partition without state asks for it, while the restore after the rebalance is still under way."""
    owned: set[TP] = set()
    begun, go_on = asyncio.Event(), asyncio.Event()
    calls: list[set[TP]] = []

    async def resume(tps: set[TP]) -> dict[TP, int]:
        calls.append(tps)
        begun.set()
        await go_on.wait()
        if is_done_by_first:
            owned.update(tps)
        return {}

    async def run() -> None:
        consumer: Any = ChunkConsumer.__new__(ChunkConsumer)
        consumer._seek_lock = asyncio.Lock()
        consumer._thread = SimpleNamespace(wait_for_news=lambda _: None)
        consumer.transport = SimpleNamespace(resume=resume, chunk_topics={"records"})
        consumer.app = SimpleNamespace(conf=SimpleNamespace(broker_request_timeout=30.0), consumer_generation_id=1)
        consumer.assignment = lambda: {TP("records", 0)}
        first = asyncio.create_task(consumer.restore())
        await begun.wait()
        second = asyncio.create_task(consumer.restore(unless=lambda: TP("records", 0) in owned))
        go_on.set()
        await asyncio.gather(first, second)

    asyncio.run(run())
    assert calls == [{TP("records", 0)}] * num_calls

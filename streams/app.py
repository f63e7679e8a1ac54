"""The monitor: assembles its Faust app and runs it until it is told to stop. The pipeline, read from the bottom up.

records, predictions, labels ─► Counting ─► store: summaries, markers ─► progress ─► judge ─► measurements, alerts
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.log import SpecFollower
from streams.chunks import ChunkTransport
from streams.counting import Counting
from streams.framework import make_app
from streams.progressing import add_judge

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


def name_job(runtime: Runtime) -> str:
    """Give the name under which the monitor keeps its state and its place in the log: one per set of topics."""
    return runtime.topics(MONITOR)


def run_monitor(runtime: Runtime, worker_name: str, stop: threading.Event) -> None:
    """Run the monitor until `stop` is set; raises what made it impossible to go on.

    `worker_name` is the worker's static member id: unique among live workers, the same after a restart.
    """
    asyncio.run(_run(runtime, worker_name, stop))


async def _run(runtime: Runtime, worker_name: str, stop: threading.Event) -> None:
    store = ClickHouse(runtime.clickhouse)
    specs = SpecFollower(runtime.kafka, runtime.topics)
    app = make_app(runtime, name_job(runtime), worker_name)
    counting = Counting(app, runtime, store, name_job(runtime), specs, SystemClock())
    attach_counting(app, counting)
    add_judge(app, runtime, name_job(runtime), after=counting.wait_for_head_start)
    preparing = asyncio.create_task(counting.prepare())
    try:
        await asyncio.wait_for(app.start(), _START_TIMEOUT_S)
        log.info("monitor %s is up", worker_name)
        # A thread's event cannot be awaited, so it is looked at.
        while not stop.is_set() and counting.failure is None and not app.should_stop:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    finally:
        preparing.cancel()
        await _stop(app, counting)
        specs.close()
        store.close()
    if counting.failure is not None:
        raise counting.failure
    if not stop.is_set():
        raise app.crash_reason or RuntimeError("the monitor's Faust app stopped by itself")


async def _stop(app: Any, counting: Counting) -> None:
    """Flush what can be flushed and leave the group, within a deadline: the rest is read again."""
    await counting.hand_over()
    try:
        await asyncio.wait_for(app.stop(), _STOP_TIMEOUT_S)
    except TimeoutError:
        log.warning("Faust did not stop within %.0f s", _STOP_TIMEOUT_S)
    counting.close()


def attach_counting(app: Any, counting: Counting) -> None:
    """Stage 1: one ordered agent per inbound topic, a flush loop, and the hooks of assignment and revocation."""
    app.transport = ChunkTransport.of(app, counting.kinds, counting.resume)
    for topic in counting.kinds:
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw")
        app.agent(channel, name=f"counting-{topic}")(counting.process)
    app.task(counting.flush_forever)
    app.task(counting.look_after)

    async def hand_over(*_: Any, **__: Any) -> None:
        await counting.hand_over()

    app.on_partitions_revoked.connect(hand_over, weak=False)

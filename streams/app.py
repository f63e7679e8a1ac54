"""The monitor: assembles its Faust app and runs it until it is told to stop. The pipeline, read from the bottom up.

records, predictions, labels ─► Counting ─► store: summaries, markers ─► progress ─► judge ─► measurements, alerts
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from typing import Any

import faust

from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.log import SpecFollower
from streams.chunks import ChunkTransport
from streams.counting import Counting
from streams.progressing import add_judge
from streams.security import make_credentials

log = logging.getLogger(__name__)

# A dead worker's partitions move after this; a static member that restarts within it has its own again at once.
SESSION_TIMEOUT_S = 6.0
# Restoring gives up after a third of it, and is asked again.
_REQUEST_TIMEOUT_S = 30.0
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
# A fetched chunk of one partition, on the wire; more would hold the event loop too long when it is decompressed.
_FETCH_BYTES = 1 << 20
_METADATA_AGE_MS = 5_000


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
    with tempfile.TemporaryDirectory(prefix="driftloop-faust-") as folder:
        app = make_app(runtime, worker_name, folder)
        counting = Counting(app, runtime, store, name_job(runtime), specs, SystemClock())
        attach_counting(app, counting)
        add_judge(app, runtime, name_job(runtime))
        try:
            await asyncio.wait_for(app.start(), _START_TIMEOUT_S)
            log.info("monitor %s is up", worker_name)
            # A thread's event cannot be awaited, so it is looked at.
            while not stop.is_set() and counting.failure is None and not app.should_stop:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        finally:
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


def make_app(runtime: Runtime, worker_name: str, folder: str) -> Any:
    """Make the Faust app with everything off that keeps state: ours is in the store."""
    servers = ";".join(f"kafka://{server}" for server in runtime.kafka.bootstrap_servers.split(","))
    return faust.App(
        name_job(runtime),
        broker=servers,
        broker_credentials=make_credentials(runtime.kafka.options),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=SESSION_TIMEOUT_S,
        broker_request_timeout=_REQUEST_TIMEOUT_S,
        broker_max_poll_interval=60.0,
        broker_commit_interval=1.0,
        consumer_group_instance_id=worker_name,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=_FETCH_BYTES,
        # A topic that is made, or made anew, while the monitor runs is found after at most this.
        consumer_metadata_max_age_ms=_METADATA_AGE_MS,
        # On, a revoke would wait for acknowledgements that wait for the store.
        stream_wait_empty=False,
        store="memory://",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )


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

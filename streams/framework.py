"""Faust as the monitor uses it: a consumer group and agents, without tables, web server, folders or waiting.

State is in the store, so whatever Faust would keep or wait for on its behalf is left out here.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.tables.manager import TableManager

from schemas.connections import Runtime
from streams.security import make_credentials

# A dead worker's partitions move after this; a static member that restarts within it has its own again at once.
SESSION_TIMEOUT_S = 6.0
# Restoring gives up after a third of it, and is asked again.
_REQUEST_TIMEOUT_S = 30.0
# A fetched chunk of one partition, on the wire: about 12,000 events of 350 bytes, over which a chunk's fixed costs are
# spread; more would hold the event loop too long when it is decompressed.
_FETCH_BYTES = 4 << 20
_METADATA_AGE_MS = 5_000


class NoTables(TableManager):  # type: ignore[misc]
    """Faust's table manager for an app without tables: it does not wait a second for some to be declared."""

    async def on_start(self) -> None:
        # Stock, without its `sleep(1.0)`: agents subscribe, and partitions are assigned, only after this.
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class NoWebClient:
    """Stands where aiohttp's client would, which Faust would import to have it at hand."""


class App(faust.App):  # type: ignore[misc]
    """A Faust app that makes no folders: a killed one would leave them behind, and there is nothing to put there."""

    async def on_first_start(self) -> None:
        pass


def make_app(runtime: Runtime, group: str, worker_name: str) -> Any:
    """Make the Faust app with everything off that keeps state: ours is in the store."""
    servers = ";".join(f"kafka://{server}" for server in runtime.kafka.bootstrap_servers.split(","))
    return App(
        group,
        broker=servers,
        broker_credentials=make_credentials(runtime.kafka.options),
        broker_session_timeout=SESSION_TIMEOUT_S,
        # The others learn with their next heartbeat that a worker joins or leaves, and stop reading until all have.
        broker_heartbeat_interval=0.3,
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
        TableManager=NoTables,
        HttpClient=NoWebClient,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )

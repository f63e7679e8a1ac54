"""A broker and a ClickHouse of one test's own, with their topics and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.connections import Runtime
from store.client import ClickHouse
from store.log import apply_topics
from store.migrations import migrate
from tests.brokers import make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import make_runtime


@dataclass
class Servers:
    """What leads to them, a client of the store, and the store's process."""

    runtime: Runtime
    store: ClickHouse
    clickhouse: EmbeddedClickHouse


@contextmanager
def run_servers(kind: str, folder: Path) -> Iterator[Servers]:
    """Start a broker of this kind and a ClickHouse; both are stopped afterwards."""
    with ExitStack() as exits:
        broker, clickhouse = make_broker(kind, folder / "broker"), EmbeddedClickHouse(folder / "clickhouse")
        broker.start()
        exits.callback(broker.stop)
        clickhouse.start()
        exits.callback(clickhouse.stop)
        runtime = make_runtime(broker.bootstrap, clickhouse.url, "t", folder)
        store = ClickHouse(runtime.clickhouse)
        exits.callback(store.close)
        migrate(store)
        apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
        yield Servers(runtime, store, clickhouse)

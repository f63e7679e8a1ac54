"""Short-lived connections of commands: opened, used, closed, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.connections import Runtime
from store.client import ClickHouse


@contextmanager
def open_store(runtime: Runtime) -> Iterator[ClickHouse]:
    store = ClickHouse(runtime.clickhouse)
    try:
        yield store
    finally:
        store.close()

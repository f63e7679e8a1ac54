"""One `ClickHouse` for all threads of a process: what each asks and sends stays its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.connections import ClickHouseConnection
from schemas.errors import Retryable
from store.client import ClickHouse
from tests.clickhouses import EmbeddedClickHouse

NUM_THREADS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    server = EmbeddedClickHouse(Path(tmp_path_factory.mktemp("clickhouse")))
    server.start()
    yield server
    server.stop()


def test_threads_get_their_own_answers(server: EmbeddedClickHouse) -> None:
    """More threads than the pool keeps connections, all begun at once, so that the first is made by all of them."""
    store = ClickHouse(ClickHouseConnection(server.url, database="default"))
    begin = threading.Barrier(NUM_THREADS)

    def work(thread: int) -> int:
        begin.wait(60)
        table = f"own_{thread}"
        store.command(f"CREATE TABLE {table} (k UInt32, text String) ENGINE = MergeTree ORDER BY k")
        for block in range(5):
            rows = pa.table({"k": pa.array(range(block * 100, block * 100 + 100), pa.uint32()), "text": ["x"] * 100})
            store.insert_arrow(table, rows)
            store.insert_rows(table, [{"k": 100_000 + thread, "text": "y"}])
            big = store.query("SELECT number + {n:UInt32} FROM numbers(20000)", {"n": thread})
            assert [big[0], big[-1]] == [(thread,), (19_999 + thread,)]
            with pytest.raises(DatabaseError):
                store.query(f"SELECT no_column FROM {table}")
        assert store.query_arrow(f"SELECT max(k) AS k FROM {table}")["k"].to_pylist() == [100_000 + thread]
        return int(store.query(f"SELECT count() FROM {table}")[0][0])

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        assert list(pool.map(work, range(NUM_THREADS))) == [505] * NUM_THREADS
    store.close()


def test_a_closed_or_unreachable_store_can_be_used_again(server: EmbeddedClickHouse) -> None:
    store = ClickHouse(ClickHouseConnection(server.url, database="default"))
    assert store.query("SELECT 1") == [(1,)]
    store.close()
    assert store.query("SELECT 2") == [(2,)]
    store.close()
    away = ClickHouse(ClickHouseConnection("http://127.0.0.1:1", database="default"))
    for _ in range(2):
        with pytest.raises(Retryable):
            away.query("SELECT 1")


def test_answer_that_breaks_off_after_its_first_blocks_is_retryable(server: EmbeddedClickHouse) -> None:
    store = ClickHouse(ClickHouseConnection(server.url, database="default"))
    late = "SELECT throwIf(number = 900000, 'too late') AS found FROM numbers(1000000) SETTINGS max_block_size = 65536"
    taken: list[int] = []
    with pytest.raises(Retryable, match="broke off"):
        taken.extend(block.num_rows for block in store.stream_arrow(late))
    assert taken
    assert sum(block.num_rows for block in store.stream_arrow("SELECT * FROM numbers(70000)")) == 70_000
    store.close()

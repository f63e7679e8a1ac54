"""SIGKILL of the embedded ClickHouse server while several writers insert: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.clickhouses import EmbeddedClickHouse

NUM_KILLS = 4
NUM_WRITERS = 3
NUM_ROWS = 400
NUM_BLOCKS_BEFORE_KILL = 12


class Writers:
    """Threads that insert numbered blocks until the server is gone, and remember which were acknowledged."""

    def __init__(self, port: int) -> None:
        self.acknowledged: set[int] = set()
        self._port = port
        self._numbers = itertools.count()
        self._progress = threading.Semaphore(0)

    def run_until_killed(self, server: EmbeddedClickHouse) -> None:
        threads = [threading.Thread(target=self._write) for _ in range(NUM_WRITERS)]
        for thread in threads:
            thread.start()
        for _ in range(NUM_BLOCKS_BEFORE_KILL):
            assert self._progress.acquire(timeout=60), "writers make no progress"
        server.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    def _write(self) -> None:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=self._port, database="app", autogenerate_session_id=False, query_retries=0
        )
        try:
            while True:
                number = next(self._numbers)
                rows = pa.table({"block": pa.array([number] * NUM_ROWS, pa.uint64()),
                                 "row": pa.array(range(NUM_ROWS), pa.uint32())})  # fmt: skip
                client.insert_arrow("facts", rows)
                self.acknowledged.add(number)
                self._progress.release()
        except (ClickHouseError, OSError):
            pass  # the server is gone: what was in flight was not acknowledged
        finally:
            client.close()


def test_no_acknowledged_block_is_lost_by_sigkill(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    server.start()
    admin = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, autogenerate_session_id=False)
    admin.command("CREATE DATABASE app ENGINE = Atomic")
    admin.command("CREATE TABLE app.facts (block UInt64, row UInt32) ENGINE = MergeTree ORDER BY (block, row)")
    admin.command("CREATE TABLE app.totals (block UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY block")
    admin.command(
        "CREATE MATERIALIZED VIEW app.feed TO app.totals AS SELECT block, count() AS n FROM app.facts GROUP BY block"
    )
    writers = Writers(server.port)
    for _ in range(NUM_KILLS):
        writers.run_until_killed(server)
        server.start()
        query = "SELECT block, count(), uniqExact(row) FROM app.facts GROUP BY block"
        stored = {block: (rows, distinct) for block, rows, distinct in admin.query(query).result_rows}
        assert writers.acknowledged <= stored.keys()
        assert set(stored.values()) == {(NUM_ROWS, NUM_ROWS)}  # blocks are whole and once, acknowledged or not
        totals = dict(admin.query("SELECT block, sum(n) FROM app.totals GROUP BY block").result_rows)
        assert {totals.get(block) for block in writers.acknowledged} == {NUM_ROWS}
    admin.close()
    assert server.stop() == 0
    assert len(writers.acknowledged) >= NUM_KILLS * NUM_BLOCKS_BEFORE_KILL

"""What driftloop's tables rely on: versions that win, reads that are final, tokens, partitions, views, migrations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

BEYOND_64_BITS = 2**64


@pytest.mark.parametrize(
    ("version_type", "low", "high"),
    [("UInt64", 2**63 - 1, 2**63), ("UInt128", BEYOND_64_BITS - 1, BEYOND_64_BITS), ("UInt128", 2**127, 2**128 - 1)],
)
def test_the_row_with_the_larger_version_wins_whatever_came_first(
    store_client: Client, version_type: str, low: int, high: int
) -> None:
    store_client.command(
        f"CREATE TABLE facts (k UInt32, version {version_type}, value String) "
        "ENGINE = ReplacingMergeTree(version) ORDER BY k"
    )
    for rows in ([[1, high, "new"], [2, low, "old"]], [[1, low, "old"], [2, high, "new"]]):
        store_client.insert("facts", rows, column_names=["k", "version", "value"])

    assert store_client.query("SELECT k, value, version FROM facts ORDER BY k").result_rows == [
        (1, "new", high),
        (2, "new", high),
    ]
    assert store_client.command("SELECT count() FROM facts") == 2
    assert store_client.query("SELECT count() FROM facts", settings={"final": 0}).first_row == (4,)

    store_client.command("OPTIMIZE TABLE facts FINAL")
    merged = store_client.query("SELECT k, version FROM facts ORDER BY k", settings={"final": 0}).result_rows
    assert merged == [(1, high), (2, high)]


def test_without_a_version_the_row_inserted_last_wins(store_client: Client) -> None:
    store_client.command("CREATE TABLE facts (k UInt32, value UInt32) ENGINE = ReplacingMergeTree ORDER BY k")
    for value in (3, 1, 2):
        store_client.insert("facts", [[7, value]])
    assert store_client.query("SELECT * FROM facts").result_rows == [(7, 2)]


def test_joins_subqueries_and_views_read_final_rows(store_client: Client) -> None:
    for table in ("predictions", "labels"):
        store_client.command(
            f"CREATE TABLE {table} (id String, version UInt64, value Float64) "
            "ENGINE = ReplacingMergeTree(version) ORDER BY id"
        )
        for version in (1, 2):
            store_client.insert(table, [["a", version, version * 1.5], ["b", version, version * 2.5]])
    store_client.command("CREATE VIEW joined AS SELECT p.id AS id, p.value - l.value AS error FROM predictions AS p "
                         "JOIN labels AS l ON p.id = l.id")  # fmt: skip

    assert store_client.command("SELECT count() FROM joined") == 2
    assert store_client.command("SELECT count() FROM (SELECT id FROM predictions UNION ALL SELECT id FROM labels)") == 4
    assert (
        store_client.command("SELECT count() FROM predictions WHERE id IN (SELECT id FROM labels WHERE version = 1)")
        == 0
    )
    assert store_client.command("SELECT count() FROM joined SETTINGS final = 0") == 8


def test_an_insert_token_is_taken_once_and_does_not_stick(store_client: Client) -> None:
    store_client.command(
        "CREATE TABLE facts (k UInt32) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 100"
    )
    for token, value in (("t1", 1), ("t1", 1), ("t2", 1), ("t1", 99)):
        store_client.insert("facts", [[value]], settings={"insert_deduplication_token": token})
    # Without a token equal blocks collapse, other ones do not: an earlier request's token has no effect on them.
    for value in (5, 5, 6):
        store_client.insert("facts", [[value]])
    assert store_client.query("SELECT k FROM facts ORDER BY k").result_rows == [(1,), (1,), (5,), (6,)]


def test_a_block_over_many_partitions_needs_the_limit_lifted(store_client: Client) -> None:
    store_client.command("CREATE TABLE wide (k UInt32) ENGINE = MergeTree PARTITION BY k ORDER BY k")
    block = pa.table({"k": pa.array(range(150), pa.uint32())})
    with pytest.raises(DatabaseError, match="Code: 252"):
        store_client.insert_arrow("wide", block)
    assert store_client.command("SELECT count() FROM wide") == 0
    store_client.insert_arrow("wide", block, settings={"max_partitions_per_insert_block": 0})
    assert store_client.command("SELECT count(), sum(k) FROM wide") == ["150", str(sum(range(150)))]


def test_a_materialized_view_sees_each_inserted_row_once(store_client: Client) -> None:
    store_client.command("CREATE TABLE events (model String, value Float64) ENGINE = MergeTree ORDER BY model")
    store_client.command(
        "CREATE TABLE totals (model String, n AggregateFunction(count), total AggregateFunction(sum, Float64)) "
        "ENGINE = AggregatingMergeTree ORDER BY model"
    )
    store_client.command(
        "CREATE MATERIALIZED VIEW feed TO totals AS "
        "SELECT model, countState() AS n, sumState(value) AS total FROM events GROUP BY model"
    )
    for _ in range(3):
        store_client.insert("events", [["a", 0.5], ["a", 1.5], ["b", 4.0]])
    rows = store_client.query(
        "SELECT model, countMerge(n), sumMerge(total) FROM totals GROUP BY model ORDER BY model"
    ).result_rows
    assert rows == [("a", 6, 6.0), ("b", 3, 12.0)]


def test_a_materialized_view_over_a_replacing_table_sees_the_new_block_only(store_client: Client) -> None:
    store_client.command("CREATE TABLE events (k UInt32, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY k")
    store_client.command("CREATE TABLE copies (k UInt32, v UInt32) ENGINE = MergeTree ORDER BY k")
    store_client.command("CREATE MATERIALIZED VIEW feed TO copies AS SELECT k, v FROM events")
    for version in (1, 2):
        store_client.insert("events", [[1, version]])
    assert store_client.query("SELECT v FROM copies ORDER BY v").result_rows == [(1,), (2,)]


def test_a_ttl_removes_rows_past_their_time_and_no_others(store_client: Client) -> None:
    store_client.command(
        "CREATE TABLE facts (k UInt32, ts DateTime64(3, 'UTC'), ingested_at DateTime64(3, 'UTC')) "
        "ENGINE = MergeTree ORDER BY k TTL toDateTime(ingested_at) + INTERVAL 30 DAY"
    )
    now, long_ago = datetime.now(UTC), datetime(2018, 1, 1, tzinfo=UTC)
    # A replay of 2018 that was ingested today stays; what was ingested long ago goes.
    store_client.insert("facts", [[1, long_ago, now], [2, now, now - timedelta(days=60)]])
    store_client.command("OPTIMIZE TABLE facts FINAL")
    assert store_client.query("SELECT k FROM facts").result_rows == [(1,)]


def test_a_migration_adds_columns_to_a_table_with_rows(store_client: Client) -> None:
    store_client.command("CREATE TABLE facts (k UInt32) ENGINE = ReplacingMergeTree ORDER BY k")
    store_client.insert("facts", [[1]])
    store_client.command("ALTER TABLE facts ADD COLUMN scale Float64 DEFAULT 0.5, ADD COLUMN note String")
    store_client.command("ALTER TABLE facts MODIFY COLUMN note LowCardinality(String)")
    store_client.insert("facts", [[2, 1.5, "x"]], column_names=["k", "scale", "note"])
    assert store_client.query("SELECT * FROM facts ORDER BY k").result_rows == [(1, 0.5, ""), (2, 1.5, "x")]

    store_client.command("ALTER TABLE facts UPDATE note = 'y' WHERE k = 1 SETTINGS mutations_sync = 1")
    store_client.command("ALTER TABLE facts DELETE WHERE k = 2 SETTINGS mutations_sync = 1")
    assert store_client.query("SELECT k, note FROM facts").result_rows == [(1, "y")]

    store_client.command("ALTER TABLE facts DROP COLUMN scale")
    store_client.command("RENAME TABLE facts TO facts_before")
    store_client.command("CREATE TABLE facts AS facts_before")
    store_client.command("INSERT INTO facts SELECT * FROM facts_before")
    store_client.command("EXCHANGE TABLES facts AND facts_before")
    assert store_client.query("SELECT * FROM facts").result_rows == [(1, "y")]


def test_live_tables_can_be_compared_with_their_declaration(store_client: Client) -> None:
    store_client.command(
        "CREATE TABLE facts (model LowCardinality(String), ts DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)), "
        "features Map(String, Nullable(Float64)), version UInt128) "
        "ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(ts) ORDER BY (model, toStartOfHour(ts))"
    )
    columns = store_client.query(
        "SELECT name, type, compression_codec FROM system.columns "
        "WHERE database = currentDatabase() AND table = 'facts' ORDER BY position"
    ).result_rows
    assert columns == [
        ("model", "LowCardinality(String)", ""),
        ("ts", "DateTime64(3, 'UTC')", "CODEC(Delta(8), ZSTD(1))"),
        ("features", "Map(String, Nullable(Float64))", ""),
        ("version", "UInt128", ""),
    ]
    table = store_client.query(
        "SELECT engine, partition_key, sorting_key FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'facts'"
    ).first_row
    assert table == ("ReplacingMergeTree", "toYYYYMM(ts)", "model, toStartOfHour(ts)")

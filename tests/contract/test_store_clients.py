"""What standard clients rely on: types that come back as they went, settings that end, errors with their codes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData


def place(url: str) -> dict[str, object]:
    """The arguments that lead a client to the server."""
    address = urlsplit(url)
    return {
        "host": address.hostname, "port": address.port,
        "username": address.username or "default", "password": address.password or "",
    }  # fmt: skip


def post(url: str, body: bytes, **params: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of what a plain HTTP client gets."""
    request = urllib.request.Request(f"{url}/?{urlencode(params)}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


EVENTS = (
    "CREATE TABLE events (record_id String, ts DateTime64(3, 'UTC'), features Map(String, Nullable(Float64)), "
    "features_text Map(String, String), place UInt128) ENGINE = MergeTree ORDER BY record_id"
)


def test_arrow_maps_and_times_come_back_as_they_went(store_client: Client) -> None:
    store_client.command(EVENTS)
    times = [datetime(2018, 3, 4, 5, 6, 7, 891000, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)]
    numbers = [{"amount": 12.5, "age": None}, {}]
    texts = [{"country": "DE", "note": "straße 'x'\t\\"}, {"country": ""}]
    table = pa.table(
        {
            "record_id": ["a", "b"],
            "ts": pa.array(times, pa.timestamp("ms", "UTC")),
            "features": pa.array(numbers, pa.map_(pa.string(), pa.float64())),
            "features_text": pa.array(texts, pa.map_(pa.string(), pa.string())),
        }
    )
    assert store_client.insert_arrow("events", table).written_rows == 2

    rows = store_client.query("SELECT ts, features, features_text FROM events ORDER BY record_id").result_rows
    assert [row[0].replace(tzinfo=UTC) for row in rows] == times
    assert [row[1] for row in rows] == numbers
    assert [row[2] for row in rows] == texts
    assert store_client.command("SELECT toUnixTimestamp64Milli(ts) FROM events WHERE record_id = 'a'") == 1520139967891

    back = store_client.query_arrow("SELECT ts, features FROM events ORDER BY record_id")
    assert back.column("ts").cast(pa.timestamp("ms", "UTC")).to_pylist() == times
    assert [dict(pairs) for pairs in back.column("features").to_pylist()] == numbers


def test_numbers_come_back_bit_for_bit(store_client: Client) -> None:
    store_client.command("CREATE TABLE numbers (k UInt32, x Float64, big UInt128) ENGINE = MergeTree ORDER BY k")
    floats = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3]
    bigs = [0, 2**64, 2**128 - 1, 2**127 + 1, 7]
    store_client.insert("numbers", [list(row) for row in zip(range(5), floats, bigs, strict=True)])
    rows = store_client.query("SELECT x, big FROM numbers ORDER BY k").result_rows
    assert np.array([row[0] for row in rows]).tobytes() == np.array(floats).tobytes()
    assert [row[1] for row in rows] == bigs
    frame = store_client.query_df("SELECT k, x FROM numbers ORDER BY k")
    assert frame["x"].to_numpy().tobytes() == np.array(floats).tobytes()


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_every_compression_carries_inserts_and_results(
    store_url: str, store_client: Client, compression: object
) -> None:
    store_client.command("CREATE TABLE texts (k UInt32, s String) ENGINE = MergeTree ORDER BY k")
    client = clickhouse_connect.get_client(**place(store_url), database=store_client.database, compress=compression)
    rows = [[number, f"text {number % 7}" * 20] for number in range(20_000)]
    assert client.insert("texts", rows).written_rows == 20_000
    assert [list(row) for row in client.query("SELECT * FROM texts ORDER BY k").result_rows] == rows
    assert client.query_arrow("SELECT * FROM texts").num_rows == 20_000
    client.close()


def test_parameters_are_values_and_never_sql(store_client: Client) -> None:
    hostile = "it's \\ \t\n{x:String} -- /* é"
    row = store_client.query(
        "SELECT {s:String}, {n:Int64}, {list:Array(String)}, {at:DateTime64(3, 'UTC')}",
        parameters={"s": hostile, "n": -(2**63), "list": ["a'", "b"], "at": datetime(2026, 1, 2, 3, 4, 5, 678000)},
    ).first_row
    assert row[:3] == (hostile, -(2**63), ["a'", "b"])
    assert row[3].replace(tzinfo=None) == datetime(2026, 1, 2, 3, 4, 5, 678000)


def test_parameters_too_long_for_a_url_arrive(store_client: Client) -> None:
    ids = [f"record-{number:06d}" for number in range(5_000)]
    found = store_client.command(
        "SELECT length({ids:Array(String)}), {ids:Array(String)}[5000]", parameters={"ids": ids}
    )
    assert found == ["5000", ids[-1]]


def test_a_table_can_come_with_the_query(store_client: Client) -> None:
    rows = ExternalData(file_name="ids", data=b"1,a\n2,b\n", fmt="CSV", structure="k UInt32, s String")
    for _ in range(2):
        assert store_client.query("SELECT k, s FROM ids ORDER BY k", external_data=rows).result_rows == [
            (1, "a"),
            (2, "b"),
        ]
    with pytest.raises(DatabaseError, match="Code: 60"):
        store_client.query("SELECT * FROM ids")


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELECT * FROM no_such_table", 60, 404),
        ("SELECT no_such_column FROM system.one", 47, 404),
        ("SELECT * FROM no_such_database.t", 81, 404),
        ("SELEC 1", 62, 400),
        ("SELECT 1; SELECT 2", 62, 400),
        ("SELECT no_such_function(1)", 46, 404),
        ("SELECT toUInt8('x')", 6, 400),
    ],
)
def test_errors_carry_their_code_and_status(
    store_client: Client, store_url: str, sql: str, code: int, status: int
) -> None:
    with pytest.raises(DatabaseError) as caught:
        store_client.command(sql)
    assert caught.value.code == code
    found_status, body, headers = post(store_url, sql.encode())
    assert (found_status, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert store_client.command("SELECT 1") == 1


def test_a_refused_insert_leaves_nothing_behind(store_client: Client) -> None:
    store_client.command("CREATE TABLE facts (k UInt32, s String) ENGINE = MergeTree ORDER BY k")
    with pytest.raises(DatabaseError, match="Code: 60"):
        store_client.raw_insert("missing", ["k"], b"1\n", fmt="CSV")
    with pytest.raises(DatabaseError, match="Code: 27"):
        store_client.raw_insert("facts", ["k", "s"], b"1,a\nx,b\n", fmt="CSV")
    assert store_client.command("SELECT count() FROM facts") == 0
    store_client.insert("facts", [[1, "a"]])
    assert store_client.command("SELECT count() FROM facts") == 1


def test_an_error_in_the_middle_of_a_result_reaches_the_client(store_client: Client) -> None:
    with pytest.raises(DatabaseError, match="395"):
        store_client.query("SELECT throwIf(number = 3000000) FROM numbers(10000000) SETTINGS max_threads = 1")


def test_a_session_keeps_what_it_set_and_nothing_else(store_url: str, store_client: Client) -> None:
    with_session = clickhouse_connect.get_client(**place(store_url), session_id=f"s-{store_client.database}")
    with_session.command("SET max_threads = 3")
    with_session.command("CREATE TEMPORARY TABLE mine (k UInt32)")
    read = "SELECT getSetting('max_threads'), getSetting('insert_deduplication_token'), currentDatabase()"
    kept = with_session.query(read).first_row
    passing = {"max_threads": 1, "insert_deduplication_token": "it's", "database": store_client.database}
    assert with_session.query(read, settings=passing).first_row == (1, "it's", store_client.database)
    assert with_session.query(read).first_row == kept == (3, "", kept[2])

    with pytest.raises(DatabaseError, match="Code: 115"):
        with_session.query("SELECT 1", settings={"no_such_setting": 1})
    with_session.insert("mine", [[1], [2]])
    assert with_session.command("SELECT count() FROM mine") == 2
    with pytest.raises(DatabaseError, match="Code: 60"):
        store_client.command("SELECT count() FROM mine")
    assert store_client.query("SELECT getSetting('insert_deduplication_token')").first_row == ("",)
    with_session.close()


def test_one_session_serves_one_request_at_a_time(store_url: str) -> None:
    deadline = time.monotonic() + 60

    def hold() -> None:
        slow = b"SELECT sum(sleepEachRow(0.5)) FROM numbers(4) SETTINGS max_block_size = 1"
        while post(store_url, slow, session_id="held")[0] != 200 and time.monotonic() < deadline:
            pass  # the other side was in the session just now

    holder = threading.Thread(target=hold)
    holder.start()
    refusals = set()
    while not refusals and time.monotonic() < deadline:
        refusals |= {post(store_url, b"SELECT 1", session_id="held")[2].get("X-ClickHouse-Exception-Code")} - {None}
    holder.join(60)
    assert refusals == {"373"}
    assert post(store_url, b"SELECT 1", session_id="held")[:2] == (200, b"1\n")
    assert post(store_url, b"SELECT 1", session_id="never", session_check="1")[0] == 404


def test_a_big_result_streams_and_may_be_left_unread(store_client: Client) -> None:
    num_rows = 3_000_000
    with store_client.query_column_block_stream(f"SELECT number, toString(number) FROM numbers({num_rows})") as blocks:
        assert sum(len(block[0]) for block in blocks) == num_rows
    with store_client.query_arrow_stream(
        f"SELECT number AS n, toLowCardinality(toString(number % 1000)) AS s FROM numbers({num_rows})"
    ) as batches:
        total = sum(int(np.sum(batch.column("n").to_numpy())) for batch in batches)
    assert total == num_rows * (num_rows - 1) // 2
    with store_client.query_row_block_stream("SELECT number FROM numbers(100000000)") as left:
        next(iter(left))
    assert store_client.command("SELECT 1") == 1


def test_an_empty_result_keeps_its_arrow_schema(store_client: Client) -> None:
    empty = store_client.query_arrow("SELECT number AS n, 'x' AS s FROM numbers(0)")
    assert (empty.num_rows, empty.column_names) == (0, ["n", "s"])


def test_plain_http_answers_as_clickhouse_does(store_url: str, store_client: Client) -> None:
    with urllib.request.urlopen(f"{store_url}/ping", timeout=10) as answer:
        assert answer.read() == b"Ok.\n"
    assert post(store_url, b"1, 'a' FORMAT JSONCompactEachRow", query="SELECT")[1] == b'[1, "a"]\n'
    _, body, headers = post(store_url, b"SELECT 1 AS x", default_format="JSON", query_id="q-1")
    assert json.loads(body)["data"] == [{"x": 1}]
    assert headers["X-ClickHouse-Query-Id"] == "q-1"
    assert headers["X-ClickHouse-Format"] == "JSON"

    table = f"{store_client.database}.facts"
    assert (
        post(store_url, f"CREATE TABLE {table} (k UInt32, s String) ENGINE = MergeTree ORDER BY k".encode())[0] == 200
    )
    inserts = [
        (f"INSERT INTO {table} VALUES (1, 'FORMAT CSV'), (2, upper('b'))".encode(), {}),
        (f'INSERT INTO {table} (s, k) FORMAT JSONEachRow\n{{"k": 3, "s": "c;"}}'.encode(), {}),
        (b"4,d\n", {"query": f"INSERT INTO {table} FORMAT CSV"}),
        (b"(5, 'e')", {"query": f"INSERT INTO {table} VALUES"}),
        (f"INSERT INTO {table} SELECT 6, 'f'".encode(), {}),
        (b"", {"query": f"/* note */ INSERT INTO {table} (k, s) VALUES (7, 'g')"}),
    ]
    for body, params in inserts:
        status, answer, headers = post(store_url, body, **params)
        assert (status, answer) == (200, b"")
        assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] in ("1", "2")
    assert store_client.query("SELECT groupArray(s) FROM (SELECT s FROM facts ORDER BY k)").first_row == (
        ["FORMAT CSV", "B", "c;", "d", "e", "f", "g"],
    )


def test_a_get_may_only_read(store_url: str, store_client: Client) -> None:
    for params in ({}, {"session_id": f"get-{store_client.database}"}):
        query = urlencode({"query": f"CREATE TABLE {store_client.database}.t (k UInt8) ENGINE = Memory", **params})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{store_url}/?{query}", timeout=10)
        with caught.value as error:
            assert error.headers["X-ClickHouse-Exception-Code"] == "164"
    with urllib.request.urlopen(f"{store_url}/?query=SELECT+1", timeout=10) as answer:
        assert answer.read() == b"1\n"


def test_many_clients_read_and_write_at_once(store_url: str, store_client: Client) -> None:
    store_client.command("CREATE TABLE facts (writer UInt32, k UInt32) ENGINE = MergeTree ORDER BY (writer, k)")
    num_writers, num_blocks, num_rows = 6, 5, 200

    def work(writer: int) -> int:
        client = clickhouse_connect.get_client(**place(store_url), database=store_client.database)
        for block in range(num_blocks):
            client.insert("facts", [[writer, block * num_rows + row] for row in range(num_rows)])
            mine = client.query("SELECT count() FROM facts WHERE writer = {w:UInt32}", parameters={"w": writer})
            assert mine.first_row == ((block + 1) * num_rows,)
        client.close()
        return num_blocks * num_rows

    with ThreadPoolExecutor(num_writers) as pool:
        assert sum(pool.map(work, range(num_writers))) == num_writers * num_blocks * num_rows
    assert store_client.command("SELECT uniqExact(writer, k) FROM facts") == num_writers * num_blocks * num_rows


def test_the_async_client_works_too(store_url: str, store_client: Client) -> None:
    store_client.command("CREATE TABLE facts (k UInt32) ENGINE = MergeTree ORDER BY k")

    async def work() -> list[int]:
        client = await clickhouse_connect.get_async_client(**place(store_url), database=store_client.database)
        await client.insert("facts", [[number] for number in range(10)])
        answers = await asyncio.gather(*(client.query(f"SELECT sum(k) + {number} FROM facts") for number in range(12)))
        await client.close()
        return [answer.first_row[0] for answer in answers]

    assert asyncio.run(work()) == [45 + number for number in range(12)]

"""Reading SQL just enough: where an insert's data begins, which format a result has, what must not run."""

from __future__ import annotations

import pyarrow as pa
import pytest

from driftloop.embedded.clickhouse.arrow import join_streams
from driftloop.embedded.clickhouse.compression import Decompressor, choose_encoding, make_compressor
from driftloop.embedded.clickhouse.errors import ServerError
from driftloop.embedded.clickhouse.statement import parse_insert, parse_query
from driftloop.embedded.clickhouse.users import User


@pytest.mark.parametrize(
    ("sql", "target", "form", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2", "INSERT INTO t", "CSV", b"1,2"),
        (b"INSERT INTO t FORMAT CSV\r\n\n1", "INSERT INTO t", "CSV", b"\n1"),
        (
            b"insert into d.format (a, `values`) format Native \n\x00\xff",
            "insert into d.format (a, `values`)",
            "Native",
            b"\x00\xff",
        ),
        (b"INSERT INTO t (k) VALUES (1, 'FORMAT x')", "INSERT INTO t (k)", "Values", b" (1, 'FORMAT x')"),
        (
            b"/* SELECT */ INSERT INTO t -- FORMAT CSV\n FORMAT TSV\nx",
            "/* SELECT */ INSERT INTO t -- FORMAT CSV",
            "TSV",
            b"x",
        ),
        (b"INSERT INTO t (a);", "INSERT INTO t (a)", "Values", b""),
    ],
)
def test_an_insert_is_split_where_its_data_begins(sql: bytes, target: str, form: str, data: bytes) -> None:
    insert = parse_insert(sql)
    assert insert is not None
    assert (insert.target, insert.format, sql[insert.data_start :]) == (target, form, data)


def test_the_settings_of_an_insert_stay_behind_its_source() -> None:
    insert = parse_insert(b"INSERT INTO t (a) SETTINGS max_threads = 1 FORMAT CSV\n1")
    assert insert is not None
    expected = "INSERT INTO t (a) FROM INFILE '/x' COMPRESSION 'none' SETTINGS max_threads = 1 FORMAT CSV"
    assert insert.reading_from("/x") == expected


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (SELECT 1)",
        b"SELECT 1",
        b"",
        b"INSERT INTO t WITH 1 AS x SELECT x",
    ],
)
def test_what_carries_no_data_is_no_insert(sql: bytes) -> None:
    assert parse_insert(sql) is None


@pytest.mark.parametrize(
    ("sql", "form", "reads_only", "streams"),
    [
        (b"SELECT 1", "", True, True),
        (b"(SELECT 'a FORMAT b') FORMAT JSON SETTINGS max_threads = 1;", "JSON", True, True),
        (b"SELECT format(1) AS FORMAT FROM (SELECT 1 FORMAT) -- FORMAT CSV", "", True, True),
        (b"SHOW TABLES FORMAT TSV", "TSV", True, False),
        (b"DROP TABLE t", "", False, False),
        (b"SET max_threads = 1", "", True, False),
    ],
)
def test_a_query_tells_its_format_and_nature(sql: bytes, form: str, reads_only: bool, streams: bool) -> None:
    query = parse_query(sql)
    assert (query.format, query.reads_only, query.streams) == (form, reads_only, streams)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        (b" -- nothing", 62), (b"SELECT 1; DROP TABLE t", 62), (b"SELECT 1 INTO OUTFILE 'x'", 48),
        (b"CREATE TABLE t (k Int8) ENGINE = \"Kafka\"", 56), (b"SELECT '\xff'", 62),
    ],
)  # fmt: skip
def test_what_must_not_run_is_refused(sql: bytes, code: int) -> None:
    with pytest.raises(ServerError) as caught:
        parse_query(sql)
    assert caught.value.code == code


@pytest.mark.parametrize("encoding", ["lz4", "zstd", "gzip", "deflate"])
def test_encodings_round_trip_in_any_pieces_and_notice_a_cut(encoding: str) -> None:
    pieces = [b"abc" * 1000, b"", b"x", bytes(range(256)) * 50]
    compressor = make_compressor(choose_encoding(f"br;q=1.0, {encoding}"))
    body = b"".join(map(compressor.compress, pieces)) + compressor.flush()
    for size in (1, 7, len(body)):
        decompressor = Decompressor(encoding)
        read = b"".join(decompressor.decompress((body + body)[i : i + size]) for i in range(0, 2 * len(body), size))
        decompressor.finish()
        assert read == b"".join(pieces) * 2
    cut = Decompressor(encoding)
    cut.decompress(body[:-3])
    with pytest.raises(ServerError):
        cut.finish()


def test_arrow_streams_join_into_one_with_new_dictionaries() -> None:
    tables = [pa.table({"s": pa.array(words).dictionary_encode()}) for words in (["a", "b", "a"], ["c", "a"], ["b"])]
    streams = []
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        streams.append(sink.getvalue().to_pybytes())
    joined = b"".join(join_streams(iter(streams)))
    assert pa.ipc.open_stream(joined).read_all().column("s").to_pylist() == ["a", "b", "a", "c", "a", "b"]


def test_a_user_is_read_from_its_option() -> None:
    assert User.parse("ann:a:b") == User("ann", "a:b")
    assert User.parse("ann::readonly") == User("ann", "", readonly=True)
    with pytest.raises(ValueError, match="NAME:PASSWORD"):
        User.parse("ann")

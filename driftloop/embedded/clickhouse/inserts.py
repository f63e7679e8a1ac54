"""Inserts with data: the rows are received whole, and then handed to the engine as one statement.

chDB 4.4.0 has a streaming insert, `Connection.send_insert`. It must not be used: it reports rows as written when
writing them failed (too many partitions, a violated constraint, a failing materialized view), and so would
acknowledge rows that are lost. A statement that reads a file fails as it should, and nothing is written for a client
that goes away half-way.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driftloop.embedded.clickhouse.errors import NOT_ENOUGH_SPACE, ServerError, engine_errors
from driftloop.embedded.clickhouse.request import ExternalTable, Request
from driftloop.embedded.clickhouse.response import Response, summarize
from driftloop.embedded.clickhouse.statement import Insert, quote_name


def run_insert(
    connection: Any, insert: Insert, data: Iterator[bytes], request: Request, response: Response, folder: Path
) -> None:
    """Insert the rows and answer when they are written; the folder takes them until then.

    OSError when the client goes away before the last row: then nothing is inserted.
    """
    started = time.monotonic()
    result = _insert(connection, insert, data, request.substitutions, folder)
    written = result.rows_written(), result.bytes_written()
    elapsed_s = time.monotonic() - started
    response.add_headers({"X-ClickHouse-Summary": summarize(written=written, elapsed_s=elapsed_s)})
    response.send(b"")


def create_external_table(connection: Any, table: ExternalTable, folder: Path) -> None:
    """Make a temporary table of the connection from what came with the query."""
    name = quote_name(table.name)
    with engine_errors():
        connection.query(f"CREATE TEMPORARY TABLE {name} ({table.structure})")
    _insert(connection, Insert(f"INSERT INTO {name}", "", table.format, 0), iter([table.data]), {}, folder)


def _insert(connection: Any, insert: Insert, data: Iterator[bytes], substitutions: dict[str, str], folder: Path) -> Any:
    # The file has no name, so it is gone when the process is, however it ends. It rarely reaches the disk.
    with tempfile.TemporaryFile(dir=folder) as file:
        for piece in data:
            with _room_for_rows():
                file.write(piece)
        with _room_for_rows():
            file.seek(0)  # also writes what the file object still holds
        with engine_errors():
            sql = insert.reading_from(f"/dev/fd/{file.fileno()}")
            return connection.query(sql, "TSV", params=substitutions)


@contextmanager
def _room_for_rows() -> Iterator[None]:
    """Tell a full disk apart from a client that has gone, which is an OSError too."""
    try:
        yield
    except OSError as error:
        raise ServerError(NOT_ENOUGH_SPACE, f"Cannot take the rows to be inserted: {error.strerror}") from error

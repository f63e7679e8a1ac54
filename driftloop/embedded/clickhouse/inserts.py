"""Inserts with data: rows flow from the request's body into the engine, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from driftloop.embedded.clickhouse.engine import quote
from driftloop.embedded.clickhouse.errors import BAD_ARGUMENTS, ServerError, engine_errors
from driftloop.embedded.clickhouse.request import Request
from driftloop.embedded.clickhouse.response import Response, summarize
from driftloop.embedded.clickhouse.statement import Insert


def run_insert(connection: Any, insert: Insert, data: Iterator[bytes], request: Request, response: Response) -> None:
    """Insert the rows and answer when they are written.

    A client that goes away, a body that is not what it says, or rows that do not fit: the insert is cancelled, and
    what is left of it are at most whole blocks, as in ClickHouse.
    """
    started = time.monotonic()
    with engine_errors():
        _substitute(connection, request)
        inserter = connection.send_insert(insert.sql, insert.format)
        try:
            for piece in data:
                inserter.append(piece)
            result = inserter.finish()
        finally:
            inserter.cancel()  # does nothing after finish
    written = result.rows_written, result.bytes_written
    elapsed_s = time.monotonic() - started
    response.add_headers({"X-ClickHouse-Summary": summarize(written=written, elapsed_s=elapsed_s)})
    response.send(b"")


def _substitute(connection: Any, request: Request) -> None:
    # send_insert takes no parameters, but the connection's own are substituted.
    for name, value in request.substitutions.items():
        if not name.isidentifier():
            raise ServerError(BAD_ARGUMENTS, f"Bad parameter name: param_{name}")
        connection.query(f"SET param_{name} = {quote(value)}")

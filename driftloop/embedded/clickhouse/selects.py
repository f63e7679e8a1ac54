"""Every statement but an insert with data: run it, and send its result whole or as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from driftloop.embedded.clickhouse.arrow import join_streams
from driftloop.embedded.clickhouse.compression import choose_encoding, make_compressor
from driftloop.embedded.clickhouse.errors import engine_errors
from driftloop.embedded.clickhouse.request import Request
from driftloop.embedded.clickhouse.response import Response, content_type, summarize
from driftloop.embedded.clickhouse.statement import Query

# Formats whose pieces can simply follow each other. Others have a head or a foot, so the engine's pieces would each
# bring their own; they are sent whole, except Arrow streams, which are joined.
_STREAMED = frozenset(
    {
        "Native", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "RowBinary", "JSONEachRow",
        "JSONCompactEachRow", "ArrowStream",
    }
)  # fmt: skip
_NOT_STREAMABLE = "Streaming query is not supported"


def run_query(connection: Any, query: Query, request: Request, response: Response) -> None:
    """Run the statement and send its result; ServerError where nothing has been sent yet."""
    output_format = query.format or request.default_format
    encoding = choose_encoding(request.accepted_encodings)
    response.add_headers({"X-ClickHouse-Format": output_format})
    response.replace_headers(request.response_headers)
    if encoding:
        response.add_headers({"Content-Encoding": encoding})
    streams = query.streams and output_format in _STREAMED and not request.waits_for_end
    if not (streams and _send_as_it_comes(connection, query, request, response, output_format, encoding)):
        _send_whole(connection, query, request, response, output_format, encoding)


def _send_whole(
    connection: Any, query: Query, request: Request, response: Response, output_format: str, encoding: str
) -> None:
    started = time.monotonic()
    with engine_errors():
        result = connection.query(query.sql, output_format, params=request.substitutions)
    read = result.storage_rows_read() or result.rows_read(), result.storage_bytes_read() or result.bytes_read()
    written = result.rows_written(), result.bytes_written()
    elapsed_s = time.monotonic() - started
    response.add_headers({"X-ClickHouse-Summary": summarize(read=read, written=written, elapsed_s=elapsed_s)})
    compressor = make_compressor(encoding)
    body = compressor.compress(result.bytes() or b"") + compressor.flush()
    response.send(body, media_type=content_type(output_format))


def _send_as_it_comes(
    connection: Any, query: Query, request: Request, response: Response, output_format: str, encoding: str
) -> bool:
    """Send the result piece by piece; False, with nothing sent, if it is empty or the engine cannot do it."""
    started = time.monotonic()
    try:
        with engine_errors():
            stream = connection.send_query(query.sql, output_format, params=request.substitutions)
            first = next(stream, None)
    except Exception as error:
        if _NOT_STREAMABLE in str(error):
            return False
        raise
    if first is None:  # an Arrow stream without rows still has a schema, which only the whole result brings
        return output_format != "ArrowStream" and _send_empty(response, output_format, encoding, started)
    response.add_headers({"X-ClickHouse-Summary": summarize(elapsed_s=time.monotonic() - started)})
    pieces = _pieces(first.bytes(), stream)
    try:
        joined = join_streams(pieces) if output_format == "ArrowStream" else pieces
        response.send_stream(joined, media_type=content_type(output_format), encoding=encoding)
    finally:
        stream.close()  # also when the client has gone: it ends the query
    return True


def _send_empty(response: Response, output_format: str, encoding: str, started: float) -> bool:
    response.add_headers({"X-ClickHouse-Summary": summarize(elapsed_s=time.monotonic() - started)})
    response.send(make_compressor(encoding).flush(), media_type=content_type(output_format))
    return True


def _pieces(first: bytes, stream: Any) -> Iterator[bytes]:
    yield first
    while True:
        with engine_errors():
            piece = next(stream, None)
        if piece is None:
            return
        yield piece.bytes()

"""Answers on the wire: whole ones and chunked ones, with the headers that ClickHouse's clients read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

from driftloop.embedded.clickhouse.compression import make_compressor
from driftloop.embedded.clickhouse.errors import ServerError

_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "XML": "application/xml; charset=UTF-8",
}


def content_type(output_format: str) -> str:
    """Return the media type of an output format."""
    if output_format.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    if output_format.startswith(("Pretty", "Vertical", "Markdown", "Values")):
        return "text/plain; charset=UTF-8"
    return _CONTENT_TYPES.get(output_format, "application/octet-stream")


def summarize(*, read: tuple[int, int] = (0, 0), written: tuple[int, int] = (0, 0), elapsed_s: float) -> str:
    """Return X-ClickHouse-Summary; `read` and `written` are rows and bytes. ClickHouse writes numbers as strings."""
    numbers = {
        "read_rows": read[0],
        "read_bytes": read[1],
        "written_rows": written[0],
        "written_bytes": written[1],
        "total_rows_to_read": 0,
        "result_rows": written[0],
        "result_bytes": written[1],
        "elapsed_ns": int(elapsed_s * 1e9),
    }
    return json.dumps({name: str(number) for name, number in numbers.items()})


class Response:
    """The answer to one request; after `begin` an error can only be told inside the body."""

    def __init__(self, handler: BaseHTTPRequestHandler, *, timezone: str, version: str) -> None:
        self._handler = handler
        self._version = version
        self._headers = {"X-ClickHouse-Server-Display-Name": "driftloop", "X-ClickHouse-Timezone": timezone}
        self._replacements: dict[str, str] = {}
        self.has_begun = False

    def add_headers(self, headers: dict[str, str]) -> None:
        """Add headers to those that go out with the answer."""
        self._headers.update(headers)

    def replace_headers(self, headers: dict[str, str]) -> None:
        """Send these with a result, in place of ours of the same name; not with an error."""
        self._replacements = {name.title(): value for name, value in headers.items()}

    def send(self, body: bytes, *, status: int = 200, media_type: str = "text/plain; charset=UTF-8") -> None:
        """Send a whole answer."""
        self._begin(status, {"Content-Type": media_type, "Content-Length": str(len(body))})
        if self._handler.command != "HEAD":
            self._handler.wfile.write(body)
        self._handler.wfile.flush()

    def send_error(self, error: ServerError) -> None:
        """Send a refusal as a whole answer."""
        self.add_headers({"X-ClickHouse-Exception-Code": str(error.code), "X-ClickHouse-Format": "TabSeparated"})
        self._headers.pop("Content-Encoding", None)
        self._replacements = {}
        self.send(error.body(self._version), status=error.http_status)

    def send_stream(self, pieces: Iterator[bytes], *, media_type: str, encoding: str) -> None:
        """Send pieces as they come. An error among them is told at the end of the body, framed as ClickHouse does."""
        tag = secrets.token_hex(8)
        self._begin(
            200,
            {"Content-Type": media_type, "Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag},
        )
        compressor = make_compressor(encoding)
        try:
            for piece in pieces:
                self._write_chunk(compressor.compress(piece))
        except ServerError as error:
            message = error.body(self._version)
            framed = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (
                tag.encode(), message, len(message), tag.encode(),
            )  # fmt: skip
            self._write_chunk(compressor.compress(framed))
        self._write_chunk(compressor.flush())
        self._handler.wfile.write(b"0\r\n\r\n")
        self._handler.wfile.flush()

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.has_begun = True
        self._handler.send_response(status)
        given = {**self._headers, **headers}
        ours = {name: value for name, value in given.items() if name.title() not in self._replacements}
        for name, value in {**ours, **self._replacements}.items():
            # A line break would let a query id write headers of its own.
            self._handler.send_header(name, value.replace("\r", "").replace("\n", ""))
        self._handler.end_headers()

    def _write_chunk(self, data: bytes) -> None:
        if data:
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

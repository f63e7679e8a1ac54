"""What a client asks for: the parameters of the URL, of the headers and of a form, sorted by what they mean."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl, urlsplit

from driftloop.embedded.clickhouse.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, ServerError

# Parameters of the interface itself. Every other one is a setting, as in ClickHouse.
_RESERVED = frozenset(
    {
        "query", "database", "default_format", "user", "password", "session_id", "session_timeout", "session_check",
        "query_id", "quota_key", "compress", "decompress", "wait_end_of_query", "buffer_size", "stacktrace", "role",
        "client_protocol_version", "close_session", "http_response_headers", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "enable_http_compression", "http_zlib_compression_level",
        "send_final_metadata", "framing",
    }
)  # fmt: skip
_QUOTED = r"'(?:[^'\\]|\\.)*'"
_PAIR = rf"\s*{_QUOTED}\s*:\s*{_QUOTED}\s*"
_HEADERS = re.compile(rf"\{{(?:{_PAIR}(?:,{_PAIR})*)?\s*\}}", re.DOTALL)
_TABLE_SUFFIXES = ("_format", "_types", "_structure")


@dataclass(frozen=True)
class ExternalTable:
    """A table that came as a file of a form and lives for one query."""

    name: str
    format: str
    structure: str
    data: bytes


@dataclass(frozen=True)
class Request:
    """One query as asked, before its statement has been read."""

    params: Mapping[str, str]
    headers: Message
    is_get: bool
    external_tables: tuple[ExternalTable, ...] = ()
    query_id: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("compress", "decompress"):
            if self._is_on(name):
                reason = f"{name}=1 (blocks in the native protocol's framing) is not supported; use HTTP compression."
                raise ServerError(NOT_IMPLEMENTED, reason)
        object.__setattr__(self, "query_id", self.params.get("query_id") or str(uuid.uuid4()))

    @property
    def query(self) -> bytes:
        """The part of the statement that came in the URL or in a form."""
        return self.params.get("query", "").encode()

    @property
    def database(self) -> str:
        """The current database asked for; empty for the default one."""
        return self.params.get("database") or self.headers.get("X-ClickHouse-Database") or ""

    @property
    def default_format(self) -> str:
        """The output format of a statement without FORMAT."""
        return self.headers.get("X-ClickHouse-Format") or self.params.get("default_format") or "TabSeparated"

    @property
    def settings(self) -> dict[str, str]:
        """The settings for this query, by name."""
        tables = {table.name + suffix for table in self.external_tables for suffix in _TABLE_SUFFIXES}
        return {
            name: value
            for name, value in self.params.items()
            if name not in _RESERVED and name not in tables and not name.startswith("param_")
        }

    @property
    def substitutions(self) -> dict[str, str]:
        """The values for `{name:Type}` in the statement, by name."""
        return {name.removeprefix("param_"): value for name, value in self.params.items() if name.startswith("param_")}

    @property
    def response_headers(self) -> dict[str, str]:
        """The headers that a result is to be sent with, given as a Map's literal: `{'name': 'value'}`.

        A backslash stands before a quote or a backslash; it means nothing else. ServerError if it is no such map.
        """
        text = self.params.get("http_response_headers", "").strip()
        if text and not _HEADERS.fullmatch(text):
            raise ServerError(
                BAD_ARGUMENTS, f"Cannot parse setting http_response_headers: {text!r} is no map of texts."
            )
        texts = [re.sub(r"\\(.)", r"\1", quoted[1:-1]) for quoted in re.findall(_QUOTED, text)]
        if any(not each.isprintable() or not each.isascii() for each in texts):
            raise ServerError(BAD_ARGUMENTS, "Headers cannot contain control characters.")
        return dict(zip(texts[::2], texts[1::2], strict=True))

    @property
    def waits_for_end(self) -> bool:
        """Whether the answer must not begin before the query has ended."""
        return self._is_on("wait_end_of_query")

    @property
    def accepted_encodings(self) -> str:
        """Accept-Encoding, where the client has switched HTTP compression on."""
        return (self.headers.get("Accept-Encoding") or "") if self._is_on("enable_http_compression") else ""

    def _is_on(self, name: str) -> bool:
        return self.params.get(name, "").lower() in ("1", "true")


def parse_url(target: str) -> tuple[str, dict[str, str]]:
    """Return the path and the parameters of a request's target."""
    parts = urlsplit(target)
    return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))


def is_form(headers: Message) -> bool:
    """Whether the body is a multipart form: parameters too long for a URL, or external tables."""
    return (headers.get("Content-Type") or "").lower().startswith("multipart/form-data")


def parse_form(content_type: str, body: bytes, params: Mapping[str, str]) -> tuple[dict[str, str], list[ExternalTable]]:
    """Return the parameters with those of the form added, and the tables that the form carries."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    merged, files = dict(params), []
    for part in message.iter_parts() if message.is_multipart() else ():
        name, data = _part_name(part), part.get_payload(decode=True)
        assert isinstance(data, bytes)  # a part of a form is never a multipart itself
        if part.get_filename() is not None:
            files.append((name, data))
        else:
            merged[name] = data.decode()
    return merged, [_external_table(name, data, merged) for name, data in files]


def _part_name(part: Message) -> str:
    name = part.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise ServerError(BAD_ARGUMENTS, "A part of the form has no name.")
    return name


def _external_table(name: str, data: bytes, params: Mapping[str, str]) -> ExternalTable:
    structure = params.get(f"{name}_structure", "")
    types = params.get(f"{name}_types", "")
    if not structure and types:
        structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(types.split(","), start=1))
    if not structure:
        raise ServerError(BAD_ARGUMENTS, f"External table {name}: {name}_structure or {name}_types is missing.")
    return ExternalTable(name, params.get(f"{name}_format", "TabSeparated"), structure, data)

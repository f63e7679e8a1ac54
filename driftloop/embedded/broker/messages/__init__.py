"""The requests that the broker answers: field tables in `*.table`, one line a field, compiled on first use.

A line is `name kind [versions] [null:since+] [=default]`, nesting is indentation, and an interface begins with
`api KEY NAME MIN-MAX [flexible SINCE+]`. The tables follow Apache Kafka's own protocol definitions (Apache-2.0); fields
that only travel as tags are left out, because the broker neither needs nor sends any.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from driftloop.embedded.broker.wire import (
    NO_ID,
    Field,
    Message,
    Read,
    Reader,
    Write,
    compile_reader,
    compile_writer,
)

TABLES = ("data", "groups", "transactions", "admin")
_API_LINE = re.compile(r"api (\d+) (\w+) (\d+)-(\d+)(?: flexible (\d+)\+)?")


@dataclass(frozen=True)
class Api:
    """One interface: its key on the wire, the versions that are supported, and how each is read and written."""

    key: int
    name: str
    min_version: int
    max_version: int
    flexible_since: int | None
    request: tuple[Field, ...]
    response: tuple[Field, ...]
    _readers: dict[int, Read] = field(default_factory=dict, compare=False, repr=False)
    _writers: dict[int, Write] = field(default_factory=dict, compare=False, repr=False)

    def supports(self, version: int) -> bool:
        return self.min_version <= version <= self.max_version

    def is_flexible(self, version: int) -> bool:
        return self.flexible_since is not None and version >= self.flexible_since

    def read_request(self, reader: Reader, version: int) -> Message:
        """The request's fields; raises WireError where the bytes do not fit the table."""
        read = self._readers.get(version)
        if read is None:
            read = self._readers[version] = compile_reader(self.request, version, self.is_flexible(version))
        message = read(reader)  # Bytes that follow are ignored, as Kafka does: librdkafka sends some with Metadata v12.
        assert isinstance(message, dict)
        return message

    def write_response(self, out: bytearray, message: Message, version: int) -> None:
        write = self._writers.get(version)
        if write is None:
            write = self._writers[version] = compile_writer(self.response, version, self.is_flexible(version))
        write(out, message)


def _parse_versions(text: str, last: int) -> tuple[int, int]:
    if text.endswith("+"):
        return int(text[:-1]), last
    first, _, until = text.partition("-")
    return int(first), int(until or first)


def _parse_default(text: str | None, kind: str) -> Any:
    """The field's default; without one, the zero of its kind."""
    if text is None:
        zeros: dict[str, Any] = {"string": "", "bytes": b"", "records": None, "bool": False, "uuid": NO_ID}
        return zeros.get(kind, 0)
    words: dict[str, Any] = {"null": None, "true": True, "false": False}
    return words[text] if text in words else int(text)


def _parse_field(words: list[str], children: tuple[Field, ...], last: int) -> Field:
    name, kind, *modifiers = words
    since, until, null_since, default = 0, last, None, None
    for modifier in modifiers:
        if modifier.startswith("null:"):
            null_since = int(modifier[5:-1])
        elif modifier.startswith("="):
            default = modifier[1:]
        else:
            since, until = _parse_versions(modifier, last)
    return Field(name, kind, since, until, null_since, _parse_default(default, kind), children)


def _parse_fields(lines: list[tuple[int, list[str]]], at: int, indent: int, last: int) -> tuple[tuple[Field, ...], int]:
    """The fields that begin at line `at` with this indentation, and the line after them."""
    fields: list[Field] = []
    while at < len(lines) and lines[at][0] == indent:
        words = lines[at][1]
        children: tuple[Field, ...] = ()
        at += 1
        if at < len(lines) and lines[at][0] > indent:
            children, at = _parse_fields(lines, at, lines[at][0], last)
        fields.append(_parse_field(words, children, last))
    return tuple(fields), at


def parse_table(text: str) -> Iterator[Api]:
    """The interfaces of one table."""
    for block in re.split(r"\n(?=api )", text.strip()):
        head, *rest = block.splitlines()
        match = _API_LINE.fullmatch(head)
        if match is None:
            raise ValueError(f"not the first line of an interface: {head!r}")
        key, name, first, last, flexible = match.groups()
        lines = [(len(line) - len(line.lstrip()), line.split()) for line in rest if line.strip()]
        split = next(at for at, (_, words) in enumerate(lines) if words == ["response"])
        request, _ = _parse_fields(lines[1:split], 0, 4, int(last))
        response, _ = _parse_fields(lines[split + 1 :], 0, 4, int(last))
        flexible_since = None if flexible is None else int(flexible)
        yield Api(int(key), name, int(first), int(last), flexible_since, request, response)


@cache
def load_apis() -> dict[int, Api]:
    """Every interface by its key."""
    folder = resources.files(__name__)
    tables = (folder.joinpath(f"{name}.table").read_text(encoding="utf-8") for name in TABLES)
    return {api.key: api for table in tables for api in parse_table(table)}

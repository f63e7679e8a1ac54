"""Turns Kafka's wire format into dictionaries and back, driven by the field tables of `messages`.

Every message version is compiled once into a list of readers or writers, so that no code branches on versions. It knows
nothing of what the messages mean. Format: https://kafka.apache.org/protocol (flexible versions: KIP-482).
"""

import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Bytes = bytes | bytearray | memoryview

NO_ID = uuid.UUID(int=0)


class WireError(ValueError):
    """The bytes are not a message of the version that they claim to be."""


@dataclass(frozen=True)
class Field:
    """One line of a table: a field, the versions that have it, and those in which it may be null.

    `kind` is a primitive's name, `[]primitive`, `{}` (struct) or `[]` (array of structs).
    """

    name: str
    kind: str
    since: int
    until: int
    null_since: int | None
    default: Any
    fields: tuple["Field", ...] = ()

    def zero(self) -> Any:
        """The value that a version without this field stands for."""
        if self.kind == "{}":
            return {field.name: field.zero() for field in self.fields}
        return [] if self.kind.startswith("[]") else self.default


class Reader:
    """A position in a frame; running over its end raises WireError."""

    __slots__ = ("at", "data")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise WireError(f"{size} bytes wanted at {self.at} of a frame of {len(self.data)}")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, layout: struct.Struct) -> Any:
        try:
            (value,) = layout.unpack_from(self.data, self.at)
        except struct.error as error:
            raise WireError(f"the frame ends within a number at {self.at}") from error
        self.at += layout.size
        return value

    def varint(self) -> int:
        data, at = self.data, self.at
        value = shift = 0
        try:
            while (byte := data[at]) >= 0x80:
                value |= (byte & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if shift > 28:
                    raise WireError("a length of more than five bytes")
        except IndexError as error:
            raise WireError(f"the frame ends within a length at {at}") from error
        self.at = at + 1
        return value | byte << shift

    def skip_tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())


Read = Callable[[Reader], Any]
Write = Callable[[bytearray, Any], None]

_NUMBERS = {
    "bool": struct.Struct(">?"),
    "int8": struct.Struct(">b"),
    "int16": struct.Struct(">h"),
    "int32": struct.Struct(">i"),
    "int64": struct.Struct(">q"),
}
_TEXT = {"string", "bytes", "records"}


def encode_varint(value: int) -> bytes:
    """An unsigned number in groups of seven bits, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _length_reader(kind: str, flexible: bool) -> Callable[[Reader], int]:
    if flexible:
        return lambda reader: reader.varint() - 1
    layout = _NUMBERS["int16" if kind == "string" else "int32"]
    return lambda reader: int(reader.number(layout))


def _length_writer(kind: str, flexible: bool) -> Callable[[bytearray, int], None]:
    """Writes a length; -1 stands for null."""
    if flexible:

        def write_compact(out: bytearray, length: int) -> None:
            out += encode_varint(length + 1)

        return write_compact
    layout = _NUMBERS["int16" if kind == "string" else "int32"]

    def write_fixed(out: bytearray, length: int) -> None:
        out += layout.pack(length)

    return write_fixed


def _primitive_reader(kind: str, flexible: bool, nullable: bool) -> Read:
    if kind in _NUMBERS:
        layout = _NUMBERS[kind]
        return lambda reader: reader.number(layout)
    if kind == "uuid":
        return lambda reader: uuid.UUID(bytes=bytes(reader.take(16)))
    read_length = _length_reader(kind, flexible)

    def read(reader: Reader) -> Any:
        length = read_length(reader)
        if length < 0:
            if not nullable:
                raise WireError(f"null where a {kind} is required")
            return None
        part = reader.take(length)
        if kind == "records":
            return part
        if kind == "bytes":
            return bytes(part)
        try:
            return str(part, "utf-8")
        except UnicodeDecodeError as error:
            raise WireError("a string that is not UTF-8") from error

    return read


def _primitive_writer(kind: str, flexible: bool, nullable: bool) -> Write:
    if kind in _NUMBERS:
        layout = _NUMBERS[kind]

        def write_number(out: bytearray, value: Any) -> None:
            out += layout.pack(value)

        return write_number
    if kind == "uuid":

        def write_uuid(out: bytearray, value: uuid.UUID) -> None:
            out += value.bytes

        return write_uuid
    write_length = _length_writer(kind, flexible)

    def write(out: bytearray, value: Any) -> None:
        if value is None and nullable:
            write_length(out, -1)
            return
        data: Bytes = (value or "").encode() if kind == "string" else (value or b"")
        write_length(out, len(data))
        out += data

    return write


def _array_reader(read_item: Read, flexible: bool, nullable: bool) -> Read:
    read_length = _length_reader("array", flexible)

    def read(reader: Reader) -> Any:
        length = read_length(reader)
        if length < 0:
            if not nullable:
                raise WireError("null where an array is required")
            return None
        if length > len(reader.data) - reader.at:  # Every item takes a byte or more: no memory for impossible lengths.
            raise WireError(f"an array of {length} items in the {len(reader.data) - reader.at} bytes left")
        return [read_item(reader) for _ in range(length)]

    return read


def _array_writer(write_item: Write, flexible: bool, nullable: bool) -> Write:
    write_length = _length_writer("array", flexible)

    def write(out: bytearray, values: Any) -> None:
        if values is None and nullable:
            write_length(out, -1)
            return
        items = values or ()
        write_length(out, len(items))
        for item in items:
            write_item(out, item)

    return write


def _is_nullable(field: Field, version: int) -> bool:
    return field.null_since is not None and version >= field.null_since


def _compile_field_reader(field: Field, version: int, flexible: bool) -> Read:
    nullable = _is_nullable(field, version)
    if field.kind == "{}":
        return compile_reader(field.fields, version, flexible)
    if field.kind == "[]":
        return _array_reader(compile_reader(field.fields, version, flexible), flexible, nullable)
    if field.kind.startswith("[]"):
        return _array_reader(_primitive_reader(field.kind[2:], flexible, False), flexible, nullable)
    return _primitive_reader(field.kind, flexible, nullable)


def _compile_field_writer(field: Field, version: int, flexible: bool) -> Write:
    nullable = _is_nullable(field, version)
    if field.kind == "{}":
        return compile_writer(field.fields, version, flexible)
    if field.kind == "[]":
        return _array_writer(compile_writer(field.fields, version, flexible), flexible, nullable)
    if field.kind.startswith("[]"):
        return _array_writer(_primitive_writer(field.kind[2:], flexible, False), flexible, nullable)
    return _primitive_writer(field.kind, flexible, nullable)


def compile_reader(fields: Sequence[Field], version: int, flexible: bool) -> Read:
    """A function that reads one struct; fields that the version lacks get their default."""
    present = [field for field in fields if field.since <= version <= field.until]
    absent = {field.name: field.zero() for field in fields if field not in present}
    steps = [(field.name, _compile_field_reader(field, version, flexible)) for field in present]

    def read(reader: Reader) -> Message:
        values = dict(absent)
        for name, read_value in steps:
            values[name] = read_value(reader)
        if flexible:
            reader.skip_tags()
        return values

    return read


def compile_writer(fields: Sequence[Field], version: int, flexible: bool) -> Write:
    """A function that writes one struct; keys left out of the dictionary get the field's default."""
    steps = [
        (field.name, field.zero(), _compile_field_writer(field, version, flexible))
        for field in fields
        if field.since <= version <= field.until
    ]

    def write(out: bytearray, values: Message) -> None:
        for name, default, write_value in steps:
            write_value(out, values.get(name, default))
        if flexible:
            out.append(0)

    return write

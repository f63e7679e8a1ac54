"""The wire codec: every version of every table survives a round trip, and no bytes make it do anything but refuse."""

import contextlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.embedded.broker.messages import Api, load_apis
from driftloop.embedded.broker.wire import Field, Message, Reader, WireError, compile_reader, compile_writer

_INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def build_value(field: Field, version: int) -> st.SearchStrategy[Any]:
    """Values that a field may have in a version."""
    kind, values = field.kind, st.nothing()
    if kind == "[]":
        values = st.lists(build_struct(field.fields, version), max_size=2)
    elif kind == "{}":
        values = build_struct(field.fields, version)
    elif kind.startswith("[]"):
        values = st.lists(build_primitive(kind[2:]), max_size=3)
    else:
        values = build_primitive(kind)
    is_nullable = field.null_since is not None and version >= field.null_since
    return st.none() | values if is_nullable else values


def build_primitive(kind: str) -> st.SearchStrategy[Any]:
    if kind in _INTEGERS:
        bits = _INTEGERS[kind]
        return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {
        "bool": st.booleans(),
        "string": st.text(max_size=200),
        "bytes": st.binary(max_size=200),
        "records": st.binary(max_size=200),
        "uuid": st.uuids().map(lambda one: UUID(bytes=one.bytes)),
    }[kind]


def build_struct(fields: tuple[Field, ...], version: int) -> st.SearchStrategy[Message]:
    present = {one.name: build_value(one, version) for one in fields if one.since <= version <= one.until}
    return st.fixed_dictionaries(present)


def complete(fields: tuple[Field, ...], message: Message) -> Message:
    """The message with the default of every field that its version lacks."""
    values = {}
    for one in fields:
        value = message.get(one.name, one.zero())
        if one.kind == "[]" and value is not None:
            value = [complete(one.fields, item) for item in value]
        values[one.name] = value
    return values


def list_versions() -> list[Any]:
    return [
        pytest.param(api, version, id=f"{api.name} v{version}")
        for api in load_apis().values()
        for version in range(api.min_version, api.max_version + 1)
    ]


@pytest.mark.parametrize(("api", "version"), list_versions())
# A hundred versions, and a few messages of each: the tables are what may be wrong, not the values.
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_version_survives_a_round_trip(api: Api, version: int, data: st.DataObject) -> None:
    for fields in (api.request, api.response):
        message = data.draw(build_struct(fields, version))
        out = bytearray()
        compile_writer(fields, version, api.is_flexible(version))(out, message)
        reader = Reader(memoryview(bytes(out)))
        came = compile_reader(fields, version, api.is_flexible(version))(reader)
        assert reader.at == len(out)
        assert came == complete(fields, message)


@given(frame=st.binary(max_size=300), pick=st.sampled_from(list_versions()))
def test_any_bytes_are_a_message_or_refused(frame: bytes, pick: Any) -> None:
    api, version = pick.values
    with contextlib.suppress(WireError):
        assert isinstance(api.read_request(Reader(memoryview(frame)), version), dict)


def test_bytes_as_kafka_documents_them() -> None:
    """Metadata version 12 for one topic, written out by hand after KIP-482: compact lengths are one more."""
    frame = bytes.fromhex("02" + "00" * 16 + "04" + b"abc".hex() + "00" + "01" + "00" + "00")
    message = load_apis()[3].read_request(Reader(memoryview(frame)), 12)
    assert message["topics"] == [{"topic_id": UUID(int=0), "name": "abc"}]
    assert message["allow_auto_topic_creation"] is True
    # Version 1 has fixed lengths and neither ids nor tags.
    frame = bytes.fromhex("00000001" + "0003" + b"abc".hex())
    message = load_apis()[3].read_request(Reader(memoryview(frame)), 1)
    assert message["topics"] == [{"topic_id": UUID(int=0), "name": "abc"}]

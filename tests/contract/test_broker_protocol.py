"""Requests that no well-behaved client sends, byte by byte."""

import contextlib
import socket
import struct

import pytest

from tests.contract.brokers import KafkaClient

PRODUCE, METADATA, API_VERSIONS = 0, 3, 18
UNSUPPORTED_VERSION = 35


def connect(kafka: KafkaClient) -> socket.socket:
    host, port = kafka.bootstrap.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def send(connection: socket.socket, key: int, version: int, body: bytes = b"", client: bytes = b"stranger") -> None:
    frame = struct.pack(">hhih", key, version, 7, len(client)) + client + body
    connection.sendall(struct.pack(">i", len(frame)) + frame)


def receive(connection: socket.socket) -> bytes:
    """One response without its length; empty when the broker has ended the connection."""
    with connection.makefile("rb") as stream:
        head = stream.read(4)
        return stream.read(struct.unpack(">i", head)[0]) if len(head) == 4 else b""


def test_too_new_client_is_told_what_there_is(kafka: KafkaClient) -> None:
    with connect(kafka) as connection:
        # Headers of newer requests end with tagged fields, here none.
        send(connection, API_VERSIONS, 99, b"\0")
        correlation_id, code, num_apis = struct.unpack_from(">ihi", response := receive(connection))
        assert (correlation_id, code) == (7, UNSUPPORTED_VERSION)
        versions = {key: (first, last) for key, first, last in struct.iter_unpack(">hhh", response[10:])}
        # Apache Kafka names only ApiVersions here, we name all; a client needs the one.
        assert API_VERSIONS in versions
        assert len(versions) == num_apis
        send(connection, API_VERSIONS, 0)
        assert struct.unpack_from(">ih", receive(connection)) == (7, 0)


@pytest.mark.parametrize(("key", "version"), [(METADATA, 99), (PRODUCE, 0), (999, 0)])
def test_unsupported_request_ends_the_connection(kafka: KafkaClient, key: int, version: int) -> None:
    with connect(kafka) as connection:
        send(connection, key, version)
        assert receive(connection) == b""


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">i", -5),
        struct.pack(">i", 4) + b"\0\0\0\0",
        struct.pack(">ihhih", 14, METADATA, 1, 7, -1) + struct.pack(">i", 2**30),
    ],
    ids=["http", "negative length", "no header", "impossible array"],
)
def test_nonsense_ends_the_connection_and_nothing_else(kafka: KafkaClient, frame: bytes) -> None:
    with connect(kafka) as connection:
        connection.sendall(frame)
        # Reset: ended with what we sent still unread.
        with contextlib.suppress(ConnectionResetError):
            assert receive(connection) == b""
    topic = kafka.create_topic()
    assert kafka.produce(topic, [b"alive"])[0].offset() == 0

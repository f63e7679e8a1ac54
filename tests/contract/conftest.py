"""Fixtures of the contract suites: one server a session, so that every test meets a server that others have used."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from tests.clickhouses import EmbeddedClickHouse, find_real_clickhouse
from tests.contract.brokers import bootstrap, kafka, mortal_broker  # noqa: F401 (fixtures of the broker suite)


@pytest.fixture(scope="session", params=["embedded", "real"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ClickHouse server: the embedded one always, a real one where there is one."""
    if request.param == "real":
        try:
            url, stop = find_real_clickhouse()
        except LookupError as reason:
            pytest.skip(f"no real ClickHouse: {reason}")
        yield url
        stop()
        return
    server = EmbeddedClickHouse(Path(tmp_path_factory.mktemp("clickhouse")))
    server.start()
    yield server.url
    assert server.stop() == 0


@pytest.fixture
def store_client(store_url: str) -> Iterator[Client]:
    """A client in a database of the test's own, reading as driftloop's connections do (`final=1`)."""
    address = urlsplit(store_url)
    place = {"host": address.hostname, "port": address.port, "username": address.username or "default"}
    place["password"] = address.password or ""
    database = f"contract_{uuid.uuid4().hex}"
    admin = clickhouse_connect.get_client(**place)
    admin.command(f"CREATE DATABASE {database} ENGINE = Atomic")
    client = clickhouse_connect.get_client(
        **place, database=database, settings={"final": 1, "async_insert": 0}, autogenerate_session_id=False
    )
    yield client
    client.close()
    admin.command(f"DROP DATABASE {database} SYNC")
    admin.close()

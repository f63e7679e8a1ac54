"""The one way to ClickHouse: queries and inserts over HTTP, with errors sorted into "try again" and "wrong".

Owns connections and settings. It must not know any table.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from schemas.connections import ClickHouseConnection
from schemas.errors import ConfigurationError, Retryable

if TYPE_CHECKING:
    # Seldom needed, and as long to import as everything else here.
    import pandas as pd

# Each refused connection would otherwise be a warning with a stack trace beside our own line about it.
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

SETTINGS: dict[str, Any] = {
    # Equal keys count once, also in a plain SELECT.
    "final": 1,
    # On by default since ClickHouse 26; an acknowledged insert must be stored.
    "async_insert": 0,
    # A replay may span 150 months in one block (code 252 otherwise).
    "max_partitions_per_insert_block": 0,
}

RETRYABLE_CODES = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        164,  # READONLY: a replica that lost its keeper for a moment
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        225,  # NO_ZOOKEEPER
        236,  # ABORTED: the server is shutting down
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        745,  # SERVER_OVERLOADED
        999,  # KEEPER_EXCEPTION
    }
)
RETRYABLE_STATUSES = ("status 429", "status 502", "status 503", "status 504")

_CONNECT_TIMEOUT_S = 5
_ANSWER_TIMEOUT_S = 120


class ClickHouse:
    """A ClickHouse server, usable from every thread of one process.

    One client serves all threads: without a session it keeps nothing between queries, and its pool gives each query
    under way a connection of its own. Another client would ask the server for a thousand settings first.
    Not reachable, overloaded or shutting down raises `Retryable`; a wrong query raises the driver's own
    `DatabaseError`. Inserts are safe to repeat: the tables' keys make equal rows count once.
    """

    def __init__(self, connection: ClickHouseConnection) -> None:
        self.connection = connection
        self._client: Any = None
        self._lock = threading.Lock()

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of a query; values go in as `{name:Type}` parameters, never into the text."""
        result = self._call(lambda client: client.query(sql, parameters=_plain(parameters)).result_rows)
        return [tuple(row) for row in result]

    def query_named(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a query."""
        result = self._call(lambda client: client.query(sql, parameters=_plain(parameters)))
        return list(result.column_names), [tuple(row) for row in result.result_rows]

    def query_dicts(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a query as mappings from column name to value."""
        names, rows = self.query_named(sql, parameters)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Result of a query as an Arrow table; texts are Arrow strings."""
        return self._call(lambda client: client.query_arrow(sql, parameters=_plain(parameters), use_strings=True))

    def stream_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Iterator[pa.RecordBatch]:
        """Give the blocks of a query's result as the server sends them, of which one at a time is in memory."""
        with self._explain():
            client = self._get_client()
            try:
                with client.query_arrow_stream(sql, parameters=_plain(parameters), use_strings=True) as blocks:
                    yield from blocks
            except (pa.ArrowInvalid, OSError) as error:
                # What goes wrong after the first block comes as its text where the next one should be.
                raise Retryable(f"ClickHouse at {self.connection.url} broke off: {_first_line(error)}") from error

    def query_frame(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Result of a query as a DataFrame; nullable numbers are float64 with NaN."""
        frame: pd.DataFrame = self._call(lambda client: client.query_df(sql, parameters=_plain(parameters)))
        return frame

    def insert_arrow(self, table: str, rows: pa.Table, token: str | None = None) -> None:
        """Insert an Arrow table by column name; `token` only saves work when the very same block comes again."""
        if rows.num_rows == 0:
            return
        settings = {"insert_deduplication_token": token} if token else None
        self._call(lambda client: client.insert_arrow(table, rows, settings=settings))

    def insert_rows(
        self,
        table: str,
        rows: Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]],
        columns: Sequence[str] | None = None,
    ) -> None:
        """Insert a few rows: mappings with equal keys, or sequences with `columns` naming them."""
        if not rows:
            return
        if columns is None:
            first = rows[0]
            if not isinstance(first, Mapping):
                raise ValueError(f"rows for {table} are sequences: name their columns")
            columns = list(first)
        values = [[row[name] for name in columns] if isinstance(row, Mapping) else list(row) for row in rows]
        self._call(lambda client: client.insert(table, values, column_names=list(columns or ())))

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run a statement; returns its one value, if it has any."""
        return self._call(lambda client: client.command(sql, parameters=_plain(parameters)))

    def close(self) -> None:
        """Let go of the connections; the next query makes new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, action: Any) -> Any:
        with self._explain():
            return action(self._get_client())

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise Retryable(f"ClickHouse at {self.connection.url} is not reachable: {_find_cause(error)}") from error
        except DatabaseError as error:
            if error.code in RETRYABLE_CODES or any(status in str(error) for status in RETRYABLE_STATUSES):
                raise Retryable(f"ClickHouse at {self.connection.url} is busy: {_first_line(error)}") from error
            raise

    def _get_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self.connection)
            return self._client


def wait_for_store(connection: ClickHouseConnection, timeout_s: float) -> None:
    """Return once ClickHouse answers; raises the last `Retryable` when it has not within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    for attempt in itertools.count():
        store = ClickHouse(ClickHouseConnection(connection.url, connection.user, connection.password, "default"))
        try:
            store.query("SELECT 1")
            return
        except Retryable:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(min(0.05 * 2**attempt, 1.0))
        finally:
            store.close()


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _connect(connection: ClickHouseConnection) -> Any:
    address = urlsplit(connection.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigurationError(
            f"{connection.url!r} is not the URL of a ClickHouse server",
            key="clickhouse url",
            remedy="Write it as http://HOST:8123 or https://HOST:8443",
        )
    return clickhouse_connect.get_client(
        interface=address.scheme,
        host=address.hostname,
        port=address.port or (8443 if address.scheme == "https" else 8123),
        username=connection.user,
        password=connection.password,
        database=connection.database,
        settings=SETTINGS,
        # Naive times would be taken for local ones by the next who computes with them.
        tz_mode="aware",
        # Over the loopback interface compressing takes longer than sending.
        compress=address.hostname not in _LOOPBACK,
        # A session would serialise queries and could keep settings from one to the next.
        autogenerate_session_id=False,
        connect_timeout=_CONNECT_TIMEOUT_S,
        send_receive_timeout=_ANSWER_TIMEOUT_S,
    )


def _plain(parameters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(parameters) if parameters is not None else None


def _find_cause(error: Exception) -> str:
    """Give the system's own words (`Connection refused`) where the HTTP client wraps them in several of its errors."""
    found = re.search(r"\[Errno -?\d+\] ([^\"')]+)", str(error))
    return found.group(1) if found else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]

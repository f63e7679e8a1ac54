"""chDB in this process: started once on one folder, connections to it, and the end of running queries.

A connection has its own current database, settings and temporary tables, and costs a third of a millisecond; two
connections run in parallel, one connection runs one statement at a time. Never fork once an Engine exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chdb

from driftloop.embedded.clickhouse.errors import engine_errors
from driftloop.embedded.clickhouse.statement import quote


class Engine:
    """The one engine of this process."""

    def __init__(self, folder: Path, *, memory_bytes: int, execution_time_s: int) -> None:
        """Start chDB on the folder; ServerError when it cannot, ValueError for a path that it would misread."""
        if "?" in str(folder):
            raise ValueError(f"--data {folder}: a question mark in the path is not possible")
        # final: a plain SELECT from a ReplacingMergeTree is right. async_insert is on by default since 26.x, and
        # would acknowledge rows that are not yet written.
        defaults = f"final=1&async_insert=0&max_execution_time={execution_time_s}"
        self._address = f"{folder}?{defaults}"
        self.folder = folder
        with engine_errors():
            # This connection keeps the engine alive between requests.
            self._root = chdb.connect(f"{folder}?max_server_memory_usage={memory_bytes}")
        self.version = self._ask("SELECT version()")
        self.timezone = self._ask("SELECT timezone()")

    def connect(self) -> Any:
        """Return a new connection with the default settings; the caller closes it."""
        with engine_errors():
            return chdb.connect(self._address)

    def kill_query(self, query_id: str) -> None:
        """Ask the query with this id to end; it does at its next block."""
        self._ask(f"KILL QUERY WHERE Settings['log_comment'] = {quote(query_id)} ASYNC")

    def kill_all_queries(self) -> None:
        """Ask every running query to end."""
        self._ask("KILL QUERY WHERE query_id != queryID() ASYNC")

    def close(self) -> None:
        """Stop the engine; every other connection must be closed by then."""
        self._root.close()

    def _ask(self, sql: str) -> str:
        connection = self.connect()
        try:
            with engine_errors():
                return str(connection.query(sql, "TSVRaw").bytes().decode().rstrip("\n"))
        finally:
            connection.close()

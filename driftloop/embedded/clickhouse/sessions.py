"""Connections for requests: a fresh one, or that of a session, with the request's own settings for its time only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftloop.embedded.clickhouse.engine import Engine
from driftloop.embedded.clickhouse.errors import (
    BAD_ARGUMENTS,
    INVALID_SESSION_TIMEOUT,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    UNKNOWN_EXCEPTION,
    ServerError,
    engine_errors,
)
from driftloop.embedded.clickhouse.inserts import create_external_table
from driftloop.embedded.clickhouse.request import Request
from driftloop.embedded.clickhouse.statement import quote, quote_name
from driftloop.embedded.clickhouse.users import User

# clickhouse-connect opens a session for every client it makes, so idle ones are many; each holds one connection.
NUM_SESSIONS_MAX = 1_000
TIMEOUT_S_DEFAULT = 60  # ClickHouse's default
TIMEOUT_S_MAX = 3_600


class _NotRestored(ServerError):
    """A session could not be brought back to its own settings and must not be used again."""


@dataclass
class Session:
    """A connection that outlives its requests, used by one at a time."""

    connection: Any
    busy: threading.Lock = field(default_factory=threading.Lock)
    expires_at: float = 0.0  # on the monotonic clock


class Sessions:
    """The sessions of one server, by user and session id."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[tuple[str, str], Session] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connection(self, request: Request, user: User) -> Iterator[Any]:
        """Lend a connection on which the request's database, settings and rights hold.

        ServerError 372 for a session that must exist and does not, 373 for one in use by another request.
        """
        session_id = request.params.get("session_id")
        # A read-only user can neither SET nor create a temporary table: its session would have nothing to keep.
        if session_id and not user.readonly:
            with self._session(request, (user.name, session_id)) as connection:
                yield connection
            return
        connection = self._engine.connect()
        try:
            _apply(
                connection, request, self._engine.folder, readonly=1 if user.readonly else 2 if request.is_get else 0
            )
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _session(self, request: Request, key: tuple[str, str]) -> Iterator[Any]:
        timeout_s = _timeout_s(request)
        with self._lock:
            self._expire()
            session = self._sessions.get(key)
            if session is None:
                if request.params.get("session_check") == "1":
                    raise ServerError(SESSION_NOT_FOUND, f"Session {key[1]} not found")
                session = self._sessions[key] = Session(self._engine.connect())
            if not session.busy.acquire(blocking=False):
                raise ServerError(SESSION_IS_LOCKED, f"Session {key[1]} is locked by a concurrent client")
        try:
            with _borrowed(session.connection, request, self._engine.folder):
                yield session.connection
        except _NotRestored:
            with self._lock:
                self._sessions.pop(key).connection.close()
            raise
        finally:
            session.expires_at = time.monotonic() + timeout_s
            session.busy.release()

    def _expire(self) -> None:
        """Close idle sessions past their time, and the oldest of all when there are too many."""
        now = time.monotonic()
        idle = sorted((s.expires_at, key) for key, s in self._sessions.items() if not s.busy.locked())
        num_surplus = len(self._sessions) - NUM_SESSIONS_MAX + 1
        for number, (expires_at, key) in enumerate(idle):
            if expires_at < now or number < num_surplus:
                self._sessions.pop(key).connection.close()

    def close(self) -> None:
        """Close every session that no request uses."""
        with self._lock:
            for key in [key for key, session in self._sessions.items() if not session.busy.locked()]:
                self._sessions.pop(key).connection.close()


def _timeout_s(request: Request) -> int:
    text = request.params.get("session_timeout", str(TIMEOUT_S_DEFAULT))
    if not text.isdecimal() or int(text) > TIMEOUT_S_MAX:
        raise ServerError(INVALID_SESSION_TIMEOUT, f"Invalid session timeout: {text}, the maximum is {TIMEOUT_S_MAX}")
    return int(text)


def _apply(connection: Any, request: Request, folder: Path, *, readonly: int = 0) -> None:
    # The id goes into log_comment, where KILL QUERY finds it: chDB gives its queries ids of its own.
    settings = {"log_comment": request.query_id, **request.settings}
    if readonly:
        settings.pop("readonly", None)
    if not all(name.isidentifier() for name in settings):
        raise ServerError(BAD_ARGUMENTS, f"Bad setting name among {sorted(settings)}")
    with engine_errors():
        if request.database:
            connection.query(f"USE {quote_name(request.database)}")
        connection.query("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()))
        for table in request.external_tables:
            create_external_table(connection, table, folder)
        if readonly:
            connection.query(f"SET readonly = {readonly}")


@contextmanager
def _borrowed(connection: Any, request: Request, folder: Path) -> Iterator[None]:
    """Apply the request's settings to a session's connection and put the session's own back afterwards.

    Settings of a URL are for one query. Left behind, an old insert_deduplication_token would drop later inserts.
    """
    names = sorted(request.settings)
    with engine_errors():
        columns = ["currentDatabase()", *(f"toString(getSetting({quote(name)}))" for name in names)]
        row = connection.query("SELECT " + ", ".join(columns), "TSV").bytes().decode()
    database, *values = row.rstrip("\n").split("\t")
    try:
        _apply(connection, request, folder)
        yield
    finally:
        try:
            _restore(connection, request, database, dict(zip(names, values, strict=True)))
        except Exception as error:
            raise _NotRestored(UNKNOWN_EXCEPTION, f"The session was closed: {error}") from error


def _restore(connection: Any, request: Request, database: str, settings: dict[str, str]) -> None:
    for table in request.external_tables:
        connection.query(f"DROP TEMPORARY TABLE IF EXISTS {quote_name(table.name)}")
    # TSV and SQL literals share their escapes, so what came as TSV goes back as it is.
    if request.database:
        connection.query(f"USE `{database}`")
    if settings:
        connection.query("SET " + ", ".join(f"{name} = '{value}'" for name, value in settings.items()))

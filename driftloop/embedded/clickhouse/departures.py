"""Clients that go away while their query runs: the query is ended, so that it does not keep the machine busy."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.embedded.clickhouse.engine import Engine

# How long a query goes on for nobody at most, against a look at a handful of sockets.
LOOK_EVERY_S = 1.0


class Departures:
    """Looks at the sockets of running queries, and kills those whose client has closed its end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watched: dict[int, tuple[socket.socket, str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="departures", daemon=True).start()

    @contextmanager
    def watched(self, connection: socket.socket, query_id: str, *, watch: bool) -> Iterator[None]:
        """Watch the connection inside the block; changing statements are not watched: they run to their end."""
        key = threading.get_ident()
        if watch:
            with self._lock:
                self._watched[key] = connection, query_id
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(key, None)

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            with self._lock:
                gone = [(key, query_id) for key, (sock, query_id) in self._watched.items() if _has_left(sock)]
                for key, _ in gone:
                    del self._watched[key]
            for _, query_id in gone:
                self._engine.kill_query(query_id)


def _has_left(connection: socket.socket) -> bool:
    # A socket with a timeout waits for it in recv, MSG_DONTWAIT or not; so it is asked first whether it would.
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        return bool(poll.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True

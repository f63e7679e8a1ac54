"""The HTTP server: connections and their threads, one request after the other, and an orderly end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from driftloop.embedded.clickhouse.body import Body
from driftloop.embedded.clickhouse.departures import Departures
from driftloop.embedded.clickhouse.engine import Engine
from driftloop.embedded.clickhouse.errors import (
    READONLY,
    STD_EXCEPTION,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    ServerError,
)
from driftloop.embedded.clickhouse.inserts import run_insert
from driftloop.embedded.clickhouse.request import Request, is_form, parse_form, parse_url
from driftloop.embedded.clickhouse.response import Response
from driftloop.embedded.clickhouse.selects import run_query
from driftloop.embedded.clickhouse.sessions import Sessions
from driftloop.embedded.clickhouse.statement import parse_insert, parse_query
from driftloop.embedded.clickhouse.users import User, Users

# One thread a connection. Clients keep a few open each; 512 idle threads cost some megabytes.
NUM_CONNECTIONS_MAX = 512
# chDB runs each query on several threads of its own, so more at a time only wait for each other.
NUM_QUERIES_MAX = 64
QUEUE_WAIT_S_MAX = 10
# ClickHouse's own: how long an idle connection is kept, how long a client may stall.
KEEP_ALIVE_S = 30
STALL_S_MAX = 120
# As http_max_uri_size has it. clickhouse-connect puts up to some hundred kilobytes of parameters into a URL.
URL_BYTES_MAX = 1 << 20
# A statement that comes in a body is held in memory; rows of an insert and external tables are not part of it.
STATEMENT_BYTES_MAX = 64 << 20
# An insert's statement, up to the word FORMAT, is looked for in so much of the body.
HEAD_BYTES = 1 << 16


class Server(ThreadingHTTPServer):
    """Listens, and hands each connection to a thread of its own, up to a bound."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int]) -> None:
        """Bind and listen; OSError when the address is taken. Clients wait until `serve` is called."""
        super().__init__(address, Handler)
        self._connections = threading.BoundedSemaphore(NUM_CONNECTIONS_MAX)
        self._queries = threading.BoundedSemaphore(NUM_QUERIES_MAX)
        self._num_running = 0
        self._quiet = threading.Condition()
        self._is_draining = False

    def serve(self, engine: Engine, users: Users) -> None:
        """Answer requests in threads, and return at once."""
        self.engine = engine
        self.users = users
        self.sessions = Sessions(engine)
        self.departures = Departures(engine)
        threading.Thread(target=self.serve_forever, name="accept", daemon=True).start()

    def stop(self, deadline_s: float) -> bool:
        """Take no more requests and let the running ones end; those that do not in time are killed.

        Returns whether all have ended. What was killed has not been answered, so its client sees it fail.
        """
        self._is_draining = True
        self.shutdown()
        self.server_close()
        if not self._wait_until_quiet(deadline_s * 0.7):
            self.engine.kill_all_queries()
        quiet = self._wait_until_quiet(deadline_s * 0.3)
        self.departures.close()
        self.sessions.close()
        return quiet

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold one of the places for running queries; ServerError 202 when none becomes free in time."""
        if self._is_draining:
            raise ServerError(TOO_MANY_SIMULTANEOUS_QUERIES, "The server is stopping.")
        if not self._queries.acquire(timeout=QUEUE_WAIT_S_MAX):
            reason = f"Too many simultaneous queries. Maximum: {NUM_QUERIES_MAX}"
            raise ServerError(TOO_MANY_SIMULTANEOUS_QUERIES, reason)
        with self._quiet:
            self._num_running += 1
        try:
            yield
        finally:
            with self._quiet:
                self._num_running -= 1
                self._quiet.notify_all()
            self._queries.release()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, or refuse it when there are too many."""
        if not self._connections.acquire(blocking=False):
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection to its end, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def _wait_until_quiet(self, timeout_s: float) -> bool:
        with self._quiet:
            return self._quiet.wait_for(lambda: self._num_running == 0, timeout_s)


class Handler(BaseHTTPRequestHandler):
    """One connection: reads requests in turn and answers each."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = KEEP_ALIVE_S
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def handle_one_request(self) -> None:
        """Read and answer one request. As the base class does, but for the length that a URL may have."""
        try:
            self.raw_requestline = self.rfile.readline(URL_BYTES_MAX + 1)
            if len(self.raw_requestline) > URL_BYTES_MAX:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            elif not self.raw_requestline:
                self.close_connection = True
            elif self.parse_request():
                method = getattr(self, f"do_{self.command}", None)
                if method is None:
                    self.send_error(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})")
                else:
                    method()
                self.wfile.flush()
        except OSError:
            self.close_connection = True  # gone, or silent for too long

    def do_GET(self) -> None:
        """Answer a request that may only read."""
        path, params = parse_url(self.path)
        if path in ("/ping", "/replicas_status") or (path == "/" and "query" not in params and not self._has_body()):
            self._response().send(b"Ok.\n")
        else:
            self._answer(path, params, is_get=True)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answer a request that may change things."""
        path, params = parse_url(self.path)
        self._answer(path, params, is_get=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log: the clients of one machine know what they asked."""

    def _has_body(self) -> bool:
        return (self.headers.get("Content-Length") or "0") != "0" or "Transfer-Encoding" in self.headers

    def _response(self) -> Response:
        return Response(self, timezone=self.server.engine.timezone, version=self.server.engine.version)

    def _answer(self, path: str, params: dict[str, str], *, is_get: bool) -> None:
        response, body = self._response(), None
        self.connection.settimeout(STALL_S_MAX)
        try:
            body = Body(self.rfile, self.headers)
            if path != "/":
                response.send(f"There is no handle {path}\n".encode(), status=404)
            else:
                self._run(params, body, response, is_get=is_get)
        except OSError:
            self.close_connection = True  # the client has gone or stalls; there is nobody to tell
            return
        except Exception as error:
            refusal = error if isinstance(error, ServerError) else ServerError(STD_EXCEPTION, repr(error))
            if response.has_begun or self.wfile.closed:
                self.close_connection = True  # an answer cut short is how the client learns of it
                return
            self.close_connection |= body is None or not body.drain()
            response.send_error(refusal)
        if body is None or not (body.is_read or body.drain()):
            self.close_connection = True
        self.connection.settimeout(KEEP_ALIVE_S)

    def _run(self, params: dict[str, str], body: Body, response: Response, *, is_get: bool) -> None:
        user = self.server.users.authenticate(self.headers, params)
        tables: tuple[Any, ...] = ()
        form = is_form(self.headers)
        if form:
            data = body.read(STATEMENT_BYTES_MAX)
            params, found = parse_form(self.headers["Content-Type"], data, params)
            tables = tuple(found)
        request = Request(params, self.headers, is_get, tables)
        response.add_headers({"X-ClickHouse-Query-Id": request.query_id})
        pieces = iter(()) if form else iter(body)
        with self.server.admitted(), self.server.sessions.connection(request, user) as connection:
            self._execute(connection, request, user, pieces, response)

    def _execute(
        self, connection: Any, request: Request, user: User, pieces: Iterator[bytes], response: Response
    ) -> None:
        head = request.query + b"\n" if request.query else b""
        if not head or parse_insert(head) is None:
            head += _read_head(pieces, HEAD_BYTES)
        insert = parse_insert(head)
        if insert is not None:
            _check_rights(request, user, reads_only=False)
            data = itertools.chain([head[insert.data_start :]], pieces)
            run_insert(connection, insert, data, request, response, self.server.engine.folder)
            return
        query = parse_query(head + _read_head(pieces, STATEMENT_BYTES_MAX))
        _check_rights(request, user, reads_only=query.reads_only)
        with self.server.departures.watched(self.connection, request.query_id, watch=query.reads_only):
            run_query(connection, query, request, response)


def _check_rights(request: Request, user: User, *, reads_only: bool) -> None:
    if reads_only or not (request.is_get or user.readonly):
        return
    hint = "" if user.readonly else " For queries over HTTP, method GET implies readonly. Use POST to modify."
    raise ServerError(READONLY, f"{user.name}: Cannot execute query in readonly mode.{hint}")


def _read_head(pieces: Iterator[bytes], num_bytes: int) -> bytes:
    """Return pieces until there are so many bytes, or all there are."""
    head = b""
    while len(head) < num_bytes:
        piece = next(pieces, None)
        if piece is None:
            break
        head += piece
    return head

"""What the embedded ClickHouse server promises beyond the interface: users, limits, an orderly end, one per folder."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.clickhouses import ROOT, EmbeddedClickHouse, free_port

MEMORY_BYTES = 1_500_000_000
DEADLINE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    users = ("--user", "app:se:cret", "--user", "people::readonly", "--memory-bytes", str(MEMORY_BYTES))
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"), options=users)
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: EmbeddedClickHouse) -> Iterator[Client]:
    client = connect(server)
    yield client
    client.close()


def connect(server: EmbeddedClickHouse, username: str = "default", password: str = "") -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, username=username, password=password, autogenerate_session_id=False
    )


def ask(server: EmbeddedClickHouse, sql: str) -> str:
    with urllib.request.urlopen(f"{server.url}/?{urlencode({'query': sql})}", timeout=DEADLINE_S) as answer:
        return answer.read().decode().strip()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


def test_curl_counts_right_after_a_redelivery(server: EmbeddedClickHouse, client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE again (k UInt32, v UInt64) ENGINE = ReplacingMergeTree(v) ORDER BY k")
    for _ in range(3):
        client.insert("again", [[1, 7], [2, 7]])
    assert ask(server, "SELECT count() FROM again") == "2"
    assert ask(server, "SELECT count() FROM again SETTINGS final = 0") == "6"
    found = ask(server, "SELECT getSetting('async_insert'), getSetting('max_execution_time')").split("\t")
    assert found == ["false", "300"]


def test_a_result_is_sent_with_the_headers_asked_for(server: EmbeddedClickHouse) -> None:
    def fetch(headers: str, sql: str, method: str = "GET") -> tuple[int, str, list[str]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
        connection.request(method, f"/?{urlencode({'query': sql, 'http_response_headers': headers})}")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader("X-Note") or "", answer.headers.get_all("Content-Type") or []

    headers = r"{'content-type': 'text/html; charset=UTF-8', 'X-Note': 'it\'s, \\ a: {note}'}"
    for sql in ("SELECT 'a' FORMAT RawBLOB", "SELECT number FROM numbers(3) FORMAT CSV", "SELECT 1 WHERE 0 FORMAT CSV"):
        assert fetch(headers, sql) == (200, "it's, \\ a: {note}", ["text/html; charset=UTF-8"])
    assert fetch(" { } ", "SELECT 1 FORMAT RawBLOB") == (200, "", ["application/octet-stream"])
    # An error is told as ever.
    assert fetch(headers, "SELECT nothing") == (404, "", ["text/plain; charset=UTF-8"])
    for wrong in ("text/html", "{'a': 'b'", "{'a', 'b'}", "{'a': 'b' 'c': 'd'}", "{'a': 'b\r\nX-Note: c'}"):
        assert fetch(wrong, "SELECT 1")[:2] == (400, "")


def test_users_need_their_password_and_readers_only_read(server: EmbeddedClickHouse, client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE facts (k UInt32) ENGINE = MergeTree ORDER BY k")
    app = connect(server, "app", "se:cret")
    app.insert("facts", [[1]])
    people = connect(server, "people")
    assert people.command("SELECT count() FROM facts") == 1
    forbidden = [
        "INSERT INTO facts VALUES (2)", "INSERT INTO facts SELECT 2", "DROP TABLE facts", "SET readonly = 0",
        "CREATE TEMPORARY TABLE t (k UInt8)", "SELECT * FROM facts SETTINGS readonly = 0", "SYSTEM SHUTDOWN",
        "WITH 2 AS k INSERT INTO facts SELECT k", "SELECT * FROM file('/etc/hostname', LineAsString)",
        "KILL QUERY WHERE 1", "BACKUP TABLE facts TO File('x.zip')",
    ]  # fmt: skip
    for sql in forbidden:
        with pytest.raises(DatabaseError, match=r"Code: (164|497)"):
            people.raw_query(sql)
    for name, password in (("app", "wrong"), ("app", ""), ("nobody", "")):
        with pytest.raises(DatabaseError, match="Code: 516"):
            connect(server, name, password)
    assert client.command("SELECT count() FROM facts") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE queue (k UInt8) ENGINE = Kafka('h:9092', 't', 'g', 'JSONEachRow')",
        "create table if not exists queue (k UInt8) engine Kafka settings kafka_broker_list = 'h:9092'",
        "/* x */ CREATE TABLE queue (k UInt8) ENGINE=/* hidden */`Kafka`('h:9092', 't', 'g', 'JSONEachRow')",
        "ATTACH TABLE queue (k UInt8) ENGINE = Kafka('h:9092', 't', 'g', 'JSONEachRow')",
    ],
)
def test_engines_that_would_spoil_the_folder_are_refused(client: Client, sql: str) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 56.*Kafka is not supported"):
        client.command(sql)
    client.command("CREATE OR REPLACE TABLE fine (note String COMMENT 'ENGINE = Kafka') ENGINE = Memory")


def test_files_of_the_machine_are_neither_read_nor_written_by_statements(client: Client, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    client.command("CREATE OR REPLACE TABLE facts (s String) ENGINE = MergeTree ORDER BY s")
    with pytest.raises(DatabaseError, match="Code: 48"):
        client.raw_query(f"SELECT 1 INTO OUTFILE '{target}'")
    with pytest.raises(DatabaseError, match="Code: 48"):
        client.raw_query("INSERT INTO facts FROM INFILE '/etc/hostname' FORMAT LineAsString")
    assert not target.exists()


def test_rows_that_cannot_be_written_are_never_acknowledged(client: Client) -> None:
    """The engine's own streaming insert fails here: it answers with success and drops the rows."""
    client.command(
        "CREATE OR REPLACE TABLE small (k UInt32, CONSTRAINT low CHECK k < 10) ENGINE = MergeTree ORDER BY k"
    )
    with pytest.raises(DatabaseError, match="Code: 469"):
        client.insert("small", [[1], [99]])
    with pytest.raises(DatabaseError, match="Code: 469"):
        client.raw_insert("small", ["k"], b"1\n99\n", fmt="CSV")
    assert client.command("SELECT count() FROM small") == 0


def test_a_query_beyond_the_memory_limit_fails_alone(client: Client) -> None:
    with pytest.raises(DatabaseError, match="Code: 241"):
        client.command("SELECT length(groupArray(number)) FROM numbers(1000000000)")
    assert client.command("SELECT 1") == 1


def test_a_query_beyond_its_time_fails_alone(client: Client) -> None:
    with pytest.raises(DatabaseError, match="Code: 159"):
        client.command("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1",
                       settings={"max_execution_time": 1})  # fmt: skip
    assert client.command("SELECT 1") == 1


def open_request(server: EmbeddedClickHouse, query: str, body_bytes: int = 0, **params: str) -> socket.socket:
    """Send a request's head for a body of that size, and return the connection without waiting for an answer."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    target = "/?" + urlencode({"query": query, **params})
    connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {body_bytes}\r\n\r\n".encode())
    return connection


def running(server: EmbeddedClickHouse, mark: str) -> bool:
    return (
        ask(
            server, f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
        )
        != "0"
    )


def test_a_long_query_does_not_block_others_and_ends_when_its_client_leaves(server: EmbeddedClickHouse) -> None:
    endless = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 4711"
    connection = open_request(server, endless, max_threads="1")
    wait_until(lambda: running(server, "4711"), "the long query runs")
    assert ask(server, "SELECT 1") == "1"
    connection.close()
    wait_until(lambda: not running(server, "4711"), "the query without a client ends")


def test_a_client_that_leaves_in_mid_insert_leaves_no_row_and_no_lock(
    server: EmbeddedClickHouse, client: Client
) -> None:
    client.command("CREATE OR REPLACE TABLE half (k UInt32) ENGINE = MergeTree ORDER BY k")
    for params in ({}, {"session_id": "leaver"}):
        connection = open_request(server, "INSERT INTO half FORMAT CSV", 1_000_000, **params)
        connection.sendall(b"1\n" * 300_000)
        connection.close()
    session = urlencode({"query": "SELECT count() FROM half", "session_id": "leaver"})

    def is_free() -> bool:
        try:
            with urllib.request.urlopen(f"{server.url}/?{session}", timeout=DEADLINE_S) as answer:
                return bool(answer.read() == b"0\n")
        except urllib.error.HTTPError as error:
            with error:
                return error.headers["X-ClickHouse-Exception-Code"] != "373"

    wait_until(is_free, "the session of the client that left is free")
    client.insert("half", [[2]])
    assert client.query("SELECT k FROM half").result_rows == [(2,)]
    client.command("DROP TABLE half SYNC")


def test_one_connection_carries_many_requests_also_after_errors(server: EmbeddedClickHouse) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    for method, body, status in (
        ("POST", b"SELECT 1", 200), ("POST", b"SELECT * FROM nothing", 404), ("POST", b"x" * 3_000_000, 400),
        ("HEAD", b"", 200), ("POST", b"SELECT 2", 200),
    ):  # fmt: skip
        connection.request(method, "/?query=SELECT+1" if method == "HEAD" else "/", body)
        answer = connection.getresponse()
        answer.read()
        assert (method, answer.status) == (method, status)
    connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: snappy\r\nContent-Length: 0\r\n\r\n", b"500"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip", b"400"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /?compress=1&query=SELECT+1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"501"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
    ],
)
def test_bad_requests_get_an_answer(server: EmbeddedClickHouse, head: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(head)
        assert connection.recv(4096).split(b" ")[1] == status
    assert ask(server, "SELECT 1") == "1"


def test_a_taken_port_and_a_taken_folder_are_refused(server: EmbeddedClickHouse, tmp_path: Path) -> None:
    def refusal(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "driftloop.embedded.clickhouse", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
        return done.returncode, done.stderr

    status, words = refusal("--data", str(server.dir), "--port", str(free_port()))
    assert (status, str(server.pid) in words, str(server.dir) in words) == (2, True, True)
    status, words = refusal("--data", str(tmp_path), "--port", str(server.port))
    assert (status, str(server.port) in words) == (2, True)
    status, words = refusal("--data", str(tmp_path), "--port", "0", "--user", "nopassword")
    assert (status, "NAME:PASSWORD" in words) == (2, True)


def test_sigterm_lets_a_running_insert_finish_and_kills_what_does_not_end(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    server.start()
    client = connect(server)
    client.command("CREATE TABLE facts (k UInt32) ENGINE = MergeTree ORDER BY k")
    client.close()
    answers: dict[str, bytes] = {}

    def receive(name: str, connection: socket.socket) -> None:
        with connection:
            answers[name] = connection.recv(4096)

    slow = "INSERT INTO facts SELECT number + sleepEachRow(1) FROM numbers(1)"
    endless = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 4711"
    threads = [
        threading.Thread(target=receive, args=(name, open_request(server, sql, max_threads="1")))
        for name, sql in (("insert", slow), ("endless", endless))
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: running(server, "4711") and running(server, "sleepEachRow"), "both run")
    assert server.stop() == 0
    for thread in threads:
        thread.join(DEADLINE_S)
    assert answers["insert"].startswith(b"HTTP/1.1 200")
    assert not answers["endless"].startswith(b"HTTP/1.1 200")
    server.start()
    assert ask(server, "SELECT k FROM facts") == "0"
    assert server.stop() == 0


def test_sigint_ends_it_cleanly_too(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    server.start()
    assert server._end(signal.SIGINT) == 0

"""`driftloop up`: the servers that are not external, the topics, the tables, and every role, supervised."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from driftloop.roles import ROLES
from driftloop.settings import Endpoints, Settings, format_clickhouse_url, format_kafka_options
from driftloop.supervisor import Child, Supervisor
from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime
from schemas.errors import ConfigurationError
from store.artifacts import resolve_place
from store.client import ClickHouse, wait_for_store
from store.log import apply_topics
from store.log.offsets import wait_for_log
from store.migrations import migrate

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 9.0
HOST = "127.0.0.1"


@contextmanager
def hold_folder(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; raises ConfigurationError when another instance does, or there can be no folder."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "up.lock").touch()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be written to: {error.strerror}", file=str(data), remedy="Choose another folder with --data"
        ) from None
    with (data / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigurationError(
                f"another driftloop (process {file.read().strip() or 'unknown'}) runs on this data folder",
                file=str(data),
                remedy="Stop it, or choose another folder with --data",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def require_free_port(port: int, option: str) -> None:
    """Raise ConfigurationError when something listens on the port already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigurationError(
                f"port {port} is taken", key=option, remedy=f"Choose another with {option} PORT"
            ) from None


class Stack:
    """Everything that `driftloop up` runs. Use: `start`, then `watch` until stopped, then `stop`."""

    def __init__(
        self,
        settings: Settings,
        kafka_port: int,
        clickhouse_port: int,
        report: Callable[[str], None],
        roles: tuple[str, ...] = ROLES,
    ) -> None:
        self.settings = settings
        self.kafka_port = kafka_port
        self.clickhouse_port = clickhouse_port
        self.roles = roles
        self.supervisor = Supervisor(report)
        self.stopping = threading.Event()
        self.logs = settings.data / "logs"
        self.runtime = self.find_runtime()

    def find_runtime(self) -> Runtime:
        """The settings with the embedded servers' addresses where nothing external is named."""
        runtime = self.settings.runtime
        if not self.settings.external_kafka:
            runtime = replace(runtime, kafka=KafkaConnection(f"{HOST}:{self.kafka_port}", runtime.kafka.options))
        if not self.settings.external_clickhouse:
            runtime = replace(runtime, clickhouse=ClickHouseConnection(url=f"http://{HOST}:{self.clickhouse_port}"))
        return runtime

    def start(self) -> None:
        """Start servers, make topics and tables, start roles; raises when something is not up within a minute."""
        self.check_ports()
        self.logs.mkdir(parents=True, exist_ok=True)
        if not self.settings.external_kafka:
            self.add("kafka", ["-m", "driftloop.embedded.broker", "--data", self.folder("kafka"), "--port",
                               str(self.kafka_port)])  # fmt: skip
        if not self.settings.external_clickhouse:
            self.add("clickhouse", ["-m", "driftloop.embedded.clickhouse", "--data", self.folder("clickhouse"),
                                    "--port", str(self.clickhouse_port)])  # fmt: skip
        until_s = time.monotonic() + START_TIMEOUT_S
        threading.Thread(target=self.supervisor.watch, args=(self.stopping,), daemon=True).start()
        wait_for_log(self.runtime.kafka, until_s - time.monotonic())
        wait_for_store(self.runtime.clickhouse, until_s - time.monotonic())
        apply_topics(self.runtime.kafka, self.runtime.topics, self.runtime.num_partitions)
        store = ClickHouse(self.runtime.clickhouse)
        try:
            migrate(store)
        finally:
            store.close()
        # Never with a password in it: the file is as readable as the data folder.
        endpoints = Endpoints(self.runtime.kafka.bootstrap_servers, self.runtime.clickhouse.url, os.getpid())
        endpoints.write(self.settings.data)
        for role in self.roles:
            self.add(role, ["-m", "driftloop.roles", role])

    def check_ports(self) -> None:
        if not self.settings.external_kafka:
            require_free_port(self.kafka_port, "--kafka-port")
        if not self.settings.external_clickhouse:
            require_free_port(self.clickhouse_port, "--clickhouse-port")

    def folder(self, name: str) -> str:
        path = self.settings.data / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def add(self, name: str, arguments: list[str]) -> None:
        environment = {
            "DRIFTLOOP_DATA": str(self.settings.data.resolve()),
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if name in ROLES:
            environment |= {
                "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": self.runtime.kafka.bootstrap_servers,
                "DRIFTLOOP_CLICKHOUSE_URL": format_clickhouse_url(self.runtime.clickhouse),
                "DRIFTLOOP_PARTITIONS": str(self.runtime.num_partitions),
                "DRIFTLOOP_ARTIFACTS": resolve_place(self.runtime.artifacts),
            } | format_kafka_options(self.runtime.kafka)
        self.supervisor.add(Child(name, [sys.executable, *arguments], self.logs / f"{name}.log", environment))

    def stop(self) -> None:
        """Stop everything; at most ten seconds."""
        self.stopping.set()
        self.supervisor.stop_all(STOP_TIMEOUT_S)
        Endpoints.path(self.settings.data).unlink(missing_ok=True)

"""The embedded servers and the real role processes, in a temporary folder, on free ports.

Each benchmark has a database and a topic prefix of its own, so that none sees what another left.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bench.kafka import run_kafka
from driftloop.settings import format_clickhouse_url, read_settings
from driftloop.stack import Stack
from schemas.connections import Runtime, TopicNames

STOP_TIMEOUT_S = 15.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Options:
    """How benchmarks are run: the short form or the long one, on Apache Kafka or (None) on the embedded broker.

    `fashion_mnist` is the folder of the data set's four files.
    """

    short: bool = True
    kafka_home: Path | None = None
    fashion_mnist: Path = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True, slots=True)
class Servers:
    """A broker and a ClickHouse that run: what leads to them, and their processes by name."""

    runtime: Runtime
    pids: dict[str, int]


@contextmanager
def run_servers(options: Options) -> Iterator[Servers]:
    """Start a broker and a ClickHouse; everything is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder, ExitStack() as exits:
        # Nothing of the caller's environment: a benchmark must not write to somebody's Kafka.
        environment, pids = {}, {}
        if options.kafka_home is not None:
            port = find_free_port()
            kafka = run_kafka(options.kafka_home, Path(folder) / "apache-kafka", port, find_free_port())
            pids["broker"] = exits.enter_context(kafka).pid
            environment["DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{port}"
        settings = read_settings(Path(folder), environment)
        stack = Stack(settings, find_free_port(), find_free_port(), print, roles=())
        exits.callback(stack.stop)
        stack.start()
        for child in stack.supervisor.children:
            assert child.process is not None
            pids["broker" if child.name == "kafka" else child.name] = child.process.pid
        yield Servers(stack.runtime, pids)


def separate(runtime: Runtime, name: str) -> Runtime:
    """Give the same servers with a database and topics of this name."""
    return replace(
        runtime,
        topics=TopicNames(prefix=f"{name}-"),
        clickhouse=replace(runtime.clickhouse, database=f"bench_{name}"),
    )


class Role:
    """One role as `driftloop up` runs it, but never restarted; its output is in `log_path`.

    `worker` is its name among several of the same role (`NAME-0` if it is the only one).
    """

    def __init__(self, runtime: Runtime, name: str, worker: str = "") -> None:
        self.name = name
        worker = worker or f"{name}-0"
        self.log_path = Path(runtime.data) / f"{runtime.topics(worker)}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTLOOP_")}
        environment |= {
            "DRIFTLOOP_DATA": runtime.data,
            "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": runtime.kafka.bootstrap_servers,
            "DRIFTLOOP_CLICKHOUSE_URL": format_clickhouse_url(runtime.clickhouse),
            "DRIFTLOOP_TOPIC_PREFIX": runtime.topics.prefix,
            "DRIFTLOOP_PARTITIONS": str(runtime.num_partitions),
            "DO_NOT_TRACK": "1",
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "driftloop.roles", name, "--worker", worker],
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def require_alive(self) -> None:
        """Raise RuntimeError with the end of the log when the process has ended."""
        if self.process.poll() is not None:
            tail = self.log_path.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the process ended with {self.process.returncode}:\n{tail}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def run_roles(runtime: Runtime, *names: str) -> Iterator[list[Role]]:
    """Run these roles, several workers of one where it is named several times; they are stopped afterwards."""
    with ExitStack() as stack:
        roles: list[Role] = []
        for index, name in enumerate(names):
            roles.append(Role(runtime, name, f"{name}-{names[:index].count(name)}"))
            stack.callback(roles[-1].stop)
        yield roles


class Watched(Protocol):
    """Something without which waiting is in vain."""

    def require_alive(self) -> None: ...


def wait_until(
    is_true: Callable[[], bool], timeout_s: float, what: str, watched: Sequence[Watched], poll_s: float = POLL_S
) -> None:
    """Poll until true; TimeoutError naming what did not come, RuntimeError when something watched has ended."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        for each in watched:
            each.require_alive()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(poll_s)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

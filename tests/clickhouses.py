"""ClickHouse servers for tests: the embedded one as a process that can be stopped, killed and started again."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL_IMAGE = "clickhouse/clickhouse-server:25.8"  # the newest long-term release
STOP_S_MAX = 15  # the server promises 5; a loaded machine gets more


class EmbeddedClickHouse:
    """One embedded server on one data folder; the port stays the same over restarts."""

    def __init__(self, dir: Path | str, port: int | None = None, options: tuple[str, ...] = ()) -> None:
        """Choose a free port unless one is given; `options` go to the command line as they are."""
        self.dir = Path(dir)
        self.port = port if port is not None else free_port()
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, timeout_s: float = 60) -> None:
        """Start the process and return when it listens; RuntimeError with its words when it does not."""
        assert self._process is None, "already started"
        self.dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "driftloop.embedded.clickhouse"]
        command += ["--data", str(self.dir), "--port", str(self.port), *self._options]
        log_path = self.dir / "stderr.log"
        with log_path.open("a") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        lines: queue.Queue[str] = queue.Queue(maxsize=1)
        threading.Thread(
            target=lambda: lines.put(process.stdout.readline() if process.stdout else ""), daemon=True
        ).start()
        try:
            line = lines.get(timeout=timeout_s)
        except queue.Empty:
            line = f"nothing in {timeout_s} s"
        if not line.startswith("ready "):
            process.kill()
            process.wait(STOP_S_MAX)
            _close(process)
            raise RuntimeError(f"ClickHouse did not start: {line!r}; {log_path.read_text()[-2000:]}")
        self._process = process

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status; does nothing (0) when it does not run."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL; `start` brings it back on the same data and port."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(STOP_S_MAX)
            raise
        finally:
            _close(process)


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _close(process: subprocess.Popen[str]) -> None:
    if process.stdout:
        process.stdout.close()


def find_real_clickhouse() -> tuple[str, Callable[[], None]]:
    """Return the address of a ClickHouse server and what ends it; LookupError says why there is none.

    `DRIFTLOOP_TEST_CLICKHOUSE_URL` names one; otherwise a container is started where Docker answers.
    """
    url = os.environ.get("DRIFTLOOP_TEST_CLICKHOUSE_URL")
    if url:
        return url.rstrip("/"), lambda: None
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        raise LookupError("DRIFTLOOP_TEST_CLICKHOUSE_URL is not set and Docker is not here")
    try:
        import docker

        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except Exception as error:
        raise LookupError(f"DRIFTLOOP_TEST_CLICKHOUSE_URL is not set and Docker does not answer: {error}") from error
    return _start_container()


def _start_container() -> tuple[str, Callable[[], None]]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(REAL_IMAGE).with_exposed_ports(8123).with_env("CLICKHOUSE_SKIP_USER_SETUP", "1")
    container.start()
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8123)}"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return url, container.stop
        except OSError:
            time.sleep(0.2)  # between polls; the deadline bounds it
    container.stop()
    raise LookupError(f"{REAL_IMAGE} did not answer within 120 s")

"""A role as a process of its own, started as `driftloop up` starts it, so that tests can kill it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from driftloop.settings import format_clickhouse_url, format_kafka_options
from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames

REPOSITORY = Path(__file__).resolve().parents[1]


def make_runtime(
    bootstrap: str,
    clickhouse_url: str,
    name: str,
    folder: Path,
    num_partitions: int = 4,
    options: Mapping[str, str] | None = None,
) -> Runtime:
    """Surroundings of one test on shared servers: `name` is its database and the prefix of its topics."""
    return Runtime(
        kafka=KafkaConnection(bootstrap, dict(options or {})),
        clickhouse=ClickHouseConnection(clickhouse_url, database=name),
        topics=TopicNames(prefix=f"{name}-"),
        artifacts=str(folder / "artifacts"),
        data=str(folder),
        privacy_key=b"test",
        num_partitions=num_partitions,
    )


def make_environment(runtime: Runtime) -> dict[str, str]:
    """Give the environment of a process of ours that is to work in these surroundings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_")}
    return (
        ours
        | format_kafka_options(runtime.kafka)
        | {
            "DRIFTLOOP_DATA": runtime.data,
            "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": runtime.kafka.bootstrap_servers,
            "DRIFTLOOP_CLICKHOUSE_URL": format_clickhouse_url(runtime.clickhouse),
            "DRIFTLOOP_TOPIC_PREFIX": runtime.topics.prefix,
            "DRIFTLOOP_PARTITIONS": str(runtime.num_partitions),
            "DRIFTLOOP_ARTIFACTS": runtime.artifacts,
            "DRIFTLOOP_PRIVACY_KEY": runtime.privacy_key.decode(),
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
        }
    )


def run_command(runtime: Runtime, *arguments: str, timeout_s: float = 120.0) -> tuple[int, str, str]:
    """Run one `driftloop` command there: (exit status, stdout, stderr)."""
    ended = subprocess.run(
        [sys.executable, "-m", "driftloop", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=REPOSITORY,
        env=make_environment(runtime),
    )
    return ended.returncode, ended.stdout, ended.stderr


class RoleProcess:
    """One worker of a role, in a process group of its own; `worker` is its unique name, its output is in `log_path`."""

    def __init__(
        self,
        role: str,
        runtime: Runtime,
        log_path: Path,
        worker: str = "",
        program: Sequence[str] = ("-m", "driftloop.roles"),
        more: Mapping[str, str] | None = None,
    ) -> None:
        """`program` may be another one that runs a role; `more` goes into its environment."""
        self.log_path = log_path
        environment = make_environment(runtime)
        with log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, role, *(["--worker", worker] if worker else [])],
                cwd=REPOSITORY,
                env=environment | dict(more or {}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL for the process and all that it started, as when a container ends."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP for all of it; `kill` still works, and `thaw` lets it go on."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self, timeout_s: float = 15) -> int:
        """End it with SIGTERM and give its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

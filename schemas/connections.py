"""Plain settings that `driftloop/` reads once and hands down; nothing below it reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class KafkaConnection:
    """Where the log is; `options` are librdkafka settings (security and others) passed through to every client."""

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict)

    def librdkafka(self, **more: object) -> dict[str, object]:
        """Give a librdkafka configuration; keyword names take underscores for dots (`group_id` for `group.id`)."""
        extra = {name.replace("_", "."): value for name, value in more.items()}
        return {"bootstrap.servers": self.bootstrap_servers, **self.options, **extra}


@dataclass(frozen=True)
class ClickHouseConnection:
    """Where the store is; `url` is its HTTP interface, such as `http://127.0.0.1:8123`."""

    url: str
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "driftloop"


@dataclass(frozen=True)
class TopicNames:
    """Turns a declared topic's name into the name on the cluster."""

    prefix: str = ""
    suffix: str = ""

    def __call__(self, name: str) -> str:
        return f"{self.prefix}{name}{self.suffix}"


@dataclass(frozen=True)
class Runtime:
    """Everything that a role needs to know about its surroundings; `artifacts` and `data` are folders.

    `public_clickhouse` is how people reach ClickHouse, for links; None: they are given none. With `warm_jobs` a trainer
    keeps a process ready for its next job.
    """

    kafka: KafkaConnection
    clickhouse: ClickHouseConnection
    topics: TopicNames
    artifacts: str
    data: str
    privacy_key: bytes = field(repr=False)
    num_partitions: int = 4
    public_clickhouse: ClickHouseConnection | None = None
    warm_jobs: bool = True

"""Settings: read once from the environment and the data folder, handed down as plain objects.

No package below `driftloop/` reads the environment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec

from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames
from schemas.errors import ConfigurationError

DEFAULT_DATA = Path(".driftloop")
DEFAULT_KAFKA_PORT = 9092
DEFAULT_CLICKHOUSE_PORT = 8123

KAFKA_PREFIX = "DRIFTLOOP_KAFKA_"
PUBLIC_URL = "DRIFTLOOP_CLICKHOUSE_PUBLIC_URL"


class Endpoints(msgspec.Struct):
    """Where a running `driftloop up` listens; kept in the data folder, so that other commands find it."""

    kafka: str
    clickhouse: str
    pid: int

    @staticmethod
    def path(data: Path) -> Path:
        return data / "endpoints.json"

    @classmethod
    def read(cls, data: Path) -> Endpoints | None:
        try:
            return msgspec.json.decode(cls.path(data).read_bytes(), type=cls)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError(
                f"cannot be read: {error}", file=str(cls.path(data)), remedy="Remove the file and start again"
            ) from error

    def write(self, data: Path) -> None:
        temporary = self.path(data).with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        temporary.replace(self.path(data))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, over what the data folder says, over the defaults."""

    data: Path
    runtime: Runtime
    external_kafka: bool
    external_clickhouse: bool


def read_settings(data: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; raises ConfigurationError naming the variable that is wrong.

    `DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS` and `DRIFTLOOP_CLICKHOUSE_URL` point at external systems. Every other
    `DRIFTLOOP_KAFKA_SOME_OPTION` is passed to every Kafka client as `some.option`.
    """
    env = os.environ if environ is None else environ
    folder = Path(data or env.get("DRIFTLOOP_DATA") or DEFAULT_DATA)
    endpoints = Endpoints.read(folder)
    bootstrap = env.get(KAFKA_PREFIX + "BOOTSTRAP_SERVERS", "")
    url = env.get("DRIFTLOOP_CLICKHOUSE_URL", "")
    options = {
        name[len(KAFKA_PREFIX) :].lower().replace("_", "."): value
        for name, value in env.items()
        if name.startswith(KAFKA_PREFIX) and name != KAFKA_PREFIX + "BOOTSTRAP_SERVERS"
    }
    kafka = KafkaConnection(bootstrap or (endpoints.kafka if endpoints else f"127.0.0.1:{DEFAULT_KAFKA_PORT}"), options)
    public_url = env.get(PUBLIC_URL, "")
    clickhouse = parse_clickhouse_url(
        url or (endpoints.clickhouse if endpoints else f"http://127.0.0.1:{DEFAULT_CLICKHOUSE_PORT}")
    )
    runtime = Runtime(
        kafka=kafka,
        clickhouse=clickhouse,
        topics=TopicNames(env.get("DRIFTLOOP_TOPIC_PREFIX", ""), env.get("DRIFTLOOP_TOPIC_SUFFIX", "")),
        artifacts=env.get("DRIFTLOOP_ARTIFACTS") or str(folder / "artifacts"),
        data=str(folder),
        privacy_key=read_privacy_key(folder, env),
        num_partitions=parse_partitions(env),
        public_clickhouse=parse_public_url(public_url) if public_url else None,
        warm_jobs=parse_switch(env, "DRIFTLOOP_WARM_JOBS"),
    )
    return Settings(folder, runtime, external_kafka=bool(bootstrap), external_clickhouse=bool(url))


def parse_switch(env: Mapping[str, str], name: str) -> bool:
    """A variable that is 1 (so it is without it) or 0."""
    text = env.get(name, "1")
    if text not in ("0", "1"):
        raise ConfigurationError(f"{text!r} is neither 0 nor 1", key=name)
    return text == "1"


def parse_clickhouse_url(url: str, key: str = "DRIFTLOOP_CLICKHOUSE_URL") -> ClickHouseConnection:
    """`http[s]://[user[:password]@]host[:port][/database]` as a connection; `key` names the variable in an error."""
    parts = urlsplit(url)
    try:
        port = parts.port or (8443 if parts.scheme == "https" else DEFAULT_CLICKHOUSE_PORT)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigurationError(
            f"{url!r} is not the address of ClickHouse's HTTP interface",
            key=key,
            remedy="Use http://[user:password@]host:8123",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return ClickHouseConnection(
        url=f"{parts.scheme}://{host}:{port}",
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/") or "driftloop",
    )


def parse_public_url(url: str) -> ClickHouseConnection:
    """Where people's browsers find ClickHouse, and as which user; it goes into links, so it has no password."""
    connection = parse_clickhouse_url(url, PUBLIC_URL)
    if connection.password:
        raise ConfigurationError(
            "every notification would carry the password",
            key=PUBLIC_URL,
            remedy="Name a user without one that may only read, such as http://reader@host:8123",
        )
    return connection


def format_clickhouse_url(connection: ClickHouseConnection) -> str:
    """The connection as DRIFTLOOP_CLICKHOUSE_URL has it."""
    scheme, _, address = connection.url.partition("://")
    user = quote(connection.user, safe="")
    password = f":{quote(connection.password, safe='')}" if connection.password else ""
    return f"{scheme}://{user}{password}@{address}/{connection.database}"


def format_kafka_options(connection: KafkaConnection) -> dict[str, str]:
    """The connection's options as environment variables."""
    return {KAFKA_PREFIX + name.upper().replace(".", "_"): value for name, value in connection.options.items()}


def parse_partitions(env: Mapping[str, str]) -> int:
    text = env.get("DRIFTLOOP_PARTITIONS", "4")
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1000:
        raise ConfigurationError(
            f"{text!r} is not a number of partitions", key="DRIFTLOOP_PARTITIONS", remedy="Use 1 to 1000"
        )
    return int(text)


def read_privacy_key(folder: Path, env: Mapping[str, str]) -> bytes:
    """The secret that keys hashed fields and detector states: the variable's, else a file made once."""
    if text := env.get("DRIFTLOOP_PRIVACY_KEY"):
        return text.encode()
    path = folder / "privacy.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(path)) from error
    try:
        return make_privacy_key(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be written: {error.strerror}", file=str(path), remedy="Choose another folder with --data"
        ) from error


def make_privacy_key(path: Path) -> bytes:
    """A new key, or the one that another process made meanwhile; whole in either case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_hex(32).encode())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes()

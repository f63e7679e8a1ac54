"""The tables `versions` and `roles`: which models there are, and a copy of who has which role."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.events import RoleMap
from store.client import ClickHouse


class VersionRow(msgspec.Struct, kw_only=True):
    """One trained version; `sha256` is the hash of its artifact, `created_at` epoch ms."""

    model: str
    version: str
    job_id: str
    architecture: str
    metrics: dict[str, float]
    data_hash: str
    sha256: str
    uri: str
    reference_hash: str
    manifest: str
    card: str
    created_at: int


_COLUMNS = tuple(VersionRow.__struct_fields__)
_SELECTED = ", ".join(
    f"toUnixTimestamp64Milli({name}) AS {name}_ms" if name == "created_at" else name for name in _COLUMNS
)


def insert_version(ch: ClickHouse, version: VersionRow) -> None:
    """Record a version; safe to replay."""
    row = msgspec.structs.asdict(version)
    row["created_at"] = _instant(version.created_at)
    ch.insert_rows("versions", [row])


def read_version(ch: ClickHouse, model: str, version: str) -> VersionRow | None:
    """Return a version of a model, None if it has no such version of ours."""
    return _read_one(ch, "version = {value:String}", model, version)


def read_version_of_job(ch: ClickHouse, model: str, job_id: str) -> VersionRow | None:
    """Return the version that a job made, None if it has made none yet."""
    return _read_one(ch, "job_id = {value:String}", model, job_id)


def choose_version(ch: ClickHouse, model: str) -> str:
    """Return the number of a model's next version: one above all numbers that it, or an outside model, has used."""
    rows = ch.query(
        """
        SELECT max(toUInt64OrZero(version)) FROM
        (
            SELECT version FROM versions WHERE model = {model:String}
            UNION ALL SELECT DISTINCT model_version FROM predictions WHERE model = {model:String}
        )
        SETTINGS final = 0
        """,
        {"model": model},
    )
    return str(int(rows[0][0]) + 1)


def insert_roles(ch: ClickHouse, role_map: RoleMap) -> None:
    """Copy a role map that counts, a row per role; safe to replay."""
    shared = {
        "model": role_map.model,
        "epoch": role_map.epoch,
        "at": _instant(role_map.at),
        "changed_at": _instant(role_map.changed_at),
        "reason": role_map.reason,
        "job_id": role_map.job_id,
    }
    ch.insert_rows("roles", [{**shared, "role": role, "version": version} for role, version in role_map.roles.items()])


def _read_one(ch: ClickHouse, condition: str, model: str, value: str) -> VersionRow | None:
    sql = f"SELECT {_SELECTED} FROM versions FINAL WHERE model = {{model:String}} AND {condition} LIMIT 1"  # noqa: S608
    rows: list[tuple[Any, ...]] = ch.query(sql, {"model": model, "value": value})
    return VersionRow(**dict(zip(_COLUMNS, rows[0], strict=True))) if rows else None


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

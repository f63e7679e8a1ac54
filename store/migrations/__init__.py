"""Numbered migrations: what stands in the `.sql` files beside this module is what the database becomes.

Every statement can be run again (`IF NOT EXISTS`), so several processes may start at once.
"""

import re
from pathlib import Path
from typing import NamedTuple

from schemas.connections import ClickHouseConnection
from schemas.errors import DriftloopError
from store.client import ClickHouse

FOLDER = Path(__file__).parent


class Migration(NamedTuple):
    """One file: its name without suffix, and its statements in order."""

    name: str
    statements: list[str]


def load_migrations(folder: Path = FOLDER) -> list[Migration]:
    """All migrations in the order of their numbers."""
    return [Migration(path.stem, split_statements(path.read_text())) for path in sorted(folder.glob("[0-9]*.sql"))]


def split_statements(text: str) -> list[str]:
    """Statements of a file: they end with a semicolon at the end of a line; comment lines are left out."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", code) if part.strip()]


def migrate(ch: ClickHouse) -> list[str]:
    """Create the database and apply the migrations that it lacks; returns their names.

    Safe to repeat and to run in several processes at the same time.
    """
    _create_database(ch.connection)
    ch.command(
        "CREATE TABLE IF NOT EXISTS migrations (name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
        "ENGINE = ReplacingMergeTree ORDER BY name"
    )
    applied = {str(name) for (name,) in ch.query("SELECT name FROM migrations")}
    known = load_migrations()
    _refuse_newer(applied, {migration.name for migration in known})
    missing = [migration for migration in known if migration.name not in applied]
    for migration in missing:
        for statement in migration.statements:
            ch.command(statement)
        ch.insert_rows("migrations", [{"name": migration.name}])
    return [migration.name for migration in missing]


def _create_database(connection: ClickHouseConnection) -> None:
    server = ClickHouse(ClickHouseConnection(connection.url, connection.user, connection.password, "default"))
    try:
        if not server.query("SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": connection.database}):
            server.command(
                "CREATE DATABASE IF NOT EXISTS {name:Identifier} ENGINE = Atomic", {"name": connection.database}
            )
    finally:
        server.close()


def _refuse_newer(applied: set[str], known: set[str]) -> None:
    unknown = sorted(applied - known)
    if unknown:
        raise DriftloopError(
            f"the database was migrated by a newer release (it has {', '.join(unknown)}); start that release instead"
        )


def list_pending(ch: ClickHouse) -> list[str]:
    """Names of the migrations that have not run; all of them where the database is missing."""
    known = [migration.name for migration in load_migrations()]
    server = ClickHouse(ClickHouseConnection(ch.connection.url, ch.connection.user, ch.connection.password, "default"))
    try:
        there = server.query(
            "SELECT 1 FROM system.tables WHERE database = {database:String} AND name = 'migrations'",
            {"database": ch.connection.database},
        )
    finally:
        server.close()
    applied = {str(name) for (name,) in ch.query("SELECT name FROM migrations")} if there else set()
    return [name for name in known if name not in applied]

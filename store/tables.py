"""The declared tables, read from the migrations, and how the live ones differ from them."""

import re

from store.client import ClickHouse
from store.migrations import Migration, load_migrations

_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\s*\(\n(.*?)\n\)\s*ENGINE", re.S)
_DROP = re.compile(r"DROP TABLE IF EXISTS (\w+)")
_ADD = re.compile(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (.*)", re.S)
_VIEW = re.compile(r"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?(\w+)")
_COLUMN = re.compile(r"(\w+)\s+(.*?)(?:\s+(?:DEFAULT|MATERIALIZED|CODEC|AFTER)\b.*)?$", re.S)


def declared_tables(migrations: list[Migration] | None = None) -> dict[str, dict[str, str]]:
    """Columns with their types of every table that the migrations make."""
    tables: dict[str, dict[str, str]] = {}
    for migration in load_migrations() if migrations is None else migrations:
        for statement in migration.statements:
            if made := _CREATE.search(statement):
                tables[made[1]] = dict(_column(text) for text in _split_columns(made[2]))
            elif dropped := _DROP.match(statement):
                tables.pop(dropped[1], None)
            elif added := _ADD.match(statement):
                tables[added[1]].update([_column(added[2])])
    return tables


def declared_views(migrations: list[Migration] | None = None) -> set[str]:
    """Names of the views that the migrations make."""
    statements = [s for migration in migrations or load_migrations() for s in migration.statements]
    return {made[1] for statement in statements if (made := _VIEW.match(statement))}


def diff_tables(ch: ClickHouse) -> list[str]:
    """Every difference of the live tables from the declared ones, in words; none after `migrate`."""
    live: dict[str, dict[str, str]] = {}
    for table, column, kind in ch.query(
        "SELECT table, name, type FROM system.columns WHERE database = {database:String} ORDER BY table, position",
        {"database": ch.connection.database},
    ):
        live.setdefault(table, {})[column] = kind
    differences = [f"view {name} is missing" for name in sorted(declared_views() - live.keys())]
    for table, columns in declared_tables().items():
        if table not in live:
            differences.append(f"table {table} is missing")
            continue
        for column in columns.keys() | live[table].keys():
            expected, actual = columns.get(column), live[table].get(column)
            if expected != actual:
                differences.append(f"{table}.{column} is {actual or 'missing'}, declared {expected or 'not at all'}")
    return sorted(differences)


def _split_columns(text: str) -> list[str]:
    """Column declarations of a CREATE TABLE: separated by the commas outside of parentheses."""
    text = re.sub(r"--[^\n]*", "", text)
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _column(text: str) -> tuple[str, str]:
    found = _COLUMN.match(text.strip())
    assert found is not None, f"not a column: {text!r}"
    return found[1], " ".join(found[2].split())

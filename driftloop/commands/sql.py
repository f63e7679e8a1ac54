"""`driftloop sql`"""

from __future__ import annotations

import click
from clickhouse_connect.driver.exceptions import DatabaseError

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import print_rows
from schemas.errors import ConfigurationError


@click.command(short_help="Query the facts.")
@click.argument("query")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header.")
@click.pass_obj
def sql(context: Context, query: str, as_json: bool, as_csv: bool) -> None:
    """Run QUERY in ClickHouse, database driftloop.

    \b
    Example:  driftloop sql "SELECT window_start, metric, value, status FROM measurements_now LIMIT 5"
    """
    with open_store(context.settings.runtime) as store:
        try:
            columns, rows = store.query_named(query)
        except DatabaseError as error:
            raise ConfigurationError(str(error).splitlines()[0]) from error
    print_rows(columns, rows, as_json, as_csv)

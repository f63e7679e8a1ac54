"""`driftloop models`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import print_rows
from store.overview import read_health, read_versions

HEALTH_COLUMNS = (
    "model", "health", "champion", "model_version", "window_end", "metric", "realized", "estimated", "lower",
    "label_coverage", "num_drifted_features", "num_open_alerts",
)  # fmt: skip


@click.command(short_help="List models, or the versions of one.")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def models(context: Context, model: str | None, as_json: bool) -> None:
    """One line per model: its health and last measured window. With MODEL: its trained versions and their roles.

    \b
    Example:  driftloop models
              driftloop models fraud --json
    """
    with open_store(context.settings.runtime) as store:
        rows = read_versions(store, model) if model else read_health(store)
    columns = ("version", "role", "architecture", "metrics", "job_id", "created_at") if model else HEALTH_COLUMNS
    print_rows(columns, [[row[name] for name in columns] for row in rows], as_json)

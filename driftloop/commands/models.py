"""`driftloop models`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import print_rows
from schemas.events import RoleMap
from store.overview import read_health, read_outside_roles, read_versions

HEALTH_COLUMNS = (
    "model", "health", "champion", "model_version", "window_end", "metric", "realized", "estimated", "lower",
    "label_coverage", "num_drifted_features", "num_open_alerts",
)  # fmt: skip
VERSION_COLUMNS = ("version", "role", "architecture", "metrics", "job_id", "created_at")


@click.command(short_help="List models, or the versions of one.")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def models(context: Context, model: str | None, as_json: bool) -> None:
    """One line per model: its health and last measured window. With MODEL: its versions and their roles.

    Roles are champion, challenger and shadow, which score every record, and retired; a version without one was refused.

    \b
    Example:  driftloop models
              driftloop models fraud --json
    """
    with open_store(context.settings.runtime) as store:
        rows = read_outside_roles(store, model) + read_versions(store, model) if model else read_health(store)
    columns = VERSION_COLUMNS if model else HEALTH_COLUMNS
    print_rows(columns, [[row.get(name) for name in columns] for row in rows], as_json)


def print_roles(role_map: RoleMap) -> None:
    """Say who has which role now."""
    click.echo(f"{role_map.model}, epoch {role_map.epoch}:")
    for role, version in role_map.roles.items():
        click.echo(f"  {role:10} {version}")

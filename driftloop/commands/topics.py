"""`driftloop topics`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from store.log import apply_topics, diff_topics
from store.migrations import migrate


@click.group(short_help="Make the cluster's topics match the declared ones.")
def topics() -> None:
    """Compare the declared topics with the cluster's, or make them match.

    \b
    Example:  driftloop topics diff
              driftloop topics apply
    """


@topics.command()
@click.option("--migrate", "with_tables", is_flag=True, help="Also bring ClickHouse's tables to this release's.")
@click.pass_obj
def apply(context: Context, with_tables: bool) -> None:
    """Create what is missing and set what differs. Partition counts are never changed."""
    runtime = context.settings.runtime
    changes = [str(change) for change in apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)]
    if with_tables:
        with open_store(runtime) as store:
            changes += [f"migration {name}" for name in migrate(store)]
    click.echo("\n".join(changes) if changes else "nothing to change")


@topics.command()
@click.pass_obj
def diff(context: Context) -> None:
    """Print what `apply` would change; exit 1 when there is anything."""
    runtime = context.settings.runtime
    changes = diff_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    click.echo("\n".join(map(str, changes)) if changes else "the cluster matches")
    if changes:
        raise SystemExit(1)

"""`driftloop topics`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from store.log import apply_topics, diff_topics


@click.group(short_help="Make the cluster's topics match the declared ones.")
def topics() -> None:
    """Compare the declared topics with the cluster's, or make them match.

    \b
    Example:  driftloop topics diff
              driftloop topics apply
    """


@topics.command()
@click.pass_obj
def apply(context: Context) -> None:
    """Create what is missing and set what differs. Partition counts are never changed."""
    runtime = context.settings.runtime
    changes = apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    click.echo("\n".join(changes) if changes else "nothing to change")


@topics.command()
@click.pass_obj
def diff(context: Context) -> None:
    """Print what `apply` would change; exit 1 when there is anything."""
    runtime = context.settings.runtime
    changes = diff_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    click.echo("\n".join(changes) if changes else "the cluster matches")
    if changes:
        raise SystemExit(1)

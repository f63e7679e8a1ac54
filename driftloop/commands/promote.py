"""`driftloop promote`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.commands.models import print_roles
from driftloop.naming_champion import promote_version


@click.command(short_help="Make a version the champion.")
@click.argument("model")
@click.argument("version")
@click.option("--reason", default="promoted by hand", show_default=True, help="Kept with the roles.")
@click.pass_obj
def promote(context: Context, model: str, version: str, reason: str) -> None:
    """Make VERSION the champion of MODEL, and the present champion its shadow; `external` is the model outside.

    No gate is asked. If somebody else changes the roles at the same moment, one of the two is told who was first.

    \b
    Example:  driftloop promote fraud 7 --reason "approved by the risk board"
              driftloop promote fraud external
    """
    print_roles(promote_version(context.settings.runtime, model, version, reason))

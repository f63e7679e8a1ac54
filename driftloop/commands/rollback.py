"""`driftloop rollback`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.commands.models import print_roles
from driftloop.naming_champion import roll_back_model


@click.command(short_help="Go back to the champion before.")
@click.argument("model")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Kept with the roles.")
@click.pass_obj
def rollback(context: Context, model: str, reason: str) -> None:
    """Give the champion's place back to its shadow, which was champion before; the champion is retired.

    \b
    Example:  driftloop rollback fraud --reason "complaints from the branch"
    """
    print_roles(roll_back_model(context.settings.runtime, model, reason))

"""`driftloop subscribe`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import print_rows
from schemas.clock import SystemClock
from schemas.errors import ConfigurationError
from store import subscriptions

SEVERITIES = ("info", "low", "high", "critical")
COLUMNS = ("name", "model", "severity_min", "url", "disabled", "reason")


@click.command(short_help="Have alerts delivered to a webhook.")
@click.option("--model", default="", help="Of one model; default: of all.")
@click.option("--severity", type=click.Choice(SEVERITIES), default="low", show_default=True, help="… and above.")
@click.option("--url", help="Where to POST to: Alertmanager's payload, signed as Standard Webhooks have it.")
@click.option("--name", help="Default: made from model and URL; the same name again replaces.")
@click.option("--list", "list_all", is_flag=True, help="List the subscriptions.")
@click.option("--remove", metavar="NAME", help="Take a subscription back.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def subscribe(
    context: Context, model: str, severity: str, url: str | None, name: str | None, list_all: bool, remove: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Deliver alerts of a model to a webhook; prints the secret that its signatures are made with.

    \b
    Example:  driftloop subscribe --model fraud --severity high --url https://example.com/hook
              driftloop subscribe --list
    """
    with open_store(context.settings.runtime) as store:
        if list_all:
            rows = subscriptions.list_subscriptions(store)
            print_rows(COLUMNS, [[getattr(row, column) for column in COLUMNS] for row in rows], as_json)
        elif remove:
            if not subscriptions.remove_subscription(store, remove, SystemClock().now_ms()):
                raise ConfigurationError(
                    f"there is no subscription {remove!r}", remedy="See driftloop subscribe --list"
                )
            click.echo(f"removed {remove}")
        elif url:
            added = subscriptions.add_subscription(
                store, name=name, model=model, severity_min=severity, url=url, now_ms=SystemClock().now_ms()
            )
            click.echo(f"subscribed {added.name}; signing secret: {added.secret}")
        else:
            raise ConfigurationError("say where to deliver to", key="--url", remedy="Or use --list or --remove")

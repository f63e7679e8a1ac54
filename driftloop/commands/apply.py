"""`driftloop apply`"""

from __future__ import annotations

from pathlib import Path

import click

from driftloop.applying import apply_spec
from driftloop.cli import Context
from schemas.instants import format_instant


@click.command(short_help="Declare a model, or change it.")
@click.argument("spec", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def apply(context: Context, spec: Path) -> None:
    """Validate SPEC, freeze its reference in ClickHouse, and publish it; every process follows within seconds.

    \b
    Example:  driftloop apply fraud.yaml
    """
    published, changed = apply_spec(context.settings.runtime, spec)
    name = f"{published.model}, spec version {published.spec_version}"
    if not changed:
        click.echo(f"{name}: nothing changed")
        return
    since = f"from {format_instant(published.effective_from)}" if published.effective_from else "for all times"
    click.echo(
        f"{name}: {len(published.spec.features)} features, {published.reference_rows} reference rows, in force {since}"
    )

"""`driftloop card`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.naming_champion import EXTERNAL, open_roles
from driftloop.printing import print_rows
from retrain.role_maps import CHAMPION
from schemas.errors import ConfigurationError
from store.gates import Gate, read_gates
from store.overview import read_versions
from store.versions import VersionRow, read_version

GATE_COLUMNS = ("name", "segment", "passed", "value", "limit", "words")


@click.command(short_help="Print a version's model card.")
@click.argument("model")
@click.argument("version", required=False)
@click.option("--gates", is_flag=True, help="Only the gates, with what the clock measured.")
@click.option("--json", "as_json", is_flag=True, help="With --gates: print one JSON array.")
@click.pass_obj
def card(context: Context, model: str, version: str | None, gates: bool, as_json: bool) -> None:
    """The model card of VERSION of MODEL (default: the champion): data, figures, gates, lineage.

    \b
    Example:  driftloop card fraud
              driftloop card fraud 7 --gates
    """
    row, found = find_version(context, model, version)
    if gates or as_json:
        print_rows(GATE_COLUMNS, [[getattr(gate, name) for name in GATE_COLUMNS] for gate in found], as_json)
    else:
        click.echo(row.card)


def find_version(context: Context, model: str, version: str | None) -> tuple[VersionRow, list[Gate]]:
    """Return a version (None: the champion) with its gates; ConfigurationError naming those there are."""
    with open_roles(context.settings.runtime) as (store, roles):
        chosen = version or roles.find_champion(model) or EXTERNAL
        row = read_version(store, model, chosen)
        if row is None:
            known = [str(each["version"]) for each in read_versions(store, model)]
            is_outside = chosen == EXTERNAL and known
            raise ConfigurationError(
                f"{model} has no version {chosen!r} of ours" + (f" (its {CHAMPION} is outside)" if is_outside else ""),
                key="VERSION",
                remedy=f"There are: {', '.join(known) or 'none'}",
            )
        return row, read_gates(store, model, chosen)

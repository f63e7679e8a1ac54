"""`driftloop jobs`"""

from __future__ import annotations

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import print_rows
from store.overview import read_jobs

COLUMNS = ("model", "state", "verdict", "reason", "version", "num_train_rows", "num_gate_rows", "requested_at",
           "finished_at", "job_id")  # fmt: skip


@click.command(short_help="List retraining jobs.")
@click.option("--model", default="", help="Of one model only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def jobs(context: Context, model: str, as_json: bool) -> None:
    """Every retraining: what it waits for, or what came of it.

    \b
    Example:  driftloop jobs --model fraud
    """
    with open_store(context.settings.runtime) as store:
        rows = read_jobs(store, model)
    for row in rows:
        # A finished job's reason is its verdict, and long: once is enough.
        if not as_json and row["reason"] == row["verdict"]:
            row["reason"] = ""
    print_rows(COLUMNS, [[row[name] for name in COLUMNS] for row in rows], as_json)

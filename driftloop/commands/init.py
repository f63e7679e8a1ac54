"""`driftloop init`"""

from __future__ import annotations

from pathlib import Path

import click

from driftloop.cli import Context
from driftloop.initialising import Roles, write_spec
from driftloop.replay.source import read_table


@click.command(short_help="Write a spec from data.")
@click.argument("data", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", help="Default: the file's name.")
@click.option("--task", type=click.Choice(["binary", "multiclass", "regression"]), help="Default: from the label.")
@click.option("--label-column", help="Default: a column named label, target or y.")
@click.option("--score-column", help="Default: a column named score, y_proba or y_pred_proba. Multiclass: 'proba_*'.")
@click.option("--prediction-column", help="Default: a column named prediction or y_pred.")
@click.option("--id-column", help="Default: a column named id or record_id.")
@click.option("--time-column", help="Default: a column named ts, time or timestamp.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: MODEL.yaml beside DATA.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.pass_obj
def init(
    _context: Context, data: Path, model: str | None, task: str | None, label_column: str | None,
    score_column: str | None, prediction_column: str | None, id_column: str | None, time_column: str | None,
    output: Path | None, force: bool,
) -> None:  # fmt: skip
    """Look at DATA (CSV or Parquet), guess the features' types, and write a spec to start from.

    \b
    Example:  driftloop init reference.parquet --model fraud --label-column repaid
    """
    roles = Roles(label_column, score_column, prediction_column, id_column, time_column)
    path, task_found = write_spec(read_table(data), data, model, task, roles, output, force)
    click.echo(f"wrote {path} ({task_found}); read it, then `driftloop apply {path}`")

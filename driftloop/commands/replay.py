"""`driftloop replay`"""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from driftloop.cli import Context
from driftloop.parameters import DURATION, INSTANT, SPEED
from driftloop.printing import encode_json, make_console
from driftloop.published import find_published
from driftloop.replay.driver import Pace, Replay, Step
from driftloop.replay.driver import Progress as Sent
from driftloop.replay.source import ReplayColumns, build_source, read_table


@click.command(short_help="Turn a CSV or Parquet file into a stream of events.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", required=True, help="The model that the rows belong to; it must have been applied.")
@click.option("--model-version", help="Version that gave the scores (default: external).")
@click.option("--time-column", help="Event time: RFC 3339, or epoch milliseconds.")
@click.option("--start", type=INSTANT, help="Without a time column: time of the first row.")
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="… and from row to row.")
@click.option("--id-column", help="Default: the file's name and the row's number.")
@click.option("--label-column", help="The truth; with --labels the column of that file.")
@click.option("--label-delay", type=DURATION, default="0s", help="How long after its record a label arrives.")
@click.option("--labels", "labels_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Labels in a file of their own, matched by the id.")  # fmt: skip
@click.option("--prediction-column", help="What the model said.")
@click.option("--score-column", help="Probability of class 1; for multiclass a pattern such as 'proba_*'.")
@click.option("--speed", type=SPEED, default="max", show_default=True, help="max, or event time over clock time: 60x.")
@click.option("--lockstep", is_flag=True,
              help="Hold each window back until the last one is measured, scored, and no job runs.")  # fmt: skip
@click.option("--drain", is_flag=True, help="At the end, wait until every measurement is in ClickHouse.")
@click.option("--timeout", type=DURATION, default="10m", show_default=True, help="Longest wait for one window.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_obj
def replay(
    context: Context, file: Path, model: str, model_version: str | None, time_column: str | None, start: int | None,
    interval: int, id_column: str | None, label_column: str | None, label_delay: int, labels_file: Path | None,
    prediction_column: str | None, score_column: str | None, speed: float | None, lockstep: bool, drain: bool,
    timeout: int, as_json: bool,
) -> None:  # fmt: skip
    """Send the rows of FILE as events: features to `records`, outputs to `predictions`, labels to `labels`.

    Safe to repeat: events keep their ids, and equal events count once.

    \b
    Example:  driftloop replay loans.csv --model fraud --time-column at --id-column id \\
                --score-column y_proba --label-column repaid --label-delay 30d --drain
    """
    runtime = context.settings.runtime
    spec = find_published(runtime, model).spec
    columns = ReplayColumns(
        time=time_column, start_ms=start, interval_ms=interval, record_id=id_column, label=label_column,
        label_delay_ms=label_delay, labels_file=labels_file, prediction=prediction_column, score=score_column,
    )  # fmt: skip
    source = build_source(read_table(file), file, spec, columns)
    for note in source.notes:
        click.echo(f"note: {note}", err=True)
    run = Replay(runtime, spec, source, Pace(speed, lockstep, drain), model_version)
    sent = show_progress(run, timeout / 1000) if make_console().is_terminal else run.run(timeout / 1000)
    summary = {
        "model": model, "records": sent.num_records, "predictions": sent.num_predictions, "labels": sent.num_labels,
        "windows": sent.num_windows,
    }  # fmt: skip
    if as_json:
        click.echo(encode_json([summary]))
    else:
        click.echo(
            f"sent {sent.num_records} records, {sent.num_predictions} predictions and {sent.num_labels} labels "
            f"of {model} in {sent.num_windows} windows" + ("; all measured" if drain else "")
        )


def show_progress(run: Replay, timeout_s: float) -> Sent:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("windows", total=len(run.steps))

        def advance(_step: Step, _sent: Sent) -> None:
            bar.advance(task)

        run.on_step = advance
        return run.run(timeout_s)

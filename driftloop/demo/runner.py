"""The demo from an empty folder to a kept promise: servers, specs, two replays at once, the story, the checks."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.table import Table

from driftloop.applying import apply_spec
from driftloop.demo import truths
from driftloop.demo.checks import (
    Facts,
    Grid,
    Promise,
    SideBySide,
    check_car_loan,
    check_employment,
    compare_side_by_side,
)
from driftloop.demo.datasets import unpack_datasets
from driftloop.demo.story import Story
from driftloop.printing import print_table
from driftloop.replay.driver import Pace, Replay
from driftloop.replay.source import ReplayColumns, ReplaySource, build_source, read_table
from driftloop.settings import read_settings
from driftloop.stack import Stack, hold_folder
from schemas.connections import Runtime
from schemas.errors import DriftloopError
from schemas.spec import PublishedSpec
from store.client import ClickHouse
from store.log.offsets import wait_for_log

WINDOW_TIMEOUT_S = 240.0
LABEL_DELAY_MS = 5_000_000
MODELS = {"employment": truths.EMPLOYMENT_WINDOWS, "car_loan": truths.CAR_LOAN_WINDOWS}
COLUMNS = {
    "employment": ("employed", "prediction", "predicted_probability"),
    "car_loan": ("repaid", "y_pred", "y_pred_proba"),
}
QUERIES = (
    "SELECT model, rule, severity, state, reason FROM alerts ORDER BY model, at, state",
    (
        "SELECT model, window_start, model_version, round(realized, 4) AS realized, round(estimated, 4) AS estimated, "
        "realized_status AS status FROM performance_by_segment "
        "WHERE metric = 'roc_auc' AND realized_status = 'alert' ORDER BY model, window_start, model_version"
    ),
    "SELECT model, job_state, verdict, version, role, num_train_rows, substring(sha256, 1, 12) AS sha256 FROM lineage",
)


@dataclass(slots=True)
class Outcome:
    """What the demo promised and found."""

    promises: list[Promise]
    seconds: float

    @property
    def kept(self) -> bool:
        return all(promise.kept for promise in self.promises)


def find_free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def prepare_folder(data: Path) -> None:
    """Empty the demo's folder, unless another instance runs on it."""
    with hold_folder(data):
        for child in data.iterdir():
            if child.name in ("up.lock", "privacy.key"):
                continue
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def run_demo(data: Path, console: Console) -> Outcome:
    """Run the demo in `data`, which is emptied first; raises when something is not up or does not come in time."""
    prepare_folder(data)
    tables = unpack_datasets(data / "datasets")
    for name in MODELS:
        text = resources.files("driftloop.demo").joinpath(f"specs/{name}.yaml").read_text()
        (data / "datasets" / f"{name}.yaml").write_text(text)
    kafka_port, clickhouse_port = find_free_ports(2)
    with hold_folder(data):
        stack = Stack(read_settings(data), kafka_port, clickhouse_port, console.print)
        try:
            console.print("starting the servers and the roles …")
            stack.start()
            return tell(stack.runtime, tables, console)
        finally:
            stack.stop()


def tell(runtime: Runtime, tables: dict[str, Path], console: Console) -> Outcome:
    wait_for_log(runtime.kafka, 30.0)
    store = ClickHouse(runtime.clickhouse)
    try:
        published = {name: apply_spec(runtime, tables[name].with_suffix(".yaml"))[0] for name in MODELS}
        sources = {name: read_source(published[name], tables) for name in MODELS}
        first_ms = int(sources["employment"].ts_ms[0])
        story = Story(runtime.clickhouse, console, MODELS, first_ms, truths.ROWS * 1000)
        for name, source in sources.items():
            story.say(name, f"{published[name].reference_rows} reference rows; {source.num_rows} rows to come")
        story.start()
        errors = replay_all(runtime, published, sources, story)
        story.close()
        if errors:
            raise DriftloopError("; ".join(errors))
        seconds = story.elapsed_s()
        outcome = Outcome(list(check_all(store, Grid(first_ms, truths.ROWS * 1000), console)), seconds)
        show_queries(store, console)
        return outcome
    finally:
        store.close()


def read_source(published: PublishedSpec, tables: dict[str, Path]) -> ReplaySource:
    name = published.model
    label, prediction, score = COLUMNS[name]
    columns = ReplayColumns(
        record_id="id", label=label, labels_file=tables[f"{name}_labels"], label_delay_ms=LABEL_DELAY_MS,
        prediction=prediction, score=score,
    )  # fmt: skip
    return build_source(read_table(tables[name]), tables[name], published.spec, columns)


def replay_all(
    runtime: Runtime, published: dict[str, PublishedSpec], sources: dict[str, ReplaySource], story: Story
) -> list[str]:
    """Both replays at once; returns what went wrong."""
    errors: list[str] = []

    def run(name: str) -> None:
        try:
            replay = Replay(runtime, published[name].spec, sources[name], Pace(lockstep=True, drain=True))
            replay.on_step = lambda step, sent: story.tell_step(name, step, sent)
            replay.run(WINDOW_TIMEOUT_S)
        except Exception as error:
            errors.append(f"{name}: {error}")

    # Daemons: a demo that is ended must not wait for what it waited for.
    threads = [threading.Thread(target=run, args=(name,), name=f"replay-{name}", daemon=True) for name in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def check_all(store: ClickHouse, grid: Grid, console: Console) -> Iterator[Promise]:
    employment = Facts(store, "employment", grid)
    car_loan = Facts(store, "car_loan", grid)
    promoted = [job for job in car_loan.jobs if job["state"] == "promoted"]
    both = None
    if promoted:
        first, last = truths.CAR_LOAN_JUDGED
        both = compare_side_by_side(store, "car_loan", promoted[0]["version"], grid.start(first), grid.start(last + 1))
    show_car_loan(car_loan, promoted[0]["version"] if promoted else "", both, console)
    yield from check_employment(employment)
    yield from check_car_loan(car_loan, both)


def show_car_loan(facts: Facts, version: str, both: SideBySide | None, console: Console) -> None:
    title = "car loan, ROC AUC per window: the old model, and the new champion beside it"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("window", "old, estimated", "old, realized", "new, estimated", "new, realized"):
        table.add_column(name, justify="right")
    columns = [facts.values(kind, v) for v in ("external", version) for kind in ("estimate", "performance")]
    for number in range(truths.CAR_LOAN_WINDOWS):
        table.add_row(str(number), *(f"{values[number]:.4f}" if number in values else "" for values in columns))
    console.print()
    console.print(table)
    if both:
        console.print(
            f"windows 8 and 9 together: AUC {both.new_auc:.4f} against {both.old_auc:.4f}; log loss "
            f"{both.new_log_loss:.4f} against {both.old_log_loss_recalibrated:.4f} (the old model recalibrated)"
        )


def show_queries(store: ClickHouse, console: Console) -> None:
    for query in QUERIES:
        console.print(f'\n[bold]driftloop sql "{query}"[/]', soft_wrap=True)
        columns, rows = store.query_named(query)
        print_table(columns, rows)


def show_promises(outcome: Outcome, console: Console) -> None:
    console.print()
    for promise in outcome.promises:
        mark = "[green]kept  [/]" if promise.kept else "[bold red]BROKEN[/]"
        console.print(f"{mark}  {promise.text}", soft_wrap=True)
        if not promise.kept:
            console.print(f"        found: {promise.found}", soft_wrap=True, markup=False)


def folder_in_words(data: Path) -> str:
    return os.path.relpath(data)

"""How much memory does it take to read a job's rows and encode them, and how much more for each row?

Rows of 10 numbers, 2 categories and a label lie in ClickHouse; a process of its own takes the snapshot, fits the
preprocessing, encodes, learns from all rows once, and tells the most private memory that it held until then. It does so
for all rows, and for a quarter of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.processes import read_memory
from bench.results import Result
from bench.surroundings import Options, run_servers, separate
from schemas.connections import ClickHouseConnection
from schemas.spec import FeatureSpec, TrainingSpec
from store.client import ClickHouse
from store.migrations import migrate

MODEL = "rows"
START_MS, INTERVAL_MS = 1_767_000_000_000, 10
NUM_NUMBERS, NUM_CATEGORIES = 10, 2
FILLED_ROWS = 5_000_000


def run(options: Options) -> Iterator[Result]:
    num_rows = 2_000_000 if options.short else 20_000_000
    with run_servers(options) as servers:
        connection = separate(servers.runtime, "snapshot").clickhouse
        ch = ClickHouse(connection)
        try:
            migrate(ch)
            fill(ch, num_rows)
        finally:
            ch.close()
        few, told = (read_in_process(connection, count) for count in (num_rows // 4, num_rows))
        server_mib = read_memory(servers.pids["clickhouse"]).peak_mib
    named = f"{num_rows / 1e6:g} M rows, {told['columns_mib']:.0f} MiB as columns"
    for step, words in (
        ("snapshot", f"reading a snapshot ({named})"),
        ("encoded", f"fitting and encoding ({told['rows_mib']:.0f} MiB)"),
        ("trained", "learning from all rows once"),
    ):
        own = told[f"{step}_mib"] - told["imported_mib"]
        a_row = (told[f"{step}_mib"] - few[f"{step}_mib"]) * 2**20 / (num_rows - num_rows // 4)
        seconds = told[f"{step}_s"]
        yield Result(f"{words}: memory over the interpreter's", own, f"MiB; {a_row:.1f} bytes a row; {seconds:.0f} s")
    yield Result("the server meanwhile, filling included: most resident memory", server_mib, "MiB")


def fill(ch: ClickHouse, num_rows: int) -> None:
    """Let the server make the rows."""
    numbers = ", ".join(f"'n{place}', rand({place}) / 4294967295" for place in range(NUM_NUMBERS))
    texts = ", ".join(f"'c{place}', toString(rand({place + 100}) % 20)" for place in range(NUM_CATEGORIES))
    shared = (
        f"'{MODEL}' AS model, concat('r', toString(number)) AS record_id, "
        f"fromUnixTimestamp64Milli(toInt64({START_MS} + number * {INTERVAL_MS}), 'UTC') AS ts, "
        "'bench' AS topic, '00000000-0000-0000-0000-000000000001' AS topic_id, "
        "toUInt32(0) AS partition, number AS offset, toUInt32(0) AS row"
    )
    for kind, columns in (
        ("records", f"map({numbers}) AS features, map({texts}) AS features_text"),
        ("labels", "toFloat64(rand(7) % 2) AS label, '' AS label_text"),
    ):
        names = [part.rsplit(" AS ", 1)[1] for part in f"{shared}, {columns}".split(", ") if " AS " in part]
        for start in range(0, num_rows, FILLED_ROWS):
            numbers_of = f"numbers({start}, {min(FILLED_ROWS, num_rows - start)})"
            ch.command(f"INSERT INTO {kind} ({', '.join(names)}) SELECT {shared}, {columns} FROM {numbers_of}")


def read_in_process(connection: ClickHouseConnection, num_rows: int) -> dict[str, float]:
    made = subprocess.run(
        [sys.executable, "-m", "bench.bench_snapshot", connection.url, connection.database, str(num_rows)],
        check=True, capture_output=True, text=True, timeout=3_600,
    )  # fmt: skip
    told: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return told


def main(url: str, database: str, num_rows: int) -> None:
    """Take the snapshot, encode it, train an epoch, and print what that took as one line of JSON."""
    from retrain.device import choose_device, pin_threads
    from retrain.limits import MemoryWatch
    from retrain.network import configure_network
    from retrain.preprocessing import fit_preprocessing
    from retrain.snapshot import take_snapshot
    from retrain.target import fit_target
    from retrain.tensors import TrainingRows
    from retrain.training import configure_training, train_network

    watch, told = MemoryWatch(), {}
    began_s = time.monotonic()

    def note(step: str) -> None:
        told[f"{step}_mib"], told[f"{step}_s"] = watch.read_peak_bytes() / 2**20, time.monotonic() - began_s

    pin_threads()
    features = {f"n{place}": FeatureSpec(type="number") for place in range(NUM_NUMBERS)}
    features |= {f"c{place}": FeatureSpec(type="category") for place in range(NUM_CATEGORIES)}
    note("imported")
    ch = ClickHouse(ClickHouseConnection(url, database=database))
    rows = take_snapshot(ch, MODEL, "binary", features, START_MS, START_MS + num_rows * INTERVAL_MS)
    ch.close()
    assert rows.num_rows == num_rows, rows.num_rows
    note("snapshot")
    told["columns_mib"] = rows.table.nbytes / 2**20
    preprocessing, target = fit_preprocessing(rows.read_features(), features), fit_target("binary", rows.labels)
    encoded, truth = preprocessing.encode(rows.read_features()), target.encode(rows.labels)
    del rows
    note("encoded")
    data = TrainingRows.load(encoded, truth, choose_device("cpu"))
    told["rows_mib"] = data.inputs.num_bytes / 2**20
    network = configure_network("linear", preprocessing, target)
    spec = TrainingSpec(epochs=1, early_stopping="none")
    train_network(network, target, data, configure_training(num_rows, 0, network, spec), lambda _: None)
    note("trained")
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""How much memory does it take to read a job's rows and encode them, against what they are as columns?

Some million rows (10 numbers, 2 categories, a label) lie in ClickHouse; a process of its own takes the snapshot, fits
the preprocessing, encodes, and tells its highest resident memory after each step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from bench.processes import read_memory
from bench.results import Result
from bench.surroundings import Options, run_servers, separate
from schemas.connections import ClickHouseConnection
from schemas.spec import FeatureSpec
from store.client import ClickHouse
from store.migrations import migrate

MODEL = "rows"
START_MS, INTERVAL_MS = 1_767_000_000_000, 10
NUM_NUMBERS, NUM_CATEGORIES = 10, 2


def run(options: Options) -> Iterator[Result]:
    num_rows = 500_000 if options.short else 4_000_000
    with run_servers(options) as servers:
        connection = separate(servers.runtime, "snapshot").clickhouse
        ch = ClickHouse(connection)
        try:
            migrate(ch)
            fill(ch, num_rows)
        finally:
            ch.close()
        told = read_in_process(connection, num_rows)
    base, size = told["imported_mib"], told["columns_mib"]
    named = f"{num_rows / 1e6:g} M rows, {size:.0f} MiB as columns"
    yield Result(f"reading a snapshot ({named}): memory over the interpreter's", told["snapshot_mib"] - base, "MiB")
    yield Result(f"encoding it, columns and encoded rows ({told['encoded_mib']:.0f} MiB) together",
                 told["encoded_peak_mib"] - base, "MiB")  # fmt: skip
    yield Result(
        "the highest memory over that of the rows as columns", (told["encoded_peak_mib"] - base) / size, "times"
    )


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
        ch.command(f"INSERT INTO {kind} ({', '.join(names)}) SELECT {shared}, {columns} FROM numbers({num_rows})")


def read_in_process(connection: ClickHouseConnection, num_rows: int) -> dict[str, float]:
    made = subprocess.run(
        [sys.executable, "-m", "bench.bench_snapshot", connection.url, connection.database, str(num_rows)],
        check=True, capture_output=True, text=True, timeout=1_800,
    )  # fmt: skip
    told: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return told


def main(url: str, database: str, num_rows: int) -> None:
    """Take the snapshot, encode it, and print what memory that took as one line of JSON."""
    import os

    from retrain.preprocessing import fit_preprocessing
    from retrain.snapshot import take_snapshot
    from retrain.tensors import Inputs

    features = {f"n{place}": FeatureSpec(type="number") for place in range(NUM_NUMBERS)}
    features |= {f"c{place}": FeatureSpec(type="category") for place in range(NUM_CATEGORIES)}
    told = {"imported_mib": read_memory(os.getpid()).peak_mib}
    ch = ClickHouse(ClickHouseConnection(url, database=database))
    rows = take_snapshot(ch, MODEL, "binary", features, START_MS, START_MS + num_rows * INTERVAL_MS)
    ch.close()
    assert rows.num_rows == num_rows, rows.num_rows
    told |= {"snapshot_mib": read_memory(os.getpid()).peak_mib, "columns_mib": rows.table.nbytes / 2**20}
    table = rows.read_features()
    encoded = Inputs.of(fit_preprocessing(table, features).encode(table))
    told |= {"encoded_mib": encoded.num_bytes / 2**20, "encoded_peak_mib": read_memory(os.getpid()).peak_mib}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

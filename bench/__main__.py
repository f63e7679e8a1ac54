"""Runs the benchmarks and prints one Markdown table; `python -m bench --help` says how."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import (
    bench_false_alarms,
    bench_latency,
    bench_measures,
    bench_memory,
    bench_monitor,
    bench_recovery,
    bench_retrain,
    bench_scaling,
    bench_snapshot,
    bench_soak,
    train_cpu,
    train_fashion,
    train_gpu,
)
from bench.machine import describe_load, describe_machine
from bench.results import HEADER, Result, format_row
from bench.surroundings import Options

BENCHMARKS: dict[str, Callable[[Options], Iterable[Result]]] = {
    "measures": bench_measures.run,
    "false_alarms": bench_false_alarms.run,
    "monitor": bench_monitor.run,
    "recovery": bench_recovery.run,
    "latency": bench_latency.run,
    "memory": bench_memory.run,
    "retrain": bench_retrain.run,
    "scaling": bench_scaling.run,
    "snapshot": bench_snapshot.run,
    "soak": bench_soak.run,
    "train_cpu": train_cpu.run,
    "train_gpu": train_gpu.run,
    "train_fashion": train_fashion.run,
}


def main() -> None:
    options, names, output = parse_arguments()
    machine = describe_machine(options)
    started_s, before = time.monotonic(), describe_load()
    print(HEADER, flush=True)
    rows = []
    for name in names:
        for result in BENCHMARKS[name](options):
            rows.append(format_row(result))
            print(rows[-1], flush=True)
    took = f"Before: {before}. After: {describe_load()}. Took {time.monotonic() - started_s:.0f} s."
    print(f"\n{machine} {took}")
    if output is not None:
        output.write_text("\n".join([f"{machine} {took}", "", HEADER, *rows, ""]))


def parse_arguments() -> tuple[Options, list[str], Path | None]:
    """Give the options, the names of what is to be run, and the file for the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks; trust the ratios.")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; all if none is given")
    parser.add_argument("--long", action="store_true", help="more of everything: steadier figures")
    parser.add_argument("--kafka", action="store_true", help="on Apache Kafka (KAFKA_HOME names an unpacked one)")
    parser.add_argument("--fashion-mnist", type=Path, default=Options().fashion_mnist, help="folder of its four files")
    parser.add_argument("--output", type=Path, help="write the machine and the table to this file too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    home = os.environ.get("KAFKA_HOME") if arguments.kafka else None
    if arguments.kafka and not (home and shutil.which("java")):
        parser.error("--kafka needs KAFKA_HOME, an unpacked Apache Kafka, and java")
    kafka_home = Path(home).resolve() if home else None
    options = Options(short=not arguments.long, kafka_home=kafka_home, fashion_mnist=arguments.fashion_mnist)
    return options, arguments.names or list(BENCHMARKS), arguments.output


if __name__ == "__main__":
    # Evidently's and its dependencies' own; ours are errors in the tests.
    warnings.simplefilter("ignore")
    # As with Ctrl-C, the servers are stopped and their data removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()

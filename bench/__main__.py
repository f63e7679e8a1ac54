"""Runs the benchmarks and prints one Markdown table: `python -m bench [--long] [NAME ...]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import warnings

from bench import bench_latency, bench_measures, bench_monitor, bench_recovery
from bench.results import HEADER, format_row

BENCHMARKS = {
    "measures": bench_measures.run,
    "monitor": bench_monitor.run,
    "recovery": bench_recovery.run,
    "latency": bench_latency.run,
}


def describe_load() -> str:
    """Say how busy the machine is; a figure taken on a busy one is worth little, its ratio a bit more."""
    return f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} processes wanted one in the last minute"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks; trust the ratios.")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; all if none is given")
    parser.add_argument("--long", action="store_true", help="more events, windows and kills: steadier figures")
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    started_s = time.monotonic()
    before = describe_load()
    print(HEADER, flush=True)
    for name in options.names or BENCHMARKS:
        for result in BENCHMARKS[name](not options.long):
            print(format_row(result), flush=True)
    print(f"\nBefore: {before}. After: {describe_load()}. Took {time.monotonic() - started_s:.0f} s.")


if __name__ == "__main__":
    # Evidently's and its dependencies' own; ours are errors in the tests.
    warnings.simplefilter("ignore")
    # As with Ctrl-C, the servers are stopped and their data removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()

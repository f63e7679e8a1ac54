"""How much more do two monitors take in than one, of the same load in one run?

On a machine with two cores they share these with the broker and ClickHouse, so the row says how many cores each kept
busy.
"""

from __future__ import annotations

from bench.loads import JSON, keep_busy, take
from bench.results import Result, compare
from bench.surroundings import Options, run_servers


def run(options: Options) -> list[Result]:
    with run_servers(options) as servers:
        one = keep_busy(servers, JSON, elapsed_s=6.0 if options.short else 20.0)
        two = take(servers, JSON, one.num_events, "two", "monitor", "monitor").progress["monitor"]
    used = ", ".join(f"{name} {cores:.2f}" for name, cores in two.measure_cores().items())
    known = one.progress["monitor"].measure().per_s
    return [compare(f"JSON: two monitors (cores used: {used})", two.measure().per_s, "events/s", "one monitor", known)]

"""How many events a second does one monitor process take in, of JSON and of Arrow, with the sink beside it and without?

Measured on stage 1's markers in ClickHouse: what is below a marker is validated, deduplicated, counted and durable.
With the sink beside it, windows are measured and judged at the same time. Peers on the same topic: stock Faust that
does nothing with a message, and confluent-kafka's bare `consume`; neither looks into one, so that only `consume` says
anything of messages with thousands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.loads import ARROW, JSON, Load, Taken, keep_busy, take
from bench.peers import measure_consume, measure_faust, measure_validation
from bench.progress import Pace
from bench.results import Limit, Result, compare
from bench.surroundings import Options, run_servers

NUM_FAUST = 60_000
FAUST_LIMIT = Limit("ratio", "at least", 15, aim=40)
CONSUME_LIMIT = Limit("ratio", "at least", 0.2, aim=0.6)
ARROW_LIMIT = Limit("value", "at least", 1_000_000, aim=2_500_000)


def run(options: Options) -> Iterator[Result]:
    for load in (JSON, ARROW):
        with run_servers(options) as servers:
            alone = keep_busy(servers, load, elapsed_s=6.0 if options.short else 20.0)
            beside = take(servers, load, alone.num_events, "beside", "monitor", "sink")
            yield from compare_paces(alone, beside, load)


def compare_paces(alone: Taken, beside: Taken, load: Load) -> Iterator[Result]:
    """Compare the monitor alone, and with the sink beside it, with the peers, all on the same events."""
    monitor, with_sink = alone.progress["monitor"].measure(), beside.progress["monitor"].measure()
    sink = beside.progress["sink"].measure()
    peers = list(measure_peers(alone, load))

    def row(name: str, pace: Pace, peer: str, known: Pace, limit: Limit | None = None) -> Result:
        rates = pace.per_s * load.num_rows, known.per_s * load.num_rows
        unit = "events/s" if load is JSON else "rows/s"
        return compare(f"{load.name}: {name}", rates[0], unit, peer, rates[1], limit)

    for peer, known, limit in peers:
        yield row("monitor", monitor, peer, known, limit)
        yield row("monitor, sink beside it", with_sink, peer, known, limit)
    yield row("sink, monitor beside it", sink, *peers[-1][:2])
    for name, pace in (("monitor", monitor), ("sink", sink)):
        for peer, known, _ in peers:
            used = pace.cpu_s / load.num_rows * 1e6, known.cpu_s / load.num_rows * 1e6
            yield compare(f"{load.name}: {name}, processor time", used[0], "s a million", peer, used[1])
    validated = measure_validation(alone.runtime, load.headers)
    yield row("monitor", monitor, "validation alone", Pace(validated / load.num_rows, 0.0, 0.0))


def measure_peers(taken: Taken, load: Load) -> Iterator[tuple[str, Pace, Limit]]:
    """Give the peers' paces, and what the monitor's is to be in comparison."""
    if load is JSON:
        faust = measure_faust(taken.runtime, min(taken.num_messages, NUM_FAUST))
        yield "stock Faust, empty loop", faust, FAUST_LIMIT
    consumed = measure_consume(taken.runtime, taken.num_messages)
    yield "bare consume()", consumed, CONSUME_LIMIT if load is JSON else ARROW_LIMIT

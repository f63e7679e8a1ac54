"""Does anything grow without bound under a steady load? Five minutes in the short form, an hour in the long one.

Windows open and close all the time, identities expire, events come late, repeated, too late or broken, and labels
follow; every window is measured, and again when it changed. The memory of each process is sampled; a straight line
through the second half (least squares) says what it grows by in an hour. State is sampled too: the windows and
identities that stage 1 keeps, and how far it is behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bench.events import apply_model
from bench.processes import list_tree, read_memory
from bench.progress import Markers
from bench.results import Limit, Result
from bench.surroundings import Options, Role, Servers, Watched, run_roles, run_servers, separate
from bench.unruly import UnrulyStream
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.expiry import count_state

NUM_PER_S = 500
WINDOW_S, RETENTION = 10, 6
SAMPLE_S = 5.0
# State is deleted once a minute, and no earlier than its windows are measured.
CLEAN_S = 60
# A monitor that falls behind is no steady state, whatever its memory does.
NUM_BEHIND_MAX = 60 * NUM_PER_S


@dataclass(frozen=True, slots=True)
class Samples:
    """What was seen, and when (seconds since the start)."""

    at_s: list[float] = field(default_factory=list)
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    num_windows: list[int] = field(default_factory=list)
    num_ids: list[int] = field(default_factory=list)


def run(options: Options) -> Iterator[Result]:
    duration_s = 300.0 if options.short else 3_600.0
    with run_servers(options) as servers:
        runtime = separate(servers.runtime, "soak")
        apply_model(runtime, window=f"{WINDOW_S}s", more=f", retention: {RETENTION}, idle: 5s")
        with (
            run_roles(runtime, "sink", "monitor") as roles,
            UnrulyStream(runtime, NUM_PER_S, WINDOW_S * (RETENTION - 2) * 1000) as stream,
        ):
            samples = watch(servers, runtime, roles, stream, duration_s)
    yield from describe(samples, duration_s)


def watch(servers: Servers, runtime: Runtime, roles: list[Role], stream: UnrulyStream, duration_s: float) -> Samples:
    """Sample until the time is over; RuntimeError when a process ends or the monitor falls behind."""
    samples, store, markers = Samples(), ClickHouse(runtime.clickhouse), Markers(runtime)
    watched: list[Watched] = [*roles, stream]
    started_s = time.monotonic()
    try:
        while (elapsed_s := time.monotonic() - started_s) < duration_s:
            for each in watched:
                each.require_alive()
            samples.at_s.append(elapsed_s)
            for name, mib in read_memories(servers, roles).items():
                samples.memory_mib.setdefault(name, []).append(mib)
            num_windows, num_ids = count_state(store, runtime.topics(MONITOR))
            samples.num_windows.append(num_windows)
            samples.num_ids.append(num_ids)
            if elapsed_s > CLEAN_S and (num_behind := stream.num_sent - markers.read_monitor()) > NUM_BEHIND_MAX:
                raise RuntimeError(f"the monitor is {num_behind:,} events behind")
            time.sleep(SAMPLE_S)
        return samples
    finally:
        markers.close()
        store.close()


def read_memories(servers: Servers, roles: list[Role]) -> dict[str, float]:
    """Give what is resident, in MiB; of the monitor apart from the processes that measure for it."""
    pids = {role.name: role.pid for role in roles} | dict(servers.pids)
    memories = {name: read_memory(pid).resident_mib for name, pid in pids.items()}
    measuring = list_tree(pids["monitor"])[1:]
    return memories | {"measuring processes": sum(read_memory(pid).resident_mib for pid in measuring)}


def describe(samples: Samples, duration_s: float) -> Iterator[Result]:
    half = len(samples.at_s) // 2
    hours = np.array(samples.at_s[half:]) / 3600
    title = f"soak of {duration_s / 60:.0f} min"
    for name, known in samples.memory_mib.items():
        later = np.array(known[half:])
        slope = float(np.polyfit(hours, later, 1)[0])
        growth = slope * float(hours[-1] - hours[0])
        seen = f"from {later[:3].mean():.0f} to {later[-3:].mean():.0f} MiB"
        yield Result(f"{title}: growth of {name} in the second half, {seen}", growth, "MiB", limit=LIMIT)
        yield Result(f"{title}: slope of {name}", slope, "MiB/h")
    yield from describe_state(samples, title, half)


LIMIT = Limit("value", "at most", 16)


def describe_state(samples: Samples, title: str, half: int) -> Iterator[Result]:
    """Compare the state with what the retention allows, twice as much for what is measured late."""
    lifetime_s = WINDOW_S * (RETENTION + 1) + CLEAN_S
    # Inputs and outputs are remembered apart.
    most_ids = Limit("value", "at most", 2 * 2 * NUM_PER_S * lifetime_s)
    yield Result(f"{title}: identities kept, at most", max(samples.num_ids[half:]), "", limit=most_ids)
    most_windows = Limit("value", "at most", 2 * lifetime_s // WINDOW_S)
    yield Result(f"{title}: windows kept, at most", max(samples.num_windows[half:]), "", limit=most_windows)

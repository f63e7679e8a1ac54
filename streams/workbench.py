"""What the followers of `progressing` work with: the store, the log's control topics, measuring processes, the monitor.

A module of its own because its imports are the heavy ones (SciPy, pandas, River): the event loop's process takes them
in only when stage 1 is counting.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache

from aiokafka.partitioner import murmur2

from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.spec import ModelHistory
from schemas.topics import INBOUND
from store.client import ClickHouse
from store.log import RoleFollower, SpecFollower, describe_topics
from streams import measuring
from streams.freshness import FreshnessJudge
from streams.judging import Judge
from streams.monitoring import Monitor, Pace
from streams.outlet import LogOutlet
from streams.processes import ProcessPool
from streams.report_making import MissingReport, ReportMaker
from streams.surveying import Surveyor

_TOPICS_AGE_S_MAX = 5.0
_TIMEOUT_S = 10.0


class Workbench:
    """Looks after any model, one thread a model; everything here blocks."""

    def __init__(self, runtime: Runtime, job: str, num_processes: int, clock: Clock, stop: threading.Event) -> None:
        self._runtime = runtime
        self._clock = clock
        self._ch = ClickHouse(runtime.clickhouse)
        self._specs = SpecFollower(runtime.kafka, runtime.topics)
        self._roles = RoleFollower(runtime.kafka, runtime.topics)
        self._outlet = LogOutlet(runtime)
        self._pool = ProcessPool(num_processes, measuring.start_process, (runtime.clickhouse, runtime.privacy_key))
        self._pool.warm_up()
        self._lock = threading.Lock()
        self._described: dict[str, tuple[str, int]] = {}
        self._described_s: float | None = None
        topic_of = {name: runtime.topics(name) for name in INBOUND}
        self._monitor = Monitor(
            self._ch,
            job,
            topic_of,
            self._pool,
            self._outlet,
            lambda explain: Judge(self._ch, self._outlet, self._roles, explain, clock),
            self._list_partitions,
            clock,
            stop,
        )
        self._freshness = FreshnessJudge(self._ch, job, topic_of, self._list_inbound, self._outlet, clock)
        self._reports = ReportMaker(self._ch, clock)
        self._surveyor = Surveyor(self._ch, job, topic_of, self._list_partitions, self._monitor.find_next_end)

    def list_models(self) -> dict[str, int]:
        """Return the models that are declared now, each with the partition of `progress` that its messages go to."""
        size = self._describe().get("progress", ("", self._runtime.num_partitions))[1]
        with self._lock:
            self._specs.refresh(_TIMEOUT_S)
            return {model: partition_of(model, size) for model in self._specs.catalogue.models()}

    def survey(self, models: set[str]) -> set[str]:
        """Return those of the models that are to be looked at; for one thread at a time."""
        return self._surveyor.find(self._read_histories(models))

    def judge_freshness(self, models: set[str]) -> None:
        """Judge how old the data of the models is; for one thread at a time. Raises `Retryable`."""
        self._freshness.judge(self._read_histories(models))

    def find_reports(self, models: set[str]) -> list[MissingReport]:
        """Return the reports to be made now of alerts of the models; for one thread at a time."""
        return self._reports.find(self._read_histories(models))

    def make_report(self, missing: MissingReport) -> None:
        """Make a report, in a process of its own; what goes wrong is logged. For the thread that finds them.

        Raises `Retryable` when the store is away.
        """
        self._reports.make(missing)

    def take_over(self, model: str) -> None:
        """Know nothing of a model from before: another worker may have left something undone meanwhile."""
        self._monitor.forget(model)

    def look(self, model: str) -> Pace:
        """Look after a model once, knowing the newest specs and roles."""
        with self._lock:
            self._specs.refresh(_TIMEOUT_S)
            self._roles.refresh(_TIMEOUT_S)
            history: ModelHistory | None = self._specs.catalogue.get(model)
        return "idle" if history is None else self._monitor.look(history)

    def close(self) -> None:
        """End the processes and leave the store; what is under way is broken off, and done again by whoever is next."""
        self._reports.close()
        self._pool.close()
        self._ch.close()

    def _read_histories(self, models: set[str]) -> dict[str, ModelHistory]:
        with self._lock:
            self._specs.refresh(_TIMEOUT_S)
            known = {model: self._specs.catalogue.get(model) for model in models}
        return {model: history for model, history in known.items() if history is not None}

    def _list_partitions(self) -> Mapping[tuple[str, str], int]:
        return self._list_sizes(("records", "predictions"))

    def _list_inbound(self) -> Mapping[tuple[str, str], int]:
        return self._list_sizes(INBOUND)

    def _list_sizes(self, topics: Sequence[str]) -> Mapping[tuple[str, str], int]:
        described = self._describe()
        return {
            (self._runtime.topics(name), topic_id): size
            for name, (topic_id, size) in described.items()
            if name in topics
        }

    def _describe(self) -> dict[str, tuple[str, int]]:
        """Ask for the topics, at most every few seconds; a topic made anew is noticed by its id."""
        now_s = self._clock.monotonic_s()
        if self._described_s is None or now_s - self._described_s > _TOPICS_AGE_S_MAX:
            names = {self._runtime.topics(name): name for name in (*INBOUND, "progress")}
            found = describe_topics(self._runtime.kafka, names, _TIMEOUT_S)
            self._described = {names[topic]: described for topic, described in found.items()}
            self._described_s = now_s
        return self._described


@lru_cache(maxsize=100_000)
def partition_of(key: str, num_partitions: int) -> int:
    """Return the partition that Java's clients, and ours, send a key to."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % num_partitions

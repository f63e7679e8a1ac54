"""Waiting until everything sent so far is stored, counted, measured, judged, scored, and no job runs.

Only reads facts: what it waits for is true whoever brought it about, and however often it is asked.
"""

from __future__ import annotations

import time

import msgspec

from retrain.readiness import check_readiness
from schemas.connections import Runtime
from schemas.errors import DriftloopError, Retryable
from schemas.events import RetrainRequest
from schemas.instants import format_instant
from schemas.spec import PublishedSpec
from schemas.topics import INBOUND, MONITOR
from store.client import ClickHouse
from store.jobs import read_open_jobs
from store.judgements import is_judged
from store.log.followers import RoleFollower, SpecFollower
from store.log.offsets import read_end_offsets
from store.markers import read_sink_markers
from store.overview import count_scored
from store.retrain_requests import read_untaken
from store.summaries import read_markers, read_stamps
from store.windows import read_label_counts, read_measured_labels, read_measured_windows

POLL_S = 0.1
EXTERNAL = "external"


class Settling:
    """Waits for one model. One per replay; holds connections until `close`."""

    def __init__(self, runtime: Runtime, model: str) -> None:
        self.runtime = runtime
        self.model = model
        self.job = runtime.topics(MONITOR)
        self.store = ClickHouse(runtime.clickhouse)
        self.specs = SpecFollower(runtime.kafka, runtime.topics)
        self.roles = RoleFollower(runtime.kafka, runtime.topics)
        self._ends: dict[tuple[str, str, int], int] = {}
        self._is_scored = False

    def close(self) -> None:
        self.specs.close()
        self.roles.close()
        self.store.close()

    def wait(self, since_ms: int, end_ms: int, timeout_s: float) -> None:
        """Return when nothing is left to do for windows within [since, end); DriftloopError naming what is missing.

        What others send meanwhile is not waited for. ClickHouse or Kafka may go away and come back.
        """
        deadline_s = time.monotonic() + timeout_s
        missing = "an answer"
        self._ends, self._is_scored = {}, False
        while time.monotonic() < deadline_s:
            try:
                missing = self.find_missing(since_ms, end_ms)
            except Retryable as error:
                missing = str(error)
            if not missing:
                return
            time.sleep(POLL_S)
        raise DriftloopError(
            f"{self.model}: waited {timeout_s:.0f} s for {missing}. See the logs of the roles, and `driftloop status`"
        )

    def find_missing(self, since_ms: int, end_ms: int) -> str:
        """What is still missing, in words; empty when all is done. Cheap questions first."""
        if not self._ends:
            self._ends = read_end_offsets(self.runtime.kafka, [self.runtime.topics(name) for name in INBOUND])
        if missing := self.find_unread():
            return missing
        self.specs.refresh()
        history = self.specs.catalogue.get(self.model)
        if history is None:
            return f"the spec of {self.model}"
        published = history.latest
        if not self._is_scored:
            if missing := self.find_unscored(end_ms, published):
                return missing
            # The scorer's predictions stand behind the ends that were looked at: they are to be counted, too.
            self._is_scored, self._ends = True, {}
            return "the predictions to be counted"
        return self.find_unmeasured(since_ms, end_ms, published) or self.find_unfinished(published)

    def find_unread(self) -> str:
        topics = {topic for topic, _, _ in self._ends}
        stored = read_sink_markers(self.store, topics)
        counted = {
            (marker.place.topic, marker.place.topic_id, marker.place.partition): marker.next_offset
            for marker in read_markers(self.store, self.job, topics)
        }
        for place, end in self._ends.items():
            for role, known in (("sink", stored), ("monitor", counted)):
                if known.get(place, 0) < end:
                    return f"the {role} to read {place[0]}-{place[2]} from {known.get(place, 0)} to {end}"
        return ""

    def find_unscored(self, end_ms: int, published: PublishedSpec) -> str:
        """The window that ends at `end_ms` must be scored by every trained version that has a role in it."""
        self.roles.refresh()
        start_ms = end_ms - published.window_size_ms
        role_map = self.roles.at(self.model, start_ms)
        for role, version in role_map.roles.items() if role_map else ():
            if version == EXTERNAL or role not in ("champion", "shadow", "challenger"):
                continue
            num_records, num_scored = count_scored(self.store, self.model, start_ms, end_ms, version)
            if num_scored < num_records:
                return f"version {version} to score {num_records - num_scored} of {num_records} records"
        return ""

    def find_unmeasured(self, since_ms: int, end_ms: int, published: PublishedSpec) -> str:
        """Windows within [since, end) whose events or labels exceed what their last measurement covered."""
        covered: dict[tuple[int, int], int] = {}
        for stamp in read_stamps(self.store, self.job, self.model, since_ms):
            if stamp.window_end <= end_ms:
                window = (stamp.window_start, stamp.window_end)
                covered[window] = covered.get(window, 0) + stamp.stamp
        measured = read_measured_windows(self.store, self.model, since_ms)
        for window, stamps in covered.items():
            if window not in measured or measured[window].covered < stamps:
                return f"the window of {format_instant(window[0])} to be measured"
        windows = published.spec.windows
        metric = published.spec.performance.metrics[0]
        labelled = {
            (row.window_start, row.model_version): row.covered
            for row in read_measured_labels(self.store, self.model, metric, since_ms)
        }
        counts = read_label_counts(
            self.store,
            self.model,
            windows.size_ms,
            windows.origin_ms,
            since_ms,
            end_ms,
            with_records=bool(published.spec.segments),
        )
        for count in counts:
            if count.num_labels and labelled.get((count.window_start, count.model_version), 0) < count.covered:
                return f"the labels of the window of {format_instant(count.window_start)} to be measured"
        return "" if is_judged(self.store, self.model) else "what was measured to be judged"

    def find_unfinished(self, published: PublishedSpec) -> str:
        """A retraining that was asked for and is not yet decided; one that waits for labels is no work."""
        for job in read_open_jobs(self.store):
            if job.model == self.model:
                request = msgspec.json.decode(job.request, type=RetrainRequest)
                role_map = self.roles.current(self.model)
                champion = role_map.roles.get("champion") if role_map else None
                if not check_readiness(self.store, request, published.spec, champion).reason:
                    return f"the retraining {job.job_id}"
        untaken = read_untaken(self.store, self.model) if published.spec.retrain else []
        return f"the trainer to take the request {untaken[0]}" if untaken else ""

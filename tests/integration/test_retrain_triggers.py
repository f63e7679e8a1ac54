"""Schedules, labels and alerts ask for retraining through the real judge, on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from driftloop.retrain_explained import explain_retraining, list_sentences
from retrain.permission import find_hold, find_unworthy
from retrain.readiness import check_readiness
from schemas import identity
from schemas.clock import SystemClock
from schemas.errors import Retryable
from schemas.events import Alert, Measurement, RetrainRequest
from schemas.spec import BudgetSpec, CostAwareSpec, DataSpec, ModelHistory, PublishedSpec, QuietHoursSpec, RetrainSpec
from store.alerts import insert_alerts
from store.client import ClickHouse
from store.jobs import JobRow, insert_job
from store.measurements import insert_measurements
from store.retrain_requests import read_requests, read_untaken
from streams.judging import Judge
from tests.retraining import ROWS, SIZE_MS, START_MS, World
from tests.stored import SentEvents, StoredRoles, run_store

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with run_store(tmp_path_factory.mktemp("clickhouse")) as connection:
        ch = ClickHouse(connection)
        yield ch
        ch.close()


class Judged:
    """One model on the store, and a judge whose requests are kept."""

    def __init__(self, ch: ClickHouse, model: str, **retrain: Any) -> None:
        # Of a world on servers only what needs no log is used.
        runtime: Any = None
        self.ch, self.world = ch, World(runtime, ch, model)
        self.published: PublishedSpec = self.world.make_spec(RetrainSpec(**retrain))
        self.sent = SentEvents()
        self.judge = Judge(ch, self.sent, StoredRoles(), lambda *_: [], SystemClock())

    def look(self, number: int) -> None:
        """Judge up to a window."""
        self.judge.judge(ModelHistory([self.published]), START_MS + number * SIZE_MS)

    @property
    def requests(self) -> list[RetrainRequest]:
        return [each for each in self.sent.events.get("retrain-requests", []) if isinstance(each, RetrainRequest)]

    def alert(self, rule: str, number: int, state: Any = "firing", harm: float | None = 0.1, name: str = "") -> Alert:
        start = START_MS + number * SIZE_MS
        alert = Alert(
            alert_id=name or identity.alert_id(self.world.model, rule, "", start),
            transition_id=f"{rule}-{number}-{state}-{name}",
            model=self.world.model,
            model_version="external",
            rule=rule,
            kind="performance",
            feature="",
            metric="roc_auc",
            segment="",
            severity="high",
            state=state,
            value=0.7,
            threshold=0.8,
            harm=harm,
            reason=f"{rule} at {number}",
            window_start=start,
            window_end=start + SIZE_MS,
            at=SystemClock().now_ms(),
        )
        insert_alerts(self.ch, [alert])
        return alert

    def tell_performance(self, number: int, value: float) -> None:
        """Measure a window's performance, within or beyond its limits."""
        start = START_MS + number * SIZE_MS
        measurement = Measurement(
            model=self.world.model,
            model_version="external",
            window_start=start,
            window_end=start + SIZE_MS,
            segment="",
            feature="",
            kind="performance",
            metric="roc_auc",
            value=value,
            lower=0.8,
            upper=1.0,
            status="ok" if value >= 0.8 else "alert",
            num_rows=ROWS,
            computed_at=SystemClock().now_ms(),
        )
        insert_measurements(self.ch, [measurement])


def test_a_schedule_asks_once_for_each_time_that_event_time_passes(store: ClickHouse) -> None:
    # A window is some 17 minutes; the schedule comes every hour of event time.
    judged = Judged(store, "hourly", on=[], schedule="0 * * * *", cooldown_ms=60_000)
    for number in range(8):
        judged.world.store_window(number)
        judged.look(number)
        judged.look(number)
    first = START_MS // HOUR_MS * HOUR_MS + HOUR_MS
    slots = [first, first + HOUR_MS]
    assert START_MS < slots[0] < slots[1] <= START_MS + 8 * SIZE_MS < slots[1] + HOUR_MS
    assert [each.request_id for each in judged.requests] == [
        identity.request_id("hourly", "schedule", slot) for slot in slots
    ]
    assert {each.reason for each in judged.requests} == {"the schedule 0 * * * * has come"}
    # A monitor that starts sends again what no trainer has taken, and asks for nothing new.
    other = Judged(store, "hourly", on=[], schedule="0 * * * *", cooldown_ms=60_000)
    other.judge.repeat(ModelHistory([other.published]))
    other.look(7)
    assert other.requests == judged.requests
    assert read_untaken(store, "hourly") == [each.request_id for each in judged.requests]


def test_labels_ask_when_enough_have_come_since_the_last_request(store: ClickHouse) -> None:
    judged = Judged(store, "labelled", on=[], new_labels=2 * ROWS, cooldown_ms=1)
    for number in range(5):
        judged.world.store_window(number, share_labelled=1.0)
        judged.look(number)
        judged.look(number)
    # Counted from the beginning, then from the end of the window at which it asked.
    ids = [identity.request_id("labelled", "new_labels", since) for since in (0, START_MS + 2 * SIZE_MS)]
    assert [each.request_id for each in judged.requests] == ids
    assert (
        judged.requests[0].reason == f"{2 * ROWS:,} labels have come since the last training, {2 * ROWS:,} are enough"
    )


def test_a_thousand_alerts_of_one_incident_make_one_request(store: ClickHouse) -> None:
    judged = Judged(store, "noisy", cooldown_ms=1000 * SIZE_MS)
    first = judged.alert("harm", 2, name="a0")
    insert_alerts(
        store,
        [
            Alert(**{name: getattr(first, name) for name in first.__struct_fields__}
                  | {"alert_id": f"a{number}", "transition_id": f"t{number}",
                     "window_start": first.window_start + number % 100 * SIZE_MS,
                     "window_end": first.window_end + number % 100 * SIZE_MS})
            for number in range(1, 1000)
        ],
    )  # fmt: skip
    judged.world.store_window(2)
    for number in (2, 50, 102):
        judged.look(number)
    (request,) = judged.requests
    assert request.request_id == identity.request_id("noisy", "harm", START_MS + 2 * SIZE_MS)


def test_an_alert_asks_once_it_has_stood_for_long_enough(store: ClickHouse) -> None:
    judged = Judged(store, "patient", for_=3)
    for number, value in enumerate((0.9, 0.7, 0.7, 0.7)):
        judged.world.store_window(number)
        judged.tell_performance(number, value)
        judged.look(number)
        assert len(judged.requests) == (number >= 3), number
    assert judged.requests[0].first_window_start == START_MS + SIZE_MS
    short = Judged(store, "short", for_=3)
    for number, value in enumerate((0.9, 0.7, 0.7, 0.9, 0.9)):
        short.world.store_window(number)
        short.tell_performance(number, value)
        short.look(number)
    assert short.requests == []


def test_what_was_stored_and_not_sent_is_sent_by_the_next_monitor(store: ClickHouse) -> None:
    judged = Judged(store, "cut")
    judged.alert("harm", 1)
    judged.world.store_window(1)
    judged.sent.num_until_away = 0
    with pytest.raises(Retryable):
        judged.look(1)
    assert judged.requests == []
    assert [each.rule for each in read_requests(store, "cut")] == ["harm"]
    judged.judge.repeat(ModelHistory([judged.published]))
    assert len(judged.requests) == 1
    judged.look(1)
    assert len(judged.requests) == 1


def test_the_clock_holds_jobs_back(store: ClickHouse) -> None:
    judged = Judged(store, "held")
    judged.alert("harm", 1)
    judged.world.store_window(1)
    judged.look(1)
    (request,) = judged.requests
    by_hand = RetrainRequest(**{name: getattr(request, name) for name in request.__struct_fields__} | {"manual": True})

    def at(hour: int) -> int:
        # In summer Berlin is two hours ahead of UTC.
        return int(datetime(2026, 7, 1, hour, tzinfo=UTC).timestamp() * 1000)

    quiet = RetrainSpec(quiet_hours=QuietHoursSpec(from_="08:00", to="18:00", timezone="Europe/Berlin"))
    held = [hour for hour in range(24) if find_hold(store, request, quiet, at(hour))]
    assert held == list(range(6, 16))
    assert find_hold(store, request, quiet, at(7)) == "waits for the end of the quiet hours at 18:00 (Europe/Berlin)"
    assert find_hold(store, by_hand, quiet, at(7)) == ""
    over_midnight = RetrainSpec(quiet_hours=QuietHoursSpec(from_="22:00", to="06:00"))
    assert [hour for hour in range(24) if find_hold(store, request, over_midnight, at(hour))] == [
        0, 1, 2, 3, 4, 5, 22, 23,
    ]  # fmt: skip

    # Two hours on four GPUs, one of them within the last day, and two on the processor, which do not count.
    now = at(12)
    for number, (device, gpu_seconds) in enumerate((("cuda", 4 * 2 * 3600.0), ("cpu", 0.0))):
        insert_job(store, JobRow(
            job_id=f"held-{number}", model="held", rule="harm", request="{}", requested_at=0, state="promoted",
            device=device, gpu_seconds=gpu_seconds, started_at=now - 25 * HOUR_MS, finished_at=now - 23 * HOUR_MS,
        ))  # fmt: skip
    for hours, reason in ((4.0, "waits for the budget of 4 GPU-hours in 1d (4.00 are used)"), (4.5, "")):
        budget = RetrainSpec(budget=BudgetSpec(gpu_hours=hours, per_ms=24 * HOUR_MS))
        assert find_hold(store, request, budget, now) == reason
        assert find_hold(store, by_hand, budget, now) == ""


def test_a_job_that_costs_more_than_it_can_gain_is_not_worth_it(store: ClickHouse) -> None:
    judged = Judged(store, "costly", cost_aware=CostAwareSpec(min_gain_per_hour=100.0))
    judged.alert("harm", 1, harm=0.1)
    judged.world.store_window(1)
    judged.look(1)
    (request,) = judged.requests
    spec = judged.published.spec
    assert find_unworthy(store, request, spec) == ""  # nothing is known of the cost yet
    job = JobRow(
        job_id="costly-1", model="costly", rule="harm", request="{}", requested_at=0, state="rejected",
        started_at=START_MS, finished_at=START_MS + 2 * HOUR_MS,
    )  # fmt: skip
    insert_job(store, job)
    # 0.1 × 1,500 rows for two hours are 75 an hour.
    assert find_unworthy(store, request, spec).endswith("that is 75 an hour, 100 are needed")
    cheap = Judged(store, "costly", cost_aware=CostAwareSpec(min_gain_per_hour=75.0))
    assert find_unworthy(store, request, cheap.published.spec) == ""


def explain(judged: Judged) -> tuple[dict[str, Any], str]:
    facts = explain_retraining(judged.ch, ModelHistory([judged.published]), None, SystemClock().now_ms())
    return facts, "\n".join(list_sentences(facts))


def test_explain_says_why_a_retraining_would_or_would_not_start(store: ClickHouse) -> None:
    judged = Judged(
        store, "told", schedule="0 3 * * *", new_labels=100_000, budget=BudgetSpec(jobs=2, per_ms=7 * 24 * HOUR_MS),
        quiet_hours=QuietHoursSpec(from_="00:00", to="23:59"),
    )  # fmt: skip
    facts, words = explain(judged)
    assert (facts["asks"], words) == (False, "told: no window is measured yet, so nothing can ask.")

    for number in range(3):
        judged.world.store_window(number, share_labelled=1.0)
    facts, words = explain(judged)
    assert facts["verdict"] == "no retraining would start: nothing asks for one"
    assert "  harm: no alert stands\n" in words
    assert "  schedule: 0 3 * * * has not come since the data began; it comes at 2025-12-30T03:00:00.000Z\n" in words
    assert "  new_labels: 4,500 of 100,000 labels have come since the last training\n" in words
    assert "  cooldown: 6h; nothing has asked yet\n" in words
    assert "  budget: 0 of 2 requests are used in 7d\n" in words
    assert facts["rows"]["of"] == "for a request by hand"
    assert facts["rows"]["ready"]

    judged.alert("harm", 2)
    facts, words = explain(judged)
    assert facts["asks"]
    assert not facts["can_start"]
    assert facts["verdict"].startswith("harm asks, but its job waits until window 2025-12-29T10:10:00.000Z")
    judged.world.store_window(3, share_labelled=1.0)
    facts, words = explain(judged)
    # One minute of the day is not quiet.
    assert facts["quiet_hours"]["quiet"] == (not facts["can_start"])
    assert facts["rows"]["of"] == "for harm"
    assert facts["rows"]["train"] == ["2025-12-29T09:20:00.000Z", "2025-12-29T10:10:00.000Z"]

    judged.look(3)
    assert [each.rule for each in judged.requests] == ["harm"]
    facts, words = explain(judged)
    assert "the alert of window 2025-12-29T09:53:20.000Z has asked for its retraining" in words
    assert "  budget: 1 of 2 requests are used in 7d\n" in words
    assert facts["cooldown"]["left_s"] == 6 * 3600 - SIZE_MS / 1000
    judged.alert("harm", 2, "resolved")
    judged.alert("harm", 3)
    facts, words = explain(judged)
    assert "must wait: cooldown (another retraining was asked for less than the cooldown away" in words
    assert facts["verdict"].startswith("no retraining would start: harm does not ask, because another retraining")

    insert_job(store, JobRow(job_id="told-1", model="told", rule="harm", request="{}", requested_at=0, reason="waits"))
    facts, words = explain(judged)
    assert facts["open_jobs"] == [{"job_id": "told-1", "state": "waiting", "rule": "harm", "reason": "waits"}]
    assert "job told-1 (harm) is waiting: waits" in words


def test_a_job_waits_for_enough_labels_and_takes_more_windows_for_them(store: ClickHouse) -> None:
    judged = Judged(store, "scarce")
    for number in (0, 1, 2, 3):
        judged.world.store_window(number, share_labelled=1.0)
    judged.alert("harm", 1)
    judged.look(3)
    (request,) = judged.requests

    def look(**data: Any) -> tuple[list[int] | None, str]:
        """Where the rows begin and end, in windows, or what is waited for."""
        spec = judged.world.make_spec(RetrainSpec(data=DataSpec(**data))).spec
        found = check_readiness(store, request, spec, None)
        ranges = None if found.ranges is None else [(each - START_MS) // SIZE_MS for each in found.ranges]
        return ranges, found.reason

    # All that is stored, and the window behind the alert's first one to gate on.
    assert look(min_labels=2 * ROWS) == ([0, 2, 2, 3], "")
    assert look(min_labels=2 * ROWS + 1) == ([0, 3, 3, 4], "")
    # Of rows from after the change one window more is needed.
    assert look(window="after_change", min_labels=ROWS) == ([0, 2, 2, 3], "")
    assert look(window="after_change", min_labels=ROWS + 1) == ([0, 3, 3, 4], "")
    ranges, reason = look(min_labels=10 * ROWS)
    assert ranges is None
    assert reason.startswith("waits until window 2025-12-29T10:26:40.000Z is labelled to gate on")
    assert reason.endswith("fewer than the 15,000 labels needed to train on")
    # Two windows of time, and the labels in them.
    assert look(window=f"{2 * SIZE_MS}ms", min_labels=2 * ROWS) == ([0, 2, 2, 3], "")
    assert look(window=f"{SIZE_MS}ms", min_labels=ROWS) == ([1, 2, 2, 3], "")

    by_hand = RetrainRequest(**{name: getattr(request, name) for name in request.__struct_fields__} | {"manual": True})
    request = by_hand
    assert look(min_labels=3 * ROWS) == ([0, 3, 3, 4], "")
    assert look(min_labels=3 * ROWS + 1) == (None, "waits for 4,501 labels to train on (4,500 have come)")
    assert look(window=f"{2 * SIZE_MS}ms") == ([1, 3, 3, 4], "")

"""SIGKILL of every role and of both servers in turn, in the middle of a stream, changes no final measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.applying import apply_spec
from tests import truth
from tests.feeding import INBOUND, count_rows, finish, read_measured, send, send_watermark, sum_sink_markers
from tests.stacks import BROKER_KINDS, run_stack, wait_until, why_not

VICTIMS = ("monitor", "sink", "notify", "score", "train", "kafka", "clickhouse")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BROKER_KINDS)
def test_no_kill_changes_a_final_measurement(tmp_path: Path, kind: str) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    known = truth.make_truth(num_windows=len(VICTIMS) + 1, rows_per_window=400)
    spec, _ = truth.write_truth(known, tmp_path / "files")
    events = truth.shuffle_events(list(truth.make_events(known)), 100_000, 0.05, seed=5)
    step = len(events) // (len(VICTIMS) + 1)
    with run_stack(tmp_path, kind) as running:
        apply_spec(running.runtime, spec)
        for number, victim in enumerate(VICTIMS):
            before = sum_sink_markers(running)
            send(running, events[number * step : (number + 1) * step])
            if number:
                send_watermark(running, known.window_starts[number - 1])
            wait_until(lambda seen=before: sum_sink_markers(running) > seen, 60.0, "progress before the next kill")  # type: ignore[misc]
            running.kill(victim)
        send(running, events[len(VICTIMS) * step :])
        finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS)
        differences = truth.compare(truth.compute_expected(known), read_measured(running))
        assert not differences, "\n".join(differences[:20])
        for table in INBOUND:
            assert count_rows(running, table) == len(known.stream)
        assert count_rows(running, "dead_letters") == 0

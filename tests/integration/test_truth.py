"""A stream with known truth through the whole system: what ClickHouse has equals an offline recomputation."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.applying import apply_spec
from tests import truth
from tests.feeding import count_rows, finish, read_measured, send
from tests.stacks import BROKER_KINDS, run_stack, why_not

ROLES = ("monitor", "sink")


@pytest.mark.parametrize("kind", BROKER_KINDS)
@pytest.mark.parametrize(("num_partitions", "lateness_ms", "duplicates"), [(1, 0, 0.0), (4, 250_000, 0.05)])
def test_measurements_equal_the_recomputation(
    tmp_path: Path, kind: str, num_partitions: int, lateness_ms: int, duplicates: float
) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    known = truth.make_truth()
    spec, _ = truth.write_truth(known, tmp_path / "files")
    events = truth.shuffle_events(list(truth.make_events(known)), lateness_ms, duplicates, seed=3)
    assert len(events) > 3 * len(known.stream) or not duplicates
    with run_stack(tmp_path, kind, num_partitions, ROLES) as running:
        apply_spec(running.runtime, spec)
        send(running, events)
        finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS)
        differences = truth.compare(truth.compute_expected(known), read_measured(running))
        assert not differences, "\n".join(differences[:20])
        for table in ("records", "predictions", "labels"):
            assert count_rows(running, table) == len(known.stream)
        assert count_rows(running, "dead_letters") == 0

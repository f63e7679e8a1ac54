"""The steps of a replay partition its rows and labels: each exactly once, in order, none before its window."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from driftloop.replay.driver import cut_into_steps
from driftloop.replay.source import ReplaySource

times = st.lists(st.integers(-5_000, 5_000), max_size=40).map(sorted)


def make_source(ts_ms: list[int], label_ts_ms: list[int]) -> ReplaySource:
    return ReplaySource(
        ts_ms=np.array(ts_ms, np.int64),
        record_id=[str(row) for row in range(len(ts_ms))],
        features=pd.DataFrame(index=range(len(ts_ms))),
        prediction=None,
        score=None,
        scores={},
        label_ts_ms=np.array(label_ts_ms, np.int64),
        label_id=["0"] * len(label_ts_ms),
        label=[1] * len(label_ts_ms),
    )


@given(times, times, st.integers(1, 3_000), st.integers(-2_000, 2_000))
def test_steps_partition_rows_and_labels(
    ts_ms: list[int], label_ts_ms: list[int], size_ms: int, origin_ms: int
) -> None:
    steps = cut_into_steps(make_source(ts_ms, label_ts_ms), size_ms, origin_ms)
    assert [row for step in steps for row in range(step.row_from, step.row_to)] == list(range(len(ts_ms)))
    assert [row for step in steps for row in range(step.label_from, step.label_to)] == list(range(len(label_ts_ms)))
    assert [step.end_ms for step in steps] == sorted({step.end_ms for step in steps})
    for step in steps:
        assert (step.end_ms - origin_ms) % size_ms == 0
        sent = ts_ms[step.row_from : step.row_to] + label_ts_ms[step.label_from : step.label_to]
        # Something happens in each, and all of it within the window that ends there.
        assert sent
        assert all(step.end_ms - size_ms <= at < step.end_ms for at in sent)

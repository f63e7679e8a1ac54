"""What counts say of a window's data: nulls, values out of range, values that the reference never had."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from schemas.events import Measurement
from schemas.spec import ReferenceSource
from schemas.validation import validate
from store.summaries import Place, StoredPartition
from streams.logic.layouts import lay_out
from streams.logic.measured import WindowContext
from streams.logic.partition import Partition
from streams.logic.quality import measure_quality, measure_volume
from streams.logic.reference_counts import count_reference
from streams.logic.rows import Rows
from streams.logic.summaries import Merged, Summary, merge_rows
from tests.mixed_rows import PUBLISHED, SIZE_MS, draw_rows
from tests.samples import KEY, SPEC, START_MS, batch_of, catalogue_of, publish, record


def _measure(rows: Rows) -> dict[tuple[str, str], Measurement]:
    summary = Summary.empty(lay_out(PUBLISHED, "inputs"))
    summary.counts, summary.num_rows = count_reference(PUBLISHED, rows, "inputs")[""], len(rows)
    summary.num_duplicates = 3
    inputs = Merged("records", "inputs", "m", "", "", 0, SIZE_MS, PUBLISHED, summary)
    context = WindowContext(PUBLISHED, 0, SIZE_MS, 1, 1, 0)
    return {(each.feature, each.metric): each for each in measure_quality(context, inputs, [inputs])}


def test_shares_are_those_of_the_rows() -> None:
    rows = draw_rows(3)
    found, num_rows = _measure(rows), len(rows)
    countries = np.array(rows.texts["country"].decode().tolist(), dtype=object)
    assert found["country", "null_share"].value == pytest.approx(np.mean(countries == None))  # noqa: E711
    # The reference's values are DE, FR and AT.
    assert found["country", "unseen_share"].value == pytest.approx(np.mean(countries == "CH"))
    assert found["country", "unseen_share"].value > 0.02
    assert found["amount", "null_share"].value == pytest.approx(np.isnan(rows.numbers["amount"]).mean())
    assert found["", "num_duplicates"].value == 3
    assert ("amount", "unseen_share") not in found
    assert ("flag", "unseen_share") not in found
    assert {each.num_rows for each in found.values()} == {num_rows}


def test_without_new_values_none_is_unseen() -> None:
    rows = draw_rows(4)
    known = np.array([value != "CH" for value in rows.texts["country"].decode().tolist()])
    assert _measure(rows.take(known))["country", "unseen_share"].value == 0.0


def test_values_that_came_in_another_type_are_counted_by_window() -> None:
    """Through reading, counting and merging: true stands for one."""
    catalogue = catalogue_of(publish(text=SPEC.replace("size: 1h", "size: 10s, lateness: 1h")))
    values = [
        record(record_id=f"r{n}", ts=START_MS + n * 1000, features={"amount": n % 3 == 0 or n, "country": "DE"})
        for n in range(20)
    ]
    batch = batch_of(values)
    state = Partition.restore(
        Place("records", batch.topic_id, batch.partition), "records", StoredPartition(None), 0, catalogue
    )
    state.advance(state.compute(batch, validate("records", batch, catalogue, KEY), catalogue), len(values))
    history = catalogue.get("fraud")
    assert history is not None
    merged = merge_rows(state.snapshot().rows(), history)
    found = {
        (each.window_start, measured.feature): measured.value
        for each in merged
        for measured in measure_quality(
            WindowContext(history.latest, each.window_start, each.window_end, 1, 1, 0), each, [each]
        )
        if measured.metric == "coerced_share"
    }
    assert found == {(START_MS, "amount"): 0.4, (START_MS + 10_000, "amount"): 0.3}


def _volume(reference_ts: np.ndarray, **changes: object) -> list[float | None]:
    published = replace(PUBLISHED, spec=replace(PUBLISHED.spec, **changes))
    context = WindowContext(published, 0, SIZE_MS, 1, 1, 0)
    return [each.value for each in measure_volume(context, 30, reference_ts)]


def test_volume_is_measured_against_the_rate_of_the_reference() -> None:
    every_50_ms = np.arange(400) * 50
    assert _volume(every_50_ms) == [pytest.approx(30 / 20)]
    assert _volume(every_50_ms[:1]) == []
    made_up = np.arange(400) * 1_000
    assert _volume(made_up) == []
    assert _volume(made_up, reference=ReferenceSource(file="r.csv", interval_ms=1_000)) == [pytest.approx(30.0)]

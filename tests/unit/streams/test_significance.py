"""From a published spec and counts to what may alarm; and the reference counted as stage 1 counts events."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from measures.calibration import compare_categories, compare_numbers
from schemas.columns import EventColumns
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, ModelHistory, PublishedSpec
from schemas.texts import TextColumn
from schemas.validation import Validated
from store.summaries import Place, StoredPartition
from streams.logic.partition import Partition
from streams.logic.reference_counts import count_reference, count_reference_windows
from streams.logic.rows import Rows
from streams.logic.significance import compare_counts, list_tested, make_budget
from streams.logic.summaries import merge_rows
from tests.mixed_rows import FEATURES, NUM_ROWS, PUBLISHED, REFERENCE, SIZE_MS, draw_rows

TOPIC_ID = "00000000-0000-0000-0000-000000000001"


def count_as_events(rows: Rows, published: PublishedSpec) -> dict[tuple[str, str], np.ndarray]:
    """Counts by (part, segment), all windows together, from the path that events take."""
    catalogue = Catalogue()
    catalogue.add(published)
    num = len(rows)
    columns = EventColumns(
        kind="predictions", model="m", offset=np.arange(num), row=np.zeros(num, np.int32), ts=rows.ts,
        record_id=TextColumn.of([str(row) for row in range(num)]), model_version=TextColumn.repeat("1", num),
        numbers=dict(rows.numbers),
        texts={name: TextColumn.of(values.decode().tolist()) for name, values in rows.texts.items()},
        prediction=rows.prediction, score=rows.score, has_features=np.ones(num, np.bool_),
    )  # fmt: skip
    offsets = np.arange(num)
    batch = MessageBatch("predictions", TOPIC_ID, 0, offsets, offsets, [None] * num)
    state = Partition.restore(Place("predictions", TOPIC_ID, 0), "predictions", StoredPartition(None), 0, catalogue)
    state.advance(state.compute(batch, Validated([columns], num_events=num), catalogue), num)
    found: dict[tuple[str, str], np.ndarray] = {}
    for merged in merge_rows(state.snapshot().rows(), ModelHistory([published])):
        key = (merged.part, merged.segment)
        found[key] = found[key] + merged.summary.counts if key in found else merged.summary.counts
    return found


def test_the_reference_is_counted_as_events_are() -> None:
    """Slot by slot, for both parts, the whole model and each segment; nulls and values outside included."""
    as_events = count_as_events(REFERENCE, PUBLISHED)
    counted = {
        (part, segment): counts
        for part in ("inputs", "outputs")
        for segment, counts in count_reference(PUBLISHED, REFERENCE, part).items()
    }
    assert counted.keys() == as_events.keys()
    assert {segment for _, segment in counted} == {
        "", "country=DE", "country=FR", "country=__other__", "flag=0", "flag=1", "flag=__other__",
    }  # fmt: skip
    for key, counts in counted.items():
        assert counts.tolist() == as_events[key].tolist(), key
    assert counted["inputs", ""].sum() > NUM_ROWS * 4  # every field counts every row, and some twice


def test_a_model_without_numbers_is_counted_whole_and_by_segment() -> None:
    spec = replace(PUBLISHED.spec, features={"country": FEATURES["country"]}, segments=["country"])
    published = replace(PUBLISHED, spec=spec, segment_values={"country": ["DE", "FR"]})
    rows = draw_rows(5)
    rows.numbers.clear()
    as_events = count_as_events(rows, published)
    for segment, counts in count_reference(published, rows, "inputs").items():
        assert counts.tolist() == as_events["inputs", segment].tolist(), segment


@pytest.mark.parametrize("segment", ["", "country=DE", "country=__other__"])
def test_windows_of_the_reference_add_up_to_it(segment: str) -> None:
    for part in ("inputs", "outputs"):
        starts, counts = count_reference_windows(PUBLISHED, REFERENCE, part, segment)
        assert starts.tolist() == list(range(0, 10 * SIZE_MS, SIZE_MS))
        assert counts.sum(axis=0).tolist() == count_reference(PUBLISHED, REFERENCE, part)[segment].tolist()


def test_the_budget_counts_columns_times_segments() -> None:
    """Three features that are kept and can be tested, score and prediction; the model and its six segments."""
    assert [each.name for each in list_tested(PUBLISHED, "inputs")] == ["amount", "country", "flag"]
    assert [each.name for each in list_tested(PUBLISHED, "outputs")] == ["score", "prediction"]
    budget = make_budget(PUBLISHED)
    assert budget.num_tests == 5 * 7
    assert (budget.window_ms, budget.count) == (SIZE_MS, 1.0)


def test_each_column_of_each_segment_is_compared_with_its_own() -> None:
    window_rows = draw_rows(2, 800)
    for part in ("inputs", "outputs"):
        window, reference = (count_reference(PUBLISHED, rows, part) for rows in (window_rows, REFERENCE))
        found = {(each.feature, each.segment): each for each in compare_counts(PUBLISHED, part, window, reference)}
        fields = list_tested(PUBLISHED, part)
        assert found.keys() == {(field.name, segment) for field in fields for segment in reference}
        for field in fields:
            values = slice(field.slot, field.slot + len(getattr(field, "cuts", getattr(field, "values", ()))) + 1)
            compare = compare_numbers if hasattr(field, "cuts") else compare_categories
            for segment in reference:
                now, before = window[segment], reference[segment]
                expected = compare(now[values], before[values], now[values.stop], before[values.stop])
                each = found[field.name, segment]
                assert each.p_value == pytest.approx(float(expected.p_value), rel=1e-9)
                assert each.p_alarm == pytest.approx(float(expected.p_alarm), rel=1e-9)
                assert each.effect == pytest.approx(float(expected.effect), nan_ok=True)
                assert each.num_reference == before[values].sum()
                assert each.num_window == now[values].sum()


def test_drift_of_one_column_in_one_segment_is_found_there() -> None:
    rows = draw_rows(3)
    amount = rows.numbers["amount"]
    amount[rows.texts["country"].decode() == "FR"] += 0.8
    window, reference = (count_reference(PUBLISHED, each, "inputs") for each in (rows, REFERENCE))
    level = make_budget(PUBLISHED).level(1)
    alarming = {
        (each.feature, each.segment)
        for each in compare_counts(PUBLISHED, "inputs", window, reference)
        if each.p_alarm <= level
    }
    assert ("amount", "country=FR") in alarming
    assert {feature for feature, _ in alarming} == {"amount"}
    assert ("amount", "country=DE") not in alarming


def test_a_segment_without_reference_rows_says_nothing() -> None:
    no_french = REFERENCE.take(REFERENCE.texts["country"].decode() != "FR")
    window, reference = (count_reference(PUBLISHED, rows, "inputs") for rows in (draw_rows(4), no_french))
    found = [each for each in compare_counts(PUBLISHED, "inputs", window, reference) if each.segment == "country=FR"]
    assert found
    assert all(each.num_reference == 0 and each.p_value == each.p_alarm == 1.0 for each in found)

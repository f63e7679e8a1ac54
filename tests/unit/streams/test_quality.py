"""What counts say of a window's data: nulls, values out of range, values that the reference never had."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.events import Measurement
from streams.logic.layouts import lay_out
from streams.logic.measured import WindowContext
from streams.logic.quality import measure_quality
from streams.logic.reference_counts import count_reference
from streams.logic.rows import Rows
from streams.logic.summaries import Merged, Summary
from tests.mixed_rows import PUBLISHED, SIZE_MS, draw_rows


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

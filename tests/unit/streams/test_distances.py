"""Of what a distance is measured decides whether it counts: values, not rows that lack them."""

from __future__ import annotations

import numpy as np
import pytest

from streams.logic.distances import SampledRows, measure_inputs, measure_outputs
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded, Rows
from tests.samples import publish

SPEC = """
model: fraud
task: binary
reference: r.csv
windows: {size: 1h}
features: {amount: number, country: category}
"""
NUM_ROWS = 300


def make_rows(known: int) -> Rows:
    """Rows of which only the first `known` have values."""
    there = np.arange(NUM_ROWS) < known
    return Rows(
        ts=np.arange(NUM_ROWS),
        numbers={"amount": np.where(there, np.linspace(0, 1, NUM_ROWS), np.nan)},
        texts={"country": Coded.of(np.where(there, "DE", None).astype(object))},
        score=np.full(NUM_ROWS, 0.5),
        prediction=np.where(there, 1.0, np.nan),
    )


@pytest.mark.parametrize(("known", "status"), [(0, "too_few_rows"), (99, "too_few_rows"), (100, "uncalibrated")])
def test_a_column_with_too_few_values_is_not_judged(known: int, status: str) -> None:
    context = WindowContext(publish(SPEC), 0, 3_600_000, 1, 1, 0)
    reference, current = (SampledRows(make_rows(num), {}) for num in (NUM_ROWS, known))
    inputs = measure_inputs(context, reference, current, NUM_ROWS)
    assert {each.feature: each.status for each in inputs} == {"amount": status, "country": status}
    outputs = measure_outputs(context, reference, current, NUM_ROWS, "external")
    assert {each.feature: each.status for each in outputs} == {"score": "uncalibrated", "prediction": status}

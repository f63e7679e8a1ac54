"""Is a window different as a whole? Measurements of kind `drift` without a feature, on a sample of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from measures.multivariate import NUM_ROWS_MAX, encode_rows, measure_together
from schemas.events import Measurement
from streams.logic.distances import SampledRows, list_features
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded


def measure_inputs_together(
    context: WindowContext, reference: SampledRows, current: SampledRows, num_rows: int
) -> list[Measurement]:
    """Measure what `drift.multivariate` asks for; `current` is the window or its sample of `num_rows` rows."""
    columns = [
        (name, kind)
        for name, kind in list_features(context.spec)
        if reference.find_column(name, kind) is not None and current.find_column(name, kind) is not None
    ]
    names = context.spec.drift.multivariate
    if not names or not columns:
        return []
    if len(current.rows) < context.spec.windows.min_rows:
        return [
            context.make("drift", name, None, "too_few_rows", num_rows, num_sampled=len(current.rows)) for name in names
        ]
    sides = encode_rows(*({name: _take(side, name, kind) for name, kind in columns} for side in (reference, current)))
    found = []
    for name in names:
        result = measure_together(name, *sides)
        found.append(
            context.make("drift", name, result.value, "ok", num_rows, num_sampled=len(sides[1]), p_value=result.p_value)
        )
    return found


def _take(side: SampledRows, name: str, kind: Any) -> npt.NDArray[Any]:
    """Give a column of evenly spread rows; those of a window come in an order that does not depend on their values."""
    column = side.find_column(name, kind)
    assert column is not None
    places = np.linspace(0, len(column) - 1, min(len(column), NUM_ROWS_MAX)).astype(np.int64)
    part = column[places]
    return part.decode() if isinstance(part, Coded) else part

"""Is a window different as a whole? Measurements of kind `drift` on a sample of its rows.

Without a feature they are of rows of numbers and categories, with one of the whole content of a text, an embedding
or an image.
"""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from measures.contents import ContentType, Floats, encode_contents
from measures.multivariate import CONTENT_STATISTICS, NUM_ROWS_MAX, encode_rows, measure_contents, measure_together
from schemas.events import Measurement
from schemas.spec import ModelSpec
from streams.logic.distances import SampledRows, list_features
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded


def measure_inputs_together(
    context: WindowContext, reference: SampledRows, current: SampledRows, num_rows: int
) -> list[Measurement]:
    """Measure what `drift.multivariate` asks for; `current` is the window or its sample of `num_rows` rows."""
    if not context.spec.drift.multivariate:
        return []
    contents = [
        found
        for name in list_contents(context.spec)
        for found in _measure_contents(context, reference, current, name, num_rows)
    ]
    return [*_measure_columns(context, reference, current, num_rows), *contents]


def list_contents(spec: ModelSpec) -> list[str]:
    """Return the texts, embeddings and images that are stored as they came."""
    return [name for name, each in spec.features.items() if each.type in get_args(ContentType) and each.policy is None]


def _measure_columns(
    context: WindowContext, reference: SampledRows, current: SampledRows, num_rows: int
) -> list[Measurement]:
    """Measure rows of numbers and categories: measurements without a feature."""
    columns = [
        (name, kind)
        for name, kind in list_features(context.spec)
        if reference.find_column(name, kind) is not None and current.find_column(name, kind) is not None
    ]
    names = context.spec.drift.multivariate
    if not columns:
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


def _measure_contents(
    context: WindowContext, reference: SampledRows, current: SampledRows, feature: str, num_rows: int
) -> list[Measurement]:
    """Measure what a text, an embedding or an image says as a whole, of the rows that have one."""
    names = [name for name in context.spec.drift.multivariate if name in CONTENT_STATISTICS]
    if not names:
        return []
    before, after = (_encode_contents(context.spec, side, feature) for side in (reference, current))
    found = []
    for name in names:
        value, p_value, status = None, None, "ok"
        if len(before) < 2:
            status = "no_reference"
        elif len(after) < context.spec.windows.min_rows:
            status = "too_few_rows"
        else:
            result = measure_contents(name, before, after)
            value, p_value = result.value, result.p_value
        found.append(
            context.make(
                "drift", name, value, status, num_rows, num_sampled=len(after), feature=feature, p_value=p_value
            )
        )
    return found


def _encode_contents(spec: ModelSpec, side: SampledRows, feature: str) -> Floats:
    """Encode evenly spread rows of those that have a content."""
    column = side.find_column(feature, "category")
    kind = cast(ContentType, spec.features[feature].type)
    size = next((each.num_dimensions for each in spec.derived_features.values() if each.of == feature), None)
    if not isinstance(column, Coded):
        return encode_contents(kind, [], size)
    known = column[~column.is_missing]
    return encode_contents(kind, known[_spread(len(known))].decode().tolist(), size)


def _spread(num: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, num - 1, min(num, NUM_ROWS_MAX)).astype(np.int64)


def _take(side: SampledRows, name: str, kind: Any) -> npt.NDArray[Any]:
    """Give a column of evenly spread rows; those of a window come in an order that does not depend on their values."""
    column = side.find_column(name, kind)
    assert column is not None
    part = column[_spread(len(column))]
    return part.decode() if isinstance(part, Coded) else part

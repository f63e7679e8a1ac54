"""What the counts of a window say of its data: measurements of kind `quality`, always exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.columns import Ints
from schemas.declarations import DEFAULT_INTERVAL_MS
from schemas.events import Measurement
from streams.logic.measured import WindowContext
from streams.logic.summaries import CategoryCounts, Merged, NumberCounts, PresenceCounts


def choose_inputs(merged: Sequence[Merged], records_topic: str) -> Merged | None:
    """Return the inputs of the whole model: from records if the window has any there, else from predictions."""
    inputs = [each for each in merged if not each.model_version and not each.segment and each.num_rows > 0]
    return min(inputs, key=lambda each: each.topic != records_topic, default=None)


def measure_quality(context: WindowContext, inputs: Merged | None, merged: Sequence[Merged]) -> list[Measurement]:
    """Measure rows, duplicates and late rows of inputs and of each version, shares of features' values.

    The row `num_rows` of the whole model is not among them: it says that a window's measurements are complete.
    """
    found = []
    outputs = [each for each in merged if each.model_version and not each.segment]
    for each in ([inputs] if inputs is not None else []) + outputs:
        version = each.model_version
        if version:
            found.append(
                context.make(
                    "quality", "num_rows", each.num_rows, _judge(context, each), each.num_rows, model_version=version
                )
            )
        for metric, count in (
            ("num_duplicates", each.summary.num_duplicates),
            ("num_late", each.summary.num_late),
        ):
            found.append(context.make("quality", metric, count, "ok", each.num_rows, model_version=version))
    if inputs is not None:
        found += _measure_features(context, inputs)
    return found


def make_marker(context: WindowContext, num_rows: int, num_sampled: int) -> Measurement:
    """Return the row that says that all other measurements of the window without labels are stored."""
    few = num_rows < context.spec.windows.min_rows
    status = "too_few_rows" if few else "ok"
    return context.make("quality", "num_rows", num_rows, status, num_rows, num_sampled=num_sampled)


def measure_volume(context: WindowContext, num_rows: int, reference_ts: Ints) -> list[Measurement]:
    """Measure rows against what the reference's rate makes expect; nothing where the reference had no times.

    `reference_ts` int64[n] are its instants in epoch ms, in any order.
    """
    span_ms = int(reference_ts.max() - reference_ts.min()) if len(reference_ts) > 1 else 0
    if not span_ms or _is_made_up(context, reference_ts):
        return []
    expected = (len(reference_ts) - 1) * context.spec.windows.size_ms / span_ms
    return [context.make("quality", "volume_ratio", num_rows / expected, "ok", num_rows)]


def _is_made_up(context: WindowContext, reference_ts: Ints) -> bool:
    """Tell whether `apply` made up the times: of a reference without any, and without a declared interval."""
    if context.spec.reference.interval_ms is not None:
        return False
    first = context.spec.windows.origin_ms
    return bool(np.array_equal(reference_ts, first + np.arange(len(reference_ts)) * DEFAULT_INTERVAL_MS))


def _judge(context: WindowContext, merged: Merged) -> str:
    return "too_few_rows" if merged.num_rows < context.spec.windows.min_rows else "ok"


def _measure_features(context: WindowContext, inputs: Merged) -> list[Measurement]:
    num_rows = inputs.num_rows
    numbers, categories, presences = inputs.numbers(), inputs.categories(), inputs.presences()
    fields: list[NumberCounts | CategoryCounts | PresenceCounts] = [*numbers, *categories, *presences]
    shares = [(each.name, "coerced_share", each.num_coerced) for each in fields if each.num_coerced]
    for number in numbers:
        shares.append((number.name, "null_share", number.num_null))
        declared = context.spec.features.get(number.name)
        if declared is not None and (declared.min is not None or declared.max is not None):
            shares.append((number.name, "out_of_range_share", number.num_below + number.num_above))
    for category in categories:
        shares.append((category.name, "null_share", category.num_null))
        declared = context.spec.features.get(category.name)
        if declared is not None and declared.type == "category":
            # The last count is of what the reference's values do not name.
            shares.append((category.name, "unseen_share", int(category.counts[-1])))
        if declared is not None and declared.values is not None:
            shares.append((category.name, "out_of_range_share", category.num_not_allowed))
    shares += [(presence.name, "null_share", presence.num_null) for presence in presences]
    return [
        context.make("quality", metric, count / num_rows, "ok", num_rows, feature=name)
        for name, metric, count in shares
    ]

"""What saying the last label again would have scored: a measurement of kind `performance` beside the model's own."""

from __future__ import annotations

from measures.baselines import measure_no_change_accuracy, measure_no_change_mae
from schemas.events import Measurement
from streams.logic.measured import WindowContext
from streams.logic.outcomes import find_labelled
from streams.logic.rows import Rows, sort_by_time


def measure_no_change(
    context: WindowContext, rows: Rows, num_rows: int, coverage: float, model_version: str
) -> list[Measurement]:
    """Measure the no-change baseline on a window's labelled rows in order of (ts, record_id), where the spec wants it.

    The first row has none before it. Of a sample nothing is said: its rows do not follow each other.
    """
    spec = context.spec
    if spec.performance.baseline != "no_change" or len(rows) >= spec.exact_rows:
        return []
    labelled = rows.take(find_labelled(rows))
    ordered = labelled.take(sort_by_time(labelled))
    if spec.task == "regression":
        if ordered.label is None:
            return []
        metric, (value, interval) = "no_change_mae", measure_no_change_mae(ordered.label)
    else:
        labels = ordered.label_text if spec.task == "multiclass" else ordered.label
        if labels is None:
            return []
        metric, (value, interval) = "no_change_accuracy", measure_no_change_accuracy(labels)
    if coverage < spec.performance.min_label_coverage:
        status = "partial"
    else:
        status = "too_few_rows" if len(ordered) < spec.windows.min_rows else "ok"
    made = context.make(
        "performance", metric, value, status, num_rows, num_sampled=len(ordered), model_version=model_version,
        label_coverage=coverage, interval=interval,
    )  # fmt: skip
    return [made]

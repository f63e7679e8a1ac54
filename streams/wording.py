"""Plain words for alerts: what happened, with figures, and what the windows are made of."""

from __future__ import annotations

from collections.abc import Sequence

from measures.performance import higher_is_better
from schemas.descriptors import name_in_words
from schemas.instants import format_instant
from schemas.spec import ModelSpec
from schemas.units import format_duration
from store.measurements import DriftRow, FairnessRow
from streams.explaining import Explanation
from streams.logic.alerts import Transition
from streams.logic.freshness import AgeLimit, Change
from streams.logic.verdicts import HarmVerdict, JudgedWindow

_NAMES = {
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "log_loss": "log loss",
    "brier": "Brier score",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "mape": "mean absolute percentage error",
    "r2": "R²",
    "jensenshannon": "Jensen-Shannon distance",
    "wasserstein": "normalised Wasserstein distance",
    "psi": "population stability index",
    "ks": "Kolmogorov-Smirnov distance",
    "kl_div": "Kullback-Leibler divergence",
    "hellinger": "Hellinger distance",
    "energy": "energy distance",
    "total_variation": "total variation distance",
    "l_infinity": "largest difference of a share",
    "cramer_von_mises": "Cramér-von-Mises statistic",
    "anderson_darling": "Anderson-Darling statistic",
    "chisquare": "chi-square statistic",
    "g_test": "G statistic",
    "demographic_parity": "gap of positive predictions",
    "equal_opportunity": "gap of positives found",
    "disparate_impact": "ratio of positive predictions",
    "ks_counts": "Kolmogorov-Smirnov distance",
    "linf_counts": "largest difference of a share",
}


# Columns whose composition is told in words; the evidence has more.
_NUM_TOLD = 2


def name_metric(metric: str) -> str:
    """Return a metric's name as people write it."""
    return _NAMES.get(metric, metric)


def format_value(value: float | None) -> str:
    """Write a figure with four decimals, large ones with six digits."""
    if value is None:
        return "unknown"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def describe_harm(
    metric: str, transition: Transition, verdict: HarmVerdict | None, version: str, explanations: Sequence[Explanation]
) -> str:
    """Say why an alert of harm changed its state."""
    if verdict is None or verdict.reading is None:
        return "measured anew, no window of this alert is harmed any more"
    how = "realized" if verdict.reading.kind == "performance" else "estimated"
    side = "below" if higher_is_better(metric) else "above"
    value, limit = format_value(verdict.reading.value), format_value(verdict.threshold)
    what = f"{how} {name_metric(metric)} {value} of version {version}"
    if transition.state == "resolved":
        if transition.cause == "restated":
            return f"measured anew, {what} is within the limit {limit}"
        return f"{what} is back within the limit {limit}"
    parts = [f"{what} is {side} the limit {limit}"]
    if verdict.harm is not None:
        parts[0] += f" ({format_value(abs(verdict.harm))} worse than in the reference)"
    parts += [each.words for each in explanations[:_NUM_TOLD]]
    return "; ".join([*parts, *_describe_blame(metric, explanations)])


def describe_drift(
    spec: ModelSpec,
    transition: Transition,
    reading: DriftRow | None,
    judged: JudgedWindow | None,
    explanations: Sequence[Explanation],
) -> str:
    """Say why an alert of drift changed its state, and whether the drift hurts the primary metric."""
    metric = spec.performance.metrics[0]
    if transition.cause == "relieved" and judged is not None:
        return f"this drift goes on; {_describe_relief(metric, judged)}"
    harm = None if judged is None else judged.verdict
    effect = "; ".join([_describe_effect(harm), *_describe_blame(metric, explanations)])
    if transition.cause == "assessed":
        return f"this drift goes on; {effect}"
    if reading is None:
        return "measured anew, no column of this alert has drifted any more"
    column = name_in_words(reading.feature, spec.features.get(reading.feature))
    if reading.model_version:
        column += f" of version {reading.model_version}"
    what = f"{name_metric(reading.metric)} {format_value(reading.value)} of {column}"
    if reading.alpha is not None:
        return _describe_test(transition, reading, what, effect)
    if transition.state == "resolved":
        return f"{what}, the column that differs most, is within its threshold {format_value(reading.threshold)}"
    return f"{what} has reached its threshold {format_value(reading.threshold)}{_count_others(reading)}; {effect}"


def _describe_test(transition: Transition, reading: DriftRow, what: str, effect: str) -> str:
    merged = f" over {reading.scale} windows" if reading.scale > 1 else ""
    sure = f"p = {reading.p_value:.2g}" if reading.p_value is not None else "no p-value"
    if transition.state == "resolved":
        return f"{what}, the column that differs most, is not surely different any more ({sure}{merged})"
    return (
        f"{what}{merged} is surely different from the reference ({sure}, at most {reading.alpha:.2g} was needed)"
        f"{_count_others(reading)}; {effect}"
    )


def _count_others(reading: DriftRow) -> str:
    return f" ({reading.num_drifted} columns have drifted)" if reading.num_drifted > 1 else ""


def describe_fairness(transition: Transition, reading: FairnessRow | None, key: str) -> str:
    """Say why an alert of fairness changed its state."""
    if reading is None:
        return f"measured anew, the values of {key} are treated alike"
    value, limit = format_value(reading.value), format_value(reading.threshold)
    what = f"{name_metric(reading.metric)} {value} between the values of {key}, of version {reading.model_version}"
    if transition.state == "resolved":
        return f"{what}, is within the limit {limit} again, or not surely beyond it"
    return f"{what}, is surely beyond the limit {limit}"


def describe_freshness(topic: str, change: Change, limit: AgeLimit | None, newest_ms: int | None) -> str:
    """Say why an alert of freshness changed its state; `newest_ms` is when (epoch ms) the newest event came, if any."""
    if change.cause == "unasked":
        return f"the spec does not ask for events on {topic} any more"
    if change.cause == "came":
        return f"events come on {topic} again, the newest at {format_instant(change.until_ms)}"
    allowed = "" if limit is None else f" ({format_duration(limit.max_age_ms)} are allowed)"
    silent = format_duration((change.until_ms - change.first_ms) // 1000 * 1000)
    if newest_ms is None:
        return f"no valid event has ever come on {topic}, {silent} after the model was declared{allowed}"
    return f"no valid event has come on {topic} for {silent}{allowed}, the last at {format_instant(newest_ms)}"


def _describe_blame(metric: str, explanations: Sequence[Explanation]) -> list[str]:
    """Name the column whose change alone would cost most; nothing where none would cost anything."""
    worst = max(explanations, key=lambda each: each.harm or 0.0, default=None)
    if worst is None or not worst.share or worst.harm is None:
        return []
    name, harm = name_metric(metric), format_value(worst.harm)
    return [f"if only {worst.feature} had changed so, {name} of the reference would be {harm} worse"]


def _describe_relief(metric: str, judged: JudgedWindow) -> str:
    reading = judged.verdict.reading
    assert reading is not None, "it was decided"
    how = "realized" if reading.kind == "performance" else "estimated"
    return (
        f"version {judged.model_version} has made up for it: {how} {name_metric(metric)} {format_value(reading.value)} "
        f"is within the limit {format_value(judged.verdict.threshold)}"
    )


def _describe_effect(harm: HarmVerdict | None) -> str:
    if harm is None or harm.reading is None:
        return "whether it hurts is not known"
    return "performance is harmed" if harm.decision == "alert" else "no harm to performance is seen"

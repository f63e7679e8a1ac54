"""What all measurements of one window have in common, and how a single one is made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from measures.intervals import UNKNOWN, Interval
from schemas.events import Measurement
from schemas.spec import ModelSpec, PublishedSpec


@dataclass(frozen=True, slots=True)
class WindowContext:
    """One window being measured: instants in epoch ms; `covered` and `revision` go into each of its rows.

    `source` names the topic that the inputs were counted from, `scale` says how many windows are measured as one.
    """

    published: PublishedSpec
    window_start: int
    window_end: int
    covered: int
    revision: int
    computed_at: int
    source: str = ""
    scale: int = 1

    @property
    def spec(self) -> ModelSpec:
        """The spec in force at the window's start."""
        return self.published.spec

    def make(
        self,
        kind: str,
        metric: str,
        value: float | None,
        status: str,
        num_rows: int,
        *,
        num_sampled: int | None = None,
        model_version: str = "",
        segment: str = "",
        feature: str = "",
        lower: float | None = None,
        upper: float | None = None,
        p_value: float | None = None,
        alpha: float | None = None,
        threshold: float | None = None,
        label_coverage: float | None = None,
        interval: Interval = UNKNOWN,
    ) -> Measurement:
        """Return one measurement of the window; NaN becomes null."""
        return Measurement(
            model=self.spec.model,
            model_version=model_version,
            window_start=self.window_start,
            window_end=self.window_end,
            segment=segment,
            feature=feature,
            kind=kind,
            metric=metric,
            value=drop_nan(value),
            status=status,
            num_rows=num_rows,
            computed_at=self.computed_at,
            lower=drop_nan(lower),
            upper=drop_nan(upper),
            p_value=drop_nan(p_value),
            alpha=drop_nan(alpha),
            threshold=drop_nan(threshold),
            num_sampled=num_rows if num_sampled is None else num_sampled,
            label_coverage=drop_nan(label_coverage),
            covered=self.covered,
            revision=self.revision,
            spec_version=self.published.spec_version,
            source=self.source,
            scale=self.scale,
            sampling_error=drop_nan(interval.error),
            interval_lower=drop_nan(interval.lower),
            interval_upper=drop_nan(interval.upper),
        )


def drop_nan(value: float | None) -> float | None:
    """Return None for NaN, which the tables write as null."""
    return None if value is None or math.isnan(value) else float(value)

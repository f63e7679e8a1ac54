"""Rows with every kind of column and nulls in each, and the spec that they are published under as a reference."""

from __future__ import annotations

import numpy as np

from schemas.inference import find_cuts
from schemas.spec import (
    FeatureSpec,
    ModelSpec,
    PublishedSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
)
from streams.logic.rows import Coded, Rows, code_segments

SIZE_MS = 1_000
NUM_ROWS = 3_000

FEATURES = {
    "amount": FeatureSpec(type="number", min=-1.0, max=1.0),
    "country": FeatureSpec(type="category", values=["DE", "FR", "IT"]),
    "flag": FeatureSpec(type="boolean"),
    "gone": FeatureSpec(type="number", policy="drop"),
    "note": FeatureSpec(type="text"),
}


def draw_rows(seed: int, num: int = NUM_ROWS) -> Rows:
    """Rows with nulls in every column, and a country that the reference ranks too low to have a segment."""
    rng = np.random.default_rng(seed)

    def punch(values: np.ndarray, missing: object) -> np.ndarray:
        return np.where(rng.random(num) < 0.02, missing, values)

    countries = np.array(["DE", "FR", "AT", "CH"], dtype=object)
    rows = Rows(ts=np.sort(rng.integers(0, 10 * SIZE_MS, num)))
    rows.numbers = {
        "amount": punch(np.round(rng.normal(size=num), 2), np.nan).astype(float),
        "flag": punch((rng.random(num) < 0.3).astype(float), np.nan).astype(float),
    }
    rows.texts = {
        "country": Coded.of(punch(countries[rng.choice(4, num, p=[0.5, 0.3, 0.15, 0.05])], None)),
        "note": Coded.of(punch(np.full(num, "text", dtype=object), None)),
    }
    rows.score, rows.prediction = rng.random(num), (rng.random(num) < 0.4).astype(float)
    rows.segments = {key: code_segments(rows, key) for key in ("country", "flag")}
    return rows


def publish(rows: Rows) -> PublishedSpec:
    spec = ModelSpec(
        model="m", task="binary", reference=ReferenceSource(file="r.csv"), features=FEATURES,
        segments=["country", "flag"], windows=WindowSpec(size_ms=SIZE_MS, lateness_ms=0, retention=100),
        performance=default_performance("binary"), alerts=default_alerts(),
    )  # fmt: skip
    assert rows.score is not None
    return PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="h", reference_rows=len(rows),
        cuts={"amount": find_cuts(rows.numbers["amount"]), "score": find_cuts(rows.score)},
        categories={"country": ["DE", "FR", "AT"], "prediction": ["0", "1"]},
        segment_values={"country": ["DE", "FR"], "flag": ["0", "1"]},
    )  # fmt: skip


REFERENCE = draw_rows(1)
PUBLISHED = publish(REFERENCE)

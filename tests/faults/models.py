"""The models of the fault test, declared once for both sides: as a spec for the product, as plain facts for the oracle.

Imports nothing of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

HOUR_MS = 3_600_000
START_MS = 1_767_052_800_000  # 2025-12-30T00:00:00Z, a multiple of every window size
SPAN_MS = 8 * HOUR_MS


@dataclass(frozen=True)
class Feature:
    """A declared feature; a value beyond `min`, `max` or `values` is counted as out of range."""

    type: Literal["number", "boolean", "category", "text"]
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None


# What describes a text: its characters, its words (with a letter in them), and how many characters are odd ones.
DESCRIBE: dict[str, Callable[[str], float]] = {
    "num_chars": len,
    "num_words": lambda text: sum(any(letter.isalpha() for letter in word) for word in text.split()),
    "non_letter_share": lambda text: sum(not (letter.isalpha() or letter == " ") for letter in text) / len(text),
}


@dataclass(frozen=True)
class Model:
    """A model; a distance drifts from `threshold` on, or where it is None what the tests of counts say has drifted."""

    name: str
    task: Literal["binary", "regression"]
    size_ms: int
    lateness_ms: int
    retention: int
    features: dict[str, Feature]
    metrics: tuple[str, ...]
    segments: tuple[str, ...] = ()
    threshold: float | None = 0.1
    exact_rows: int = 50_000
    min_rows: int = 100
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def retention_ms(self) -> int:
        return self.retention * self.size_ms

    @property
    def measured(self) -> dict[str, Feature]:
        """The features, and the numbers that describe those that are texts."""
        texts = [name for name, feature in self.features.items() if feature.type == "text"]
        return self.features | {f"{name}.{number}": Feature("number") for name in texts for number in DESCRIBE}

    def to_yaml(self) -> str:
        """Give the spec's file; the reference lies beside it."""
        # Never idle: how far time has come is to follow from the log alone.
        windows = (
            f"size: {self.size_ms // 1000}s, lateness: {self.lateness_ms // 1000}s, retention: {self.retention}, "
            f"min_rows: {self.min_rows}, idle: 1d"
        )
        columns = ", ".join(f"{role}: {name}" for role, name in self.columns.items())
        lines = [
            f"model: {self.name}",
            f"task: {self.task}",
            f"reference: {{file: {self.name}.parquet, interval: 1s, columns: {{{columns}}}}}",
            f"windows: {{{windows}}}",
            "features:",
            *(f"  {name}: {{{_write_feature(feature)}}}" for name, feature in self.features.items()),
            f"performance: {{metrics: [{', '.join(self.metrics)}], limits: 3sd}}",
            f"exact_rows: {self.exact_rows}",
        ]
        if self.segments:
            lines.append(f"segments: [{', '.join(self.segments)}]")
        lines.append(f"drift: {{threshold: {'calibrated' if self.threshold is None else self.threshold}}}")
        return "\n".join(lines) + "\n"


def _write_feature(feature: Feature) -> str:
    parts = [f"type: {feature.type}"]
    parts += [f"{name}: {value}" for name, value in (("min", feature.min), ("max", feature.max)) if value is not None]
    if feature.values is not None:
        parts.append(f"values: [{', '.join(feature.values)}]")
    return ", ".join(parts)


# Records, predictions and labels apart; measured on a sample; a segment of which one value is unknown to the reference.
LOANS = Model(
    name="loans",
    task="binary",
    size_ms=600_000,
    lateness_ms=60_000,
    retention=6,
    features={
        "amount": Feature("number", min=1.0),
        "age": Feature("number", min=18.0, max=75.0),
        "vip": Feature("boolean"),
        "country": Feature("category", values=("DE", "FR", "US")),
    },
    metrics=("roc_auc", "accuracy", "f1", "log_loss"),
    segments=("country",),
    threshold=0.12,
    exact_rows=4_000,
    columns={"label": "repaid", "score": "y_proba", "prediction": "y_pred"},
)
# Predictions that carry the features, of two versions that score the same records; measured on every row, and tested
# by counts.
RENTS = Model(
    name="rents",
    task="regression",
    size_ms=900_000,
    lateness_ms=90_000,
    retention=4,
    features={
        "area": Feature("number", min=10.0),
        "rooms": Feature("number"),
        "kind": Feature("category"),
        "note": Feature("text"),
    },
    metrics=("mae", "rmse"),
    threshold=None,
    columns={"label": "rent", "prediction": "y_pred"},
)
MODELS = {model.name: model for model in (LOANS, RENTS)}
VERSIONS = {"loans": ("external",), "rents": ("7", "8")}

_COUNTRIES = ["DE", "FR", "US", "JP", "XX"]
_KINDS = ["flat", "house", "loft"]


def make_loans(rng: np.random.Generator, num: int, drift: np.ndarray, countries: int = 5) -> pd.DataFrame:
    """Rows of `loans`; `drift` float64[num] moves their features away from the reference, where it is 0."""
    amount = np.round(rng.lognormal(3.0 + drift, 0.8), 3)
    age = rng.integers(16, 80, num).astype(float)
    weight = np.array([0.5, 0.28, 0.15, 0.05, 0.02][:countries])
    country = np.array(_COUNTRIES)[rng.choice(countries, num, p=weight / weight.sum())]
    country = np.where(rng.random(num) < drift / 4, "US", country)
    logit = 1.2 - 0.8 * np.log(amount / 20) + 0.02 * age - 0.9 * (country == "US")
    score = np.round(1 / (1 + np.exp(-(logit + rng.normal(0, 0.7, num)))), 6)
    age[rng.random(num) < 0.05] = np.nan
    return pd.DataFrame(
        {
            "amount": amount,
            "age": age,
            "vip": rng.random(num) < 0.3,
            "country": country,
            "repaid": (rng.random(num) < 1 / (1 + np.exp(-logit))).astype(int),
            "y_proba": score,
            "y_pred": (score >= 0.5).astype(int),
        }
    )


def make_rents(rng: np.random.Generator, num: int, drift: np.ndarray) -> pd.DataFrame:
    """Rows of `rents`, likewise."""
    area = np.round(rng.gamma(4.0, 18.0 * (1 + drift)), 2)
    rooms = np.clip(np.round(area / 25 + rng.normal(0, 0.7, num)), 1, 9)
    kind = np.array(_KINDS)[rng.choice(3, num, p=[0.6, 0.3, 0.1])]
    rent = np.round(8 * area * (1 + 0.2 * (kind == "loft")) + rng.normal(0, 60, num), 2)
    draw = rng.random(num)
    note = np.select([draw < 0.5 - 0.3 * drift, draw < 0.9], ["seen on a rainy day, twice", "as new!"], None)
    return pd.DataFrame(
        {
            "area": area,
            "rooms": rooms,
            "kind": kind,
            "note": note,
            "rent": rent,
            "y_pred": np.round(rent + rng.normal(0, 40 * (1 + drift), num), 2),
        }
    )


def make_references(num_rows: int = 4_000, seed: int = 1) -> dict[str, pd.DataFrame]:
    """The references by model; nobody from XX is in that of `loans`."""
    rng = np.random.default_rng(seed)
    calm = np.zeros(num_rows)
    return {"loans": make_loans(rng, num_rows, calm, countries=4), "rents": make_rents(rng, num_rows, calm)}


def write_specs(folder: Path, references: dict[str, pd.DataFrame]) -> list[Path]:
    """Write each model's spec and reference; gives the specs' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, model in MODELS.items():
        references[name].to_parquet(folder / f"{name}.parquet", index=False)
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(model.to_yaml())
    return paths

"""Rows of 40 numbers and 10 categories, encoded as a job encodes them: what the training benchmarks learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrain.network import NetworkConfig, configure_network
from retrain.preprocessing import EncodedRows, FeatureRows, Preprocessing, fit_preprocessing
from retrain.target import Target
from schemas.spec import FeatureSpec

NUM_NUMBERS, NUM_CATEGORIES = 40, 10
_VALUES = np.array(["a", "b", "c", "d", "e", "f", "g", "h"], dtype=object)


@dataclass(frozen=True, slots=True)
class TabularRows:
    """n encoded rows, their labels (float32, 0 or 1), and the network that reads them."""

    encoded: EncodedRows
    truth: np.ndarray
    target: Target
    config: NetworkConfig


def make_tabular(num_rows: int) -> TabularRows:
    """Make rows whose label follows some of their features; the same whenever they are made."""
    rng = np.random.default_rng(1)
    numbers = {f"number_{place}": rng.normal(size=num_rows) for place in range(NUM_NUMBERS)}
    codes = rng.integers(0, len(_VALUES), (NUM_CATEGORIES, num_rows))
    texts = {f"category_{place}": pa.array(_VALUES[codes[place]], pa.string()) for place in range(NUM_CATEGORIES)}
    logit = numbers["number_0"] - numbers["number_1"] + (codes[0] == 0)
    truth = (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    rows = FeatureRows(numbers, texts, num_rows)
    preprocessing, target = learn(rows), Target("binary")
    return TabularRows(preprocessing.encode(rows), truth, target, configure_network("mlp", preprocessing, target))


def learn(rows: FeatureRows) -> Preprocessing:
    """Learn the preprocessing of all columns."""
    features = {name: FeatureSpec(type="number") for name in rows.numbers}
    return fit_preprocessing(rows, features | {name: FeatureSpec(type="category") for name in rows.texts})

"""How much faster is a drift distance called directly than through Evidently's DataDriftPreset?

One frame, one process, same methods; the values of both must agree or the benchmark fails.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bench.results import Limit, Result, compare
from bench.surroundings import Options
from measures.drift import AUTO, Kind, measure_distance

NUM_NUMBERS, NUM_CATEGORIES = 20, 5
DIFFERENCE_MAX = 1e-12


def make_frame(num_rows: int, shift: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        f"number_{i}": rng.normal(shift * i / NUM_NUMBERS, 1.0, num_rows) for i in range(NUM_NUMBERS)
    }
    names = np.array([f"value {i}" for i in range(20)], dtype=object)
    for i in range(NUM_CATEGORIES):
        weights = 1.0 / np.arange(1, 21) ** (1.0 + shift * i / NUM_CATEGORIES)
        columns[f"category_{i}"] = names[rng.choice(20, num_rows, p=weights / weights.sum())]
    return pd.DataFrame(columns)


def kind_of(name: str) -> Kind:
    return "number" if name.startswith("number") else "category"


def measure_directly(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, float]:
    return {
        name: measure_distance(reference[name].to_numpy(), current[name].to_numpy(), kind_of(name)).value
        for name in reference.columns
    }


def measure_by_preset(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own, while it renders
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        kinds: dict[Kind, list[str]] = {"number": [], "category": []}
        for name in reference.columns:
            kinds[kind_of(name)].append(name)
        definition = DataDefinition(numerical_columns=kinds["number"], categorical_columns=kinds["category"])
        preset = DataDriftPreset(num_method=AUTO["number"], cat_method=AUTO["category"])
        snapshot = Report([preset]).run(
            Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
        )
        metrics = snapshot.dict()["metrics"]
    return {each["config"]["column"]: float(each["value"]) for each in metrics if "column" in each["config"]}


def time_call(call: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    started = time.perf_counter()
    values = call()
    return values, time.perf_counter() - started


def run(options: Options) -> list[Result]:
    num_rows = 50_000 if options.short else 100_000
    reference, current = make_frame(num_rows, 0.0, seed=1), make_frame(num_rows, 0.3, seed=2)
    tiny = reference.head(50)
    measure_directly(tiny, tiny)
    measure_by_preset(tiny, tiny)  # imports and first-call costs of both sides stay out of the figures
    preset, preset_s = time_call(lambda: measure_by_preset(reference, current))
    direct, direct_s = time_call(lambda: measure_directly(reference, current))
    if preset.keys() != direct.keys():
        raise ValueError(f"the columns differ: {sorted(preset.keys() ^ direct.keys())}")
    worst = max(abs(direct[name] - preset[name]) for name in direct)
    if worst > DIFFERENCE_MAX:
        raise ValueError(f"the values differ by up to {worst:.1e}")
    name = f"drift distances of {len(direct)} columns, {num_rows:,} + {num_rows:,} rows"
    peer = "Evidently's DataDriftPreset, equal values"
    return [compare(name, 1 / direct_s, "windows/s", peer, 1 / preset_s, Limit("ratio", "at least", 10, aim=50))]

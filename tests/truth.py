"""A stream with known truth, and what must come out of it, computed with pandas, SciPy, scikit-learn and Evidently.

Imports nothing of the product.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

MODEL = "credit"
SIZE_MS = 1_000_000
START_MS = 1_767_000_000_000  # a multiple of SIZE_MS
REFERENCE_ROWS = 4_000
LABEL_DELAY_MS = SIZE_MS // 2

SPEC = """\
model: credit
task: binary
reference:
  file: reference.parquet
  columns: {label: repaid, score: y_proba, prediction: y_pred, id: id}
  interval: 1s
windows: {size: 1000s, lateness: 300s}
features:
  amount: {type: number}
  age: {type: number}
  country: {type: category}
segments: [country]
online: [{detector: adwin, on: score}]
performance: {metrics: [roc_auc, accuracy, f1], limits: 3sd}
"""


@dataclass(frozen=True)
class Truth:
    """The reference and the stream as tables; the stream has ts, id, features, y_proba, y_pred, repaid."""

    reference: pd.DataFrame
    stream: pd.DataFrame

    @property
    def window_starts(self) -> list[int]:
        return sorted((self.stream["ts"] // SIZE_MS * SIZE_MS).unique().tolist())


def make_rows(rng: np.random.Generator, num_rows: int, shift: float) -> pd.DataFrame:
    amount = np.round(rng.lognormal(3.0 + shift, 0.8, num_rows), 3)
    age = rng.integers(18, 80, num_rows).astype(float)
    age[rng.random(num_rows) < 0.05] = np.nan
    country = rng.choice(["DE", "FR", "US", "JP"], num_rows, p=[0.5 - shift / 3, 0.3, 0.15, 0.05 + shift / 3])
    logit = 1.2 - 0.8 * np.log(amount / 20) + 0.02 * np.nan_to_num(age, nan=45.0) - 0.9 * (country == "US")
    label = (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(int)
    score = np.round(1 / (1 + np.exp(-(logit + rng.normal(0, 0.7, num_rows)))), 6)
    return pd.DataFrame(
        {"amount": amount, "age": age, "country": country, "repaid": label, "y_proba": score,
         "y_pred": (score >= 0.5).astype(int)}
    )  # fmt: skip


def make_truth(num_windows: int = 6, rows_per_window: int = 1_000, seed: int = 7) -> Truth:
    """Windows of equal size; from the middle on the features drift."""
    rng = np.random.default_rng(seed)
    reference = make_rows(rng, REFERENCE_ROWS, 0.0)
    reference.insert(0, "id", [f"ref-{row}" for row in range(len(reference))])
    parts = []
    for number in range(num_windows):
        rows = make_rows(rng, rows_per_window, 0.0 if number < num_windows // 2 else 0.6)
        offsets = np.sort(rng.choice(SIZE_MS, rows_per_window, replace=False))
        rows.insert(0, "ts", START_MS + number * SIZE_MS + offsets)
        parts.append(rows)
    stream = pd.concat(parts, ignore_index=True)
    stream.insert(0, "id", [f"r{row:06d}" for row in range(len(stream))])
    return Truth(reference, stream)


def write_truth(truth: Truth, folder: Path) -> tuple[Path, Path]:
    """Write reference.parquet, stream.parquet and credit.yaml; gives the paths of spec and stream."""
    folder.mkdir(parents=True, exist_ok=True)
    truth.reference.to_parquet(folder / "reference.parquet", index=False)
    truth.stream.to_parquet(folder / "stream.parquet", index=False)
    (folder / "credit.yaml").write_text(SPEC)
    return folder / "credit.yaml", folder / "stream.parquet"


def make_events(truth: Truth) -> Iterator[tuple[int, str, str, bytes]]:
    """(ts, topic, key, value) of every event, in event time."""
    events = []
    for row in truth.stream.to_dict("records"):
        features = {name: None if row[name] != row[name] else row[name] for name in ("amount", "age", "country")}
        base = {"record_id": row["id"], "model": MODEL}
        events.append((row["ts"], "records", row["id"], {**base, "ts": row["ts"], "features": features}))
        output = {"prediction": row["y_pred"], "score": row["y_proba"]}
        events.append((row["ts"], "predictions", row["id"], {**base, "ts": row["ts"], **output}))
        late = row["ts"] + LABEL_DELAY_MS
        events.append((late, "labels", row["id"], {**base, "ts": late, "label": row["repaid"]}))
    events.sort(key=lambda event: event[0])
    for ts, topic, key, event in events:
        yield ts, topic, key, json.dumps(event).encode()


def shuffle_events(
    events: list[tuple[int, str, str, bytes]], lateness_ms: int, duplicate_share: float, seed: int
) -> list[tuple[int, str, str, bytes]]:
    """Arrival in any order within the lateness, some of them twice."""
    rng = np.random.default_rng(seed)
    repeated = [event for event in events if rng.random() < duplicate_share]
    everything = events + repeated
    arrival = np.array([event[0] for event in everything]) + rng.uniform(0, lateness_ms, len(everything))
    return [everything[i] for i in np.argsort(arrival, kind="stable")]


def normalised_wasserstein(reference: pd.Series, current: pd.Series) -> float:
    """Evidently's: SciPy's distance over the reference's standard deviation (ddof 0)."""
    known, seen = reference.dropna(), current.dropna()
    return float(wasserstein_distance(known, seen) / max(float(np.std(known)), 0.001))


def category_jensenshannon(reference: pd.Series, current: pd.Series) -> float:
    """Evidently's: Jensen-Shannon distance of the shares, natural logarithm, categories of both sides."""
    values = sorted(set(reference.dropna()) | set(current.dropna()))
    known = [side.dropna().value_counts(normalize=True) for side in (reference, current)]
    shares = [each.reindex(values, fill_value=0.0) for each in known]
    return float(jensenshannon(*shares))


def compute_expected(truth: Truth, duplicates: int = 0) -> dict[tuple[int, str, str, str, str], float]:
    """(window_start, segment, kind, feature, metric) → value, of everything that can be recomputed in the open."""
    expected: dict[tuple[int, str, str, str, str], float] = {}
    reference = truth.reference
    starts = truth.stream["ts"] // SIZE_MS * SIZE_MS
    for start, window in truth.stream.groupby(starts):
        for segment, rows, base in [("", window, reference)] + [
            (f"country={c}", window[window["country"] == c], reference[reference["country"] == c])
            for c in ("DE", "FR", "US", "JP")
        ]:
            if len(rows) < 100:
                continue
            key = (int(start), segment)
            for feature in ("amount", "age"):
                expected[(*key, "drift", feature, "wasserstein")] = normalised_wasserstein(base[feature], rows[feature])
            expected[(*key, "drift", "score", "wasserstein")] = normalised_wasserstein(base["y_proba"], rows["y_proba"])
            distance = category_jensenshannon(base["country"], rows["country"])
            expected[(*key, "drift", "country", "jensenshannon")] = distance
            labels, scores, predictions = rows["repaid"], rows["y_proba"], rows["y_pred"]
            expected[(*key, "performance", "", "roc_auc")] = float(roc_auc_score(labels, scores))
            expected[(*key, "performance", "", "accuracy")] = float(accuracy_score(labels, predictions))
            expected[(*key, "performance", "", "f1")] = float(f1_score(labels, predictions))
        expected[(int(start), "", "quality", "", "num_rows")] = float(len(window))
    return expected


def compare(
    expected: dict[tuple[int, str, str, str, str], float], found: dict[tuple[int, str, str, str, str], Any]
) -> list[str]:
    """Every difference in words; empty when all is as expected."""
    differences = []
    for key, value in expected.items():
        have = found.get(key)
        if have is None:
            differences.append(f"{key}: missing, expected {value}")
        elif not math.isclose(have, value, rel_tol=1e-9, abs_tol=1e-9):
            differences.append(f"{key}: {have}, expected {value}")
    return differences

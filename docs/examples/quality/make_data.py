"""Turned parts and how far off their diameter a model expects them: reference.parquet, stream.parquet.

The same files whenever it is run. A worn tool cuts too little, ever faster; the model in production is linear, which is
good enough while tools are changed in time. From shift 6 of the stream on they are used for much longer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

PARTS_A_SHIFT = 300
REFERENCE_SHIFTS = 60
STREAM_SHIFTS = 18
FIRST_SHIFT_OF_LONG_USE = 6
ALLOYS = ["6061", "7075"]


def draw_parts(rng: np.random.Generator, start: str, num_shifts: int, first_of_long_use: int | None) -> pd.DataFrame:
    """PARTS_A_SHIFT parts in each shift of eight hours, with the truth in `deviation_um`."""
    num = num_shifts * PARTS_A_SHIFT
    shift = np.arange(num) // PARTS_A_SHIFT
    tool_hours = rng.gamma(3.0, 4.0, num)
    if first_of_long_use is not None:
        tool_hours = np.where(shift >= first_of_long_use, tool_hours * 1.8, tool_hours)
    alloy = rng.integers(0, 2, num)
    feed = rng.normal(0.2, 0.03, num)
    coolant = rng.normal(21, 1.5, num)
    vibration = 0.8 + 0.02 * tool_hours + 2 * (feed - 0.2) + rng.normal(0, 0.08, num)
    deviation = (
        2.0 + 0.012 * tool_hours**2 + 25 * (feed - 0.2) + 1.2 * alloy - 0.3 * (coolant - 21) + rng.normal(0, 0.8, num)
    )
    return pd.DataFrame({
        "at": pd.Timestamp(start, tz="UTC") + np.arange(num) * (pd.Timedelta(hours=8) / PARTS_A_SHIFT),
        "tool_hours": tool_hours.round(2), "feed_mm": feed.round(4), "coolant_c": coolant.round(1),
        "vibration_mm_s": vibration.round(3), "alloy": np.array(ALLOYS)[alloy], "deviation_um": deviation.round(2),
    })  # fmt: skip


def encode(parts: pd.DataFrame) -> np.ndarray:
    """What the model in production reads."""
    numbers = parts[["tool_hours", "feed_mm", "coolant_c", "vibration_mm_s"]].to_numpy(float)
    return np.column_stack([numbers, parts["alloy"] == "7075"])


def main(folder: Path) -> None:
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    learnt = draw_parts(rng, "2025-11-01", REFERENCE_SHIFTS, None)
    model = LinearRegression().fit(encode(learnt), learnt["deviation_um"])
    reference = draw_parts(rng, "2025-12-12", REFERENCE_SHIFTS, None)
    stream = draw_parts(rng, "2026-01-01", STREAM_SHIFTS, FIRST_SHIFT_OF_LONG_USE)
    for name, parts in (("reference", reference), ("stream", stream)):
        parts["expected_um"] = model.predict(encode(parts)).round(3)
        error = (parts["expected_um"] - parts["deviation_um"]).abs()
        parts.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(parts)} parts, mean absolute error {error.mean():.2f} µm")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")

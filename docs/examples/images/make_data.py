"""Scans of 16 × 16 grey pixels as PNG, and the scores of a detector made by hand: reference.parquet, stream.parquet.

The same files whenever it is run. A scan shows tissue, a vessel, and in two of five a lesion: a small bright spot. From
week 4 of the stream on, half of the scans come from a second scanner, whose pictures are darker.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression

SIDE = 16
SCANS_A_WEEK = 500
REFERENCE_WEEKS = 10
STREAM_WEEKS = 10
FIRST_WEEK_OF_SECOND_SCANNER = 4
DARKNESS = 0.5


def draw_scans(rng: np.random.Generator, lesion: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) bytes; `second` says which come from the second scanner."""
    num = len(lesion)
    place = np.arange(SIDE)
    tissue = gaussian_filter(rng.normal(size=(num, SIDE, SIDE)), (0, 2, 2)) * 0.5 + 0.4
    row, column = rng.uniform(3, SIDE - 4, (2, num, 1, 1))
    radius, strength = rng.uniform(1.0, 1.6, (num, 1, 1)), rng.uniform(0.25, 0.5, (num, 1, 1))
    spot = strength * np.exp(-((place[:, None] - row) ** 2 + (place - column) ** 2) / (2 * radius**2))
    slope, offset = rng.uniform(-0.5, 0.5, (num, 1, 1)), rng.uniform(2, SIDE - 3, (num, 1, 1))
    vessel = 0.25 * np.exp(-((place - offset - slope * (place[:, None] - SIDE / 2)) ** 2))
    scans = tissue + vessel + spot * lesion[:, None, None] + rng.normal(0, 0.03, tissue.shape)
    scans = np.where(second[:, None, None], DARKNESS * scans, scans)
    return (scans.clip(0, 1) * 255).astype(np.uint8)


def measure_spots(scans: np.ndarray) -> np.ndarray:
    """What the detector reads: how far the spot that stands out most is above its surroundings."""
    pixels = scans.astype(float) / 255
    above = gaussian_filter(pixels, (0, 1, 1)) - gaussian_filter(pixels, (0, 3, 3))
    return 10 * above.max(axis=(1, 2))[:, None]


def encode_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def main(folder: Path) -> None:
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    lesion = rng.random(5_000) < 0.4
    detector = LogisticRegression().fit(measure_spots(draw_scans(rng, lesion, np.zeros_like(lesion))), lesion)
    files = (("reference", "2025-10-23", REFERENCE_WEEKS), ("stream", "2026-01-01", STREAM_WEEKS))
    for name, start, num_weeks in files:
        num = num_weeks * SCANS_A_WEEK
        week = np.arange(num) // SCANS_A_WEEK
        lesion = rng.random(num) < 0.4
        second = (rng.random(num) < 0.5) & (week >= FIRST_WEEK_OF_SECOND_SCANNER) & (name == "stream")
        scans = draw_scans(rng, lesion, second)
        step = pd.Timedelta(weeks=1) / SCANS_A_WEEK
        rows = pd.DataFrame({
            "at": pd.Timestamp(start, tz="UTC") + np.arange(num) * step, "scan": [encode_png(scan) for scan in scans],
            "scanner": np.where(second, "second", "first"), "lesion": lesion.astype(int),
            "score": detector.predict_proba(measure_spots(scans))[:, 1].round(6),
        })  # fmt: skip
        rows.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {num} scans, {lesion.mean():.3f} of them with a lesion")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")

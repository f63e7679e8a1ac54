"""Rows of every kind of feature, each of which tells the label by itself: what standard models must learn."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from retrain.preprocessing import FeatureRows
from schemas.spec import FeatureSpec

FEATURES = {
    "amount": FeatureSpec(type="number"),
    "country": FeatureSpec(type="category"),
    "comment": FeatureSpec(type="text"),
    "scan": FeatureSpec(type="image"),
    "shape": FeatureSpec(type="embedding"),
}
VECTOR_WIDTH = 8
SIDE = 12
_WORDS = np.array(["the", "part", "came", "in", "time", "box", "Tuesday", "grey", "small", "again"])


@dataclass(frozen=True)
class MediaRows:
    """n rows and their labels, 0 or 1."""

    amount: np.ndarray
    texts: dict[str, list[str | None]]
    label: np.ndarray

    @property
    def features(self) -> FeatureRows:
        texts = {name: pa.array(values, pa.string()) for name, values in self.texts.items()}
        return FeatureRows({"amount": self.amount}, texts, len(self.label))


def make_media(seed: int, num_rows: int, share_missing: float = 0.0) -> MediaRows:
    """Rows whose every feature agrees with the label in nine of ten rows; the same whenever they are made."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_rows)
    told = {name: np.where(rng.random(num_rows) < 0.9, label, 1 - label) for name in FEATURES}
    direction = np.random.default_rng(0).normal(size=VECTOR_WIDTH)
    vectors = rng.normal(size=(num_rows, VECTOR_WIDTH)) + 2.5 * np.outer(told["shape"] - 0.5, direction)
    texts: dict[str, list[str | None]] = {
        "country": np.where(told["country"], "DE", "FR").tolist(),
        "comment": [_write(rng, broken) for broken in told["comment"].tolist()],
        "scan": [encode_image(_draw(rng, upright)) for upright in told["scan"].tolist()],
        "shape": [json.dumps([round(value, 4) for value in vector]) for vector in vectors.tolist()],
    }
    for values in texts.values():
        for row in np.flatnonzero(rng.random(num_rows) < share_missing).tolist():
            values[row] = None
    amount = rng.normal(size=num_rows) / 3 + told["amount"]
    amount[rng.random(num_rows) < share_missing] = np.nan
    return MediaRows(amount, texts, label.astype(float))


def take_features(rows: FeatureRows, index: np.ndarray) -> FeatureRows:
    """The rows at `index`, in that order."""
    numbers = {name: values[index] for name, values in rows.numbers.items()}
    texts = {name: values.take(pa.array(index)) for name, values in rows.texts.items()}
    return FeatureRows(numbers, texts, len(index))


def encode_image(pixels: np.ndarray, image_format: str = "PNG") -> str:
    """An image as an event's inline bytes, in JSON as the store keeps it."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, image_format)
    return json.dumps({"bytes": base64.b64encode(content.getvalue()).decode(), "media_type": "image/png"})


def _write(rng: np.random.Generator, broken: int) -> str:
    words = rng.choice(_WORDS, rng.integers(3, 12)).tolist()
    words.insert(int(rng.integers(len(words))), "broken" if broken else "fine")
    return " ".join(words) + "."


def _draw(rng: np.random.Generator, upright: int) -> np.ndarray:
    """A bar somewhere, standing or lying: no pixel alone says which."""
    pixels = rng.integers(0, 60, (SIDE, SIDE))
    place = int(rng.integers(1, SIDE - 2))
    pixels[:, place : place + 2] += 150
    return (pixels if upright else pixels.T).astype(np.uint8)

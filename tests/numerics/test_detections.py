"""Every detector flags what its River docstring says that it flags."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from measures.online import DETECTORS, OnlineDetector


def _level_shift() -> np.ndarray:
    rng = random.Random(12345)
    return np.array(rng.choices([0, 1], k=1000) + rng.choices(range(4, 8), k=1000), dtype=float)


def _error_rate_shift() -> np.ndarray:
    rng = random.Random(42)
    return np.array(rng.choices([0, 1], k=1000) + rng.choices([0, 1], k=1000, weights=[0.3, 0.7]), dtype=float)


DOCUMENTED: dict[str, tuple[Any, dict[str, float], list[int]]] = {
    "adwin": (_level_shift, {}, [1023]),
    "kswin": (_level_shift, {"alpha": 0.0001, "seed": 42}, [1016]),
    "page_hinkley": (_level_shift, {}, [1006]),
    "ddm": (_error_rate_shift, {}, [1334]),
    "eddm": (_error_rate_shift, {"alpha": 0.8, "beta": 0.75}, [1278]),
    "hddm_a": (_error_rate_shift, {}, [1206]),
    "hddm_w": (_error_rate_shift, {}, [1077]),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_documented_detections(name: str) -> None:
    stream, parameters, expected = DOCUMENTED[name]
    detector = OnlineDetector(name, **parameters)
    assert detector.update(stream()) == expected
    assert detector.num_updates == 2000

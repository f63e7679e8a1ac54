"""Feeding a detector in chunks, with a restart between them, flags what feeding it at once flags."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from measures.online import DETECTORS, OnlineDetector

KEY = b"key"


@given(
    name=st.sampled_from(DETECTORS),
    seed=st.integers(0, 100),
    cuts=st.lists(st.integers(0, 700), max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_chunks_and_restarts_change_nothing(name: str, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    stream = (rng.random(700) < np.repeat([0.1, 0.7, 0.2], [300, 250, 150])).astype(float)
    at_once = OnlineDetector(name, seed=seed)
    expected = at_once.update(stream)

    detector = OnlineDetector(name, seed=seed)
    flagged: list[int] = []
    borders = [0, *sorted(cuts), 700]
    for start, stop in itertools.pairwise(borders):
        flagged += [start + index for index in detector.update(stream[start:stop])]
        detector = OnlineDetector.restore(name, detector.state(KEY), KEY)

    assert flagged == expected
    assert detector.num_updates == at_once.num_updates == 700

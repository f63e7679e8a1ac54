"""Block mode keeps its level where rows depend on each other, and the test for independent rows does not.

Bounds as in test_p_values: of R windows without drift, at most αR + 4·√(2αR) may have p ≤ α, since three windows share
each reference. All draws are seeded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from measures.blocks import BlockProfile, profile_categories, profile_numbers
from measures.p_values import numeric_p_values

LEVELS = np.array([0.05, 0.01])
NUM_COLUMNS, NUM_ROWS = 700, 200
# Windows far enough after the reference and from each other to be independent of both.
NEW = np.array([24, 53, 82])

Draw = Callable[[np.random.Generator, int], np.ndarray]


def draw_sessions(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """Ten rows of a session are half alike."""
    shared = np.repeat(rng.normal(size=(blocks, NUM_ROWS // 10)), 10, axis=1)
    return np.sqrt(0.5) * (rng.normal(size=(blocks, NUM_ROWS)) + shared)


def draw_chain(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """Each row is 0.9 of the one before."""
    rows = rng.normal(size=blocks * NUM_ROWS + 300)
    return lfilter([np.sqrt(1 - 0.81)], [1, -0.9], rows)[300:].reshape(blocks, NUM_ROWS)


def draw_moods(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """Windows have a level of their own, 0.8 of the one before: successive windows are alike."""
    level = lfilter([0.6], [1, -0.8], rng.normal(size=blocks + 300))[300:]
    return rng.normal(size=(blocks, NUM_ROWS)) + 0.3 * level[:, None]


def draw_independent(rng: np.random.Generator, blocks: int) -> np.ndarray:
    return rng.normal(size=(blocks, NUM_ROWS))


def count_bins(rows: np.ndarray, num_blocks: int) -> np.ndarray:
    """Counts [blocks, bins] between 22 order statistics of the first blocks."""
    reference = np.sort(rows[:num_blocks].ravel())
    cuts = reference[(len(reference) * np.arange(0.01, 0.99, 0.0445)).astype(int)]
    return np.stack([np.bincount(each, minlength=len(cuts) + 1) for each in np.searchsorted(cuts, rows)])


def draw_columns(draw: Draw, num_blocks: int, seed: int) -> tuple[BlockProfile, np.ndarray, np.ndarray]:
    """A profile of many columns, each with its own reference, that reference, and three windows [3, columns, bins]."""
    rng = np.random.default_rng(seed)
    counts = np.stack([count_bins(draw(rng, num_blocks + NEW[-1] + 1), num_blocks) for _ in range(NUM_COLUMNS)], axis=1)
    reference = counts[:num_blocks]
    nulls = np.zeros(reference.shape[:2], np.int64)
    return profile_numbers(reference, nulls), reference.sum(axis=0), counts[num_blocks + NEW]


def share_of_alarms(profile: BlockProfile, windows: np.ndarray) -> tuple[np.ndarray, int]:
    """Share of windows at or below each level, of all columns: an uncalibrated one never alarms."""
    none = np.zeros(NUM_COLUMNS, np.int64)
    p_values = np.stack([profile.p_values(each, none) for each in windows])
    return (p_values[..., None] <= LEVELS).sum(axis=(0, 1)), int(np.isnan(p_values[0]).sum())


@pytest.mark.parametrize("num_blocks", [30, 60])
@pytest.mark.parametrize("draw", [draw_independent, draw_sessions, draw_chain, draw_moods])
def test_the_level_is_kept_whatever_the_dependence(draw: Draw, num_blocks: int) -> None:
    profile, _, windows = draw_columns(draw, num_blocks, seed=num_blocks)
    found, num_uncalibrated = share_of_alarms(profile, windows)
    expected = LEVELS * NUM_COLUMNS * len(windows)
    assert np.all(found <= expected + 4.0 * np.sqrt(2.0 * expected)), found / expected
    if draw is draw_moods and num_blocks == 30:
        # Successive blocks are alike, which asks for 60 of them.
        assert num_uncalibrated > 0.9 * NUM_COLUMNS
    elif num_blocks == 60:
        assert num_uncalibrated == 0
    else:
        assert num_uncalibrated < 0.25 * NUM_COLUMNS


@pytest.mark.parametrize("draw", [draw_sessions, draw_chain, draw_moods])
def test_taking_dependent_rows_for_independent_alarms_without_cause(draw: Draw) -> None:
    """What block mode is for: measured 5 to 70 times the level of 0.01."""
    _, reference, windows = draw_columns(draw, 60, seed=1)
    p_values = numeric_p_values(windows, np.broadcast_to(reference, windows.shape))
    assert np.mean(p_values <= 0.01) > 0.05


def test_a_change_beyond_the_reference_blocks_is_found() -> None:
    """Shifted by 1.5 deviations of a row; sessions make the mean of a window vary by 0.17."""
    rng = np.random.default_rng(9)
    rows = draw_sessions(rng, 61)
    rows[60] += 1.5
    counts = count_bins(rows, 60)[:, None]
    profile = profile_numbers(counts[:60], np.zeros((60, 1), np.int64))
    assert profile.p_values(counts[60], np.zeros(1, np.int64))[0] < 1e-6


def test_too_few_blocks_are_uncalibrated() -> None:
    rng = np.random.default_rng(2)
    for num_blocks, is_calibrated in ((29, False), (30, True)):
        blocks = rng.multinomial(1_000, [0.2, 0.3, 0.5], size=(num_blocks, 1))
        # Alternating, so that successive blocks are surely not alike.
        blocks[::2] = np.sort(blocks[::2], axis=-1)
        profile = profile_categories(blocks, np.zeros((num_blocks, 1), np.int64))
        assert np.isnan(profile.p_values(blocks[0], np.zeros(1, np.int64))[0]) != is_calibrated


def test_shorter_windows_may_vary_more_and_longer_ones_not_less() -> None:
    rng = np.random.default_rng(3)
    blocks = rng.multinomial(1_000, [0.2, 0.3, 0.5], size=(100, 1))
    profile, none = profile_categories(blocks, np.zeros((100, 1), np.int64)), np.zeros(1, np.int64)
    moved = np.array([[260, 300, 440]])
    as_long, half, ten_times = (
        float(profile.p_values((moved * size).astype(int), none)[0]) for size in (1.0, 0.5, 10.0)
    )
    assert as_long < half
    assert ten_times == pytest.approx(as_long, rel=0.2)


def test_nulls_are_one_more_share() -> None:
    rng = np.random.default_rng(4)
    blocks, nulls = rng.multinomial(900, [0.2, 0.3, 0.5], size=(60, 1)), rng.binomial(1_000, 0.1, size=(60, 1))
    for profile in (profile_categories(blocks, nulls), profile_numbers(blocks, nulls)):
        assert profile.p_values(blocks[0], np.array([100]))[0] > 0.01
        assert profile.p_values(blocks[0], np.array([300]))[0] < 1e-6


def test_blocks_without_rows_tell_nothing_and_break_nothing() -> None:
    rng = np.random.default_rng(5)
    blocks = rng.multinomial(1_000, [0.2, 0.3, 0.5], size=(90, 1))
    blocks[::2] = 0
    profile = profile_categories(blocks, np.zeros((90, 1), np.int64))
    none = np.zeros(1, np.int64)
    assert 0.0 < profile.p_values(blocks[1], none)[0] <= 1.0
    assert profile.p_values(np.zeros((1, 3), np.int64), none)[0] == 1.0
    assert profile.p_values(np.array([[500, 300, 200]]), none)[0] < 1e-6

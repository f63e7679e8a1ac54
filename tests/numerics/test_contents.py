"""Whole contents compared: what changes is seen, chance is not; and the kernel is the same wherever it is computed."""

from __future__ import annotations

import base64
import io

import msgspec
import numpy as np
import pytest
from PIL import Image
from scipy.stats import ortho_group

from measures.calibration import compare_numbers
from measures.contents import NUM_PIXELS_A_SIDE, encode_contents
from measures.kernels import find_device
from measures.multivariate import CONTENT_STATISTICS, measure_contents, measure_mmd_on
from schemas.embeddings import describe_embeddings
from schemas.inference import find_cuts
from schemas.texts import TextColumn

NUM_ROWS, NUM_DIMENSIONS = 300, 24
MIX = np.random.default_rng(0).normal(size=(NUM_DIMENSIONS, NUM_DIMENSIONS)) / 5
TURN = ortho_group.rvs(NUM_DIMENSIONS, random_state=1)


def draw(rng: np.random.Generator, num: int = NUM_ROWS) -> np.ndarray:
    """Embeddings of which some directions vary more than others."""
    return rng.normal(size=(num, NUM_DIMENSIONS)) @ MIX


@pytest.mark.parametrize("name", CONTENT_STATISTICS)
def test_a_rotation_is_seen_and_chance_is_not(name: str) -> None:
    rng = np.random.default_rng(1)
    quiet = [measure_contents(name, draw(rng), draw(rng)) for _ in range(10)]
    # That two of ten reach 1 % has a chance of 0.4 %.
    assert sum((each.p_value or 0) <= 0.01 for each in quiet) <= 1
    before, after = draw(rng), draw(rng) @ TURN
    turned = measure_contents(name, before, after)
    assert turned.p_value is not None
    assert turned.p_value <= 0.005
    assert turned.value > max(each.value for each in quiet)
    assert turned == measure_contents(name, before, after)


def test_the_classifier_keeps_its_level() -> None:
    """Mann and Whitney's p-value of these areas is at most .05 in 1 of 9 unchanged pairs."""
    rng = np.random.default_rng(4)
    p_values = [measure_contents("domain_classifier", *rng.normal(size=(2, 200, 40))).p_value for _ in range(100)]
    assert sum((each or 0) <= 0.05 for each in p_values) <= 11  # 5 ± 3 × 2.2
    assert sum((each or 0) <= 0.5 for each in p_values) <= 65


def test_contents_without_any_difference_are_alike() -> None:
    same = np.ones((50, 3))
    assert measure_contents("domain_classifier", same, same).value == 0.5
    assert measure_contents("mmd", same, same).value == 0.0


@pytest.mark.parametrize("num_rows", [150, 151])
def test_the_kernel_of_torch_is_that_of_numpy(num_rows: int) -> None:
    rng = np.random.default_rng(2)
    for before, after in (
        (draw(rng, num_rows), draw(rng, 100)),
        (draw(rng, num_rows), draw(rng, 100) + 0.3),
        (np.ones((num_rows, 2)), np.ones((100, 2))),
    ):
        expected, found = measure_mmd_on(None, before, after), measure_mmd_on("cpu", before, after)
        assert found.value == pytest.approx(expected.value, abs=1e-9)
        assert found.p_value == expected.p_value


def test_a_gpu_is_used_where_torch_knows_one() -> None:
    import torch

    assert find_device() == ("cuda" if torch.cuda.is_available() else None)


def test_unchanged_embeddings_alarm_no_more_often_than_their_level() -> None:
    """The test that opens alerts, of each projection and of the length; a fresh reference each time."""
    rng = np.random.default_rng(3)
    p_values = np.array([_test_descriptors(rng) for _ in range(150)])
    for level in (0.5, 0.1, 0.05, 0.01):
        hits = int((p_values <= level).sum())
        expected = level * p_values.size
        assert hits <= expected + 3 * np.sqrt(expected), (level, hits)
    # After Bonferroni's correction over the nine of a window.
    any_hit = int((p_values.min(axis=1) <= 0.05 / 9).sum())
    assert any_hit <= 0.05 * 150 + 3 * np.sqrt(0.05 * 150)


def _test_descriptors(rng: np.random.Generator) -> np.ndarray:
    sides = [draw(rng, 1_000), draw(rng, 200)]
    texts = [TextColumn.of([msgspec.json.encode(row.tolist()).decode() for row in side]) for side in sides]
    before, after = (describe_embeddings(each, NUM_DIMENSIONS) for each in texts)
    counts = []
    for name, values in before.items():
        cuts = find_cuts(values)
        counts.append(
            [np.bincount(np.searchsorted(cuts, side), minlength=len(cuts) + 1) for side in (after[name], values)]
        )
    now, reference = (np.stack([each[side] for each in counts]) for side in (0, 1))
    none = np.zeros(len(counts), np.int64)
    return np.asarray(compare_numbers(now, reference, none, none).p_value)


def test_texts_are_hashed_words() -> None:
    rows = encode_contents("text", ["Good morning", "good, MORNING", "morning good", ""], None)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0])
    assert rows[0].tolist() == rows[1].tolist()
    # The same words, another pair.
    assert 0.5 < rows[0] @ rows[2] < 0.9


def test_embeddings_of_other_dimensions_are_left_out() -> None:
    assert encode_contents("embedding", ["[1,2]", "[1]", "[3,4.5]", "{}"], 2).tolist() == [[1, 2], [3, 4.5]]
    assert encode_contents("embedding", [], None).shape == (0, 0)


def test_images_are_grey_pixels() -> None:
    written = io.BytesIO()
    half = np.zeros((64, 32), np.uint8)
    half[:32] = 255
    Image.fromarray(half).save(written, "PNG")
    inline = msgspec.json.encode({"bytes": base64.b64encode(written.getvalue()).decode()}).decode()
    rows = encode_contents("image", [inline, '{"uri":"file:///a.png"}', '{"bytes":"bm9uZQ=="}'], None)
    (pixels,) = rows.reshape(-1, NUM_PIXELS_A_SIDE, NUM_PIXELS_A_SIDE)
    assert (pixels[: NUM_PIXELS_A_SIDE // 2] == 1).all()
    assert (pixels[NUM_PIXELS_A_SIDE // 2 :] == 0).all()

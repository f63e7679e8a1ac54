"""Texts, images and embeddings as arrays: a row's depend on that row alone, and what cannot be read is missing."""

from __future__ import annotations

import base64
import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.images import fit_image
from retrain.preprocessing import Preprocessing, fit_preprocessing
from retrain.texts import fit_text
from retrain.vectors import fit_vector
from schemas.spec import FeatureSpec
from tests.media import FEATURES, SIDE, VECTOR_WIDTH, encode_image, make_media, take_features


def strings(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def test_every_kind_is_read_and_its_json_form_encodes_the_same_alone_or_together() -> None:
    rows = make_media(seed=1, num_rows=60, share_missing=0.2).features
    preprocessing = fit_preprocessing(rows, FEATURES)
    assert [each.name for each in preprocessing.extra] == ["comment", "scan", "shape"]
    assert preprocessing.ignored == ()
    assert preprocessing.dense_names[-3:] == ("comment is missing", "scan is missing", "shape is missing")
    again = msgspec.json.decode(msgspec.json.encode(preprocessing), type=Preprocessing)
    assert again == preprocessing
    together = again.encode(rows)
    for index in (np.array([7]), np.array([3, 59, 3]), np.arange(60)[::-1].copy()):
        part = again.encode(take_features(rows, index))
        assert np.array_equal(part.dense, together.dense[index])
        assert np.array_equal(part.codes, together.codes[index])
        for name, values in part.extra.items():
            assert values.dtype == together.extra[name].dtype
            assert np.array_equal(values, together.extra[name][index])


def test_no_rows_encode_to_no_rows() -> None:
    rows = make_media(seed=1, num_rows=20).features
    encoded = fit_preprocessing(rows, FEATURES).encode(take_features(rows, np.array([], np.int64)))
    assert [len(values) for values in encoded.extra.values()] == [0, 0, 0]


def test_feature_that_no_row_has_is_ignored() -> None:
    rows = make_media(seed=1, num_rows=20).features
    features = {**FEATURES, "note": FeatureSpec(type="text"), "photo": FeatureSpec(type="image")}
    features["voice"] = FeatureSpec(type="embedding")
    assert fit_preprocessing(rows, features).ignored == ("note", "photo", "voice")


def test_what_was_learnt_before_is_kept_and_read_first() -> None:
    before = fit_preprocessing(make_media(seed=1, num_rows=50).features, {"shape": FEATURES["shape"]})
    now = fit_preprocessing(make_media(seed=2, num_rows=50).features, FEATURES, before)
    assert [each.name for each in now.extra] == ["shape", "comment", "scan"]
    assert now.extra[0] == before.extra[0]
    afresh = fit_preprocessing(make_media(seed=2, num_rows=50).features, FEATURES)
    assert afresh.columns["shape"] != before.extra[0]


# Texts


def test_words_are_the_same_in_any_case_and_between_any_signs() -> None:
    texts = strings("The part is broken.", "the PART, is: broken", "  the—part is (broken)!", "part the is broken")
    text = fit_text("comment", [texts])
    assert text is not None
    codes, missing = text.encode(texts)
    assert not missing.any()
    assert codes[0].tolist() == codes[1].tolist() == codes[2].tolist()
    assert sorted(codes[0, : text.max_words]) == sorted(codes[3, : text.max_words])
    assert set(codes[0, text.max_words :]) != set(codes[3, text.max_words :])  # the order is in the pairs


def test_text_without_words_is_empty_and_without_text_is_missing() -> None:
    text = fit_text("comment", [strings("one two three", None)])
    assert text is not None
    assert text.indicator
    codes, missing = text.encode(strings("", "...", None, "one"))
    assert missing.tolist() == [False, False, True, False]
    assert (codes != 0).sum(axis=1).tolist() == [0, 0, 0, 1]
    assert fit_text("comment", [strings("", "?!", None)]) is None


def test_long_text_is_cut_after_its_first_words() -> None:
    text = fit_text("comment", [strings(" ".join(f"w{number}" for number in range(500)))])
    assert text is not None
    assert text.max_words == 128
    beginning = " ".join(f"w{number}" for number in range(128))
    codes, _ = text.encode(strings(beginning, beginning + " and more", beginning + "more"))
    assert codes[0].tolist() == codes[1].tolist()
    assert codes[0].tolist() != codes[2].tolist()
    assert (codes[0] != 0).all()


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_any_text_encodes_alone_as_among_others(texts: list[str]) -> None:
    text = fit_text("comment", [strings("a b c d e f", None)])
    assert text is not None
    together, _ = text.encode(pa.array(texts, pa.string()))
    for row, each in enumerate(texts):
        assert text.encode(strings(each))[0][0].tolist() == together[row].tolist()
    assert together.min() >= 0
    assert together.max() <= text.num_buckets


# Images


def grey(side: int = SIDE, level: int = 200) -> np.ndarray:
    pixels = np.full((side, side), 50, np.uint8)
    pixels[: side // 2] = level
    return pixels


def test_image_has_the_pixels_that_were_sent() -> None:
    image = fit_image("scan", [strings(encode_image(grey()))])
    assert image is not None
    assert (image.channels, image.height, image.width) == (1, SIDE, SIDE)
    assert (image.mean, image.scale) == ((125.0,), (75.0,))
    pixels, missing = image.encode(strings(encode_image(grey()), encode_image(grey(level=7))))
    assert np.array_equal(pixels[:, 0], [grey(), grey(level=7)])
    assert not missing.any()


def test_colour_is_kept_where_training_images_have_it_and_sizes_are_made_one() -> None:
    colour = np.stack([grey(16), grey(16, 10), grey(16, 100)], axis=2)
    image = fit_image("scan", [strings(encode_image(colour), encode_image(grey(16)))])
    assert image is not None
    assert (image.channels, image.height, image.width) == (3, 16, 16)
    pixels, _ = image.encode(strings(encode_image(colour), encode_image(np.kron(grey(16), np.ones((2, 2), np.uint8)))))
    assert np.array_equal(pixels[0], colour.transpose(2, 0, 1))
    assert pixels.shape == (2, 3, 16, 16)
    assert np.array_equal(pixels[1, 0, :7], np.full((7, 16), 200))


def test_large_images_become_small() -> None:
    image = fit_image("scan", [strings(encode_image(np.zeros((300, 600), np.uint8)))])
    assert image is not None
    assert (image.height, image.width) == (32, 64)


def test_sixteen_bits_keep_their_high_byte() -> None:
    scan = grey().astype(np.uint16) * 256 + 17
    image = fit_image("scan", [strings(encode_image(scan))])
    assert image is not None
    assert np.array_equal(image.encode(strings(encode_image(scan)))[0][0, 0], grey())


def cut_image(text: str) -> str:
    """An image whose head can be read and whose end is missing."""
    content = base64.b64decode(json.loads(text)["bytes"])
    return json.dumps({"bytes": base64.b64encode(content[: len(content) // 2]).decode()})


@pytest.mark.parametrize(
    "text",
    [
        '{"uri": "s3://bucket/scan.png"}',
        '{"bytes": "bm8gaW1hZ2U="}',
        '{"bytes": "%%%"}',
        "no json",
        "[1, 2]",
        cut_image(encode_image(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8))),
        None,
    ],
)
def test_what_is_no_image_is_missing_and_reads_as_the_mean(text: str | None) -> None:
    image = fit_image("scan", [strings(encode_image(grey()), text)])
    assert image is not None
    assert image.indicator
    pixels, missing = image.encode(strings(text, encode_image(grey())))
    assert missing.tolist() == [True, False]
    assert set(pixels[0].ravel().tolist()) == {round(image.mean[0])}
    assert fit_image("scan", [strings(text)]) is None


# Embeddings


def test_vectors_are_brought_to_one_scale() -> None:
    vectors = np.random.default_rng(0).normal(3.0, 5.0, (200, VECTOR_WIDTH))
    texts = pa.array([json.dumps(vector) for vector in vectors.tolist()])
    vector = fit_vector("shape", [texts])
    assert vector is not None
    assert (vector.width, vector.indicator) == (VECTOR_WIDTH, False)
    encoded, missing = vector.encode(texts)
    assert not missing.any()
    assert encoded == pytest.approx((vectors - vectors.mean()) / vectors.std(), abs=1e-6)


@pytest.mark.parametrize(
    "text", ["[1, 2, 3]", "[]", "", "none", '{"uri": "x"}', '["a", "b"]', "[1e999, 1]", "[1,,2]", None]
)
def test_what_is_no_vector_of_the_width_is_missing(text: str | None) -> None:
    vector = fit_vector("shape", [strings("[0, 2]", " [4,  6.5e0] ", text)])
    assert vector is not None
    assert (vector.width, vector.indicator) == (2, True)
    encoded, missing = vector.encode(strings("[0,2]", text, "[4, 6.5]"))
    assert missing.tolist() == [False, True, False]
    assert encoded[1].tolist() == [0.0, 0.0]
    assert encoded[[0, 2]] == pytest.approx((np.array([[0, 2], [4, 6.5]]) - vector.mean) / vector.scale)
    assert fit_vector("shape", [strings(text)]) is None or text == "[1, 2, 3]"

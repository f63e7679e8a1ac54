"""Descriptors: which features have them, what their values are, and what has none."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from driftloop.references import freeze_reference, restore_contents, split_columns
from driftloop.replay.source import choose_features
from schemas.columns import Floats
from schemas.descriptors import DESCRIPTORS, WORDS, derive_features, name_in_words
from schemas.embeddings import draw_directions
from schemas.errors import ConfigurationError
from schemas.images import NUM_PIXELS_MAX
from schemas.inference import find_dimensions, infer_features
from schemas.spec import FeatureSpec, PublishedSpec, complete_spec, parse_spec
from tests.samples import KEY, SPEC, arrow_of, publish, read, record

RICH = """
model: fraud
task: binary
reference: r.parquet
windows: {size: 1h}
features: {note: text, shape: embedding, photo: image}
"""


def publish_complete(num_dimensions: int = 3, text: str = SPEC) -> PublishedSpec:
    spec = parse_spec(text, "spec.yaml")
    completed = complete_spec(spec, spec.features, "spec.yaml", {"shape": num_dimensions})
    return msgspec.structs.replace(publish(), spec=completed)


def describe(*features: dict[str, object]) -> dict[str, Floats]:
    events = [record(record_id=str(row), features=each) for row, each in enumerate(features)]
    found = read("records", events, publish_complete())
    assert not found.dead
    return found.columns[0].numbers


def encode_image(values: np.ndarray, kind: str = "PNG") -> dict[str, str]:
    return wrap(encode(values, kind))


def encode(values: np.ndarray, kind: str = "PNG") -> bytes:
    written = io.BytesIO()
    Image.fromarray(values).save(written, kind)
    return written.getvalue()


def wrap(data: bytes) -> dict[str, str]:
    return {"bytes": base64.b64encode(data).decode(), "media_type": "image/png"}


def test_texts_embeddings_and_images_have_descriptors_behind_them() -> None:
    spec = publish_complete().spec
    names = list(spec.features)
    assert names[names.index("note") :][:5] == [
        "note", "note.num_chars", "note.num_words", "note.non_letter_share", "shape"
    ]  # fmt: skip
    assert spec.features["shape.projection_7"] == FeatureSpec(
        type="number", of="shape", descriptor="projection_7", num_dimensions=3
    )
    assert set(spec.sent_features) == {"amount", "vip", "country", "note", "shape", "photo"}
    assert len(spec.derived_features) == sum(map(len, DESCRIPTORS.values()))
    assert {feature.descriptor for feature in spec.derived_features.values()} == set(WORDS)
    assert name_in_words("note.num_chars", spec.features["note.num_chars"]) == "note.num_chars (number of characters)"
    assert name_in_words("amount", spec.features["amount"]) == "amount"


def test_what_has_a_policy_has_none() -> None:
    features = {name: FeatureSpec(type="text", policy=name) for name in ("drop", "hash", "mask")}
    assert derive_features(features, {}, "spec.yaml") == features


def test_an_embedding_without_any_value_in_the_reference_has_no_projections() -> None:
    assert list(derive_features({"shape": FeatureSpec(type="embedding")}, {}, "spec.yaml")) == ["shape", "shape.norm"]


def test_a_taken_name_is_a_mistake() -> None:
    spec = parse_spec(SPEC.replace("vip: boolean", "note.num_words: number"), "fraud.yaml")
    with pytest.raises(ConfigurationError, match=r"fraud.yaml.*features.note.num_words.*descriptor of 'note'"):
        complete_spec(spec, spec.features, "fraud.yaml")


def test_texts() -> None:
    found = describe(
        {"note": "Two words, 1 number"}, {"note": "Größe: 12 µm"}, {"note": ""}, {}, {"note": "a-b c'd\u00a0e\nf"}
    )
    assert found["note.num_chars"].tolist()[:3] == [19, 12, 0]
    assert found["note.num_words"].tolist()[:3] == [3, 2, 0]
    assert found["note.num_words"][4] == 4
    assert found["note.non_letter_share"][:2] == pytest.approx([2 / 19, 3 / 12], abs=0)
    assert np.isnan(found["note.non_letter_share"][2:4]).all()
    assert np.isnan(found["note.num_chars"][3])


def test_embeddings() -> None:
    found = describe({"shape": [3, 4.0, 0]}, {"shape": [1, 2]}, {"shape": None}, {"shape": [1e200, 0, 0]})
    assert found["shape.norm"][0] == 5
    directions = draw_directions(3)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(8), abs=1e-15)
    projections = [found[f"shape.projection_{index}"] for index in range(8)]
    assert [each[0] for each in projections] == pytest.approx(directions @ [3, 4, 0], abs=1e-14)
    # Other dimensions, nothing, and a number whose square is none.
    assert np.isnan(found["shape.norm"][1:]).all()
    assert all(np.isnan(each[1:3]).all() for each in projections)


def test_directions_never_change() -> None:
    """References are frozen with them: others would make every embedding drift."""
    assert draw_directions(3)[0].tolist() == [-0.417796017808636, 0.591794599400754, -0.6893661143567668]
    assert zlib.crc32(draw_directions(384).tobytes()) == 2_180_665_346


def test_images() -> None:
    half = np.zeros((4, 6), np.uint8)
    half[:, 3:] = 255
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[..., 0] = 255
    found = describe(
        {"photo": encode_image(half)},
        {"photo": encode_image(colours)},
        {"photo": encode_image(half.astype(np.uint16) * 257)},
        {"photo": encode_image(half, "BMP")},
    )
    assert found["photo.width"].tolist() == [6, 2, 6, 6]
    assert found["photo.height"].tolist() == [4, 2, 4, 4]
    assert found["photo.brightness"] == pytest.approx([0.5, 76 / 255, 0.5, 0.5], abs=1e-15)
    assert found["photo.contrast"] == pytest.approx([0.5, 0, 0.5, 0.5], abs=1e-15)
    assert found["photo.num_bytes"][0] == len(encode(half))


def test_images_that_are_not_described() -> None:
    whole = encode(np.arange(10_000, dtype=np.uint8).reshape(100, 100))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    broken = [whole[:-40], b"no image", b"", postscript]
    found = describe(
        {"photo": {"uri": "file:///etc/passwd"}}, {"photo": {"bytes": "#"}}, *({"photo": wrap(data)} for data in broken)
    )
    assert np.isnan(found["photo.num_bytes"][:2]).all()
    assert found["photo.num_bytes"][2:].tolist() == [len(data) for data in broken]
    for name in ("width", "height", "brightness", "contrast"):
        assert np.isnan(found[f"photo.{name}"]).all()


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    written = io.BytesIO()
    Image.new("1", (NUM_PIXELS_MAX // 1_000 + 1, 1_000)).save(written, "PNG")
    assert len(written.getvalue()) < 10_000
    found = describe({"photo": wrap(written.getvalue())})
    assert found["photo.width"].tolist() == [NUM_PIXELS_MAX // 1_000 + 1]
    assert np.isnan(found["photo.brightness"]).all()


def test_bytes_are_the_same_in_every_encoding() -> None:
    data = encode(np.full((2, 3), 51, np.uint8))
    sent: list[list[object]] = [[record(features={"photo": wrap(data)})]]
    photos = (wrap(data), {"bytes": data, "media_type": "image/png"}, data)
    sent += [[arrow_of([record(features={"photo": photo})])] for photo in photos]
    for events in sent:
        found = read("records", events, publish_complete())
        assert not found.dead
        assert found.columns[0].numbers["photo.brightness"].tolist() == [0.2]


def test_a_detector_may_watch_one() -> None:
    spec = parse_spec(SPEC + "online: [{detector: adwin, on: note.num_chars}]\n", "spec.yaml")
    assert complete_spec(spec, spec.features, "spec.yaml").online[0].on == "note.num_chars"


def test_replayed_files_need_not_have_them() -> None:
    frame = pd.DataFrame({name: [1] for name in publish_complete().spec.sent_features})
    assert choose_features(frame, Path("stream.csv"), publish_complete().spec, set()).equals(frame)


def test_what_is_sent_under_such_a_name_does_not_count() -> None:
    sent = {"note": "abc", "note.num_chars": 77.5, "note.num_words": "text", "note.else": 1.0}
    for events in ([record(features=sent)], [arrow_of([record(features=sent)])]):
        found = read("records", events, publish_complete())
        assert not found.dead
        (columns,) = found.columns
        assert columns.numbers["note.num_chars"].tolist() == [3]
        assert columns.numbers["note.num_words"].tolist() == [1]
        assert columns.numbers["note.else"].tolist() == [1]
        assert "note.num_words" not in columns.texts


def test_a_reference_is_described_as_events_are() -> None:
    rng = np.random.default_rng(1)
    photos = [encode_image(rng.integers(0, 255, (3, 3), np.uint8)) for _ in range(3)]
    shapes = [[1.0, 2.0], [3.0, 4.5], [1.0]]
    frame = pd.DataFrame({"note": ["a b", "c", None], "shape": shapes, "photo": photos})
    declared = parse_spec(RICH, "spec.yaml")
    table = split_columns(frame, declared, "r.parquet")
    features = infer_features(table.features, declared.features)
    spec = complete_spec(declared, features, "spec.yaml", find_dimensions(table.features, features))
    frozen = freeze_reference(table, spec, KEY)
    events = [record(record_id=str(row), features=each) for row, each in enumerate(frame.to_dict("records"))]
    (columns,) = read("records", events, msgspec.structs.replace(publish(), spec=spec)).columns
    assert len(spec.derived_features) == 17
    for name in spec.derived_features:
        np.testing.assert_array_equal(frozen[name], columns.numbers[name])
    assert np.isnan(frozen["shape.norm"]).tolist() == [False, False, True]

    # What was stored is a reference again: descriptors are made anew, lists and blobs are such.
    stored = frozen.drop(columns="ts")
    again = split_columns(restore_contents(stored, declared), declared, "stored")
    assert freeze_reference(again, spec, KEY).drop(columns="ts").equals(stored)

"""A row's descriptors follow from its own value: not from what stands beside it, nor from how it was encoded."""

from __future__ import annotations

import base64
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.samples import arrow_of, read, record
from tests.unit.schemas.test_descriptors import publish_complete

PUBLISHED = publish_complete(num_dimensions=5)
NAMES = list(PUBLISHED.spec.derived_features)


def encode(width: int, height: int, grey: int) -> bytes:
    written = io.BytesIO()
    Image.new("L", (width, height), grey).save(written, "PNG")
    return written.getvalue()


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)
SHAPES = st.lists(NUMBERS, min_size=5, max_size=5) | st.lists(NUMBERS, max_size=7)
PHOTOS = st.builds(encode, st.integers(1, 9), st.integers(1, 9), st.integers(0, 255)) | st.binary(max_size=20)
ROWS = st.lists(st.tuples(st.none() | st.text(), st.none() | SHAPES, st.none() | PHOTOS), min_size=1, max_size=12)


def describe(values: list[object]) -> np.ndarray:
    found = read("records", values, PUBLISHED)
    assert not found.dead
    return np.concatenate([[columns.numbers[name] for name in NAMES] for columns in found.columns], axis=1)


@given(ROWS, st.integers(0, 12))
def test_neither_neighbours_nor_encodings_count(rows, cut):
    def wrap(photo):
        return None if photo is None else {"bytes": base64.b64encode(photo).decode(), "media_type": "image/png"}

    events = [
        record(record_id=str(row), features={"note": note, "shape": shape, "photo": wrap(photo)})
        for row, (note, shape, photo) in enumerate(rows)
    ]
    whole = describe(events)
    assert np.isfinite(whole[~np.isnan(whole)]).all()
    alone = np.concatenate([describe([event]) for event in events], axis=1)
    np.testing.assert_array_equal(alone.view(np.int64), whole.view(np.int64))
    cut = cut % (len(events) + 1)
    parts = [describe(part) for part in (events[:cut], events[cut:]) if part]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1).view(np.int64), whole.view(np.int64))
    np.testing.assert_array_equal(describe([arrow_of(events)]).view(np.int64), whole.view(np.int64))
    # Arrow has bytes as such, too.
    raw = [
        event | {"features": event["features"] | {"photo": photo}}
        for event, (_, _, photo) in zip(events, rows, strict=True)
    ]
    np.testing.assert_array_equal(describe([arrow_of(raw)]).view(np.int64), whole.view(np.int64))

"""The events that a replay builds are valid ones that say what the table says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftloop.replay.driver import Pace, Replay
from driftloop.replay.source import ReplayColumns, build_source
from schemas.columns import Kind
from schemas.spec import PublishedSpec
from tests.samples import publish, read

SPEC = """
model: fraud
task: multiclass
reference: {file: reference.parquet}
windows: {size: 1h}
features: {amount: number, vip: boolean, country: category, shape: embedding}
"""


def make_replay(published: PublishedSpec, frame: pd.DataFrame, version: str | None = None, **columns: Any) -> Replay:
    source = build_source(frame, Path("loans.parquet"), published.spec, ReplayColumns(**columns))
    return Replay(None, published.spec, source, Pace(), version)  # type: ignore[arg-type]  # nothing is sent


def read_one(kind: Kind, values: list[bytes], published: PublishedSpec) -> Any:
    validated = read(kind, list(values), published)
    assert not validated.dead, validated.dead[0].message
    return validated.columns[0]


def test_records_carry_the_features_as_they_are_in_the_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"amount": [1.5, np.nan], "vip": pd.array([True, None], "boolean"), "country": ["DE", None],
         "shape": [np.array([0.5, 1.0]), np.array([2.0, 3.0])]}
    )  # fmt: skip
    frame.to_parquet(tmp_path / "f.parquet")
    published = publish(SPEC)
    replay = make_replay(published, pd.read_parquet(tmp_path / "f.parquet"))
    columns = read_one("records", list(replay.build_records(replay.steps[0])), published)
    assert columns.record_id == ["loans-0", "loans-1"]
    assert columns.ts.tolist() == replay.source.ts_ms.tolist()
    np.testing.assert_array_equal(columns.numbers["amount"], [1.5, np.nan])
    np.testing.assert_array_equal(columns.numbers["vip"], [1.0, np.nan])
    assert columns.texts["country"] == ["DE", None]
    assert columns.texts["shape"] == ["[0.5,1]", "[2,3]"]


def test_images_are_sent_inline_as_bytes_or_as_a_mapping(tmp_path: Path) -> None:
    image = b"\x89PNG image"
    named = {"bytes": image, "media_type": "image/png"}
    pd.DataFrame({"scan": [image, None], "slide": [named, named]}).to_parquet(tmp_path / "scans.parquet")
    published = publish(SPEC.replace("{amount: number, vip: boolean, country: category, shape: embedding}",
                                     "{scan: image, slide: image}"))  # fmt: skip
    replay = make_replay(published, pd.read_parquet(tmp_path / "scans.parquet"))
    columns = read_one("records", list(replay.build_records(replay.steps[0])), published)
    text = base64.b64encode(image).decode()
    assert columns.texts["scan"] == ['{"bytes":"' + text + '"}', None]
    assert json.loads(columns.texts["slide"][0]) == {"bytes": text, "media_type": "image/png"}


def test_predictions_carry_the_outputs_and_rows_without_any_send_none() -> None:
    frame = pd.DataFrame(
        {"amount": [1.0, 2.0], "vip": [0, 1], "country": ["DE", "FR"], "shape": [[1.0], [2.0]],
         "said": ["a", None], "p_a": [0.75, 0.25], "p_b": [0.25, 0.75]}
    )  # fmt: skip
    published = publish(SPEC)
    replay = make_replay(published, frame, "7", prediction="said", score="p_*")
    events = [replay.build_prediction(row) for row in range(2)]
    columns = read_one("predictions", [event for event in events if event], published)
    assert columns.model_version == ["7", "7"]
    assert columns.prediction_text == ["a", "b"]  # the second by its largest score
    assert columns.scores["a"].tolist() == [0.75, 0.25]
    only_said = make_replay(published, frame, prediction="said")
    assert only_said.build_prediction(1) is None
    assert make_replay(published, frame).build_prediction(0) is None

"""Texts that grow shorter, embeddings that turn, images that darken: through validation, store, counts and alerts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import ortho_group

from schemas.connections import ClickHouseConnection
from streams.processes import ProcessPool
from tests import truth
from tests.integration.test_calibrated_drift import read_firing
from tests.integration.test_measuring import SIZE_MS, START_MS, World, measured_store

__all__ = ["measured_store"]

NUM_ROWS, NUM_REFERENCE, NUM_DIMENSIONS = 200, 1_000, 12
WORDS = ["delivery", "late", "good", "bad", "again", "price", "quality", "return", "never", "box", "always", "friend"]
TURN = ortho_group.rvs(NUM_DIMENSIONS, random_state=1)

SPEC = """\
model: credit
task: binary
reference:
  file: reference.parquet
  columns: {label: repaid, score: y_proba, prediction: y_pred, id: id}
  interval: 5s
windows: {size: 1000s, lateness: 300s}
features: {comment: text, shape: embedding, photo: image}
drift: {multivariate: [domain_classifier, mmd, pca_reconstruction]}
performance: {metrics: [roc_auc], limits: 3sd}
"""


def draw_photo(rng: np.random.Generator, light: float) -> dict[str, str]:
    grey = np.clip(rng.normal(light, 30, (12, 16)), 0, 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(grey).save(written, "PNG")
    return {"bytes": base64.b64encode(written.getvalue()).decode(), "media_type": "image/png"}


def draw_rows(rng: np.random.Generator, num: int) -> pd.DataFrame:
    label = (rng.random(num) < 0.5).astype(int)
    score = np.round(np.clip(rng.normal(0.3 + 0.4 * label, 0.15), 0.01, 0.99), 6)
    shapes = rng.normal(size=(num, NUM_DIMENSIONS)) * np.linspace(3, 0.2, NUM_DIMENSIONS) + 1
    return pd.DataFrame(
        {
            "comment": [" ".join(rng.choice(WORDS, size)) for size in rng.integers(5, 30, num)],
            "shape": np.round(shapes, 6).tolist(),
            "photo": [draw_photo(rng, light) for light in rng.normal(130, 20, num)],
            "repaid": label, "y_proba": score, "y_pred": (score >= 0.5).astype(int),
        }
    )  # fmt: skip


def shorten(rng: np.random.Generator, rows: pd.DataFrame) -> None:
    rows["comment"] = [" ".join(text.split()[: 2 + len(text.split()) // 2]) for text in rows["comment"]]


def turn(rng: np.random.Generator, rows: pd.DataFrame) -> None:
    rows["shape"] = np.round(np.array(rows["shape"].tolist()) @ TURN, 6).tolist()


def darken(rng: np.random.Generator, rows: pd.DataFrame) -> None:
    rows["photo"] = [draw_photo(rng, light) for light in rng.normal(95, 20, len(rows))]


def make_truth(change: Callable[[np.random.Generator, pd.DataFrame], None]) -> truth.Truth:
    """Two windows, of which the second is changed."""
    rng = np.random.default_rng(5)
    reference = draw_rows(rng, NUM_REFERENCE)
    reference.insert(0, "id", [f"ref-{row}" for row in range(NUM_REFERENCE)])
    windows = [draw_rows(rng, NUM_ROWS) for _ in range(2)]
    change(rng, windows[1])
    for number, rows in enumerate(windows):
        rows.insert(0, "ts", START_MS + number * SIZE_MS + np.arange(NUM_ROWS) * (SIZE_MS // NUM_ROWS))
        rows.insert(1, "id", [f"r{number}-{row}" for row in range(NUM_ROWS)])
    return truth.Truth(reference, pd.concat(windows, ignore_index=True))


@pytest.fixture
def open_world(measured_store: tuple[ClickHouseConnection, ProcessPool]) -> Iterator[Callable[[truth.Truth], World]]:
    opened: list[World] = []

    def open_one(known: truth.Truth) -> World:
        opened.append(World(*measured_store, SPEC, known))
        return opened[-1]

    yield open_one
    for world in opened:
        world.close()


@pytest.mark.parametrize(
    ("change", "feature", "words"),
    [
        (shorten, "comment.num_", "(number of "),
        (turn, "shape.projection_", "(projection on random direction "),
        (darken, "photo.brightness", "(mean grey value)"),
    ],
    ids=["texts", "embeddings", "images"],
)
def test_a_change_of_contents_opens_an_alert_that_names_the_descriptor(
    open_world: Any, change: Any, feature: str, words: str
) -> None:
    known = make_truth(change)
    world: World = open_world(known)
    for window in (0, 1):
        world.send(window)
        world.close_window(window)
        assert bool(read_firing(world)) == (window == 1)
    firing, *_ = read_firing(world)
    assert firing.feature.startswith(feature)
    assert firing.metric == "ks_counts"
    assert words in firing.reason
    world.look()
    *_, explained = read_firing(world)
    assert firing.feature in {each["feature"] for each in explained.evidence["composition"]}
    # The store has what was counted, of events and of the reference alike.
    source = feature.partition(".")[0]
    assert world.read_one("SELECT uniqExact(mapKeys(features)) FROM records") == 1
    stored = dict(world.ch.query("SELECT record_id, features['comment.num_chars'] FROM records ORDER BY record_id"))
    assert stored == dict(zip(known.stream["id"], known.stream["comment"].str.len(), strict=True))
    reference = world.ch.query("SELECT features['comment.num_chars'] FROM reference_rows FINAL ORDER BY row_number")
    assert [length for (length,) in reference] == known.reference["comment"].str.len().tolist()
    # The whole content is evidence: sure of what has changed, and of nothing in the window before.
    rows = world.ch.query(
        "SELECT feature, metric, groupArray(p_value < 0.005), any(num_sampled), groupUniqArray(status) FROM "
        "(SELECT * FROM measurements_now WHERE metric IN ('domain_classifier', 'mmd') AND feature != '' "
        "ORDER BY window_start) GROUP BY feature, metric ORDER BY feature, metric"
    )
    assert rows == [
        (name, metric, [0, int(name == source)], NUM_ROWS, ["ok"])
        for name in ("comment", "photo", "shape")
        for metric in ("domain_classifier", "mmd")
    ]


def test_what_cannot_be_read_is_missing_and_not_measured(open_world: Any) -> None:
    known = make_truth(lambda rng, rows: None)
    stream = known.stream
    hit = (stream["ts"] - START_MS) // SIZE_MS == 1
    stream.loc[hit, "photo"] = pd.Series([{"uri": "s3://none/a.png"}] * NUM_ROWS, index=stream.index[hit])
    stream.loc[hit, "shape"] = pd.Series([[1.0, 2.0]] * NUM_ROWS, index=stream.index[hit])
    world: World = open_world(known)
    for window in (0, 1):
        world.send(window, ("records", "predictions"))
        world.close_window(window)
    last = f"window_start = fromUnixTimestamp64Milli({START_MS + SIZE_MS}, 'UTC')"
    nulls = world.ch.query(
        f"SELECT feature, value FROM measurements_now WHERE metric = 'null_share' AND {last} "
        "AND feature IN ('photo', 'photo.width', 'shape', 'shape.norm', 'comment.num_words') ORDER BY feature"
    )
    assert nulls == [("comment.num_words", 0), ("photo", 0), ("photo.width", 1), ("shape", 0), ("shape.norm", 1)]
    statuses = world.ch.query(
        "SELECT feature, metric, status, num_sampled FROM measurements_now WHERE feature IN ('photo', 'shape') "
        f"AND kind = 'drift' AND {last} ORDER BY feature, metric"
    )
    assert statuses == [
        (name, metric, "too_few_rows", 0) for name in ("photo", "shape") for metric in ("domain_classifier", "mmd")
    ]

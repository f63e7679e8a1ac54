"""Many models with many features: published in bulk, their predictions as Arrow streams.

Every model has the same spec and the same reference under a name of its own: one is applied, the others are published
as copies of it, of which only the table of specs does not know.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from bench.events import ARROW_HEADERS
from bench.filling import Fill, convert_features, encode_stream
from driftloop.applying import apply_spec
from schemas.connections import Runtime
from schemas.spec import PublishedSpec, encode_published
from store.log import Producer

NUM_NUMBERS, NUM_CATEGORIES = 40, 10
NUM_FEATURES = NUM_NUMBERS + NUM_CATEGORIES
NUM_VALUES = 12
NUM_REFERENCE_ROWS = 5_000
# Of one message: as little as producers with many models will have at hand.
NUM_MESSAGE_ROWS = 500
_NUM_POOLS = 4
_NUM_ROWS_MAX = 1_000_000
_FLUSH_TIMEOUT_S = 60.0


def name_model(index: int) -> str:
    return f"model-{index:04d}"


def make_frame(num_rows: int, seed: int) -> pd.DataFrame:
    """Give features and score."""
    rng = np.random.default_rng(seed)
    columns = {f"number_{i:02d}": rng.normal(i, 1.0, num_rows).astype(np.float32) for i in range(NUM_NUMBERS)}
    names = np.array([f"value {i}" for i in range(NUM_VALUES)], object)
    categories = {f"category_{i}": names[rng.integers(0, NUM_VALUES, num_rows)] for i in range(NUM_CATEGORIES)}
    return pd.DataFrame({**columns, **categories, "score": np.round(rng.beta(2.0, 5.0, num_rows), 6)})


class Models:
    """The models published so far, and how many rows each has been sent."""

    def __init__(self, runtime: Runtime, windows: str) -> None:
        """`windows` is the section of the spec; the first model is published."""
        self._runtime = runtime
        self._published = [_apply_first(runtime, windows)]
        pools = [make_frame(NUM_MESSAGE_ROWS, seed) for seed in range(10, 10 + _NUM_POOLS)]
        self._pools: list[tuple[pa.Array, pa.StructArray]] = [convert_features(pool) for pool in pools]

    def publish(self, num_models: int) -> None:
        """Publish copies until there are so many models."""
        first, producer = self._published[0], Producer(self._runtime.kafka)
        for index in range(len(self._published), num_models):
            spec = msgspec.structs.replace(first.spec, model=name_model(index))
            published = msgspec.structs.replace(first, spec=spec)
            producer.produce(self._runtime.topics("specs"), published.key, encode_published(published))
            self._published.append(published)
        producer.flush(_FLUSH_TIMEOUT_S)
        producer.close()

    def send(self, models: range, rows: range, window_starts: tuple[int, int]) -> int:
        """Send these rows of these models, half of each message in either window (epoch ms); gives how many messages.

        Model after model, each message of a model to the next partition.
        """
        num_messages, half = 0, NUM_MESSAGE_ROWS // 2
        ts_ms = np.repeat(np.array(window_starts), (half, NUM_MESSAGE_ROWS - half))
        with Fill(self._runtime, self._runtime.topics("predictions")) as fill:
            for turn, first in enumerate(range(rows.start, rows.stop, NUM_MESSAGE_ROWS)):
                for index in models:
                    numbers = index * _NUM_ROWS_MAX + np.arange(first, first + NUM_MESSAGE_ROWS)
                    value = encode_stream(name_model(index), numbers, ts_ms, self._pools[index % _NUM_POOLS])
                    fill.send(value, ARROW_HEADERS, (index + turn) % self._runtime.num_partitions)
                    num_messages += 1
        return num_messages


def _apply_first(runtime: Runtime, windows: str) -> PublishedSpec:
    reference = make_frame(NUM_REFERENCE_ROWS, seed=1)
    reference["label"] = (np.random.default_rng(2).random(len(reference)) < reference["score"]).astype(int)
    folder = Path(runtime.data) / runtime.topics("models")
    folder.mkdir()
    reference.to_parquet(folder / "reference.parquet")
    (folder / "model.yaml").write_text(
        f"model: {name_model(0)}\ntask: binary\nreference: {{file: reference.parquet, interval: 1s}}\n"
        f"windows: {windows}\ndrift: {{threshold: 0.1}}\n"
    )
    published, _ = apply_spec(runtime, folder / "model.yaml")
    return published

"""`driftloop apply`: read a spec, freeze its reference, publish it. Every process follows; nobody restarts anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from driftloop.published import read_catalogue
from driftloop.references import freeze_reference, hash_reference, load_reference
from schemas.clock import Clock, SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.inference import find_dimensions, infer_features, summarise_reference
from schemas.spec import ModelHistory, ModelSpec, PublishedSpec, complete_spec, encode_published, parse_spec
from store.client import ClickHouse
from store.log import Producer, apply_topics
from store.migrations import migrate
from store.overview import read_newest_ts
from store.reference import has_reference, insert_reference
from store.specs import insert_spec

FLUSH_TIMEOUT_S = 30.0
# The first version is in force for all time.
ALWAYS_MS = 0


def read_spec(path: Path) -> ModelSpec:
    """Parse a spec file; raises ConfigurationError with file, line and key."""
    try:
        return parse_spec(path.read_text(), str(path))
    except FileNotFoundError:
        raise ConfigurationError("there is no such file", file=str(path), remedy="See `driftloop init`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", file=str(path)) from error


def apply_spec(runtime: Runtime, path: Path, clock: Clock | None = None) -> tuple[PublishedSpec, bool]:
    """Publish a spec and its reference; gives the version in force and whether anything changed. Safe to repeat."""
    clock = clock or SystemClock()
    spec = read_spec(path)
    apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    store = ClickHouse(runtime.clickhouse)
    try:
        migrate(store)
        table = load_reference(spec, path.parent, store)
        features = infer_features(table.features, spec.features)
        spec = complete_spec(spec, features, str(path), find_dimensions(table.features, features))
        frozen = freeze_reference(table, spec, runtime.privacy_key)
        reference_hash = hash_reference(frozen)
        history = read_catalogue(runtime).get(spec.model)
        if history and history.latest.spec == spec and history.latest.reference_hash == reference_hash:
            return history.latest, False
        if not has_reference(store, reference_hash):
            insert_reference(store, reference_hash, frozen)
        summary = summarise_reference(frozen, spec, column(frozen, "score"), column(frozen, "prediction"))
        published = PublishedSpec(
            spec=spec,
            spec_version=history.latest.spec_version + 1 if history else 1,
            effective_from=choose_effective_from(store, spec, history),
            published_at=clock.now_ms(),
            reference_hash=reference_hash,
            reference_rows=len(frozen),
            cuts=summary.cuts,
            categories=summary.categories,
            segment_values=summary.segment_values,
        )
        insert_spec(store, published)
        publish(runtime, published)
        return published, True
    finally:
        store.close()


def column(frame: pd.DataFrame, name: str) -> list[Any] | None:
    return frame[name].tolist() if name in frame else None


def choose_effective_from(store: ClickHouse, spec: ModelSpec, history: ModelHistory | None) -> int:
    """The first version: always; a later one: the start of the second window after the newest event."""
    if history is None:
        return ALWAYS_MS
    newest_ms = read_newest_ts(store, spec.model)
    if newest_ms is None:
        return ALWAYS_MS
    size_ms, origin_ms = spec.windows.size_ms, spec.windows.origin_ms
    return (newest_ms - origin_ms) // size_ms * size_ms + origin_ms + 2 * size_ms


def publish(runtime: Runtime, published: PublishedSpec) -> None:
    """Send the version to `specs` and see that it is there."""
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("specs"), published.key, encode_published(published))
    producer.flush(FLUSH_TIMEOUT_S)
    producer.close()

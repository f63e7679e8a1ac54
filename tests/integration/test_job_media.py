"""A job on stored rows of every kind of feature: snapshot, training, gate, artifact, and a job from its weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retrain.job import run_job
from retrain.order import EpochTrained, JobFinished, JobOrder, JobReport, Snapshotted
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.serving import LoadedVersions
from retrain.snapshot import take_snapshot
from retrain.trained_model import Manifest, load_model
from schemas.catalogue import Catalogue, PublishedSpec
from schemas.clock import SystemClock
from schemas.columns import EventColumns
from schemas.connections import ClickHouseConnection
from schemas.declarations import (
    ModelSpec,
    ReferenceSource,
    RetrainSpec,
    TrainingSpec,
    WindowSpec,
    default_alerts,
    default_performance,
)
from schemas.errors import ConfigurationError, Retryable
from schemas.messages import MessageBatch
from schemas.texts import TextColumn
from schemas.validation import validate
from store.artifacts import ArtifactFolder
from store.client import ClickHouse
from store.events import insert_events
from store.migrations import migrate
from store.versions import VersionRow, insert_version
from tests.clickhouses import EmbeddedClickHouse
from tests.media import FEATURES, MediaRows, make_media

ROWS = 500
HOUR_MS = 3_600_000
TOPIC_ID = "00000000-0000-0001-0000-00000000000a"
FACTORY = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.categories = nn.ModuleList(nn.Embedding(num_codes, 4) for _, num_codes in schema.categories)
        self.vector = nn.Linear(schema.extra[-1].width, 8)
        self.head = nn.Linear(len(schema.dense) + 4 * len(schema.categories) + 8, schema.num_outputs)

    def forward(self, dense, codes, extra):
        embedded = [table(codes[:, place]) for place, table in enumerate(self.categories)]
        return self.head(torch.cat([dense, *embedded, self.vector(extra["shape"])], dim=1))


def build(schema):
    assert [each.name for each in schema.extra] == ["comment", "scan", "shape"]
    return Network(schema)
"""


@pytest.fixture(scope="module")
def ch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A store with two hours of rows: to train on, and to gate on."""
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    default = ClickHouse(ClickHouseConnection(server.url, database="default"))
    default.command("CREATE DATABASE media ENGINE = Atomic")
    default.close()
    store = ClickHouse(ClickHouseConnection(server.url, database="media"))
    migrate(store)
    for hour in (0, 1):
        store_hour(store, make_media(hour, ROWS, share_missing=0.05), hour)
    yield store
    store.close()
    server.stop()


def store_hour(ch: ClickHouse, rows: MediaRows, hour: int) -> None:
    for kind in ("records", "predictions", "labels"):
        columns = EventColumns(
            kind=kind,  # type: ignore[arg-type]
            model="parts",
            offset=np.arange(hour * ROWS, (hour + 1) * ROWS),
            row=np.zeros(ROWS, np.int32),
            ts=hour * HOUR_MS + np.arange(ROWS, dtype=np.int64),
            record_id=TextColumn.of([f"{hour}-{row}" for row in range(ROWS)]),
        )
        if kind == "records":
            columns.numbers = {"amount": rows.amount}
            columns.texts = {name: TextColumn.of(values) for name, values in rows.texts.items()}
        elif kind == "predictions":
            columns.model_version = TextColumn.repeat("external", ROWS)
            columns.score = np.random.default_rng(hour).random(ROWS)
            columns.prediction = (columns.score >= 0.5).astype(float)
            columns.has_features = np.zeros(ROWS, np.bool_)
        else:
            columns.label = rows.label
        insert_events(ch, columns, kind, TOPIC_ID, 0)


def make_spec(**retrain: object) -> PublishedSpec:
    spec = ModelSpec(
        model="parts",
        task="binary",
        reference=ReferenceSource(file="reference.parquet"),
        windows=WindowSpec(size_ms=HOUR_MS, lateness_ms=1000),
        features=FEATURES,
        performance=default_performance("binary"),
        alerts=default_alerts(),
        retrain=RetrainSpec(**retrain),  # type: ignore[arg-type]
    )
    return PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
    )


def run(
    ch: ClickHouse,
    folder: Path,
    job_id: str,
    champion: str = "external",
    architecture: str = "auto",
    **training: object,
) -> tuple[JobFinished, list[JobReport], Manifest]:
    published = make_spec(architecture=architecture, training=TrainingSpec(**training))  # type: ignore[arg-type]
    order = JobOrder(
        job_id=job_id, model="parts", published=published, champion=champion, train_from=0, train_to=HOUR_MS,
        gate_from=HOUR_MS, gate_to=2 * HOUR_MS, clickhouse=ch.connection, artifacts=str(folder),
    )  # fmt: skip
    reports: list[JobReport] = []
    finished = run_job(order, reports.append, SystemClock())
    return finished, reports, msgspec.json.decode(finished.manifest, type=Manifest)


def record_version(ch: ClickHouse, finished: JobFinished, version: str) -> None:
    row = VersionRow(
        model="parts", version=version, job_id=f"job-{version}", architecture=finished.architecture,
        metrics=finished.metrics, data_hash=finished.data_hash, sha256=finished.sha256, uri=finished.uri,
        reference_hash=finished.reference_hash, manifest=finished.manifest, card=finished.card, created_at=1,
    )  # fmt: skip
    insert_version(ch, row)


def test_job_learns_from_every_feature_and_the_next_one_from_its_weights(ch: ClickHouse, tmp_path: Path) -> None:
    first, reports, manifest = run(ch, tmp_path, "job-1", epochs=12, deterministic=True)
    assert first.passed, first.verdict
    assert first.metrics["roc_auc"] > 0.93
    assert [each.name for each in manifest.preprocessing.extra] == ["comment", "scan", "shape"]
    assert manifest.start.words == "Started from scratch: the spec says so."
    assert manifest.format == 2
    for words in ("two convolutions for images", "a bag of hashed n-grams", "scan: image, 1 × 12 × 12"):
        assert words in first.card
    # What was stored scores the gate rows as the job did.
    gate = make_media(1, ROWS, share_missing=0.05)
    scored = load_model(ArtifactFolder(tmp_path).read(first.uri, first.sha256)).score(gate.features)
    assert roc_auc_score(gate.label, scored.score) == pytest.approx(first.metrics["roc_auc"], abs=1e-12)
    # The same job gives the same bytes.
    again, _, _ = run(ch, tmp_path, "job-1", epochs=12, deterministic=True)
    assert (again.sha256, again.data_hash) == (first.sha256, first.data_hash)

    record_version(ch, first, "1")
    warm, warm_reports, manifest = run(ch, tmp_path, "job-2", champion="1", start="warm", epochs=2)
    assert manifest.start.version == "1"
    assert manifest.start.fresh == {}
    assert manifest.start.words.startswith("Started from version 1: all ")
    assert manifest.start.words in warm.card
    epochs, warm_epochs = (
        [each for each in given if isinstance(each, EpochTrained)] for given in (reports, warm_reports)
    )
    assert warm_epochs[0].loss < 0.5 * epochs[0].loss
    assert isinstance(warm_reports[0], Snapshotted)

    _, _, manifest = run(ch, tmp_path, "job-3", champion="external", start="warm", epochs=1)
    assert manifest.start.words == "Started from scratch: the champion, version external, was not trained here."


def test_job_trains_the_users_own_network(ch: ClickHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "parts_networks.py").write_text(FACTORY)
    with pytest.raises(ConfigurationError, match="parts_networks of the architecture parts_networks:build cannot be"):
        run(ch, tmp_path, "job-4", architecture="parts_networks:build")
    monkeypatch.syspath_prepend(code)
    finished, _, manifest = run(ch, tmp_path, "job-4", architecture="parts_networks:build", epochs=10)
    assert finished.metrics["roc_auc"] > 0.9
    assert f"`{manifest.network.factory_sha256[:16]}…`" in finished.card
    files = ArtifactFolder(tmp_path).read(finished.uri, finished.sha256)
    rows = make_media(1, 50).features
    expected = load_model(files).score(rows).score
    assert expected is not None
    assert np.array_equal(load_model(files).score(rows).score, expected)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match="has no function missing"):
        run(ch, tmp_path, "job-4", architecture="parts_networks:missing")
    (code / "wide_networks.py").write_text(FACTORY.replace("+ 8, schema.num_outputs)", "+ 8, 3)"))
    with pytest.raises(ConfigurationError, match=r"for two rows, a tensor of \(2, 3\), not a tensor of \(2, 1\)"):
        run(ch, tmp_path, "job-4", architecture="wide_networks:build")
    (code / "wrong_networks.py").write_text(FACTORY.replace('extra["shape"]', 'extra["form"]'))
    with pytest.raises(ConfigurationError, match="for two rows, KeyError: 'form', not"):
        run(ch, tmp_path, "job-4", architecture="wrong_networks:build")
    (code / "parts_networks.py").write_text(FACTORY + "\n# another time\n")
    with pytest.raises(ConfigurationError, match="is not what the model was trained with"):
        load_model(files)
    # A scorer that cannot have the code waits, and says for what.
    record_version(ch, finished, "4")
    monkeypatch.delitem(sys.modules, "parts_networks")
    (code / "parts_networks.py").unlink()
    with pytest.raises(Retryable, match=r"version 4 of model parts cannot be loaded: .*install it where"):
        LoadedVersions(ch, str(tmp_path), SystemClock()).find("parts", "4")


def test_scorer_reads_a_record_as_training_reads_it_from_the_store(ch: ClickHouse) -> None:
    """The same events, validated and scored, or validated, stored, labelled and read again: equal to the bit."""
    rows, hour = make_media(3, 60, share_missing=0.2), 100_000
    events = []
    for row in range(60):
        texts = {name: values[row] for name, values in rows.texts.items()}
        contents = {name: text and json.loads(text) for name, text in texts.items() if name in ("scan", "shape")}
        amount = None if np.isnan(rows.amount[row]) else float(rows.amount[row])
        features = {"amount": amount, **texts, **contents}
        events.append({"record_id": f"r{row:02}", "model": "parts", "ts": hour * HOUR_MS + row, "features": features})
    catalogue = Catalogue()
    catalogue.add(make_spec())
    offsets, sent_at = np.arange(60), np.full(60, (hour + 1) * HOUR_MS)
    batch = MessageBatch("records", TOPIC_ID, 0, offsets, sent_at, [json.dumps(event).encode() for event in events])
    validated = validate("records", batch, catalogue, b"key")
    assert validated.dead == []
    (columns,) = validated.columns
    insert_events(ch, columns, "records", TOPIC_ID, 0)
    labels = EventColumns("labels", "parts", columns.offset, columns.row, columns.ts, columns.record_id)
    labels.label = rows.label
    insert_events(ch, labels, "labels", TOPIC_ID, 0)

    stored = take_snapshot(ch, "parts", "binary", FEATURES, hour * HOUR_MS, (hour + 1) * HOUR_MS).read_features()
    preprocessing = fit_preprocessing(stored, FEATURES)
    learnt, scored = preprocessing.encode(stored), preprocessing.encode(FeatureRows.of_columns(columns))
    assert np.array_equal(learnt.dense, scored.dense)
    assert np.array_equal(learnt.codes, scored.codes)
    for name, values in preprocessing.encode(rows.features).extra.items():
        assert np.array_equal(learnt.extra[name], scored.extra[name])
        assert np.array_equal(learnt.extra[name], values)

"""The end of a job: the challenger as an artifact, and the rows that it was judged on as its reference.

Owns what is written where. Everything is named by its content, so that writing it again changes nothing.
"""

from __future__ import annotations

import hashlib

import msgspec
import pandas as pd
import torch

from retrain.card import write_card
from retrain.card_facts import CARD_JSON, build_card, encode_card, find_queries
from retrain.evaluation import Evaluation
from retrain.fitting import Fitting
from retrain.gate_budgets import without_times
from retrain.order import JobFinished, JobOrder
from retrain.snapshot import Snapshot
from retrain.target import Scored
from retrain.trained_model import CARD, MANIFEST, WEIGHTS, Manifest, describe_signature, read_code_version
from store.artifacts import open_artifacts
from store.client import ClickHouse
from store.reference import insert_reference


def store_challenger(
    ch: ClickHouse, order: JobOrder, fitting: Fitting, weights: bytes, gate: Snapshot, found: Evaluation
) -> JobFinished:
    """Store the artifact and the version's reference rows; return the job's last report. Safe to repeat."""
    verdict = found.verdict
    manifest = Manifest(
        model=order.model,
        job_id=order.job_id,
        architecture=fitting.settings.architecture,
        spec_version=order.published.spec_version,
        signature=describe_signature(fitting.preprocessing, fitting.target),
        preprocessing=fitting.preprocessing,
        target=fitting.target,
        network=fitting.network_config,
        training=fitting.config,
        start=fitting.start.start,
        num_epochs=fitting.num_epochs,
        train=fitting.train,
        gate=fitting.gate,
        choice=fitting.choice,
        champion=order.champion,
        verdict=verdict.words,
        metrics={**verdict.metrics, **fitting.metrics},
        code_version=read_code_version(),
        torch_version=str(torch.__version__),
        device=fitting.device.type,
        num_threads=fitting.num_threads,
        num_processes=fitting.num_processes,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    gates = tuple(without_times(gate) for gate in verdict.gates)
    facts = build_card(manifest, order, verdict.passed, gates, fitting.data_hash, find_queries(ch, order))
    text, card = msgspec.json.format(msgspec.json.encode(manifest)), write_card(manifest, facts)
    files = {WEIGHTS: weights, MANIFEST: text, CARD: card.encode(), CARD_JSON: encode_card(facts)}
    stored = open_artifacts(order.artifacts).write(order.model, order.job_id[:12], files)
    reference_hash = hashlib.sha256(f"{gate.sha256}\n{stored.sha256}\n".encode()).hexdigest()
    insert_reference(ch, reference_hash, _build_reference(gate, found.scored))
    return JobFinished(
        passed=verdict.passed,
        verdict=verdict.words,
        metrics={**found.list_metrics(), **fitting.metrics},
        architecture=manifest.architecture,
        data_hash=fitting.data_hash,
        uri=stored.uri,
        sha256=stored.sha256,
        reference_hash=reference_hash,
        manifest=text.decode(),
        card=card,
        gates=verdict.gates,
    )


def _build_reference(gate: Snapshot, scored: Scored) -> pd.DataFrame:
    """Return the gate rows as a reference: features, ts and label as stored, outputs by the new version."""
    table = gate.table
    columns: dict[str, object] = {
        name[2:]: table[name].to_pandas() for name in table.column_names if name[:2] in ("f:", "t:")
    }
    columns["ts"] = table["ts"].to_pandas()
    columns["label"] = gate.labels.to_numpy(zero_copy_only=False)
    if scored.score is not None:
        columns["score"] = scored.score
    columns["prediction"] = scored.prediction if scored.prediction_text is None else scored.prediction_text
    columns |= {f"scores:{name}": values for name, values in (scored.scores or {}).items()}
    return pd.DataFrame(columns)

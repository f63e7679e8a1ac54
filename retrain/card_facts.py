"""The facts of a model card, for programs: `card.json` beside the card for people.

Owns their form. A pure function of the job, so that it holds no clock time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from retrain.order import JobOrder
from retrain.trained_model import DataRange, Manifest
from store.client import ClickHouse
from store.events import describe_training_query, input_source
from store.gates import Gate

CARD_JSON = "card.json"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A ClickHouse query and its parameters."""

    sql: str
    parameters: dict[str, Any]


class CardData(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one use, and the query that read them."""

    rows: DataRange
    query: Query


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What led to a version; `alert_id` is empty where no alert asked for it."""

    request_id: str
    job_id: str
    rule: str
    alert_id: str
    reason: str
    champion: str
    spec_version: int
    data_hash: str
    code_version: str
    weights_sha256: str


class CardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Data, metrics, gates and lineage of a version."""

    model: str
    task: str
    architecture: str
    passed: bool
    verdict: str
    gates: tuple[Gate, ...]
    metrics: dict[str, float]
    train: CardData
    gate: CardData
    lineage: Lineage


def find_queries(ch: ClickHouse, order: JobOrder) -> tuple[Query, Query]:
    """Return the queries of the training and of the gate rows."""
    ranges = ((order.train_from, order.train_to), (order.gate_from, order.gate_to))
    train, gate = (
        Query(sql=" ".join(sql.split()), parameters=parameters)
        for sql, parameters in (
            describe_training_query(order.model, start, end, input_source(ch, order.model, start, end))
            for start, end in ranges
        )
    )
    return train, gate


def build_card(
    manifest: Manifest,
    order: JobOrder,
    passed: bool,
    gates: Sequence[Gate],
    data_hash: str,
    queries: tuple[Query, Query],
) -> CardFacts:
    """Gather the facts; a request's id is its job's."""
    return CardFacts(
        model=manifest.model,
        task=manifest.target.task,
        architecture=manifest.architecture,
        passed=passed,
        verdict=manifest.verdict,
        gates=tuple(gates),
        metrics=manifest.metrics,
        train=CardData(rows=manifest.train, query=queries[0]),
        gate=CardData(rows=manifest.gate, query=queries[1]),
        lineage=Lineage(
            request_id=order.job_id,
            job_id=order.job_id,
            rule=order.rule,
            alert_id=order.trigger_alert_id,
            reason=order.reason,
            champion=manifest.champion,
            spec_version=manifest.spec_version,
            data_hash=data_hash,
            code_version=manifest.code_version,
            weights_sha256=manifest.weights_sha256,
        ),
    )


def encode_card(facts: CardFacts) -> bytes:
    """Write the facts as JSON for people to read, too."""
    return msgspec.json.format(msgspec.json.encode(facts))

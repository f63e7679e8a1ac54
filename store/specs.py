"""The table `specs`: a copy of what `apply` published, for SQL."""

from collections.abc import Collection
from datetime import UTC, datetime

import msgspec

from schemas.catalogue import PublishedSpec
from store.client import ClickHouse


def insert_spec(ch: ClickHouse, published: PublishedSpec, removed: bool = False, at_ms: int | None = None) -> None:
    """Record a published version, or (`removed`, as of `at_ms`) that it was taken back. Safe to replay."""
    ch.insert_rows(
        "specs",
        [
            {
                "model": published.model,
                "spec_version": published.spec_version,
                "effective_from": _instant(published.effective_from),
                "published_at": _instant(published.published_at if at_ms is None else at_ms),
                "reference_hash": published.reference_hash,
                "reference_rows": published.reference_rows,
                "spec": msgspec.json.encode(published.spec).decode(),
                "removed": removed,
            }
        ],
    )


class _Rule(msgspec.Struct):
    when: str
    report: bool = True


class _Rules(msgspec.Struct):
    alerts: list[_Rule]


def read_reported_rules(ch: ClickHouse, models: Collection[str]) -> dict[str, set[str]]:
    """Return for some models the rules whose alerts get a report, as the newest version of each spec has it."""
    rows = ch.query(
        """
        SELECT model, argMax(spec, spec_version) FROM specs WHERE model IN {models:Array(String)} GROUP BY model
        """,
        {"models": sorted(models)},
    )
    specs = {model: msgspec.json.decode(spec, type=_Rules) for model, spec in rows}
    return {model: {rule.when for rule in spec.alerts if rule.report} for model, spec in specs.items()}


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

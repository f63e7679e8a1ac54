"""How far a model's measurements have been judged: what `status` shows, and a replay in lockstep waits for."""

from __future__ import annotations

from datetime import UTC, datetime

from store.client import ClickHouse


def read_newest_measured_at(ch: ClickHouse, model: str) -> int:
    """When (epoch ms) the newest measurement of the model was computed; 0 without any."""
    return int(
        ch.query(
            "SELECT toUnixTimestamp64Milli(max(computed_at)) FROM measurements WHERE model = {model:String} "
            "SETTINGS final = 0",
            {"model": model},
        )[0][0]
    )


def insert_judgement(ch: ClickHouse, model: str, measured_at_ms: int, judged_at_ms: int) -> None:
    """Say that everything computed until `measured_at_ms` is judged: its alerts and requests are stored and sent."""
    row = {
        "model": model,
        "measured_at": datetime.fromtimestamp(measured_at_ms / 1000, UTC),
        "judged_at": datetime.fromtimestamp(judged_at_ms / 1000, UTC),
    }
    ch.insert_rows("judgements", [row])


def is_judged(ch: ClickHouse, model: str) -> bool:
    """Whether every measurement of the model has been judged."""
    rows = ch.query(
        "SELECT toUnixTimestamp64Milli(max(measured_at)) FROM judgements WHERE model = {model:String}", {"model": model}
    )
    return int(rows[0][0]) >= read_newest_measured_at(ch, model)


def read_unjudged(ch: ClickHouse) -> set[str]:
    """The models with measurements that have not been judged."""
    rows = ch.query(
        """
        SELECT measured.model
        FROM (SELECT model, max(computed_at) AS newest FROM measurements GROUP BY model) AS measured
        LEFT JOIN (SELECT model, max(measured_at) AS judged FROM judgements GROUP BY model) AS judged USING model
        WHERE measured.newest > judged.judged
        SETTINGS final = 0
        """
    )
    return {model for (model,) in rows}

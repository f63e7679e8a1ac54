"""Predictions as the scorer sends them: one JSON event a record.

Owns their wire form; the same scores give the same bytes.
"""

from __future__ import annotations

import msgspec

from retrain.target import Scored
from schemas.columns import EventColumns
from schemas.events import Prediction

_ENCODER = msgspec.json.Encoder()


def encode_predictions(columns: EventColumns, version: str, scored: Scored) -> list[bytes]:
    """Write what a version says of n records as n events, in their order.

    They carry the record's event time and segment, and no features: those are in `records`.
    """
    num_rows = columns.num_rows
    prediction: list[float] | list[str]
    if scored.prediction_text is not None:
        prediction = scored.prediction_text
    else:
        assert scored.prediction is not None
        prediction = scored.prediction.tolist()
    score = [None] * num_rows if scored.score is None else scored.score.tolist()
    names = list(scored.scores or ())
    by_class = [values.tolist() for values in (scored.scores or {}).values()]
    segments = {key: values.tolist() for key, values in columns.segment.items()}
    encode = _ENCODER.encode
    return [
        encode(
            Prediction(
                record_id=record_id or "",
                model=columns.model,
                ts=ts,
                model_version=version,
                prediction=prediction[row],
                score=score[row],
                scores={name: values[row] for name, values in zip(names, by_class, strict=True)} or None,
                segment={key: text for key, values in segments.items() if (text := values[row]) is not None} or None,
            )
        )
        for row, (record_id, ts) in enumerate(zip(columns.record_id, columns.ts.tolist(), strict=True))
    ]

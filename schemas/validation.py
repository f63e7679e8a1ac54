"""The one validation function: messages in, columns of valid events and dead letters out."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.catalogue import Catalogue
from schemas.columns import EventColumns, Kind
from schemas.events import DeadLetter
from schemas.messages import MessageBatch


@dataclass(slots=True)
class Validated:
    """What became of a batch: one `columns` a model, `dead` in log order, `watermarks` as (offset, model, ts_ms).

    The events of `unknown_models` are among `dead`; a caller brings its catalogue to the present end of `specs` and
    validates again before it believes them. `num_events` counts the rows seen, valid or not.
    """

    columns: list[EventColumns] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    watermarks: list[tuple[int, str, int]] = field(default_factory=list)
    unknown_models: set[str] = field(default_factory=set)
    num_events: int = 0


def validate(kind: Kind, batch: MessageBatch, catalogue: Catalogue, privacy_key: bytes) -> Validated:
    """Give the valid events of a batch as columns and a dead letter for each other one; never raises on input."""
    raise NotImplementedError

"""The one validation function: messages in, columns of valid events and dead letters out.

What it gives follows from the messages and the catalogue alone: no clock, and no trace of where batches were cut.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from schemas.catalogue import Catalogue, ModelHistory, PublishedSpec
from schemas.codecs import Block, decode_batch
from schemas.codecs.blocks import NAMES_MAX, Positions, Refusal
from schemas.columns import EventColumns, Ints, Kind, concatenate
from schemas.events import DeadLetter
from schemas.fields import (
    read_extra,
    read_features,
    read_labels,
    read_output,
    read_segments,
    read_traces,
    read_versions,
)
from schemas.messages import MessageBatch
from schemas.parts import CELLS_MAX, join_parts, prune
from schemas.problems import Problem, Problems
from schemas.texts import no_texts
from schemas.timestamps import read_times
from schemas.topics import WATERMARK_HEADER
from schemas.values import read_required

FUTURE_MS = 300_000
RAW_BYTES_MAX = 65_536
STAGE = "validate"


@dataclass(slots=True)
class Validated:
    """What became of a batch: one `columns` a model, `dead` in log order, `watermarks` as (offset, model, ts_ms).

    A model has several `columns`, in log order, where its events bring ever new names of undeclared features.

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
    return _Validation(kind, batch, catalogue, privacy_key).run()


class _Validation:
    """One run over one batch."""

    def __init__(self, kind: Kind, batch: MessageBatch, catalogue: Catalogue, privacy_key: bytes) -> None:
        self.kind = kind
        self.batch = batch
        self.catalogue = catalogue
        self.privacy_key = privacy_key
        self.result = Validated()
        # Refused rows by (message, row), so that they can be put in log order at the end.
        self.dead: list[tuple[int, int, DeadLetter]] = []
        # What is valid of each model, in parts, and the features that its spec declares.
        self.parts: dict[str, list[EventColumns]] = {}
        self.declared: dict[str, set[str]] = {}

    def run(self) -> Validated:
        for part in decode_batch(self.batch, self._read_watermarks()):
            if isinstance(part, Refusal):
                self._refuse(part, "")
            else:
                self._read_block(part)
        self.dead.sort(key=lambda entry: entry[:2])
        self.result.dead = [letter for _, _, letter in self.dead]
        self.result.columns = [
            columns for model, parts in self.parts.items() for columns in join_parts(parts, self.declared[model])
        ]
        self.result.num_events = len(self.dead) + sum(columns.num_rows for columns in self.result.columns)
        return self.result

    def _read_watermarks(self) -> frozenset[int]:
        """Take out the messages that are watermarks; give their indices."""
        taken = set()
        for index, headers in self.batch.headers.items():
            sent = next((content for name, content in headers if name == WATERMARK_HEADER), None)
            if sent is None or self.batch.values[index] is not None:
                continue
            taken.add(index)
            model = (self.batch.keys.get(index) or b"").decode("utf-8", "replace")
            try:
                ts_ms = int(sent)
                if abs(ts_ms) >= 2**62:
                    raise ValueError("out of range")
            except ValueError:
                sentence = "The watermark's header is no number. Send epoch milliseconds in digits."
                self._refuse(Refusal(index, 0, Problem("malformed", WATERMARK_HEADER, sentence), sent), model)
                continue
            if self._history(model) is None:
                self._refuse(Refusal(index, 0, _unknown_model(model), sent), model)
            else:
                self.result.watermarks.append((int(self.batch.offsets[index]), model, ts_ms))
        return frozenset(taken)

    def _history(self, model: str) -> ModelHistory | None:
        history = self.catalogue.get(model)
        if history is None and model:
            self.result.unknown_models.add(model)
        return history

    def _read_block(self, block: Block) -> None:
        """Split a block by model, refusing the rows that name none."""
        models, problems = read_required(block.column("model"), "model", "Name the model as in its spec.")
        codes, names = models.factorize()
        if len(names) == 1 and not problems:
            self._read_model(names[0], block)
            return
        self._refuse_rows(block, problems, "")
        codes = codes.copy()
        codes[list(problems)] = -1
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes, np.arange(len(names)), side="right", sorter=order).tolist()
        first = np.searchsorted(codes, 0, sorter=order)
        for name, begin, end in zip(names, [int(first), *ends[:-1]], ends, strict=True):
            if end > begin:
                self._read_model(name, block.take(order[begin:end]))

    def _read_model(self, model: str, block: Block) -> None:
        """Read the rows of one model, each under the spec version in force at its time."""
        num_names = block.num_names()
        if len(block.row) > 1 and (num_names >= NAMES_MAX or num_names * len(block.row) > CELLS_MAX):
            half = len(block.row) // 2
            self._read_model(model, block.take(np.arange(half)))
            self._read_model(model, block.take(np.arange(half, len(block.row))))
            return
        history = self._history(model)
        if history is None:
            problem = _unknown_model(model)
            self._refuse_rows(block, dict.fromkeys(range(len(block.row)), problem), model)
            return
        record_ids, problems = read_required(
            block.column("record_id"), "record_id", "Give each record an id of its own."
        )
        ts, found = read_times(block.column("ts"))
        _add(problems, found)
        _add(problems, self._find_future(ts, block.message))
        versions = history.index_in_force(ts)
        present: list[int] = [0] if len(history.versions) == 1 else np.unique(versions).tolist()
        parts: list[EventColumns] = []
        for version in present:
            published = history.versions[version]
            if len(present) == 1:
                chosen, rows = block, None
            else:
                rows = np.flatnonzero(versions == version)
                chosen = block.take(rows)
            columns, found = self._read_rows(chosen, published)
            columns.record_id = record_ids if rows is None else record_ids.take(rows)
            columns.ts = ts if rows is None else ts[rows]
            _add(problems, found if rows is None else {int(rows[position]): found[position] for position in found})
            parts.append(columns)
        joined = concatenate(parts)
        if len(parts) > 1:
            order = np.concatenate([np.flatnonzero(versions == version) for version in present])
            joined = joined.take(np.argsort(order))
        if problems:
            self._refuse_rows(block, problems, model)
            kept = np.ones(joined.num_rows, dtype=np.bool_)
            kept[list(problems)] = False
            joined = joined.take(kept)
        if joined.num_rows:
            declared = self.declared.setdefault(model, set())
            declared.update(*(history.versions[version].spec.features for version in present))
            self.parts.setdefault(model, []).append(prune(joined, declared))

    def _read_rows(self, block: Block, published: PublishedSpec) -> tuple[EventColumns, Problems]:
        """Read what the kind has beside id and time; `record_id` and `ts` are the caller's to fill in."""
        spec = published.spec
        problems: Problems = {}
        segment, found = read_segments(block, spec, self.privacy_key)
        _add(problems, found)
        trace_id, found = read_traces(block)
        _add(problems, found)
        extra, found = read_extra(block, self.kind)
        _add(problems, found)
        columns = EventColumns(
            kind=self.kind,
            model=spec.model,
            offset=self.batch.offsets[block.message],
            row=block.row,
            ts=np.empty(0, dtype=np.int64),
            record_id=no_texts(0),
            segment=segment,
            trace_id=trace_id,
            extra=extra,
        )
        if self.kind == "labels":
            columns.label, columns.label_text, found = read_labels(block, spec.task)
            _add(problems, found)
            return columns, problems
        if self.kind == "predictions":
            columns.model_version, found = read_versions(block)
            _add(problems, found)
            output = read_output(block, spec.task)
            columns.prediction, columns.prediction_text = output.prediction, output.prediction_text
            columns.score, columns.scores = output.score, output.scores
            _add(problems, output.problems)
        features = read_features(block, spec, self.privacy_key, required=self.kind == "records")
        columns.numbers, columns.texts = features.numbers, features.texts
        columns.coerced = features.coerced
        columns.has_features = features.present if self.kind == "predictions" else None
        _add(problems, features.problems)
        return columns, problems

    def _find_future(self, ts: Ints, message: Positions) -> Problems:
        """Compare event times with the messages' Kafka timestamps, never with the clock."""
        arrived = self.batch.timestamps[message]
        late = np.flatnonzero((arrived > 0) & (ts > arrived + FUTURE_MS)).tolist()
        sentence = (
            "ts is more than 5 minutes after the message arrived. Send UTC, in milliseconds and not in smaller units."
        )
        return dict.fromkeys(late, Problem("future", "ts", sentence))

    def _refuse_rows(self, block: Block, problems: Problems, model: str) -> None:
        for (position, problem), raw in zip(problems.items(), block.raw(list(problems)), strict=True):
            self._refuse(Refusal(int(block.message[position]), int(block.row[position]), problem, raw), model)

    def _refuse(self, refusal: Refusal, model: str) -> None:
        raw, encoding = _write_raw(refusal.raw)
        letter = DeadLetter(
            model=model,
            reason=refusal.problem.reason,
            message=refusal.problem.message,
            raw=raw,
            stage=STAGE,
            at=int(self.batch.timestamps[refusal.message]),
            topic=self.batch.topic,
            topic_id=self.batch.topic_id,
            partition=self.batch.partition,
            offset=int(self.batch.offsets[refusal.message]),
            row=refusal.row,
            path=refusal.problem.path,
            raw_encoding=encoding,
        )
        self.dead.append((refusal.message, refusal.row, letter))


def _unknown_model(model: str) -> Problem:
    return Problem("unknown_model", "model", f"There is no model {model[:100]!r}. Declare it with `driftloop apply`.")


def _add(problems: Problems, more: Problems) -> None:
    for position, problem in more.items():
        problems.setdefault(position, problem)


def _write_raw(raw: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    """Give a row's bytes as text, or as base64 where they are none; cut off at 64 KiB."""
    cut = raw[:RAW_BYTES_MAX]
    try:
        return cut.decode(), "utf-8"
    except UnicodeDecodeError as error:
        # A cut through a character is no reason for base64.
        if len(raw) > len(cut) and error.start > len(cut) - 4:
            return cut[: error.start].decode(), "utf-8"
        return base64.b64encode(cut).decode(), "base64"

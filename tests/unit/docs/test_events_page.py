"""docs/events.md names every topic and every reason of a dead letter, and its examples are valid events."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas.columns import Kind
from schemas.events import Alert
from schemas.messages import MessageBatch
from schemas.problems import Reason
from schemas.topics import TOPICS
from schemas.validation import validate
from tests.samples import KEY, batch_of, catalogue_of, publish

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "events.md").read_text()
SPEC = """
model: fraud
task: binary
reference: {file: reference.parquet}
windows: {size: 1h}
"""


def list_first_cells(header: str) -> set[str]:
    rows = PAGE.split(header, 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `([^`]+)`", rows, re.MULTILINE))


def validate_as(kind: Kind, batch: MessageBatch) -> Any:
    batch.timestamps[:] = 1_800_000_000_000
    return validate(kind, batch, catalogue_of(publish(SPEC)), KEY)


def test_every_topic_is_named() -> None:
    assert list_first_cells("| topic | what") == set(TOPICS)


def test_every_reason_is_named() -> None:
    assert list_first_cells("| reason | means") == set(get_args(Reason))


def test_the_examples_are_valid_events() -> None:
    (block,) = re.findall(r"```json\n(\{\"record_id\".*?)```", PAGE, re.DOTALL)
    kinds: tuple[Kind, ...] = ("records", "predictions", "labels")
    for kind, line in zip(kinds, block.splitlines(), strict=True):
        validated = validate_as(kind, batch_of([json.loads(line)]))
        assert (validated.dead, validated.num_events) == ([], 1)


def test_the_arrow_example_is_a_valid_message() -> None:
    (code,) = re.findall(r"```python\n(import pyarrow.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    validated = validate_as("records", batch_of([names["value"]]))
    assert (validated.dead, validated.num_events) == ([], 2)


def test_the_watermark_example_is_one() -> None:
    ((key, header, ms),) = re.findall(r'key="(\w+)", partition=0, headers=\{"([\w-]+)": "(\d+)"\}', PAGE)
    batch = batch_of([None])
    batch.headers[0], batch.keys[0] = [(header, ms.encode())], key.encode()
    validated = validate_as("records", batch)
    assert validated.dead == []
    assert validated.watermarks == [(0, "fraud", int(ms))]


def test_the_alert_has_the_fields_that_are_sent() -> None:
    (block,) = re.findall(r"```json\n(\{\"alert_id\".*?)```", PAGE, re.DOTALL)
    assert set(json.loads(block)) <= {field.encode_name for field in msgspec.structs.fields(Alert)}

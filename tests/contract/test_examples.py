"""The published examples and schemas: yesterday's events decode for ever, and to what they decoded to yesterday.

`expected/inbound.json` is only ever added to.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from schemas.events import decode_event, encode_event
from schemas.jsonschemas import EVENT_TYPES, FOLDER, export_schemas
from schemas.spec import decode_published, encode_published
from schemas.topics import INBOUND, TOPICS
from tests.samples import as_rows, catalogue_of, publish, read

EXAMPLES = FOLDER.parent / "examples"
EXPECTED = Path(__file__).parent / "expected" / "inbound.json"
INBOUND_FILES = sorted(path for topic in INBOUND for path in (EXAMPLES / topic).iterdir())
JSON_FILES = sorted(EXAMPLES.glob("*/*.json"))
SPECS = [publish(path.read_text()) for path in sorted((EXAMPLES / "specs").glob("*.yaml"))]
SCHEMAS = export_schemas()


def name_of(path):
    return f"{path.parent.name}/{path.name}"


def decode(path):
    found = read(path.parent.name, [path.read_bytes()], *SPECS)
    assert found.dead == []
    return as_rows(found.columns)


@pytest.mark.parametrize("path", INBOUND_FILES, ids=name_of)
def test_inbound_examples_decode_as_ever(path):
    assert json.loads(json.dumps(decode(path))) == json.loads(EXPECTED.read_text())[name_of(path)]


def test_no_expectation_lost_its_example():
    assert set(json.loads(EXPECTED.read_text())) == set(map(name_of, INBOUND_FILES))


@pytest.mark.parametrize("path", JSON_FILES, ids=name_of)
def test_examples_fit_their_schemas(path):
    content = json.loads(path.read_text())
    for event in content if isinstance(content, list) else [content]:
        jsonschema.validate(event, SCHEMAS[path.parent.name], format_checker=jsonschema.FormatChecker())


OUTBOUND_FILES = [path for path in JSON_FILES if path.parent.name not in (*INBOUND, "specs")]


@pytest.mark.parametrize("path", OUTBOUND_FILES, ids=name_of)
def test_outbound_examples_survive_reading_and_writing(path):
    event = decode_event(EVENT_TYPES[path.parent.name], path.read_bytes())
    assert json.loads(encode_event(event)) == json.loads(path.read_text())


def test_published_spec_survives_reading_and_writing():
    value = (EXAMPLES / "specs" / "published.json").read_bytes()
    assert json.loads(encode_published(decode_published(value))) == json.loads(value)


def test_exported_schemas_are_current():
    exported = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    assert exported == SCHEMAS, "run `python -m schemas.jsonschemas`"


def test_every_topic_has_a_type_and_an_example():
    assert set(EVENT_TYPES) == set(TOPICS)
    assert {path.parent.name for path in JSON_FILES} == set(TOPICS)


def test_schema_of_the_spec_agrees_with_its_reader():
    yaml = pytest.importorskip("yaml")
    for path in (EXAMPLES / "specs").glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMAS["model-spec"])
    wrong = {"model": "m", "task": "binary", "reference": {}, "windows": {"size": "1h"}, "segmets": []}
    with pytest.raises(jsonschema.ValidationError, match="segmets"):
        jsonschema.validate(wrong, SCHEMAS["model-spec"])


def test_catalogue_of_the_examples():
    assert catalogue_of(*SPECS).models() == ["fraud", "prices", "species"]

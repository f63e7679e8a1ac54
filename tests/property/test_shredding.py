"""Whatever JSON arrives, the kernel gives what a strict reader gives, or leaves the message alone."""

from __future__ import annotations

import itertools
import json
import math
import random
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codecs.blocks import MAPS, Block
from schemas.codecs.json import decode_json
from schemas.codecs.shredding import shred_json
from schemas.messages import MessageBatch, MessageValues
from schemas.validation import validate
from schemas.values import listed
from tests.property.test_validation import CATALOGUE
from tests.samples import ARRIVED_MS, KEY, as_rows

KNOWN = frozenset({"record_id", "model", "ts", *MAPS})

KEYS = st.sampled_from(["record_id", "model", "ts", "score", *MAPS, "a", "ä", "", "a long name of a column, very long",
                        "x" * 70, 'quo"ted', "\n"]) | st.text(max_size=20)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
    | st.integers(-(2**70), 2**70) | st.decimals(allow_nan=False, allow_infinity=False).map(float)
)  # fmt: skip
# A zero byte within a text is unusual.
USUAL = SCALARS.filter(lambda value: not isinstance(value, str) or "\0" not in value)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.dictionaries(KEYS, SCALARS | st.dictionaries(KEYS, SCALARS, max_size=4) | NESTED, max_size=6)


@st.composite
def texts_of_events(draw: st.DrawFn) -> bytes:
    """Write an event in one of the ways there are, and damage it now and then."""
    event = draw(EVENTS)
    text = json.dumps(
        event,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")])),
        indent=draw(st.none() | st.integers(0, 2)),
    ).encode()
    if draw(st.booleans()):
        text = draw(st.sampled_from([b" ", b"\n", b""])) + text + draw(st.sampled_from([b" \r\n\t", b""]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, max(0, len(text) - 1)))
        piece = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"\\", b'"', b"\\u00e4", b"\\ud83d\\ude00", b"\\ud83d", b"1e5", b"-", b"0", b"\0", b","])
        )
        text = text[:place] + piece + text[place + draw(st.integers(0, 3)) :]
    return text


def blocks_of(values: list[bytes]) -> tuple[list[Block], list[int]]:
    """Give the blocks that the kernel makes, and the messages that it leaves alone."""
    blocks, unusual = [], []
    for block, left in shred_json(MessageValues.of(values), np.arange(len(values))):
        blocks += [] if block is None else [block]
        unusual += left.tolist()
    return blocks, unusual


def describe(block: Block) -> dict[str, object]:
    """Give all that a block hands out; `repr` tells 1, 1.0 and True apart, and 0.0 from -0.0."""
    found: dict[str, object] = {}
    fields = block.unknown_fields(frozenset()) or [None] * len(block.row)
    names = {name for event in fields for name in event or {}}
    for name in names - set(MAPS):
        found[name] = repr(listed(block.column(name)))
    for name in MAPS:
        mapping = block.mapping(name)
        found[f"{name} is there"] = mapping.present.tolist(), mapping.problems
        found |= {f"{name}.{key}": repr(listed(values)) for key, values in mapping.columns.items()}
    found["all"] = [json.dumps(event, sort_keys=True) for event in fields]
    unknown = block.unknown_fields(KNOWN) or [None] * len(block.row)
    found["unknown"] = [json.dumps(event, sort_keys=True) for event in unknown]
    found["sent"] = block.raw(list(range(len(block.row))))
    return found


def check(values: list[bytes]) -> int:
    """Compare the kernel with the other reader; gives the number of messages that it took."""
    blocks, unusual = blocks_of(values)
    assert sorted([*unusual, *(index for block in blocks for index in block.message.tolist())]) == [*range(len(values))]
    for block in blocks:
        messages = block.message.tolist()
        (expected,) = decode_json([values[index] for index in messages], messages)
        assert describe(block) == describe(expected)
        chosen = np.arange(len(messages))[::2]
        assert describe(block.take(chosen)) == describe(expected.take(chosen))
    return sum(len(block.row) for block in blocks)


@settings(deadline=None)
@given(st.lists(texts_of_events(), max_size=12))
def test_the_kernel_gives_what_a_strict_reader_gives(values: list[bytes]) -> None:
    check(values)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20) | st.just(b"{}") | st.just(b'{"a":1}'), max_size=12))
def test_any_bytes(values: list[bytes]) -> None:
    check(values)


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text("abä", min_size=1, max_size=20), USUAL, max_size=8),
        min_size=1, max_size=12,
    ),
    st.booleans(),
)  # fmt: skip
def test_the_usual_is_taken(features: list[dict[str, object]], ascii_only: bool) -> None:
    values = [
        json.dumps({"record_id": f"r{i}", "ts": 1, "features": each}, ensure_ascii=ascii_only).encode()
        for i, each in enumerate(features)
    ]
    assert check(values) == len(values)


@pytest.mark.parametrize(
    "text",
    [b"{", b"{}}", b'{"a":1,}', b'{"a":1 "b":2}', b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}',
     b'{"a":-}', b'{"a":1e999}', b'{"a":[1e999]}', b'{"a":NaN}', b'{"a":nul}', b'{"a":truefalse}', b'{"a":"\\ud800"}',
     b'{"a":"\\ude00\\ud83d"}', b'{"a":"\\ud83d\\u0041"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}',
     b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xe2\x82"}', b'{"a":"\x1f"}', b'{"a":"\\x"}', b'{"a":"\\u12g4"}', b'{"a":"',
     b'{"a":"\\', b'{"a":"\\u00', b'{"a":1,"a":2}', b'{"a":1}\0', b'{"\0":1}', b"[]", b"[{}]", b"1", b"", b" ", b"\0",
     b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", b'{"features":{"a":1,"a":1}}', b'{"features":{"a":1}', b"{1:2}",
     b'{"a":1' + b"0" * 400 + b"}", b'{"a":"\\u0000"}', b'{"a":"\\u0000","b":}'],
)  # fmt: skip
def test_the_unusual_is_left_alone_and_leaves_no_trace(text: bytes) -> None:
    usual = [b'{"a":1,"features":{"x":1}}', b'{"a":"b","features":{"y":2}}']
    blocks, unusual = blocks_of([usual[0], text, usual[1]])
    assert unusual == [1]
    (block,) = blocks
    (expected,) = decode_json(usual, [0, 2])
    assert describe(block) == describe(expected)
    assert blocks_of([text])[1] == [0]


def read_number(text: str) -> object:
    blocks, _ = blocks_of([f'{{"a":{text}}}'.encode()])
    return listed(blocks[0].column("a"))[0]


@pytest.mark.parametrize(
    "text",
    ["0", "-0", "-0.0", "0.0e999", "1e-400", "4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324",
     "2.2250738585072014e-308", "2.2250738585072011e-308", "1.7976931348623157e308", "1.7976931348623158e308",
     "9007199254740992", "9007199254740993", "9007199254740993.0", "-9007199254740993", "18446744073709551616",
     "9007199254740992.5", "9007199254740993.00000000000000000000000000000001", "1e22", "1e23", "8.988465674311579e307",
     "0." + "0" * 330 + "49", "1" + "0" * 290 + ".5", "0.1000000000000000055511151231257827021181583404541015625",
     "7205759403792793199999e-5", "1.00000000000000011102230246251565404236316680908203125",
     "1.00000000000000011102230246251565404236316680908203124", "123456789012345678901234567890", "1e0000000000001"],
)  # fmt: skip
def test_hard_numbers(text: str) -> None:
    expected = msgspec.json.decode(text.encode())
    assert repr(read_number(text)) == repr(expected)
    assert repr(read_number(f"-{text}" if text[0] != "-" else text[1:])) == repr(
        msgspec.json.decode(f"-{text}" if text[0] != "-" else text[1:])
    )


def test_numbers_are_rounded_as_pythons() -> None:
    rng = random.Random(7)
    texts = []
    for _ in range(30_000):
        bits = struct.unpack("<d", rng.randbytes(8))[0]
        if math.isfinite(bits):
            texts.append(repr(bits))
        digits = rng.randint(1, 24)
        point = rng.randint(0, digits)
        number = "".join(rng.choices("0123456789", k=digits))
        exponent = f"e{rng.randint(-330, 290)}" if rng.random() < 0.5 else ""
        texts.append(f"{int(number[:point] or '0')}.{number[point:] or '0'}{exponent}")
        # Halves of the last place, and just beside them, are where rounding goes wrong.
        whole = rng.getrandbits(53) * 2 + 1
        texts += [f"{whole}.0", f"{whole}.0000000000000000000001", f"{whole}e{rng.randint(-30, 30)}"]
    values = [f'{{"a":{text}}}'.encode() for text in texts]
    blocks, unusual = blocks_of(values)
    assert unusual == []
    found = [number for block in blocks for number in listed(block.column("a"))]
    wrong = [(text, number) for text, number in zip(texts, found, strict=True) if repr(number) != repr(float(text))]
    assert wrong[:5] == []


def test_many_columns_and_many_messages() -> None:
    rng = random.Random(3)
    wide = [json.dumps({"features": {f"f{rng.randrange(700)}": j for j in range(30)}}).encode() for _ in range(400)]
    assert check(wide) == 400
    long = [json.dumps({"a": i, "b": None if i % 3 else str(i)}).encode() for i in range(20_000)]
    assert check(long) == 20_000
    mixed = [b"[1]" if i % 2 else b'{"a":1}' for i in range(10_000)]
    assert check(mixed) == 5_000


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.lists(st.integers(0, 100), max_size=3))
def test_usual_and_unusual_events_stand_in_the_order_of_the_log(kinds: list[bool], cuts: list[int]) -> None:
    """Of usual events, of lists of events and of events with lists in them, the columns have all, in order."""
    values = []
    for i, is_usual in enumerate(kinds):
        event = {"record_id": f"r{i}", "model": "fraud", "ts": 1_767_225_600_000, "features": {"amount": i}}
        many = [event, {**event, "features": {"shape": [i], "note": "x"}}, {"record_id": ""}]
        values.append(json.dumps(event if is_usual else many).encode())
    outcomes = []
    for borders in ([0, len(values)], sorted({0, len(values), *(cut % len(values) for cut in cuts)})):
        rows, dead = [], []
        for begin, end in itertools.pairwise(borders):
            offsets = np.arange(begin, end)
            batch = MessageBatch("records", "t", 0, offsets, np.full(end - begin, ARRIVED_MS), values[begin:end])
            found = validate("records", batch, CATALOGUE, KEY)
            assert len(found.columns) == 1
            rows += as_rows(found.columns)
            dead += [(letter.offset, letter.row) for letter in found.dead]
        outcomes.append((rows, dead))
    assert outcomes[0] == outcomes[1]
    places = [(row["offset"], row["row"]) for row in outcomes[0][0]]
    expected = [(i, row) for i, is_usual in enumerate(kinds) for row in range(1 if is_usual else 2)]
    assert places == expected
    assert outcomes[0][1] == [(i, 2) for i, is_usual in enumerate(kinds) if not is_usual]


def test_of_wide_messages_a_few_are_taken() -> None:
    values = [json.dumps({"features": {f"f{i}-{j}": j for j in range(20)}, "a": i}).encode() for i in range(50)]
    (block,) = blocks_of(values)[0]
    taken = block.take(np.array([3, 40]))
    assert len(taken.mapping("features").columns) == 40
    (expected,) = decode_json([values[3], values[40]], [3, 40])
    assert describe(taken) == describe(expected)
    assert taken.message.tolist() == [3, 40]

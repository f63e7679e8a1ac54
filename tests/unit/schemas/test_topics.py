"""What topics are declared with fits what the contract promises."""

from __future__ import annotations

from schemas.codecs import MESSAGE_BYTES_MAX
from schemas.topics import INBOUND, TOPICS


def test_inbound_topics_take_the_largest_message_and_a_little_more() -> None:
    for name in INBOUND:
        assert int(TOPICS[name].options()["max.message.bytes"]) > MESSAGE_BYTES_MAX + 100_000

"""Stops a topic of which nearly nothing can be decoded: somebody writes something else there. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.events import DeadLetter

UNDECODABLE = frozenset({"malformed", "unknown_encoding", "empty"})

# Judged over at least this many messages, so that a burst of a bad producer beside good ones does not count.
NUM_MESSAGES_MIN = 1_000
SHARE_MAX = 0.95

# Long enough not to fill the topic of dead letters, short enough to go on soon after the producer is mended.
PAUSE_S = 60.0


class Breaker:
    """One topic's breaker: open after `NUM_MESSAGES_MIN` messages of which `SHARE_MAX` could not be decoded."""

    def __init__(self) -> None:
        self._num_messages = 0
        self._num_undecodable = 0

    def note(self, num_messages: int, dead: Sequence[DeadLetter]) -> bool:
        """Take in a batch; true when the topic is to be paused for `PAUSE_S`, which also begins a new count."""
        self._num_messages += num_messages
        self._num_undecodable += len({letter.offset for letter in dead if letter.reason in UNDECODABLE})
        if self._num_messages < NUM_MESSAGES_MIN:
            return False
        is_open = self._num_undecodable >= SHARE_MAX * self._num_messages
        self._num_messages = self._num_undecodable = 0
        return is_open

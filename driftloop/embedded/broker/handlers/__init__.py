"""What each request does: functions from a request's fields to a response's, one module an area.

A handler gets the broker, who is calling, and the fields; it returns the fields of the response, or None where the
client expects none. Keys that it leaves out get the table's defaults.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from driftloop.embedded.broker.broker import Broker
from driftloop.embedded.broker.wire import Message


@dataclass(frozen=True)
class Call:
    """Who calls, and with which version of the interface."""

    version: int
    client_id: str
    client_host: str


Handler = Callable[[Broker, Call, Message], Awaitable[Message | None]]
